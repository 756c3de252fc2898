"""The policy server's start, end and restart with real processes; only vLLM itself is replaced by a fake."""

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest

from apprentice.config import Layout, load_pipeline
from apprentice.config.schema import PolicyConfig
from apprentice.errors import ApprenticeError, PolicyUnavailable
from apprentice.policy.endpoint import Endpoint
from apprentice.policy.factory import open_policy
from apprentice.policy.protocol import Sampling
from apprentice.policy.server import INTERPRETER_VARIABLE, STATE, PolicyServer, engine_environment
from apprentice.policy.vllm_client import VllmPolicy

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).with_name("fake_serve.py")
CONFIG = PolicyConfig(engine="vllm", port=None, max_context=64, max_sequences=4, kv_cache_gib=1, gpus=1, first_gpu=0, sleep=False)


@pytest.fixture(autouse=True)
def fake_interpreter(tmp_path, monkeypatch):
    """Replace vLLM's interpreter by an executable that starts the fake, whose processes carry a mark."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nshift\nexec {sys.executable} {FAKE} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(script))
    monkeypatch.setenv("STARTED_BY_TEST", str(tmp_path))
    yield
    assert eventually(lambda: not marked(tmp_path)), "processes were left behind"


def marked(tmp_path) -> list[int]:
    """Return the ids of all other live processes that were started by this test."""
    needle, found = f"STARTED_BY_TEST={tmp_path}\0".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if needle in (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def eventually(condition, timeout_s: float = 15.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def server(tiny, tmp_path, **changes) -> PolicyServer:
    return PolicyServer(CONFIG.model_copy(update=changes), tiny, tmp_path / "server.log", state=tmp_path / "state.json")


def test_stopping_a_server_ends_its_whole_process_tree(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAMILY", "1")
    with server(tiny, tmp_path) as running:
        running.wait(20)
        assert not running.attached
        assert eventually(lambda: len(marked(tmp_path)) >= 4)
    assert not (tmp_path / "state.json").exists()


def test_shared_memory_of_a_killed_tree_is_removed(tiny, tmp_path, monkeypatch):
    name = f"psm_apprentice_{os.getpid()}"
    monkeypatch.setenv("FAKE_SHARED_MEMORY", name)
    with server(tiny, tmp_path) as running:
        running.wait(20)
        assert (Path("/dev/shm") / name).exists()
    assert not (Path("/dev/shm") / name).exists()


def test_a_second_process_attaches_and_leaves_the_server_running(tiny, tmp_path):
    with server(tiny, tmp_path) as first:
        with server(tiny, tmp_path) as second:
            second.wait(20)
            assert second.attached and second.endpoint == first.endpoint
        assert first.alive


def test_a_copied_project_starts_its_own_server(tiny, tmp_path):
    with server(tiny, tmp_path) as original:
        (tmp_path / "copy").mkdir()
        shutil.copy(tmp_path / "state.json", tmp_path / "copy")
        with server(tiny, tmp_path / "copy") as copy:
            copy.wait(20)
            assert not copy.attached and copy.endpoint != original.endpoint
        assert original.alive


def test_killing_the_parent_ends_the_whole_process_tree(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_FAMILY", "1")
    program = f"""
        import time
        from pathlib import Path
        from apprentice.config.schema import PolicyConfig
        from apprentice.policy.server import PolicyServer
        server = PolicyServer(PolicyConfig(**{CONFIG.model_dump()!r}), Path({str(tiny)!r}), Path("server.log"), state=Path("state.json"))
        server.start()
        server.wait(20)
        print("ready", flush=True)
        time.sleep(600)
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    starter = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)
    assert starter.stdout.readline() == "ready\n"
    assert eventually(lambda: len(marked(tmp_path)) >= 5)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    assert eventually(lambda: not marked(tmp_path))


