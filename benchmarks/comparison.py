"""
Methods on four tasks, from several base models, each at three learning rates: one line of JSON a run.

python benchmarks/comparison.py --jobs 2                          # everything; stop and restart it as you like
python benchmarks/comparison.py --tasks sums --only dapo dars_hw  # a part
python benchmarks/comparison.py --check 3                         # reruns three finished cells: are they the same?

Finished cells are skipped, and so are failed ones unless --retry is given. Where the lowest or the highest rate is the
best for a method, one beyond it follows at the next start.
"""

import argparse
import random
import tempfile
from collections.abc import Mapping
from itertools import product
from pathlib import Path

from rlvr_trl.testbed import TASKS
from rlvr_trl.testbed.cell_runner import Store, outcome_of, run_cells
from rlvr_trl.testbed.cells import BASE, STRONG, Cell
from rlvr_trl.testbed.comparison_methods import BASES, BEYOND, MAIN, METHODS, ON_EVERY_TASK, RATES
from rlvr_trl.testbed.intervals import settle
from rlvr_trl.testbed.outcomes import CURVE, Outcomes, Row


RESULTS = Path(__file__).resolve().parent / "results" / "comparison"
ON_STRONG = ("grpo", "dapo", "a_grae", "a_grae_half", "a_grae_shift", "a_grae_suppression")


def plan(tasks: list[str], only: list[str] | None = None) -> list[Cell]:
    """
    All cells: the main methods on all tasks, then the others of all tasks, then what runs on mazes alone; each time
    all of them from one base model before the next.
    """
    parts = [(base, task, methods) for methods in (MAIN, ON_EVERY_TASK) for base in BASES for task in tasks]
    if "maze" in tasks:
        parts += [(STRONG, "maze", ON_STRONG), *((base, "maze", METHODS) for base in BASES)]
    cells = {}  # in order, and each once
    for base, task, methods in parts:
        cells[Cell(task, BASE, 0.0, base)] = None
        for name, rate in product(methods, RATES):
            if only is None or name in only:
                cells[Cell(task, name, rate, base)] = None
    return list(cells)


def beyond_the_edge(cells: list[Cell], done: Mapping[Cell, dict]) -> list[Cell]:
    """
    Cells at a still lower or higher rate: of every method of a task whose lowest or highest rate is the best, by the
    whole curve on the validation problems, once all of its cells are there. The rule is the same for all.
    """
    found = []
    for task, name in dict.fromkeys((cell.task, cell.method) for cell in cells if cell.base in BASES):
        outcomes = Outcomes(done, task)
        rows = [Row(name, rate) for rate in RATES]
        if name == BASE or any(outcomes.common_bases(row) != list(BASES) for row in rows):
            continue
        curves = {row.rate: settle(outcomes.values(row, CURVE, BASES, "validation").mean()) for row in rows}
        best = [rate for rate, curve in curves.items() if curve == max(curves.values())]
        if len(best) == 1 and best[0] in BEYOND:
            found += [Cell(task, name, BEYOND[best[0]], base) for base in BASES]
    return found


def check(cells: list[Cell], store: Store, bases: Path, work: Path, count: int, jobs: int) -> bool:
    """Runs some finished cells again. Returns whether what they count is the same to the last digit."""
    finished = [cell for cell in cells if "test" in store.cells.get(cell, {})]
    chosen = random.SystemRandom().sample(finished, min(count, len(finished)))
    with tempfile.TemporaryDirectory() as folder:
        again = Store(Path(folder))
        run_cells(chosen, METHODS, again, bases, work, jobs=jobs)
        same = True
        for cell in chosen:
            old, new = store.cells[cell], again.cells[cell]
            equal = all(old[name] == new.get(name) for name in ("test", "validation"))
            print(f"{cell}: {'the same' if equal else f'was {outcome_of(old)}, is {outcome_of(new)}'}")
            same &= equal
    return same and bool(chosen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--only", nargs="+", choices=METHODS, metavar="METHOD", help=", ".join(METHODS))
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--minutes", type=float, help="begin no cell after this time")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/comparison"), help="where base models are unpacked")
    parser.add_argument("--check", type=int, metavar="N", help="rerun N finished cells and compare")
    args = parser.parse_args()
    store = Store(args.results)
    cells = plan(args.tasks, args.only)
    cells += beyond_the_edge(cells, store.cells)
    bases = args.results / "bases"
    if args.check is not None:
        raise SystemExit(0 if check(cells, store, bases, args.work, args.check, args.jobs) else 1)
    left = run_cells(
        *(cells, METHODS, store, bases, args.work), jobs=args.jobs, minutes=args.minutes, retry=args.retry
    )
    print(f"{len(cells) - left} of {len(cells)} cells are done.")
    if more := len(set(beyond_the_edge(cells, store.cells)) - set(cells)):
        print(f"{more} more follow where the lowest or the highest rate is the best: start this again.")


if __name__ == "__main__":
    main()
