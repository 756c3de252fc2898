"""A small generated data root and a running engine, made once."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from apprentice.processes.file_lock import locked
from apprentice.records.fingerprint import fingerprint
from apprentice.usecases.assistant.config import ENGINE
from apprentice.usecases.assistant.environment.client import AppWorldClient
from apprentice.usecases.assistant.environment.episode import EpisodeLimits
from apprentice.usecases.assistant.source.roots import ensure_generated

ROOT = Path(__file__).resolve().parents[3]
SEED, SCENARIOS, VARIANTS = 7, 3, 4
TIMEOUT_S = 6
"""Seconds per block: much more than an honest block takes on a busy machine, and short for an endless one."""
CANARY = "canary-of-the-trainer"
"""A secret in the environment of the process that starts the engine."""


@pytest.fixture(scope="session")
def appworld_python() -> Path:
    """The Python of .venv-appworld."""
    python = ROOT / ".venv-appworld" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no .venv-appworld: run `python3.11 requirements/install.py appworld`")
    return python


@pytest.fixture(scope="session")
def appworld_root(appworld_python: Path) -> Path:
    """A generated data root with a few scenarios, which is reused until the generator changes."""
    generator = fingerprint(*sorted((ENGINE / "generator").rglob("*.py")))
    root = ROOT / ".cache" / "tests" / f"appworld-{generator}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.parent / "lock"):  # tests run in several processes
        return ensure_generated(appworld_python, root, SEED, scenarios=SCENARIOS, variants=VARIANTS).path


@pytest.fixture(scope="session")
def task_ids(appworld_root: Path) -> list[str]:
    """The root's task ids in order."""
    return sorted(path.name for path in (appworld_root / "data" / "tasks").iterdir())


@pytest.fixture(scope="session")
def loop():
    """One event loop for everything that talks to the engine."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def client(appworld_python: Path, appworld_root: Path, loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory):
    """The client of a warm engine with short limits and full isolation, without which the tests are skipped."""
    if not can_isolate():
        pytest.skip("this machine allows neither root nor user namespaces")
    limits = EpisodeLimits(timeout_s=TIMEOUT_S, memory_mb=256, cpu_s=30)
    client = AppWorldClient(appworld_python, appworld_root, tmp_path_factory.mktemp("engine"), limits=limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPRENTICE_TEST_API_KEY", CANARY)
        loop.run_until_complete(client.start())
    yield client
    loop.run_until_complete(client.close())


def can_isolate() -> bool:
    """Return whether this machine allows namespaces, as root or as a user."""
    flags = "-n" if os.geteuid() == 0 else "-Urn"
    return bool(shutil.which("unshare")) and subprocess.run(["unshare", flags, "true"], capture_output=True).returncode == 0