def test_the_error_of_a_server_that_exits_early_has_its_last_output(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_DIES", "1")
    with pytest.raises(ApprenticeError, match="no memory for the weights"), server(tiny, tmp_path) as running:
        running.wait(20)


def test_the_error_of_a_server_that_fails_has_its_root_cause(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_DIES", "traceback")
    with pytest.raises(ApprenticeError) as caught, server(tiny, tmp_path) as running:
        running.wait(20)
    log = tmp_path / "server.log"
    assert str(caught.value) == (
        f"{log}: the policy server ended before it answered:\n  MemoryError: no room for the weights\n"
        f"  What to do: fix the cause named here; the whole log is {log}"
    )


def test_the_error_of_a_server_that_is_killed_at_start_names_the_signal(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_DIES", "killed")
    with pytest.raises(ApprenticeError, match=r"ended before it answered, killed by signal 9; out of memory\?:\n  loading"), server(tiny, tmp_path) as running:
        running.wait(20)


def test_a_port_taken_by_another_program_is_named_with_the_override(tiny, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ApprenticeError, match=rf"port {port} is taken.*\n.*policy\.port={port + 1}"):
            server(tiny, tmp_path, port=port).start()


def test_a_server_on_a_port_requires_its_key(tiny, tmp_path):
    with server(tiny, tmp_path, port=0) as running:
        running.wait(20)
        without = replace(running.endpoint, key="")
        assert running.endpoint.get("/v1/models", 5).status_code == 200
        assert without.get("/v1/models", 5).status_code == 401


def test_a_server_on_a_socket_opens_no_port_and_leaves_no_socket(tiny, tmp_path):
    with server(tiny, tmp_path) as running:
        running.wait(20)
        path = Path(running.endpoint.socket)
        assert running.endpoint.port is None and path.is_socket()
    assert not path.exists()


def test_a_server_with_other_limits_is_not_attached_to(tiny, tmp_path):
    with server(tiny, tmp_path):
        with pytest.raises(ApprenticeError, match="other limits"):
            server(tiny, tmp_path, max_context=128).start()


def test_a_stale_state_file_is_ignored(tiny, tmp_path):
    with server(tiny, tmp_path):
        state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"pid": os.getpid()}))
    with server(tiny, tmp_path) as running:
        assert not running.attached
        running.wait(20)


@pytest.mark.parametrize(("visible", "expected"), [(None, "2,3"), ("4,5,6,7", "6,7"), ("GPU-a,GPU-b,GPU-c", "GPU-c")])
def test_a_server_with_its_own_gpus_sees_those_after_the_trainers(monkeypatch, visible, expected):
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    else:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    apart = CONFIG.model_copy(update={"first_gpu": 2, "gpus": 2})
    assert engine_environment(apart)["CUDA_VISIBLE_DEVICES"] == expected
    assert "CUDA_VISIBLE_DEVICES" not in engine_environment(CONFIG)


def test_a_missing_environment_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv(INTERPRETER_VARIABLE, str(tmp_path / "absent"))
    with pytest.raises(ApprenticeError, match="environment is missing"):
        server(tiny, tmp_path).start()


def test_completions_have_the_version_that_the_client_loaded(tiny, tmp_path):
    async def scenario(endpoint):
        policy = VllmPolicy(endpoint)
        await policy.load(tiny, 5)
        answers = await asyncio.gather(*(policy.generate([1, 2], Sampling(2, 1.0, seed)) for seed in range(300)))
        await policy.close()
        return answers

    with server(tiny, tmp_path) as running:
        running.wait(20)
        answers = asyncio.run(scenario(running.endpoint))
    assert [answer.token_ids for answer in answers] == [(5, seed) for seed in range(300)]
    assert {(answer.version, answer.finish_reason, answer.logprobs) for answer in answers} == {(5, "length", (-0.5, 0.0))}


def test_a_sleeping_server_wakes_with_new_weights(tiny, tmp_path):
    async def scenario(endpoint):
        policy, other = VllmPolicy(endpoint, sleeps=True), VllmPolicy(endpoint)
        await policy.load(tiny, 1)
        await other.sleep()
        awake = await policy.generate([1], Sampling(2, 1.0, 0))
        await policy.sleep()
        with pytest.raises(PolicyUnavailable, match="asleep"):
            await policy.generate([1], Sampling(2, 1.0, 0))
        await policy.load(tiny, 2)
        again = await policy.generate([1], Sampling(2, 1.0, 0))
        await asyncio.gather(policy.close(), other.close())
        return awake.token_ids, again.token_ids

    with server(tiny, tmp_path) as running:
        running.wait(20)
        assert asyncio.run(scenario(running.endpoint)) == ((1, 0), (2, 0))


