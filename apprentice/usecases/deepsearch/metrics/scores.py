"""Scores a condition on the held-out tasks: per task, in total, by hops, by difficulty, and by abstention."""

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from apprentice.evaluation.comparison import paired, rounded
from apprentice.evaluation.statistics import share_interval
from apprentice.records import Task, Trajectory
from apprentice.records.task import UNKNOWN
from apprentice.usecases.deepsearch.environment.scoring import cover_exact_match, exact_match, f1, folded_exact_match

SCORES = {"em": exact_match, "em_folded": folded_exact_match, "cover_em": cover_exact_match, "f1": f1}
"""Key in evaluation.json -> the function that scores an answer."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """The scores of one task under one condition: means over its scored episodes."""

    task_id: str
    scenario: str
    hops: int
    answerable: bool
    em: float
    em_folded: float
    cover_em: float
    f1: float
    abstained: float
    """Share of its episodes that answered `unknown`."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The scores of one condition."""

    scores: tuple[TaskScore, ...]
    faults: int
    """Number of episodes that the infrastructure broke; they are not scored."""


def score_condition(tasks: Sequence[Task], trajectories: Iterable[Trajectory], planned: int) -> Condition:
    """Score the episodes of one condition, in the order of the tasks; a task without an unbroken episode is absent.

    Args:
        tasks: the tasks to score.
        trajectories: the episodes; truncated ones score 0.
        planned: number of episodes that were started.
    """
    episodes: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        if trajectory.outcome != "fault":
            episodes[trajectory.task_id].append(trajectory)
    faults = planned - sum(map(len, episodes.values()))
    return Condition(tuple(_score(task, episodes[task.id]) for task in tasks if task.id in episodes), faults)


def episode_scores(task: Task, trajectory: Trajectory) -> dict[str, float]:
    """Return `{em, em_folded, cover_em, f1}` of one episode; all 0 if it was truncated or gave no answer."""
    given = trajectory.outcome != "truncated" and bool(trajectory.answer.strip())
    return {name: score(trajectory.answer, task.answers) if given else 0.0 for name, score in SCORES.items()}


def _score(task: Task, episodes: Sequence[Trajectory]) -> TaskScore:
    of_episodes = [episode_scores(task, episode) for episode in episodes]
    means = {name: fmean(scores[name] for scores in of_episodes) for name in SCORES}
    abstained = fmean(episode.outcome != "truncated" and exact_match(episode.answer, UNKNOWN) for episode in episodes)
    return TaskScore(task.id, task.scenario, task.hops, task.answerable, **means, abstained=abstained)


def summary(scores: Sequence[TaskScore]) -> dict:
    """Return `{em, em_folded, cover_em, f1, n, em_ci95: [low, high]}`, where n is the number of tasks."""
    if not scores:
        return {**dict.fromkeys(SCORES, 0.0), "n": 0, "em_ci95": [0.0, 1.0]}
    interval = share_interval(np.array([score.em for score in scores]), [score.scenario for score in scores])
    means = {name: rounded(fmean(getattr(score, name) for score in scores)) for name in SCORES}
    return {**means, "n": len(scores), "em_ci95": [rounded(end) for end in interval]}


def difference(after: Sequence[TaskScore], before: Sequence[TaskScore]) -> dict:
    """Return `{em, em_ci95, p, n, scenarios}` of `after - before`, paired over the tasks in both."""
    scenarios = {score.task_id: score.scenario for score in after}
    return paired("em", {score.task_id: score.em for score in after}, {score.task_id: score.em for score in before}, scenarios)


def by_hops(scores: Iterable[TaskScore]) -> dict[str, dict]:
    """Return `{hops: {em, n}}` of the answerable tasks, and `{em, n}` of the others under `unanswerable`."""
    return _grouped(scores, lambda score: (0, str(score.hops)) if score.answerable else (1, "unanswerable"))


def by_difficulty(scores: Iterable[TaskScore], pass_rates: dict[str, float]) -> dict[str, dict]:
    """Return `{never_solved | sometimes_solved | always_solved: {em, n}}`, by the starting policy's pass rate.

    Args:
        scores: the scores of a condition.
        pass_rates: task id -> share of independent episodes solved; tasks without one are left out.
    """
    names = {0: "never_solved", 1: "sometimes_solved", 2: "always_solved"}

    def bin_of(score: TaskScore) -> tuple[int, str]:
        rate = pass_rates[score.task_id]
        place = 0 if rate == 0 else 2 if rate == 1 else 1
        return place, names[place]

    return _grouped((score for score in scores if score.task_id in pass_rates), bin_of)


def abstention(scores: Sequence[TaskScore]) -> dict:
    """Return precision and recall of the answer `unknown` on unanswerable questions; None if the denominator is 0."""
    caught = sum(score.abstained for score in scores if not score.answerable)
    said = sum(score.abstained for score in scores)
    unanswerable = sum(not score.answerable for score in scores)
    return {
        "precision": rounded(caught / said) if said else None,
        "recall": rounded(caught / unanswerable) if unanswerable else None,
        "said_unknown": rounded(said),
        "unanswerable": unanswerable,
    }


def _grouped(scores: Iterable[TaskScore], key: Callable[[TaskScore], tuple[Hashable, str]]) -> dict[str, dict]:
    groups: dict[tuple, list[float]] = defaultdict(list)
    for score in scores:
        groups[key(score)].append(score.em)
    return {name: {"em": rounded(fmean(values)), "n": len(values)} for (_, name), values in sorted(groups.items())}
