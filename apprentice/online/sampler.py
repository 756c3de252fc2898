"""Selects the tasks of each training step and the number of attempts at each."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from apprentice.config.schema import TrainConfig
from apprentice.data.difficulty import signal
from apprentice.records import Task, Trajectory

ENOUGH_SIGNAL = 0.75
"""Probability that the attempts of a group differ, above which further attempts are not worth their cost."""
DECAY = 0.5
"""Factor for a task's earlier attempts when a step attempts it again, because the policy has changed."""


class TaskSampler:
    """Selects tasks, and tracks how often the changing policy solves each.

    Args:
        curriculum: tasks to train on.
        config: the `train` section.
        probes: number of attempts from which each task's `pass_rate` was estimated.
    """

    def __init__(self, curriculum: Sequence[Task], config: TrainConfig, probes: int):
        self._curriculum, self._config = curriculum, config
        rates = {task.id: task.pass_rate for task in curriculum}
        self.counts: dict[str, list[float]] = {id: [0.0, 0.0] if rate is None else [rate * probes, probes] for id, rate in rates.items()}
        """Decayed numbers of successes and attempts by task; part of the checkpoints."""

    def tasks(self, step: int) -> list[Task]:
        """The tasks of a step (from 0) without repetition, including those that `train.oversampling` adds."""
        count = min(len(self._curriculum), math.ceil(self._config.tasks_per_step * self._config.oversampling))
        return self._in_turn(step, count) if self._config.sampling == "shuffle" else self._by_signal(step, count)

    def attempts(self, task: Task) -> int:
        """The smallest number of attempts at a task that gives enough signal."""
        least, most = self._config.attempts, max(self._config.attempts, self._config.max_attempts)
        return next((n for n in range(least, most) if signal(self.pass_rate(task), n) >= ENOUGH_SIGNAL), most)

    def pass_rate(self, task: Task) -> float:
        """Estimated pass rate of the policy: the posterior mean under Jeffreys' prior."""
        successes, attempts = self.counts[task.id]
        return (successes + 0.5) / (attempts + 1)

    def note(self, trajectories: Iterable[Trajectory]) -> None:
        """Updates the pass rates with the outcomes of a step."""
        trajectories = list(trajectories)
        attempts = Counter(trajectory.task_id for trajectory in trajectories)
        successes = Counter(trajectory.task_id for trajectory in trajectories if trajectory.outcome == "success")
        for id, tried in attempts.items():
            before = self.counts[id]
            self.counts[id] = [DECAY * before[0] + successes[id], DECAY * before[1] + tried]

    def _in_turn(self, step: int, count: int) -> list[Task]:
        """Slices of a seeded shuffle of the curriculum, reshuffled when the remainder does not fill a step."""
        epoch, place = divmod(step, len(self._curriculum) // count)
        order = list(self._curriculum)
        random.Random(f"{self._config.seed}/{epoch}").shuffle(order)
        return order[place * count : (place + 1) * count]

    def _by_signal(self, step: int, count: int) -> list[Task]:
        """Samples without replacement by the probability that attempts differ (Efraimidis and Spirakis 2006)."""
        rng = random.Random(f"{self._config.seed}/{step}")
        weights = {task.id: signal(self.pass_rate(task), max(2, self.attempts(task))) for task in self._curriculum}
        keys = {id: math.log(1.0 - rng.random()) / weight for id, weight in weights.items()}
        return sorted(self._curriculum, key=lambda task: -keys[task.id])[:count]
