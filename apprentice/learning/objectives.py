"""The losses and estimators of PPO: pure functions of tensors.

All arguments named by a tensor are [T], one entry an action token of a micro-batch; `mask` [T] is 1 where a token counts.
Losses are sums over the tokens divided by `denominator`, the number of counted tokens of the whole optimizer step over all
its micro-batches and ranks: so a token weighs the same in whichever micro-batch it lies.
"""

from typing import NamedTuple

import torch
from torch import Tensor

MAX_LOG_RATIO = 20.0
"""Bound of a log-ratio that is exponentiated: e^20 is far beyond any clip, and one such token leaves every sum finite."""


class Bounds(NamedTuple):
    """How far an update may carry a token's probability before its surrogate stops to reward it."""

    low: float
    """The ratio counts down to 1 - low."""
    high: float
    """The ratio counts up to 1 + high; above `low`, unlikely tokens may grow (clip-higher, Yu et al. 2025, "DAPO")."""
    dual: float = 0.0
    """A token of negative advantage A adds at least dual x A (Ye et al. 2020); 0 sets no such bound."""


def token_mean(values: Tensor, mask: Tensor, denominator: float) -> Tensor:
    """Sum of `values` over `mask`, divided by the step's token count. A masked token adds exactly 0, also if it is not finite."""
    return torch.where(mask.bool(), values, torch.zeros_like(values)).sum() / denominator


def log_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """log pi - log pi_old, clamped to +-`MAX_LOG_RATIO`; no gradient flows through a clamped token."""
    return (logprobs - old).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def probability_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """pi(a|s) / pi_old(a|s), from the clamped log-ratio."""
    return torch.exp(log_ratio(logprobs, old))


def sequence_ratio(logprobs: Tensor, old: Tensor, sequences: Tensor) -> Tensor:
    """GSPO's ratio: the geometric mean of a sequence's, exp(mean_t(log pi - log pi_old)), for each of its tokens (Zheng et al. 2025, eq. 7 and 14).

    Its gradient at a token is that of the token alone, so that a sequence may have advantages that differ from token to token.

    Args:
        sequences: the number of each token's sequence, from 0; a sequence lies whole in the micro-batch.
    """
    of_tokens = log_ratio(logprobs, old).detach()
    sums = torch.zeros(int(sequences.max()) + 1, dtype=of_tokens.dtype, device=of_tokens.device).index_add_(0, sequences, of_tokens)
    means = sums / torch.bincount(sequences).clamp(min=1)
    return torch.exp(means[sequences] + logprobs - logprobs.detach())


def clipped_surrogate(ratio: Tensor, advantages: Tensor, bounds: Bounds) -> Tensor:
    """min(r A, clip(r, 1 - low, 1 + high) A) (Schulman et al. 2017, eq. 7), not below dual x A where A < 0."""
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - bounds.low, 1 + bounds.high) * advantages)
    return torch.where(advantages < 0, torch.maximum(surrogate, bounds.dual * advantages), surrogate) if bounds.dual else surrogate


def weighted_log_likelihood(ratio: Tensor, logprobs: Tensor, advantages: Tensor, bounds: Bounds) -> Tensor:
    """CISPO: the clipped ratio, without gradient, times A log pi: no token loses its gradient (MiniMax-M1, 2025, eq. 4)."""
    return ratio.clamp(1 - bounds.low, 1 + bounds.high).detach() * advantages * logprobs


def policy_loss(surrogate: Tensor, mask: Tensor, *, denominator: float, weights: Tensor | None = None) -> Tensor:
    """What is minimised: minus the mean surrogate.

    Args:
        surrogate: of each token.
        mask: which tokens count.
        denominator: tokens of the optimizer step.
        weights: of each token, such as importance weights against the sampler; None is 1.
    """
    return -token_mean(surrogate if weights is None else surrogate * weights, mask, denominator)


def shares(lengths: Tensor, mean: str, constant: int) -> Tensor:
    """What a token of each sequence weighs, so that a sum over tokens divided by the number of tokens is the mean that is wanted.

    Args:
        lengths: [n] action tokens of each sequence of the optimizer step.
        mean: `token`: over all tokens; `sequence`: over sequences, of each one's mean over tokens (GRPO); `constant`: over sequences, of each
            one's sum over `constant` (Dr. GRPO: long ones are not diluted).
        constant: tokens that count as one sequence.

    Returns:
        [n]
    """
    if mean == "token":
        return torch.ones(len(lengths))
    return lengths.sum() / (len(lengths) * (lengths if mean == "sequence" else torch.full_like(lengths, constant)))


def value_loss(values: Tensor, old: Tensor, returns: Tensor, mask: Tensor, *, clip: float, denominator: float) -> Tensor:
    """Half the larger squared error of the value and of the value clipped to within `clip` of the old one.

    0.5 max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2): PPO's implementation in OpenAI's baselines.
    """
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * token_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), mask, denominator)


def squared_error(values: Tensor, returns: Tensor, mask: Tensor, *, denominator: float) -> Tensor:
    """0.5 (V - R)^2: the value loss without an old value to stay near."""
    return 0.5 * token_mean((values - returns) ** 2, mask, denominator)


def kl_k1(logprobs: Tensor, reference: Tensor) -> Tensor:
    """KL(pi || reference) from samples of pi, estimator k1 = log pi - log reference: unbiased, any sign (Schulman 2020)."""
    return logprobs - reference


def kl_k2(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimator k2 = (log pi - log reference)^2 / 2: biased, never negative, low variance (Schulman 2020)."""
    return 0.5 * (logprobs - reference) ** 2


def kl_k3(logprobs: Tensor, reference: Tensor) -> Tensor:
    """Estimator k3 = x - 1 - log x with x = reference / pi: unbiased and never negative (Schulman 2020, "Approximating KL divergence")."""
    difference = log_ratio(reference, logprobs)
    return torch.exp(difference) - 1 - difference


KL_ESTIMATORS = {"k1": kl_k1, "k2": kl_k2, "k3": kl_k3}


def importance_weights(old: Tensor, behaviour: Tensor, cap: float, *, masked: bool = False) -> Tensor:
    """Importance weights w = exp(old - behaviour) of the trainer against the sampler: min(w, cap) (Ionides 2008), or, `masked`, 0 above the cap.

    Args:
        old: the trainer's log-probabilities under the weights that sampled.
        behaviour: the sampler's own.
        cap: the largest weight.
    """
    weights = probability_ratio(old, behaviour)
    return torch.where(weights > cap, torch.zeros_like(weights), weights) if masked else weights.clamp(max=cap)


def clip_fraction(ratio: Tensor, mask: Tensor, bounds: Bounds) -> Tensor:
    """Share of the counted tokens whose ratio lies outside the interval."""
    outside = ((ratio < 1 - bounds.low) | (ratio > 1 + bounds.high)).float()
    return token_mean(outside, mask, max(float(mask.sum()), 1.0))


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than the mean; 0 where all returns are equal."""
    if len(returns) < 2 or float(returns.var()) < 1e-12:
        return 0.0
    return float(1 - (returns - values).var() / returns.var())


def negative_log_likelihood(logprobs: Tensor, mask: Tensor, *, denominator: float) -> Tensor:
    """The supervised loss: mean of -log pi over the counted tokens."""
    return -token_mean(logprobs, mask, denominator)
