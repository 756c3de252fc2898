"""Intervals and tests against worked examples, publications, SciPy, simulated coverage, and their properties."""

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from apprentice.evaluation.statistics import Difference, paired_difference, share_interval, sign_flip_p

shares = st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]), min_size=1, max_size=30)
differences = st.lists(st.floats(-1, 1), min_size=1, max_size=30)


def compared(wins: int, losses: int, n: int) -> Difference:
    """Compare tasks of one scenario each: `wins` are won, `losses` lost, the others tied."""
    after = np.array([1.0] * wins + [0.0] * (n - wins))
    before = np.array([0.0] * wins + [1.0] * losses + [0.0] * (n - wins - losses))
    return paired_difference(after, before, range(n))


def scenarios_of(tasks: int, each: int) -> list[int]:
    return [task // each for task in range(tasks)]


def test_wilson_agrees_with_publications():
    # Newcombe 1998, Statistics in Medicine 17, table I: 81 of 263, and 15 of 148.
    assert share_interval(np.arange(263) < 81, range(263)) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert share_interval(np.arange(148) < 15, range(148)) == pytest.approx((0.0624, 0.1605), abs=1e-4)


@pytest.mark.parametrize(("right", "n"), [(0, 30), (7, 30), (40, 80), (254, 255), (255, 255)])
def test_wilson_agrees_with_scipy(right, n):
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert share_interval(np.arange(n) < right, range(n)) == pytest.approx((expected.low, expected.high))


def test_none_or_all_of_eighty_do_not_claim_certainty():
    low, high = share_interval(np.zeros(80), range(80))
    assert (low, high) == (0.0, pytest.approx(0.0458, abs=1e-4))
    assert share_interval(np.ones(80), range(80)) == (pytest.approx(1 - high), 1.0)


@pytest.mark.parametrize("n", [30, 80, 255])
def test_wilson_covers_95_percent_on_average_and_never_much_less(n):
    ends = [share_interval(np.arange(n) < right, range(n)) for right in range(n + 1)]
    coverages = []
    for p in np.linspace(0.02, 0.98, 97):
        covered = [low <= p <= high for low, high in ends]
        coverages.append(sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1) if covered[k]))
    assert np.mean(coverages) == pytest.approx(0.95, abs=0.01)
    assert min(coverages) > 0.89


def clustered(generator: np.random.Generator, scenarios: int, each: int, win: float, loss: float, together: float) -> np.ndarray:
    """Sample differences of 1, -1 and 0. With probability `together`, a task takes the difference of its scenario."""
    chances = (win, loss, 1 - win - loss)
    own = generator.choice([1.0, -1.0, 0.0], p=chances, size=(scenarios, each))
    shared = generator.choice([1.0, -1.0, 0.0], p=chances, size=(scenarios, 1))
    return np.where(generator.random((scenarios, each)) < together, shared, own).ravel()


@pytest.mark.parametrize(("scenarios", "each"), [(20, 1), (80, 1), (12, 2), (40, 2), (24, 7)])
@pytest.mark.parametrize(("win", "loss"), [(0.05, 0.0), (0.1, 0.05), (0.4, 0.02)])
def test_the_paired_interval_covers_the_truth_in_simulated_evaluations(scenarios, each, win, loss):
    generator, clusters = np.random.default_rng(0), scenarios_of(scenarios * each, each)
    held = 0
    for _ in range(600):
        drawn = clustered(generator, scenarios, each, win, loss, together=0.7)
        one = paired_difference(drawn, np.zeros_like(drawn), clusters)
        held += one.low <= win - loss <= one.high
    assert held / 600 > 0.93


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_the_interval_of_a_share_covers_the_truth_where_tasks_share_scenarios(share):
    generator, clusters = np.random.default_rng(0), scenarios_of(36, 3)
    held = 0
    for _ in range(600):
        low, high = share_interval(clustered(generator, 12, 3, share, 0.0, together=0.8), clusters)
        held += low <= share <= high
    assert held / 600 > 0.93


