"""The pages of Prefect and MLflow refuse requests without the key, from other origins and for other host names."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from apprentice.errors import ApprenticeError
from apprentice.processes.network import free_port
from flows import pages

ROOT = Path(__file__).resolve().parents[2]
START_S = 180
FOREIGN = "http://evil.example"


@contextmanager
def serving(name: str, folder: Path) -> Iterator[tuple[httpx.Client, str]]:
    """Start the real server of one kind of pages in `folder`; yield a client without the key, and the key."""
    port = free_port()
    environment = {variable: value for variable, value in os.environ.items() if not variable.startswith(("PREFECT", "MLFLOW", "APPRENTICE"))}
    command = [sys.executable, "-m", "flows.pages", name, "--port", str(port)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env=environment | {"PYTHONPATH": str(ROOT)}, stdout=log, stderr=log, start_new_session=True)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            yield wait_for(client, server, folder / "log"), (folder / pages.KEY_FILE).read_text()
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def wait_for(client: httpx.Client, server: subprocess.Popen, log: Path) -> httpx.Client:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            client.get("/")
            return client
        except httpx.TransportError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())


@pytest.mark.slow
def test_prefects_pages_require_the_key_and_refuse_other_origins(tmp_path: Path):
    with serving("prefect", tmp_path) as (client, key):
        asked = {"headers": {"Origin": FOREIGN}, "json": {}}
        refused, answered = client.post("/api/flows/count", **asked), client.post("/api/flows/count", auth=(pages.USER, key), **asked)
        preflight = client.options("/api/flow_runs/", headers={"Origin": FOREIGN, "Access-Control-Request-Method": "POST"})
    assert (refused.status_code, answered.status_code, answered.json()) == (401, 200, 0)
    assert preflight.status_code == 400 and not any("access-control-allow-origin" in answer.headers for answer in (refused, answered, preflight))
    assert f"sign in: {pages.USER}:{key}" in (tmp_path / "log").read_text()


@pytest.mark.slow
def test_mlflows_pages_require_the_key_and_refuse_other_origins_and_hosts(tmp_path: Path):
    path = "/api/2.0/mlflow/experiments/create"
    with serving("mlflow", tmp_path) as (client, key):
        owner = {"auth": (pages.USER, key)}
        statuses = [
            client.get("/").status_code,
            client.get("/", **owner).status_code,
            client.post(path, json={"name": "a"}).status_code,
            client.post(path, json={"name": "a"}, headers={"Origin": FOREIGN}, **owner).status_code,
            client.post(path, json={"name": "a"}, headers={"Host": "evil.example"}, **owner).status_code,
            client.post(path, json={"name": "a"}, **owner).status_code,
        ]
    assert statuses == [401, 200, 401, 403, 403, 200]


def test_the_command_line_hides_the_stores_password_and_a_server_has_its_own_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hush@db.example/runs")
    command, variables = pages.mlflow("127.0.0.1", 5000, "key")
    assert "hush" not in " ".join(command) and variables["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:hush@db.example/runs"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hush@tracking.example")
    with pytest.raises(ApprenticeError, match="names a server") as refused:
        pages.mlflow("127.0.0.1", 5000, "key")
    assert "open https://…@tracking.example" in str(refused.value) and "hush" not in str(refused.value)


def test_a_damaged_database_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "mlflow.db").write_bytes(b"no database, but long enough to be read as one" * 10)
    with pytest.raises(ApprenticeError, match="mlflow.db: file is not a database"):
        pages.mlflow("127.0.0.1", 5000, "key")


def test_the_key_is_created_once_and_private_unless_one_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(pages.KEY_VARIABLE, raising=False)
    made = pages.key()
    assert len(made) >= 32 and made == pages.key() and stat.S_IMODE(pages.KEY_FILE.stat().st_mode) == 0o600
    monkeypatch.setenv(pages.KEY_VARIABLE, "given")
    assert pages.key() == "given"
