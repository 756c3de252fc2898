"""The personal assistant as a use case of the pipeline.

Reading parameters imports this module, so heavy imports stand inside the functions that need them.
"""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from apprentice.config import Layout, PipelineConfig
from apprentice.environments.cutting import Encode
from apprentice.environments.protocol import AGENT, Actions, MakeEnvironment
from apprentice.environments.usecase import Command, UseCase
from apprentice.records import Task
from apprentice.records.events import Progress
from apprentice.records.files import read_json
from apprentice.usecases.assistant.config import ENGINE, INTERPRETER, AppWorldConfig, AppWorldDataConfig

if TYPE_CHECKING:
    from apprentice.data.candidates import DataSet
    from apprentice.evaluation.measures import Measure


def check_appworld(_chosen: argparse.Namespace) -> int:
    """Run AppWorld's own tests and return the exit code: 1 if one failed."""
    from tempfile import TemporaryDirectory

    from apprentice.usecases.assistant.source.bundled import run_bundled_tests
    from apprentice.usecases.assistant.source.roots import ensure_generated

    with TemporaryDirectory() as folder:
        print("generating a small data root")
        root = ensure_generated(INTERPRETER.absolute(), Path(folder) / "root", seed=0, scenarios=3)
        counts = run_bundled_tests(INTERPRETER, root.path)
    print(f"AppWorld's own tests: {counts.passed} passed, {counts.failed} failed")
    return 0 if not counts.failed else 1


class Assistant(UseCase):
    """Episodes in the worlds of the pipeline's AppWorld data root."""

    environment_config = AppWorldConfig
    data_config = AppWorldDataConfig
    code = {
        "usecase": "usecase.py",
        "source": "source",
        "source_program": str(ENGINE / "generator"),
        "environment": "environment",
        "environment_program": str(ENGINE / "engine"),
        "metrics": "metrics",
    }
    programs = {".venv-appworld": "AppWorld, for the personal assistant"}
    commands = (Command("check-appworld", "run AppWorld's own tests against the installed environment (some minutes)", check_appworld),)

    def __init__(self, config: PipelineConfig, layout: Layout):
        from apprentice.usecases.assistant.environment.appworld import KeptFunctions

        super().__init__(config, layout)
        self.skills = KeptFunctions() if config.environment.skills else None
        self.reads = (layout.raw / "source.json",)

    def read_data(self, progress: Progress) -> "DataSet":
        """Read the tasks of the data root, which is generated first if no source is named."""
        from apprentice.usecases.assistant.source.tasks import read_appworld

        return read_appworld(self.config.data, self.layout, progress)

    def expert(self, task: Task) -> Actions:
        """Play the reference solution."""
        from apprentice.usecases.assistant.environment.expert import expert_actions

        return expert_actions(task, keeps=self.config.environment.skills)

    @asynccontextmanager
    async def opened(self, encode: Encode) -> AsyncIterator[MakeEnvironment]:
        """Start the engine, which truncates the output of a block itself (`observation_chars`).

        Raises:
            ApprenticeError: AppWorld or its data root is missing, or this machine cannot isolate the agent's code.
        """
        from apprentice.usecases.assistant.environment.appworld import AppWorldEnvironment
        from apprentice.usecases.assistant.environment.client import AppWorldClient
        from apprentice.usecases.assistant.environment.episode import EpisodeLimits

        config = self.config.environment
        limits = EpisodeLimits(timeout_s=config.timeout_s, memory_mb=config.memory_mb, output_chars=config.observation_chars)
        root = self.layout.raw / read_json(self.reads[0])["root"]
        python, scratch = self.layout.root / INTERPRETER, self.layout.runtime / "appworld"
        client = AppWorldClient(python, root, scratch, limits=limits, isolation=config.isolation)
        await client.start()
        try:
            yield lambda kind=AGENT: AppWorldEnvironment(client, config)
        finally:
            await client.close()

    @classmethod
    def measure(cls) -> "Measure":
        """Task goal completion."""
        from apprentice.usecases.assistant.metrics.goals import MEASURE

        return MEASURE
