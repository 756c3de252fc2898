"""The losses and estimators of PPO, as pure functions of tensors.

Every tensor argument is [T], one entry per action token of a micro-batch, unless its description says otherwise. A loss
is a sum over tokens divided by `denominator`, the number of action tokens in the whole optimizer step across all
micro-batches and ranks. A token therefore has the same weight in every micro-batch.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Bound on a log-ratio before it is exponentiated. e^20 is far outside every clip range, and one such token keeps all
sums finite."""


class ClipRange(NamedTuple):
    """The range outside which a probability ratio no longer improves the surrogate."""

    low: float
    """The ratio is clipped below 1 - low."""
    high: float
    """The ratio is clipped above 1 + high. A value above `low` lets unlikely tokens grow (clip-higher, Yu et al. 2025,
    "DAPO")."""
    dual: float = 0.0
    """Lower bound dual * A on the surrogate of a token with a negative advantage A (Ye et al. 2020); 0 disables it."""


def token_mean(values: Tensor, denominator: float) -> Tensor:
    """Sum of `values` divided by the number of action tokens in the optimizer step."""
    return values.sum() / denominator


def log_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """log pi - log pi_old, clamped to +-`MAX_LOG_RATIO`. A clamped token has no gradient."""
    return (logprobs - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def probability_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """pi(a|s) / pi_old(a|s), computed from the clamped log-ratio."""
    return torch.exp(log_ratio(logprobs, old))


def sequence_ratio(logprobs: Tensor, old: Tensor, sequences: Tensor) -> Tensor:
    """GSPO's ratio exp(mean_t(log pi - log pi_old)) of each token's sequence (Zheng et al. 2025, eq. 7 and 14).

    The gradient at a token is that of the token alone, so the advantages may differ between the tokens of a sequence.

    Args:
        sequences: index of each token's sequence, from 0. A sequence must lie in a single micro-batch.
    """
    token_log_ratio = log_ratio(logprobs, old).detach()
    sums = torch.zeros(int(sequences.max()) + 1, dtype=token_log_ratio.dtype, device=token_log_ratio.device).index_add_(0, sequences, token_log_ratio)
    means = sums / torch.bincount(sequences).clamp(min=1)
    return torch.exp(means[sequences] + logprobs - logprobs.detach())


def clipped_surrogate(ratio: Tensor, advantages: Tensor, clip: ClipRange) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) (Schulman et al. 2017, eq. 7), bounded below by dual * A where A < 0."""
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip.low, 1 + clip.high) * advantages)
    return torch.where(advantages < 0, torch.maximum(surrogate, clip.dual * advantages), surrogate) if clip.dual else surrogate


def weighted_log_likelihood(ratio: Tensor, logprobs: Tensor, advantages: Tensor, clip: ClipRange) -> Tensor:
    """CISPO: the detached clipped ratio times A log pi; no token loses its gradient (MiniMax-M1, 2025, eq. 4)."""
    return ratio.clamp(1 - clip.low, 1 + clip.high).detach() * advantages * logprobs


def policy_loss(surrogate: Tensor, *, denominator: float, weights: Tensor | None = None) -> Tensor:
    """The negative mean surrogate.

    Args:
        surrogate: the objective of each token.
        denominator: action tokens in the optimizer step.
        weights: weight of each token, such as its importance weight against the sampler; None weights every token by 1.
    """
    return -token_mean(surrogate if weights is None else surrogate * weights, denominator)


def loss_weights(lengths: Tensor, mean: str, constant: int) -> Tensor:
    """Weights of each sequence's tokens that turn a mean over all tokens into the requested mean.

    Args:
        lengths: [n] action tokens of each sequence in the optimizer step.
        mean: `token` averages over all tokens; `sequence` averages the per-sequence token means (GRPO); `constant`
            averages the per-sequence sums divided by `constant` (Dr. GRPO), so that long sequences are not diluted.
        constant: the divisor of a sequence's sum.

    Returns:
        [n]
    """
    if mean == "token":
        return torch.ones(len(lengths))
    return lengths.sum() / (len(lengths) * (lengths if mean == "sequence" else torch.full_like(lengths, constant)))


def value_loss(values: Tensor, old: Tensor, returns: Tensor, *, clip: float, denominator: float) -> Tensor:
    """PPO's clipped value loss, as in OpenAI's baselines.

    0.5 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2)
    """
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * token_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), denominator)


def squared_error(values: Tensor, returns: Tensor, *, denominator: float) -> Tensor:
    """0.5 (V - R)^2, the value loss without clipping."""
    return 0.5 * token_mean((values - returns) ** 2, denominator)


def kl_k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || reference) from samples of pi: k1 = log pi - log reference, unbiased, any sign (Schulman 2020)."""
    return logprobs - reference


def kl_k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimator k2 = (log pi - log reference)^2 / 2: biased, never negative, low variance (Schulman 2020)."""
    return 0.5 * (logprobs - reference) ** 2


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimator k3 = x - 1 - log x with x = reference / pi: unbiased, never negative (Schulman 2020)."""
    difference = log_ratio(reference, logprobs)
    return torch.exp(difference) - 1 - difference


KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def importance_weights(old: Tensor, behaviour: Tensor, cap: float, *, masked: bool = False) -> Tensor:
    """Importance weights w = exp(old - behaviour) of the trainer against the sampler, bounded by `cap`.

    Args:
        old: the trainer's log-probabilities, computed with the weights that sampled.
        behaviour: the sampler's own log-probabilities.
        cap: the largest weight.
        masked: sets weights above the cap to 0 instead of truncating them to the cap (Ionides 2008).
    """
    weights = probability_ratio(old, behaviour)
    return torch.where(weights > cap, torch.zeros_like(weights), weights) if masked else weights.clamp(max=cap)


def clip_fraction(ratio: Tensor, clip: ClipRange) -> Tensor:
    """Share of tokens whose ratio lies outside the clip range."""
    outside = ((ratio < 1 - clip.low) | (ratio > 1 + clip.high)).float()
    return token_mean(outside, max(float(len(ratio)), 1.0))


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than the mean, and 0 if all returns are equal."""
    if len(returns) < 2 or float(returns.var()) < 1e-12:
        return 0.0
    return float(1 - (returns - values).var() / returns.var())


def negative_log_likelihood(logprobs: Tensor, *, denominator: float) -> Tensor:
    """The supervised loss: the mean of -log pi."""
    return -token_mean(logprobs, denominator)
