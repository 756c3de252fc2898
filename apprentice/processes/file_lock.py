"""Advisory file locks between processes. The kernel releases a lock when its holder ends, however it ends.

This module uses flock(2) rather than the package filelock: the set-up needs a lock before any package is installed, and
stages share a lock on params.yaml, which filelock offers only through an SQLite database.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, *, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Hold a lock on `path`, which is created if it does not exist. Its folder must exist.

    Args:
        path: the lock file; its content is left alone.
        shared: allow other holders that also ask for a shared lock; by default the lock is exclusive.
        wait: block until the lock is free.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file cannot be opened, or its file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    with path.open("a") as file:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
        yield
