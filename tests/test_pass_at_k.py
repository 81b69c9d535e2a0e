import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from rlvr_trl.evaluation import (
    answer_entropy,
    bootstrap_interval,
    mean_interval,
    paired_difference,
    pass_at_k,
    wrong_answer_diversity,
)
from rlvr_trl.evaluation.statistics import BOOTSTRAP_CHUNK


def test_pass_at_k_is_the_share_of_subsets_that_hold_a_correct_sample():
    for n in range(1, 9):
        for c, k in itertools.product(range(n + 1), range(1, n + 1)):
            samples = [1] * c + [0] * (n - c)
            subsets = list(itertools.combinations(samples, k))
            assert pass_at_k(n, c, k) == pytest.approx(np.mean([max(s) for s in subsets]), abs=1e-12)


@pytest.mark.parametrize("n", [32, 100, 1024, 4096])
def test_pass_at_k_is_exact_at_large_n(n):
    for c, k in itertools.product([0, 1, 2, n // 3, n // 2, n - 2, n - 1, n], [1, 2, 8, n // 2, n - 1, n]):
        exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert pass_at_k(n, c, k) == float(exact)


def test_pass_at_k_differs_from_the_biased_estimate_with_replacement():
    assert pass_at_k(32, 1, 16) == 0.5
    with_replacement = 1 - (31 / 32) ** 16
    assert with_replacement == pytest.approx(0.398, abs=1e-3)


def test_pass_at_k_takes_ragged_arrays_and_keeps_their_shape():
    n, c = np.array([[4, 8, 16], [5, 4, 9]]), np.array([[1, 0, 16], [2, 4, 3]])
    values = pass_at_k(n, c, 4)
    assert values.shape == (2, 3) and values.dtype == np.float64
    for i in np.ndindex(2, 3):
        assert values[i] == pass_at_k(int(n[i]), int(c[i]), 4)
    assert pass_at_k([4, 4], 1, 2).tolist() == [0.5, 0.5]
    assert pass_at_k([], [], 2).shape == (0,)
    assert isinstance(pass_at_k(4, 1, 2), float)


@pytest.mark.parametrize(
    "args, message",
    [
        ((4, 1, 8), "k is 8 and a problem has 4 samples"),
        (([16, 4], [1, 1], 8), "k is 8 and a problem has 4 samples"),
        ((4, 5, 2), r"num_correct \(5\) exceeds num_samples \(4\)"),
        ((4, -1, 2), "num_correct must be non-negative integers"),
        ((-4, 0, 2), "num_samples must be non-negative integers"),
        ((4, 1, 0), "k is 0"),
        ((4, 1, [1, 2]), "k is"),
        ((4, 1.5, 2), "num_correct must be non-negative integers"),
        ((4, 1, 1.5), "k must be non-negative integers"),
        ((4, math.nan, 1), "num_correct must be non-negative integers"),
        ((4, [True, False], 1), "num_correct must be non-negative integers"),
    ],
)
def test_pass_at_k_refuses(args, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(*args)


def test_answer_entropy():
    assert answer_entropy(["a"] * 5) == 0.0
    assert answer_entropy(["a", "b", "c", None]) == pytest.approx(math.log(4))
    assert answer_entropy([None, None, "a", "a"]) == pytest.approx(math.log(2))
    assert answer_entropy(["a", "a", "a", "b"]) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    with pytest.raises(ValueError, match="got 0"):
        answer_entropy([])


def test_wrong_answer_diversity():
    answers = ["1", "2", "2", None, None, "3"]
    assert wrong_answer_diversity(answers, [True, False, False, False, False, False]) == 3 / 5
    assert wrong_answer_diversity([None, None], [False, False]) == 0.5
    assert math.isnan(wrong_answer_diversity(["1"], [True]))
    with pytest.raises(ValueError, match="6 samples, but correct holds 1"):
        wrong_answer_diversity(answers, [True])


def test_bootstrap_interval_covers_the_mean():
    # 2000 experiments of 60 problems, one per column. The percentile interval of a mean is a little narrow: 0.95
    # becomes about 0.94, and 2000 experiments tell it to within ±0.01 (two standard errors).
    values = np.random.default_rng(0).normal(size=(60, 2000))
    low, high = bootstrap_interval(values, confidence=0.95, num_resamples=1000)
    assert 0.925 < np.mean((low < 0) & (high > 0)) < 0.96
    # and its width is that of the normal approximation
    assert np.mean(high - low) == pytest.approx(2 * 1.96 * np.mean(values.std(axis=0)) / math.sqrt(60), rel=0.03)


# The second case takes more than one chunk
@pytest.mark.parametrize("num_problems, num_resamples", [(7, 500), (3000, 1000)])
def test_bootstrap_interval_matches_a_plain_loop(num_problems, num_resamples):
    assert (num_problems * num_resamples > BOOTSTRAP_CHUNK) == (num_problems == 3000)
    values = np.random.default_rng(1).random(num_problems)
    rng = np.random.default_rng(3)
    means = [values[rng.integers(num_problems, size=num_problems)].mean() for _ in range(num_resamples)]
    assert bootstrap_interval(values, 0.9, num_resamples, seed=3) == pytest.approx(np.quantile(means, [0.05, 0.95]))


def test_bootstrap_interval_resamples_the_same_problems_for_every_metric():
    values = np.random.default_rng(2).random((40, 3))
    low, high = bootstrap_interval(values, num_resamples=300, seed=5)
    for metric in range(3):
        alone = bootstrap_interval(values[:, metric], num_resamples=300, seed=5)
        assert alone == pytest.approx((low[metric], high[metric]), abs=1e-12)
    assert bootstrap_interval(values[:, 2], num_resamples=300, seed=6) != alone


def beta_quantile(a, b, q):
    return np.quantile(np.random.default_rng(9).beta(a, b, 400_000), q)


@pytest.mark.parametrize("ones", [0, 1, 15, 29, 30])
def test_mean_interval_of_zeros_and_ones_is_that_of_two_betas(ones):
    m = 30
    low, high = mean_interval(np.arange(m) < ones, num_resamples=200_000)
    assert low == (0.0 if ones == 0 else pytest.approx(beta_quantile(ones, m - ones + 0.5, 0.025), abs=0.002))
    assert high == (1.0 if ones == m else pytest.approx(beta_quantile(ones + 0.5, m - ones, 0.975), abs=0.002))
    assert high - low > 0.05  # the percentile bootstrap gives 0 for 0 and 30 ones


def test_mean_interval_has_a_width_where_all_problems_agree():
    for value in (0.0, 0.25, 1.0):
        low, high = mean_interval(np.full(30, value))
        # half a problem at the bound: G / (30 + G) of the way to it, where G is Gamma(1/2) over the sum of 30 weights
        share = beta_quantile(0.5, 30, 0.975)
        assert low == pytest.approx(value - share * value, abs=0.005) and low <= value <= high
        assert high == pytest.approx(value + share * (1 - value), abs=0.005)


def test_mean_interval_is_close_to_the_bootstrap_where_that_is_right():
    values = np.random.default_rng(0).beta(0.4, 0.8, size=500)
    assert mean_interval(values) == pytest.approx(bootstrap_interval(values), abs=0.004)


def test_mean_interval_of_several_metrics_and_chunks():
    values = np.random.default_rng(2).random((3000, 2))
    low, high = mean_interval(values, num_resamples=1000, seed=5)  # takes more than one chunk
    assert BOOTSTRAP_CHUNK < 3000 * 1000
    for metric in range(2):
        alone = mean_interval(values[:, metric], num_resamples=1000, seed=5)
        assert alone == pytest.approx((low[metric], high[metric]), abs=1e-12)
    # other bounds are the same interval on another scale
    scaled = mean_interval(2 * values[:, 0] - 1, (-1, 1), num_resamples=1000, seed=5)
    assert scaled == pytest.approx((2 * low[0] - 1, 2 * high[0] - 1))
    with pytest.raises(ValueError, match="values must be from 0.0 to 1.0, got 0.0 to 2.0"):
        mean_interval([0, 2])


# 2000 benchmarks tell a coverage of 0.95 to within ±0.01 (two standard errors)
@pytest.mark.parametrize("num_problems", [30, 200])
@pytest.mark.parametrize(("p", "n", "least", "most"), [(0.01, 1, 0.95, 1), (0.01, 16, 0.95, 1), (0.99, 16, 0.95, 1),
                                                     (0.33, 16, 0.94, 0.97)])  # fmt: skip
def test_mean_interval_covers_the_true_mean(num_problems, p, n, least, most):
    rng = np.random.default_rng(3)
    rates = rng.beta(1.2 * p, 1.2 * (1 - p), size=(num_problems, 2000))
    low, high = mean_interval(rng.binomial(n, rates) / n, num_resamples=1000)
    assert least <= np.mean((low <= p) & (p <= high)) <= most


def test_paired_difference():
    a, b = np.random.default_rng(0).random((2, 50)) / 2
    # Methods that agree on these problems may differ on others
    difference, low, high = paired_difference(a, a)
    assert (
        difference == 0
        and low == pytest.approx(-high)
        and high == pytest.approx(beta_quantile(0.5, 50, 0.975), abs=0.004)
    )
    difference, low, high = paired_difference(a, b)
    assert difference == pytest.approx(np.mean(a) - np.mean(b)) and low < difference < high
    assert paired_difference(b, a) == pytest.approx((-difference, -high, -low))
    assert low == pytest.approx(mean_interval(a - b, (-1, 1))[0])
    # The spread of the problems does not matter, only that of the differences
    assert paired_difference(a + 0.25, a)[1:] == pytest.approx(mean_interval(np.full(50, 0.25), (-1, 1)))
    with pytest.raises(ValueError, match="values from 0 to 1, got .* to 1.5"):
        paired_difference([0.5, 1.5], [0.5, 0.5])
    with pytest.raises(ValueError, match=r"\(50,\) and \(49,\)"):
        paired_difference(a, b[:-1])


@pytest.mark.parametrize(
    "values, settings, message",
    [
        ([], {}, r"shape \(0,\)"),
        ([[[1.0]]], {}, r"shape \(1, 1, 1\)"),
        ([1.0, math.nan], {}, "1 numbers that are not finite"),
        ([1.0], {"confidence": 1.0}, "confidence must be in"),
        ([1.0], {"num_resamples": 0}, "num_resamples at least 1"),
    ],
)
def test_bootstrap_interval_refuses(values, settings, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, **settings)
