"""The real engine: worlds open, execute as AppWorld does, are judged correctly, and stay apart."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from itertools import count
from pathlib import Path

import pytest

from apprentice.errors import ApprenticeError
from apprentice.processes.children import descendants
from apprentice.usecases.assistant.environment.client import AppWorldClient, World
from apprentice.usecases.assistant.environment.episode import EpisodeLimits, WorldDied

pytestmark = pytest.mark.timeout(900)
"""Seconds: the first test that needs a data root generates it."""

NUMBERS = count()
ATTEMPTS, POLL_S = 150, 0.2
"""Half a minute, enough for a busy machine."""

LOGIN = """
def login(app):
    password = {p["account_name"]: p["password"] for p in apis.supervisor.show_account_passwords()}[app]
    return apis[app].login(username=apis.supervisor.show_profile()["email"], password=password)["access_token"]
"""
NOTE = LOGIN + 'print(apis.simple_note.create_note(title="TITLE", content="x", access_token=login("simple_note"))["message"])'
COUNT_NOTES = LOGIN + 'print(sum(n["title"] == "TITLE" for n in apis.simple_note.search_notes(query="TITLE", access_token=login("simple_note"))))'


def go(loop: asyncio.AbstractEventLoop, work):
    return loop.run_until_complete(asyncio.wait_for(work, 240))


async def opened(client: AppWorldClient, task_id: str) -> World:
    return await client.open(task_id, f"test{next(NUMBERS)}")


async def ended(pid: int) -> bool:
    """Return whether a process ends within `ATTEMPTS * POLL_S` seconds."""
    for _ in range(ATTEMPTS):
        if not Path(f"/proc/{pid}").exists():
            return True
        await asyncio.sleep(POLL_S)
    return False


def solution(root: Path, task_id: str) -> str:
    return (root / "data" / "tasks" / task_id / "ground_truth" / "solution.py").read_text() + "\nsolution(apis, requester)"


@pytest.mark.slow
def test_the_reference_solution_of_every_task_passes(client, loop, appworld_root, task_ids):
    async def play(task_id: str):
        world = await opened(client, task_id)
        execution = await world.execute(solution(appworld_root, task_id))
        judgement = await world.judge()
        await world.close()
        return execution, judgement

    for task_id in task_ids:
        execution, judgement = go(loop, play(task_id))
        assert execution.completed and not execution.failed and execution.killed is None, execution.output
        assert judgement.success and judgement.passes == judgement.tests > 1 and judgement.failures == ()


@pytest.mark.slow
def test_doing_nothing_and_only_completing_fail(client, loop, task_ids):
    async def play(*blocks: str):
        world = await opened(client, task_ids[0])
        executions = [await world.execute(block) for block in blocks]
        return executions, await world.judge()

    executions, judgement = go(loop, play())
    assert executions == [] and not judgement.success and judgement.failures
    executions, judgement = go(loop, play("apis.supervisor.complete_task()"))
    assert executions[0].completed and not judgement.success


@pytest.mark.slow
def test_an_unrequested_change_fails_the_task(client, loop, appworld_root, task_ids):
    async def play():
        world = await opened(client, task_ids[0])
        note = await world.execute(NOTE.replace("TITLE", "beside the task"))
        await world.execute(solution(appworld_root, task_ids[0]))
        return note, await world.judge()

    note, judgement = go(loop, play())
    assert note.output.strip() == "Note created." and not note.failed
    assert not judgement.success and judgement.passes < judgement.tests


@pytest.mark.slow
def test_api_calls_are_reported(client, loop, task_ids):
    async def play():
        world = await opened(client, task_ids[0])
        execution = await world.execute("apis.supervisor.show_profile()\napis.spotify.login(username='x', password='y')")
        await world.close()
        return execution, await world.execute("print(1)")

    execution, after = go(loop, play())
    assert [(call.app, call.api, call.status, call.ok) for call in execution.api_calls] == [
        ("supervisor", "show_profile", 200, True),
        ("spotify", "login", 401, False),
    ]
    assert execution.failed and after.killed == "closed"


@pytest.mark.slow
def test_worlds_of_one_task_stay_apart(client, loop, task_ids):
    async def play():
        first, second = await opened(client, task_ids[0]), await opened(client, task_ids[0])
        await first.execute(NOTE.replace("TITLE", "zebra"))
        await first.execute("secret = 1")
        third = await opened(client, task_ids[0])
        found = [(await world.execute(COUNT_NOTES.replace("TITLE", "zebra"))).output.strip() for world in (first, second, third)]
        name = await second.execute("print(secret)")
        for world in (first, second, third):
            await world.close()
        return found, name

    found, name = go(loop, play())
    assert found == ["1", "0", "0"]
    assert "NameError" in name.output


@pytest.mark.slow
def test_two_worlds_of_one_task_behave_alike_but_have_their_own_secrets(client, loop, task_ids):
    async def play():
        world = await opened(client, task_ids[1])
        blocks = (NOTE.replace("TITLE", "a"), "print(random.random(), DateTime.now())", LOGIN + "print(login('simple_note'))")
        outputs = [(await world.execute(block)).output for block in blocks]
        await world.close()
        return outputs

    first, second = (["\n".join(go(loop, play())).rpartition(".")[part] for part in (0, 2)] for _ in range(2))
    assert first[0] == second[0] and first[1] != second[1], "tokens differ only in their signature"


@pytest.mark.slow
def test_sixty_four_worlds_run_at_once(appworld_python, appworld_root, loop, task_ids, tmp_path):
    async def play(client: AppWorldClient, number: int):
        task_id = task_ids[number % 4]
        world = await opened(client, task_id)
        await everybody.wait()
        if number % 2:
            await world.execute(solution(appworld_root, task_id))
        else:
            await world.execute("apis.supervisor.complete_task()")
        judgement = await world.judge()
        await world.close()
        return judgement.success

    everybody = asyncio.Barrier(64)

    async def all_of_them():
        client = AppWorldClient(appworld_python, appworld_root, tmp_path, limits=EpisodeLimits(timeout_s=150))
        await client.start()
        try:
            successes = await asyncio.gather(*(play(client, number) for number in range(64)))
            return successes, [path for path in client.outputs.iterdir() if path.name.startswith("test")]
        finally:
            await client.close()

    assert go(loop, all_of_them()) == ([bool(number % 2) for number in range(64)], [])


@pytest.mark.slow
def test_a_world_that_is_killed_fails_alone(client, loop, task_ids):
    async def play():
        victim, other = await opened(client, task_ids[0]), await opened(client, task_ids[0])
        os.kill(await victim.pid(), signal.SIGKILL)
        execution = await victim.execute("print(1)")
        return execution, await victim.judge(), await other.execute("print(2)"), await other.judge()

    execution, judgement, other, other_judgement = go(loop, play())
    assert execution.killed and execution.failed and execution.output == ""
    assert not judgement.success and "killed" in judgement.failures[0]
    assert other.output == "2\n" and other.killed is None and other_judgement.tests > 1


@pytest.mark.slow
def test_a_world_that_stops_answering_is_ended_from_outside(appworld_python, appworld_root, loop, task_ids, tmp_path, monkeypatch):
    from apprentice.usecases.assistant.environment import client as module

    monkeypatch.setattr(module, "GRACE_S", 1.0)
    limits = EpisodeLimits(timeout_s=1)

    async def play():
        client = AppWorldClient(appworld_python, appworld_root, tmp_path, limits=limits)
        await client.start()
        try:
            world = await client.open(task_ids[0], "stopped")
            pid = await world.pid()
            os.kill(pid, signal.SIGSTOP)
            execution = await world.execute("print(1)")
            return execution, await ended(pid)
        finally:
            await client.close()

    execution, world_ended = go(loop, play())
    assert execution.killed.startswith("time") and world_ended


@pytest.mark.slow
def test_an_engine_that_dies_is_started_again(appworld_python, appworld_root, loop, task_ids, tmp_path):
    async def play():
        client = AppWorldClient(appworld_python, appworld_root, tmp_path)
        await client.start()
        try:
            world = await client.open(task_ids[0], "first")
            zygote = client.pid
            os.kill(zygote, signal.SIGKILL)
            assert await ended(zygote)
            dead = await world.execute("print(1)")
            for number in range(ATTEMPTS):
                try:
                    again = await client.open(task_ids[0], f"again{number}")
                    break
                except WorldDied:
                    await asyncio.sleep(POLL_S)
            return dead, await again.execute("print(2)")
        finally:
            await client.close()

    dead, execution = go(loop, play())
    assert dead.killed and execution.output == "2\n"


@pytest.mark.slow
def test_nothing_outlives_a_killed_trainer(appworld_python, appworld_root, loop, task_ids, tmp_path):
    script = textwrap.dedent(
        f"""
        import asyncio, sys
        from pathlib import Path
        from apprentice.usecases.assistant.environment.client import AppWorldClient
        async def main():
            client = AppWorldClient(Path({str(appworld_python)!r}), Path({str(appworld_root)!r}), Path({str(tmp_path)!r}))
            world = await client.open({task_ids[0]!r}, "e")
            print("open", flush=True)
            await world.execute("while True: pass")
        asyncio.run(main())
        """
    )
    trainer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert trainer.stdout.readline() == "open\n"
    started = descendants(trainer.pid)
    assert len(started) > 5
    trainer.kill()
    trainer.wait()
    assert [pid for pid in started if not go(loop, ended(pid))] == []


def test_without_appworld_the_error_says_how_to_install_it(loop, tmp_path):
    client = AppWorldClient(tmp_path / "python", tmp_path, tmp_path / "scratch")
    with pytest.raises(ApprenticeError, match="install.py appworld"):
        go(loop, client.start())


def test_a_folder_that_is_not_a_data_root_is_refused(appworld_python, loop, tmp_path):
    client = AppWorldClient(appworld_python, tmp_path, tmp_path / "scratch")
    with pytest.raises(ApprenticeError, match="not an AppWorld data root"):
        go(loop, client.start())


@pytest.mark.slow
def test_an_unknown_task_is_a_clear_error(client, loop, task_ids):
    for name in ("fffffff_1", "../../etc", ""):
        with pytest.raises(ApprenticeError, match="no task"):
            go(loop, client.open(name, "unknown"))
    with pytest.raises(ApprenticeError, match="cannot be named"):
        go(loop, client.open(task_ids[0], "../outside"))


@pytest.mark.slow
def test_a_broken_task_is_a_clear_error(appworld_python, appworld_root, loop, task_ids, tmp_path):
    import shutil

    shutil.copytree(appworld_root / "data", tmp_path / "root" / "data", symlinks=True)
    specification = tmp_path / "root" / "data" / "tasks" / task_ids[1] / "specs.json"
    specification.write_text(specification.read_text().replace('"db_version": "', '"db_version": "9.'))

    async def play():
        client = AppWorldClient(appworld_python, tmp_path / "root", tmp_path / "scratch")
        await client.start()
        try:
            with pytest.raises(ApprenticeError, match="have version"):
                await client.open(task_ids[1], "broken")
            world = await client.open(task_ids[0], "whole")
            return await world.execute("print(1)")
        finally:
            await client.close()

    assert go(loop, play()).output == "1\n"


ISOLATION_SCRIPT = """
import asyncio, sys
from pathlib import Path
from apprentice.usecases.assistant.environment.client import AppWorldClient
from apprentice.errors import ApprenticeError

