"""Attention over a row of packed prefix trees for Transformers' attention interface, without padding or a full mask.

Each tree attends to itself alone: causally if it is a single sequence, else branch by branch, each branch to its
ancestors and causally to itself. A GPU processes a row of plain sequences in one flash kernel. On a CPU, blocks of
queries go through plain matrix products, with a backward pass written out below for the whole row. The attention
weights of a block stay in the cache, which takes two thirds of the time of PyTorch's flash kernel. Branches of similar
length and with a similar number of ancestors share their products, as many as fit the cache.

It covers causal attention with or without a sliding window. It raises `Unsupported` for everything else that a layer
may ask for; `fidelity.py` then selects Transformers' own attention.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from apprentice.learning.sharing import Branch, Branches

NAME = "packed"
BLOCK = 128
"""Queries whose attention weights exist at the same time on a CPU."""
MAX_PAIRS = 100_000
"""Queries times keys of the branches that share a product, so that their attention weights stay in the cache."""
MIN_FILL = 0.5
"""Smallest share of a branch's own queries times keys in the size to which the product pads it."""
MAX_SAVED_KEYS = 400
"""Keys up to which attention weights are saved for the backward pass; with more, recomputing them is as fast."""
UNSUPPORTED = {"softcap": "soft-capped scores", "s_aux": "attention sinks", "position_bias": "biased scores", "cache": "cached keys"}
"""Keyword arguments of a layer that change the attention weights in a way that this attention does not compute."""


class Unsupported(Exception):
    """A layer asks for something that packed attention does not compute; the message names it."""


def register() -> None:
    """Registers the attention with Transformers as the `attn_implementation` NAME."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    lengths: tuple[int, ...] | None = None,
    branches: tuple[Branches, ...] | None = None,
    groups: tuple["BranchGroup", ...] | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Computes attention within each tree of a row.

    Args:
        module: the calling layer; unused.
        query: [1, heads, T, width].
        key: [1, key heads, T, width]; consecutive query heads share a key head.
        value: [1, key heads, T, width].
        attention_mask: must be None.
        scaling: factor of the scores; None is width ** -0.5.
        dropout: must be 0.
        sliding_window: number of tokens that a token attends to, including itself; None is no limit.
        is_causal: must be True or None.
        lengths: tokens of each tree; None is a single sequence.
        branches: branches of each tree; None is plain causal attention.
        groups: `group_branches(lengths, branches)`, computed once for all layers; unused on a GPU.

    Returns:
        [1, T, heads, width], and None for the weights.

    Raises:
        Unsupported: the layer asks for anything but causal attention.
    """
    _check_supported(query, value, attention_mask, dropout, is_causal, kwargs)
    lengths = lengths or (query.shape[2],)
    branches = branches or (None,) * len(lengths)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not query.is_cuda:
        groups = groups or group_branches(lengths, branches)
        return BlockAttention.apply(query, key, value, groups, scaling, sliding_window).transpose(1, 2), None
    if query.dtype != torch.float32 and all(tree is None for tree in branches):
        return _flash_attention(query, key, value, lengths, scaling, sliding_window), None
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), branches, strict=True)
    return torch.cat([tree_attention(*part, scaling, sliding_window) for part in parts], 2).transpose(1, 2), None


def _check_supported(query: Tensor, value: Tensor, attention_mask: Tensor | None, dropout: float, is_causal: bool | None, options: dict) -> None:
    asked = [what for name, what in UNSUPPORTED.items() if options.get(name) is not None]
    asked += ["a mask"] * (attention_mask is not None) + ["dropout"] * (dropout > 0) + ["bidirectional attention"] * (is_causal is False)
    asked += ["values of another width than keys"] * (value.shape[-1] != query.shape[-1])
    if asked:
        raise Unsupported(", ".join(asked))


def tree_attention(query: Tensor, key: Tensor, value: Tensor, branches: Branches, scaling: float, window: int | None) -> Tensor:
    """Attention within one tree, with PyTorch's own kernels."""
    grouped, length = query.shape[1] != key.shape[1], query.shape[2]
    if branches is None and (window is None or length <= window):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    parts = []
    for branch in branches or (Branch(torch.zeros(0, dtype=torch.long, device=query.device), 0, length),):
        own, ancestors = slice(branch.first, branch.end), len(branch.ancestors)
        k, v = (torch.cat((tensor.index_select(2, branch.ancestors), tensor[:, :, own]), 2) for tensor in (key, value))
        mask = torch.ones(branch.end - branch.first, k.shape[2], dtype=torch.bool, device=query.device).tril_(ancestors)
        if window is not None:
            mask.triu_(ancestors - window + 1)
        parts.append(functional.scaled_dot_product_attention(query[:, :, own], k, v, attn_mask=mask, scale=scaling, enable_gqa=grouped))
    return torch.cat(parts, 2)


