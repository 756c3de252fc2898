"""What many tests share."""

from pathlib import Path

import pytest

from tests.fake_project import make_project


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of its own with toy stages."""
    return make_project(tmp_path)
