"""Locks on a project's folder: one run at a time, and a params.yaml that stays as it is while a stage runs.

The kernel drops a lock when the process that holds it ends, however it ends.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from apprentice.config.layout import RUNTIME
from apprentice.errors import ApprenticeError
from apprentice.records.files import make_private, write_errors


@contextmanager
def only_run(root: Path = Path()) -> Iterator[None]:
    """Holds the folder for one run.

    Raises:
        ApprenticeError: another run holds it.
    """
    refusal = ApprenticeError("another run works in this folder; nothing was changed", where=root.resolve(), todo="wait until it has ended, then run again")
    with _locked(root / RUNTIME / "run.lock", fcntl.LOCK_EX, refusal):
        yield


@contextmanager
def reading_params(root: Path = Path()) -> Iterator[None]:
    """Keeps overrides out of params.yaml; any number of stages may hold this at a time.

    Raises:
        ApprenticeError: params.yaml is being written.
    """
    refusal = ApprenticeError("is being written by another process", where=root / "params.yaml", todo="run again")
    with _locked(_params_lock(root), fcntl.LOCK_SH, refusal):
        yield


@contextmanager
def writing_params(root: Path = Path()) -> Iterator[None]:
    """Allows this process to change params.yaml.

    Raises:
        ApprenticeError: a stage runs with it, or another process writes it.
    """
    refusal = ApprenticeError("a stage is running with these parameters; nothing was changed", where=root / "params.yaml", todo="wait until it has ended")
    with _locked(_params_lock(root), fcntl.LOCK_EX, refusal):
        yield


def _params_lock(root: Path) -> Path:
    return root / RUNTIME / "params.lock"


@contextmanager
def _locked(path: Path, kind: int, refusal: ApprenticeError) -> Iterator[None]:
    with _opened(path) as file:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        except OSError as error:
            raise ApprenticeError(f"cannot be locked: {error.strerror}", where=path, todo="put the project on a file system with locks") from error
        yield


def _opened(path: Path) -> TextIO:
    with write_errors(path, path):
        make_private(path.parent)
        return path.open("a")
