"""Which tasks a training step is made of, and how often each is attempted."""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence

from apprentice.config.schema import TrainConfig
from apprentice.data.difficulty import signal
from apprentice.records import Task, Trajectory

ENOUGH_SIGNAL = 0.75
"""Chance of a group to have attempts that differ, above which more attempts are not worth their price."""
FADING = 0.5
"""What a task's earlier attempts still count after a step that tried it again: the policy has moved on."""


class TaskSampler:
    """Chooses tasks, and follows how often the moving policy solves each.

    Args:
        curriculum: the tasks to train on.
        config: the `train` section.
        probes: attempts behind each task's `pass_rate`.
    """

    def __init__(self, curriculum: Sequence[Task], config: TrainConfig, probes: int):
        self._curriculum, self._config = curriculum, config
        rates = {task.id: task.pass_rate for task in curriculum}
        self.counts: dict[str, list[float]] = {id: [0.0, 0.0] if rate is None else [rate * probes, probes] for id, rate in rates.items()}
        """Successes and attempts by task, older ones faded; what a checkpoint keeps."""

    def tasks(self, step: int) -> list[Task]:
        """The tasks of step number `step` (from 0), spare ones included; none twice."""
        count = min(len(self._curriculum), math.ceil(self._config.tasks_per_step * self._config.oversampling))
        return self._in_turn(step, count) if self._config.sampling == "shuffle" else self._by_signal(step, count)

    def attempts(self, task: Task) -> int:
        """How often a task is attempted: as few times as give enough signal."""
        least, most = self._config.attempts, max(self._config.attempts, self._config.max_attempts)
        return next((n for n in range(least, most) if signal(self.pass_rate(task), n) >= ENOUGH_SIGNAL), most)

    def pass_rate(self, task: Task) -> float:
        """The policy's, as far as it is known: the posterior mean under Jeffreys' prior."""
        successes, attempts = self.counts[task.id]
        return (successes + 0.5) / (attempts + 1)

    def note(self, trajectories: Iterable[Trajectory]) -> None:
        """Takes the outcomes of a step into account."""
        trajectories = list(trajectories)
        attempts = Counter(trajectory.task_id for trajectory in trajectories)
        successes = Counter(trajectory.task_id for trajectory in trajectories if trajectory.outcome == "success")
        for id, tried in attempts.items():
            before = self.counts[id]
            self.counts[id] = [FADING * before[0] + successes[id], FADING * before[1] + tried]

    def _in_turn(self, step: int, count: int) -> list[Task]:
        """A seeded shuffle of the curriculum, step by step; what is left of it does not fill a step, and it is shuffled anew."""
        epoch, place = divmod(step, len(self._curriculum) // count)
        order = list(self._curriculum)
        random.Random(f"{self._config.seed}/{epoch}").shuffle(order)
        return order[place * count : (place + 1) * count]

    def _by_signal(self, step: int, count: int) -> list[Task]:
        """Without replacement, as likely as their attempts are to differ (Efraimidis and Spirakis 2006)."""
        rng = random.Random(f"{self._config.seed}/{step}")
        weights = {task.id: signal(self.pass_rate(task), max(2, self.attempts(task))) for task in self._curriculum}
        keys = {id: math.log(1.0 - rng.random()) / weight for id, weight in weights.items()}
        return sorted(self._curriculum, key=lambda task: -keys[task.id])[:count]
