"""Advantage estimators: against a critic (GAE), or against the other attempts of a group."""

from collections.abc import Callable

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the action tokens of one trajectory.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lambda A_{t+1}, with V = A = 0 after the last token
    (Schulman et al. 2015, "High-dimensional continuous control using generalized advantage estimation", eq. 16).
    Time counts action tokens only. Tokens written by the environment are part of the transition, so the value after the
    last token of a turn is the value at the first token of the next turn.

    Args:
        rewards: [n] reward given at each action token.
        values: [n] value predicted before each action token.
        gamma: discount per action token.
        gae_lambda: 1 gives the Monte-Carlo return minus the value, 0 the one-step temporal difference.

    Returns:
        advantages [n] and returns [n], the regression targets of the critic (advantages + values).
    """
    advantages = torch.zeros_like(values)
    next_value, next_advantage = 0.0, 0.0
    for t in reversed(range(len(values))):
        delta = rewards[t] + gamma * next_value - values[t]
        next_advantage = delta + gamma * gae_lambda * next_advantage
        next_value = values[t]
        advantages[t] = next_advantage
    return advantages, advantages + values


def final_rewards(reward: float, tokens: int) -> Tensor:
    """The rewards [tokens] of a trajectory that receives a single reward, at its last action token."""
    rewards = torch.zeros(tokens)
    if tokens:
        rewards[-1] = reward
    return rewards


def whiten(advantages: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shifts and scales a batch to mean 0 and standard deviation 1. A batch whose advantages are all equal becomes 0.

    Args:
        advantages: [n].
        epsilon: added to the variance.
    """
    centred = advantages - advantages.mean()
    return centred * torch.rsqrt((centred**2).mean() + epsilon)


def scale(advantages: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Scales a batch to a root mean square of 1 without a shift, so that signs are kept and zeros stay exactly 0.

    This normalises group advantages, which are already centred on their group. A shift by the mean over tokens would
    reward groups that only failed wherever failures are longer than successes. `scale_rewards="batch"` of TRL has the
    same purpose.

    Args:
        advantages: [n].
        epsilon: added to the mean square.
    """
    return advantages * torch.rsqrt((advantages**2).mean() + epsilon)


def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO: each attempt's reward minus the mean reward of the others (Kool et al. 2019; Ahmadian et al. 2024). A
    single attempt gets 0.

    Args:
        rewards: [n] rewards of one group's attempts.
    """
    count = len(rewards)
    return group_centred(rewards) * count / (count - 1) if count > 1 else torch.zeros_like(rewards)


def group_centred(rewards: Tensor) -> Tensor:
    """Dr. GRPO: each attempt's reward minus the group mean (Liu et al. 2025). It is exactly 0, without rounding, where
    all rewards are equal."""
    return rewards - rewards.mean() if (rewards != rewards[0]).any() else torch.zeros_like(rewards)


def group_normalised(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """GRPO: the centred reward divided by the group's sample standard deviation plus `epsilon` (Shao et al. 2024). A
    single attempt gets 0."""
    return group_centred(rewards) / (rewards.std() + epsilon) if len(rewards) > 1 else torch.zeros_like(rewards)


GROUP_BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"rloo": leave_one_out, "grpo": group_normalised, "dr_grpo": group_centred}
"""Estimators that map the rewards [n] of a group to one advantage per attempt, by their name in `train.advantage`."""
