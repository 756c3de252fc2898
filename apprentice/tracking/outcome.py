"""The evaluation of a pipeline as the registry compares it: the main metric of each task."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apprentice.config import Layout, PipelineConfig
from apprentice.evaluation.comparison import greedy
from apprentice.evaluation.measures import measure_of
from apprentice.records import Task, Trajectory
from apprentice.records.files import read_json
from apprentice.records.fingerprint import fingerprint
from apprentice.records.tables import read_tasks, read_trajectories

FILE = "per_task.json"
"""Name of the artifact that holds it."""


@dataclass(frozen=True)
class PerTask:
    """The trained policy's greedy main metric on each task of the headline set; tasks are identified by their hash."""

    tasks: frozenset[str]
    """Every task of the evaluation, including those lost to faults."""
    score: Mapping[str, float]
    scenario: Mapping[str, str] = field(default_factory=dict)
    """The hash of each task's scenario. A task without one forms a scenario of its own."""

    @property
    def hash(self) -> str:
        """A hash of the tasks and their results."""
        return fingerprint(json.dumps(self._results(), indent=1))

    def text(self) -> str:
        """Return it as JSON, in a stable order."""
        return json.dumps({**self._results(), "scenario": dict(sorted(self.scenario.items()))}, indent=1)

    def _results(self) -> dict[str, Any]:
        return {"tasks": sorted(self.tasks), "score": dict(sorted(self.score.items()))}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "PerTask":
        """Return it from what `text` wrote."""
        return cls(frozenset(values["tasks"]), values["score"], values.get("scenario", {}))


def read_episodes(layout: Layout, conditions: Iterable[str]) -> tuple[list[Task], dict[str, list[Trajectory]]]:
    """Return the evaluated tasks and the greedy episodes of each condition."""
    episodes = {name: greedy(read_trajectories(layout.evaluations / f"{name}.parquet")) for name in conditions}
    tried = {trajectory.task_id for of_condition in episodes.values() for trajectory in of_condition}
    return [task for task in read_tasks(layout.tasks) if task.id in tried], episodes


def per_task(config: PipelineConfig, layout: Layout) -> PerTask:
    """Return the trained policy's results from the files of the stage evaluate."""
    measure = measure_of(config)
    headline = measure.evaluated(read_json(layout.metrics("evaluation")))[0]
    tasks, episodes = read_episodes(layout, measure.conditions)
    of_set = {task.id: task for task in tasks if headline.holds(task)}
    names = {task_id: fingerprint(task) for task_id, task in of_set.items()}
    scored = {one.task_id: one for one in episodes["trained"] if one.outcome != "fault" and one.task_id in of_set}
    scores = {names[task_id]: measure.scores(of_set[task_id], one)[measure.key] for task_id, one in scored.items()}
    scenarios = {names[task_id]: fingerprint(task.scenario) for task_id, task in of_set.items()}
    return PerTask(frozenset(names.values()), scores, scenarios)
