"""A run that is killed cannot tell Prefect: the next run in the same folder does."""

from pathlib import Path
from uuid import UUID

import psutil
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from apprentice.config.layout import RUNTIME
from apprentice.records.files import read_json, write_json

NOTE = RUNTIME / "flow-run.json"


def settle_last_run(run_id: str, note: Path = NOTE) -> None:
    """Marks the last run as crashed where its process is gone and Prefect still takes it for running; then notes this one."""
    if note.exists():
        last = read_json(note)
        if not _alive(last["pid"], last["started"]):
            _mark_crashed(UUID(last["run"]))
    me = psutil.Process()
    write_json(note, {"run": run_id, "pid": me.pid, "started": me.create_time()})


def _alive(pid: int, started: float) -> bool:
    try:
        return psutil.Process(pid).create_time() == started
    except psutil.NoSuchProcess:
        return False


def _mark_crashed(run_id: UUID) -> None:
    with get_client(sync_client=True) as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:  # another server's
            return
        if run.state and run.state.is_running():
            client.set_flow_run_state(run_id, Crashed(message="Its process was killed."), force=True)
