"""Selects the curriculum: the tasks whose pass rates promise a learning signal.

A group of n episodes carries a signal only if some succeed and some fail. With pass rate p, that happens with
probability 1 - p^n - (1-p)^n. A few probes estimate p poorly, and the raw rates 0 and 1 would imply no signal at all.
Signal and weight therefore use the posterior mean under Jeffreys' prior, Beta(1/2, 1/2). Raw rates still decide whether
a task counts as never or always solved.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apprentice.config.schema import FilterConfig
from apprentice.errors import ApprenticeError
from apprentice.records import Task

MIN_SHARE = 0.5
"""Minimum size of a curriculum as a share of `filter.keep`; tasks without a signal fill it up."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The tasks to train on, best first."""

    tasks: tuple[Task, ...]
    weights: Mapping[str, float]
    """Task id -> weight, for every probed task."""
    note: str
    """How the tasks were chosen, for people."""


def pass_rate(successes: int, probes: int) -> float:
    """Return the share of probes that succeeded."""
    if not 0 <= successes <= probes or probes < 1:
        raise ValueError(f"{successes} successes of {probes} probes")
    return successes / probes


def smoothed(rate: float, probes: int) -> float:
    """Return the posterior mean of the pass rate under Jeffreys' prior: (successes + 1/2) / (probes + 1)."""
    return (rate * probes + 0.5) / (probes + 1)


def signal(p: float, n: int) -> float:
    """Return the probability that n episodes with pass rate p neither all succeed nor all fail: 1 - p^n - (1-p)^n."""
    return max(0.0, 1.0 - p**n - (1.0 - p) ** n)


def weight(rate: float, probes: int, hardness: float) -> float:
    """Return the weight of a task: signal * (1 - p) ** hardness, where p is the smoothed pass rate."""
    p = smoothed(rate, probes)
    return signal(p, probes) * (1.0 - p) ** hardness


def select_curriculum(tasks: Sequence[Task], pass_rates: Mapping[str, float], probes: int, config: FilterConfig) -> Curriculum:
    """Choose at most `config.keep` tasks: tasks with a signal, by weight, and a share of unsolved tasks to retry.

    If these are fewer than half of `config.keep`, always solved tasks and then further unsolved ones fill it up to
    half. Ties keep the order of `tasks`. Tasks without a pass rate are left out.

    Args:
        tasks: the probed tasks.
        pass_rates: task id -> raw pass rate.
        probes: episodes per pass rate.
        config: provides `keep`, `hardness`, and `unsolved_share`.

    Raises:
        ApprenticeError: no task has a pass rate.
    """
    probed = [task for task in tasks if task.id in pass_rates]
    if not probed:
        raise ApprenticeError("no task was probed", where="filter", todo="check the faults in the log of this stage, and data.train")
    weights = {task.id: weight(pass_rates[task.id], probes, config.hardness) for task in probed}
    best = sorted(probed, key=lambda task: -weights[task.id])
    learnable = [task for task in best if 0.0 < pass_rates[task.id] < 1.0]
    unsolved = [task for task in best if pass_rates[task.id] == 0.0]
    solved = [task for task in best if pass_rates[task.id] == 1.0]

    retried = unsolved[: round(config.keep * config.unsolved_share)]
    kept = learnable[: config.keep - len(retried)] + retried
    minimum = math.ceil(config.keep * MIN_SHARE)
    filling = (solved + unsolved[len(retried) :])[: max(0, minimum - len(kept))]
    return Curriculum((*kept, *filling), weights, _note(len(probed), len(learnable), len(solved), len(unsolved), len(kept), len(filling)))


def _note(probed: int, learnable: int, solved: int, unsolved: int, kept: int, filling: int) -> str:
    text = f"{probed} tasks probed: {learnable} sometimes solved, {solved} always, {unsolved} never; {kept + filling} kept"
    if filling:
        text += f", {filling} of them without a signal, to fill the curriculum"
    if not learnable and not solved:
        text += "; no task was ever solved, so training may have nothing to learn from: configure a warm start (distill.source)"
    return text
