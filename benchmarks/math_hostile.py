"""What hostile completions do to `math_reward`: time, memory, files made, processes left.

    python benchmarks/math_hostile.py --output benchmarks/results/math_hostile.json

Judges the completions of hostile_completions.py one by one, then many ordinary, distinct answers, so that caches turn
over, and records the memory of the process and of its workers along the way. A payload that ran would have made a file
in a temporary folder, which is also the working directory. The exit code is 1 if a bound of the table is broken.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import traceback
from pathlib import Path

import psutil
from hostile_completions import hostile_completions
from rich.table import Table

from rlvr_trl.rewards import MathReward
from rlvr_trl.terminal import print_tables


BATCH = 500
LONGEST_SECONDS = 20  # two tries of five seconds of processor time, and two workers started
GROWTH_MB = 40


def workers() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def memory() -> dict[str, float]:
    """Resident megabytes of this process, and of its largest worker."""
    sizes = [0.0]
    for worker in workers():
        try:
            sizes.append(worker.memory_info().rss / 2**20)
        except psutil.NoSuchProcess:  # replaced in the meantime
            continue
    return {"parent": psutil.Process().memory_info().rss / 2**20, "worker": max(sizes)}


def run_hostile(reward: MathReward, folder: Path) -> list[dict]:
    results = []
    for hostile in hostile_completions(folder):
        before = {path.name for path in folder.iterdir()}
        start, error, score = time.perf_counter(), None, None
        try:
            score = reward([hostile.completion], answer=[hostile.reference])[0]
        except Exception:  # no exception of any kind may leave the reward
            error = traceback.format_exc(limit=-2)
        results.append(
            {
                "group": hostile.group,
                "completion": ascii(hostile.completion[:300]),
                "reference": ascii(hostile.reference[:300]),
                "seconds": time.perf_counter() - start,
                "score": score,
                "error": error,
                "made": sorted({path.name for path in folder.iterdir()} - before),
            }
        )
    return results


def run_ordinary(reward: MathReward, judgements: int) -> tuple[list[dict[str, float]], int]:
    """Returns the memory after every batch and the number of wrong scores."""
    samples, wrong = [], 0
    for start in range(0, judgements, BATCH):
        numbers = range(start, min(start + BATCH, judgements))
        forms = [r"\boxed{{{n}.5}}", r"\boxed{{({n}, 3)}}", r"\boxed{{{n}x+1}}", r"\boxed{{\frac{{{n}}}{{7}}}}"]
        answers = ["{n}.50", "({n},3)", "1+{n}x", r"\frac{{{n}}}{{{d}}}"]
        completions = [forms[n % 4].format(n=n + 10) for n in numbers]
        references = [answers[n % 4].format(n=n + 10, d=7 + n % 8 // 4) for n in numbers]
        expected = [0.0 if n % 4 == 3 and n % 8 // 4 else 1.0 for n in numbers]
        scores = reward(completions, answer=references)
        wrong += sum(score != e for score, e in zip(scores, expected, strict=True))
        samples.append(memory())
    return samples, wrong


def growth(samples: list[dict[str, float]], name: str) -> float:
    """By how much the median of the last fifth is above that of the second, when caches are already full."""
    sizes, fifth = [sample[name] for sample in samples], max(1, len(samples) // 5)
    early, late = sorted(sizes[fifth : 2 * fifth] or sizes), sorted(sizes[-fifth:])
    return late[len(late) // 2] - early[len(early) // 2]


def still_judges(reward: MathReward) -> bool:
    completions = [r"\boxed{\sqrt{8}}", r"\boxed{\sqrt{7}}", r"\boxed{41}", r"\boxed{42}"]
    return reward(completions, answer=[r"2\sqrt{2}"] * 2 + ["42"] * 2) == [1.0, 0.0, 0.0, 1.0]


def measure(judgements: int, folder: Path) -> dict:
    reward = MathReward()
    start = time.perf_counter()
    hostile = run_hostile(reward, folder)
    seconds = time.perf_counter() - start
    right_after = still_judges(reward)
    start = time.perf_counter()
    samples, wrong = run_ordinary(reward, judgements)
    ordinary_seconds = time.perf_counter() - start
    right_after = still_judges(reward) and right_after
    running = workers()
    reward.close()
    _, left = psutil.wait_procs(running, timeout=5)
    bounds = {
        "longest judgement, s": (max(r["seconds"] for r in hostile), LONGEST_SECONDS),
        "exceptions": (sum(r["error"] is not None for r in hostile), 0),
        "scored 1": (sum(r["score"] == 1.0 for r in hostile), 0),
        "files made": (len(list(folder.iterdir())), 0),
        "wrong ordinary judgements": (wrong, 0),
        "growth of this process, MB": (growth(samples, "parent"), GROWTH_MB),
        "growth of a worker, MB": (growth(samples, "worker"), GROWTH_MB),
        "processes left": (len(left) + len(workers()), 0),
        "no longer judges": (int(not right_after), 0),
    }
    return {
        "bounds": {name: {"found": found, "allowed": allowed} for name, (found, allowed) in bounds.items()},
        "hostile": len(hostile),
        "hostile_seconds": seconds,
        "ordinary": judgements,
        "ordinary_seconds": ordinary_seconds,
        "memory": samples[:: max(1, len(samples) // 20)],
        "results": hostile,
    }


def show(report: dict) -> bool:
    """Prints the tables, and returns whether every bound is kept."""
    table = Table("group", "completions", "seconds", "longest", "exceptions", "scored 1", "files made")
    for group in dict.fromkeys(r["group"] for r in report["results"]):
        rows = [r for r in report["results"] if r["group"] == group]
        seconds = [r["seconds"] for r in rows]
        counts = [
            sum(r["error"] is not None for r in rows),
            sum(r["score"] == 1.0 for r in rows),
            sum(len(r["made"]) for r in rows),
        ]
        table.add_row(group, str(len(rows)), f"{sum(seconds):.1f}", f"{max(seconds):.1f}", *map(str, counts))
    print_tables(table)
    table = Table("", "found", "at most", "")
    kept = {name: bound["found"] <= bound["allowed"] for name, bound in report["bounds"].items()}
    for name, bound in report["bounds"].items():
        table.add_row(name, f"{bound['found']:.4g}", str(bound["allowed"]), "" if kept[name] else "broken")
    print_tables(table)
    print(f"{report['hostile']} hostile completions: {report['hostile_seconds']:.0f} s; ", end="")
    print(f"{report['ordinary']} ordinary judgements: {report['ordinary_seconds']:.0f} s")
    for r in report["results"]:
        if r["error"] or r["made"] or r["score"] == 1.0 or r["seconds"] > LONGEST_SECONDS:
            outcome = r["error"] or f"score {r['score']}, {r['seconds']:.1f} s, files {r['made']}"
            print(f"[{r['group']}] {r['completion'][:120]}  |  {r['reference'][:120]}: {outcome}")
    return all(kept.values())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgements", type=int, default=50_000, help="ordinary ones, after the hostile ones")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    output = args.output and args.output.resolve()
    home = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="h") as folder:
        os.chdir(folder)  # the workers inherit it
        try:
            report = measure(args.judgements, Path(folder))
        finally:
            os.chdir(home)
    kept = show(report)
    if output:
        output.write_text(
            json.dumps({"python": platform.python_version(), **report}, indent=2) + "\n", encoding="utf-8"
        )
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
