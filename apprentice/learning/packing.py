"""Trajectories as micro-batches without padding: one row of concatenated prefix trees that cannot see each other.

`sharing.py` merges sequences that begin alike into trees, `attention.py` keeps the trees apart; positions start again at 0 in each.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apprentice.learning.sharing import PrefixTree, Sight, prefix_trees
from apprentice.records import Trajectory


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch: T tokens of several trees of sequences, and A action tokens that are predicted from them."""

    token_ids: Tensor
    """[1, T]"""
    position_ids: Tensor
    """[1, T], from 0 in each tree."""
    lengths: tuple[int, ...]
    """Tokens of each tree, in row order."""
    sights: tuple[Sight, ...]
    """Of each tree, what its tokens attend to."""
    predictors: Tensor
    """[A] index into the row of the token that predicts each action token: its predecessor, which several may share."""
    targets: Tensor
    """[A] the action tokens' ids."""
    actions: Tensor
    """[A] where each action token's figures lie in a tensor over the action tokens of all trajectories, see `action_offsets`."""

    def to(self, device: torch.device | str) -> "PackedBatch":
        """The same batch, on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("token_ids", "position_ids", "predictors", "targets")}
        return replace(self, **moved, sights=tuple(sight and tuple(branch.to(device) for branch in sight) for sight in self.sights))


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


def pack(trajectories: Sequence[Trajectory], token_budget: int, chosen: Sequence[int] | None = None, *, rows: bool = False) -> list[PackedBatch]:
    """Packs trajectories into micro-batches of at most `token_budget` tokens, about equally full.

    Args:
        trajectories: all of them; their order fixes `PackedBatch.actions`.
        token_budget: tokens a micro-batch, those that sequences share counted once; a larger tree gets one of its own.
        chosen: indices of the trajectories to pack; None packs all.
        rows: for a model that takes each sequence as a row (`forward.takes_rows`): none are merged, and padding counts as tokens.
    """
    offsets = action_offsets(trajectories)
    chosen = [index for index in (range(len(trajectories)) if chosen is None else chosen) if offsets[index + 1] > offsets[index]]
    trees = prefix_trees({index: _needed(trajectories[index]) for index in chosen}, 0 if rows else token_budget)
    return [_packed(trajectories, offsets, members) for members in (_of_a_length if rows else _balanced)(trees, token_budget)]


def _needed(trajectory: Trajectory) -> Sequence[int]:
    """Its tokens up to the one that predicts the last action token: nothing is predicted from later ones."""
    return trajectory.token_ids[: action_positions(trajectory)[-1]]


def dealt(batches: Sequence[PackedBatch], rank: int, ranks: int) -> list[PackedBatch]:
    """A rank's share of the micro-batches. All ranks get as many, since they reduce gradients together: where that is not even, an idle one."""
    idle = [_idle(batches[0])] * (-len(batches) % ranks) if batches else []
    return [*batches, *idle][rank::ranks]


def _idle(batch: PackedBatch) -> PackedBatch:
    """One token, from which nothing is predicted."""
    nothing = torch.zeros(0, dtype=torch.long)
    one = {"token_ids": batch.token_ids[:, :1], "position_ids": batch.position_ids[:, :1], "lengths": (1,), "sights": (None,)}
    return replace(batch, **one, predictors=nothing, targets=nothing, actions=nothing)


def _balanced(trees: list[PrefixTree], token_budget: int) -> list[list[PrefixTree]]:
    """Longest first, each into the emptiest bin; in as few bins as that allows."""
    ordered = sorted(trees, key=lambda tree: (-len(tree), min(tree.paths)))
    for count in itertools.count(math.ceil(sum(map(len, trees)) / token_budget)):
        bins: list[list[PrefixTree]] = [[] for _ in range(count)]
        loads = [(0, position) for position in range(count)]  # a heap
        for tree in ordered:
            load, position = loads[0]
            if load and load + len(tree) > token_budget:
                break
            heapq.heapreplace(loads, (load + len(tree), position))
            bins[position].append(tree)
        else:
            return [sorted(members, key=lambda tree: min(tree.paths)) for members in bins if members]


def _of_a_length(trees: list[PrefixTree], token_budget: int) -> list[list[PrefixTree]]:
    """Longest first, as many in a bin as fit when padded to the longest."""
    bins: list[list[PrefixTree]] = []
    for tree in sorted(trees, key=lambda tree: (-len(tree), min(tree.paths))):
        if not bins or len(bins[-1][0]) * (len(bins[-1]) + 1) > token_budget:
            bins.append([])
        bins[-1].append(tree)
    return bins


def _packed(trajectories: Sequence[Trajectory], offsets: list[int], trees: list[PrefixTree]) -> PackedBatch:
    token_ids: list[int] = []
    positions: list[int] = []
    predictors: list[int] = []
    targets: list[int] = []
    actions: list[int] = []
    for tree in trees:
        start = len(token_ids)
        for index in sorted(tree.paths):
            trajectory, path = trajectories[index], tree.paths[index]
            sampled = action_positions(trajectory)
            predictors += [start + path[position - 1] for position in sampled]
            targets += [trajectory.token_ids[position] for position in sampled]
            actions += range(offsets[index], offsets[index + 1])
        token_ids += tree.token_ids
        positions += tree.depths
    return PackedBatch(
        token_ids=torch.tensor([token_ids]),
        position_ids=torch.tensor([positions]),
        lengths=tuple(map(len, trees)),
        sights=tuple(tree.sight() for tree in trees),
        predictors=torch.tensor(predictors, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        actions=torch.tensor(actions, dtype=torch.long),
    )
