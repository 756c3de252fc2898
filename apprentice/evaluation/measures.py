"""The measure of a use case: the metric that compares its policies, the held-out tasks, and labels for reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from apprentice.config import PipelineConfig
from apprentice.config.schema import EvaluateConfig
from apprentice.config.usecases import find_use_case
from apprentice.evaluation.comparison import Episodes, HeldOut, Strata
from apprentice.records import Task, Trajectory
from apprentice.records.metrics import csv_text


@dataclass(frozen=True)
class Measure:
    """The metrics of a use case and their labels, for the report, the summary, and the registry."""

    key: str
    """Key of the main metric of a condition in evaluation.json; the key of its 95% interval is `<key>_ci95`."""
    name: str
    """Short name of the main metric."""
    full_name: str
    """Full name of the main metric."""
    also: Mapping[str, str]
    """Key -> label of the other metrics of a condition."""
    counts: Mapping[str, str]
    """Key -> label of the sample sizes of a condition."""
    method: str
    """Explanation of the metrics, for the report."""
    conditions: Mapping[str, str]
    """Condition -> label, in the order of the report."""
    sets: Sequence[HeldOut]
    """The sets of held-out tasks, the main one first; an evaluation may lack some."""
    marks: tuple[str, str]
    """Labels of an episode that reached its goal, and of one that did not."""
    scores: Callable[[Task, Trajectory], Mapping[str, float]]
    """Scores one episode; `key` holds the main metric."""
    compare: Callable[[Sequence[Task], Episodes, EvaluateConfig, Mapping[str, float]], dict]
    """Computes evaluation.json from the tasks, their episodes, the section `evaluate`, and the seconds per condition."""
    strata: Callable[[Mapping], Strata]
    """Selects the main metric of parts of the tasks from the contents of evaluation.json."""
    behaviour: Mapping[str, str]
    """Key -> label of the behaviour metrics."""
    shares: Sequence[str]
    """Keys of the behaviour metrics that are shares."""
    drawn: Sequence[str] = ()
    """Keys of the behaviour metrics that the report also shows as bar charts."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Key -> label of metrics of a condition that only the report shows, not the summary of a run."""

    @property
    def interval(self) -> str:
        """The key of the main metric's 95% interval."""
        return f"{self.key}_ci95"

    def evaluated(self, metrics: Mapping) -> list[HeldOut]:
        """Return the sets that `metrics`, the contents of evaluation.json, include; the main one first."""
        return [held_out for held_out in self.sets if not held_out.key or held_out.key in metrics["trained"]]

    def solved(self, task: Task, trajectory: Trajectory) -> bool:
        """Return whether an episode reached its goal."""
        return self.scores(task, trajectory)[self.key] == 1.0

    def curve_rows(self, metrics: Mapping) -> str:
        """Return a CSV for `dvc plots`: `condition,score,low,high` and the other greedy metrics, one row per condition
        and set."""
        rows = []
        for held_out in self.evaluated(metrics):
            for name in self.conditions:
                row = held_out.of(metrics[name])
                low, high = row[self.interval]
                others = {key: row[key] for key in (*self.also, *self.beside)}
                rows.append({"condition": held_out.label(name), "score": row[self.key], "low": low, "high": high, **others})
        return csv_text(rows)


def measure_of(config: PipelineConfig) -> Measure:
    """Return the measure of a pipeline's use case (default: the success rate), with the training algorithm in its labels."""
    case = find_use_case(config.environment.use)
    measure = case.measure() or _success_rate(case.baselines)
    trained = f"Agent after {algorithm(config)}"
    return measure if measure.conditions["trained"] == trained else replace(measure, conditions={**measure.conditions, "trained": trained})


def _success_rate(baselines: Sequence[str]) -> Measure:
    """Return the default measure, with the use case's baselines as its first conditions."""
    from apprentice.evaluation.success import SUCCESS

    return replace(SUCCESS, conditions={**{name: name.replace("_", " ").capitalize() for name in baselines}, **SUCCESS.conditions})


def algorithm(config: PipelineConfig) -> str:
    """Return the name of a pipeline's training algorithm: PPO, GSPO, or CISPO."""
    return config.train.objective.upper()
