"""Judgements that people agree on, by three graders: how many each gets right, and which `math_reward` gets wrong.

    python benchmarks/math_judgements.py judgements.json --output benchmarks/results/math_judgements.json

The file is a list of {kind, reference, completion, expected, reason}. A grader that raises or returns None
counts as wrong, whatever was expected. The exit code is 1 if plain math-verify gets a judgement right that
`math_reward` gets wrong.
"""

import argparse
import json
import logging
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

from math_gold import ours, plain_math_verify, trl_accuracy
from rich.table import Table

from rlvr_trl.terminal import print_tables


GRADERS = {"math_reward": ours, "math-verify": plain_math_verify, "TRL accuracy_reward": trl_accuracy}


def judge(case: dict, grade: Callable) -> dict:
    """Judges one completion at a time, so that a failure on one cannot affect the next."""
    start, error = time.perf_counter(), None
    try:
        reward = grade([case["completion"]], [case["reference"]])[0]
        error = "returned None" if reward is None else None
    except Exception as raised:  # any failure of another library counts as a wrong judgement, and is named
        reward, error = None, f"{type(raised).__name__}: {raised}"[:200]
    right = error is None and (reward == 1.0) is case["expected"]
    return {"reward": reward, "right": right, "error": error, "seconds": time.perf_counter() - start}


def counts(cases: list[dict], judgements: list[dict]) -> dict:
    wrong = [(case["expected"], j["error"]) for case, j in zip(cases, judgements, strict=True) if not j["right"]]
    return {
        "cases": len(cases),
        "right": len(cases) - len(wrong),
        "false_negatives": sum(expected and error is None for expected, error in wrong),
        "false_positives": sum(not expected and error is None for expected, error in wrong),
        "failed": sum(error is not None for _, error in wrong),
    }


def show(cases: list[dict], judgements: dict[str, list[dict]]) -> dict[str, dict]:
    """Prints the table and returns the counts of each grader by kind, including `all`."""
    kinds = ["all", *sorted({case["kind"] for case in cases})]
    table = Table("kind", "cases", *GRADERS)
    tables = {name: {} for name in GRADERS}
    for kind in kinds:
        chosen = [i for i, case in enumerate(cases) if kind in ("all", case["kind"])]
        row = []
        for name, of_grader in judgements.items():
            c = counts([cases[i] for i in chosen], [of_grader[i] for i in chosen])
            tables[name][kind] = c
            row.append(f"{c['right']} right, -{c['false_negatives']} +{c['false_positives']}")
            row[-1] += f", {c['failed']} failed" if c["failed"] else ""
        table.add_row(kind, str(len(chosen)), *row)
    print_tables(table)
    print("-n: right answers that were missed; +n: wrong answers that were accepted")
    return tables


def describe(case: dict, judgement: dict) -> str:
    said = judgement["error"] or judgement["reward"]
    return f"  [{case['kind']}] {case['reference']}  |  {case['completion']!r:.150}: {said}, {case['reason']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("judgements", type=Path)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    for name in ("math_verify.parser", "math_verify.grader", "math_verify.utils"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    cases = json.loads(args.judgements.read_text(encoding="utf-8"))
    judgements = {name: [judge(case, grade) for case in cases] for name, grade in GRADERS.items()}
    tables = show(cases, judgements)
    misses = [i for i, judgement in enumerate(judgements["math_reward"]) if not judgement["right"]]
    behind = [i for i in misses if judgements["math-verify"][i]["right"]]
    for title, chosen in (("Wrong by math_reward", misses), ("of these right by math-verify", behind)):
        print(f"{title}: {len(chosen)}", *(describe(cases[i], judgements["math_reward"][i]) for i in chosen), sep="\n")
    if args.output:
        missed = [cases[i] | judgements["math_reward"][i] for i in misses]
        report = {"python": platform.python_version(), "counts": tables, "missed": missed}
        args.output.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(1 if behind else 0)


if __name__ == "__main__":
    main()
