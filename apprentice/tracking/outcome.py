"""A pipeline's evaluation as the registry needs it: exact match task by task, and the episodes behind it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apprentice.config import Layout
from apprentice.evaluation.comparison import CONDITIONS, greedy
from apprentice.evaluation.scores import score_condition
from apprentice.records import Task, Trajectory
from apprentice.records.fingerprint import fingerprint
from apprentice.records.tables import read_tasks, read_trajectories

FILE = "per_task_em.json"
"""Its name among a run's artifacts."""


@dataclass(frozen=True)
class PerTask:
    """The trained policy's greedy exact match on each held-out task; a task is named by the hash of its content."""

    tasks: frozenset[str]
    """Every task of the evaluation, those lost to faults included."""
    em: Mapping[str, float]

    @property
    def hash(self) -> str:
        """Equal for equal tasks and results."""
        return fingerprint(self.text())

    def text(self) -> str:
        """As JSON, in a stable order."""
        return json.dumps({"tasks": sorted(self.tasks), "em": dict(sorted(self.em.items()))}, indent=1)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PerTask":
        """From what `text` wrote."""
        return cls(frozenset(values["tasks"]), values["em"])


def read_episodes(layout: Layout) -> tuple[list[Task], dict[str, list[Trajectory]]]:
    """The tasks that were evaluated and every condition's greedy episodes."""
    episodes = {name: greedy(read_trajectories(layout.evaluations / f"{name}.parquet")) for name in CONDITIONS}
    tried = {trajectory.task_id for of_condition in episodes.values() for trajectory in of_condition}
    return [task for task in read_tasks(layout.tasks, "dev") if task.id in tried], episodes


def per_task_em(layout: Layout) -> PerTask:
    """The trained policy's results, from the files of the evaluate stage."""
    tasks, episodes = read_episodes(layout)
    names = {task.id: fingerprint(task) for task in tasks}
    scores = score_condition(tasks, episodes["trained"]).scores
    return PerTask(frozenset(names.values()), {names[score.task_id]: score.em for score in scores})
