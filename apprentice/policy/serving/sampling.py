"""Sampling of tokens from a distribution over the vocabulary, on a CPU."""

import math
from collections.abc import Mapping

import torch

BLOCK = 256
"""Tokens of the vocabulary in one block, at most."""


def sample(logits: torch.Tensor, generators: Mapping[int, torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
    """Sample one token for each row by inverting the cumulative distribution.

    One uniform number selects a block of the vocabulary, and a second one the token in that block. vLLM draws noise for
    every token of the vocabulary instead, which takes three times as long.

    Args:
        logits: float32 [rows, vocabulary]; the function overwrites it.
        generators: random generators by row; the other rows share PyTorch's default generator.

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
    chosen = _select(blocks.sum(-1), uniform[0])
    return chosen * block + _select(blocks[torch.arange(rows), chosen], uniform[1]), logprobs


def _select(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Select an index in each row of [rows, n] in proportion to its weight; rounding never selects one of weight 0."""
    cumulative = weights.cumsum(-1, dtype=torch.float64)
    total = cumulative[:, -1:].contiguous()
    return torch.searchsorted(cumulative, uniform * total, right=True).minimum(torch.searchsorted(cumulative, total))[:, 0]
