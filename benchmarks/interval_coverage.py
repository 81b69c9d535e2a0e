"""How often the bootstrap interval of pass@k covers the true value, over simulated benchmarks.

    python benchmarks/interval_coverage.py

A benchmark consists of problems whose success rates are drawn from Beta(0.4, 0.8), with 16 samples each. The true
value is that of the whole population of problems, which follows from the moments of the distribution.
"""

import argparse
import math

import numpy as np
from rich.console import Console
from rich.table import Table

from rlvr_trl.evaluation import bootstrap_interval, pass_at_k


A, B, NUM_SAMPLES, KS = 0.4, 0.8, 16, (1, 8)
AT_ONCE = 1000  # benchmarks


def coverage(num_problems: int, k: int, num_benchmarks: int, num_resamples: int) -> float:
    rng = np.random.default_rng(num_problems)
    truth = 1 - math.prod((B + i) / (A + B + i) for i in range(k))  # 1 - E[(1 - p)^k]
    covered = 0
    for start in range(0, num_benchmarks, AT_ONCE):
        size = num_problems, min(AT_ONCE, num_benchmarks - start)
        values = pass_at_k(NUM_SAMPLES, rng.binomial(NUM_SAMPLES, rng.beta(A, B, size)), k)  # (problems, benchmarks)
        low, high = bootstrap_interval(values, num_resamples=num_resamples)
        covered += int(((low <= truth) & (truth <= high)).sum())
    return covered / num_benchmarks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=[30, 200, 500])
    parser.add_argument("--benchmarks", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=2000)
    args = parser.parse_args()
    table = Table("problems", *(f"pass@{k}" for k in KS), title=f"{args.benchmarks} benchmarks, 95 % intervals")
    for problems in args.problems:
        table.add_row(str(problems), *(f"{coverage(problems, k, args.benchmarks, args.resamples):.1%}" for k in KS))
    Console().print(table)


if __name__ == "__main__":
    main()