@given(shares, st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_the_interval_of_a_share_contains_it(values, each):
    low, high = share_interval(np.array(values), scenarios_of(len(values), each))
    assert 0 <= low <= np.mean(values) + 1e-9 and np.mean(values) - 1e-9 <= high <= 1


def test_repeating_every_task_within_its_scenario_does_not_narrow_an_interval():
    values = np.array([1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])
    alone, repeated = share_interval(values, range(12)), share_interval(np.repeat(values, 5), scenarios_of(60, 5))
    assert repeated[1] - repeated[0] >= alone[1] - alone[0]
    assert sign_flip_p(values) == paired_difference(np.repeat(values, 5), np.zeros(60), scenarios_of(60, 5)).p


def test_several_episodes_per_task_narrow_the_interval_of_a_share():
    once, often = np.tile([0.0, 1.0], 20), np.full(40, 0.5) + np.tile([-0.125, 0.125], 20)
    (low, high), (low_often, high_often) = (share_interval(values, range(40)) for values in (once, often))
    assert high_often - low_often < (high - low) / 2


def test_mcnemar_agrees_with_worked_examples():
    # 7 tasks won, 1 lost, 12 tied: 2 * (C(8,0) + C(8,1)) / 2**8
    assert sign_flip_p(np.array([1.0] * 7 + [-1.0] + [0.0] * 12)) == pytest.approx(18 / 256)
    assert sign_flip_p(np.array([1.0] * 4 + [0.0] * 76)) == pytest.approx(0.125)


def test_no_difference_is_no_evidence():
    assert sign_flip_p(np.zeros(9)) == 1.0
    assert sign_flip_p(np.array([1.0, -1.0])) == 1.0


@pytest.mark.parametrize("drawn", [[0.5, 0.25, -0.25, 1.0, 0.75, 0.5, -0.5, 1.0], [1 / 3, 2 / 3, -1 / 3, 0.5, 1.0], [3.0, 2.0, -1.0, 1.0, 2.0]])
def test_the_test_agrees_with_scipys_enumeration_of_all_signs(drawn):
    exact = permutation_test((np.array(drawn),), np.sum, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert sign_flip_p(np.array(drawn)) == pytest.approx(exact.pvalue)


@given(differences)
@settings(max_examples=40, deadline=None)
def test_p_is_a_probability_and_independent_of_the_direction(sample):
    p = sign_flip_p(np.array(sample))
    assert 0 < p <= 1
    assert p == sign_flip_p(-np.array(sample))


def test_thousands_of_fractions_are_tested_in_time():
    drawn = np.random.default_rng(0).normal(0.05, 0.3, 3000)
    assert sign_flip_p(drawn) < 1e-6
    assert sign_flip_p(drawn - drawn.mean()) > 0.9


def test_bonett_and_price_agree_with_a_worked_example():
    # 6 won and 1 lost of 60: (7 - 2) / 62, and its variance (9 / 62 - (5 / 62)**2) / 62;
    # Student's quantile at 59 degrees of freedom is 2.0010.
    half = 2.0010 * ((9 / 62 - (5 / 62) ** 2) / 62) ** 0.5
    result = compared(6, 1, 60)
    assert (result.low, result.high) == pytest.approx((5 / 62 - half, 5 / 62 + half), abs=1e-4)
    assert (result.mean, result.n, result.scenarios) == (pytest.approx(5 / 60), 60, 60)


@given(st.integers(0, 20), st.integers(0, 20), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_the_interval_of_a_difference_contains_it_and_changes_sign_with_it(wins, losses, each):
    drawn = np.array([1.0] * wins + [-1.0] * losses + [0.0] * 20)
    one, other = (paired_difference(side, np.zeros_like(drawn), scenarios_of(drawn.size, each)) for side in (drawn, -drawn))
    assert -1 <= one.low <= one.mean <= one.high <= 1
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_no_difference_at_all_does_not_claim_certainty():
    assert compared(0, 0, 80).high == pytest.approx(0.0343, abs=1e-3)


@pytest.mark.parametrize(("wins", "losses", "n", "proven"), [(4, 0, 80, False), (9, 0, 80, True), (12, 0, 19, False), (12, 0, 20, True), (0, 12, 80, False)])
def test_a_gain_is_proven_by_enough_tasks_an_interval_and_a_test(wins, losses, n, proven):
    assert compared(wins, losses, n).proven() is proven


def test_a_proof_needs_each_condition():
    good = {"mean": 0.1, "low": 0.01, "high": 0.2, "p": 0.05, "n": 20, "scenarios": 10}
    assert Difference(**good).proven()
    for failed in ({"low": 0.0}, {"p": 0.051}, {"n": 19}, {"scenarios": 9}):
        assert not Difference(**good | failed).proven()
    assert Difference(**good).proven(0.005) and not Difference(**good).proven(0.01)
    assert Difference(**good | {"mean": -0.1, "low": -0.2, "high": -0.01}).proven_worse and not Difference(**good).proven_worse


def test_few_scenarios_prove_nothing_however_many_tasks_they_have():
    result = paired_difference(np.ones(100), np.zeros(100), scenarios_of(100, 20))
    assert (result.scenarios, result.p) == (5, 2 / 2**5)
    assert not result.proven()
