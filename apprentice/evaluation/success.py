"""The default measure: the success rate, for use cases that define no measure."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

import numpy as np

from apprentice.config.schema import EvaluateConfig
from apprentice.evaluation.comparison import AGENTS, DIFFERENCES, HELD_OUT, SAMPLED, Episodes, Strata, greedy, paired, rounded, sampled, spent
from apprentice.evaluation.measures import Measure
from apprentice.evaluation.statistics import share_interval
from apprentice.records import Task, Trajectory
from apprentice.records.metrics import mean

BEHAVIOUR = {
    "turns": "turns per episode",
    "action_tokens": "tokens sampled per episode",
    "malformed": "malformed actions",
    "errors": "actions that ended in an error",
    "truncated": "episodes that ran out of turns or tokens",
}
"""Behaviour metric -> its label."""

Rates = Mapping[str, float]
"""Task id -> share of its episodes that succeeded; tasks without an unbroken episode are absent."""


def compare(tasks: Sequence[Task], episodes: Episodes, config: EvaluateConfig, seconds: Mapping[str, float]) -> dict:
    """Return the contents of evaluation.json. Metrics are of the greedy episodes, except those under `sampled`.

    Args:
        tasks: the held-out tasks that every condition was run on.
        episodes: condition -> its episodes.
        config: the section `evaluate`.
        seconds: condition -> wall time in seconds.
    """
    by_sampling = {name: sampled(episodes[name]) for name in SAMPLED} if config.samples else {}
    return {
        **_compared(tasks, {name: greedy(of_condition) for name, of_condition in episodes.items()}),
        "sampled": _compared(tasks, by_sampling),
        "behaviour": {name: behaviour(greedy(episodes[name]), len(tasks)) for name in AGENTS},
        **spent(episodes, episodes, seconds),
    }


def success_rates(trajectories: Iterable[Trajectory]) -> Rates:
    """Return the success rate of each task, without episodes that the infrastructure broke."""
    solved: dict[str, list[float]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.outcome != "fault":
            solved[trajectory.task_id].append(float(trajectory.outcome == "success"))
    return {task_id: fmean(values) for task_id, values in solved.items()}


def behaviour(trajectories: Sequence[Trajectory], planned: int) -> dict[str, float]:
    """Return the metrics in `BEHAVIOUR`, and `faults`, the number of planned episodes that the infrastructure broke."""
    played = [trajectory for trajectory in trajectories if trajectory.outcome != "fault"]
    turns = [turn for trajectory in played for turn in trajectory.turns]
    values = {
        "turns": mean(len(trajectory.turns) for trajectory in played),
        "action_tokens": mean(trajectory.action_tokens for trajectory in played),
        "malformed": mean(turn.kind == "malformed" for turn in turns),
        "errors": mean(turn.kind == "error" for turn in turns),
        "truncated": mean(trajectory.outcome == "truncated" for trajectory in played),
    }
    return {**{name: rounded(value) for name, value in values.items()}, "faults": planned - len(played)}


def _compared(tasks: Sequence[Task], episodes: Episodes) -> dict:
    rates = {name: success_rates(of_condition) for name, of_condition in episodes.items()}
    scenarios = {task.id: task.scenario for task in tasks}
    differences = {
        name: paired("success", rates[after], rates[before], scenarios) for name, (after, before) in DIFFERENCES.items() if {after, before} <= rates.keys()
    }
    return {**{name: _summary(of_condition, scenarios) for name, of_condition in rates.items()}, **differences}


def _summary(rates: Rates, scenarios: Mapping[str, str]) -> dict:
    """Return `{success, n, success_ci95: [low, high]}`, where n is the number of tasks."""
    if not rates:
        return {"success": 0.0, "n": 0, "success_ci95": [0.0, 1.0]}
    interval = share_interval(np.array(list(rates.values())), [scenarios[task_id] for task_id in rates])
    return {"success": rounded(fmean(rates.values())), "n": len(rates), "success_ci95": [rounded(end) for end in interval]}


def _episode_scores(_task: Task, trajectory: Trajectory) -> dict[str, float]:
    return {"success": float(trajectory.outcome == "success"), "reward": trajectory.reward}


def _no_strata(_metrics: Mapping) -> Strata:
    return {}


SUCCESS = Measure(
    key="success",
    name="success",
    full_name="success rate",
    also={},
    counts={"n": "tasks"},
    method="Success rate: the share of tasks solved, one greedy episode per task, with 95% Wilson intervals that count the tasks of a scenario as one cluster.",
    conditions=AGENTS,
    sets=HELD_OUT,
    marks=("solved", "failed"),
    scores=_episode_scores,
    compare=compare,
    strata=_no_strata,
    behaviour=BEHAVIOUR,
    shares=("malformed", "errors", "truncated"),
)
