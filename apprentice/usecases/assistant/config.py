"""The assistant's sections of a pipeline in params.yaml."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from apprentice.config.schema import DataConfig, EnvironmentConfig

INTERPRETER = Path(".venv-appworld/bin/python")
"""Python of AppWorld's virtual environment, in the project's folder."""
ENGINE = Path(__file__).resolve().parents[3] / "appworld_engine"
"""Folder of the program that this interpreter runs: the packages `engine` and `generator`."""


class AppWorldConfig(EnvironmentConfig):
    """Write code that works with a person's apps, block by block."""

    reward: Literal["goal", "tests"]
    """`goal`: 1 where every check of the databases passes, else 0. `tests`: the share of checks that pass."""
    observation_chars: int = Field(gt=0)
    """Characters shown of what a block printed; the middle of more is cut out."""
    timeout_s: int = Field(gt=0)
    """Of one block of code."""
    memory_mb: int = Field(gt=0)
    """Of the agent's code."""
    isolation: Literal["full", "degraded-allowed"]
    """`full` refuses to run the agent's code where the machine cannot isolate it."""
    skills: bool
    """The agent may keep functions for later tasks of the scenario, and is offered those that were kept."""


class AppWorldDataConfig(DataConfig):
    """A data root of AppWorld: `source` names it; None generates one, `APPWORLD_ROOT` takes the one that this variable names."""

    format: Literal["appworld"]
    heldout_split: str
    """The root's split of scenarios never learned from: `dev` while settings are chosen, `test_normal` to report."""
    variants: int = Field(ge=3, le=9)
    """Tasks that are generated for each training scenario; AppWorld itself has three, and so have held-out scenarios."""
    heldout_variants: int = Field(ge=0, lt=3)
    """Of each training scenario, the last ones are held out; 0 learns from all."""
