"""Losses and estimators against NumPy and by hand."""

import numpy as np
import pytest
import torch

from apprentice.learning import objectives

RNG = np.random.default_rng(1)
LOGPROBS, OLD, ADVANTAGES, VALUES, RETURNS = (RNG.normal(size=12) for _ in range(5))
MASK = np.array([1, 1, 0, 1, 1, 1, 0, 1, 0, 1, 1, 1])


def tensors(*arrays):
    return [torch.tensor(array) for array in arrays]


def test_policy_loss_equals_numpy():
    logprobs, old, advantages, mask = tensors(LOGPROBS, OLD, ADVANTAGES, MASK)
    weights = np.linspace(0.5, 1.5, 12)
    loss = objectives.policy_loss(logprobs, old, advantages, mask, clip=0.2, denominator=20.0, weights=torch.tensor(weights))
    ratio = np.exp(LOGPROBS - OLD)
    surrogate = np.where(ADVANTAGES > 0, np.minimum(ratio, 1.2), np.maximum(ratio, 0.8)) * ADVANTAGES
    assert float(loss) == pytest.approx(-(surrogate * weights * MASK).sum() / 20)


def test_policy_loss_of_a_hand_worked_example():
    # Ratio 2 with A = 1 is clipped to 1.2; ratio 0.5 with A = 1 is not; ratio 0.5 with A = -1 is clipped to -0.8.
    logprobs = torch.log(torch.tensor([2.0, 0.5, 0.5]))
    loss = objectives.policy_loss(logprobs, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), torch.ones(3), clip=0.2, denominator=3)
    assert float(loss) == pytest.approx(-(1.2 + 0.5 - 0.8) / 3)


def test_a_clipped_token_has_no_gradient():
    logprobs = torch.log(torch.tensor([2.0, 1.0])).requires_grad_()
    objectives.policy_loss(logprobs, torch.zeros(2), torch.ones(2), torch.ones(2), clip=0.2, denominator=2).backward()
    assert logprobs.grad.tolist() == pytest.approx([0.0, -0.5])


def test_value_loss_takes_the_larger_error():
    # V = 1, V_old = 0, clip 0.2, R = 2: max(1, (0.2 - 2)^2) = 3.24, halved. V = 0.1 lies inside: (0.1 - 2)^2 / 2.
    values = torch.tensor([1.0, 0.1])
    loss = objectives.value_loss(values, torch.zeros(2), torch.full((2,), 2.0), torch.ones(2), clip=0.2, denominator=1)
    assert float(loss) == pytest.approx(1.62 + 1.805)


def test_value_loss_equals_numpy():
    values, old, returns, mask = tensors(VALUES, OLD, RETURNS, MASK)
    clipped = np.clip(VALUES, OLD - 0.3, OLD + 0.3)
    expected = 0.5 * (np.maximum((VALUES - RETURNS) ** 2, (clipped - RETURNS) ** 2) * MASK).sum() / 7
    assert float(objectives.value_loss(values, old, returns, mask, clip=0.3, denominator=7)) == pytest.approx(expected)


def test_kl_estimators_approach_the_true_divergence():
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.5, 0.2])
    true = (p * np.log(p / q)).sum()
    pi, reference = tensors(np.log(p), np.log(q))
    weights = torch.tensor(p)
    assert float((objectives.kl_k1(pi, reference) * weights).sum()) == pytest.approx(true)
    assert float((objectives.kl_k3(pi, reference) * weights).sum()) == pytest.approx(true)
    assert float(objectives.kl_k2(pi, reference)[0]) == pytest.approx(np.log(2) ** 2 / 2)
    assert objectives.kl_k3(pi, reference).min() >= 0


def test_importance_weights_are_truncated():
    weights = objectives.importance_weights(torch.log(torch.tensor([0.5, 0.1])), torch.log(torch.tensor([0.1, 0.2])), 2.0)
    assert weights.tolist() == pytest.approx([2.0, 0.5])


def test_clip_fraction_counts_ratios_outside():
    ratios = torch.tensor([1.0, 1.3, 0.7, 1.1, 9.0])
    assert float(objectives.clip_fraction(ratios.log(), torch.zeros(5), torch.tensor([1, 1, 1, 1, 0]), 0.2)) == pytest.approx(0.5)


def test_explained_variance_equals_numpy():
    expected = 1 - np.var(RETURNS - VALUES) / np.var(RETURNS)
    assert objectives.explained_variance(*tensors(VALUES, RETURNS)) == pytest.approx(expected)
    assert objectives.explained_variance(torch.randn(3), torch.ones(3)) == 0.0


@pytest.mark.parametrize("poison", [1e30, float("nan"), float("inf")])
def test_masked_tokens_never_change_a_gradient(poison):
    def gradient(masked_value):
        logprobs = torch.tensor(np.where(MASK, LOGPROBS, masked_value), requires_grad=True)
        _, old, advantages, mask, values, returns = tensors(LOGPROBS, OLD, ADVANTAGES, MASK, VALUES, RETURNS)
        loss = objectives.policy_loss(torch.where(mask.bool(), logprobs, 0.0), old, advantages, mask, clip=0.2, denominator=9)
        loss = loss + objectives.token_mean(objectives.kl_k3(torch.where(mask.bool(), logprobs, 0.0), old), mask, 9)
        loss.backward()
        return logprobs.grad

    assert torch.equal(gradient(0.0), gradient(poison))
    assert gradient(poison)[MASK == 0].abs().max() == 0
