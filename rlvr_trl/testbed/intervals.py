"""
Intervals of differences between methods, over problems and base models together.

All runs of a task are tested on the same problems, so base models and problems are crossed. The difference of two
methods varies with both, and by chance: with the base model because of what it can do and because of the run from it.
Its variance is estimated by the two-way analysis of variance, and the interval is one of Student's t with degrees of
freedom after Satterthwaite (Biometrics Bulletin 2(6), 1946). So it says what other base models and problems of the
same kind would give, as far as the few base models allow: from three of them, with runs that differ much, it is wide.
Where they differ little it is wider than it need be: that they do cannot be told from three.

The last bits of a mean differ between processors, which add in different orders. Whatever is compared with a
threshold, sorted or printed is therefore settled to 10 digits first.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np


DIGITS = 10  # after the point. Processors differ by a few 1e-11 at most: in means of completions, up to 1e5
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def settle(value: float) -> float:
    """The value to 10 digits after the point, the same on every processor; 0 has no sign."""
    return round(float(value), DIGITS) + 0.0


def shown(value: float, form: str) -> str:
    """
    The settled value as text, in a form such as `"+.3f"`. Its decimal digits are rounded, ties to even: 0.7875 is
    0.788 and 0.7865 is 0.786, whatever the nearest binary number is.
    """
    return format(Decimal(repr(settle(value))), form)


def t_tails(t: float, df: float) -> float:
    """The chance that Student's t with `df` degrees of freedom, at least 1, is farther from 0 than `t`."""
    # with t = √df·tan θ the density is C·cos(θ)^(df - 1), and the tail a bounded interval
    scale = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(math.pi)
    # The integrand falls off within a few 1/√df: the farther part is left to an interval of its own
    begin, total = math.atan(abs(t) / math.sqrt(df)), 0.0
    width = min(math.pi / 2 - begin, 4 / math.sqrt(df))
    while begin < math.pi / 2 and width > 0:
        width = min(width, math.pi / 2 - begin)
        angles = begin + width * (_NODES + 1) / 2
        part = width / 2 * float(_WEIGHTS @ np.cos(angles) ** (df - 1))
        total += part
        begin += width
        if part <= 1e-17 * total:
            break
    return min(1.0, 2 * scale * total)


def t_quantile(confidence: float, df: float) -> float:
    """The t that is exceeded on either side with a chance of `1 - confidence` in all."""
    low, high = 0.0, 1.0
    while t_tails(high, df) > 1 - confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tails(middle, df) > 1 - confidence else (low, middle)
    return high


@dataclass(frozen=True)
class Estimate:
    """
    A mean, the variance of this mean, and the degrees of freedom with which the variance is known.

    Attributes:
        runs (`int`): number of base models, over all tasks. From one alone the variance is that over its problems.
    """

    mean: float
    variance: float
    df: float
    runs: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Both ends, settled."""
        half = t_quantile(confidence, self.df) * math.sqrt(self.variance)
        return settle(self.mean - half), settle(self.mean + half)

    def text(self, form: str = "+.3f") -> str:
        """The mean and its interval: `+0.012 [-0.003, +0.027]`."""
        low, high = self.interval()
        return f"{shown(self.mean, form)} [{shown(low, form)}, {shown(high, form)}]"

    def p_value(self, null: float = 0.0) -> float:
        """Of the two-sided test that the true mean is `null`."""
        distance = settle(self.mean - null)
        if self.variance == 0:
            return float(distance == 0)
        return t_tails(distance / math.sqrt(self.variance), self.df)


def estimate(values: np.ndarray) -> Estimate:
    """
    The mean of values of crossed base models and problems, see the module.

    Args:
        values (`np.ndarray`): of shape `(bases, problems)`, or `(bases,)` for a metric with one value for a run.

    Raises:
        ValueError: There are no values, or one alone.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim == 1:
        values = values[:, None]
    bases, problems = values.shape
    if values.size < 2:
        raise ValueError(f"values has shape {values.shape}: one value has no interval.")
    mean = values.mean()
    of_base, of_problem = values.mean(axis=1), values.mean(axis=0)
    # mean squares and their degrees of freedom
    by_base = problems * ((of_base - mean) ** 2).sum() / (bases - 1) if bases > 1 else 0.0
    by_problem = bases * ((of_problem - mean) ** 2).sum() / (problems - 1) if problems > 1 else 0.0
    if bases == 1 or problems == 1:
        return Estimate(settle(mean), (by_base + by_problem) / values.size, values.size - 1, bases)
    left = (values - of_base[:, None] - of_problem + mean) ** 2
    rest = left.sum() / ((bases - 1) * (problems - 1))
    # A component that is estimated as below 0 counts as 0, but not as known to be 0: with so few base models chance
    # alone often makes it so, and its mean square keeps its few degrees of freedom
    by_base, by_problem = max(by_base, rest), max(by_problem, rest)
    whole = by_base + by_problem - rest
    if whole == 0:
        return Estimate(settle(mean), 0.0, bases - 1, bases)
    shares = by_base**2 / (bases - 1) + by_problem**2 / (problems - 1) + rest**2 / ((bases - 1) * (problems - 1))
    return Estimate(settle(mean), whole / values.size, max(1.0, whole**2 / shares), bases)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The mean of independent estimates, one for each task. Tasks weigh the same, and are not drawn from more."""
    count = len(estimates)
    variance = sum(one.variance for one in estimates) / count**2
    shares = sum((one.variance / count**2) ** 2 / one.df for one in estimates)
    mean = settle(sum(one.mean for one in estimates) / count)
    return Estimate(mean, variance, variance**2 / shares if shares else 1.0, sum(one.runs for one in estimates))


def false_discovery(p_values: Sequence[float], rate: float = 0.05) -> list[bool]:
    """
    Which of many tests are rejected if among the rejected at most a share `rate` shall be wrong on average (Benjamini
    and Hochberg, Journal of the Royal Statistical Society B 57(1), 1995).
    """
    ordered = sorted(p_values)
    passing = [p for place, p in enumerate(ordered, start=1) if settle(p - rate * place / len(ordered)) <= 0]
    return [bool(passing) and p <= passing[-1] for p in p_values]
