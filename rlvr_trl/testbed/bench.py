"""
`rlvr-trl bench`: methods of a user's own, trained on the cells of the published comparison and compared with them.

A published cell is trained again only to see whether this machine gives the same. All else is read from the results of
`benchmarks/comparison.py`, which an installed package has with it.
"""

import json
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from ..registry import did_you_mean
from .bench_report import Report, counted_cells, shown_time, write_report
from .cell_runner import Store, read_folder, run_cells
from .cells import BASE, FULL_SIZE, Cell, Size, digest, problems_of
from .comparison_methods import BASES, MAIN, METHODS, RATES
from .methods import PROMPTS_PER_STEP
from .own_methods import OwnMethod, changed_sources
from .tasks import TASKS


PREFERRED = ("maze", "sums", "sudoku", "countdown")  # of tasks with equally many published cells
USUAL_TASKS, USUAL_BASES, USUAL_RATES = 2, 2, 2  # how many of each, unless they are named
MARGIN = 1.1  # a cell may take this much longer than the longest before it
START = 10.0  # and so many seconds for its process, and for the report


def published_folder() -> Path:
    """
    The folder with the published cells: a part of an installed package, in `benchmarks` of a clone.

    Raises:
        `FileNotFoundError`: It is in neither place.
    """
    package = Path(__file__).parents[1]
    for folder in (package, package.parent):
        if (found := folder / "benchmarks" / "results" / "comparison").is_dir():
            return found
    raise FileNotFoundError(f"There are no published cells in {package}: rlvr_trl was installed without them.")


class Published:
    """
    The cells and base models of a comparison, as far as they are there.

    Attributes:
        cells (`dict[Cell, dict]`): the finished ones, each from one of `BASES`.
        bases (`dict[str, list[int]]`): the base models of each task.
    """

    def __init__(self, folder: Path):
        self.weights = folder / "bases"
        self.cells = {
            cell: saved for cell, saved in read_folder(folder).items() if cell.base in BASES and "error" not in saved
        }
        kept = {
            task: [base for base in BASES if (self.weights / f"{task}-{base}.safetensors").exists()] for task in TASKS
        }
        self.bases = {task: bases for task, bases in kept.items() if bases}
        if not self.bases:
            raise ValueError(f"'{folder}' holds no base model of a comparison, such as bases/maze-0.safetensors.")

    def usual_tasks(self) -> list[str]:
        """The tasks with the most cells of the main methods."""
        counts = {task: sum(cell.task == task and cell.method in MAIN for cell in self.cells) for task in self.bases}
        return sorted(self.bases, key=lambda task: (-counts[task], PREFERRED.index(task)))[:USUAL_TASKS]

    def seconds(self) -> dict[str, float]:
        """How long a cell of each task took where it was run."""
        trained = [(cell.task, saved["seconds"]) for cell, saved in self.cells.items() if cell.method != BASE]
        return {task: median(taken for other, taken in trained if other == task) for task in dict(trained)}


@dataclass(frozen=True)
class Selection:
    """
    Which cells are trained.

    Attributes:
        tasks, bases, rates: `None` for the usual ones.
        full (`bool`): whether the usual ones are all there are.
    """

    tasks: Sequence[str] | None = None
    bases: Sequence[int] | None = None
    rates: Sequence[float] | None = None
    full: bool = False

    def __post_init__(self):
        _check_choices("--tasks", self.tasks, TASKS)
        _check_choices("--bases", self.bases, BASES)
        _check_choices("--rates", self.rates, RATES)

    def plan(self, methods: Iterable[str], published: Published) -> tuple[list[Cell], list[str]]:
        """
        The cells in their order, one rate from all base models before the next, and what is left out as no published
        base model is there.

        Raises:
            `ValueError`: Nothing is left.
        """
        tasks = self.tasks or (list(TASKS) if self.full else published.usual_tasks())
        rates = self.rates or (RATES if self.full else RATES[:USUAL_RATES])
        bases = self.bases or (BASES if self.full else BASES[:USUAL_BASES])
        there = {(task, base) for task in tasks for base in bases if base in published.bases.get(task, ())}
        missing = [f"{task} {base}" for task in tasks for base in bases if (task, base) not in there]
        if not there:
            found = "; ".join(f"{task} {', '.join(map(str, bases))}" for task, bases in published.bases.items())
            raise ValueError(f"No base model is published of {', '.join(missing)}. There are {found}.")
        cells = [
            Cell(task, method, rate, base)
            for rate in rates
            for base in bases
            for task in tasks
            for method in methods
            if (task, base) in there
        ]
        untested = [Cell(task, BASE, 0.0, base) for base in bases for task in tasks if (task, base) in there]
        return [cell for cell in untested if cell not in published.cells] + cells, missing


