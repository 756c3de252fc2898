"""What the comparisons of all use cases share: the conditions, their paired differences, and the sets of held-out tasks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from apprentice.evaluation.statistics import paired_difference
from apprentice.records import Task, Trajectory

AGENTS = {
    "before": "Agent before training",
    "warm_start": "Agent after the warm start",
    "trained": "Agent after PPO",
}
"""The conditions under which the agent itself acts, with their labels, in the order of the report."""
SAMPLED = ("warm_start", "trained")
"""The conditions with sampled episodes besides the greedy ones: the policy that training started from and the trained one."""
DIFFERENCES = {
    "trained_minus_before": ("trained", "before"),
    "warm_start_minus_before": ("warm_start", "before"),
    "trained_minus_warm_start": ("trained", "warm_start"),
}
"""Differences between two conditions, `(after, before)`. The second and the third add up to the first."""

Episodes = Mapping[str, Sequence[Trajectory]]
"""The episodes of each condition, greedy and sampled together."""
Strata = Mapping[str, Mapping[str, Mapping[str, Mapping]]]
"""Words -> condition -> part of the tasks -> its main figure and `n`."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A set of held-out tasks that is scored by itself."""

    words: str
    key: str = ""
    """Under which its metrics stand within those of a condition; empty where there is no other set."""
    split: str = ""
    """Of its tasks; empty where there is no other set."""

    def holds(self, task: Task) -> bool:
        """Whether a held-out task is one of this set."""
        return not self.split or task.split == self.split

    def of(self, metrics: Mapping) -> Mapping:
        """Its part of the metrics of a condition or of a difference."""
        return metrics[self.key] if self.key else metrics

    def label(self, words: str) -> str:
        """`words`, told apart from those of the other sets."""
        return f"{words}, {self.words}" if self.key else words

    def count(self, number: int) -> str:
        """So many of its tasks, in words."""
        return f"{number} tasks of {self.words}" if self.key else f"{number} {self.words}"


HELD_OUT = (HeldOut("held-out tasks"),)
"""The sets of a use case that has one split of held-out tasks."""


def greedy(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes drawn at temperature 0."""
    return [trajectory for trajectory in trajectories if trajectory.temperature == 0]


def sampled(trajectories: Sequence[Trajectory]) -> list[Trajectory]:
    """The episodes drawn above temperature 0."""
    return [trajectory for trajectory in trajectories if trajectory.temperature > 0]


def spent(conditions: Iterable[str], episodes: Episodes, seconds: Mapping[str, float]) -> dict:
    """`tokens` and `seconds` of each condition; the seconds in all stand under `total`."""
    names = list(conditions)
    return {
        "tokens": {name: _tokens(episodes[name]) for name in names},
        "seconds": {**{name: rounded(seconds[name], 1) for name in names}, "total": rounded(sum(seconds[name] for name in names), 1)},
    }


def _tokens(trajectories: Sequence[Trajectory]) -> dict[str, int]:
    """`sampled`: written by the policy; `context`: everything in the episodes, prompts and observations included."""
    return {
        "sampled": sum(trajectory.action_tokens for trajectory in trajectories),
        "context": sum(len(trajectory.token_ids) for trajectory in trajectories),
    }


def paired(key: str, after: Mapping[str, float], before: Mapping[str, float], scenarios: Mapping[str, str]) -> dict:
    """`{<key>, <key>_ci95, p, n, scenarios}` of `after - before` in a score, paired over the tasks that both have.

    Args:
        after, before: scores by task id.
        scenarios: the scenario of each task, by task id.
    """
    shared = [task for task in after if task in before]
    if not shared:
        return {key: 0.0, f"{key}_ci95": [-1.0, 1.0], "p": 1.0, "n": 0, "scenarios": 0}
    new, old = (np.array([scores[task] for task in shared]) for scores in (after, before))
    result = paired_difference(new, old, [scenarios[task] for task in shared])
    interval = [rounded(result.low), rounded(result.high)]
    return {key: rounded(result.mean), f"{key}_ci95": interval, "p": float(f"{result.p:.3g}"), "n": result.n, "scenarios": result.scenarios}


def rounded(value: float, digits: int = 4) -> float:
    """For files that people and `dvc metrics diff` compare."""
    if math.isnan(value):
        raise ValueError("a figure without data")
    return round(value, digits)


def mean(values: Iterable[float]) -> float:
    """Mean of the values; 0.0 if there are none."""
    values = list(values)
    return fmean(values) if values else 0.0
