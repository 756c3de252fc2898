"""The personal assistant as the stages see it."""

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from apprentice.config import Layout
from apprentice.config.schema import AppWorldConfig
from apprentice.environments.appworld.environment import CODE, COMPLETE, AppWorldEnvironment, code_blocks, fenced
from apprentice.environments.appworld.skills import skills_of, with_skills
from apprentice.environments.appworld.workers import AppWorldWorkers, WorkerLimits
from apprentice.environments.cutting import Encode
from apprentice.environments.protocol import AGENT, MakeEnvironment
from apprentice.records import Skill, Task, Trajectory
from apprentice.records.files import read_json

INTERPRETER = Path(".venv-appworld/bin/python")


def expert_actions(task: Task, keeps: bool = False) -> Generator[str, str, None]:
    """The reference solution, a message a block, with a function to keep where `keeps`; gives up at once where the task has none."""
    for block in with_skills(task.plan, task.skills) if keeps else task.plan:
        yield fenced(block)


class KeptFunctions:
    """The agent's skills: functions that it marks, and calls in later tasks."""

    def kept(self, task: Task, trajectory: Trajectory) -> list[Skill]:
        """Of the blocks that ran to their end, in order."""
        ran = [turn.action for turn in trajectory.turns if turn.kind in (CODE, COMPLETE)]
        return [skill for action in ran for skill in skills_of(code_blocks(action)[0], task.scenario)]

    def used(self, skills: Sequence[Skill], trajectory: Trajectory) -> list[Skill]:
        """Those that were executed and called an app with success, as the world saw it."""
        names = {name for turn in trajectory.turns for name in turn.uses}
        return [skill for skill in skills if skill.name in names]


class Assistant:
    """Episodes in the worlds of the pipeline's data root."""

    baselines = ()

    def __init__(self, config: AppWorldConfig, layout: Layout):
        self._config, self._layout = config, layout
        self.expert = partial(expert_actions, keeps=config.skills)
        self.skills = KeptFunctions() if config.skills else None
        self.reads = (layout.raw / "source.json",)

    @asynccontextmanager
    async def opened(self, encode: Encode) -> AsyncIterator[MakeEnvironment]:
        """The engine, warm. It cuts what a block prints by itself (`observation_chars`).

        Raises:
            ApprenticeError: AppWorld is not installed, its data root is gone, or this machine cannot isolate the agent's code.
        """
        config = self._config
        limits = WorkerLimits(timeout_s=config.timeout_s, memory_mb=config.memory_mb, output_chars=config.observation_chars)
        root = self._layout.raw / read_json(self.reads[0])["root"]
        python, scratch = self._layout.root / INTERPRETER, self._layout.runtime / "appworld"
        workers = AppWorldWorkers(python, root, scratch, limits=limits, isolation=config.isolation)
        await workers.start()
        try:
            yield lambda kind=AGENT: AppWorldEnvironment(workers, config)
        finally:
            await workers.close()
