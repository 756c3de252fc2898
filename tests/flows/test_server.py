"""A configured Prefect server is checked before anything starts; the summary's link names the server in use."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from apprentice.errors import ApprenticeError
from apprentice.processes.network import bypass_proxies_on_loopback
from apprentice.versioning.dvc import environment as stage_environment
from flows.server import PAGES, check_server, prefect_server, run_place

ROOT = Path(__file__).resolve().parents[2]
DEAD = "http://127.0.0.1:9"


@contextmanager
def answering(status: int, version: str) -> Iterator[str]:
    """Run a server that gives every request the same answer; yield its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.end_headers()
            self.wfile.write(version.encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "version", "reason"),
    [
        (200, '"2.20.1"', "incompatible versions"),
        (401, '{"exception_message": "Unauthorized"}', "answers 401: set PREFECT_API_KEY or PREFECT_API_AUTH_STRING"),
        (404, "{}", "answers 404"),
        (200, "<html>Welcome</html>", "no Prefect API"),
        (200, '{"version": 3}', "Invalid version"),
    ],
)
def test_a_configured_server_that_cannot_be_used_is_one_error_before_the_run(tmp_path: Path, status: int, version: str, reason: str):
    with answering(status, version) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        with pytest.raises(ApprenticeError, match=reason) as refused, prefect_server(tmp_path / "log"):
            pass
    assert str(refused.value).startswith(f"PREFECT_API_URL={address}/api: ") and "prefect config unset PREFECT_API_URL" in str(refused.value)


def test_a_configured_server_that_is_down_is_one_error_without_the_passwords():
    with temporary_settings({PREFECT_API_URL: "http://me:hush@127.0.0.1:9/api"}), pytest.raises(ApprenticeError, match="refused") as refused:
        check_server("http://me:hush@127.0.0.1:9/api")
    assert "hush" not in str(refused.value)


def test_a_server_of_this_version_passes():
    import prefect

    with answering(200, json.dumps(prefect.__version__)) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        check_server(f"{address}/api")


def test_a_dead_server_stops_a_run_with_one_error(project: Path):
    variables = {**os.environ, "PYTHONPATH": str(project), "PREFECT_API_URL": f"{DEAD}/api"}
    done = subprocess.run([sys.executable, "-m", "flows", "quick"], cwd=project, env=variables, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith(f"error: PREFECT_API_URL={DEAD}/api: "), done.stderr
    assert done.stderr.count("\n") == 2 and not (project / "dvc.lock").exists()


def test_every_client_bypasses_the_proxy_on_loopback(monkeypatch: pytest.MonkeyPatch):
    import httpx
    import requests

    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, DEAD)
    monkeypatch.setenv("NO_PROXY", "example.org")
    monkeypatch.setenv("no_proxy", "example.org")
    bypass_proxies_on_loopback()
    bypass_proxies_on_loopback()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "example.org,127.0.0.1,localhost,::1"
    import prefect

    with answering(200, json.dumps(prefect.__version__)) as address, temporary_settings({PREFECT_API_URL: f"{address}/api"}):
        assert httpx.get(address, timeout=5).status_code == requests.get(address, timeout=5).status_code == 200
        check_server(f"{address}/api")
    with pytest.raises(httpx.ConnectError):
        httpx.get("http://192.0.2.1", timeout=5)  # refused by the proxy: other addresses still go through it


def test_the_link_to_a_run_names_the_server_in_use():
    with temporary_settings({PREFECT_API_URL: "http://10.0.0.1:4201/api"}):
        place = run_place("5")
    assert (place.command, place.page) == ("http://10.0.0.1:4201/runs/flow-run/5", "")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:41234/api", PREFECT_UI_URL: PAGES}):
        place = run_place("5")
    assert (place.command, place.page) == ("make prefect", "http://127.0.0.1:4200/runs/flow-run/5")


@pytest.mark.slow
def test_the_server_of_a_run_requires_a_key_that_stages_do_not_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import httpx

    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING", "PREFECT_UI_URL"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    with prefect_server(tmp_path / "log") as server:
        server.wait()
        url, user_and_key = os.environ["PREFECT_API_URL"], os.environ["PREFECT_API_AUTH_STRING"].split(":")
        assert httpx.post(f"{url}/flows/count", json={}, timeout=30).status_code == 401
        assert httpx.post(f"{url}/flows/count", json={}, auth=tuple(user_and_key), timeout=30).status_code == 200
        assert "PREFECT_API_AUTH_STRING" not in stage_environment()
    monkeypatch.undo()
    refresh_global_settings_context()
