"""What many tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

from tests.fake_project import make_project

# How long one example takes depends on what else the machine does.
settings.register_profile("apprentice", deadline=None)
settings.load_profile("apprentice")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own with toy stages."""
    return make_project(tmp_path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: two processes that take file after file then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
