"""Tests of the benchmarks' measurements and statistics."""

import asyncio

import pytest

from apprentice.records import Task, Trajectory, Turn
from benchmarks import sampling, storing, training
from benchmarks.grpo import OBSERVATION, Conversation
from benchmarks.training import TrainingSpeed

TASK = Task(id="t", scenario="s", split="train", instruction="Tell me a story.", answers=("-",))


def held(*actions):
    """Returns the texts of a conversation, whether each ended it, and the verdict."""

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


def test_the_engine_alone_is_given_each_turns_prompt_and_as_many_tokens_as_were_sampled():
    made = Trajectory("a", "t", "g", (1, 2, 3, 4, 5, 6), (0, 0, 1, 0, 1, 1), (0.0,) * 6, (turn(2, 3), turn(4, 6)), 1.0, "success", "", 0, 1.0)
    assert sampling.turns(made) == [([1, 2], 1), ([1, 2, 3, 4], 2)]


def turn(start, end):
    return Turn(start, end, "", "", "say", 0)


def test_shares_are_those_of_the_same_tokens_in_the_same_round():
    found = sampling.metrics([sampling.Round(tokens=100, sampled_tokens=40, ours_seconds=ours, engine_seconds=2.0) for ours in (1.0, 2.0, 4.0)])
    assert found["sampling_vs_engine_alone"] == {"median": 1.0, "min": 0.5, "max": 2.0, "n": 3}
    assert found["sampled_tokens_per_second"]["median"] == 20 and found["episode_tokens_per_second"]["max"] == 100
    speed = TrainingSpeed(100, 10, body=1000, embeddings=500, forward_seconds=1.0, both_seconds=3.0, group_seconds=2.0, step_seconds=0.1, peak=420_000)
    found = training.metrics([speed])
    assert found["update_gemm_share"]["median"] == pytest.approx(0.5) and found["forward_gemm_share"]["median"] == pytest.approx(0.5)
    assert found["shared_update_tokens_per_second"]["median"] == 50


def test_retrieval_and_writing_are_measured(monkeypatch):
    for name, size in {"PASSAGES": 50, "QUERIES": 5, "TRAJECTORIES": 3}.items():
        monkeypatch.setattr(storing, name, size)
    found = storing.metrics(2)
    assert set(found) == {"retrieval_queries_per_second", "trajectories_written_per_second"}
    assert all(values["n"] == 2 and values["min"] > 0 for values in found.values())