def _flash_attention(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float, window: int | None) -> Tensor:
    """All sequences in one call of PyTorch's flash kernel; its window counts tokens before and after, -1 for any."""
    cu_seqlens = torch.tensor((0, *lengths), dtype=torch.int32, device=query.device).cumsum(0, dtype=torch.int32)
    q, k, v = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    window_size, grouped = (-1 if window is None else window - 1, 0), query.shape[1] != key.shape[1]
    return varlen_attn(q, k, v, cu_seqlens, cu_seqlens, max(lengths), max(lengths), scale=scaling, window_size=window_size, enable_gqa=grouped)[None]


class BranchGroup(NamedTuple):
    """Branches of a row that are padded to the same shape and share their matrix products.

    A branch with fewer ancestors is padded at its beginning, a shorter branch at its end. Padding refers to the
    position behind the end of the row, which holds zeros.
    """

    positions: Tensor
    """[branches, ancestors + longest] positions in the row of each branch's ancestors and of its own tokens."""
    ancestors: int
    """Ancestors of each branch, padding included."""
    padding: Tensor | None
    """[branches, 1, ancestors] which ancestors are padding; None where there is none."""

    @property
    def longest(self) -> int:
        """Tokens of the longest branch."""
        return self.positions.shape[1] - self.ancestors

    def gather_own(self, tensor: Tensor) -> Tensor:
        """The branches' own tokens: [key heads, T + 1, ...] -> [key heads * branches, longest, ...]."""
        return self._gather(tensor, self.positions[:, self.ancestors :])

    def gather_all(self, tensor: Tensor) -> Tensor:
        """Ancestors and own tokens: [key heads, T + 1, ...] -> [key heads * branches, ancestors + longest, ...]."""
        return self._gather(tensor, self.positions)

    def scatter_own(self, total: Tensor, own: Tensor) -> None:
        """Writes `own`, shaped as by `gather_own`, to its positions in the row."""
        total.index_copy_(1, self.positions[:, self.ancestors :].flatten(), own.unflatten(0, (len(total), -1)).flatten(1, 2))

    def scatter_add_all(self, total: Tensor, values: Tensor) -> None:
        """Adds `values`, shaped as by `gather_all`, at their positions in the row."""
        total.index_add_(1, self.positions.flatten(), values.unflatten(0, (len(total), -1)).flatten(1, 2))

    def blocks(self, window: int | None) -> Iterator[tuple[slice, slice]]:
        """Slices of up to BLOCK queries, each with the slice of the keys that they may attend to."""
        for first in range(0, self.longest, BLOCK):
            end = min(first + BLOCK, self.longest)
            yield slice(first, end), slice(0 if window is None else max(0, self.ancestors + first - window + 1), self.ancestors + end)

    def padding_of(self, keys: slice) -> Tensor | None:
        """[branches, 1, .] which ancestors among a slice of the keys are padding."""
        return None if self.padding is None else self.padding[..., keys]

    @staticmethod
    def _gather(tensor: Tensor, positions: Tensor) -> Tensor:
        return tensor.index_select(1, positions.flatten()).unflatten(1, positions.shape).flatten(0, 1)


class _Run(NamedTuple):
    """A branch by its positions in the row."""

    ancestors: list[int]
    own: range

    @property
    def pairs(self) -> int:
        """Queries times keys."""
        return len(self.own) * (len(self.ancestors) + len(self.own))


@dataclass
class _Group:
    """Branches that share their products, in decreasing length."""

    runs: list[_Run]

    def __post_init__(self):
        (run,) = self.runs
        self.longest, self.ancestors, self.fewest_pairs = len(run.own), len(run.ancestors), run.pairs

    def try_add(self, run: _Run) -> bool:
        """Adds a branch that is no longer than the others, if it fits; returns whether it did."""
        ancestors, fewest_pairs = max(self.ancestors, len(run.ancestors)), min(self.fewest_pairs, run.pairs)
        keys = ancestors + self.longest
        if fewest_pairs < MIN_FILL * self.longest * keys or (len(self.runs) + 1) * min(self.longest, BLOCK) * keys > MAX_PAIRS:
            return False
        self.runs.append(run)
        self.ancestors, self.fewest_pairs = ancestors, fewest_pairs
        return True

    def pad(self, row_end: int) -> BranchGroup:
        """The padded group; `row_end` is the position behind the end of the row."""
        missing = [self.ancestors - len(run.ancestors) for run in self.runs]
        padded = zip(missing, self.runs, strict=True)
        positions = [[*[row_end] * before, *run.ancestors, *run.own, *[row_end] * (self.longest - len(run.own))] for before, run in padded]
        padding = torch.arange(self.ancestors) < torch.tensor(missing)[:, None, None] if any(missing) else None
        return BranchGroup(torch.tensor(positions), self.ancestors, padding)