def _check_choices(option: str, chosen: Sequence | None, choices: Iterable) -> None:
    for one in chosen or ():
        if one not in choices:
            hint = did_you_mean(one, choices) if isinstance(one, str) else ""
            raise ValueError(f"{option} {one} is not published.{hint} There are {', '.join(map(str, choices))}.")
    if chosen is not None and len(set(chosen)) < len(chosen):
        raise ValueError(f"{option} names one twice: {', '.join(map(str, chosen))}.")


def read_duration(text: str) -> float:
    """
    Seconds of a text such as `90s`, `20m` or `1.5h`.

    Raises:
        `ValueError`: It is no such text, or not above 0.
    """
    read = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)([smh])", text.strip())
    seconds = float(read[1]) * {"s": 1, "m": 60, "h": 3600}[read[2]] if read else 0.0
    if not seconds:
        raise ValueError(f"--budget must be a time such as 90s, 20m or 1.5h, got {text!r}.")
    return seconds


@dataclass(frozen=True)
class Budget:
    """
    Whether a cell would end in time, judged by the longest of the finished ones.

    Args:
        seconds (`float`, *optional*): the whole time; `None` for no end.
        begin (`float`): the time of `time.monotonic` from which it counts.
        usual (`dict[str, float]`): how long a published cell of each task took.
        cells (`Mapping[Cell, dict]`): those that have run here, and more as they end.
    """

    seconds: float | None
    begin: float
    usual: Mapping[str, float]
    cells: Mapping[Cell, dict]

    def expected(self, cell: Cell) -> float:
        """
        Seconds that a cell may take: by those of its method on its task, or else by how the others compare with the
        published ones, or, before any, by the published ones.
        """
        taken = {
            other: saved["seconds"]
            for other, saved in self.cells.items()
            if "error" not in saved and (other.method == BASE) == (cell.method == BASE)
        }
        alike = [seconds for other, seconds in taken.items() if (other.task, other.method) == (cell.task, cell.method)]
        if alike:
            return MARGIN * max(alike) + START
        ratios = [seconds / self.usual[other.task] for other, seconds in taken.items() if other.task in self.usual]
        usual = self.usual.get(cell.task, max(self.usual.values(), default=0.0))
        return MARGIN * usual * max(ratios, default=1.0) + START

    def allows(self, cell: Cell) -> bool:
        return self.seconds is None or time.monotonic() - self.begin + self.expected(cell) <= self.seconds


class OwnStore(Store):
    """
    The cells of a user's own methods, each with the digests of their code.

    Raises:
        `ValueError`: A finished cell has the label of one of the methods and other settings, or other code.
    """

    def __init__(self, folder: Path, methods: Mapping[str, OwnMethod]):
        self.methods = methods
        super().__init__(folder)

    def read(self) -> None:
        super().read()
        other = f"another --output-dir than '{self.folder.parent}'"
        advice = f"Give it another label in a file for --config, or {other}."
        for cell, saved in self.cells.items():
            if cell.method not in self.methods or "error" in saved:
                continue
            old, new = saved.get("settings", {}), json.loads(json.dumps(self.methods[cell.method].settings))
            for name in sorted({*old, *new}):
                if old.get(name) != new.get(name):
                    raise ValueError(
                        f"The cells of {cell.method!r} that are there were trained with {name}={old.get(name)!r}, and "
                        f"now it is {new.get(name)!r}. {advice}"
                    )
            if changed := changed_sources(saved.get("sources", {}), self.methods[cell.method].sources):
                raise ValueError(
                    f"The code of {', '.join(changed)} has changed since the cells of {cell.method!r} that are there "
                    f"were trained. {advice}"
                )

    def add(self, cell: Cell, saved: dict) -> None:
        own = self.methods.get(cell.method)
        super().add(cell, saved if own is None else saved | {"sources": own.sources})


