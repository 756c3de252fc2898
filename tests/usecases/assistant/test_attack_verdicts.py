"""The trusted side's handling of hostile episodes: bounded texts, bounded memory, and failures that stay failures.

Infrastructure faults are excluded from training and scores, so no agent may turn its failure into one.
"""

import asyncio
import json
import re
import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest
from tiny import make_tiny_checkpoint
from usecases.assistant.conftest import CANARY
from usecases.assistant.test_attacks import BREAK_OUT
from usecases.assistant.test_skills import of_root

from apprentice.config import load_pipeline
from apprentice.config.schema import EnvironmentConfig
from apprentice.policy.chat import ChatFormat
from apprentice.policy.protocol import Completion, Sampling
from apprentice.processes.children import descendants
from apprentice.rollout.simulator import Simulator, plan_episodes
from apprentice.usecases.assistant.environment.appworld import AppWorldEnvironment, fenced
from apprentice.usecases.assistant.environment.client import AppWorldClient
from apprentice.usecases.assistant.environment.episode import WorldDied

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]

NUMBERS = count()
MEMORY_MB = 320
"""Bound on a world's growth: its limit of 192 MiB plus six times the databases, with a margin."""
PARAMS = Path(__file__).parents[3] / "params.yaml"
LOGIN = """
person = apis.supervisor.show_profile()["email"]
passwords = {p["account_name"]: p["password"] for p in apis.supervisor.show_account_passwords()}
token = {app: apis[app].login(username=person, password=passwords[app])["access_token"] for app in ("simple_note", "venmo")}
friend = next(user["email"] for user in apis.venmo.search_users(access_token=token["venmo"]) if user["email"] != person)
"""
NOTE = "apis.simple_note.create_note(title='x', content={content}, access_token=token['simple_note'])"
REQUEST = "apis.venmo.create_payment_request(user_email=friend, amount={amount}, description='x', access_token=token['venmo'])"
PLAYED = {
    "half a character": "print('\\ud83d')",
    "halves of characters, everywhere": LOGIN + "print('\\udfff' * 999)\n" + NOTE.format(content="'\\udc80'"),
    "an infinite amount": LOGIN + REQUEST.format(amount="'inf'"),
    "an amount that overflows": LOGIN + REQUEST.format(amount="1e400"),
    "no number": LOGIN + REQUEST.format(amount="'nan'"),
    "zero bytes in a database": LOGIN + NOTE.format(content="'\\0' * 9"),
    "a number that SQLite cannot hold": LOGIN + "apis.simple_note.delete_note(note_id=10**30, access_token=token['simple_note'])",
    "a forged output of 20 MB": BREAK_OUT + "my_socket().sendall(b'{\"done\": \"' + b'x' * 20_000_000 + b'\"}\\n')",
    "a forged output of surrogates": BREAK_OUT + 'my_socket().sendall(b\'{"done": "\\\\udead\\\\u0000\\\\u001b"}\\n\')',
    "an answer of surrogates": "apis.supervisor.complete_task(answer='\\udead')",
    "an answer of 7 MB": "apis.supervisor.complete_task(answer='x' * 7_000_000)",
    "an infinite answer": "apis.supervisor.complete_task(answer=float('inf'))",
}
"""Blocks after which the episode must have failed."""


class Blocks:
    """A policy that writes one block in its first turn and gives up in the next."""

    def __init__(self, chat: ChatFormat, code: str):
        self._chat, self._actions = chat, [fenced(code), "I give up."]

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion:
        ids = (*self._chat.encode(self._actions.pop(0)), self._chat.end_token_id)
        return Completion(ids, (-0.5,) * len(ids), "stop", version=0)


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> ChatFormat:
    """A chat format with a real tokenizer."""
    return ChatFormat(make_tiny_checkpoint(tmp_path_factory.mktemp("tiny")))


@pytest.fixture
def played(client, loop, chat, appworld_root, task_ids):
    """A function that plays one block through the simulator and returns the trajectory and the simulator."""

    def play(code: str):
        config = load_pipeline("assistant", PARAMS).environment
        limits = EnvironmentConfig(use="toy", max_turns=2, max_turn_tokens=20_000, max_failed_turns=3, max_tokens=60_000, concurrency=1)
        simulator = Simulator(Blocks(chat, code), chat, lambda: AppWorldEnvironment(client, config), limits, temperature=1.0, retries=0)
        episodes = plan_episodes([of_root(appworld_root, task_ids[0])], 1, 0, f"x{next(NUMBERS)}")
        [trajectory] = loop.run_until_complete(asyncio.wait_for(simulator.run(episodes), 240))
        return trajectory, simulator

    return play


