"""Candidate records: what a use case's source yields and validation judges. Fields are kept as they were found."""

from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "dev")
VARIANTS = "variants"
"""The split of held-out tasks whose scenarios are also trained on."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that may become a task or a passage, and the place it was read from."""

    file: str
    line: int
    """Counted from 1."""
    record: dict[str, Any] | None
    """Fields of a Task or a Passage as they were found; None where the line could not be parsed."""
    error: str | None = None
    """Why the line could not be parsed."""
    split: str | None = None
    """The split of its file; None for a passage."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """All candidates of a source."""

    tasks: tuple[Candidate, ...]
    passages: tuple[Candidate, ...] = ()
    """The knowledge base; empty where the use case searches none."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """What the records were read or generated from, as source.json records it."""
    notes: tuple[str, ...] = ()
    """Messages for the user: which files were chosen, what was renamed or left out."""
