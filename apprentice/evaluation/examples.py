"""Which episodes are worth showing: the same task before and after training."""

from collections.abc import Sequence
from dataclasses import dataclass

from apprentice.evaluation.comparison import greedy
from apprentice.evaluation.scores import episode_scores
from apprentice.records import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Episode:
    """A trajectory and whether its answer was right."""

    trajectory: Trajectory
    right: bool


@dataclass(frozen=True, slots=True)
class Example:
    """One task, tried before and after training."""

    title: str
    task: Task
    before: Episode
    after: Episode


def choose_examples(tasks: Sequence[Task], before: Sequence[Trajectory], after: Sequence[Trajectory]) -> list[Example]:
    """One improved task, one still failed, one without an answer: where there is one. Greedy episodes; more hops and more turns first."""
    pairs = _pairs(tasks, before, after)
    wishes = (
        ("Improved: wrong before, right after", lambda task, old, new: task.answerable and not old.right and new.right),
        ("Still wrong after training", lambda task, old, new: task.answerable and not new.right),
        ("A question without an answer", lambda task, old, new: not task.answerable),
    )
    chosen = []
    for title, wish in wishes:
        fitting = [pair for pair in pairs if wish(*pair)]
        if fitting:
            task, old, new = max(fitting, key=lambda pair: (pair[2].right, pair[0].hops, len(pair[2].trajectory.turns)))
            chosen.append(Example(title, task, old, new))
    return chosen


def _pairs(tasks: Sequence[Task], before: Sequence[Trajectory], after: Sequence[Trajectory]) -> list[tuple[Task, Episode, Episode]]:
    old, new = ({trajectory.task_id: trajectory for trajectory in greedy(side)} for side in (before, after))
    return [(task, _episode(task, old[task.id]), _episode(task, new[task.id])) for task in tasks if task.id in old and task.id in new]


def _episode(task: Task, trajectory: Trajectory) -> Episode:
    return Episode(trajectory, episode_scores(task, trajectory)[0] == 1.0)
