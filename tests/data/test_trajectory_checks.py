"""The checks of trajectories: each problem has its message."""

from dataclasses import replace

import pytest

from apprentice.data.trajectories import check_trajectories, check_trajectory
from apprentice.records import Trajectory, Turn

SOUND = Trajectory(
    id="e1",
    task_id="t1",
    group="g1",
    token_ids=(1, 2, 3, 4, 5, 6, 7),
    action_mask=(0, 1, 1, 0, 0, 1, 1),
    logprobs=(0.0, -0.5, -0.1, 0.0, 0.0, -2.0, 0.0),
    turns=(Turn(1, 3, "<search>x</search>", "found", "search", 0), Turn(5, 7, "<answer>y</answer>", "", "answer", 1)),
    reward=1.0,
    outcome="success",
    answer="y",
    seed=0,
    temperature=1.0,
)


def turned(first=None, second=None):
    return replace(SOUND, turns=(replace(SOUND.turns[0], **(first or {})), replace(SOUND.turns[1], **(second or {}))))


def at(values, place, value):
    return (*values[:place], value, *values[place + 1 :])


def test_a_valid_trajectory_has_no_problems():
    assert check_trajectory(SOUND) == []


def test_a_fault_without_turns_or_reward_is_valid():
    fault = replace(SOUND, outcome="fault", reward=0.0, turns=(), action_mask=(0,) * 7, logprobs=(0.0,) * 7, error="server gone")
    assert check_trajectory(fault) == []


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (replace(SOUND, action_mask=(0, 1)), "not aligned"),
        (replace(SOUND, logprobs=SOUND.logprobs[:-1]), "not aligned"),
        (replace(SOUND, logprobs=at(SOUND.logprobs, 1, float("nan"))), "not finite at token 1"),
        (replace(SOUND, logprobs=at(SOUND.logprobs, 1, float("-inf"))), "not finite at token 1"),
        (replace(SOUND, logprobs=at(SOUND.logprobs, 2, 0.1)), "above 0 at token 2"),
        (replace(SOUND, logprobs=at(SOUND.logprobs, 0, -0.1)), "not 0 where the mask is 0"),
        (replace(SOUND, action_mask=at(SOUND.action_mask, 1, 2)), "neither 0 nor 1"),
        (replace(SOUND, action_mask=at(SOUND.action_mask, 3, 1)), "disagrees with the turns at token 3"),
        (turned(second={"end": 9}), "exceeds the 7 tokens"),
        (turned(second={"start": 2}), "overlaps"),
        (turned(first={"start": -1}), "exceeds the 7 tokens"),
        (turned(first={"end": 1}), "the action is empty"),
        (turned(first={"version": 3}), "version 1 after version 3"),
        (replace(SOUND, outcome="fault"), "a fault has the reward 1.0"),
        (replace(SOUND, reward=float("nan")), "reward: nan is not finite"),
        (replace(SOUND, turns=(), action_mask=(0,) * 7, logprobs=(0.0,) * 7), "without a turn"),
        (replace(SOUND, outcome="won"), "'won' is not one of"),
        (replace(SOUND, task_id=""), "task_id: is empty"),
        (replace(SOUND, token_ids=at(SOUND.token_ids, 4, -1)), "negative at token 4"),
    ],
)
def test_each_problem_is_reported(broken, said):
    assert any(said in problem for problem in check_trajectory(broken))


def test_an_id_that_occurs_twice_is_a_problem():
    assert check_trajectories([SOUND, SOUND, replace(SOUND, id="e2")]) == {"e1": ["id: 2 trajectories share it"]}


def test_only_trajectories_with_problems_are_reported():
    assert list(check_trajectories([SOUND, replace(SOUND, id="bad", reward=float("inf"))])) == ["bad"]
