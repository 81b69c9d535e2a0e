"""How often the 95 % intervals of pass@k, and of its differences, cover the true value, over simulated benchmarks.

    python benchmarks/interval_coverage.py --output benchmarks/results/interval_coverage.json

The success rates of the problems of a benchmark are drawn from Beta(p s, (1 - p) s) with mean p. With a small s most
problems are solved always or never, with a large s all are about equally hard. The true value is that of the whole
population of problems, which follows from the moments of the distribution. For differences, a problem has the same
success rate under both methods with probability 1/2, and else a new one with the mean of the second.

`interval` is `mean_interval`, as results have it; `bootstrap` is the percentile bootstrap.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rlvr_trl.evaluation import bootstrap_interval, mean_interval, pass_at_k


AT_ONCE = 1000  # benchmarks
PROBLEMS = (30, 200, 500)
# name: mean success rate, s, samples per problem, k
MEANS = {
    "p = 0.01, n = 1, pass@1": (0.01, 1.2, 1, 1),
    "p = 0.01, n = 16, pass@1": (0.01, 1.2, 16, 1),
    "p = 0.01, n = 16, pass@8": (0.01, 1.2, 16, 8),
    "p = 0.01, n = 64, pass@1, always or never": (0.01, 0.3, 64, 1),
    "p = 0.01, n = 64, pass@1, equally hard": (0.01, 10, 64, 1),
    "p = 0.05, n = 16, pass@1": (0.05, 1.2, 16, 1),
    "p = 0.33, n = 1, pass@1": (1 / 3, 1.2, 1, 1),
    "p = 0.33, n = 16, pass@1": (1 / 3, 1.2, 16, 1),
    "p = 0.33, n = 16, pass@8": (1 / 3, 1.2, 16, 8),
    "p = 0.33, n = 64, pass@1, equally hard": (1 / 3, 10, 64, 1),
    "p = 0.99, n = 1, pass@1": (0.99, 1.2, 1, 1),
    "p = 0.99, n = 16, pass@1": (0.99, 1.2, 16, 1),
    "p = 0.99, n = 64, pass@1, equally hard": (0.99, 10, 64, 1),
}
# name: mean success rate of the first, and of the second where it differs, s, samples per problem, k
DIFFERENCES = {
    "0.01 and 0.03, n = 16, pass@1": (0.01, 0.03, 1.2, 16, 1),
    "0.01 and 0.03, n = 16, pass@8": (0.01, 0.03, 1.2, 16, 8),
    "0.33 and 0.4, n = 16, pass@1": (1 / 3, 0.4, 1.2, 16, 1),
    "0.33 and 0.4, n = 16, pass@8": (1 / 3, 0.4, 1.2, 16, 8),
    "0.33 and 0.4, n = 64, pass@1, equally hard": (1 / 3, 0.4, 10, 64, 1),
    "0.98 and 0.99, n = 16, pass@1": (0.98, 0.99, 1.2, 16, 1),
}


def true_pass_at_k(p: float, s: float, k: int) -> float:
    """1 - E[(1 - rate)^k] of a Beta distribution."""
    return 1 - math.prod(((1 - p) * s + i) / (s + i) for i in range(k))


def rates(rng, p: float, s: float, size: tuple[int, int]) -> np.ndarray:
    return rng.beta(p * s, (1 - p) * s, size)


def draw_means(rng, size, p: float, s: float, n: int, k: int) -> tuple[np.ndarray, float]:
    """Values of shape `size`, one column a benchmark, and the true mean."""
    return pass_at_k(n, rng.binomial(n, rates(rng, p, s, size)), k), true_pass_at_k(p, s, k)


def draw_differences(rng, size, p: float, other: float, s: float, n: int, k: int) -> tuple[np.ndarray, float]:
    first = rates(rng, p, s, size)
    second = np.where(rng.random(size) < 0.5, first, rates(rng, other, s, size))
    values = pass_at_k(n, rng.binomial(n, second), k) - pass_at_k(n, rng.binomial(n, first), k)
    return values, (true_pass_at_k(other, s, k) - true_pass_at_k(p, s, k)) / 2


def coverage(draw, setting: tuple, bounds: tuple, num_problems: int, num_benchmarks: int, num_resamples: int) -> dict:
    """Share of the benchmarks whose interval covers the truth, and the mean width, for both kinds of interval."""
    rng = np.random.default_rng(num_problems)
    kinds = {
        "interval": lambda values: mean_interval(values, bounds, num_resamples=num_resamples),
        "bootstrap": lambda values: bootstrap_interval(values, num_resamples=num_resamples),
    }
    found = {kind: {"covered": 0.0, "width": 0.0} for kind in kinds}
    for start in range(0, num_benchmarks, AT_ONCE):
        size = num_problems, min(AT_ONCE, num_benchmarks - start)
        values, truth = draw(rng, size, *setting)  # (problems, benchmarks)
        for kind, interval in kinds.items():
            low, high = interval(values)
            found[kind]["covered"] += float(((low <= truth) & (truth <= high)).sum()) / num_benchmarks
            found[kind]["width"] += float((high - low).sum()) / num_benchmarks
    return {kind: {name: round(value, 4) for name, value in one.items()} for kind, one in found.items()}


def measure(args: argparse.Namespace) -> list[dict]:
    rows = []
    cases = (("pass@k", draw_means, (0, 1), MEANS), ("difference", draw_differences, (-1, 1), DIFFERENCES))
    for of, draw, bounds, settings in cases:
        for name, setting in settings.items():
            for problems in args.problems:
                found = coverage(draw, setting, bounds, problems, args.benchmarks, args.resamples)
                rows.append({"of": of, "case": name, "problems": problems, **found})
    return rows


def markdown(rows: list[dict], of: str) -> list[str]:
    """The table of the page: coverage of the interval, in brackets that of the bootstrap, by number of problems."""
    counts = sorted({row["problems"] for row in rows})
    lines = [
        "| " + " | ".join(["", *(f"{count} problems" for count in counts)]) + " |",
        "|---" * (len(counts) + 1) + "|",
    ]
    cells: dict[str, list[str]] = {}
    for row in rows:
        if row["of"] == of:
            shares = [f"{100 * row[kind]['covered']:.1f}" for kind in ("interval", "bootstrap")]
            cells.setdefault(row["case"], []).append("{} ({})".format(*shares))
    return lines + ["| " + " | ".join([name, *row]) + " |" for name, row in cells.items()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=int, nargs="+", default=PROBLEMS)
    parser.add_argument("--benchmarks", type=int, default=10_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    parser.add_argument("--markdown", type=Path, help="print the tables of such a file, and simulate nothing")
    args = parser.parse_args()
    if args.markdown:
        rows = json.loads(args.markdown.read_text(encoding="utf-8"))["rows"]
        print("\n".join([*markdown(rows, "pass@k"), "", *markdown(rows, "difference")]))
        return
    rows = measure(args)
    table = Table("", "problems", "interval", "bootstrap", title=f"{args.benchmarks} benchmarks, 95 % intervals")
    for row in rows:
        shares = [f"{row[kind]['covered']:.1%}, {row[kind]['width']:.3f} wide" for kind in ("interval", "bootstrap")]
        table.add_row(f"{row['of']}: {row['case']}", str(row["problems"]), *shares)
    Console().print(table)
    if args.output:
        command = "python benchmarks/interval_coverage.py --output benchmarks/results/interval_coverage.json"
        settings = {"command": command, "benchmarks": args.benchmarks, "resamples": args.resamples}
        args.output.write_text(json.dumps({**settings, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
