"""The gain of training in two parts, the warm start and online RL, and whether each is proven."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apprentice.config import Layout, PipelineConfig
from apprentice.errors import ApprenticeError
from apprentice.evaluation.comparison import DIFFERENCES, HeldOut
from apprentice.evaluation.measures import Measure, algorithm
from apprentice.evaluation.statistics import MIN_SCENARIOS, MIN_TASKS, Difference
from apprentice.records.files import read_json


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the gain."""

    name: str
    difference: Difference

    def describe(self, *, sign: str = "-", evidence: bool = False) -> str:
        """Return the size of the gain and whether it is proven, as in `PPO +0.037 (not proven)`.

        Args:
            sign: the minus sign to use.
            evidence: whether to add the interval and the p-value.
        """
        one = self.difference
        proof = "proven" if one.proven() else "proven worse" if one.proven_worse else "not proven"
        proof += f"; 95% interval {one.low:+.3f} to {one.high:+.3f}, p {p_value(one.p)}" if evidence else ""
        return f"{self.name} {one.mean:+.3f} ({proof})".replace("-0.", f"{sign}0.").replace("-1.", f"{sign}1.")


@dataclass(frozen=True, slots=True)
class Gains:
    """The gain in the greedy score on a set of held-out tasks."""

    total: Difference
    """The trained policy against the agent before training."""
    warm_start: Part | None
    """The warm start against the agent before training; None for a pipeline without a warm start."""
    online: Part
    """The trained policy against the policy that online RL started from."""

    @classmethod
    def of(cls, config: PipelineConfig, measure: Measure, held_out: HeldOut, metrics: Mapping[str, Any]) -> "Gains":
        """Return the gains on a set of held-out tasks from the contents of evaluation.json."""

        def part(name: str) -> Difference:
            return Difference.of(held_out.of(metrics[name]), measure.key)

        warm_start = Part("warm start", part("warm_start_minus_before")) if config.distill.source != "none" else None
        return cls(part("trained_minus_before"), warm_start, Part(algorithm(config), part("trained_minus_warm_start")))

    def describe(self, *, sign: str = "-", evidence: bool = False) -> str:
        """Return both parts as `Part.describe` does, and whether the tasks are too few to prove anything."""
        parts = [part.describe(sign=sign, evidence=evidence) for part in (self.warm_start, self.online) if part]
        return "; ".join([", ".join(parts), *([] if self.total.enough else [too_few(self.total)])])


def read_evaluation(layout: Layout) -> dict[str, Any]:
    """Read evaluation.json.

    Raises:
        ApprenticeError: the file is missing, is not JSON, or was written by another version of Apprentice.
    """
    path = layout.metrics("evaluation")
    metrics = read_json(path)
    if missing := DIFFERENCES.keys() - metrics:
        stage = f"dvc repro evaluate@{layout.pipeline}"
        raise ApprenticeError(f"lacks {', '.join(sorted(missing))}: another version of Apprentice wrote it", where=path, todo=f"evaluate again: `{stage}`")
    return metrics


def too_few(difference: Difference) -> str:
    """Return the words for a comparison of too few tasks or scenarios."""
    counted = f"{difference.n} tasks of {difference.scenarios} scenarios"
    return f"{counted} are too few to prove anything; at least {MIN_TASKS} tasks of {MIN_SCENARIOS} scenarios are needed"


def p_value(p: float) -> str:
    """Format a p-value with three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
