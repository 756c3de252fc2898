"""Runs one stage through DVC, shows its progress on the terminal and in Prefect, and decides whether to retry it."""

import os
import time
from pathlib import Path

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from apprentice.config import Layout
from apprentice.config.stages import STAGES
from apprentice.display import StageDisplay
from apprentice.errors import ExitCode
from apprentice.processes.memory import MemoryPeak
from apprentice.records.events import EventReader
from apprentice.records.files import read_json, write_json
from apprentice.records.metrics import flatten
from apprentice.versioning import StageFailed, StageRun

POLL_S = 0.3
ARTIFACT_EVERY_S = 5.0


def run_stage(stage: str, pipeline: str) -> None:
    """Bring one stage up to date; DVC skips it if nothing has changed.

    Raises:
        StageFailed: the stage failed; the exception carries its message.
        ApprenticeError: another DVC process is running in this folder.
    """
    layout = Layout(pipeline)
    tail, run = EventReader(layout.events, from_end=True), StageRun(stage, pipeline, log_of(layout, stage))
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
            if failure.code == ExitCode.FAULT:
                display.console.print(str(failure), markup=False, highlight=False, soft_wrap=True)
            raise
        finally:
            run.stop()
            display.update(tail.read())
        bar.show(1.0)
    write_json(layout.memory, {**(read_json(layout.memory) if layout.memory.exists() else {}), stage: peak.bytes})
    _publish_metrics(stage, layout)


def log_of(layout: Layout, stage: str) -> Path:
    """Return the log of the stage's last run, with the output of DVC and of the stage."""
    return layout.runtime / "logs" / f"{stage}.log"


def is_transient_fault(_task, _task_run, state) -> bool:
    """Return whether a retry can help: the policy server or the network failed, not the data, parameters, or code."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, StageFailed) and error.code == ExitCode.FAULT


class _ProgressArtifact:
    """A progress bar in Prefect, updated every few seconds."""

    def __init__(self, key: str, description: str):
        self._id = create_progress_artifact(progress=0.0, key=key, description=description)
        self._shown = time.monotonic()

    def show(self, share: float) -> None:
        if share < 1.0 and time.monotonic() - self._shown < ARTIFACT_EVERY_S:
            return
        self._shown = time.monotonic()
        update_progress_artifact(artifact_id=self._id, progress=round(100 * share, 1))


def _publish_metrics(stage: str, layout: Layout) -> None:
    """Publish the stage's metrics as a Prefect table."""
    if not (name := STAGES[stage].metrics):
        return
    path = layout.metrics(name)
    rows = [{"metric": name, "value": str(value)} for name, value in flatten(read_json(path))]
    create_table_artifact(table=rows, key=f"{layout.pipeline}-{stage}-metrics", description=str(path))
