"""Tells Prefect of a run that was killed: it cannot tell by itself, so the next run in the same folder does."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from apprentice.config.layout import RUNTIME
from apprentice.errors import ApprenticeError
from apprentice.processes.children import start_time
from apprentice.records.files import read_json, write_json

NOTE = RUNTIME / "flow-run.json"


@dataclass(frozen=True)
class LastRun:
    """The last flow run in this folder, and the process it ran in."""

    run: UUID
    pid: int
    born: str
    """The process's `start_time`."""

    @classmethod
    def of(cls, values: Any) -> "LastRun":
        """From the note's JSON.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        return cls(UUID(values["run"]), int(values["pid"]), str(values.get("born", "")))

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return bool(self.born) and start_time(self.pid) == self.born


def settle_last_run(run_id: str, note: Path = NOTE) -> None:
    """Marks the last run as crashed where its process is gone and Prefect still takes it for running; then notes this one.

    Raises:
        ApprenticeError: the note is damaged.
    """
    last = read_note(note)
    if last and not last.alive:
        _mark_crashed(last.run)
    write_json(note, {"run": run_id, "pid": os.getpid(), "born": start_time(os.getpid())})


def read_note(note: Path = NOTE) -> LastRun | None:
    """The last run; None where none is noted.

    Raises:
        ApprenticeError: the note is damaged.
    """
    if not note.exists():
        return None
    try:
        return LastRun.of(read_json(note))
    except (ApprenticeError, AttributeError, KeyError, TypeError, ValueError):
        raise ApprenticeError("does not name the last run: the file is damaged", where=note, todo=f"remove it, nothing else depends on it: rm {note}") from None


def _mark_crashed(run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # another server's
            return
        if run.state and run.state.is_running():
            client.set_flow_run_state(run_id, Crashed(message="Its process was killed."), force=True)
