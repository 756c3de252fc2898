"""Candidates: the records that a use case's source yields and that validation checks. Fields are kept as found."""

from dataclasses import dataclass, field
from typing import Any

SPLITS = ("train", "dev")
VARIANTS = "variants"
"""The split of held-out tasks whose scenarios also have training tasks."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A record that may become a task or a passage, and its place in the source."""

    file: str
    line: int
    """Line number, from 1."""
    record: dict[str, Any] | None
    """Fields of a Task or a Passage as found; None if the line could not be parsed."""
    error: str | None = None
    """Why the line could not be parsed; None if it was."""
    split: str | None = None
    """The split that its file belongs to; None for a passage."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """All candidates of a source."""

    tasks: tuple[Candidate, ...]
    passages: tuple[Candidate, ...] = ()
    """The knowledge base; empty if the use case has none."""
    fingerprint: dict[str, Any] = field(default_factory=dict)
    """Description of the source, such as files with their hashes, or a seed; prepare writes it to source.json."""
    notes: tuple[str, ...] = ()
    """Messages for the user: the chosen files, and what was renamed or left out."""
