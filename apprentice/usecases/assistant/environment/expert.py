"""The assistant's expert, which plays a task's reference solution block by block."""

from collections.abc import Generator

from apprentice.records import Task
from apprentice.usecases.assistant.environment.appworld import fenced
from apprentice.usecases.assistant.environment.skills import with_skills


def expert_actions(task: Task, keeps: bool = False) -> Generator[str, str, None]:
    """Yield the reference solution, one block per message; nothing if the task has none.

    Args:
        keeps: whether the expert defines a function to keep, or calls one that it kept earlier.
    """
    for block in with_skills(task.plan, task.skills) if keeps else task.plan:
        yield fenced(block)
