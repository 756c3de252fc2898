"""A use case that lies outside the package, as a user would write it: sums, with a calculator as the agent's tool."""

from contextlib import asynccontextmanager
from random import Random
from typing import Literal

from pydantic import Field

from apprentice.config.schema import DataConfig, EnvironmentConfig
from apprentice.data.candidates import Candidate, DataSet
from apprentice.environments.tools import ToolEnvironment, tool
from apprentice.environments.usecase import UseCase


class SumsConfig(EnvironmentConfig):
    """Add numbers."""

    calculator: bool
    """Whether the calculator works; it answers `?` otherwise."""


class SumsData(DataConfig):
    """Generated sums."""

    format: Literal["sums"]
    largest: int = Field(gt=1)
    """Largest summand."""


class Sums(ToolEnvironment):
    """One sum."""

    def __init__(self, config: SumsConfig):
        self._config = config

    @tool
    def add(self, numbers: str) -> str:
        """Adds numbers that are separated by spaces."""
        return str(sum(int(number) for number in numbers.split() if number.isdigit())) if self._config.calculator else "?"

    def check(self, task, answer: str) -> float:
        """Return 1.0 for the right sum."""
        return float(answer in task.answers)


class Arithmetic(UseCase):
    """Sums of two numbers."""

    environment_config = SumsConfig
    data_config = SumsData

    def read_data(self, progress) -> DataSet:
        """Generate the sums of both splits."""
        data, rng = self.config.data, Random(self.config.data.seed)
        pairs = rng.sample([(a, b) for a in range(data.largest) for b in range(data.largest)], data.train + data.dev)
        records = [
            {
                "id": f"s{n}",
                "scenario": f"{a}+{b}",
                "split": "train" if n < data.train else "dev",
                "instruction": f"What is {a} + {b}?",
                "answers": [str(a + b)],
            }
            for n, (a, b) in enumerate(pairs)
        ]
        tasks = tuple(Candidate("sums", line, record, split=record["split"]) for line, record in enumerate(records, 1))
        return DataSet(tasks, fingerprint={"format": "sums", "seed": data.seed})

    def expert(self, task):
        """Add with the calculator, then answer."""
        a, b = task.scenario.split("+")
        total = yield f"<add>{a} {b}</add>"
        yield f"<answer>{total}</answer>"

    @asynccontextmanager
    async def opened(self, encode):
        """Nothing is shared."""
        yield lambda kind="agent": Sums(self.config.environment)
