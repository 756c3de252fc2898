"""Access to a policy server: a socket in a private folder, or a TCP port with a key on every route."""

import asyncio
import json
import os
import runpy
import stat
from pathlib import Path

import httpx
import pytest

from apprentice.errors import ApprenticeError
from apprentice.policy.endpoint import KEY_VARIABLE, Endpoint, new_endpoint, socket_path
from apprentice.policy.server import STATE, PolicyServer

KEY_CHECK = Path(__file__).parents[2] / "apprentice" / "policy" / "serving" / "key_check.py"


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Path:
    """The test's own temporary folder in place of the system's."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_socket_is_in_a_folder_that_only_its_user_can_enter(temporary):
    path = socket_path(Path("state.json"))
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700 and path.parent.parent == temporary


def test_each_state_file_has_its_own_socket(temporary):
    assert socket_path(temporary / "a" / STATE) != socket_path(temporary / "b" / STATE)
    assert socket_path(temporary / "a" / STATE) == socket_path(temporary / "a" / STATE)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_can_enter_is_refused(temporary, mode):
    folder = temporary / f"apprentice-{os.getuid()}"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ApprenticeError, match="only you can enter"):
        new_endpoint(None, Path("state.json"))


def test_a_link_in_place_of_the_folder_is_refused(temporary):
    (temporary / "elsewhere").mkdir(mode=0o700)
    (temporary / f"apprentice-{os.getuid()}").symlink_to("elsewhere")
    with pytest.raises(ApprenticeError, match="only you can enter"):
        new_endpoint(None, Path("state.json"))


def test_a_path_too_long_for_a_socket_is_refused_with_advice(tmp_path, monkeypatch):
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(ApprenticeError, match="too long(.|\n)*TMPDIR"):
        new_endpoint(None, Path("state.json"))


def test_a_port_has_a_key_that_no_message_shows():
    first, second = new_endpoint(0, Path("state.json")), new_endpoint(0, Path("state.json"))
    assert len(first.key) >= 40 and first.key != second.key
    assert first.key not in repr(first) and first.key not in first.name


def guarded(monkeypatch, headers, path="/collective_rpc", method="POST") -> tuple[int, list]:
    """Return the middleware's status, and the paths of requests that reached the application behind it."""
    monkeypatch.setenv(KEY_VARIABLE, "the key")
    reached = []

    async def application(scope, receive, send):
        reached.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def ask():
        transport = httpx.ASGITransport(runpy.run_path(str(KEY_CHECK))["RequireKey"](application))
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return (await client.request(method, path, headers=headers)).status_code

    return asyncio.run(ask()), reached


@pytest.mark.parametrize("path", ["/collective_rpc", "/health", "/v1/completions", "/sleep", "/metrics", "/"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_no_route_answers_without_the_key(monkeypatch, path, method):
    assert guarded(monkeypatch, {}, path, method) == (401, [])


@pytest.mark.parametrize("value", ["Bearer ", "Bearer the ke", "bearer the key", "the key", "Basic the key", "Bearer the key "])
def test_another_key_is_refused(monkeypatch, value):
    assert guarded(monkeypatch, [(b"Authorization", value.encode())]) == (401, [])


def test_two_keys_are_refused(monkeypatch):
    assert guarded(monkeypatch, [(b"Authorization", b"Bearer the key"), (b"Authorization", b"Bearer the key")]) == (401, [])


def test_the_key_opens_every_route(monkeypatch):
    assert guarded(monkeypatch, {"Authorization": "Bearer the key"}) == (200, ["/collective_rpc"])


def test_the_middleware_reads_the_variable_that_the_server_is_given():
    assert runpy.run_path(str(KEY_CHECK))["KEY_VARIABLE"] == KEY_VARIABLE


def test_the_state_file_that_holds_the_key_is_private(tiny, tmp_path, monkeypatch):
    from apprentice.config.schema import PolicyConfig

    monkeypatch.setenv("APPRENTICE_SERVE_PYTHON", "/bin/true")
    config = PolicyConfig(engine="vllm", port=0, max_context=64, max_sequences=4, kv_cache_gib=1, gpus=1, first_gpu=0, sleep=False)
    with PolicyServer(config, tiny, tmp_path / "server.log", state=tmp_path / "state.json") as server:
        written = json.loads((tmp_path / "state.json").read_text())
        assert stat.S_IMODE((tmp_path / "state.json").stat().st_mode) == 0o600
        assert Endpoint(**written["endpoint"]) == server.endpoint
