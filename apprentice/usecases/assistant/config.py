"""The assistant's sections of a pipeline in params.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from apprentice.config.schema import DataConfig, EnvironmentConfig

INTERPRETER = Path(".venv-appworld/bin/python")
"""Python of AppWorld's virtual environment, in the project's folder."""
ENGINE = Path(__file__).resolve().parents[3] / "appworld_engine"
"""Folder of the program that this interpreter runs, with the packages `engine` and `generator`."""


class AppWorldConfig(EnvironmentConfig):
    """Write blocks of code that use a person's apps."""

    reward: Literal["goal", "tests"]
    """`goal`: 1 if every check of the databases passes, else 0. `tests`: the share of checks that pass."""
    observation_chars: int = Field(gt=0)
    """Characters of a block's output that the agent sees; the middle of longer output is cut out."""
    timeout_s: int = Field(gt=0)
    """Seconds that one block of code may take."""
    memory_mb: int = Field(gt=0)
    """MiB of memory that the agent's code may use."""
    isolation: Literal["full", "degraded-allowed"]
    """`full` refuses to run the agent's code if the machine cannot isolate it; `degraded-allowed` prints a warning."""
    skills: bool
    """Whether the agent may keep functions for later tasks of the scenario and is offered kept ones."""


class AppWorldDataConfig(DataConfig):
    """An AppWorld data root. `source`: its path; None generates one, `APPWORLD_ROOT` reads the path from this variable."""

    format: Literal["appworld"]
    heldout_split: str
    """Split of scenarios that are held out: `dev` while you tune settings, `test_normal` for reported results."""
    variants: int = Field(ge=3, le=9)
    """Tasks generated for each training scenario; AppWorld itself has three, and so do held-out scenarios."""
    heldout_variants: int = Field(ge=0, lt=3)
    """How many tasks of each training scenario, the last ones, are held out; 0 learns from all."""
