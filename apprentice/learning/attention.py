"""Attention over a row of packed prefix trees, for Transformers' attention interface: no padding, no mask over the whole row.

Each tree attends to itself alone: causally where it is one sequence, else branch by branch, each to its ancestors and causally to itself. A GPU takes a
row of plain sequences in one flash kernel. On a CPU, a block of queries at a time goes through plain matrix products, with a backward pass
written out here for the whole row: a block's weights stay in the cache, and it takes two thirds of the time of PyTorch's flash kernel.
"""

from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from apprentice.learning.sharing import Branch, Sight

NAME = "packed"
BLOCK = 128
"""Queries whose attention weights exist at the same time on a CPU."""
KEPT = 400
"""Keys of a branch up to which its weights are kept for the backward pass; beyond, computing them again is as fast."""


def register() -> str:
    """Makes the attention known to Transformers; returns its name for `attn_implementation`."""
    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)
    return NAME


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    lengths: tuple[int, ...] | None = None,
    sights: tuple[Sight, ...] | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attention within each tree of a row.

    Args:
        module: the layer that asks; unused.
        query: [1, heads, T, width].
        key: [1, key heads, T, width]; query heads share key heads in consecutive groups.
        value: [1, key heads, T, width].
        attention_mask: None.
        scaling: factor of the scores; None is width ** -0.5.
        dropout: 0.
        lengths: tokens of each tree; None is one sequence.
        sights: of each tree, what its tokens attend to; None is plain causal attention.

    Returns:
        [1, T, heads, width], and None for the weights.
    """
    lengths = lengths or (query.shape[2],)
    sights = sights or (None,) * len(lengths)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not query.is_cuda:
        return _BlockAttention.apply(query, key, value, tuple(_spans(lengths, sights)), scaling).transpose(1, 2), None
    if query.dtype != torch.float32 and all(sight is None for sight in sights):
        return _flash(query, key, value, lengths, scaling), None
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), sights, strict=True)
    return torch.cat([_attend(*part, scaling) for part in parts], 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scaling: float) -> Tensor:
    """Attention within one tree, in PyTorch's own kernels."""
    grouped = query.shape[1] != key.shape[1]
    if sight is None:
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    parts = []
    for branch in sight:
        own = slice(branch.first, branch.end)
        keys, values = (torch.cat((tensor.index_select(2, branch.ancestors), tensor[:, :, own]), 2) for tensor in (key, value))
        seen = torch.ones(branch.end - branch.first, keys.shape[2], dtype=torch.bool, device=query.device).tril_(len(branch.ancestors))
        parts.append(functional.scaled_dot_product_attention(query[:, :, own], keys, values, attn_mask=seen, scale=scaling, enable_gqa=grouped))
    return torch.cat(parts, 2)


def _spans(lengths: tuple[int, ...], sights: tuple[Sight, ...]) -> Iterator["Span"]:
    """Every branch of every tree, in the row's numbers."""
    for length, end, sight in zip(lengths, accumulate(lengths), sights, strict=True):
        start = end - length
        for branch in sight or (Branch(torch.zeros(0, dtype=torch.long), 0, length),):
            yield Span(start + branch.first, start + branch.end, start + branch.ancestors)


class Span(NamedTuple):
    """A run of a row's tokens that attend to the same ancestors, and causally to each other."""

    first: int
    end: int
    ancestors: Tensor
    """[a] where they stand in the row."""

    @property
    def keys(self) -> int:
        """How many the last token attends to."""
        return len(self.ancestors) + self.end - self.first

    def gathered(self, tensor: Tensor) -> Tensor:
        """[key heads, T, width] -> [key heads, keys, width]."""
        own = tensor[:, self.first : self.end]
        return torch.cat((tensor.index_select(1, self.ancestors), own), 1) if len(self.ancestors) else own

    def scatter(self, total: Tensor, gradient: Tensor) -> None:
        """Adds what `gathered` got [key heads, keys, width] to where it came from [key heads, T, width]."""
        before = len(self.ancestors)
        total[:, self.first : self.end] += gradient[:, before:]
        if before:
            total.index_add_(1, self.ancestors, gradient[:, :before])

    def blocks(self) -> Iterator[tuple[slice, int]]:
        """BLOCK queries at a time, and how many of the keys they may see."""
        for first in range(self.first, self.end, BLOCK):
            end = min(first + BLOCK, self.end)
            yield slice(first, end), len(self.ancestors) + end - self.first


