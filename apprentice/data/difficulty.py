"""Which tasks are worth learning from: pass rates, the signal they carry, the curriculum.

A group of n episodes teaches something only where some succeed and some fail; with pass rate p that happens with probability
1 - p^n - (1-p)^n. A few probes measure p badly, and the raw rates 0 and 1 would claim that there is none to be had. So signal
and weight are computed from the mean of the posterior under Jeffreys' prior, Beta(1/2, 1/2); what was never or always solved
is told by the raw rate.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apprentice.config.schema import FilterConfig
from apprentice.errors import ApprenticeError
from apprentice.records import Task

ENOUGH_SHARE = 0.5
"""Below this share of `filter.keep`, a curriculum is filled up with tasks that showed no signal."""


@dataclass(frozen=True, slots=True)
class Curriculum:
    """The tasks to train on, best first, and how they came to be chosen."""

    tasks: tuple[Task, ...]
    weights: Mapping[str, float]
    """Of every probed task, by id."""
    note: str
    """For people."""


def pass_rate(successes: int, probes: int) -> float:
    """The share of probes that succeeded."""
    if not 0 <= successes <= probes or probes < 1:
        raise ValueError(f"{successes} successes of {probes} probes")
    return successes / probes


def smoothed(rate: float, probes: int) -> float:
    """The posterior mean of the pass rate under Jeffreys' prior: (successes + 1/2) / (probes + 1)."""
    return (rate * probes + 0.5) / (probes + 1)


def signal(p: float, n: int) -> float:
    """The probability that n episodes with pass rate p neither all succeed nor all fail: 1 - p^n - (1-p)^n."""
    return max(0.0, 1.0 - p**n - (1.0 - p) ** n)


def weight(rate: float, probes: int, hardness: float) -> float:
    """How much a task is preferred: signal * (1 - p) ** hardness, with the smoothed pass rate as p."""
    p = smoothed(rate, probes)
    return signal(p, probes) * (1.0 - p) ** hardness


def select_curriculum(tasks: Sequence[Task], pass_rates: Mapping[str, float], probes: int, config: FilterConfig) -> Curriculum:
    """Chooses at most `config.keep` tasks: those with signal by weight, and a share of the never solved to be tried again.

    Where these are fewer than half of `config.keep`, always solved tasks and then more of the never solved fill up to it. Ties keep the order
    of `tasks`; tasks without a pass rate are left out.

    Args:
        tasks: the probed tasks.
        pass_rates: the raw rate of each, by id.
        probes: attempts behind a rate.
        config: keep, hardness, unsolved_share.

    Raises:
        ApprenticeError: no task has a pass rate.
    """
    probed = [task for task in tasks if task.id in pass_rates]
    if not probed:
        raise ApprenticeError("no task was probed", where="filter", todo="look at the faults of the rollout, and at data.train")
    weights = {task.id: weight(pass_rates[task.id], probes, config.hardness) for task in probed}
    best = sorted(probed, key=lambda task: -weights[task.id])
    learnable = [task for task in best if 0.0 < pass_rates[task.id] < 1.0]
    unsolved = [task for task in best if pass_rates[task.id] == 0.0]
    solved = [task for task in best if pass_rates[task.id] == 1.0]

    retried = unsolved[: round(config.keep * config.unsolved_share)]
    kept = learnable[: config.keep - len(retried)] + retried
    enough = math.ceil(config.keep * ENOUGH_SHARE)
    filling = (solved + unsolved[len(retried) :])[: max(0, enough - len(kept))]
    return Curriculum((*kept, *filling), weights, _note(len(probed), len(learnable), len(solved), len(unsolved), len(kept), len(filling)))


def _note(probed: int, learnable: int, solved: int, unsolved: int, kept: int, filling: int) -> str:
    text = f"{probed} tasks probed: {learnable} sometimes solved, {solved} always, {unsolved} never; {kept + filling} kept"
    if filling:
        text += f", {filling} of them only to fill up"
    if not learnable and not solved:
        text += "; no task was ever solved, so training may have nothing to learn from: give the policy a warm start (distill.source)"
    return text
