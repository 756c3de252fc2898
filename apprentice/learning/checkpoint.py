"""What an interrupted stage resumes from: folders that are either whole or ignored."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apprentice.records.files import FREE_SPACE, PART, atomic_folder, size_of

MARKER = "state.json"


class CheckpointStore:
    """Numbered checkpoints in one folder; `keep` of them stay.

    A checkpoint is written under a temporary name, marked by `state.json` last, flushed, and renamed; older ones go only after that.
    """

    def __init__(self, folder: Path, keep: int = 1):
        self._folder, self._keep = folder, keep

    def save(self, step: int, write: Callable[[Path], None], state: dict[str, Any]) -> None:
        """Writes one checkpoint.

        Before it is written, the disk must have room for one as large as the newest.

        Args:
            step: its number; a later one is higher.
            write: fills the folder it is given.
            state: small and JSON; what `latest` gives back.

        Raises:
            ApprenticeError: the disk is full or not writable; the previous checkpoint is intact.
        """
        final = self._folder / f"{step:08d}"
        whole = self._whole()
        with atomic_folder(final, need=size_of(whole[-1]) if whole else 0, todo=f"{FREE_SPACE}: it continues from the previous checkpoint") as part:
            write(part)
            (part / MARKER).write_text(json.dumps(state), encoding="utf-8")
        for old in self._whole()[: -self._keep]:
            shutil.rmtree(old)

    def latest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest whole checkpoint and its state; None where there is none. Half-written ones are removed."""
        whole = self._whole()
        if self._folder.is_dir():
            for path in self._folder.iterdir():
                if path.is_dir() and path not in whole:
                    shutil.rmtree(path)
        return (whole[-1], json.loads((whole[-1] / MARKER).read_text(encoding="utf-8"))) if whole else None

    def clear(self) -> None:
        """Removes all of them: the work they were for is done."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _whole(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        return sorted(path for path in self._folder.iterdir() if path.suffix != PART and (path / MARKER).is_file())
