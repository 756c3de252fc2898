"""Tokens drawn from a distribution over the vocabulary, on a CPU."""

import math
from collections.abc import Mapping

import torch

BLOCK = 256


def sample(logits: torch.Tensor, generators: Mapping[int, torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
    """One token of each row, by inverting the cumulative distribution: one uniform number picks a block of the vocabulary, a second the token in it.

    vLLM makes noise for every token of the vocabulary instead, which takes three times as long.

    Args:
        logits: float32 [rows, vocabulary]; its memory is used for something else.
        generators: of the rows that have one of their own, by row; the others share PyTorch's.

    Returns:
        Token ids, int64 [rows], and log-probabilities, float32 [rows, vocabulary].
    """
    logprobs = logits.log_softmax(-1)
    rows, vocabulary = logprobs.shape
    block = math.gcd(vocabulary, BLOCK)
    uniform = torch.rand(2, rows, 1, dtype=torch.float64)
    for row, generator in generators.items():
        uniform[:, row, 0] = torch.rand(2, dtype=torch.float64, generator=generator)
    blocks = torch.exp(logprobs, out=logits).view(rows, -1, block)
    chosen = _pick(blocks.sum(-1), uniform[0])
    return chosen * block + _pick(blocks[torch.arange(rows), chosen], uniform[1]), logprobs


def _pick(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """An index of each row of [rows, n], in proportion to its weight; never one of weight 0, however the sums are rounded."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:].contiguous()
    return torch.searchsorted(cumulative, uniform * total, right=True).minimum(torch.searchsorted(cumulative, total))[:, 0]
