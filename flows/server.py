"""The Prefect server of a run: the configured one, after a check, or a temporary one that ends with the run."""

import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from apprentice.errors import ApprenticeError
from apprentice.processes.children import Child, spawn
from apprentice.processes.network import HOST, bypass_proxies_on_loopback, free_port
from apprentice.records.files import make_private
from apprentice.records.text import redacted
from apprentice.summary import Place

START_TIMEOUT_S, CHECK_TIMEOUT_S = 120.0, 10.0
POLL_S = 0.2
PAGES = "http://127.0.0.1:4200"
"""Where `make prefect` shows the runs of temporary servers that have ended."""
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
"""Environment variables of a run. They disable telemetry and keep Prefect's log off the terminal."""


def set_defaults(runtime: Path) -> None:
    """Set the variables that the user has not set, and keep Prefect's database in the project by default.

    Call this before importing Prefect.
    """
    for name, value in {**DEFAULTS, "PREFECT_HOME": str((runtime / "prefect").resolve())}.items():
        os.environ.setdefault(name, value)
    bypass_proxies_on_loopback()
    make_private(Path(os.environ["PREFECT_HOME"]))


@contextmanager
def prefect_server(log: Path) -> Iterator["Starting | None"]:
    """Start a Prefect server on a free loopback port, behind a random key; yield None if a server is configured.

    Raises:
        ApprenticeError: the configured server cannot be used.
    """
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    if configured := get_current_settings().api.url:
        check_server(configured)
        yield None
        return
    port = free_port()
    key = f"run:{secrets.token_urlsafe(24)}"
    os.environ.update(PREFECT_API_URL=f"http://{HOST}:{port}/api", PREFECT_API_AUTH_STRING=key, PREFECT_UI_URL=PAGES)
    # Prefect has read its settings at import. Without this refresh it would start another server, which nobody stops.
    refresh_global_settings_context()
    command = [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", "--host", HOST, "--port", str(port)]
    environment = {
        "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1",
        "PREFECT__SERVER_FINAL": "1",
        "PREFECT_SERVER_API_AUTH_STRING": key,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
    }
    log.unlink(missing_ok=True)
    child = spawn([*command, "--log-level", "error"], log=log, env=environment)
    try:
        yield Starting(child, f"http://{HOST}:{port}/api/health", log)
    finally:
        child.stop()


def check_server(url: str) -> None:
    """Ask a configured Prefect server for its version, once.

    Raises:
        ApprenticeError: it does not answer, refuses this user, is not a Prefect server, or has another major version.
    """
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True, httpx_settings={"timeout": CHECK_TIMEOUT_S}) as client:
            if failure := client.api_healthcheck():
                raise failure
            client.raise_for_api_version_mismatch()
    except (httpx.HTTPError, httpx.InvalidURL, RuntimeError, ValueError, TypeError) as error:
        raise ApprenticeError(
            f"the Prefect server cannot be used: {_reason(error)}",
            where=f"PREFECT_API_URL={redacted(url)}",
            todo="start that server, correct the address, or use a temporary server: `prefect config unset PREFECT_API_URL`, `unset PREFECT_API_URL`",
        ) from error


def _reason(error: Exception) -> str:
    """Return the cause of a failed check as one line."""
    if isinstance(error, httpx.HTTPStatusError):
        refused = error.response.status_code in (401, 403)
        return f"it answers {error.response.status_code}" + (": set PREFECT_API_KEY or PREFECT_API_AUTH_STRING" if refused else "")
    if isinstance(error.__cause__, json.JSONDecodeError):
        return "this is no Prefect API; the address of one ends in /api"
    return str(error.__cause__ or error).splitlines()[0]


def run_place(run_id: str) -> Place:
    """Return how to view a flow run: on its server's pages, or with `make prefect` if that server ends with the run."""
    from prefect.settings import get_current_settings
    from prefect.utilities.urls import url_for

    page = url_for("flow-run", obj_id=run_id) or ""
    temporary = get_current_settings().ui_url == PAGES
    return Place("Prefect run", "make prefect", page) if temporary else Place("Prefect run", page)


class Starting:
    """A server that has been started and may not answer yet."""

    def __init__(self, child: Child, health: str, log: Path):
        self._child, self._health, self._log = child, health, log

    def wait(self) -> None:
        """Wait until the server answers.

        Raises:
            ApprenticeError: it ended or did not answer within START_TIMEOUT_S.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while self._child.poll() is None and time.monotonic() < deadline:
            if self._answers():
                return
            time.sleep(POLL_S)
        reason = "ended" if self._child.poll() is not None else f"did not answer within {START_TIMEOUT_S:.0f} s"
        raise ApprenticeError(f"the Prefect server {reason}", where=self._log, todo="read this log, then free some memory or set PREFECT_API_URL to a server")

    def _answers(self) -> bool:
        try:
            return httpx.get(self._health, timeout=5, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False
