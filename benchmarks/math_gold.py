"""How many reference solutions of MATH each grader finds right, and how many it finds right for another problem.

    python benchmarks/math_gold.py math_train.parquet --output benchmarks/results/math_gold.json

The file has the columns `solution`, whose last box is graded, and `answer`. A shuffle gives every solution the
answer of another problem; hits between answers that differ as text are listed, to be judged by eye.
"""

import argparse
import json
import logging
import platform
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from math_verify import parse, verify
from rich.table import Table
from trl.rewards import accuracy_reward

from rlvr_trl.rewards import math_reward
from rlvr_trl.terminal import print_tables


KINDS = {  # what an answer contains; the first that is found counts
    "empty answer": r"^$",
    "matrix": r"matrix",
    "percent or money": r"[%$]",
    "interval, tuple or list": r"[,\[(].*,|,",
    "base": r"_\{?\d",
    "equation": r"=",
    "fraction": r"frac|/",
    "text": r"[a-zA-Z]{3,}(?![a-zA-Z]*\{)(?<!sqrt)(?<!frac)",
    "number": r"^-?[\d.]+$",
    "expression": r"",
}


def plain_math_verify(solutions: list[str], answers: list[str]) -> list[float]:
    return [float(verify(parse(f"${a}$"), parse(s))) for s, a in zip(solutions, answers, strict=True)]


def trl_accuracy(solutions: list[str], answers: list[str]) -> list[float | None]:
    completions = [[{"role": "assistant", "content": solution}] for solution in solutions]
    return accuracy_reward(completions, [f"${answer}$" for answer in answers])


def ours(solutions: list[str], answers: list[str]) -> list[float | None]:
    return math_reward(solutions, answer=answers)


def kind_of(answer: str) -> str:
    return next(kind for kind, pattern in KINDS.items() if re.search(pattern, answer))


def measure(name: str, grade: Callable, solutions: list[str], answers: list[str], shuffles: int) -> dict:
    start = time.perf_counter()
    rewards = grade(solutions, answers)
    seconds = time.perf_counter() - start
    misses = [(a, s[-100:]) for s, a, r in zip(solutions, answers, rewards, strict=True) if r != 1.0]
    hits = []
    for seed in range(shuffles):
        others = random.Random(seed).sample(answers, len(answers))
        rewards = grade(solutions, others)
        hits += [
            {"answer": a, "other": o} for a, o, r in zip(answers, others, rewards, strict=True) if r == 1.0 and a != o
        ]
    return {
        "grader": name,
        "right": 1 - len(misses) / len(answers),
        "misses": len(misses),
        "misses_by_kind": dict(Counter(kind_of(answer) for answer, _ in misses).most_common()),
        "missed": [{"answer": answer, "solution_ends": end} for answer, end in misses],
        "seconds": seconds,
        "shuffles": shuffles,
        "hits_in_shuffles": len(hits),
        "hits": hits,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Parquet file with the columns `solution` and `answer`")
    parser.add_argument("--limit", type=int, help="only the first problems")
    parser.add_argument("--shuffles", type=int, default=5)
    parser.add_argument("--shuffles-of-others", type=int, default=0, help="shuffles for math-verify and TRL")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    data = Dataset.from_parquet(str(args.data))
    columns = [list(data[column])[: args.limit] for column in ("solution", "answer")]
    graders = {
        "math_reward": (ours, args.shuffles),
        "math-verify": (plain_math_verify, args.shuffles_of_others),
        "TRL accuracy_reward": (trl_accuracy, args.shuffles_of_others),
    }
    results = [measure(name, grade, *columns, shuffles) for name, (grade, shuffles) in graders.items()]

    table = Table("grader", "right", "misses", "by kind", "shuffles", "hits")
    for r in results:
        by_kind = ", ".join(f"{kind} {count}" for kind, count in r["misses_by_kind"].items())
        table.add_row(
            r["grader"], f"{r['right']:.2%}", str(r["misses"]), by_kind, str(r["shuffles"]), str(r["hits_in_shuffles"])
        )
    print_tables(table)
    if args.output:
        report = {"python": platform.python_version(), "problems": len(columns[0]), "results": results}
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
