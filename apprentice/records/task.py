"""Tasks whose outcome can be checked, and the passages of the knowledge base that they refer to."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from apprentice.records.record import Record, Text
from apprentice.records.skill import Skill

UNKNOWN = ("unknown",)
"""The accepted answers of a question that cannot be answered."""


class Task(Record):
    """One task. Variants of the same situation share a `scenario`; tasks are split by scenario, not by variant."""

    id: Text
    """Unique over all splits."""
    scenario: Text
    split: Text
    """`train`, `dev` (held out), or `variants` (held out, while other variants of the scenario are in `train`)."""
    instruction: Text
    """The request to the agent, in natural language."""
    judge: Literal["answers", "environment"] = "answers"
    """The judge of success: the accepted answers, or the environment."""
    answers: tuple[Text, ...] = Field(default=(), validate_default=True)
    """Every accepted answer: `UNKNOWN` for an unanswerable question, and none if the environment judges."""
    answerable: bool = True
    hops: int = Field(default=1, ge=1)
    """Number of facts that must be combined to reach the answer."""
    difficulty: int | None = Field(default=None, ge=1)
    """Difficulty according to the source, where 1 is the easiest; None if the source does not say."""
    pass_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the starting policy's probes that solved it; None if it was not probed."""
    supporting: tuple[str, ...] = ()
    """Ids of the passages with the evidence; for analysis only, never shown to the agent."""
    plan: tuple[str, ...] = ()
    """An expert's actions in order, searches or blocks of code; used for expert traces, never shown to the agent."""
    skills: tuple[Skill, ...] = ()
    """Functions that the agent kept from earlier tasks of the scenario."""

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
