"""Statistics of the sampled answers to many problems: pass@k, answer entropy, wrong-answer diversity, intervals.

Plain NumPy: nothing here knows a model, a tokenizer or a trainer.
"""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike


# Resampled indices that the bootstrap holds at once: 2**21 of them take 16 MiB. The size of a chunk depends on the
# number of problems alone, so that every metric over the same problems draws the same resampled sets.
BOOTSTRAP_CHUNK = 2**21


@overload
def pass_at_k(num_samples: int, num_correct: int, k: int) -> float: ...


@overload
def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> np.ndarray: ...


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> float | np.ndarray:
    """
    Unbiased pass@k of each problem, `1 - C(n - c, k) / C(n, k)`: the chance that k of its n samples, drawn without
    replacement, hold at least one of the c correct ones (arXiv 2107.03374, Eq. 1).

    The binomials are Python integers and their quotient is rounded once, so the result is the nearest float at any n.

    Args:
        num_samples (`int` or array of integers): n, the number of samples of each problem. It may differ between
            problems.
        num_correct (`int` or array of integers): c, how many of them are correct. Broadcast against `num_samples`.
        k (`int`): the number of samples drawn.

    Returns:
        `float` for scalars, else `np.ndarray` of float64 with the broadcast shape: one value per problem.

    Raises:
        ValueError: `k` is below 1 or above some n, a count is negative or not an integer, or c is above n.

    Example:

    ```python
    >>> pass_at_k(32, 1, 16)
    0.5
    ```
    """
    n, c = np.broadcast_arrays(
        _non_negative_integers("num_samples", num_samples), _non_negative_integers("num_correct", num_correct)
    )
    size = _non_negative_integers("k", k)
    if size.ndim != 0 or size < 1:
        raise ValueError(f"k is {size.tolist()}, but it must be one integer of at least 1.")
    k = int(size)
    if (c > n).any():
        i = int(np.argmax(c > n))
        raise ValueError(f"num_correct ({c.flat[i]}) exceeds num_samples ({n.flat[i]}).")
    if (n < k).any():
        raise ValueError(f"pass@k needs k ≤ num_samples, but k is {k} and a problem has {n.min()} samples.")

    pairs, inverse = np.unique(np.stack([n.ravel(), c.ravel()]), axis=1, return_inverse=True)
    values = np.array([_pass_at_k(n, c, k) for n, c in pairs.T.tolist()])  # (distinct (n, c) pairs,)
    result = values[inverse].reshape(n.shape) if n.size else np.zeros(n.shape)
    return float(result) if result.ndim == 0 else result


def _pass_at_k(n: int, c: int, k: int) -> float:
    total = math.comb(n, k)
    return (total - math.comb(n - c, k)) / total  # `/` rounds the quotient of integers of any size correctly


