"""Rare successes, remembered: a group of failures says nothing, one success among them says which way to go.

The success was sampled by an older policy; the learner's importance weights, which compare with the log-probabilities it was sampled with,
correct for that as they do for the sampler's kernels.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from apprentice.records import Trajectory
from apprentice.records.tables import read_trajectories, write_trajectories

FILE = "replay.parquet"


class Replay:
    """The last success at each task, for `steps` steps; 0 remembers nothing."""

    def __init__(self, steps: int):
        self._steps = steps
        self._successes: dict[str, Trajectory] = {}

    def additions(self, trajectories: Sequence[Trajectory], step: int) -> list[Trajectory]:
        """For each group without a success, the one remembered of its task, if it is not too old."""
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
        """Remembers the successes among a step's new trajectories."""
        if self._steps:
            self._successes |= {trajectory.task_id: trajectory for trajectory in trajectories if trajectory.outcome == "success"}

    def save(self, folder: Path) -> None:
        """Writes what it remembers."""
        if self._steps:
            write_trajectories(folder / FILE, list(self._successes.values()))

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""
        if self._steps:
            self._successes = {trajectory.task_id: trajectory for trajectory in read_trajectories(folder / FILE)}