@pytest.mark.parametrize("name", PLAYED)
def test_a_hostile_block_ends_in_a_failure_and_in_no_fault(played, client, name):
    trajectory, simulator = played(PLAYED[name])
    assert simulator.faults == [] and trajectory.outcome in ("failure", "truncated") and trajectory.reward == 0.0
    shown = trajectory.turns[0].observation
    assert len(shown) < 2 * client.limits.output_chars and not re.search("[\x00-\x08\x1b\ud800-\udfff]", shown)
    json.dumps(shown, ensure_ascii=False).encode()


def test_recorded_look_ups_name_known_apis_and_are_short(played):
    look_up = "apis.api_docs.show_api_doc(app_name={app}, api_name={api}, raise_on_failure=False)"
    pairs = [("'x' * 56_000", "'y'"), ("'spotify'", "'z' * 56_000"), ("'spotify'", "'login'"), ("'spotify'", "'a b) 200'")]
    code = "\n".join(look_up.format(app=app, api=api) for app, api in pairs * 15)
    trajectory, _ = played(code)
    calls = trajectory.turns[0].calls
    assert set(calls) == {"api_docs.show_api_doc 422", "api_docs.show_api_doc(spotify.login) 200"}, set(calls)
    assert len(calls) == 60 and sum(map(len, calls)) < 60 * 64


def flushed(client: AppWorldClient, loop, task_id: str) -> tuple[str, Path]:
    """Finish an episode without judging it; return its name and the folder of its databases."""

    async def play() -> str:
        world = await client.open(task_id, f"flushed{next(NUMBERS)}")
        await world.execute("apis.supervisor.complete_task()")
        await world.flush()
        return world.episode

    episode = loop.run_until_complete(asyncio.wait_for(play(), 240))
    return episode, client.outputs / episode / "tasks" / task_id / "dbs"


@pytest.mark.parametrize(
    "change",
    ['["INSERT INTO notes VALUES (?)", [1], false]', '["INSERT INTO nowhere VALUES (?)", [null], false]', "[", '"x"', "[" * 200_000, "\udcff", '{"a": 1}'],
    ids=["too few values", "no such table", "no JSON", "no change", "too deep", "no UTF-8", "an object"],
)
def test_an_episode_with_databases_that_cannot_be_replayed_fails(client, loop, task_ids, change):
    episode, folder = flushed(client, loop, task_ids[0])
    with (folder / "simple_note.jsonl").open("a", errors="surrogateescape") as file:
        file.write(change + "\n")
    judgement = loop.run_until_complete(asyncio.wait_for(client.judge(task_ids[0], episode), 240))
    assert (judgement.success, judgement.passes) == (False, 0) and "cannot be judged" in judgement.failures[0]


def test_an_episode_with_databases_too_large_for_a_judge_fails(client, loop, task_ids):
    episode, folder = flushed(client, loop, task_ids[0])
    notes = json.dumps(["CREATE TABLE t AS SELECT hex(zeroblob(150000000)) AS a, hex(zeroblob(150000000)) AS b", [], False])
    with (folder / "simple_note.jsonl").open("a") as file:
        file.write(notes + "\n")
    judgement = loop.run_until_complete(asyncio.wait_for(client.judge(task_ids[0], episode), 240))
    assert not judgement.success and "cannot be judged" in judgement.failures[0]


def test_missing_databases_are_a_fault(client, loop, task_ids):
    episode, _ = flushed(client, loop, task_ids[0])
    shutil.rmtree(client.outputs / episode)
    with pytest.raises(WorldDied, match="are gone"):
        loop.run_until_complete(asyncio.wait_for(client.judge(task_ids[0], episode), 240))


@pytest.mark.parametrize("break_it", [lambda file: file.unlink(), lambda file: file.write_text("def evaluate(**arguments):\n    raise KeyError('x')\n")])
def test_a_missing_or_broken_ground_truth_is_a_fault(appworld_python, appworld_root, loop, task_ids, tmp_path, break_it):
    shutil.copytree(appworld_root / "data", tmp_path / "root" / "data", symlinks=True)
    break_it(tmp_path / "root" / "data" / "tasks" / task_ids[1] / "ground_truth" / "evaluation.py")

    async def play():
        client = AppWorldClient(appworld_python, tmp_path / "root", tmp_path / "scratch")
        await client.start()
        try:
            world = await client.open(task_ids[1], "broken")
            with pytest.raises(WorldDied, match="could not be judged"):
                await world.judge()
            whole = await client.open(task_ids[0], "whole")
            return await whole.judge()
        finally:
            await client.close()

    assert loop.run_until_complete(asyncio.wait_for(play(), 240)).tests > 1


