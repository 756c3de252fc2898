"""Packs trajectories into micro-batches without padding, as rows of prefix trees that do not attend to each other.

`sharing.py` merges sequences with a common prefix into trees, and `attention.py` keeps the trees apart. Positions start
at 0 in each tree.
"""

import heapq
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from apprentice.learning.sharing import Branches, PrefixTree, prefix_trees
from apprentice.records import Trajectory


@dataclass(frozen=True)
class PackedBatch:
    """A micro-batch: T tokens of several prefix trees, and A action tokens that are predicted from them."""

    token_ids: Tensor
    """[1, T]"""
    position_ids: Tensor
    """[1, T], from 0 in each tree."""
    lengths: tuple[int, ...]
    """Tokens of each tree, in row order."""
    branches: tuple[Branches, ...]
    """The branches of each tree; None is a single causal sequence."""
    predictors: Tensor
    """[A] index in the row of the token that predicts each action token: its predecessor, which several action tokens
    may share."""
    targets: Tensor
    """[A] ids of the action tokens."""
    actions: Tensor
    """[A] index of each action token in a tensor over the action tokens of all trajectories (see `action_offsets`)."""

    def to(self, device: torch.device | str) -> "PackedBatch":
        """Copies the batch to a device."""
        moved = {name: getattr(self, name).to(device) for name in ("token_ids", "position_ids", "predictors", "targets")}
        return replace(self, **moved, branches=tuple(tree and tuple(branch.to(device) for branch in tree) for tree in self.branches))


def action_positions(trajectory: Trajectory) -> list[int]:
    """Indices of the sampled tokens, without the first token of the sequence, which has no predecessor."""
    return [index for index, sampled in enumerate(trajectory.action_mask) if sampled and index > 0]


def action_offsets(trajectories: Sequence[Trajectory]) -> list[int]:
    """Start of each trajectory's action tokens in a tensor over those of all trajectories, then the total count."""
    return [0, *itertools.accumulate(action_counts(trajectories))]


def action_counts(trajectories: Sequence[Trajectory]) -> list[int]:
    """Number of action tokens of each trajectory."""
    return [len(action_positions(trajectory)) for trajectory in trajectories]


def action_logprobs(trajectories: Sequence[Trajectory]) -> Tensor:
    """The sampler's log-probabilities [A] of the action tokens of all trajectories."""
    return torch.tensor([trajectory.logprobs[index] for trajectory in trajectories for index in action_positions(trajectory)], dtype=torch.float32)


def pack(trajectories: Sequence[Trajectory], token_budget: int, chosen: Sequence[int] | None = None, *, rows: bool = False) -> list[PackedBatch]:
    """Packs trajectories into about equally full micro-batches of at most `token_budget` tokens.

    Args:
        trajectories: all trajectories; their order determines `PackedBatch.actions`.
        token_budget: tokens per micro-batch, where shared tokens count once. A larger tree gets a micro-batch of its
            own.
        chosen: indices of the trajectories to pack; None packs all.
        rows: for a model that takes each sequence as a row (`forward.takes_rows`): no sequences are merged, and padding
            counts as tokens.
    """
    offsets = action_offsets(trajectories)
    chosen = [index for index in (range(len(trajectories)) if chosen is None else chosen) if offsets[index + 1] > offsets[index]]
    trees = prefix_trees({index: _inputs(trajectories[index]) for index in chosen}, 0 if rows else token_budget)
    return [_packed(trajectories, offsets, members) for members in (_by_length if rows else _balanced)(trees, token_budget)]


def _inputs(trajectory: Trajectory) -> Sequence[int]:
    """The tokens up to the one that predicts the last action token; nothing is predicted from later ones."""
    return trajectory.token_ids[: action_positions(trajectory)[-1]]


def rank_share(batches: Sequence[PackedBatch], rank: int, ranks: int) -> list[PackedBatch]:
    """A rank's share of the micro-batches. All ranks get the same number, if necessary with an idle one."""
    idle = [_idle(batches[0])] * (-len(batches) % ranks) if batches else []
    return [*batches, *idle][rank::ranks]


def _idle(batch: PackedBatch) -> PackedBatch:
    """A micro-batch of one token, from which nothing is predicted."""
    nothing = torch.zeros(0, dtype=torch.long)
    one = {"token_ids": batch.token_ids[:, :1], "position_ids": batch.position_ids[:, :1], "lengths": (1,), "branches": (None,)}
    return replace(batch, **one, predictors=nothing, targets=nothing, actions=nothing)


def _balanced(trees: list[PrefixTree], token_budget: int) -> list[list[PrefixTree]]:
    """Puts each tree, longest first, into the emptiest bin, with the smallest number of bins that works."""
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


def _by_length(trees: list[PrefixTree], token_budget: int) -> list[list[PrefixTree]]:
    """Fills bins with trees, longest first, as many as fit when padded to the longest of the bin."""
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
        branches=tuple(tree.branches() for tree in trees),
        predictors=torch.tensor(predictors, dtype=torch.long),
        targets=torch.tensor(targets, dtype=torch.long),
        actions=torch.tensor(actions, dtype=torch.long),
    )
