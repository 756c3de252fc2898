"""Alarms that detect a harmful update: it is undone, its batch is kept for inspection, and training goes on with other tasks."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from apprentice.config.schema import TrainConfig

IN_A_ROW = 3
"""Alarms in successive steps after which training stops: it would not get any further."""
FAULT_RISE = 0.2
"""How far the share of attempts that broke may rise above the mean of the steps before. A fault costs no reward, so a policy can learn to cause them."""


def raised(figures: Mapping[str, float], config: TrainConfig) -> list[str]:
    """Say what is wrong with an update, for people; nothing where it is sound.

    Args:
        figures: what `PpoLearner.update` says of it.
        config: the `train` section.
    """
    wrong = []
    if figures.get("not_finite", 0.0):
        wrong.append(f"{figures['not_finite']:.0f} action tokens had a log-probability, value, reward or advantage that is not finite")
    if names := [name for name, value in figures.items() if not math.isfinite(value)]:
        wrong.append(f"not finite: {', '.join(names)}")
    if figures.get("skipped", 0.0):
        wrong.append(f"{figures['skipped']:.0f} optimizer steps had a loss or a gradient that is not finite")
    above = {"approx_kl": config.alarm_kl, "ratio_max": config.alarm_ratio, "sampler_gap_mean": config.alarm_sampler_gap}
    wrong += [f"{name} is {figures[name]:.3g}, above {limit:g}" for name, limit in above.items() if figures.get(name, 0.0) > limit]
    if figures.get("entropy", math.inf) < config.alarm_entropy:
        wrong.append(f"entropy is {figures['entropy']:.3g}, below {config.alarm_entropy:g}")
    return wrong


def faults_rise(row: Mapping[str, float], earlier: Sequence[Mapping[str, float]]) -> list[str]:
    """Say how much more often attempts broke than under the policies before; nothing where they did not.

    Args:
        row: a step's figures.
        earlier: those of the steps before it.
    """
    if not earlier:
        return []
    now, before = _fault_share(row), fmean(map(_fault_share, earlier))
    return [f"{now:.0%} of the attempts broke, {before:.0%} in the steps before"] if now > before + FAULT_RISE else []


def _fault_share(row: Mapping[str, float]) -> float:
    return row["faults"] / max(1, row["faults"] + row["episodes"])