def own_config(model, sleep: bool = False):
    """Return the configuration of `quick` with the fake server and this model."""
    config = load_pipeline("quick", ROOT / "params.yaml")
    settings = {"policy": CONFIG.model_copy(update={"sleep": sleep}), "model": config.model.model_copy(update={"name": str(model)})}
    return config.model_copy(update=settings)


def recorded(project: Path) -> dict:
    """Return the state of the project's server."""
    return json.loads((project / STATE).read_text())


def kill_server(project: Path) -> None:
    children = subprocess.run(["pgrep", "-P", str(recorded(project)["pid"])], capture_output=True, text=True).stdout
    os.kill(int(children.split()[0]), signal.SIGKILL)


def test_a_server_reads_only_changed_weights_unless_it_has_lost_the_others(tiny, tmp_path):
    changed = tmp_path / "changed.safetensors"

    async def sources() -> list[str]:
        """Return the files that the server read last."""
        endpoint = Endpoint(**recorded(tmp_path)["endpoint"])
        async with endpoint.client(timeout=20) as client:
            response = await client.post("/collective_rpc", json={"method": "policy_version", "args": []})
        return response.json()["results"][0]["sources"]

    async def scenario():
        async with open_policy(own_config(tiny, sleep=True), Layout("quick", tmp_path), tiny) as policy:
            found = [await sources()]
            await policy.load(tiny, 1, changed)
            found.append(await sources())
            await policy.sleep()
            await policy.load(tiny, 2, changed)
            found.append(await sources())
            await policy.load(tiny, 3, changed)
            found.append(await sources())
            kill_server(tmp_path)
            answer = await policy.generate([1], Sampling(2, 1.0, 0))
            return [*found, await sources()], answer.token_ids

    whole, part = str(tiny.resolve()), str(changed)
    assert asyncio.run(scenario()) == ([[whole], [part], [whole, part], [part], [whole, part]], (3, 0))


def test_a_server_killed_while_it_sleeps_is_replaced(tiny, tmp_path):
    async def scenario():
        async with open_policy(own_config(tiny, sleep=True), Layout("quick", tmp_path), tiny, version=2) as policy:
            await policy.sleep()
            kill_server(tmp_path)
            await policy.sleep()
            await policy.load(tiny, 3)
            return await policy.generate([1], Sampling(2, 1.0, 0))

    assert asyncio.run(scenario()).token_ids == (3, 0)


def test_a_refused_request_and_a_lost_server_are_different_errors(tiny, tmp_path):
    async def scenario(endpoint):
        policy = VllmPolicy(endpoint)
        with pytest.raises(ApprenticeError, match="the prompt is too long"):
            await policy.generate([1] * 200, Sampling(2, 1.0, 0))
        with pytest.raises(PolicyUnavailable):
            await policy.generate([13], Sampling(2, 1.0, 0))
        await policy.close()

    with server(tiny, tmp_path) as running:
        running.wait(20)
        asyncio.run(scenario(running.endpoint))


def test_a_killed_server_is_replaced_with_the_weights_loaded_last(tiny, tmp_path):
    async def scenario():
        async with open_policy(own_config(tiny), Layout("quick", tmp_path), tiny, version=2) as policy:
            before = await policy.generate([1], Sampling(2, 1.0, 0))
            kill_server(tmp_path)
            after = await asyncio.gather(*(policy.generate([1], Sampling(2, 1.0, seed)) for seed in range(20)))
        return before, after

    before, after = asyncio.run(scenario())
    assert before.token_ids == (2, 0)
    assert [answer.token_ids for answer in after] == [(2, seed) for seed in range(20)]


def test_the_error_of_a_server_that_keeps_failing_has_its_root_cause(tiny, tmp_path):
    async def scenario():
        async with open_policy(own_config(tiny), Layout("quick", tmp_path), tiny) as policy:
            for _ in range(4):
                with pytest.raises(PolicyUnavailable) as lost:
                    await policy.generate([13], Sampling(2, 1.0, 0))
            return str(lost.value)

    assert asyncio.run(scenario()) == "the policy server ended after 3 restarts; root cause: RuntimeError: the engine cannot take 13"


def test_two_users_of_one_server_are_refused(tiny, tmp_path):
    config, layout = own_config(tiny), Layout("quick", tmp_path)

    async def scenario():
        async with open_policy(config, layout, tiny):
            with pytest.raises(ApprenticeError, match="another process is using"):
                async with open_policy(config, layout, tiny):
                    pass

    asyncio.run(scenario())
