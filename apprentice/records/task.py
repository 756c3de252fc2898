"""A task whose outcome can be checked, and the passages of a knowledge base it may be about."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Record(BaseModel):
    """Frozen; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Task(Record):
    """One task. Variants of the same situation share a `scenario`; splits are made by scenario, never by variant."""

    id: Text
    """Unique over all splits."""
    scenario: Text
    split: Text
    """`train` (learned from) or `dev` (held out)."""
    instruction: Text
    """What the agent is asked, in words."""
    answers: tuple[Text, ...] = Field(min_length=1)
    """Every accepted answer. For a question that cannot be answered: ("unknown",)."""
    answerable: bool = True
    hops: int = Field(default=1, ge=1)
    """Facts that must be chained to reach the answer."""
    supporting: tuple[str, ...] = ()
    """Ids of the passages that hold the evidence; for analysis only, never shown to the agent."""
    plan: tuple[str, ...] = ()
    """The searches that an expert would make, in order; used to write expert traces, never shown to the agent."""


class Passage(Record):
    """One entry of the knowledge base."""

    id: Text
    title: str
    text: Text


Corpus = Sequence[Passage]
