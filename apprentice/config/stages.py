"""The stages of every pipeline, in the order in which each one needs the one before: the one definition of their names and properties."""

from dataclasses import dataclass

from apprentice.config.schema import PipelineConfig


@dataclass(frozen=True, slots=True)
class Stage:
    """What the other parts of the product know of a stage; `apprentice.stages.<name>` runs it."""

    name: str
    metrics: str | None
    """Name of its metrics file in reports/<pipeline>/, without `.json`; None where it has none."""
    uses_policy: bool
    """Whether it samples from a policy, whatever the parameters."""


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
    """Whether a stage of this pipeline samples from a policy; distill does so only for rejection sampling."""
    return STAGES[name].uses_policy or (name == "distill" and config.distill.source == "rejection")
