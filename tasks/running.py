"""Runs one stage through DVC, shows its progress on the terminal and in Prefect, and decides what is worth a retry."""

import os
import time
from pathlib import Path

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from apprentice.config import Layout
from apprentice.display import EventTail, StageDisplay
from apprentice.processes.memory import MemoryPeak
from apprentice.records.files import read_json, write_json
from apprentice.versioning import StageFailed, StageRun

POLL_S = 0.3
ARTIFACT_EVERY_S = 5.0
EXIT_FAULT = 3
"""A stage's exit code where something around it broke that may be whole again at the next attempt."""
RETRIES = {"retries": 2, "retry_delay_seconds": 10}
METRICS = {
    "validate": "validation",
    "distill": "distill",
    "filter": "difficulty",
    "rollout": "rollout",
    "train": "training",
    "evaluate": "evaluation",
}
"""Stage -> the name of its figures in reports/<pipeline>/."""


def run_stage(stage: str, pipeline: str) -> None:
    """Brings one stage up to date; DVC skips the work where nothing has changed.

    Raises:
        StageFailed: with the stage's own message.
        ApprenticeError: another DVC process works in this folder.
    """
    layout = Layout(pipeline)
    tail, run = EventTail(layout.events), StageRun(stage, pipeline, log_of(layout, stage))
    peak = MemoryPeak(os.getpid())
    with StageDisplay(stage) as display:
        bar = _ProgressArtifact(f"{pipeline}-{stage}", f"Stage {stage} of pipeline {pipeline}")
        run.start()
        try:
            while run.running():
                display.update(tail.read())
                bar.show(display.progress.share)
                peak.look()
                time.sleep(POLL_S)
        except StageFailed as failure:
            if failure.code == EXIT_FAULT:
                display.console.print(str(failure), markup=False, highlight=False, soft_wrap=True)
            raise
        finally:
            run.stop()
            display.update(tail.read())
        bar.show(1.0)
    write_json(layout.memory, {**(read_json(layout.memory) if layout.memory.exists() else {}), stage: peak.bytes})
    _publish_figures(stage, layout)


def log_of(layout: Layout, stage: str) -> Path:
    """Where DVC's and the stage's output of the last run lies."""
    return layout.runtime / "logs" / f"{stage}.log"


def is_passing_fault(_task, _task_run, state) -> bool:
    """Whether a retry can help: the policy server or the network broke, not the data, the parameters or the code."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailed) and error.code == EXIT_FAULT


class _ProgressArtifact:
    """A progress bar in Prefect, brought up to date every few seconds."""

    def __init__(self, key: str, description: str):
        self._id = create_progress_artifact(progress=0.0, key=key, description=description)
        self._shown = time.monotonic()

    def show(self, share: float) -> None:
        if share < 1.0 and time.monotonic() - self._shown < ARTIFACT_EVERY_S:
            return
        self._shown = time.monotonic()
        update_progress_artifact(artifact_id=self._id, progress=round(100 * share, 1))


def _publish_figures(stage: str, layout: Layout) -> None:
    """The stage's figures as a Prefect table."""
    if stage not in METRICS:
        return
    rows = [{"figure": name, "value": value} for name, value in _flat(read_json(layout.metrics(METRICS[stage])))]
    create_table_artifact(table=rows, key=f"{layout.pipeline}-{stage}-figures", description=f"{layout.metrics(METRICS[stage])}")


def _flat(figures: dict, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for name, value in figures.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, str(value))]
    return rows