def _non_negative_integers(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    numeric = array.size == 0 or array.dtype.kind in "iuf"
    if not numeric or (array != np.floor(array)).any() or (array < 0).any() or np.isinf(array).any():
        raise ValueError(f"{name} must be non-negative integers, got {values!r}.")
    return array.astype(np.int64)


def answer_entropy(answers: Sequence[Hashable]) -> float:
    """
    Entropy `-Σ p_j ln p_j` of the distinct answers to one problem, in nats. `None` (no answer) counts as an answer.

    Args:
        answers (sequence of hashables): one answer per sample of the problem.

    Raises:
        ValueError: `answers` is empty.
    """
    if len(answers) == 0:
        raise ValueError("answer_entropy needs the answers of at least one sample, got 0.")
    return sum(m / len(answers) * math.log(len(answers) / m) for m in Counter(answers).values())


def wrong_answer_diversity(answers: Sequence[Hashable], correct: Sequence[bool]) -> float:
    """
    Share of distinct answers among the wrong answers to one problem: 1 if no two agree, NaN if none is wrong.

    Args:
        answers (sequence of hashables): one answer per sample; `None` (no answer) counts as an answer.
        correct (sequence of `bool`): whether each sample is correct.

    Raises:
        ValueError: the two lengths differ.
    """
    if len(answers) != len(correct):
        raise ValueError(f"answers holds {len(answers)} samples, but correct holds {len(correct)}.")
    wrong = [answer for answer, is_correct in zip(answers, correct, strict=True) if not is_correct]
    return len(set(wrong)) / len(wrong) if wrong else math.nan


def bootstrap_interval(
    values: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | tuple[np.ndarray, np.ndarray]:
    """
    Percentile bootstrap interval of the mean over problems.

    It resamples problems, not samples: the interval says how far the mean would move on other problems of the same
    kind. The resampled sets depend on `seed` and the number of problems alone, so that the intervals of several
    metrics or methods over the same problems are paired.

    Args:
        values (array of shape `(problems,)` or `(problems, metrics)`): one value, or one row of values, per problem.
        confidence (`float`): probability mass between the two ends, in (0, 1).
        num_resamples (`int`): number of resampled sets of problems.
        seed (`int`): seed of the resampling.

    Returns:
        `(low, high)`: two floats for one metric, else two arrays of shape `(metrics,)`.

    Raises:
        ValueError: there are no problems, a value is not finite, `values` has another number of dimensions, or a
            setting is out of range.
    """
    values = _checked_values(values, confidence, num_resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resampled_means(values, num_resamples, seed), [tail, 1 - tail], axis=0)
    return (float(low), float(high)) if values.ndim == 1 else (low, high)


def _checked_values(values: ArrayLike, confidence: float, num_resamples: int) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim not in (1, 2) or len(values) == 0:
        raise ValueError(f"values has shape {values.shape}, but (problems,) or (problems, metrics) is needed.")
    if not np.isfinite(values).all():
        raise ValueError(f"values holds {(~np.isfinite(values)).sum()} numbers that are not finite; leave them out.")
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(
            f"confidence must be in (0, 1) and num_resamples at least 1, got {confidence} and {num_resamples}."
        )
    return values


def _resampled_means(values: np.ndarray, num_resamples: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    num_problems = len(values)
    rows = max(1, BOOTSTRAP_CHUNK // num_problems)
    means = []
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        drawn = rng.integers(num_problems, size=(size, num_problems))
        drawn += num_problems * np.arange(size)[:, None]  # one range of bins per resampled set
        counts = np.bincount(drawn.ravel(), minlength=size * num_problems).reshape(size, num_problems)
        means.append(counts @ values / num_problems)  # (size,) or (size, metrics)
    return np.concatenate(means)


def mean_interval(
    values: ArrayLike,
    bounds: tuple[float, float] = (0.0, 1.0),
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float] | tuple[np.ndarray, np.ndarray]:
    """
    Interval of the mean over problems of values that have bounds, such as pass@k. It has a width even if all problems
    have the same value, since other problems of the same kind need not have it.

    The Bayesian bootstrap (Rubin, 1981, doi 10.1214/aos/1176345338): each resampled mean weighs the problems with
    independent draws of Exponential(1). For the upper limit there is half a problem more, with the upper bound as its
    value and a weight drawn from Gamma(1/2); for the lower limit, half a problem with the lower bound. A limit is the
    quantile of these means.

    A whole problem more would make the interval of Learned-Miller and Thomas (arXiv 1905.06208), which is that of
    Clopper and Pearson if all values are 0 or 1, and covers the mean more often than it says. Half a problem, as in
    the prior of Jeffreys, brings it close to what it says: this is measured (benchmarks/interval_coverage.py), and not
    proved. So with c ones among m values of 0 and 1, the limits are quantiles of Beta(c, m - c + 1/2) and of
    Beta(c + 1/2, m - c), up to the resampling; the lower one is 0 for c = 0, the upper one 1 for c = m.

    Like [`bootstrap_interval`], it resamples problems and not samples, and the weights depend on `seed` and the number
    of problems alone.

    Args:
        values (array of shape `(problems,)` or `(problems, metrics)`): one value, or one row of values, per problem.
        bounds (`tuple[float, float]`): the smallest and the largest value that a problem can have.
        confidence (`float`): how often the interval is to cover the mean of all problems of the kind, in (0, 1).
        num_resamples (`int`): number of resampled means.
        seed (`int`): seed of the resampling.

    Returns:
        `(low, high)`: two floats for one metric, else two arrays of shape `(metrics,)`.

    Raises:
        ValueError: a value is out of bounds, or as in [`bootstrap_interval`].
    """
    values = _checked_values(values, confidence, num_resamples)
    if values.min() < bounds[0] or values.max() > bounds[1]:
        raise ValueError(f"values must be from {bounds[0]} to {bounds[1]}, got {values.min()} to {values.max()}.")
    rng = np.random.default_rng(seed)
    rows = max(1, BOOTSTRAP_CHUNK // len(values))
    means: tuple[list, list] = ([], [])  # for the lower and the upper limit
    for start in range(0, num_resamples, rows):
        size = min(rows, num_resamples - start)
        weights = rng.standard_exponential((size, len(values)))
        half = rng.standard_gamma(0.5, (size, *[1] * (values.ndim - 1)))  # (size,) or (size, 1)
        sums, total = weights @ values, weights.sum(axis=1).reshape(half.shape) + half
        for bound, of_limit in zip(bounds, means, strict=True):
            of_limit.append((sums + bound * half) / total)  # (size,) or (size, metrics)
    tail = (1 - confidence) / 2
    low, high = (
        np.quantile(np.concatenate(of_limit), q, axis=0).clip(*bounds)  # rounding may lead a little out of them
        for of_limit, q in zip(means, (tail, 1 - tail), strict=True)
    )
    return (float(low), float(high)) if values.ndim == 1 else (low, high)


class PairedDifference(NamedTuple):
    """Mean of `a - b` over problems, and its interval."""

    difference: float
    low: float
    high: float


def paired_difference(
    a: ArrayLike, b: ArrayLike, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
) -> PairedDifference:
    """
    Mean difference of two methods on the same problems, with its interval: [`mean_interval`] of the differences, which
    are from -1 to 1.

    A problem weighs the same for both methods. The interval is far narrower than two separate ones if easy problems
    are easy for both. It has a width even if the methods agree on all of these problems.

    Args:
        a, b (arrays of shape `(problems,)`): one value from 0 to 1 per problem, in the same order.
        confidence, num_resamples, seed: as in [`mean_interval`].

    Raises:
        ValueError: the lengths differ, a value is not from 0 to 1, or as in [`mean_interval`].
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"a and b need one value for each of the same problems, got shapes {a.shape} and {b.shape}.")
    both = _checked_values(np.stack([a, b], axis=1), confidence, num_resamples)
    if both.min() < 0 or both.max() > 1:
        raise ValueError(f"a and b need values from 0 to 1, got {both.min()} to {both.max()}.")
    low, high = mean_interval(a - b, (-1.0, 1.0), confidence, num_resamples, seed)
    return PairedDifference(float((a - b).mean()), float(low), float(high))