def group_branches(lengths: tuple[int, ...], branches: tuple[Branches, ...]) -> tuple[BranchGroup, ...]:
    """Groups the branches of all trees of a row by the products that they share."""
    runs = []
    for length, end, tree in zip(lengths, accumulate(lengths), branches, strict=True):
        start = end - length
        for branch in tree or (Branch(torch.zeros(0, dtype=torch.long), 0, length),):
            runs.append(_Run((start + branch.ancestors).tolist(), range(start + branch.first, start + branch.end)))
    groups: list[_Group] = []
    for run in sorted(runs, key=lambda run: (-len(run.own), -len(run.ancestors))):
        if not any(group.try_add(run) for group in groups):
            groups.append(_Group([run]))
    return tuple(group.pad(sum(lengths)) for group in groups)


class BlockAttention(torch.autograd.Function):
    """softmax(scaling q k^T, masked) v for each group. The query heads of a key head are rows of one product."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, groups: tuple[BranchGroup, ...], scaling: float, window: int | None) -> Tensor:
        query, key, value = _split_heads(query, key.shape[1]), _append_zero(key[0]), _append_zero(value[0])
        out = torch.empty_like(query)
        saved = []
        for group in groups:
            q, k, v = group.gather_own(query), group.gather_all(key), group.gather_all(value)
            group_out = torch.empty_like(q)
            for block, keys in group.blocks(window):
                weights = _attention_weights(q[:, block], k[:, keys], group.padding_of(keys), scaling, window)
                group_out[:, block] = torch.bmm(weights, v[:, keys]).view(group_out[:, block].shape)
                saved.append(weights if k.shape[1] <= MAX_SAVED_KEYS else None)
            group.scatter_own(out, group_out)
        ctx.save_for_backward(query, key, value, *saved)
        ctx.groups, ctx.scaling, ctx.window = groups, scaling, window
        return _merge_heads(out)

    @staticmethod
    def backward(ctx, grad_out: Tensor):
        query, key, value, *saved = ctx.saved_tensors
        grad_out, saved = _split_heads(grad_out, len(key)), iter(saved)
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros(2, *key.shape)
        for group in ctx.groups:
            q, grad_o, k, v = group.gather_own(query), group.gather_own(grad_out), group.gather_all(key), group.gather_all(value)
            grad_q = torch.empty_like(q)
            grad_k, grad_v = torch.zeros(2, *k.shape)
            for block, keys in group.blocks(ctx.window):
                weights, q_rows, grad_o_rows = next(saved), q[:, block].flatten(1, 2), grad_o[:, block].flatten(1, 2)
                if weights is None:
                    weights = _attention_weights(q[:, block], k[:, keys], group.padding_of(keys), ctx.scaling, ctx.window)
                grad_v[:, keys] += torch.bmm(weights.transpose(1, 2), grad_o_rows)
                grad_weights = torch.bmm(grad_o_rows, v[:, keys].transpose(1, 2))
                grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
                grad_q[:, block] = torch.bmm(grad_scores, k[:, keys]).view(grad_q[:, block].shape)
                grad_k[:, keys] += torch.bmm(grad_scores.transpose(1, 2), q_rows)
            group.scatter_own(grad_query, grad_q)
            group.scatter_add_all(grad_key, grad_k)
            group.scatter_add_all(grad_value, grad_v)
        return _merge_heads(grad_query), grad_key[None, :, :-1].to(key.dtype), grad_value[None, :, :-1].to(value.dtype), None, None, None


def _attention_weights(q: Tensor, k: Tensor, padding: Tensor | None, scaling: float, window: int | None) -> Tensor:
    """Attention weights [n, queries * query heads per key head, keys], where the last query aligns with the last key."""
    rows, queries, keys = q.flatten(1, 2), q.shape[1], k.shape[1]
    scores = torch.baddbmm(rows.new_empty(()), rows, k.transpose(1, 2), beta=0, alpha=scaling)
    future = torch.ones(queries, queries, dtype=torch.bool).triu_(1)
    if padding is not None:
        scores.unflatten(0, (-1, len(padding)))[..., : padding.shape[-1]].masked_fill_(padding, float("-inf"))
    by_query = scores.view(*q.shape[:3], -1)
    by_query[..., keys - queries :].masked_fill_(future[:, None], float("-inf"))
    if window is not None and keys > window:
        by_query.masked_fill_(torch.ones(queries, keys, dtype=torch.bool).tril_(keys - queries - window)[:, None], float("-inf"))
    return torch.softmax(scores, -1)


def _split_heads(tensor: Tensor, key_heads: int) -> Tensor:
    """[1, heads, T, width] -> [key heads, T + 1, heads per key head, width], with zeros behind the end of the row."""
    return _append_zero(tensor[0].unflatten(0, (key_heads, -1)).transpose(1, 2))


def _merge_heads(tensor: Tensor) -> Tensor:
    """The inverse of `_split_heads`."""
    return tensor[:, :-1].transpose(1, 2).flatten(0, 1)[None]


def _append_zero(tensor: Tensor) -> Tensor:
    """Appends a zero behind the end of the row: [., T, ...] -> [., T + 1, ...]."""
    padded = tensor.new_empty(len(tensor), tensor.shape[1] + 1, *tensor.shape[2:])
    padded[:, :-1], padded[:, -1] = tensor, 0
    return padded
