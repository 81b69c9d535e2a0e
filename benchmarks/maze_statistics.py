"""Intervals of the maze table: over mazes, base models and seeds together.

All runs are tested on the same mazes, so mazes and runs are crossed: both are drawn with replacement, independently of
each other. Runs are seeds within base models: base models are drawn first, then for each as many seeds as it
has. Differences are taken run by run and maze by maze before that. With few base models the interval is too narrow to
say what other base models would do; with one run it is an interval over mazes alone.

The last bits of a mean differ between processors, which add in different orders. Whatever is compared with a
threshold, sorted or printed is therefore settled to 10 digits first.
"""

from functools import cache

import numpy as np

from rlvr_trl.testbed.intervals import settle


RESAMPLES = 4000


@cache
def run_weights(runs: tuple[tuple[int, int], ...], resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Weight of every run in each resampled set, `(resamples, runs)`. Base models weigh the same, whatever number of
    seeds they have."""
    rng = np.random.default_rng(seed)
    of_base = [[i for i, run in enumerate(runs) if run[0] == base] for base in dict.fromkeys(base for base, _ in runs)]
    weights = np.zeros((resamples, len(runs)))
    for row in weights:
        for drawn in rng.integers(len(of_base), size=len(of_base)):
            members = of_base[drawn]
            for i in rng.integers(len(members), size=len(members)):
                row[members[i]] += 1 / (len(of_base) * len(members))
    return weights


@cache
def maze_weights(mazes: int, resamples: int = RESAMPLES, seed: int = 1) -> np.ndarray:
    """Weight of every maze in each resampled set, `(resamples, mazes)`."""
    return np.random.default_rng(seed).multinomial(mazes, np.full(mazes, 1 / mazes), size=resamples) / mazes


def mean_and_interval(values: np.ndarray, runs: tuple[tuple[int, int], ...]) -> tuple[float, float, float]:
    """
    The mean and its 95 % interval, settled.

    Args:
        values (`np.ndarray`): of shape `(runs, mazes)`, or `(runs,)` for a metric with one value per run.
        runs (`tuple[tuple[int, int], ...]`): base model and seed of each row, all different.

    Raises:
        `ValueError`: There is no run, or the number of rows differs from that of runs.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(runs) or not runs or len(set(runs)) < len(runs):
        raise ValueError(f"values has {len(values)} rows, but one for each of the different runs {runs} is needed.")
    values = values.reshape(len(runs), -1)
    bases = [base for base, _ in runs]
    weight = np.array([1 / (len(set(bases)) * bases.count(base)) for base in bases])
    by_maze = run_weights(runs) @ values  # (resamples, mazes)
    means = (by_maze * maze_weights(values.shape[1])).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return settle(weight @ values.mean(axis=1)), settle(low), settle(high)
