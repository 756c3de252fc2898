"""How the policies of a use case are compared: which figure decides, on which held-out tasks, and in which words it is told."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from apprentice.config import PipelineConfig
from apprentice.config.schema import EvaluateConfig
from apprentice.config.usecases import find_use_case
from apprentice.evaluation.comparison import Episodes, HeldOut, Strata
from apprentice.records import Task, Trajectory


@dataclass(frozen=True)
class Measure:
    """What the report, the last screen and the registry know of a use case."""

    key: str
    """The main figure of a condition in evaluation.json; its interval is `<key>_ci95`."""
    name: str
    """The main figure, for people."""
    full_name: str
    also: Mapping[str, str]
    """The other metrics of a condition, by key, in words."""
    counts: Mapping[str, str]
    """What they are of, by key, in words."""
    method: str
    """How to read the metrics."""
    conditions: Mapping[str, str]
    """In the order of the report, in words."""
    sets: Sequence[HeldOut]
    """The headline first; an evaluation may lack some of several."""
    marks: tuple[str, str]
    """What is said of an episode that reached the goal, and of one that did not."""
    scores: Callable[[Task, Trajectory], Mapping[str, float]]
    """Of one episode; the main figure under `key`."""
    compare: Callable[[Sequence[Task], Episodes, EvaluateConfig, Mapping[str, float]], dict]
    """What evaluation.json holds, of the tasks, their episodes and the wall seconds of each condition."""
    strata: Callable[[Mapping], Strata]
    """Main metrics of parts of the tasks, of what evaluation.json holds."""
    behaviour: Mapping[str, str]
    """The metrics of behaviour, in words."""
    shares: Sequence[str]
    """Those that are shares."""
    drawn: Sequence[str] = ()
    """Those that the report draws too."""
    beside: Mapping[str, str] = field(default_factory=dict)
    """Figures of a condition that the report shows and the summary of a run leaves out, by key, in words."""

    @property
    def interval(self) -> str:
        """The key of the main figure's 95% interval."""
        return f"{self.key}_ci95"

    def evaluated(self, metrics: Mapping) -> list[HeldOut]:
        """The sets that `metrics`, what evaluation.json holds, has; the headline first."""
        return [held_out for held_out in self.sets if not held_out.key or held_out.key in metrics["trained"]]

    def solved(self, task: Task, trajectory: Trajectory) -> bool:
        """Whether an episode reached the goal."""
        return self.scores(task, trajectory)[self.key] == 1.0

    def curve_rows(self, metrics: Mapping) -> str:
        """A CSV for `dvc plots`: `condition,score,low,high` and the other metrics, one row a condition and set, greedy."""
        others = (*self.also, *self.beside)
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["condition", "score", "low", "high", *others])
        for held_out in self.evaluated(metrics):
            for name in self.conditions:
                row = held_out.of(metrics[name])
                writer.writerow([held_out.label(name), row[self.key], *row[self.interval], *(row[key] for key in others)])
        return text.getvalue()


def measure_of(config: PipelineConfig) -> Measure:
    """Return the measure of a pipeline's use case, or the success rate; its labels name the algorithm that the pipeline trains with."""
    case = find_use_case(config.environment.use)
    measure = case.measure() or _success_rate(case.baselines)
    trained = f"Agent after {algorithm(config)}"
    return measure if measure.conditions["trained"] == trained else replace(measure, conditions={**measure.conditions, "trained": trained})


def _success_rate(baselines: Sequence[str]) -> Measure:
    """The default measure, with a use case's baselines before the agent."""
    from apprentice.evaluation.success import SUCCESS

    return replace(SUCCESS, conditions={**{name: name.replace("_", " ").capitalize() for name in baselines}, **SUCCESS.conditions})


def algorithm(config: PipelineConfig) -> str:
    """Return the name of the objective that a pipeline trains with: PPO, GSPO or CISPO."""
    return config.train.objective.upper()
