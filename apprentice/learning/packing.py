"""Trajectories as micro-batches without padding: one row of concatenated sequences that cannot see each other.

`attention.py` keeps the sequences apart; positions start again at 0 in each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from apprentice.records import Trajectory


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch: T tokens of several sequences, A of them sampled by the policy."""

    token_ids: Tensor
    """[1, T]"""
    position_ids: Tensor
    """[1, T], from 0 in each sequence."""
    lengths: tuple[int, ...]
    """Tokens of each sequence, in row order."""
    predictors: Tensor
    """[A] index into the row of the token that predicts each action token: its predecessor."""
    targets: Tensor
    """[A] the action tokens' ids."""
    actions: Tensor
    """[A] where each action token's figures lie in a tensor over the action tokens of all trajectories, see `action_offsets`."""

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The same batch, on a device."""
        moved = (tensor.to(device) for tensor in (self.token_ids, self.position_ids, self.predictors, self.targets))
        token_ids, position_ids, predictors, targets = moved
        return PackedBatch(token_ids, position_ids, self.lengths, predictors, targets, self.actions)


def action_positions(trajectory: Trajectory) -> list[int]:
    """Indices of the tokens the policy sampled. A sequence's first token has nothing to be predicted from and is never one."""
    return [index for index, sampled in enumerate(trajectory.action_mask) if sampled and index > 0]


def action_offsets(trajectories: Sequence[Trajectory]) -> list[int]:
    """Where each trajectory's action tokens begin in a tensor over those of all; one more entry for the end."""
    offsets = [0]
    for trajectory in trajectories:
        offsets.append(offsets[-1] + len(action_positions(trajectory)))
    return offsets


def action_logprobs(trajectories: Sequence[Trajectory]) -> Tensor:
    """The sampler's log-probabilities [A] of the action tokens of all trajectories."""
    return torch.tensor([trajectory.logprobs[index] for trajectory in trajectories for index in action_positions(trajectory)], dtype=torch.float32)


def pack(trajectories: Sequence[Trajectory], token_budget: int, chosen: Sequence[int] | None = None) -> list[PackedBatch]:
    """Packs trajectories into micro-batches of at most `token_budget` tokens, about equally full.

    Args:
        trajectories: all of them; their order fixes `PackedBatch.actions`.
        token_budget: tokens a micro-batch; a longer sequence gets one of its own.
        chosen: indices of the trajectories to pack; None packs all.
    """
    offsets = action_offsets(trajectories)
    chosen = [index for index in (range(len(trajectories)) if chosen is None else chosen) if offsets[index + 1] > offsets[index]]
    lengths = {index: len(trajectories[index].token_ids) for index in chosen}
    return [_packed(trajectories, offsets, members) for members in _balanced(lengths, token_budget)]


def _balanced(lengths: dict[int, int], token_budget: int) -> list[list[int]]:
    """Longest first, each into the emptiest bin with room; with as few bins as that allows."""
    if not lengths:
        return []
    order = sorted(lengths, key=lambda index: (-lengths[index], index))
    bins: list[list[int]] = [[] for _ in range(math.ceil(sum(lengths.values()) / token_budget))]
    loads = [0] * len(bins)
    for index in order:
        emptiest = min(range(len(bins)), key=lambda position: (loads[position], position))
        if bins[emptiest] and loads[emptiest] + lengths[index] > token_budget:
            emptiest = len(bins)
            bins.append([])
            loads.append(0)
        bins[emptiest].append(index)
        loads[emptiest] += lengths[index]
    return [sorted(members) for members in bins if members]


def _packed(trajectories: Sequence[Trajectory], offsets: list[int], members: list[int]) -> PackedBatch:
    token_ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    actions: list[int] = []
    for index in members:
        trajectory, start = trajectories[index], len(token_ids)
        sampled = action_positions(trajectory)
        predictors += [start + position - 1 for position in sampled]
        targets += [trajectory.token_ids[position] for position in sampled]
        actions += range(offsets[index], offsets[index + 1])
        token_ids += trajectory.token_ids
        positions += range(len(trajectory.token_ids))
    return PackedBatch(
        token_ids=torch.tensor([token_ids]),
        position_ids=torch.tensor([positions]),
        lengths=tuple(len(trajectories[index].token_ids) for index in members),
        predictors=torch.tensor(predictors, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        actions=torch.tensor(actions, dtype=torch.long),
    )
