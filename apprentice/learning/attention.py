"""Attention over a row of packed prefix trees, for Transformers' attention interface: no padding, no mask over the whole row.

Each tree attends to itself alone: causally where it is one sequence, else branch by branch, each to its ancestors and causally to itself. A GPU takes a
row of plain sequences in one flash kernel. On a CPU, a block of queries at a time goes through plain matrix products, with a backward pass
written out here for the whole row: a block's weights stay in the cache, and it takes two thirds of the time of PyTorch's flash kernel. Branches of about the
same length and with about as many ancestors share their products, as many as fit the cache.

It covers causal attention with or without a sliding window. `Unsupported` is raised for everything else that a layer may ask of its attention;
`fidelity.py` then has the model run with Transformers' own.
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

from apprentice.learning.sharing import Branch, Sight

NAME = "packed"
BLOCK = 128
"""Queries whose attention weights exist at the same time on a CPU."""
PAIRS = 100_000
"""Queries times keys of the branches that share a product: their weights stay in the cache."""
FILLED = 0.5
"""The least share of the queries times keys computed for a branch that are its own; the others are for nothing."""
UNSUPPORTED = {"softcap": "soft-capped scores", "s_aux": "attention sinks", "position_bias": "biased scores", "cache": "cached keys"}
"""What a layer may hand to its attention that changes the weights, and that this attention does not compute."""
KEPT = 400
"""Keys of a branch up to which its weights are kept for the backward pass; beyond, computing them again is as fast."""


class Unsupported(Exception):
    """A layer asks for something that packed attention does not compute; the message names it."""


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
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    lengths: tuple[int, ...] | None = None,
    sights: tuple[Sight, ...] | None = None,
    groups: tuple["Alike", ...] | None = None,
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
        sliding_window: tokens of its sequence that a token sees, itself included; None is all that precede it.
        is_causal: True or None.
        lengths: tokens of each tree; None is one sequence.
        sights: of each tree, what its tokens attend to; None is plain causal attention.
        groups: `alike(lengths, sights)`, found once for all layers; a GPU needs none.

    Returns:
        [1, T, heads, width], and None for the weights.

    Raises:
        Unsupported: the layer asks for something else than causal attention.
    """
    asked = [what for name, what in UNSUPPORTED.items() if kwargs.get(name) is not None]
    asked += ["a mask"] * (attention_mask is not None) + ["dropout"] * (dropout > 0) + ["bidirectional attention"] * (is_causal is False)
    asked += ["values of another width than keys"] * (value.shape[-1] != key.shape[-1])
    if asked:
        raise Unsupported(", ".join(asked))
    lengths = lengths or (query.shape[2],)
    sights = sights or (None,) * len(lengths)
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not query.is_cuda:
        return _BlockAttention.apply(query, key, value, groups or alike(lengths, sights), scaling, sliding_window).transpose(1, 2), None
    if query.dtype != torch.float32 and all(sight is None for sight in sights):
        return _flash(query, key, value, lengths, scaling, sliding_window), None
    parts = zip(query.split(lengths, 2), key.split(lengths, 2), value.split(lengths, 2), sights, strict=True)
    return torch.cat([_attend(*part, scaling, sliding_window) for part in parts], 2).transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, sight: Sight, scaling: float, window: int | None) -> Tensor:
    """Attention within one tree, in PyTorch's own kernels."""
    grouped, length = query.shape[1] != key.shape[1], query.shape[2]
    if sight is None and (window is None or length <= window):
        return functional.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=grouped)
    parts = []
    for branch in sight or (Branch(torch.zeros(0, dtype=torch.long, device=query.device), 0, length),):
        own, before = slice(branch.first, branch.end), len(branch.ancestors)
        keys, values = (torch.cat((tensor.index_select(2, branch.ancestors), tensor[:, :, own]), 2) for tensor in (key, value))
        seen = torch.ones(branch.end - branch.first, keys.shape[2], dtype=torch.bool, device=query.device).tril_(before)
        if window is not None:
            seen.triu_(before - window + 1)
        parts.append(functional.scaled_dot_product_attention(query[:, :, own], keys, values, attn_mask=seen, scale=scaling, enable_gqa=grouped))
    return torch.cat(parts, 2)


