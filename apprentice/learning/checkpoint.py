"""Checkpoints from which an interrupted stage resumes: folders that are either complete or ignored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apprentice.records.files import FREE_SPACE, PART, atomic_folder, size_of

MARKER = "state.json"


class CheckpointStore:
    """Numbered checkpoints in one folder, of which the newest is kept.

    A checkpoint is written to a temporary folder, flushed, marked as complete by `state.json`, and renamed. Older ones
    are removed after that.
    """

    def __init__(self, folder: Path):
        self._folder = folder

    def save(self, step: int, write: Callable[[Path], None], state: dict[str, Any]) -> None:
        """Writes a checkpoint, if the disk has room for one of the size of the previous checkpoint.

        Args:
            step: number of the checkpoint, higher than that of the previous one.
            write: writes the contents into the given folder.
            state: small JSON values that `latest` returns.

        Raises:
            ApprenticeError: the disk is full or not writable. The previous checkpoint is intact.
        """
        final = self._folder / f"{step:08d}"
        complete = self._complete()
        need = size_of(complete[-1]) if complete else 0
        with atomic_folder(final, need=need, todo=f"{FREE_SPACE}: it continues from the previous checkpoint") as part:
            write(part)
            (part / MARKER).write_text(json.dumps(state), encoding="utf-8")
        for old in self._complete()[:-1]:
            shutil.rmtree(old)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest complete checkpoint and its state, or None. Incomplete checkpoints are removed."""
        complete = self._complete()
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.is_dir() and path not in complete:
                    shutil.rmtree(path)
        return (complete[-1], json.loads((complete[-1] / MARKER).read_text(encoding="utf-8"))) if complete else None

    def clear(self) -> None:
        """Removes all checkpoints."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _complete(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.suffix != PART and (path / MARKER).is_file())
