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


HEAVY = (
    "learning",
    "online",
    "policy/test_folders.py",
    "policy/test_loading.py",
    "policy/test_packaged.py",
    "policy/test_policy_server.py",
    "policy/test_transformers_engine.py",
)
"""Tests that load models or start servers. Those that are slow or use AppWorld are found by their marker and fixture."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the heavy tests, and put files with slow tests first, so that two processes end at about the same time."""
    folder = Path(__file__).parent
    for item in items:
        listed = any(item.path.is_relative_to(folder / place) for place in HEAVY)
        if listed or item.get_closest_marker("slow") or item.get_closest_marker("gpu") or "appworld_python" in item.fixturenames:
            item.add_marker("heavy")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


class LeftOut:
    """Counts the tests that the marker expression leaves out; with pytest-xdist only the workers know them."""

    def __init__(self, config: pytest.Config):
        self._config, self._count = config, 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._count += len(items)

    def pytest_sessionfinish(self) -> None:
        if hasattr(self._config, "workeroutput"):
            self._config.workeroutput["left_out"] = self._count

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        self._count = max(self._count, getattr(node, "workeroutput", {}).get("left_out", 0))

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if self._count:
            terminalreporter.write_line(f"{self._count} tests were left out (-m {self._config.option.markexpr!r})")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut(config))
