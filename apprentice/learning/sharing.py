"""Merges sequences with a common prefix into trees, so that shared tokens are computed once, forward and backward.

The attempts of a group share their prompt, and often their first turns. In a tree, a token attends to itself and its
ancestors, and its position is its depth. Each sequence therefore sees along its path what it would see on its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MIN_SHARED = 16
"""Tokens of a common prefix from which a sequence joins a tree; a shorter one costs more attention than it saves."""


@dataclass(frozen=True)
class Branch:
    """A run of tokens in a tree that attend to the same ancestors, and causally to each other."""

    ancestors: Tensor
    """[a] positions of the ancestors in the tree."""
    first: int
    end: int

    def to(self, device: torch.device | str) -> "Branch":
        """Copies the branch to a device."""
        return Branch(self.ancestors.to(device), self.first, self.end)


Branches = tuple[Branch, ...] | None
"""The branches of a tree, which determine what its tokens attend to; None is a single causal sequence."""


@dataclass
class PrefixTree:
    """Sequences merged along their common prefixes. A parent precedes its children."""

    token_ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    """Number of ancestors of each token."""
    paths: dict[int, list[int]] = field(default_factory=dict)
    """Positions in `token_ids` of the tokens of each sequence, by the sequence's number."""
    runs: list[tuple[list[int], int, int]] = field(default_factory=list)
    """Ancestors, first position and end of each run of tokens that was added at once."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def add(self, number: int, sequence: Sequence[int], ancestors: list[int]) -> None:
        """Adds a sequence whose first tokens are already in the tree, at the positions `ancestors`."""
        first, end = len(self), len(self) + len(sequence) - len(ancestors)
        self.token_ids += sequence[len(ancestors) :]
        self.depths += range(len(ancestors), len(sequence))
        self.paths[number] = [*ancestors, *range(first, end)]
        if end > first:
            self.runs.append((ancestors, first, end))

    def branches(self) -> Branches:
        """The runs of the tree as branches."""
        if len(self.runs) == 1:
            return None
        return tuple(Branch(torch.tensor(ancestors, dtype=torch.long), first, end) for ancestors, first, end in self.runs)


def prefix_trees(sequences: Mapping[int, Sequence[int]], max_tokens: int) -> list[PrefixTree]:
    """Merges sequences that share a prefix of at least `MIN_SHARED` tokens; each of the others is a tree of its own.

    Args:
        sequences: token ids by number, none of them empty.
        max_tokens: maximum size of a tree with several sequences.

    Returns:
        Trees in an order that depends on the sequences alone. In lexicographic order, the longest prefix that a
        sequence shares with any earlier one is the prefix that it shares with its predecessor.
    """
    trees: list[PrefixTree] = []
    previous: Sequence[int] = ()
    path: list[int] = []
    for number in sorted(sequences, key=lambda number: (tuple(sequences[number]), number)):
        sequence = sequences[number]
        shared = _common_prefix(previous, sequence)
        if not trees or shared < min(MIN_SHARED, len(sequence)) or len(trees[-1]) + len(sequence) - shared > max_tokens:
            trees.append(PrefixTree())
            shared = 0
        trees[-1].add(number, sequence, path[:shared])
        previous, path = sequence, trees[-1].paths[number]
    return trees


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    """Length of the common prefix of two sequences."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return index
    return min(len(one), len(other))
