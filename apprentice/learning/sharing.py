"""Sequences that begin alike, laid out as one tree: what they share is computed once, forward and backward, and exactly.

The attempts of a group share their prompt, and often their first turns too. In a tree a token attends to itself and to its
ancestors, and its position is its depth; so every sequence finds along its path what it would have found alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

MIN_SHARED = 16
"""Tokens that a sequence must find in a tree in order to join it; fewer cost its attention more than they spare."""


@dataclass(frozen=True)
class Branch:
    """A run of a tree's tokens that attend to the same ancestors, and causally to each other."""

    ancestors: Tensor
    """[a] where they stand in the tree."""
    first: int
    end: int

    def to(self, device: torch.device | str) -> "Branch":
        """The same branch, on a device."""
        return Branch(self.ancestors.to(device), self.first, self.end)


Sight = tuple[Branch, ...] | None
"""What the tokens of a tree attend to: its branches; None is one sequence, causal."""


@dataclass
class PrefixTree:
    """Sequences merged where they begin alike; a parent stands before its children."""

    token_ids: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    """How many ancestors each token has."""
    paths: dict[int, list[int]] = field(default_factory=dict)
    """Where each token of a sequence stands in `token_ids`, by the sequence's number."""
    branches: list[tuple[list[int], int, int]] = field(default_factory=list)
    """Ancestors, first and end of each run of tokens that was added at once."""

    def __len__(self) -> int:
        return len(self.token_ids)

    def add(self, number: int, sequence: Sequence[int], ancestors: list[int]) -> None:
        """Adds a sequence whose first tokens stand at `ancestors` already."""
        first, end = len(self), len(self) + len(sequence) - len(ancestors)
        self.token_ids += sequence[len(ancestors) :]
        self.depths += range(len(ancestors), len(sequence))
        self.paths[number] = [*ancestors, *range(first, end)]
        if end > first:
            self.branches.append((ancestors, first, end))

    def sight(self) -> Sight:
        """What each token attends to: its ancestors and itself."""
        if len(self.branches) == 1:
            return None
        return tuple(Branch(torch.tensor(ancestors, dtype=torch.long), first, end) for ancestors, first, end in self.branches)


def prefix_trees(sequences: Mapping[int, Sequence[int]], most_tokens: int) -> list[PrefixTree]:
    """Merges sequences that have enough of their beginning in common; the others become trees of their own.

    Args:
        sequences: token ids by number, none of them empty.
        most_tokens: of a tree of several sequences.

    Returns:
        Trees in an order that depends on the sequences alone. Taken in lexicographic order, a sequence shares with its predecessor
        all that it shares with any before it.
    """
    trees: list[PrefixTree] = []
    before: Sequence[int] = ()
    path: list[int] = []
    for number in sorted(sequences, key=lambda number: (tuple(sequences[number]), number)):
        sequence = sequences[number]
        shared = _common(before, sequence)
        if not trees or shared < min(MIN_SHARED, len(sequence)) or len(trees[-1]) + len(sequence) - shared > most_tokens:
            trees.append(PrefixTree())
            shared = 0
        trees[-1].add(number, sequence, path[:shared])
        before, path = sequence, trees[-1].paths[number]
    return trees


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    for index, (mine, yours) in enumerate(zip(one, other, strict=False)):
        if mine != yours:
            return index
    return min(len(one), len(other))
