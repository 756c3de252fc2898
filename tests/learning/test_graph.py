"""Step-level advantages: examples worked out by hand, and invariants of every group."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apprentice.learning.advantages import group_normalised, leave_one_out
from apprentice.learning.graph import GROUP_ADVANTAGES, Step, actions_of, gigpo, group_advantages, salt, steps_of
from tests.learning.toys import train_config, trajectory

# Three attempts at one task from state s: two take a and part ways at t, the third takes b.
#   1: s -a-> t -c-> end, reward 1      2: s -a-> t -d-> end, reward 0      3: s -b-> u -c-> end, reward 0
ATTEMPTS = [
    [Step("s", "a", "t"), Step("t", "c", None)],
    [Step("s", "a", "t"), Step("t", "d", None)],
    [Step("s", "b", "u"), Step("u", "c", None)],
]
REWARDS = torch.tensor([1.0, 0.0, 0.0])


def made(tokens: list[int], mask: list[int], reward: float = 0.0):
    return replace(trajectory(0), token_ids=tuple(tokens), action_mask=tuple(mask), logprobs=(0.0,) * len(mask), reward=reward)


def lists(advantages) -> list[list[float]]:
    return [pytest.approx(part.tolist(), abs=1e-5) for part in advantages]


def test_an_attempt_is_cut_where_the_policy_begins_and_ends_to_write():
    attempt = made([1, 2, 7, 8, 3, 9, 4], [0, 0, 1, 1, 0, 1, 0])
    assert actions_of(attempt) == [slice(2, 4), slice(5, 6)]
    first, second = steps_of(attempt, history=5)
    assert (first.state, first.action, first.next_state) == (((), (1, 2)), (7, 8), second.state)
    assert second == Step(((((1, 2), (7, 8)),), (3,)), (9,), None)


def test_without_history_a_state_is_what_was_said_last():
    one, other = (steps_of(made([1, action, 3, 9], [0, 1, 0, 1]), history=0) for action in (7, 8))
    assert one[1] == other[1] and one[0] != other[0]
    assert steps_of(made([1, 7, 3, 9], [0, 1, 0, 1]), 1)[1] != steps_of(made([1, 8, 3, 9], [0, 1, 0, 1]), 1)[1]


def test_the_first_token_belongs_to_no_action():
    assert actions_of(made([1, 2, 3], [1, 1, 0])) == [slice(1, 2)]


def test_salt_shares_equal_steps_and_leaves_the_others():
    # leave-one-out: 1, -1/2, -1/2; the step that attempts 1 and 2 share gets (1 - 1/2) / 2
    advantages = salt(leave_one_out(REWARDS), ATTEMPTS)
    assert [part.tolist() for part in advantages] == lists([torch.tensor([0.25, 1.0]), torch.tensor([0.25, -0.5]), torch.tensor([-0.5, -0.5])])


def test_gigpo_compares_the_steps_from_one_state():
    # gamma 1: returns from s are 1, 0, 0, from t 1, 0, from u only 0; both levels are normalised as in GRPO.
    attempt = group_normalised(REWARDS)
    at_t = group_normalised(torch.tensor([1.0, 0.0]))
    expected = [[attempt[0] * 1.5, attempt[0] + 0.5 * at_t[0]], [attempt[1] * 1.5, attempt[1] + 0.5 * at_t[1]], [attempt[2] * 1.5, attempt[2]]]
    advantages = gigpo(REWARDS, ATTEMPTS, gamma=1.0, weight=0.5)
    assert [part.tolist() for part in advantages] == lists([torch.tensor(part) for part in expected])


def test_gigpo_discounts_by_the_steps_that_are_left():
    # one loop: attempt 1 passes s twice; returns from s are gamma, 1 and, of attempt 2, 0
    attempts = [[Step("s", "a", "s"), Step("s", "b", None)], [Step("s", "c", None)]]
    advantages = gigpo(torch.tensor([1.0, 0.0]), attempts, gamma=0.5, weight=1.0)
    step, whole = group_normalised(torch.tensor([0.5, 1.0, 0.0])), group_normalised(torch.tensor([1.0, 0.0]))
    assert [part.tolist() for part in advantages] == lists([whole[0] + step[:2], whole[1] + step[2:]])


@st.composite
def groups(draw):
    """Attempts that walk over so few states that they meet."""
    attempts = []
    for _ in range(draw(st.integers(1, 5))):
        path = draw(st.lists(st.integers(0, 3), min_size=1, max_size=5))
        attempts.append([Step(state, draw(st.integers(0, 1)), following) for state, following in zip(path, [*path[1:], None], strict=True)])
    return attempts


@given(groups(), st.sampled_from(sorted(GROUP_ADVANTAGES)))
def test_a_group_of_equal_rewards_has_no_advantage(attempts, name):
    advantages = GROUP_ADVANTAGES[name](torch.full((len(attempts),), 0.5), attempts, train_config(advantage=name))
    assert all(part.abs().max() < 1e-5 for part in advantages)


@given(groups(), st.sampled_from(sorted(GROUP_ADVANTAGES)), st.randoms(use_true_random=False))
def test_the_order_of_the_attempts_changes_nothing(attempts, name, random):
    rewards = torch.tensor([float(number % 2) for number in range(len(attempts))])
    order = list(range(len(attempts)))
    random.shuffle(order)
    config = train_config(advantage=name, gamma=0.9)
    straight = GROUP_ADVANTAGES[name](rewards, attempts, config)
    shuffled = GROUP_ADVANTAGES[name](rewards[order], [attempts[index] for index in order], config)
    for place, index in enumerate(order):
        np.testing.assert_allclose(shuffled[place], straight[index], atol=1e-5)


@given(groups())
def test_where_no_step_is_shared_salt_is_the_attempts_advantage(attempts):
    apart = [[step._replace(action=(number, place)) for place, step in enumerate(steps)] for number, steps in enumerate(attempts)]
    rewards = torch.arange(float(len(attempts)))
    for part, whole in zip(salt(leave_one_out(rewards), apart), leave_one_out(rewards), strict=True):
        assert torch.allclose(part, whole)


def test_the_tokens_of_an_action_share_its_advantage():
    one, other = made([1, 7, 7, 3, 9, 9], [0, 1, 1, 0, 1, 1], 1.0), made([1, 7, 7, 3, 8], [0, 1, 1, 0, 1], 0.0)
    rewards = torch.tensor([1.0, 0.0])
    assert group_advantages([one, other], rewards, train_config(advantage="salt_rloo")).tolist() == pytest.approx([0, 0, 1, 1, 0, 0, -1])
    assert group_advantages([one, other], rewards, train_config(advantage="rloo")).tolist() == [1, 1, 1, 1, -1, -1, -1]
