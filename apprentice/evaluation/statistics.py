"""Uncertainty of means over tasks: bootstrap intervals and a paired test, in NumPy, with seeds passed in."""

import math
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
BLOCK_ENTRIES = 4_000_000
"""Resampled entries held at once; bounds memory to about 64 MB."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A paired difference of two means over the same tasks."""

    mean: float
    low: float
    high: float
    """95% bootstrap interval; tasks are resampled, both conditions together."""
    p: float
    """Two-sided p-value of the sign-flip test."""
    n: int
    """Tasks."""


def bootstrap_interval(values: np.ndarray, resamples: int, seed: int, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval of a mean (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13).

    Args:
        values: one value a task, shape (tasks,). For a paired difference: the differences.
        resamples: how many times the tasks are drawn with replacement.

    Returns:
        The lower and upper end; (nan, nan) without values.
    """
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ENTRIES // values.size)
    means = np.empty(resamples)
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        means[start:stop] = values[generator.integers(values.size, size=(stop - start, values.size))].mean(axis=1)
    tail = (1 - level) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def share_interval(values: np.ndarray, resamples: int, seed: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of a mean of values in [0, 1]: the bootstrap's, or the exact binomial one where every value is 0 or every value is 1.

    There the bootstrap has nothing to resample and would claim certainty; Clopper & Pearson 1934 has the closed form
    [0, 1 - (tail)^(1/n)] for no success, and its mirror image for no failure.
    """
    values = np.asarray(values, dtype=float)
    if values.size and (values == values[0]).all() and values[0] in (0.0, 1.0):
        reach = 1 - ((1 - level) / 2) ** (1 / values.size)
        return (0.0, reach) if values[0] == 0.0 else (1 - reach, 1.0)
    return bootstrap_interval(values, resamples, seed, level)


def sign_flip_p(differences: np.ndarray, resamples: int, seed: int) -> float:
    """Two-sided p-value of "the differences are symmetric around 0", by flipping their signs (Fisher 1935, The Design of Experiments).

    Where all non-zero differences have the same size, as for one greedy episode a task, this is McNemar's exact test and is
    computed exactly from the binomial distribution. Otherwise signs are drawn at random, and the observed assignment counts
    as one of the draws (Phipson & Smyth 2010), so that p is never 0.

    Args:
        differences: one difference a task, shape (tasks,).
    """
    differences = np.asarray(differences, dtype=float)
    differences = differences[differences != 0]
    if differences.size == 0:
        return 1.0
    sizes = np.abs(differences)
    if np.allclose(sizes, sizes[0]):
        return _binomial_two_sided(int((differences > 0).sum()), differences.size)
    generator = np.random.default_rng(seed)
    block = max(1, BLOCK_ENTRIES // sizes.size)
    observed, extreme = abs(differences.sum()), 0
    for start in range(0, resamples, block):
        signs = generator.integers(2, size=(min(block, resamples - start), sizes.size)) * 2 - 1
        extreme += int((np.abs(signs @ sizes) >= observed - 1e-9).sum())
    return (extreme + 1) / (resamples + 1)


def paired_difference(after: np.ndarray, before: np.ndarray, resamples: int, seed: int) -> Difference:
    """Mean of `after - before` over tasks, with its interval and test.

    Args:
        after, before: one value a task, shape (tasks,), the same tasks in the same order.
    """
    differences = np.asarray(after, dtype=float) - np.asarray(before, dtype=float)
    low, high = bootstrap_interval(differences, resamples, seed)
    mean = float(differences.mean()) if differences.size else math.nan
    return Difference(mean, low, high, sign_flip_p(differences, resamples, seed), differences.size)


def _binomial_two_sided(successes: int, trials: int) -> float:
    """P(as far from the middle or farther) under a fair coin; exact."""
    tail = min(successes, trials - successes)
    ways = sum(math.comb(trials, k) for k in range(tail + 1))
    return min(1.0, 2 * ways / 2**trials)
