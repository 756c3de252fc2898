"""Alarms that detect a harmful update, which is then undone; its batch is kept, and training continues."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from apprentice.config.schema import TrainConfig

MAX_CONSECUTIVE = 3
"""Consecutive steps with an alarm after which training stops, because it would not make progress."""
FAULT_RISE = 0.2
"""Largest rise of the share of faulty attempts above its mean over the earlier steps. Faults cost no reward, so a
policy can learn to cause them."""


def update_alarms(metrics: Mapping[str, float], config: TrainConfig) -> list[str]:
    """Describes what is wrong with an update; empty if it is sound.

    Args:
        metrics: the result of `PpoLearner.update`.
        config: the `train` section.
    """
    reasons = []
    if metrics.get("not_finite", 0.0):
        reasons.append(f"{metrics['not_finite']:.0f} action tokens had a log-probability, value, reward or advantage that is not finite")
    if names := [name for name, value in metrics.items() if not math.isfinite(value)]:
        reasons.append(f"not finite: {', '.join(names)}")
    if metrics.get("skipped", 0.0):
        reasons.append(f"{metrics['skipped']:.0f} optimizer steps had a loss or a gradient that is not finite")
    limits = {"approx_kl": config.alarm_kl, "ratio_max": config.alarm_ratio, "sampler_gap_mean": config.alarm_sampler_gap}
    reasons += [f"{name} is {metrics[name]:.3g}, above {limit:g}" for name, limit in limits.items() if metrics.get(name, 0.0) > limit]
    if metrics.get("entropy", math.inf) < config.alarm_entropy:
        reasons.append(f"entropy is {metrics['entropy']:.3g}, below {config.alarm_entropy:g}")
    return reasons


def fault_alarms(row: Mapping[str, float], earlier: Sequence[Mapping[str, float]]) -> list[str]:
    """Describes a rise of the share of faulty attempts; empty if there is none.

    Args:
        row: the metrics of a step.
        earlier: the metrics of the earlier steps.
    """
    if not earlier:
        return []
    now, before = _fault_share(row), fmean(map(_fault_share, earlier))
    return [f"{now:.0%} of the attempts were faults, {before:.0%} in the earlier steps"] if now > before + FAULT_RISE else []


def _fault_share(row: Mapping[str, float]) -> float:
    return row["faults"] / max(1, row["faults"] + row["episodes"])
