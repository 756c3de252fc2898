"""Credit assignment: the reward, advantage and return of each action token of a step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from apprentice.config.schema import TrainConfig
from apprentice.learning.advantages import final_rewards, gae, scale, whiten
from apprentice.learning.graph import group_advantages
from apprentice.learning.minibatches import group_indices
from apprentice.learning.objectives import KL_ESTIMATORS
from apprentice.learning.packing import action_counts
from apprentice.records import Trajectory


def token_rewards(config: TrainConfig, trajectories: Sequence[Trajectory], logprobs: Tensor | None, reference: Tensor | None) -> Tensor:
    """The reward [A] of each action token: that of the trajectory at its last token, minus the KL penalty of `kl_in`.

    Args:
        config: the `train` section.
        trajectories: those of the step.
        logprobs: [A] log-probabilities of the policy; only needed for `kl_in: reward`.
        reference: [A] log-probabilities of the reference; None without a KL penalty.
    """
    counts = action_counts(trajectories)
    rewards = torch.cat([final_rewards(trajectory.reward, count) for trajectory, count in zip(trajectories, counts, strict=True)])
    if reference is None or config.kl_in == "loss":
        return rewards
    return rewards - config.kl_coefficient * KL_ESTIMATORS[config.kl_estimator](logprobs, reference)


def advantages_and_returns(config: TrainConfig, trajectories: Sequence[Trajectory], rewards: Tensor, values: Tensor | None) -> tuple[Tensor, Tensor]:
    """Advantages [A] and returns [A] by the estimator of `train.advantage`; only `gae` needs the values [A]."""
    if config.advantage == "gae":
        return against_critic(trajectories, rewards, values, config.gamma, config.gae_lambda)
    return _against_group(config, trajectories, rewards)


def against_critic(trajectories: Sequence[Trajectory], rewards: Tensor, values: Tensor, gamma: float, gae_lambda: float) -> tuple[Tensor, Tensor]:
    """Advantages [A] and returns [A] by generalised advantage estimation within each trajectory."""
    counts = action_counts(trajectories)
    parts = [gae(*attempt, gamma, gae_lambda) for attempt in zip(rewards.split(counts), values.split(counts), strict=True)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _against_group(config: TrainConfig, trajectories: Sequence[Trajectory], rewards: Tensor) -> tuple[Tensor, Tensor]:
    """Advantages [A] of each attempt's total reward relative to its group, and returns [A]."""
    counts = action_counts(trajectories)
    totals = torch.stack([part.sum() for part in rewards.split(counts)])
    advantages = list(torch.zeros_like(rewards).split(counts))
    for members in group_indices(trajectories).values():
        found = group_advantages([trajectories[index] for index in members], totals[members], config)
        for index, part in zip(members, found.split([counts[index] for index in members]), strict=True):
            advantages[index] = part
    return torch.cat(advantages), totals.repeat_interleave(torch.tensor(counts))


def normalise(config: TrainConfig, advantages: Tensor) -> Tensor:
    """Whitens the advantages of `gae`. Group advantages are only scaled, so that an advantage of 0 stays 0."""
    if not config.normalize_advantages:
        return advantages
    return whiten(advantages) if config.advantage == "gae" else scale(advantages)
