"""What says that a step did harm: then it is undone, its batch is kept for inspection, and training goes on with other tasks."""

import math
from collections.abc import Mapping

from apprentice.config.schema import TrainConfig

IN_A_ROW = 3
"""Alarms in successive steps after which training stops: it would not get any further."""


def raised(figures: Mapping[str, float], config: TrainConfig) -> list[str]:
    """What is wrong with an update, for people; nothing where it is sound.

    Args:
        figures: what `PpoLearner.update` says of it.
        config: the `train` section.
    """
    wrong = [f"{name} is {figures[name]}" for name in ("policy_loss", "gradient_norm", "approx_kl") if not math.isfinite(figures.get(name, 0.0))]
    if figures.get("skipped", 0.0):
        wrong.append(f"{figures['skipped']:.0f} optimizer steps had a loss or a gradient that is not finite")
    above = {"approx_kl": config.alarm_kl, "ratio_max": config.alarm_ratio, "sampler_gap_mean": config.alarm_sampler_gap}
    wrong += [f"{name} is {figures[name]:.3g}, above {limit:g}" for name, limit in above.items() if figures.get(name, 0.0) > limit]
    if figures.get("entropy", math.inf) < config.alarm_entropy:
        wrong.append(f"entropy is {figures['entropy']:.3g}, below {config.alarm_entropy:g}")
    return wrong
