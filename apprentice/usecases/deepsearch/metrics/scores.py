"""What a condition scored on the held-out tasks: per task, in all, by hops, by difficulty, and on questions without an answer."""

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
"""The scores of an answer, by their keys in evaluation.json."""


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task's scores under one condition: means over its episodes that were scored."""

    task_id: str
    scenario: str
    hops: int
    answerable: bool
    em: float
    em_folded: float
    cover_em: float
    f1: float
    abstained: float
    """Share of the episodes whose answer was `unknown`."""
    episodes: int
    answer: str
    """Of the first episode scored."""


@dataclass(frozen=True, slots=True)
class Condition:
    """The scores of one condition, and what was left out of them."""

    scores: tuple[TaskScore, ...]
    faults: int
    """Episodes that the infrastructure broke: not scored, never counted as the agent's failure."""
    truncated: int
    """Episodes that ran out of turns or tokens: scored 0."""


def score_condition(tasks: Sequence[Task], trajectories: Iterable[Trajectory], planned: int | None = None) -> Condition:
    """Scores the episodes of one condition, in the order of the tasks; a task all of whose episodes broke is absent.

    Args:
        planned: episodes that were started, where faults are not among the trajectories; None counts the faults among them.
    """
    episodes: dict[str, list[Trajectory]] = defaultdict(list)
    trajectories = list(trajectories)
    scored = [trajectory for trajectory in trajectories if trajectory.outcome != "fault"]
    for trajectory in scored:
        episodes[trajectory.task_id].append(trajectory)
    return Condition(
        scores=tuple(_score(task, episodes[task.id]) for task in tasks if episodes[task.id]),
        faults=(len(trajectories) if planned is None else planned) - len(scored),
        truncated=sum(trajectory.outcome == "truncated" for trajectory in scored),
    )


def episode_scores(task: Task, trajectory: Trajectory) -> dict[str, float]:
    """`{em, em_folded, cover_em, f1}` of one episode; all 0 where it was truncated or gave no answer."""
    given = trajectory.outcome != "truncated" and bool(trajectory.answer.strip())
    return {name: score(trajectory.answer, task.answers) if given else 0.0 for name, score in SCORES.items()}


def _score(task: Task, episodes: Sequence[Trajectory]) -> TaskScore:
    of_episodes = [episode_scores(task, episode) for episode in episodes]
    means = {name: fmean(scores[name] for scores in of_episodes) for name in SCORES}
    abstained = fmean(episode.outcome != "truncated" and exact_match(episode.answer, UNKNOWN) for episode in episodes)
    return TaskScore(task.id, task.scenario, task.hops, task.answerable, **means, abstained=abstained, episodes=len(episodes), answer=episodes[0].answer)


def summary(scores: Sequence[TaskScore]) -> dict:
    """`{em, em_folded, cover_em, f1, n, em_ci95: [low, high]}`; n counts tasks."""
    if not scores:
        return {**dict.fromkeys(SCORES, 0.0), "n": 0, "em_ci95": [0.0, 1.0]}
    interval = share_interval(np.array([score.em for score in scores]), [score.scenario for score in scores])
    means = {name: rounded(fmean(getattr(score, name) for score in scores)) for name in SCORES}
    return {**means, "n": len(scores), "em_ci95": [rounded(end) for end in interval]}


def difference(after: Sequence[TaskScore], before: Sequence[TaskScore]) -> dict:
    """`{em, em_ci95, p, n, scenarios}` of `after - before`, paired over the tasks that both scored."""
    scenarios = {score.task_id: score.scenario for score in after}
    return paired("em", {score.task_id: score.em for score in after}, {score.task_id: score.em for score in before}, scenarios)


def by_hops(scores: Iterable[TaskScore]) -> dict[str, dict]:
    """`{hops: {em, n}}` over answerable tasks; those without an answer stand under `unanswerable`."""
    return _grouped(scores, lambda score: (0, str(score.hops)) if score.answerable else (1, "unanswerable"))


def by_difficulty(scores: Iterable[TaskScore], pass_rates: dict[str, float]) -> dict[str, dict]:
    """`{never_solved | sometimes_solved | always_solved: {em, n}}` by the starting policy's pass rate on each task.

    Args:
        pass_rates: share of independent episodes solved, by task id; tasks without one are left out.
    """
    names = {0: "never_solved", 1: "sometimes_solved", 2: "always_solved"}

    def bin_of(score: TaskScore) -> tuple[int, str]:
        rate = pass_rates[score.task_id]
        place = 0 if rate == 0 else 2 if rate == 1 else 1
        return place, names[place]

    return _grouped((score for score in scores if score.task_id in pass_rates), bin_of)


def abstention(scores: Sequence[TaskScore]) -> dict:
    """Precision and recall of the answer `unknown` for questions without one; None where there is nothing to divide by."""
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
