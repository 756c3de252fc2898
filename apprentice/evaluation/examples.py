"""Example tasks for the report and the traces: the same task before and after training."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from apprentice.evaluation.comparison import greedy
from apprentice.evaluation.measures import Measure
from apprentice.records import Task, Trajectory


@dataclass(frozen=True, slots=True)
class Episode:
    """A trajectory and whether it reached its goal."""

    trajectory: Trajectory
    solved: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A task and its episodes before and after training."""

    title: str
    task: Task
    before: Episode
    after: Episode


def choose_examples(measure: Measure, tasks: Sequence[Task], before: Sequence[Trajectory], after: Sequence[Trajectory]) -> list[Example]:
    """Choose up to three tasks by their greedy episodes: one that improved, one that still fails, one unanswerable.

    Of the tasks that qualify, the one solved after training comes first, then the harder one, then the one with more
    turns.
    """
    pairs, (good, bad) = _pairs(measure, tasks, before, after), measure.marks
    criteria = (
        (f"Improved: {bad} before, {good} after", lambda task, old, new: task.answerable and not old.solved and new.solved),
        (f"Still {bad} after training", lambda task, old, new: task.answerable and not new.solved),
        ("An unanswerable question", lambda task, old, new: not task.answerable),
    )
    chosen = []
    for title, qualifies in criteria:
        candidates = [pair for pair in pairs if qualifies(*pair)]
        if candidates:
            task, old, new = max(candidates, key=lambda pair: (pair[2].solved, pair[0].difficulty or 0, pair[0].hops, len(pair[2].trajectory.turns)))
            chosen.append(Example(title, task, old, new))
    return chosen


def tally(calls: Sequence[str]) -> list[str]:
    """Return the calls with consecutive equal ones merged: `spotify.show_song 200 (12 times)`."""
    counted = [(call, sum(1 for _ in same)) for call, same in groupby(calls)]
    return [call if times == 1 else f"{call} ({times} times)" for call, times in counted]


def _pairs(measure: Measure, tasks: Sequence[Task], before: Sequence[Trajectory], after: Sequence[Trajectory]) -> list[tuple[Task, Episode, Episode]]:
    def played(task: Task, trajectory: Trajectory) -> Episode:
        return Episode(trajectory, measure.solved(task, trajectory))

    old, new = ({trajectory.task_id: trajectory for trajectory in greedy(side)} for side in (before, after))
    return [(task, played(task, old[task.id]), played(task, new[task.id])) for task in tasks if task.id in old and task.id in new]
