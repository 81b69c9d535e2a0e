"""How often the intervals of the comparison cover the true difference, with few base models and many problems.

    python benchmarks/base_model_intervals.py --output benchmarks/results/base_model_intervals.json

The difference of two methods is drawn for every base model and problem as a sum of three normal parts: one of the base
model, one of the problem, and what is left, with these standard deviations. `interval` is that of
`rlvr_trl.testbed.intervals`; `bootstrap` draws base models and problems with replacement. `four tasks` is the mean
over four such draws. `p < 0.01` is how often a difference of 0 has such a p-value, on which a false discovery rate
rests.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from rlvr_trl.testbed.intervals import average, estimate


PROBLEMS, RESAMPLES = 200, 1000
COUNTED = ("interval", "bootstrap", "four tasks", "p < 0.01")
SPREADS = {  # name: standard deviations of base models, of problems, and of what is left
    "base models agree": (0.0, 0.1, 0.2),
    "base models differ": (0.03, 0.1, 0.2),
    "base models differ more than problems": (0.06, 0.02, 0.1),
}


def draw(rng: np.random.Generator, spread: tuple[float, float, float], bases: int) -> np.ndarray:
    of_base, of_problem = rng.normal(0, spread[0], (bases, 1)), rng.normal(0, spread[1], (1, PROBLEMS))
    return of_base + of_problem + rng.normal(0, spread[2], (bases, PROBLEMS))


def bootstrap(rng: np.random.Generator, values: np.ndarray) -> tuple[float, float]:
    bases = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES) / len(values)
    problems = rng.multinomial(PROBLEMS, np.full(PROBLEMS, 1 / PROBLEMS), RESAMPLES) / PROBLEMS
    low, high = np.quantile(((bases @ values) * problems).sum(axis=1), [0.025, 0.975])
    return low, high


def measure(draws: int) -> list[dict]:
    rows = []
    for name, spread in SPREADS.items():
        for bases in (2, 3, 5):
            rng, covered = np.random.default_rng(bases), dict.fromkeys(COUNTED, 0)
            for _ in range(draws):
                tasks = [draw(rng, spread, bases) for _ in range(4)]
                estimates = [estimate(values) for values in tasks]
                intervals = {
                    "interval": estimates[0].interval(),
                    "bootstrap": bootstrap(rng, tasks[0]),
                    "four tasks": average(estimates).interval(),
                }
                for kind, (low, high) in intervals.items():
                    covered[kind] += low <= 0 <= high
                covered["p < 0.01"] += estimates[0].p_value() < 0.01
            shares = {kind: round(count / draws, 3) for kind, count in covered.items()}
            rows.append({"case": name, "base_models": bases, **shares})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--output", type=Path, help="JSON file for the results")
    args = parser.parse_args()
    rows = measure(args.draws)
    table = Table(*rows[0], title=f"{args.draws} draws, {PROBLEMS} problems, 95 % intervals")
    for row in rows:
        table.add_row(*map(str, row.values()))
    Console().print(table)
    if args.output:
        about = {"command": "python benchmarks/base_model_intervals.py --output FILE", "draws": args.draws}
        args.output.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
