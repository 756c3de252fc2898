"""The losses and estimators of PPO: pure functions of tensors.

All arguments named by a tensor are [T], one entry an action token of a micro-batch; `mask` [T] is 1 where a token counts.
Losses are sums over the tokens divided by `denominator`, the number of counted tokens of the whole optimizer step over all
its micro-batches and ranks: so a token weighs the same in whichever micro-batch it lies.
"""

import torch
from torch import Tensor


def token_mean(values: Tensor, mask: Tensor, denominator: float) -> Tensor:
    """Sum of `values` over `mask`, divided by the step's token count. A masked token adds exactly 0, also if it is not finite."""
    return torch.where(mask.bool(), values, torch.zeros_like(values)).sum() / denominator


def probability_ratio(logprobs: Tensor, old: Tensor) -> Tensor:
    """pi(a|s) / pi_old(a|s)."""
    return torch.exp(logprobs - old)


def policy_loss(logprobs: Tensor, old: Tensor, advantages: Tensor, mask: Tensor, *, clip: float, denominator: float, weights: Tensor | None = None) -> Tensor:
    """PPO's clipped surrogate, to be minimised: -min(r A, clip(r, 1 - clip, 1 + clip) A) (Schulman et al. 2017, eq. 7).

    Args:
        logprobs: current log-probabilities; the only argument with a gradient.
        old: the trainer's log-probabilities before the update.
        advantages: how much better than expected each token was.
        mask: which tokens count.
        clip: half-width of the interval for the ratio.
        denominator: tokens of the optimizer step.
        weights: truncated importance weights against the sampler; None is 1.
    """
    ratio = probability_ratio(logprobs, old)
    surrogate = torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
    return -token_mean(surrogate if weights is None else surrogate * weights, mask, denominator)


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
    difference = reference - logprobs
    return torch.exp(difference) - 1 - difference


def importance_weights(old: Tensor, behaviour: Tensor, cap: float) -> Tensor:
    """Truncated importance weights min(exp(old - behaviour), cap) of the trainer against the sampler (Ionides 2008).

    Args:
        old: the trainer's log-probabilities under the weights that sampled.
        behaviour: the sampler's own.
        cap: the largest weight.
    """
    return torch.exp(old - behaviour).clamp(max=cap)


def clip_fraction(logprobs: Tensor, old: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Share of the counted tokens whose ratio lies outside the interval."""
    outside = ((probability_ratio(logprobs, old) - 1).abs() > clip).float()
    return token_mean(outside, mask, max(float(mask.sum()), 1.0))


def explained_variance(values: Tensor, returns: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns): 1 is perfect, 0 no better than the mean; 0 where all returns are equal."""
    if len(returns) < 2 or float(returns.var()) < 1e-12:
        return 0.0
    return float(1 - (returns - values).var() / returns.var())


def negative_log_likelihood(logprobs: Tensor, mask: Tensor, *, denominator: float) -> Tensor:
    """The supervised loss: mean of -log pi over the counted tokens."""
    return -token_mean(logprobs, mask, denominator)
