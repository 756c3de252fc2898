"""How much better than expected what was sampled turned out: against a critic (GAE), or against the other attempts of its group."""

from collections.abc import Callable

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the action tokens of one trajectory.

    delta_t = r_t + gamma V_{t+1} - V_t and A_t = delta_t + gamma lam A_{t+1}, with V = A = 0 past the last token
    (Schulman et al. 2015, "High-dimensional continuous control using generalized advantage estimation", eq. 16).
    Time counts action tokens only: what the environment wrote in between is part of the transition, so the value that
    follows a turn's last token is that of the next turn's first.

    Args:
        rewards: [n] reward given at each action token.
        values: [n] value predicted before each action token.
        gamma: discount per action token.
        lam: 1 is the Monte-Carlo return minus the value, 0 the one-step temporal difference.

    Returns:
        advantages [n] and returns [n] (advantages + values: what the critic should have said).
    """
    advantages = torch.zeros_like(values)
    following_value, following_advantage = 0.0, 0.0
    for t in reversed(range(len(values))):
        delta = rewards[t] + gamma * following_value - values[t]
        following_advantage = delta + gamma * lam * following_advantage
        following_value = values[t]
        advantages[t] = following_advantage
    return advantages, advantages + values


def final_rewards(reward: float, tokens: int) -> Tensor:
    """The rewards [tokens] of a trajectory that is rewarded once, at its last action token."""
    rewards = torch.zeros(tokens)
    if tokens:
        rewards[-1] = reward
    return rewards


def whiten(advantages: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Shift and scale the whole batch to mean 0 and standard deviation 1 over `mask`; 0 elsewhere, whatever is there.

    A batch whose advantages are all equal carries no signal and becomes 0.

    Args:
        advantages: [n].
        mask: [n] 1 where a token counts.
        epsilon: added to the variance.
    """
    advantages = torch.where(mask.bool(), advantages, torch.zeros_like(advantages))
    mask = mask.to(advantages.dtype)
    count = mask.sum().clamp(min=1)
    mean = advantages.sum() / count
    variance = ((advantages - mean) ** 2 * mask).sum() / count
    return (advantages - mean) * torch.rsqrt(variance + epsilon) * mask


def scaled(advantages: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Scale the whole batch to a root mean square of 1 without a shift: signs stay, and what is 0 stays exactly 0.

    Group advantages are normalised this way. They are centred on their group already; a shift by the mean over tokens would
    praise groups that only failed wherever failures are longer than successes. TRL's `scale_rewards="batch"` has the same aim.

    Args:
        advantages: [n].
        epsilon: added to the mean square.
    """
    return advantages * torch.rsqrt((advantages**2).mean() + epsilon)


def leave_one_out(rewards: Tensor) -> Tensor:
    """RLOO: each attempt's reward minus the mean of the others' (Kool et al. 2019; Ahmadian et al. 2024). Unbiased; 0 for a lone attempt.

    Args:
        rewards: [n] of the attempts of one group.
    """
    count = len(rewards)
    return group_centred(rewards) * count / (count - 1) if count > 1 else torch.zeros_like(rewards)


def group_centred(rewards: Tensor) -> Tensor:
    """Dr. GRPO: each attempt's reward minus the group's mean (Liu et al. 2025); exactly 0 where all rewards are equal, without a rounding error."""
    return rewards - rewards.mean() if (rewards != rewards[0]).any() else torch.zeros_like(rewards)


def group_normalised(rewards: Tensor, epsilon: float = 1e-4) -> Tensor:
    """GRPO: the centred reward over the group's standard deviation (Shao et al. 2024), the n - 1 form, plus `epsilon`; 0 for a lone attempt."""
    return group_centred(rewards) / (rewards.std() + epsilon) if len(rewards) > 1 else torch.zeros_like(rewards)


GROUP_BASELINES: dict[str, Callable[[Tensor], Tensor]] = {"rloo": leave_one_out, "grpo": group_normalised, "dr_grpo": group_centred}
"""What `train.advantage` names besides `gae`: rewards [n] of a group -> advantages [n], the same for every token of an attempt."""
