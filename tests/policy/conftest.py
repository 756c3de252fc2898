"""Tiny models that need no network."""

import shutil
from pathlib import Path

import pytest

from tests.tiny import make_tiny_checkpoint


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), seed=0)


@pytest.fixture(scope="session")
def other(tmp_path_factory) -> Path:
    """The same architecture with other weights."""
    return make_tiny_checkpoint(tmp_path_factory.mktemp("other"), seed=1)


@pytest.fixture
def copy(tiny, tmp_path) -> Path:
    """A copy of the tiny checkpoint for a test to damage."""
    return shutil.copytree(tiny, tmp_path / "model")
