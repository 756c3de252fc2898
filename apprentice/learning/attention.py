"""Attention over a row of packed prefix trees, for Transformers' attention interface: no padding, no mask over the whole row.

Each tree attends to itself alone: causally where it is one sequence, else to ancestors, a large tree branch by branch. A GPU takes a row of
plain sequences in one flash kernel. On a CPU, short trees go through plain matrix products with a backward pass written out here: for some
200 tokens that takes a third of the time of PyTorch's flash kernel, whose backward pass is slow there.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, AttentionMaskInterface

from apprentice.learning.sharing import Branch, Sight

NAME = "packed"
SHORT = 800
"""Tokens up to which the square of attention weights is kept for the backward pass."""


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
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), sights, strict=True)
    return torch.cat([_attend(*part, scaling) for part in parts], 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scaling: float) -> Tensor:
    if isinstance(sight, tuple):
        return torch.cat([_attend_back(query, key, value, branch, scaling) for branch in sight], 2)
    if _is_long(query, key):
        seen = None if sight is None else ~sight
        grouped = query.shape[1] != key.shape[1]
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=seen is None, scale=scaling, enable_gqa=grouped)
    return _ShortAttention.apply(query, key, value, _future(query, key) if sight is None else sight, scaling)


def _attend_back(query: Tensor, key: Tensor, value: Tensor, branch: Branch, scaling: float) -> Tensor:
    """Attention of one branch: to its ancestors, and causally to itself."""
    own = slice(branch.first, branch.end)
    query = query[:, :, own]
    if not len(branch.ancestors):
        return _attend(query, key[:, :, own], value[:, :, own], None, scaling)
    key, value = (torch.cat((tensor.index_select(2, branch.ancestors), tensor[:, :, own]), 2) for tensor in (key, value))
    return _attend(query, key, value, _future(query, key), scaling)


def _is_long(query: Tensor, key: Tensor) -> bool:
    return query.is_cuda or query.shape[2] * key.shape[2] > SHORT**2


def _future(query: Tensor, key: Tensor) -> Tensor:
    """[t, k] bool, true where the key comes after the query; both end at the same token."""
    tokens, reach = query.shape[2], key.shape[2]
    return torch.ones(tokens, reach, dtype=torch.bool, device=query.device).triu_(1 + reach - tokens)


class _ShortAttention(torch.autograd.Function):
    """softmax(q k^T scaling, without what is hidden) v of one tree or branch, the query heads of a group stacked as rows of one product."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor, scaling: float) -> Tensor:
        _, heads, tokens, width = query.shape
        rows = query.reshape(key.shape[1], -1, width)
        scores = torch.bmm(rows, key[0].transpose(1, 2)).view(heads, tokens, -1).mul_(scaling).masked_fill_(hidden, float("-inf"))
        weights = torch.softmax(scores, -1).view(key.shape[1], -1, key.shape[2])
        ctx.save_for_backward(query, key, value, weights)
        ctx.scaling = scaling
        return torch.bmm(weights, value[0]).view(query.shape)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        query, key, value, weights = ctx.saved_tensors
        rows = query.reshape(key.shape[1], -1, query.shape[-1])
        upstream = gradient.reshape(rows.shape)
        to_value = torch.bmm(weights.transpose(1, 2), upstream)
        to_weights = torch.bmm(upstream, value[0].transpose(1, 2))
        to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
        to_query = torch.bmm(to_scores, key[0]).view(query.shape)
        to_key = torch.bmm(to_scores.transpose(1, 2), rows)
        return to_query, to_key[None], to_value[None], None, None


def _flash(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float) -> Tensor:
    """All sequences in one call of PyTorch's flash kernel for ragged rows; its window (any past, no future) is causal attention."""
    bounds = torch.tensor((0, *lengths), dtype=torch.int32, device=query.device).cumsum(0, dtype=torch.int32)
    rows = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    longest, grouped = max(lengths), query.shape[1] != key.shape[1]
    return varlen_attn(*rows, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=grouped)[None]
