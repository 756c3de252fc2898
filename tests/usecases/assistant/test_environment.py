"""The assistant's environment: what counts as code, what the agent is told, and how episodes end."""

import json
from pathlib import Path

import pytest

from apprentice.config import load_pipeline
from apprentice.environments.protocol import MALFORMED
from apprentice.records import Task
from apprentice.records.fingerprint import fingerprint
from apprentice.usecases.assistant.environment.appworld import ADVICE, ONLY_FIRST, AppWorldEnvironment, code_blocks, fenced
from apprentice.usecases.assistant.environment.expert import expert_actions

PARAMS = Path(__file__).parents[3] / "params.yaml"


@pytest.mark.parametrize(
    ("action", "blocks"),
    [
        ("```python\nprint(1)\n```", ["print(1)"]),
        ("First I look.\n```py\nx = 1\nprint(x)\n```\nThen I go on.", ["x = 1\nprint(x)"]),
        ("```\nprint(1)\n```", ["print(1)"]),
        ("```python\nprint(1)", ["print(1)"]),
        ("```python\na\n```\n```python\nb\n```", ["a", "b"]),
        ("```python\n\n```", []),
        ('```json\n{"a": 1}\n```\nSo I go on.\n```python\nprint(1)\n```', ["print(1)"]),
        ("```json\n{}\n```", []),
        ("```python\nprint(1)```", ["print(1)"]),
        ("print(1)", []),
        ("", []),
    ],
)
def test_code_is_what_is_fenced(action, blocks):
    assert code_blocks(action) == blocks


@pytest.fixture
def played(client, loop, appworld_root):
    """A function that plays messages in a task's world and returns the observations and the verdict."""

    def play(task_id, *actions, reward="goal"):
        config = load_pipeline("assistant", PARAMS).environment.model_copy(update={"reward": reward})
        environment = AppWorldEnvironment(client, config)

        async def go():
            try:
                told = [await environment.reset(task(appworld_root, task_id))]
                for action in actions:
                    told.append(await environment.step(action))
                return told, await environment.verify()
            finally:
                await environment.close()

        return loop.run_until_complete(go())

    return play


def task(root: Path, task_id: str) -> Task:
    folder = root / "data" / "tasks" / task_id
    instruction = json.loads((folder / "specs.json").read_text())["instruction"]
    plan = json.loads((folder / "ground_truth" / "steps.json").read_text())
    return Task(id=task_id, scenario=task_id, split="train", instruction=instruction, judge="environment", plan=plan)


def test_the_agent_learns_who_asks_what_and_how_to_work(played, task_ids, appworld_root):
    [told], _ = played(task_ids[0])
    specs = json.loads((appworld_root / "data" / "tasks" / task_ids[0] / "specs.json").read_text())
    assert specs["instruction"] in told.text and specs["supervisor"]["email"] in told.text and specs["datetime"][:10] in told.text
    assert "show_api_doc" in told.text and "complete_task" in told.text and not told.done


def test_the_expert_solves_the_task_and_its_calls_are_recorded(played, task_ids, appworld_root):
    of_task = task(appworld_root, task_ids[0])
    actions = list(expert_actions(of_task))
    told, verdict = played(task_ids[0], *actions)
    assert (verdict.success, verdict.score) == (True, 1.0)
    assert [observation.kind for observation in told[1:]] == ["code"] * (len(actions) - 1) + ["complete"]
    assert [observation.done for observation in told] == [False] * len(actions) + [True]
    calls = [call for observation in told for call in observation.calls]
    assert "api_docs.show_api_doc(supervisor.show_profile) 200" in calls and "supervisor.complete_task 200" in calls


def test_errors_and_messages_without_code_are_reported_and_the_episode_continues(played, task_ids):
    told, verdict = played(
        task_ids[0], "I would start with the docs.", fenced("1/0"), fenced("print('still here')"), fenced("apis.spotify.show_song(song_id=-1)")
    )
    assert [observation.kind for observation in told[1:]] == [MALFORMED, "error", "code", "error"]
    assert told[1].text == ADVICE and "ZeroDivisionError" in told[2].text and told[3].text == "still here"
    assert told[4].calls[0].startswith("spotify.show_song 4")
    assert not any(observation.done for observation in told) and (verdict.success, verdict.score) == (False, 0.0)


def test_only_the_first_block_of_a_message_runs(played, task_ids):
    told, _ = played(task_ids[0], fenced("print('one')") + "\n" + fenced("print('two')"))
    assert told[1].text == f"one\n{ONLY_FIRST}"


def test_code_that_ends_its_own_process_ends_the_episode_as_a_failure(played, task_ids):
    told, verdict = played(task_ids[0], fenced("import os\nos._exit(0)"), reward="tests")
    blocked_or_killed = told[1].kind in ("killed", "error")
    assert blocked_or_killed and not verdict.success and verdict.score < 1.0


def test_the_share_of_checks_that_pass_can_be_the_reward(played, task_ids):
    _, goal = played(task_ids[0], fenced("apis.supervisor.complete_task()"))
    _, share = played(task_ids[0], fenced("apis.supervisor.complete_task()"), reward="tests")
    assert (goal.score, goal.success, share.success) == (0.0, False, False) and 0.0 < share.score < 1.0


def test_the_expert_does_nothing_if_the_task_has_no_plan(task_ids, appworld_root):
    assert list(expert_actions(task(appworld_root, task_ids[0]).model_copy(update={"plan": ()}))) == []


def test_an_episode_leaves_the_data_root_unchanged(played, task_ids, appworld_root):
    before = fingerprint(appworld_root)
    _, verdict = played(task_ids[0], *expert_actions(task(appworld_root, task_ids[0])))
    assert verdict.success and fingerprint(appworld_root) == before