class _BlockAttention(torch.autograd.Function):
    """softmax(q k^T scaling, without what is hidden) v of each span; the query heads that share a key head are rows of one product."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, spans: tuple[Span, ...], scaling: float) -> Tensor:
        query, key, value = _by_key_head(query, key), key[0].contiguous(), value[0].contiguous()
        out = torch.empty_like(query)
        kept = []
        for span in spans:
            keys, values = span.gathered(key), span.gathered(value)
            for block, reach in span.blocks():
                weights = _weights(query[:, block], keys[:, :reach], scaling)
                out[:, block] = torch.bmm(weights, values[:, :reach]).view(out[:, block].shape)
                kept.append(weights if span.keys <= KEPT else None)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.spans, ctx.scaling = spans, scaling
        return _by_head(out)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        query, key, value, *kept = ctx.saved_tensors
        upstream, kept = _by_key_head(gradient, key[None]), iter(kept)
        to_query = torch.empty_like(query)
        to_key, to_value = torch.zeros(2, *key.shape)
        for span in ctx.spans:
            keys, values = span.gathered(key), span.gathered(value)
            to_keys, to_values = torch.zeros(2, *keys.shape)
            for block, reach in span.blocks():
                weights = next(kept)
                if weights is None:
                    weights = _weights(query[:, block], keys[:, :reach], ctx.scaling)
                arriving = upstream[:, block].flatten(1, 2)
                to_values[:, :reach] += torch.bmm(weights.transpose(1, 2), arriving)
                to_weights = torch.bmm(arriving, values[:, :reach].transpose(1, 2))
                to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
                to_query[:, block] = torch.bmm(to_scores, keys[:, :reach]).view(to_query[:, block].shape)
                to_keys[:, :reach] += torch.bmm(to_scores.transpose(1, 2), query[:, block].flatten(1, 2))
            span.scatter(to_key, to_keys)
            span.scatter(to_value, to_values)
        return _by_head(to_query), to_key[None].to(key.dtype), to_value[None].to(value.dtype), None, None


def _weights(query: Tensor, key: Tensor, scaling: float) -> Tensor:
    """[key heads, queries * query heads a key head, keys] attention weights; the last query sees the last key."""
    rows, size = query.flatten(1, 2), query.shape[1]
    scores = torch.baddbmm(rows.new_empty(()), rows, key.transpose(1, 2), beta=0, alpha=scaling)
    future = torch.ones(size, size, dtype=torch.bool).triu_(1)
    scores.view(*query.shape[:3], -1)[..., key.shape[1] - size :].masked_fill_(future[:, None], float("-inf"))
    return torch.softmax(scores, -1)


def _by_key_head(heads: Tensor, key: Tensor) -> Tensor:
    """[1, heads, T, width] -> [key heads, T, heads a key head, width]."""
    return heads[0].unflatten(0, (key.shape[1], -1)).transpose(1, 2).contiguous()


def _by_head(tensor: Tensor) -> Tensor:
    """The other way round."""
    return tensor.transpose(1, 2).flatten(0, 1)[None]


def _flash(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float) -> Tensor:
    """All sequences in one call of PyTorch's flash kernel for ragged rows; its window (any past, no future) is causal attention."""
    bounds = torch.tensor((0, *lengths), dtype=torch.int32, device=query.device).cumsum(0, dtype=torch.int32)
    rows = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    longest, grouped = max(lengths), query.shape[1] != key.shape[1]
    return varlen_attn(*rows, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)[None]
