"""The library of functions that the agent keeps for later tasks."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from apprentice.errors import ApprenticeError
from apprentice.records.files import write_lines
from apprentice.records.skill import Skill
from apprentice.records.task import Task

OFFERED = 4
"""Most functions that a task is offered, the newest of its scenario; the first message must hold them."""


class SkillLibrary:
    """Skills by scenario and name, in the order in which they were added.

    Args:
        skills: the first skills, oldest first.
    """

    def __init__(self, skills: Iterable[Skill] = ()):
        self._skills: dict[tuple[str, str], Skill] = {}
        self.add(skills)

    def add(self, skills: Iterable[Skill]) -> None:
        """Add skills; each replaces the one of the same scenario and name."""
        for skill in skills:
            self._skills.pop((skill.scenario, skill.name), None)
            self._skills[skill.scenario, skill.name] = skill

    def of(self, scenario: str) -> tuple[Skill, ...]:
        """Return the skills that a task of a scenario is offered, newest last."""
        return tuple([skill for skill in self if skill.scenario == scenario][-OFFERED:])

    def offered(self, task: Task) -> Task:
        """Return the task with the skills of its scenario."""
        return task.model_copy(update={"skills": self.of(task.scenario)})

    def __iter__(self) -> Iterator[Skill]:
        return iter(self._skills.values())

    def __len__(self) -> int:
        return len(self._skills)

    def write(self, path: Path) -> None:
        """Write the skills as JSON objects, one per line."""
        write_lines(path, [skill.model_dump() for skill in self])

    @classmethod
    def read(cls, path: Path) -> "SkillLibrary":
        """Read what `write` wrote; the library is empty if the file does not exist.

        Raises:
            ApprenticeError: a line holds no skill.
        """
        library = cls()
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for number, line in enumerate(lines, start=1):
            try:
                library.add([Skill(**json.loads(line))])
            except (ValidationError, ValueError, TypeError) as error:
                raise ApprenticeError(f"holds no skill: {error}", where=f"{path}:{number}", todo="run the stage train again") from None
        return library
