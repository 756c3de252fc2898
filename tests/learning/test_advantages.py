"""Advantage estimators, compared with NumPy and with examples worked out by hand."""

import numpy as np
import pytest
import torch

from apprentice.learning.advantages import GROUP_BASELINES, final_rewards, gae, group_centred, group_normalised, leave_one_out, scale, whiten


def numpy_gae(rewards, values, gamma, lam):
    """The sum of eq. 16, without recursion."""
    n = len(values)
    following = np.append(values[1:], 0.0)
    deltas = rewards + gamma * following - values
    return np.array([sum((gamma * lam) ** k * deltas[t + k] for k in range(n - t)) for t in range(n)])


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.99, 0.95), (0.9, 0.0), (1.0, 0.5)])
def test_advantages_equal_the_written_out_sum(gamma, lam):
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=17), rng.normal(size=17)
    advantages, returns = gae(torch.tensor(rewards), torch.tensor(values), gamma, lam)
    expected = numpy_gae(rewards, values, gamma, lam)
    np.testing.assert_allclose(advantages, expected, atol=1e-12)
    np.testing.assert_allclose(returns, expected + values, atol=1e-12)


def test_advantages_of_a_hand_worked_example():
    # r = (0, 1), V = (0.5, 0.4), gamma = 0.5, lam = 0.5:
    # delta_1 = 1 - 0.4 = 0.6; delta_0 = 0.5 * 0.4 - 0.5 = -0.3; A_0 = -0.3 + 0.25 * 0.6 = -0.15
    advantages, returns = gae(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.4]), 0.5, 0.5)
    assert advantages.tolist() == pytest.approx([-0.15, 0.6])
    assert returns.tolist() == pytest.approx([0.35, 1.0])


def test_with_gamma_and_lambda_1_every_return_is_the_final_reward():
    _, returns = gae(final_rewards(0.7, 5), torch.randn(5), 1.0, 1.0)
    assert returns.tolist() == pytest.approx([0.7] * 5)


def test_whitening_gives_mean_0_and_standard_deviation_1():
    np.testing.assert_allclose(whiten(torch.tensor([1.0, 2.0, 3.0])), [-np.sqrt(1.5), 0, np.sqrt(1.5)], atol=1e-6)


def test_scaling_keeps_signs_and_zeros():
    advantages = torch.tensor([3.0, -1.0, 0.0, -1.0, 0.0])
    np.testing.assert_allclose(scale(advantages), advantages / np.sqrt(11 / 5), atol=1e-6)
    assert scale(torch.zeros(3)).tolist() == [0.0] * 3


def test_equal_advantages_carry_no_signal():
    assert whiten(torch.full((4,), 0.5)).abs().max() == 0


def test_leave_one_out_is_the_reward_minus_the_mean_of_the_others():
    rewards = np.random.default_rng(1).normal(size=7)
    expected = [rewards[i] - np.delete(rewards, i).mean() for i in range(7)]
    np.testing.assert_allclose(leave_one_out(torch.tensor(rewards)), expected, atol=1e-12)


def test_group_baselines_of_a_hand_worked_example():
    # Rewards (1, 0, 0, 1): mean 1/2, standard deviation sqrt(4 * 1/4 / 3) = 0.57735; a success has others with mean 1/3.
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0])
    assert group_centred(rewards).tolist() == [0.5, -0.5, -0.5, 0.5]
    assert leave_one_out(rewards).tolist() == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert group_normalised(rewards, epsilon=0.0).tolist() == pytest.approx([0.8660254, -0.8660254, -0.8660254, 0.8660254])


@pytest.mark.parametrize("name", GROUP_BASELINES)
@pytest.mark.parametrize("rewards", [[0.0, 0.0, 0.0], [1.0, 1.0], [0.3], [0.1] * 7, [0.7] * 11])
def test_equal_rewards_and_lone_attempts_give_no_advantage(name, rewards):
    assert GROUP_BASELINES[name](torch.tensor(rewards)).tolist() == [0.0] * len(rewards)
