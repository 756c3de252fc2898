"""The conditions, paired differences, and sets of held-out tasks that the comparisons of all use cases share."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from apprentice.evaluation.statistics import paired_difference
from apprentice.records import Task, Trajectory

AGENTS = {
    "before": "Agent before training",
    "warm_start": "Agent after the warm start",
    "trained": "Agent after PPO",
}
"""Condition in which the agent itself acts -> its label, in the order of the report."""
SAMPLED = ("warm_start", "trained")
"""Conditions that have sampled episodes in addition to the greedy ones: the starting and the trained policy."""
DIFFERENCES = {
    "trained_minus_before": ("trained", "before"),
    "warm_start_minus_before": ("warm_start", "before"),
    "trained_minus_warm_start": ("trained", "warm_start"),
}
"""Name of a difference -> its conditions `(after, before)`. The second and third differences add up to the first."""

Episodes = Mapping[str, Sequence[Trajectory]]
"""Condition -> its episodes, greedy and sampled."""
Strata = Mapping[str, Mapping[str, Mapping[str, Mapping]]]
"""Title -> condition -> part of the tasks -> its main metric and `n`."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A set of held-out tasks with metrics of its own."""

    words: str
    """Its name, for people."""
    key: str = ""
    """Key of its metrics within those of a condition; empty if it is the only set."""
    split: str = ""
    """Split of its tasks; empty if it is the only set."""

    def holds(self, task: Task) -> bool:
        """Return whether a held-out task belongs to this set."""
        return not self.split or task.split == self.split

    def of(self, metrics: Mapping) -> Mapping:
        """Return the part of a condition's or a difference's metrics that belongs to this set."""
        return metrics[self.key] if self.key else metrics

    def label(self, words: str) -> str:
        """Return `words`, with the name of this set if there are others."""
        return f"{words}, {self.words}" if self.key else words

    def count(self, number: int) -> str:
        """Return a phrase for `number` tasks of this set."""
        return f"{number} tasks of {self.words}" if self.key else f"{number} {self.words}"


HELD_OUT = (HeldOut("held-out tasks"),)
"""The only set of a use case with one held-out split."""


def greedy(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Return the episodes sampled at temperature 0."""
    return [trajectory for trajectory in trajectories if trajectory.temperature == 0]


def sampled(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """Return the episodes sampled above temperature 0."""
    return [trajectory for trajectory in trajectories if trajectory.temperature > 0]


def spent(conditions: Iterable[str], episodes: Episodes, seconds: Mapping[str, float]) -> dict:
    """Return `tokens` and `seconds` of each condition; the total of the seconds is under `total`."""
    names = list(conditions)
    return {
        "tokens": {name: _tokens(episodes[name]) for name in names},
        "seconds": {**{name: rounded(seconds[name], 1) for name in names}, "total": rounded(sum(seconds[name] for name in names), 1)},
    }


def _tokens(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """Return `sampled`, the tokens that the policy sampled, and `context`, all tokens of the episodes."""
    return {
        "sampled": sum(trajectory.action_tokens for trajectory in trajectories),
        "context": sum(len(trajectory.token_ids) for trajectory in trajectories),
    }


def paired(key: str, after: Mapping[str, float], before: Mapping[str, float], scenarios: Mapping[str, str]) -> dict:
    """Return `{<key>, <key>_ci95, p, n, scenarios}` of `after - before`, paired over the tasks in both.

    Args:
        key: name of the score.
        after, before: task id -> score.
        scenarios: task id -> scenario.
    """
    shared = [task for task in after if task in before]
    if not shared:
        return {key: 0.0, f"{key}_ci95": [-1.0, 1.0], "p": 1.0, "n": 0, "scenarios": 0}
    new, old = (np.array([scores[task] for task in shared]) for scores in (after, before))
    result = paired_difference(new, old, [scenarios[task] for task in shared])
    interval = [rounded(result.low), rounded(result.high)]
    return {key: rounded(result.mean), f"{key}_ci95": interval, "p": float(f"{result.p:.3g}"), "n": result.n, "scenarios": result.scenarios}


def rounded(value: float, digits: int = 4) -> float:
    """Round a metric for the files that people and `dvc metrics diff` compare.

    Raises:
        ValueError: the value is NaN.
    """
    if math.isnan(value):
        raise ValueError("a metric is NaN: it has no data")
    return round(value, digits)