class Alike(NamedTuple):
    """Runs of a row's tokens of about the same length and with about as many ancestors: each attends to these, and causally to itself."""

    places: Tensor
    """[runs, ancestors + longest] where each run's ancestors and its own tokens stand in the row; what a run lacks, its first ancestors and its
    last tokens, stands behind the row's end."""
    before: int
    """Ancestors."""
    absent: Tensor | None
    """[runs, 1, ancestors] those that a run lacks; None where none lacks any."""

    @property
    def longest(self) -> int:
        """Tokens of the longest run."""
        return self.places.shape[1] - self.before

    def own(self, tensor: Tensor) -> Tensor:
        """[key heads, T + 1, ...] -> [key heads * runs, longest, ...]."""
        return self._at(tensor, self.places[:, self.before :])

    def seen(self, tensor: Tensor) -> Tensor:
        """The same with the ancestors before each run: [key heads * runs, ancestors + longest, ...]."""
        return self._at(tensor, self.places)

    def put(self, total: Tensor, own: Tensor) -> None:
        """Writes what belongs to `own` to where it stands in the row."""
        total.index_copy_(1, self.places[:, self.before :].flatten(), own.unflatten(0, (len(total), -1)).flatten(1, 2))

    def add(self, total: Tensor, seen: Tensor) -> None:
        """Adds what belongs to `seen` to what stands there in the row."""
        total.index_add_(1, self.places.flatten(), seen.unflatten(0, (len(total), -1)).flatten(1, 2))

    def blocks(self, window: int | None) -> Iterator[tuple[slice, slice]]:
        """BLOCK queries of each run at a time, and the keys that they may see."""
        for first in range(0, self.longest, BLOCK):
            end = min(first + BLOCK, self.longest)
            yield slice(first, end), slice(0 if window is None else max(0, self.before + first - window + 1), self.before + end)

    def absent_among(self, seen: slice) -> Tensor | None:
        """Those of some of the keys: [runs, 1, ancestors among them]."""
        return None if self.absent is None else self.absent[..., seen]

    @staticmethod
    def _at(tensor: Tensor, places: Tensor) -> Tensor:
        return tensor.index_select(1, places.flatten()).unflatten(1, places.shape).flatten(0, 1)


class _Run(NamedTuple):
    """Tokens of a row that attend to the same ancestors and causally to each other."""

    ancestors: list[int]
    own: range

    @property
    def pairs(self) -> int:
        """Queries times keys."""
        return len(self.own) * (len(self.ancestors) + len(self.own))


@dataclass
class _Group:
    """Runs that share their products, the longest first."""

    runs: list[_Run]

    def __post_init__(self):
        (run,) = self.runs
        self.longest, self.before, self.fewest = len(run.own), len(run.ancestors), run.pairs

    def take(self, run: _Run) -> bool:
        """Adds a run that is no longer than the others, if it fits; says whether it did."""
        before, fewest = max(self.before, len(run.ancestors)), min(self.fewest, run.pairs)
        keys = before + self.longest
        if fewest < FILLED * self.longest * keys or (len(self.runs) + 1) * min(self.longest, BLOCK) * keys > PAIRS:
            return False
        self.runs.append(run)
        self.before, self.fewest = before, fewest
        return True

    def laid_out(self, behind: int) -> Alike:
        """Where everything stands in the row; `behind` is behind its end."""
        lacking = [self.before - len(run.ancestors) for run in self.runs]
        ragged = zip(lacking, self.runs, strict=True)
        places = [[*[behind] * lacks, *run.ancestors, *run.own, *[behind] * (self.longest - len(run.own))] for lacks, run in ragged]
        absent = torch.arange(self.before) < torch.tensor(lacking)[:, None, None] if any(lacking) else None
        return Alike(torch.tensor(places), self.before, absent)


def alike(lengths: tuple[int, ...], sights: tuple[Sight, ...]) -> tuple[Alike, ...]:
    """The branches of all trees of a row, those together that share their products."""
    runs = []
    for length, end, sight in zip(lengths, accumulate(lengths), sights, strict=True):
        start = end - length
        for branch in sight or (Branch(torch.zeros(0, dtype=torch.long), 0, length),):
            runs.append(_Run((start + branch.ancestors).tolist(), range(start + branch.first, start + branch.end)))
    groups: list[_Group] = []
    for run in sorted(runs, key=lambda run: (-len(run.own), -len(run.ancestors))):
        if not any(group.take(run) for group in groups):
            groups.append(_Group([run]))
    return tuple(group.laid_out(sum(lengths)) for group in groups)


