"""A small generated data root and running workers, made once."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from apprentice.processes.file_lock import locked
from apprentice.records.fingerprint import fingerprint
from apprentice.usecases.assistant.config import ENGINE
from apprentice.usecases.assistant.environment.client import AppWorldWorkers, WorkerLimits
from apprentice.usecases.assistant.source.roots import ensure_generated

ROOT = Path(__file__).resolve().parents[3]
SEED, SCENARIOS, VARIANTS = 7, 3, 4
TIMEOUT_S = 4
CANARY = "canary-of-the-trainer"
"""A secret in the environment of the process that starts the workers."""


@pytest.fixture(scope="session")
def appworld_python() -> Path:
    """The Python of .venv-appworld."""
    python = ROOT / ".venv-appworld" / "bin" / "python"
    if not python.is_file():
        pytest.skip("no .venv-appworld: run `python3.11 requirements/install.py appworld`")
    return python


@pytest.fixture(scope="session")
def appworld_root(appworld_python: Path) -> Path:
    """A generated data root of a few scenarios; kept for the next run of the tests while the generator stays the same."""
    generator = fingerprint(*sorted((ENGINE / "generator").rglob("*.py")))
    root = ROOT / ".cache" / "tests" / f"appworld-{generator}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with locked(root.parent / "lock"):  # tests run in several processes
        return ensure_generated(appworld_python, root, SEED, scenarios=SCENARIOS, variants=VARIANTS).path


@pytest.fixture(scope="session")
def task_ids(appworld_root: Path) -> list[str]:
    """Of the root, in order."""
    return sorted(path.name for path in (appworld_root / "data" / "tasks").iterdir())


@pytest.fixture(scope="session")
def loop():
    """One event loop for everything that talks to the workers."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def workers(appworld_python: Path, appworld_root: Path, loop: asyncio.AbstractEventLoop, tmp_path_factory: pytest.TempPathFactory):
    """Warm workers with short limits, fully isolated or else skipped."""
    if not can_isolate():
        pytest.skip("this machine allows neither root nor user namespaces")
    limits = WorkerLimits(timeout_s=TIMEOUT_S, memory_mb=256, cpu_s=30)
    workers = AppWorldWorkers(appworld_python, appworld_root, tmp_path_factory.mktemp("workers"), limits=limits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APPRENTICE_TEST_API_KEY", CANARY)
        loop.run_until_complete(workers.start())
    yield workers
    loop.run_until_complete(workers.close())


def can_isolate() -> bool:
    """Whether namespaces can be made, as root or as a user."""
    flags = "-n" if os.geteuid() == 0 else "-Urn"
    return bool(shutil.which("unshare")) and subprocess.run(["unshare", flags, "true"], capture_output=True).returncode == 0
