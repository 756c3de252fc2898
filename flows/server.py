"""A Prefect server for the time of one run, where none is configured; it ends with the run, also after SIGKILL."""

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from apprentice.errors import ApprenticeError
from apprentice.processes import Child, spawn

HOST = "127.0.0.1"
START_TIMEOUT_S = 120.0
POLL_S = 0.2
DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_CLI_COLORS": "0",
    "DO_NOT_TRACK": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "VLLM_NO_USAGE_STATS": "1",
}
"""Variables of a run: no telemetry; Prefect's log goes to its server, the terminal belongs to the progress display."""


def set_defaults(runtime: Path) -> None:
    """Sets what the user has not set; Prefect keeps its database in the project unless told otherwise. Call before Prefect is imported."""
    for name, value in {**DEFAULTS, "PREFECT_HOME": str((runtime / "prefect").resolve())}.items():
        os.environ.setdefault(name, value)
    Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


@contextmanager
def prefect_server(log: Path) -> Iterator["Starting | None"]:
    """Starts a Prefect server on a free port of the loopback interface and points Prefect to it; None where one is configured."""
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if get_current_settings().api.url:
        yield None
        return
    port = _free_port()
    os.environ["PREFECT_API_URL"] = f"http://{HOST}:{port}/api"
    # Prefect read its settings when it was imported; without this it would start a server of its own, which nobody ends.
    refresh_global_settings_context()
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", HOST, "--port", str(port)]
    environment = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    log.unlink(missing_ok=True)
    child = spawn([*command, "--log-level", "error"], log=log, env=environment)
    try:
        yield Starting(child, f"http://{HOST}:{port}/api/health", log)
    finally:
        child.stop()


class Starting:
    """A server that may not answer yet."""

    def __init__(self, child: Child, health: str, log: Path):
        self._child, self._health, self._log = child, health, log

    def wait(self) -> None:
        """Returns once the server answers.

        Raises:
            ApprenticeError: it ended, or did not answer within START_TIMEOUT_S.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._child.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(POLL_S)
        reason = "ended" if self._child.poll() is not None else f"did not answer within {START_TIMEOUT_S:.0f} s"
        raise ApprenticeError(f"the Prefect server {reason}", where=self._log, todo="read this log; free some memory, or set PREFECT_API_URL to a server")

    def _answers(self) -> bool:
        try:
            return httpx.get(self._health, timeout=5).status_code == 200
        except httpx.TransportError:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
