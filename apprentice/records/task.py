"""A task whose outcome can be checked, and the passages of a knowledge base it may be about."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from apprentice.records.record import Record, Text
from apprentice.records.skill import Skill

UNKNOWN = ("unknown",)
"""The accepted answers of a question that cannot be answered."""


class Task(Record):
    """One task. Variants of the same situation share a `scenario`; splits are made by scenario, never by variant."""

    id: Text
    """Unique over all splits."""
    scenario: Text
    split: Text
    """`train` (learned from), `dev` (held out), or `variants` (held out, though other variants of their scenarios are learned from)."""
    instruction: Text
    """What the agent is asked, in words."""
    judge: Literal["answers", "environment"] = "answers"
    """What decides whether it was solved: its accepted answers, or the environment by itself."""
    answers: tuple[Text, ...] = Field(default=(), validate_default=True)
    """Every accepted answer; none where the environment judges. `UNKNOWN` for a question that cannot be answered."""
    answerable: bool = True
    hops: int = Field(default=1, ge=1)
    """Facts that must be chained to reach the answer."""
    difficulty: int | None = Field(default=None, ge=1)
    """As its source says it, 1 is the easiest; None where it says nothing."""
    pass_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the starting policy's probes that solved it; None where it was not probed."""
    supporting: tuple[str, ...] = ()
    """Ids of the passages that hold the evidence; for analysis only, never shown to the agent."""
    plan: tuple[str, ...] = ()
    """What an expert would do, in order: searches, or blocks of code; used to write expert traces, never shown to the agent."""
    skills: tuple[Skill, ...] = ()
    """Functions at hand that the agent kept from earlier tasks of the scenario."""

    @field_validator("answers")
    @classmethod
    def _as_the_judge_needs(cls, answers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if info.data.get("judge") == "answers" and not answers:
            raise ValueError("a task that is judged by its answers needs one")
        if info.data.get("judge") == "environment" and answers:
            raise ValueError("a task that the environment judges has none")
        return answers


class Passage(Record):
    """One entry of the knowledge base."""

    id: Text
    title: str
    text: Text


Corpus = Sequence[Passage]