class _BlockAttention(torch.autograd.Function):
    """softmax(q k^T scaling, without what is hidden) v of each group; the query heads that share a key head are rows of one product."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor, groups: tuple[Alike, ...], scaling: float, window: int | None) -> Tensor:
        query, key, value = _by_key_head(query, key.shape[1]), _and_nothing(key[0]), _and_nothing(value[0])
        out = torch.empty_like(query)
        kept = []
        for group in groups:
            asking, keys, values = group.own(query), group.seen(key), group.seen(value)
            answers = torch.empty_like(asking)
            for block, seen in group.blocks(window):
                weights = _weights(asking[:, block], keys[:, seen], group.absent_among(seen), scaling, window)
                answers[:, block] = torch.bmm(weights, values[:, seen]).view(answers[:, block].shape)
                kept.append(weights if keys.shape[1] <= KEPT else None)
            group.put(out, answers)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.groups, ctx.scaling, ctx.window = groups, scaling, window
        return _by_head(out)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        query, key, value, *kept = ctx.saved_tensors
        upstream, kept = _by_key_head(gradient, len(key)), iter(kept)
        to_query = torch.empty_like(query)
        to_key, to_value = torch.zeros(2, *key.shape)
        for group in ctx.groups:
            asking, arriving, keys, values = group.own(query), group.own(upstream), group.seen(key), group.seen(value)
            to_asking = torch.empty_like(asking)
            to_keys, to_values = torch.zeros(2, *keys.shape)
            for block, seen in group.blocks(ctx.window):
                weights, asked, wanted = next(kept), asking[:, block].flatten(1, 2), arriving[:, block].flatten(1, 2)
                if weights is None:
                    weights = _weights(asking[:, block], keys[:, seen], group.absent_among(seen), ctx.scaling, ctx.window)
                to_values[:, seen] += torch.bmm(weights.transpose(1, 2), wanted)
                to_weights = torch.bmm(wanted, values[:, seen].transpose(1, 2))
                to_scores = torch.ops.aten._softmax_backward_data(to_weights, weights, -1, weights.dtype).mul_(ctx.scaling)
                to_asking[:, block] = torch.bmm(to_scores, keys[:, seen]).view(to_asking[:, block].shape)
                to_keys[:, seen] += torch.bmm(to_scores.transpose(1, 2), asked)
            group.put(to_query, to_asking)
            group.add(to_key, to_keys)
            group.add(to_value, to_values)
        return _by_head(to_query), to_key[None, :, :-1].to(key.dtype), to_value[None, :, :-1].to(value.dtype), None, None, None


def _weights(query: Tensor, key: Tensor, absent: Tensor | None, scaling: float, window: int | None) -> Tensor:
    """[n, queries * query heads a key head, keys] attention weights; the last query sees the last key, none what is absent or before its window."""
    rows, size, count = query.flatten(1, 2), query.shape[1], key.shape[1]
    scores = torch.baddbmm(rows.new_empty(()), rows, key.transpose(1, 2), beta=0, alpha=scaling)
    future = torch.ones(size, size, dtype=torch.bool).triu_(1)
    if absent is not None:
        scores.unflatten(0, (-1, len(absent)))[..., : absent.shape[-1]].masked_fill_(absent, float("-inf"))
    apart = scores.view(*query.shape[:3], -1)
    apart[..., count - size :].masked_fill_(future[:, None], float("-inf"))
    if window is not None and count > window:
        apart.masked_fill_(torch.ones(size, count, dtype=torch.bool).tril_(count - size - window)[:, None], float("-inf"))
    return torch.softmax(scores, -1)


def _by_key_head(heads: Tensor, key_heads: int) -> Tensor:
    """[1, heads, T, width] -> [key heads, T + 1, heads a key head, width]."""
    return _and_nothing(heads[0].unflatten(0, (key_heads, -1)).transpose(1, 2))


def _by_head(tensor: Tensor) -> Tensor:
    """The other way round."""
    return tensor[:, :-1].transpose(1, 2).flatten(0, 1)[None]


def _and_nothing(tensor: Tensor) -> Tensor:
    """A zero behind the end of the row: [., T, ...] -> [., T + 1, ...]."""
    longer = tensor.new_empty(len(tensor), tensor.shape[1] + 1, *tensor.shape[2:])
    longer[:, :-1], longer[:, -1] = tensor, 0
    return longer


def _flash(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], scaling: float, window: int | None) -> Tensor:
    """All sequences in one call of PyTorch's flash kernel for ragged rows; it takes how many tokens each sees before and after itself (-1 is any)."""
    bounds = torch.tensor((0, *lengths), dtype=torch.int32, device=query.device).cumsum(0, dtype=torch.int32)
    rows = (tensor[0].transpose(0, 1).contiguous() for tensor in (query, key, value))
    longest, grouped = max(lengths), query.shape[1] != key.shape[1]
    return varlen_attn(*rows, bounds, bounds, longest, longest, scale=scaling, window_size=(-1 if window is None else window - 1, 0), enable_gqa=grouped)[None]