def run_bench(
    methods: Mapping[str, OwnMethod],
    selection: Selection,
    folder: Path,
    budget: float | None = None,
    jobs: int = 2,
    check: bool = False,
    published_in: Path | None = None,
    size: Size = FULL_SIZE,
) -> Report:
    """
    Trains and tests what is missing in `folder`, and compares all that is there with the published cells.

    Writes `results.md`, `pass_at_k.png` and, in `cells`, a line for each cell.

    Args:
        methods (`Mapping[str, OwnMethod]`): by label, as [`own_methods`] makes them.
        selection ([`Selection`]): which cells.
        folder (`Path`): of this and of earlier runs.
        budget (`float`, *optional*): seconds. No cell is begun that would not end in time.
        jobs (`int`): number of processes.
        check (`bool`): whether a published cell is trained again, to see whether this machine gives the same.
        published_in (`Path`, *optional*): results of `benchmarks/comparison.py`, in place of those of the package.
        size ([`Size`]): of the published cells.

    Raises:
        `ValueError`: A method fails in its first batch, `folder` has cells of another method with its label, the
        problems drawn here are not those of the published cells, or no published base model is there.
        `RuntimeError`: After the report is written: cells have failed.
    """
    begin = time.monotonic()
    published = Published(published_in or published_folder())
    cells, missing = selection.plan(methods, published)
    store, work = OwnStore(folder / "cells", methods), folder / "models"
    reruns = _to_check(cells, published) if check else []
    _check_problems(cells, published, size)
    waiting = [cell for cell in [*cells, *reruns] if not store.is_done(cell, retry=True)]
    if missing:
        print(f"No base model is published yet of {', '.join(missing)}: left out.")
    usual = published.seconds()
    print(_describe(cells, waiting, usual, jobs, budget), flush=True)
    clock = Budget(budget, begin, usual, store.cells)
    if any(map(clock.allows, waiting)):
        _rehearse(methods, waiting, published.weights, work, jobs)
        run_cells(
            *([*cells, *reruns], METHODS | dict(methods), store, published.weights, work),
            **{"size": size, "jobs": jobs, "retry": True, "may_begin": clock.allows, "apart": True},
        )
    left_out = [cell for cell in waiting if cell not in store.cells]
    report = Report(store.cells, published.cells, left_out, missing)
    write_report(report, folder, time.monotonic() - begin)
    failed = [f"{cell}: {store.cells[cell]['error']}" for cell in cells if "error" in store.cells.get(cell, {})]
    if failed:
        raise RuntimeError(f"{len(failed)} of {counted_cells(cells)} failed. The first: {failed[0]}")
    return report


def _to_check(cells: list[Cell], published: Published) -> list[Cell]:
    """The published cell that is trained again: of a main method, where the first of `cells` that has one is."""
    for own in cells:
        for method in ("dapo", *MAIN):
            if (cell := Cell(own.task, method, own.rate, own.base)) in published.cells:
                return [cell]
    raise ValueError("--check needs a published cell of the tasks, base models and rates that are trained; none is.")


def _check_problems(cells: list[Cell], published: Published, size: Size) -> None:
    """Refuses to train where other problems are drawn than those that the published cells were tested on."""
    for task in dict.fromkeys(cell.task for cell in cells):
        base = next(cell.base for cell in cells if cell.task == task)
        here = digest(problems_of(task, base, size).test["prompt"])
        there = {saved["test"]["problems"] for cell, saved in published.cells.items() if cell.task == task}
        if not there <= {here}:
            raise ValueError(
                f"The test problems of {task} drawn here ({here}) are not those of the published cells "
                f"({', '.join(sorted(there))}), so that nothing can be compared. They are of another version."
            )


def _describe(cells: list[Cell], waiting: list[Cell], usual: dict, jobs: int, budget: float | None) -> str:
    places = f"{counted_cells(cells)}, {len(set(cells) - set(waiting))} of them there"
    known = [usual[cell.task] for cell in waiting if cell.task in usual]
    took = f" Where the published ones were run, the rest took {shown_time(sum(known) / jobs)}." if known else ""
    limit = "" if budget is None else f" The budget is {shown_time(budget)}."
    return f"{places}.{took}{limit}"


def _rehearse(methods: Mapping[str, OwnMethod], waiting: list[Cell], weights: Path, work: Path, jobs: int) -> None:
    """Trains every method on its first batch, and tests it on next to nothing: what fails should fail at once."""
    first = {cell.method: cell for cell in reversed(waiting) if cell.method in methods}
    prompts = max((methods[label].prompts_per_batch for label in first), default=0)
    size = Size(-(-prompts // PROMPTS_PER_STEP), 2, 2, 2, 2, 10)
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        run_cells(first.values(), dict(methods), store, weights, work, size, jobs, tell=lambda line: None, apart=True)
    for cell, saved in store.cells.items():
        if "error" in saved:
            raise ValueError(f"The method {cell.method!r} fails in its first batch: {saved['error']}")
