"""The contract of a use case: where its tasks come from, the episodes that agents play, and how policies are compared.

The shipped use cases (apprentice/usecases/) and a user's own derive from the same class; `environment.use` names it.
"""

import argparse
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from apprentice.config import Layout, PipelineConfig
from apprentice.config.schema import DataConfig, EnvironmentConfig
from apprentice.config.usecases import find_use_case
from apprentice.environments.cutting import Encode
from apprentice.environments.protocol import Expert, MakeEnvironment, Skills
from apprentice.records import Task
from apprentice.records.events import Progress

if TYPE_CHECKING:
    from apprentice.data.candidates import DataSet
    from apprentice.evaluation.measures import Measure


@dataclass(frozen=True)
class Command:
    """A command that a use case adds to the command line: `python -m apprentice NAME …`."""

    name: str
    words: str
    """What it does, for `--help`."""
    run: Callable[[argparse.Namespace], int]
    """Runs it; returns the exit code."""
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Adds its arguments to its parser."""


class UseCase(ABC):
    """A kind of task and the episodes in which agents solve it, for one pipeline.

    A subclass defines `read_data` and `opened`; everything else has a default. Its module is imported whenever a pipeline's parameters are read:
    it should import nothing heavy at the top.
    """

    environment_config: ClassVar[type[EnvironmentConfig]] = EnvironmentConfig
    """The section `environment` of params.yaml."""
    data_config: ClassVar[type[DataConfig]] = DataConfig
    """The section `data` of params.yaml."""
    code: ClassVar[Mapping[str, str]] = {}
    """Part (`config.usecases.PARTS`) -> its file or folder, relative to the folder of the class's module. DVC runs the stages that depend on a part
    again when it changes. A program without an entry is the part that would run it; another part without one is the class's whole package, or its file."""
    programs: ClassVar[Mapping[str, str]] = {}
    """Virtual environments besides the core's that the use case needs, with what each one is for."""
    commands: ClassVar[tuple[Command, ...]] = ()
    baselines: ClassVar[tuple[str, ...]] = ()
    """Environments that the agent is compared with, by the names of their conditions."""
    needs_passages: bool = False
    """Whether the episodes search passages that `read_data` must supply."""
    skills: Skills | None = None
    """What attempts leave behind for later tasks; None where they leave nothing."""
    reads: tuple[Path, ...] = ()
    """Files that determine what the episodes work on. Checkpoints and finished parts of a stage are reused only while these stay the same."""

    def __init__(self, config: PipelineConfig, layout: Layout):
        self.config, self.layout = config, layout

    @abstractmethod
    def read_data(self, progress: Progress) -> "DataSet":
        """Read or generate the candidates for tasks and passages; the stage prepare calls it.

        Raises:
            ApprenticeError: the source cannot be had, or one of its files is missing or empty.
        """

    @abstractmethod
    def opened(self, encode: Encode) -> AbstractAsyncContextManager[MakeEnvironment]:
        """Hold open what all episodes share, and yield the factory of environments.

        Args:
            encode: counts tokens as the policy does, for environments that cut what they show.
        """

    def expert(self, task: Task) -> Expert:
        """Play a task from its plan: yield actions, receive observations. The default gives up at once."""
        yield from ()

    def warnings(self, answers: Iterable[tuple[str, str]]) -> Iterable[str]:
        """Warn about accepted answers that the metrics treat in a way users might not expect.

        Args:
            answers: `(file:line, answer)` of each answer of the clean tasks.
        """
        return ()

    @classmethod
    def measure(cls) -> "Measure | None":
        """How policies are compared; None for the success rate."""
        return None


def use_case(config: PipelineConfig, layout: Layout) -> UseCase:
    """The use case of a pipeline."""
    return find_use_case(config.environment.use)(config, layout)
