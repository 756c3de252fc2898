"""What training gained, part by part: what the warm start added, what online RL added, and whether each is proven."""

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

    def told(self, *, sign: str = "-", evidence: bool = False) -> str:
        """Say how large it is and whether it is proven: `PPO +0.037 (not proven)`.

        Args:
            sign: the minus sign to write.
            evidence: also give the interval and the p-value.
        """
        one = self.difference
        proof = "proven" if one.proven() else "proven worse" if one.proven_worse else "not proven"
        proof += f"; 95% interval {one.low:+.3f} to {one.high:+.3f}, p {p_value(one.p)}" if evidence else ""
        return f"{self.name} {one.mean:+.3f} ({proof})".replace("-0.", f"{sign}0.").replace("-1.", f"{sign}1.")


@dataclass(frozen=True, slots=True)
class Gains:
    """The gain of the greedy episodes on a set of held-out tasks."""

    total: Difference
    """Of the trained policy over the agent before training."""
    warm_start: Part | None
    """Of the warm start over the agent before training; None where there is none."""
    online: Part
    """Of the trained policy over what online RL started from."""

    @classmethod
    def of(cls, config: PipelineConfig, measure: Measure, held_out: HeldOut, figures: Mapping[str, Any]) -> "Gains":
        """Read the gains on a set from what evaluation.json holds."""

        def part(name: str) -> Difference:
            return Difference.of(held_out.of(figures[name]), measure.key)

        warm_start = Part("warm start", part("warm_start_minus_before")) if config.distill.source != "none" else None
        return cls(part("trained_minus_before"), warm_start, Part(algorithm(config), part("trained_minus_warm_start")))

    def told(self, *, sign: str = "-", evidence: bool = False) -> str:
        """Say both parts, and where the tasks are too few to prove anything; see `Part.told`."""
        parts = [part.told(sign=sign, evidence=evidence) for part in (self.warm_start, self.online) if part]
        return "; ".join([", ".join(parts), *([] if self.total.enough else [too_few(self.total)])])


def read_evaluation(layout: Layout) -> dict[str, Any]:
    """Read evaluation.json.

    Raises:
        ApprenticeError: it is absent, is not JSON, or lacks a difference because an earlier version of Apprentice wrote it.
    """
    path = layout.metrics("evaluation")
    figures = read_json(path)
    if missing := DIFFERENCES.keys() - figures:
        stage = f"dvc repro evaluate@{layout.pipeline}"
        raise ApprenticeError(f"lacks {', '.join(sorted(missing))}: another version of Apprentice wrote it", where=path, todo=f"evaluate again: `{stage}`")
    return figures


def too_few(difference: Difference) -> str:
    """Say that a comparison has too few tasks or scenarios to prove anything."""
    counted = f"{difference.n} tasks of {difference.scenarios} scenarios"
    return f"{counted} are too few to prove anything, which takes at least {MIN_TASKS} tasks of {MIN_SCENARIOS} scenarios"


def p_value(p: float) -> str:
    """Three decimals."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
