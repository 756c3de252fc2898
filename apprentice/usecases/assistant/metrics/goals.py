"""The metrics of AppWorld in evaluation.json.

TGC, task goal completion, is the share of tasks solved. SGC, scenario goal completion, is the share of scenarios whose
evaluated tasks were all solved (Trivedi et al. 2024, AppWorld, section 4).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from apprentice.config.schema import EvaluateConfig
from apprentice.evaluation.comparison import AGENTS, DIFFERENCES, SAMPLED, Episodes, HeldOut, Strata, greedy, paired, rounded, sampled, spent
from apprentice.evaluation.measures import Measure
from apprentice.evaluation.statistics import share_interval
from apprentice.records import Task, Trajectory
from apprentice.usecases.assistant.metrics import conduct

SETS = (HeldOut("held-out variants", "heldout_variants", "variants"), HeldOut("held-out scenarios", "heldout_scenarios", "dev"))
"""The headline set comes first: other variants of training scenarios. Scenarios outside training follow."""


@dataclass(frozen=True, slots=True)
class GoalScore:
    """The results of one task under one condition."""

    task: Task
    runs: tuple[float, ...]
    """1.0 for each run that solved the task, else 0.0; runs that ended in a fault are left out."""

    @property
    def tgc(self) -> float:
        """Mean over the runs."""
        return fmean(self.runs)


Scores = Mapping[str, Sequence[GoalScore]]
"""The scores of one condition by set key."""


def compare(tasks: Sequence[Task], episodes: Episodes, config: EvaluateConfig, seconds: Mapping[str, float]) -> dict:
    """Return the content of evaluation.json. The top level covers greedy episodes, `sampled` the sampled ones.

    Args:
        tasks: the held-out tasks, on which every condition was run.
        seconds: wall time of each condition.
    """
    by_greedy = {name: _scores(tasks, greedy(episodes[name])) for name in AGENTS}
    by_sampling = {name: _scores(tasks, sampled(episodes[name])) for name in SAMPLED}
    return {
        **_metrics(by_greedy),
        "sampled": _metrics(by_sampling) if config.samples else {},
        "by_level": {name: {key: by_level(scores) for key, scores in of_condition.items()} for name, of_condition in by_greedy.items()},
        "behaviour": {name: {**conduct.conduct(greedy(episodes[name])), "faults": _faults(by_greedy[name])} for name in AGENTS},
        **spent(AGENTS, episodes, seconds),
    }


def strata(metrics: Mapping) -> Strata:
    """Return the TGC of each set by the difficulty that the data root gives."""
    return {
        f"TGC by difficulty level, {held_out.words}, greedy.": {
            name: {f"level {level}": row for level, row in sets[held_out.key].items()} for name, sets in metrics["by_level"].items()
        }
        for held_out in SETS
        if held_out.key in metrics["by_level"]["trained"]
    }


def episode_goals(_task: Task, trajectory: Trajectory) -> dict[str, float]:
    """Return whether the goal was reached, and the reward."""
    return {"tgc": float(trajectory.outcome == "success"), "reward": trajectory.reward}


def score_goals(tasks: Iterable[Task], trajectories: Iterable[Trajectory]) -> list[GoalScore]:
    """Return one score per task, in the order of the tasks; it has no runs if all of them ended in faults."""
    runs: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.outcome != "fault":
            runs[trajectory.task_id].append(float(trajectory.outcome == "success"))
    return [GoalScore(task, tuple(runs[task.id])) for task in tasks]


def summary(scores: Sequence[GoalScore]) -> dict:
    """Return `{tgc, sgc, n, scenarios, tgc_ci95: [low, high]}` as means over the runs; n counts tasks."""
    scored = [score for score in scores if score.runs]
    if not scored:
        return {"tgc": 0.0, "sgc": 0.0, "n": 0, "scenarios": 0, "tgc_ci95": [0.0, 1.0]}
    completion, scenarios = scenario_completion(scores)
    solved = np.array([score.tgc for score in scored])
    interval = share_interval(solved, [score.task.scenario for score in scored])
    metrics = {"tgc": rounded(fmean(solved)), "sgc": rounded(completion), "n": len(scored), "scenarios": scenarios}
    return {**metrics, "tgc_ci95": [rounded(end) for end in interval]}


def scenario_completion(scores: Sequence[GoalScore]) -> tuple[float, int]:
    """Return the mean SGC over the runs, and the number of scenarios in the first run.

    A run that lost a task omits its scenario, because the scenario would be easier with fewer variants.
    """
    scenarios: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for score in scores:
        scenarios[score.task.scenario].append(score.runs)
    # zip stops at the variant with the fewest runs.
    solved = [[min(of_run) for of_run in zip(*variants, strict=False)] for variants in scenarios.values()]
    runs = [[of_scenario[run] for of_scenario in solved if run < len(of_scenario)] for run in range(max(map(len, solved), default=0))]
    return (fmean(map(fmean, runs)), len(runs[0])) if runs else (0.0, 0)


def by_level(scores: Iterable[GoalScore]) -> dict[str, dict]:
    """Return `{difficulty: {tgc, n}}`; tasks of unknown difficulty are left out."""
    levels: dict[int, list[float]] = defaultdict(list)
    for score in scores:
        if score.runs and score.task.difficulty is not None:
            levels[score.task.difficulty].append(score.tgc)
    return {str(level): {"tgc": rounded(fmean(values)), "n": len(values)} for level, values in sorted(levels.items())}


def _scores(tasks: Sequence[Task], trajectories: Sequence[Trajectory]) -> Scores:
    """Score the sets that have tasks."""
    by_set = {held_out.key: [task for task in tasks if held_out.holds(task)] for held_out in SETS}
    return {key: score_goals(of_set, trajectories) for key, of_set in by_set.items() if of_set}


def _metrics(conditions: Mapping[str, Scores]) -> dict:
    metrics = {name: {key: summary(scores) for key, scores in sets.items()} for name, sets in conditions.items()}
    for name, (after, before) in DIFFERENCES.items():
        if {after, before} <= conditions.keys():
            metrics[name] = {
                key: paired("tgc", _by_task(scores), _by_task(conditions[before][key]), {score.task.id: score.task.scenario for score in scores})
                for key, scores in conditions[after].items()
            }
    return metrics


def _by_task(scores: Iterable[GoalScore]) -> dict[str, float]:
    return {score.task.id: score.tgc for score in scores if score.runs}


def _faults(sets: Scores) -> int:
    return sum(not score.runs for scores in sets.values() for score in scores)


MEASURE = Measure(
    key="tgc",
    name="TGC",
    full_name="task goal completion",
    also={"sgc": "SGC"},
    counts={"n": "tasks", "scenarios": "scenarios"},
    method="Task goal completion (TGC) is the share of tasks solved, with one greedy episode per task and 95% Wilson intervals in which "
    "the tasks of a scenario form one cluster. "
    "Scenario goal completion (SGC) is the share of scenarios whose evaluated tasks were all solved. "
    "Held-out variants belong to training scenarios; held-out scenarios do not occur in training.",
    conditions=AGENTS,
    sets=SETS,
    marks=("solved", "failed"),
    scores=episode_goals,
    compare=compare,
    strata=strata,
    behaviour=conduct.METRICS,
    shares=conduct.SHARES,
    drawn=tuple(conduct.METRICS),
)
