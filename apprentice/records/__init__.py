"""Frozen, typed records that travel between stages, and the files that hold them."""

from apprentice.records.skill import Skill
from apprentice.records.skill_library import SkillLibrary
from apprentice.records.task import Corpus, Passage, Task
from apprentice.records.trajectory import Outcome, Trajectory, Turn, Verdict

__all__ = ["Corpus", "Outcome", "Passage", "Skill", "SkillLibrary", "Task", "Trajectory", "Turn", "Verdict"]
