"""Losses and estimators, compared with NumPy and with examples worked out by hand."""

import numpy as np
import pytest
import torch

from apprentice.learning import objectives
from apprentice.learning.objectives import ClipRange

EVEN = ClipRange(0.2, 0.2)
RNG = np.random.default_rng(1)
LOGPROBS, OLD, ADVANTAGES, VALUES, RETURNS = (RNG.normal(size=12) for _ in range(5))


def tensors(*arrays):
    return [torch.tensor(array) for array in arrays]


def ppo(logprobs, old, advantages, denominator, weights=None, clip=EVEN):
    surrogate = objectives.clipped_surrogate(objectives.probability_ratio(logprobs, old), advantages, clip)
    return objectives.policy_loss(surrogate, denominator=denominator, weights=weights)


def test_policy_loss_equals_numpy():
    logprobs, old, advantages = tensors(LOGPROBS, OLD, ADVANTAGES)
    weights = np.linspace(0.5, 1.5, 12)
    loss = ppo(logprobs, old, advantages, 20.0, torch.tensor(weights))
    ratio = np.exp(LOGPROBS - OLD)
    surrogate = np.where(ADVANTAGES > 0, np.minimum(ratio, 1.2), np.maximum(ratio, 0.8)) * ADVANTAGES
    assert float(loss) == pytest.approx(-(surrogate * weights).sum() / 20)


def test_policy_loss_of_a_hand_worked_example():
    # Ratio 2 with A = 1 is clipped to 1.2; ratio 0.5 with A = 1 is not; ratio 0.5 with A = -1 is clipped to -0.8.
    logprobs = torch.log(torch.tensor([2.0, 0.5, 0.5]))
    loss = ppo(logprobs, torch.zeros(3), torch.tensor([1.0, 1.0, -1.0]), 3)
    assert float(loss) == pytest.approx(-(1.2 + 0.5 - 0.8) / 3)


def test_a_clipped_token_has_no_gradient():
    logprobs = torch.log(torch.tensor([2.0, 1.0])).requires_grad_()
    ppo(logprobs, torch.zeros(2), torch.ones(2), 2).backward()
    assert logprobs.grad.tolist() == pytest.approx([0.0, -0.5])


def test_the_upper_bound_may_be_wider_than_the_lower():
    # Ratios 1.5 and 0.5 with A = 1 and -1: up to 1.3 and down to 0.8.
    logprobs = torch.log(torch.tensor([1.5, 0.5]))
    loss = ppo(logprobs, torch.zeros(2), torch.tensor([1.0, -1.0]), 1, clip=ClipRange(0.2, 0.3))
    assert float(loss) == pytest.approx(-(1.3 - 0.8))


def test_dual_clip_bounds_what_a_bad_token_costs():
    # Ratio 9 with A = -1 costs 9. Dual clip 3 limits that to 3, without a gradient. Ratio 2 and A = 1 are not affected.
    logprobs = torch.log(torch.tensor([9.0, 2.0, 1.1])).requires_grad_()
    advantages = torch.tensor([-1.0, -1.0, 1.0])
    loss = ppo(logprobs, torch.zeros(3), advantages, 1, clip=ClipRange(0.2, 0.2, 3.0))
    assert loss.item() == pytest.approx(3 + 2 - 1.1)
    loss.backward()
    assert logprobs.grad.tolist() == pytest.approx([0.0, 2.0, -1.1])


def test_sequence_ratio_is_the_geometric_mean_of_its_tokens():
    logprobs, old = tensors(LOGPROBS, OLD)
    sequences = torch.tensor([0] * 5 + [2] * 7)
    expected = np.repeat([np.exp((LOGPROBS - OLD)[:5].mean()), np.exp((LOGPROBS - OLD)[5:].mean())], [5, 7])
    np.testing.assert_allclose(objectives.sequence_ratio(logprobs, old, sequences), expected)


def test_the_gradient_of_gspo_is_that_of_the_sequence_ratio():
    logprobs = torch.tensor(LOGPROBS, requires_grad=True)
    old, sequences = torch.tensor(OLD), torch.tensor([0] * 5 + [1] * 7)
    lengths, advantages = torch.tensor([5, 7]), torch.tensor([1.5, -0.5], dtype=torch.float64)
    share = objectives.loss_weights(lengths, "sequence", 1)
    surrogate = objectives.sequence_ratio(logprobs, old, sequences) * advantages[sequences]
    objectives.policy_loss(surrogate, denominator=12.0, weights=share[sequences]).backward()
    found, logprobs = logprobs.grad, torch.tensor(LOGPROBS, requires_grad=True)
    ratios = torch.stack([torch.exp((logprobs - old)[:5].mean()), torch.exp((logprobs - old)[5:].mean())])
    (-(ratios * advantages).mean()).backward()
    np.testing.assert_allclose(found, logprobs.grad)


