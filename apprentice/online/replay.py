"""Replay of rare successes: a group of failures has no signal, and one success among them gives it one.

The success was sampled by an older policy. The learner's importance weights correct for that, as they do for the
sampler's kernels, since they compare with the log-probabilities of the time when it was sampled.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from apprentice.records import Trajectory
from apprentice.records.tables import read_trajectories, write_trajectories

FILE = "replay.parquet"


class Replay:
    """Keeps the last success at each task for `steps` steps; 0 keeps none."""

    def __init__(self, steps: int):
        self._steps = steps
        self._successes: dict[str, Trajectory] = {}

    def additions(self, trajectories: Sequence[Trajectory], step: int) -> list[Trajectory]:
        """For each group without a success, the success kept for its task, if it is not too old."""
        groups: dict[str, list[Trajectory]] = defaultdict(list)
        for trajectory in trajectories:
            groups[trajectory.group].append(trajectory)
        found = []
        for name, group in groups.items():
            known = self._successes.get(group[0].task_id)
            if known and step - known.version <= self._steps and not any(trajectory.outcome == "success" for trajectory in group):
                found.append(replace(known, id=f"{known.id}-for-{name}", group=name))
        return found

    def note(self, trajectories: Sequence[Trajectory]) -> None:
        """Keeps the successes among the new trajectories of a step."""
        if self._steps:
            self._successes |= {trajectory.task_id: trajectory for trajectory in trajectories if trajectory.outcome == "success"}

    def save(self, folder: Path) -> None:
        """Writes the kept successes."""
        if self._steps:
            write_trajectories(folder / FILE, list(self._successes.values()))

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""
        if self._steps:
            self._successes = {trajectory.task_id: trajectory for trajectory in read_trajectories(folder / FILE)}
