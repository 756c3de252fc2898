"""The contract of a use case: its source of tasks, its episodes, and its metrics.

The shipped use cases (apprentice/usecases/) and a user's own derive from the same class, which `environment.use` names.
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
from apprentice.environments.protocol import Actions, MakeEnvironment, Skills
from apprentice.records import Task
from apprentice.records.events import Progress

if TYPE_CHECKING:
    from apprentice.data.candidates import DataSet
    from apprentice.evaluation.measures import Measure


@dataclass(frozen=True)
class Command:
    """A command that a use case adds to the command line: `apprentice NAME …`."""

    name: str
    words: str
    """Its description for `--help`."""
    run: Callable[[argparse.Namespace], int]
    """Runs the command and returns the exit code."""
    arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    """Adds the command's arguments to its parser."""


class UseCase(ABC):
    """A kind of task and its episodes, for one pipeline.

    A subclass defines `read_data` and `opened`; everything else has a default. Reading a pipeline's parameters imports
    its module, which therefore should import nothing heavy at the top.
    """

    environment_config: ClassVar[type[EnvironmentConfig]] = EnvironmentConfig
    """The section `environment` of params.yaml."""
    data_config: ClassVar[type[DataConfig]] = DataConfig
    """The section `data` of params.yaml."""
    code: ClassVar[Mapping[str, str]] = {}
    """Part (`config.usecases.PARTS`) -> its file or folder, relative to the folder of the class's module. When a part
    changes, DVC reruns the stages that depend on it. A program defaults to the part that would run it; any other part
    defaults to the package of the class, or to its file."""
    programs: ClassVar[Mapping[str, str]] = {}
    """Additional virtual environment that the use case needs -> its purpose."""
    commands: ClassVar[tuple[Command, ...]] = ()
    """Commands that the use case adds to the command line."""
    baselines: ClassVar[tuple[str, ...]] = ()
    """Names of the environments that evaluate compares the agent with."""
    needs_passages: bool = False
    """Whether `read_data` must supply passages for the episodes to search."""
    skills: Skills | None = None
    """The skills that attempts keep for later tasks; None if they keep none."""
    reads: tuple[Path, ...] = ()
    """Files that the episodes read. A stage reuses checkpoints and finished parts only while these files are
    unchanged."""

    def __init__(self, config: PipelineConfig, layout: Layout):
        self.config, self.layout = config, layout

    @abstractmethod
    def read_data(self, progress: Progress) -> "DataSet":
        """Read or generate the candidates for tasks and passages; the stage prepare calls this method.

        Raises:
            ApprenticeError: the source is unavailable, or one of its files is missing or empty.
        """

    @abstractmethod
    def opened(self, encode: Encode) -> AbstractAsyncContextManager[MakeEnvironment]:
        """Open the resources that all episodes share, and yield the environment factory.

        Args:
            encode: tokenizes as the policy does, for environments that truncate observations.
        """

    def expert(self, task: Task) -> Actions:
        """Solve a task from its plan: yield actions and receive observations. The default gives up immediately."""
        yield from ()

    def warnings(self, answers: Iterable[tuple[str, str]]) -> Iterable[str]:
        """Return warnings about accepted answers that the metrics treat in an unexpected way.

        Args:
            answers: `(file:line, answer)` for each accepted answer of the clean tasks.
        """
        return ()

    @classmethod
    def measure(cls) -> "Measure | None":
        """Return how policies are compared; None selects the success rate."""
        return None


def use_case(config: PipelineConfig, layout: Layout) -> UseCase:
    """Create the use case of a pipeline."""
    return find_use_case(config.environment.use)(config, layout)
