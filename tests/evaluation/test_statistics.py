"""Intervals and tests against hand-worked cases, NumPy written independently, and their properties."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apprentice.evaluation.statistics import bootstrap_interval, paired_difference, share_interval, sign_flip_p

values = st.lists(st.floats(-1, 1), min_size=1, max_size=30)


def test_bootstrap_of_a_large_sample_is_near_the_normal_interval():
    sample = np.random.default_rng(1).normal(3, 2, 2000)
    half = 1.96 * sample.std() / np.sqrt(sample.size)
    low, high = bootstrap_interval(sample, 4000, seed=0)
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.01)


def test_bootstrap_equals_an_independent_resampling_loop():
    sample = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    generator = np.random.default_rng(7)
    means = [sample[generator.integers(5, size=5)].mean() for _ in range(500)]
    assert bootstrap_interval(sample, 500, seed=7) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))))


def test_interval_does_not_depend_on_how_the_work_is_cut_into_blocks(monkeypatch):
    sample = np.random.default_rng(2).random(50)
    whole = bootstrap_interval(sample, 300, seed=3)
    monkeypatch.setattr("apprentice.evaluation.statistics.BLOCK_ENTRIES", 700)
    assert bootstrap_interval(sample, 300, seed=3) == pytest.approx(whole)


@given(values, st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_interval_lies_within_the_values_and_is_repeatable(sample, seed):
    low, high = bootstrap_interval(np.array(sample), 100, seed)
    assert min(sample) - 1e-9 <= low <= high <= max(sample) + 1e-9
    assert (low, high) == bootstrap_interval(np.array(sample), 100, seed)


def test_no_success_in_thirty_does_not_claim_certainty():
    assert share_interval(np.zeros(30), 1000, 0) == pytest.approx((0.0, 0.1157), abs=1e-4)
    assert share_interval(np.ones(30), 1000, 0) == pytest.approx((0.8843, 1.0), abs=1e-4)


def test_mcnemar_by_hand():
    # 7 tasks won, 1 lost, 12 tied: 2 * (C(8,0) + C(8,1)) / 2**8
    assert sign_flip_p(np.array([1.0] * 7 + [-1.0] + [0.0] * 12), 1000, 0) == pytest.approx(18 / 256)


def test_no_difference_is_no_evidence():
    assert sign_flip_p(np.zeros(9), 1000, 0) == 1.0
    assert sign_flip_p(np.array([1.0, -1.0]), 1000, 0) == 1.0


def test_sampled_signs_agree_with_all_signs_enumerated():
    differences = np.array([0.5, 0.25, -0.25, 1.0, 0.75, 0.5, -0.5, 1.0])
    sums = [abs(np.dot(signs, np.abs(differences))) for signs in product((-1, 1), repeat=differences.size)]
    exact = np.mean([total >= abs(differences.sum()) - 1e-9 for total in sums])
    assert sign_flip_p(differences, 20_000, 0) == pytest.approx(exact, abs=0.01)


@given(values)
@settings(max_examples=40, deadline=None)
def test_p_is_a_probability_and_does_not_care_for_the_direction(sample):
    p = sign_flip_p(np.array(sample), 200, 0)
    assert 0 < p <= 1
    assert p == sign_flip_p(-np.array(sample), 200, 0)


def test_pairing_narrows_the_interval():
    before = np.tile([0.0, 1.0], 50)
    after = before.copy()
    after[:10:2] = 1.0
    result = paired_difference(after, before, 2000, 0)
    assert result.mean == pytest.approx(0.05)
    assert 0 < result.low < 0.05 < result.high < 0.12
    assert (result.n, result.p) == (100, 2 / 2**5)
