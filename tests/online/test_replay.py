"""Replay of successes."""

from dataclasses import replace

from online.test_loop import SOUND

from apprentice.online.replay import Replay

FAILURE = replace(SOUND, id="f", group="later", outcome="failure", reward=0.0)


def test_a_group_without_a_success_gets_the_one_of_its_task_and_others_get_none():
    replay = Replay(steps=3)
    replay.note([SOUND, replace(SOUND, id="other", task_id="u", outcome="failure")])
    (addition,) = replay.additions([FAILURE, replace(FAILURE, id="f2"), replace(FAILURE, task_id="u", group="u")], step=2)
    assert (addition.group, addition.token_ids, addition.logprobs, addition.reward) == ("later", SOUND.token_ids, SOUND.logprobs, 1.0)
    assert addition.id not in (SOUND.id, FAILURE.id)
    assert replay.additions([FAILURE, replace(SOUND, id="s", group="later")], step=2) == []


def test_it_forgets_what_is_too_old_and_keeps_the_newest():
    replay = Replay(steps=3)
    replay.note([SOUND])
    assert len(replay.additions([FAILURE], step=3)) == 1 and replay.additions([FAILURE], step=4) == []
    newer = replace(SOUND, id="newer", turns=(replace(SOUND.turns[0], version=4),))
    replay.note([newer])
    assert replay.additions([FAILURE], step=7)[0].id.startswith("newer")


def test_without_steps_nothing_is_remembered(tmp_path):
    replay = Replay(steps=0)
    replay.note([SOUND])
    replay.save(tmp_path)
    assert replay.additions([FAILURE], step=0) == [] and list(tmp_path.iterdir()) == []


def test_what_is_remembered_outlives_an_interruption(tmp_path):
    replay, resumed = Replay(steps=3), Replay(steps=3)
    replay.note([SOUND])
    replay.save(tmp_path)
    resumed.load(tmp_path)
    assert resumed.additions([FAILURE], step=1) == replay.additions([FAILURE], step=1) != []
