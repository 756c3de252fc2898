"""Attention over a row of packed prefix trees, for Transformers' attention interface: no padding, no mask over the whole row.

Each tree attends to itself alone: causally where it is one sequence, else to ancestors, a large tree branch by branch. A GPU takes a row of
plain sequences in one flash kernel. On a CPU, a block of queries at a time goes through plain matrix products, with a backward pass written
out here: a block's weights stay in the cache, and it takes two thirds of the time of PyTorch's flash kernel.
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
"""Tokens of a tree or branch up to which the weights are kept for the backward pass; beyond, computing them again is as fast."""


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
    if query.is_cuda and query.dtype != torch.float32 and all(sight is None for sight in sights):
        return _flash(query, key, value, lengths, scaling), None
    if not query.is_cuda and not any(isinstance(sight, tuple) for sight in sights):
        ends = tuple(accumulate(lengths))
        spans = tuple(Span(end - length, end, end - length, end, sight) for length, end, sight in zip(lengths, ends, sights, strict=True))
        return _BlockAttention.apply(query, key, value, spans, scaling).transpose(1, 2), None
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), sights, strict=True)
    return torch.cat([_attend(*part, scaling) for part in parts], 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scaling: float) -> Tensor:
    """Attention within one tree; with a `sight` of None, causally from the last tokens of `key` to all of them."""
    if isinstance(sight, tuple):
        return torch.cat([_attend_back(query, key, value, branch, scaling) for branch in sight], 2)
    if not query.is_cuda:
        return _BlockAttention.apply(query, key, value, (Span(0, query.shape[2], 0, key.shape[2], sight),), scaling)
    plain = sight is None and query.shape[2] == key.shape[2]
    seen = None if plain else ~(_future(query.shape[2], key.shape[2]).to(query.device) if sight is None else sight)
    grouped = query.shape[1] != key.shape[1]
    return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=plain, scale=scaling, enable_gqa=grouped)


def _attend_back(query: Tensor, key: Tensor, value: Tensor, branch: Branch, scaling: float) -> Tensor:
    """Attention of one branch: to its ancestors, and causally to itself."""
    own = slice(branch.first, branch.end)
    key, value = (torch.cat((tensor.index_select(2, branch.ancestors), tensor[:, :, own]), 2) for tensor in (key, value))
    return _attend(query[:, :, own], key, value, None, scaling)


def _future(tokens: int, reach: int) -> Tensor:
    """[tokens, reach] bool, true where the key comes after the query; both end at the same token."""
    return torch.ones(tokens, reach, dtype=torch.bool).triu_(1 + reach - tokens)


class Span(NamedTuple):
    """Queries of a row that attend to keys of it: those of one tree or branch. The last query sees the last key."""

    first_query: int
    end_query: int
    first_key: int
    end_key: int
    sight: Tensor | None
    """[queries, keys] true where hidden; None is causal."""

    def blocks(self) -> Iterator[tuple[slice, slice, Tensor]]:
        """BLOCK queries at a time, the keys that they may see, and [queries, 1, keys from the first that is not seen by all] where not."""
        before = self.end_key - self.first_key - (self.end_query - self.first_query)
        for first in range(0, self.end_query - self.first_query, BLOCK):
            size = min(BLOCK, self.end_query - self.first_query - first)
            reach = before + first + size
            hidden = _future(size, size) if self.sight is None else self.sight[first : first + size, :reach]
            queries = slice(self.first_query + first, self.first_query + first + size)
            yield queries, slice(self.first_key, self.first_key + reach), hidden[:, None]


class _BlockAttention(torch.autograd.Function):
    """softmax(q k^T scaling, without what is hidden) v of each span; the query heads that share a key head are rows of one product."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, spans: tuple[Span, ...], scaling: float) -> Tensor:
        query, key, value = _by_key_head(query, key), key[0].contiguous(), value[0].contiguous()
        out = torch.empty_like(query)
        kept = []
        for span in spans:
            keep = span.end_query - span.first_query <= KEPT
            for queries, keys, hidden in span.blocks():
                weights = _weights(query[:, queries], key[:, keys], hidden, scaling)
                out[:, queries] = torch.bmm(weights, value[:, keys]).view(out[:, queries].shape)
                kept.append(weights if keep else None)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.spans, ctx.scaling = spans, scaling
        return _by_head(out)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        query, key, value, *kept = ctx.saved_tensors
        upstream = _by_key_head(gradient, key[None])
        to_query = torch.empty_like(query)
        to_key, to_value = torch.zeros(2, *key.shape)
        blocks = [block for span in ctx.spans for block in span.blocks()]
        for weights, (queries, keys, hidden) in zip(kept, blocks, strict=True):
            if weights is None:
                weights = _weights(query[:, queries], key[:, keys], hidden, ctx.scaling)
            arriving = upstream[:, queries].flatten(1, 2)
            to_value[:, keys] += torch.bmm(weights.transpose(1, 2), arriving)
            to_weights = torch.bmm(arriving, value[:, keys].transpose(1, 2))
            to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
            to_query[:, queries] = torch.bmm(to_scores, key[:, keys]).view(to_query[:, queries].shape)
            to_key[:, keys] += torch.bmm(to_scores.transpose(1, 2), query[:, queries].flatten(1, 2))
        return _by_head(to_query), to_key[None].to(key.dtype), to_value[None].to(value.dtype), None, None


def _weights(query: Tensor, key: Tensor, hidden: Tensor, scaling: float) -> Tensor:
    """[key heads, queries * query heads a key head, keys] attention weights."""
    rows = query.flatten(1, 2)
    scores = torch.baddbmm(rows.new_empty(()), rows, key.transpose(1, 2), beta=0, alpha=scaling)
    by_token = scores.view(*query.shape[:3], key.shape[1])
    by_token[..., key.shape[1] - hidden.shape[2] :].masked_fill_(hidden, float("-inf"))
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