def test_cispo_keeps_the_gradient_of_a_clipped_token():
    # Ratio 2, A = 1: PPO's gradient is 0, CISPO's is the clipped ratio.
    logprobs = torch.log(torch.tensor([2.0, 1.1])).requires_grad_()
    ratio = objectives.probability_ratio(logprobs, torch.zeros(2))
    surrogate = objectives.weighted_log_likelihood(ratio, logprobs, torch.ones(2), ClipRange(0.2, 0.2))
    objectives.policy_loss(surrogate, denominator=1.0).backward()
    assert logprobs.grad.tolist() == pytest.approx([-1.2, -1.1])


@pytest.mark.parametrize("mean", ["token", "sequence", "constant"])
def test_a_mean_of_losses_is_what_it_is_called(mean):
    lengths = [5, 7]
    share = objectives.loss_weights(torch.tensor(lengths), mean, 10).repeat_interleave(torch.tensor(lengths))
    parts = np.split(LOGPROBS, [5])
    expected = {"token": LOGPROBS.mean(), "sequence": np.mean([part.mean() for part in parts]), "constant": np.mean([part.sum() / 10 for part in parts])}
    assert float(objectives.token_mean(torch.tensor(LOGPROBS) * share, 12.0)) == pytest.approx(expected[mean])


def test_value_loss_takes_the_larger_error():
    # V = 1, V_old = 0, clip 0.2, R = 2: max(1, (0.2 - 2)^2) = 3.24, halved. V = 0.1 lies inside: (0.1 - 2)^2 / 2.
    values = torch.tensor([1.0, 0.1])
    loss = objectives.value_loss(values, torch.zeros(2), torch.full((2,), 2.0), clip=0.2, denominator=1)
    assert float(loss) == pytest.approx(1.62 + 1.805)


def test_value_loss_equals_numpy():
    values, old, returns = tensors(VALUES, OLD, RETURNS)
    clipped = np.clip(VALUES, OLD - 0.3, OLD + 0.3)
    expected = 0.5 * (np.maximum((VALUES - RETURNS) ** 2, (clipped - RETURNS) ** 2)).sum() / 7
    assert float(objectives.value_loss(values, old, returns, clip=0.3, denominator=7)) == pytest.approx(expected)


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
    masked = objectives.importance_weights(torch.log(torch.tensor([0.5, 0.1])), torch.log(torch.tensor([0.1, 0.2])), 2.0, masked=True)
    assert masked.tolist() == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize("masked", [False, True])
def test_an_importance_weight_beyond_any_number_is_capped_or_0(masked):
    weights = objectives.importance_weights(torch.tensor([0.0, 0.0]), torch.tensor([-200.0, float("-inf")]), 2.0, masked=masked)
    assert weights.tolist() == ([0.0, 0.0] if masked else [2.0, 2.0])
    unknown = objectives.importance_weights(torch.tensor([float("nan")]), torch.zeros(1), 2.0, masked=masked)
    assert unknown.isnan().all()  # an alarm's business, not to be hidden


@pytest.mark.parametrize("difference", [30.0, 200.0, -200.0])
def test_one_token_whose_log_ratio_is_out_of_bounds_leaves_the_step_finite(difference):
    logprobs = torch.tensor([difference - 201, -1.0], requires_grad=True)
    old, advantages, sequences = torch.tensor([-201.0, -1.1]), torch.tensor([-1.0, 1.0]), torch.tensor([0, 1])
    ratios = [objectives.probability_ratio(logprobs, old), objectives.sequence_ratio(logprobs, old, sequences)]
    losses = [objectives.policy_loss(objectives.clipped_surrogate(ratio, advantages, EVEN), denominator=2.0) for ratio in ratios]
    losses += [objectives.kl_k3(logprobs, old).mean(), objectives.kl_k3(old, logprobs).mean()]
    for loss in losses:
        assert loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, logprobs, retain_graph=True)
        assert gradient.isfinite().all() and gradient[1] != 0


def test_log_ratios_within_bounds_are_not_touched():
    logprobs, old = torch.tensor([19.9, -19.9]).double(), torch.zeros(2).double()
    assert torch.equal(objectives.probability_ratio(logprobs, old), torch.exp(logprobs))
    assert torch.equal(objectives.kl_k3(old, logprobs), torch.exp(logprobs) - 1 - logprobs)


def test_clip_fraction_counts_ratios_outside():
    ratios = torch.tensor([1.0, 1.3, 0.7, 1.1])
    assert float(objectives.clip_fraction(ratios, ClipRange(0.2, 0.2))) == pytest.approx(0.5)
    assert float(objectives.clip_fraction(ratios, ClipRange(0.2, 0.4))) == pytest.approx(0.25)


def test_explained_variance_equals_numpy():
    expected = 1 - np.var(RETURNS - VALUES) / np.var(RETURNS)
    assert objectives.explained_variance(*tensors(VALUES, RETURNS)) == pytest.approx(expected)
    assert objectives.explained_variance(torch.randn(3), torch.ones(3)) == 0.0
