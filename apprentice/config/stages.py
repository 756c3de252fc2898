"""The names and properties of the stages that every pipeline consists of, in the order in which they run."""

from dataclasses import dataclass

from apprentice.config.schema import PipelineConfig


@dataclass(frozen=True, slots=True)
class Stage:
    """Properties of a stage; `apprentice.stages.<name>` implements it."""

    name: str
    metrics: str | None
    """Name of its metrics file in reports/<pipeline>/, without `.json`; None if it writes none."""
    uses_policy: bool
    """Whether it always samples from a policy, regardless of the parameters."""


STAGES = {
    stage.name: stage
    for stage in (
        Stage("prepare", metrics=None, uses_policy=False),
        Stage("validate", metrics="validation", uses_policy=False),
        Stage("distill", metrics="distill", uses_policy=False),
        Stage("filter", metrics="difficulty", uses_policy=True),
        Stage("rollout", metrics="rollout", uses_policy=True),
        Stage("train", metrics="training", uses_policy=True),
        Stage("evaluate", metrics="evaluation", uses_policy=True),
    )
}


def samples_from_policy(name: str, config: PipelineConfig) -> bool:
    """Return whether a stage of this pipeline samples from a policy; distill does so only for rejection sampling."""
    return STAGES[name].uses_policy or (name == "distill" and config.distill.source == "rejection")