def resident_mb(pid: int) -> int:
    """Return the MiB of memory that a process does not share with others."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("RssAnon:")[2].split()[0]) >> 10


def test_what_an_agent_writes_does_not_fill_the_machine(client, loop, task_ids):
    note = NOTE.format(content="'x' * 7_000_000")

    async def play():
        world = await client.open(task_ids[0], f"full{next(NUMBERS)}")
        await world.execute(LOGIN)
        pid = await world.pid()
        before = resident_mb(pid)
        refused = [await world.execute(note) for _ in range(12)]
        again = await world.execute(LOGIN + "print('reads')")
        grown = resident_mb(pid) - before
        return refused, again, grown, await world.judge()

    blocks, again, grown, judgement = loop.run_until_complete(asyncio.wait_for(play(), 240))
    assert grown < MEMORY_MB and not judgement.success and judgement.tests > 1
    assert not blocks[0].failed and all("413" in block.output and block.killed is None for block in blocks[1:])
    assert "413" in again.output or again.output == "reads\n"


def test_what_an_agent_copies_does_not_fill_the_machine(client, loop, task_ids):
    """Small requests multiply existing data."""
    files = LOGIN + "files = apis.file_system.login(username=person, password=passwords['file_system'])['access_token']\n"
    create = "apis.file_system.create_file(file_path='~/x.txt', content='x' * 6_000_000, access_token=files)"
    copy = "for i in range(60): apis.file_system.copy_file(source_file_path='~/x.txt', destination_file_path=f'~/y{i}.txt', access_token=files)"

    async def play():
        world = await client.open(task_ids[0], f"copies{next(NUMBERS)}")
        for block in (files, create):
            assert not (await world.execute(block)).failed
        pid = await world.pid()
        before = resident_mb(pid)
        copied = await world.execute(copy)
        grown = resident_mb(pid) - before if copied.killed is None else 0
        return copied, grown, await world.judge()

    copied, grown, judgement = loop.run_until_complete(asyncio.wait_for(play(), 240))
    assert copied.failed and grown < MEMORY_MB and not judgement.success, (copied.output[-300:], grown)


def test_no_process_of_the_engine_knows_the_trainer_s_environment(client, loop, task_ids):
    async def look():
        world = await client.open(task_ids[0], f"look{next(NUMBERS)}")
        try:
            pids = [client.supervisor_pid, *descendants(client.supervisor_pid)]
            return await world.pid(), {pid: Path(f"/proc/{pid}/environ").read_bytes() for pid in pids}
        finally:
            await world.close()

    _, environments = loop.run_until_complete(look())
    assert len(environments) > 5 and any(environments.values())
    names = {line.partition(b"=")[0].decode() for text in environments.values() for line in text.split(b"\0") if line}
    assert names <= {"PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH"}, names
    assert not any(CANARY.encode() in text for text in environments.values())


def test_the_kernel_ends_an_episode_before_the_trainer(client, loop, task_ids):
    async def scores():
        world = await client.open(task_ids[0], f"scores{next(NUMBERS)}")
        try:
            await world.execute("x = 1")
            of_world = Path(f"/proc/{await world.pid()}/oom_score_adj").read_text()
            return int(of_world), {pid: int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in descendants(client.pid)}
        finally:
            await world.close()

    of_world, of_all = loop.run_until_complete(scores())
    assert of_world == 1000 and min(of_all.values()) >= 500
    assert sum(score == 1000 for score in of_all.values()) >= 3, "the world, and the sandbox with the interpreter"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (["GET", "/spotify/", {"authorization": "€"}, "", []], "characters"),
        (["GET", "/spotify/", {"authorization": "\ud800"}, "", []], "characters"),
        (["GET", "/spotify/é", {}, "", []], "characters"),
        (["POST", "/spotify/", {}, "漢", []], "characters"),
        (["GET", "/spotify/", {}, "", ["no_function_of_mine"]], "functions that are not at hand"),
        (["GET", "/spotify/", {}, "", [[]]], "functions that are not at hand"),
        (["GET", "/spotify/", {}, "", ["a"] * 10**5], "functions that are not at hand"),
        (["GET", "/spotify/", {}, ""], "not five fields"),
    ],
)
def test_a_request_that_no_client_makes_is_refused_by_name(client, loop, task_ids, message, reason):
    code = f"{BREAK_OUT}\nmy_socket().sendall({(json.dumps({'api': message}) + chr(10)).encode()!r})\nprint('x')"

    async def play():
        world = await client.open(task_ids[0], f"refused{next(NUMBERS)}")
        return await world.execute(code)

    assert loop.run_until_complete(asyncio.wait_for(play(), 240)).killed == f"protocol: {reason}"
