"""A stage's progress as one JSONL file: what the terminal, Prefect artifacts and MLflow all read."""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from apprentice.records.files import write_errors

T = TypeVar("T")


class Progress:
    """Appends one stage's events to a file; each line is whole.

    Events: `{"time": s, "stage": name, "kind": "progress", "phase": words, "done": n, "total": n}`,
    `{…, "kind": "metrics", "step": n, "values": {name: number}}`, `{…, "kind": "note", "text": words}`, and `begin` and `end`.
    """

    def __init__(self, path: Path, stage: str):
        with write_errors(path, path):
            path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self.stage = path, stage

    def begin(self) -> None:
        """The stage starts."""
        self._append(kind="begin")

    def end(self) -> None:
        """The stage ended well."""
        self._append(kind="end")

    def note(self, text: str) -> None:
        """Something a person should read."""
        self._append(kind="note", text=text)

    def advance(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` units of a phase are finished."""
        self._append(kind="progress", phase=phase, done=done, total=total)

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """The figures of one step."""
        self._append(kind="metrics", step=step, values=values)

    def track(self, phase: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Yields the items and reports each as done once the next is asked for."""
        self.advance(phase, 0, total)
        for done, item in enumerate(items, 1):
            yield item
            self.advance(phase, done, total)

    def _append(self, **event) -> None:
        line = json.dumps({"time": round(time.time(), 3), "stage": self.stage, **event}, ensure_ascii=False)
        with write_errors(self._path, self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