async def main(python, root, scratch, task, isolation):
    client = AppWorldClient(Path(python), Path(root), Path(scratch), isolation=isolation)
    try:
        world = await client.open(task, "e")
        print(client.missing_layers)
        code = "posix = getattr(builtins, '__imp' + 'ort__')('posix')\\\\nprint(posix.open('@', 0))".replace("@", "/etc/passwd")
        print((await world.execute(code.replace("\\\\n", chr(10)))).output)
        print((await world.execute("print(apis.supervisor.show_profile()['email'])")).output)
    except ApprenticeError as error:
        print(error)
    finally:
        await client.close()

asyncio.run(main(*sys.argv[1:]))
"""
AS_A_USER = ["unshare", "-U", "--map-user=65534", "--map-group=65534"]
"""An account without privileges that may create user namespaces."""
ALLOWED_NOTHING = [
    *("unshare", "-Ur", "bash", "-c"),
    'echo 0 > /proc/sys/user/max_user_namespaces; exec setpriv --bounding-set -all --inh-caps -all "$@"',
    "bash",
]


def isolated(prefix: list[str], isolation: str, python: Path, root: Path, scratch: Path, task_id: str) -> subprocess.CompletedProcess:
    if subprocess.run(["unshare", "-Ur", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no user namespaces, in which the tests simulate one without privileges")
    command = [*prefix, sys.executable, "-c", ISOLATION_SCRIPT, str(python), str(root), str(scratch), task_id, isolation]
    return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[3], timeout=240)


@pytest.mark.slow
def test_an_unprivileged_account_isolates_fully(appworld_python, appworld_root, task_ids, tmp_path):
    done = isolated(AS_A_USER, "full", appworld_python, appworld_root, tmp_path, task_ids[0])
    assert done.stdout.startswith("()\n") and "FileNotFoundError" in done.stdout and "@" in done.stdout.splitlines()[-2], done
    assert "WARNING" not in done.stderr


@pytest.mark.slow
def test_a_machine_that_allows_no_isolation_is_refused(appworld_python, appworld_root, task_ids, tmp_path):
    done = isolated(ALLOWED_NOTHING, "full", appworld_python, appworld_root, tmp_path, task_ids[0])
    assert "cannot isolate the agent's code: no namespaces" in done.stdout and "degraded-allowed" in done.stdout, done


@pytest.mark.slow
def test_degraded_isolation_warns_and_still_filters(appworld_python, appworld_root, task_ids, tmp_path):
    done = isolated(ALLOWED_NOTHING, "degraded-allowed", appworld_python, appworld_root, tmp_path, task_ids[0])
    assert "WARNING: the agent's code runs with degraded isolation: no namespaces" in done.stderr, done
    assert "FileNotFoundError" in done.stdout and "@" in done.stdout.splitlines()[-2], done
