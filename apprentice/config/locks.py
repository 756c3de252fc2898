"""Locks on a project's folder: one run at a time, and no change to params.yaml while a stage runs."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from apprentice.config.layout import RUNTIME
from apprentice.errors import ApprenticeError
from apprentice.processes.file_lock import locked
from apprentice.records.files import make_private, write_errors


@contextmanager
def only_run(root: Path = Path()) -> Iterator[None]:
    """Hold the folder for one run.

    Raises:
        ApprenticeError: another run holds it.
    """
    refusal = ApprenticeError("another run works in this folder; nothing was changed", where=root.resolve(), todo="wait until it has ended, then run again")
    with _locked(root / RUNTIME / "run.lock", refusal):
        yield


@contextmanager
def reading_params(root: Path = Path()) -> Iterator[None]:
    """Keep params.yaml from being overridden. Any number of stages may hold this lock at the same time.

    Raises:
        ApprenticeError: another process is writing params.yaml.
    """
    refusal = ApprenticeError("another process is writing this file", where=root / "params.yaml", todo="run again")
    with _locked(_params_lock(root), refusal, shared=True):
        yield


@contextmanager
def writing_params(root: Path = Path()) -> Iterator[None]:
    """Allow this process to change params.yaml.

    Raises:
        ApprenticeError: a stage is running with it, or another process is writing it.
    """
    refusal = ApprenticeError("a stage is running with these parameters; nothing was changed", where=root / "params.yaml", todo="wait until it has ended")
    with _locked(_params_lock(root), refusal):
        yield


def _params_lock(root: Path) -> Path:
    return root / RUNTIME / "params.lock"


@contextmanager
def _locked(path: Path, refusal: ApprenticeError, *, shared: bool = False) -> Iterator[None]:
    """Hold a lock, or raise `refusal` if another process holds it."""
    with write_errors(path, path):
        make_private(path.parent)
        path.touch()
    with ExitStack() as held:
        try:
            held.enter_context(locked(path, shared=shared, wait=False))
        except BlockingIOError:
            raise refusal from None
        except OSError as error:
            todo = "move the project to a file system that supports locks"
            raise ApprenticeError(f"cannot be locked: {error.strerror}", where=path, todo=todo) from error
        yield
