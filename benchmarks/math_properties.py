"""Whether a grader keeps its promises on random pairs: equal answers are found, and no others.

    python benchmarks/math_properties.py --pairs 20000 --output benchmarks/results/math_properties.json

The pairs are those of random_answers.py. Each is judged in both directions, with the answer in a box. It counts as
found if both directions say so, and as a false positive if either does. The exit code is 1 if there is a false
positive or if fewer than 99 % of the equal pairs of a kind are found. `--grader math-verify` measures math-verify.
"""

import argparse
import json
import logging
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from math_gold import ours, plain_math_verify
from random_answers import Pair, random_pairs
from rich.table import Table

from rlvr_trl.terminal import print_tables


GRADERS = {"math_reward": ours, "math-verify": plain_math_verify}
FOUND = 0.99


def judge(pairs: list[Pair], grade: Callable) -> list[tuple[bool, bool]]:
    """Whether each pair is judged equal as it stands, and with reference and answer exchanged."""
    references = [pair.reference for pair in pairs]
    answers = [pair.answer for pair in pairs]
    directions = [(answers, references), (references, answers)]
    rewards = [grade([rf"\boxed{{{text}}}" for text in given], wanted) for given, wanted in directions]
    return [(there == 1.0, back == 1.0) for there, back in zip(*rewards, strict=True)]


def summary(kind: str, judged: list[tuple[Pair, tuple[bool, bool]]], seconds: float) -> dict:
    equal = [(pair, verdicts) for pair, verdicts in judged if pair.equal]
    unequal = [(pair, verdicts) for pair, verdicts in judged if not pair.equal]

    def row(pair, verdicts):
        return {"reference": pair.reference, "answer": pair.answer, "there": verdicts[0], "back": verdicts[1]}

    return {
        "kind": kind,
        "equal": len(equal),
        "found": sum(all(verdicts) for _, verdicts in equal),
        "unequal": len(unequal),
        "false_positives": [row(pair, verdicts) for pair, verdicts in unequal if any(verdicts)],
        "missed": [row(pair, verdicts) for pair, verdicts in equal if not all(verdicts)],
        "seconds": seconds,
    }


def measure(pairs: int, seed: int, grade: Callable) -> list[dict]:
    by_kind = defaultdict(list)
    for pair in random_pairs(pairs, seed):
        by_kind[pair.kind].append(pair)
    results = []
    for kind, of_kind in by_kind.items():
        start = time.perf_counter()
        verdicts = judge(of_kind, grade)
        results.append(summary(kind, list(zip(of_kind, verdicts, strict=True)), time.perf_counter() - start))
    return results


def show(results: list[dict], misses: int):
    table = Table("kind", "equal", "found", "missed", "unequal", "false positives", "seconds")
    sums = {key: sum(r[key] for r in results) for key in ("equal", "found", "unequal", "seconds")}
    all_kinds = {"kind": "all", **sums, "false_positives": [p for r in results for p in r["false_positives"]]}
    for r in [*results, all_kinds]:
        counts = r["equal"], f"{r['found'] / r['equal']:.2%}", r["equal"] - r["found"], r["unequal"]
        table.add_row(*map(str, (r["kind"], *counts, len(r["false_positives"]))), f"{r['seconds']:.1f}")
    print_tables(table)
    for r in results:
        for title, rows in (("false positive", r["false_positives"]), ("missed", r["missed"][:misses])):
            for row in rows:
                directions = "" if row["there"] == row["back"] else " one direction"
                print(f"{title}{directions} [{r['kind']}]: {row['reference']}  |  {row['answer']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grader", choices=list(GRADERS), default="math_reward")
    parser.add_argument("--misses", type=int, default=5, help="missed pairs shown of each kind; the output has all")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    for name in ("math_verify.parser", "math_verify.grader", "math_verify.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    results = measure(args.pairs, args.seed, GRADERS[args.grader])
    show(results, args.misses)
    if args.output:
        settings = {"pairs": args.pairs, "seed": args.seed, "grader": args.grader}
        report = {"python": platform.python_version(), **settings, "results": results}
        args.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    broken = [r["kind"] for r in results if r["false_positives"] or r["found"] < FOUND * r["equal"]]
    if broken:
        print(f"Below the goal: {', '.join(broken)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
