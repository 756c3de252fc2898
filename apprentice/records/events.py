"""A stage's progress as one JSONL file, which the terminal, Prefect artifacts, MLflow and the report read."""

import json
import time
from pathlib import Path
from typing import Any

from apprentice.records.files import write_errors


class Progress:
    """Appends one stage's events to a file, one JSON object per line.

    Every event has `time` (Unix seconds), `stage` and `kind`. The kinds are `begin`, `end`, `note` (`text`), `progress`
    (`phase`, `done`, `total`) and `metrics` (`step`, `values`).
    """

    def __init__(self, path: Path, stage: str):
        with write_errors(path, path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self.stage = path, stage

    def begin(self) -> None:
        """Report that the stage starts."""
        self._append(kind="begin")

    def end(self) -> None:
        """Report that the stage succeeded."""
        self._append(kind="end")

    def note(self, text: str) -> None:
        """Report something that a person should read."""
        self._append(kind="note", text=text)

    def advance(self, phase: str, done: int, total: int) -> None:
        """Report that `done` of the `total` units of a phase are finished."""
        self._append(kind="progress", phase=phase, done=done, total=total)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Report the metrics of one step."""
        self._append(kind="metrics", step=step, values=values)

    def _append(self, **event) -> None:
        line = json.dumps({"time": round(time.time(), 3), "stage": self.stage, **event}, ensure_ascii=False)
        with write_errors(self._path, self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


class EventReader:
    """Reads the events that were appended to a file since the last call.

    Args:
        path: the events file; it need not exist yet.
        from_end: whether to skip the events that the file already holds.
    """

    def __init__(self, path: Path, *, from_end: bool = False):
        self._path = path
        self._position = path.stat().st_size if from_end and path.exists() else 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """Return the new events in order.

        A line without its line feed is kept for the next call; a line that an interruption cut is skipped.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            chunk = file.read()
        self._position += len(chunk)
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [event for line in lines if (event := _event(line))]


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return every event of a file; none if it does not exist."""
    return EventReader(path).read()


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except ValueError:  # an interruption cut the line
        return None
