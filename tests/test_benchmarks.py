"""The environment of the comparison with TRL."""

import asyncio

import pytest

from apprentice.records import Task
from benchmarks.grpo import OBSERVATION, Conversation

TASK = Task(id="t", scenario="s", split="train", instruction="Tell me a story.", answers=("-",))


def held(*actions):
    """The texts of a conversation, whether each ended it, and the verdict."""

    async def hold():
        environment = Conversation(len(actions))
        told = [await environment.reset(TASK), *[await environment.step(action) for action in actions]]
        return [observation.text for observation in told], [observation.done for observation in told], await environment.verify()

    return asyncio.run(hold())


def test_every_action_but_the_last_is_answered_with_the_same_words():
    texts, done, _ = held("one", "two", "three")
    assert texts == ["Tell me a story.", OBSERVATION, OBSERVATION, ""]
    assert done == [False, False, False, True]


def test_one_turn_is_answered_with_nothing():
    texts, done, _ = held("one")
    assert texts == ["Tell me a story.", ""]
    assert done == [False, True]


@pytest.mark.parametrize(("actions", "share"), [(("a b", "c"), 1.0), (("a b", "b a"), 0.5), (("a", ""), 1.0), (("",), 0.0)])
def test_the_reward_is_the_share_of_distinct_words_in_all_actions(actions, share):
    *_, verdict = held(*actions)
    assert verdict.score == share
    assert verdict.success == (share == 1.0)
