"""The assistant's expert: it plays a task's reference solution, block by block."""

from collections.abc import Generator

from apprentice.records import Task
from apprentice.usecases.assistant.environment.appworld import fenced
from apprentice.usecases.assistant.environment.skills import with_skills


def expert_actions(task: Task, keeps: bool = False) -> Generator[str, str, None]:
    """The reference solution, a message a block, with a function to keep where `keeps`; gives up at once where the task has none."""
    for block in with_skills(task.plan, task.skills) if keeps else task.plan:
        yield fenced(block)
