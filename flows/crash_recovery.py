"""Crash recovery: Prefect cannot tell that a run was killed, so the next run in the same folder reports it."""

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

RECORD = RUNTIME / "flow-run.json"


@dataclass(frozen=True)
class LastRun:
    """The last flow run in this folder, and the process it ran in."""

    run: UUID
    pid: int
    born: str
    """The `start_time` of the process."""

    @classmethod
    def of(cls, values: Any) -> "LastRun":
        """Create it from the record's JSON.

        Raises:
            KeyError, TypeError, ValueError: the JSON does not describe a run.
        """
        return cls(UUID(values["run"]), int(values["pid"]), str(values.get("born", "")))

    @property
    def alive(self) -> bool:
        """Whether the process is still running."""
        return bool(self.born) and start_time(self.pid) == self.born


def settle_last_run(run_id: str, record: Path = RECORD) -> None:
    """Mark the last run as crashed if its process is gone and Prefect still takes it for running. Then record this run.

    Raises:
        ApprenticeError: the record is damaged.
    """
    last = read_record(record)
    if last and not last.alive:
        _mark_crashed(last.run)
    write_json(record, {"run": run_id, "pid": os.getpid(), "born": start_time(os.getpid())})


def read_record(record: Path = RECORD) -> LastRun | None:
    """Return the last run, or None if none is recorded.

    Raises:
        ApprenticeError: the record is damaged.
    """
    if not record.exists():
        return None
    try:
        return LastRun.of(read_json(record))
    except (ApprenticeError, AttributeError, KeyError, TypeError, ValueError):
        todo = f"remove it; nothing else depends on it: rm {record}"
        raise ApprenticeError("does not name the last run: the file is damaged", where=record, todo=todo) from None


def _mark_crashed(run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # it belongs to another server
            return
        if run.state and run.state.is_running():
            client.set_flow_run_state(run_id, Crashed(message="Its process was killed."), force=True)
