"""The files of the maze table as rows that can be compared run by run and maze by maze."""

from collections.abc import Iterable
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from maze_methods import TABLE, samples_more
from maze_plan import BASE, BASES_OF, METHODS_OF, SCALES, SEARCH_BASE, SEEDS_OF, plan, read
from maze_statistics import mean_and_interval

from rlvr_trl.evaluation import pass_at_k


KS = (1, 2, 4, 8, 16, 32, 64)
CURVE = "whole curve"


class Results:
    """
    The cells of one scale.

    Attributes:
        ks, wide (`list[int]`, `int`): every k of pass@k, and the one that stands for many tries.
        cells (`dict[Cell, dict]`): the finished cells.
        failed (`dict[Cell, str]`): the errors of the failed ones.
        missing (`list[Cell]`): cells that are planned and were not run.
        runs (`list[tuple[int, int]]`): the base models and seeds that the rows are made of. They are those in which no
            cell is missing, because means over different base models cannot be compared; all if there are none such.
    """

    def __init__(self, folder: Path, scale: str):
        self.scale, self.settings = scale, SCALES[scale]
        self.ks = [k for k in KS if k <= self.settings.samples]
        self.wide = min(32, self.settings.samples)
        planned = plan(scale, METHODS_OF[scale], BASES_OF[scale], SEEDS_OF[scale], search=True)
        saved = {cell: read(cell.path(folder)) for cell in planned}
        self.missing = [cell for cell, value in saved.items() if value is None]
        self.failed = {cell: value["error"] for cell, value in saved.items() if value and "error" in value}
        self.cells = {cell: value for cell, value in saved.items() if value and "error" not in value}
        planned_runs = {(cell.base, cell.seed) for cell in planned if cell.method != BASE and cell.base != SEARCH_BASE}
        unfinished = {(cell.base, cell.seed) for cell in self.missing}
        self.runs = sorted(planned_runs - unfinished or planned_runs)
        if len(digests := {value["test"]["mazes"] for value in self.cells.values() if "test" in value}) > 1:
            raise ValueError(f"The cells of {scale} were tested on different mazes: {sorted(digests)}.")
        self.interval = cache(self.interval)  # tables and figures ask for the same intervals

    @cached_property
    def rows(self) -> dict[str, dict[tuple[int, int], dict]]:
        """`{row: {(base, seed): cell}}`; a row is a method, or a method and `":equal"`."""
        rows, bases = {}, {base for base, _ in self.runs}
        for cell, value in self.cells.items():
            if (cell.base, cell.seed) in self.runs or (cell.method == BASE and cell.base in bases):
                row = f"{cell.method}:{cell.variant}" if cell.variant else cell.method
                rows.setdefault(row, {})[cell.base, cell.seed] = value
        return rows

    def values(self, row: str, metric: str, runs: list[tuple[int, int]]) -> np.ndarray:
        """`(runs, mazes)` for pass@k, `(runs,)` for other metrics. The base model is the same with every seed."""
        found = [self.rows[row][(base, 0) if row == BASE else (base, seed)] for base, seed in runs]
        return np.array([value_of(cell, metric) for cell in found])

    def runs_of(self, *rows: str) -> tuple[tuple[int, int], ...]:
        """The runs that all of these rows have."""
        trained = [set(self.rows.get(row, {})) for row in rows if row != BASE]
        if BASE in rows:
            bases = {base for base, _ in self.rows.get(BASE, {})}
            trained = [{run for run in runs if run[0] in bases} for runs in trained] or [{(b, 0) for b in bases}]
        return tuple(sorted(set.intersection(*trained)))

    def interval(self, row: str, metric: str) -> tuple[float, float, float]:
        runs = self.runs_of(row)
        return mean_and_interval(self.values(row, metric, runs), runs)

    def difference(self, a: str, b: str, metric: str) -> tuple[float, float, float, int] | None:
        """Mean, interval and number of runs of a difference; `None` where the two rows have no run in common."""
        runs = self.runs_of(a, b)
        if not runs:
            return None
        return *mean_and_interval(self.values(a, metric, runs) - self.values(b, metric, runs), runs), len(runs)


def value_of(cell: dict, metric: str, test: str = "test"):
    """One number for a run, or one for every maze. `CURVE` is the mean of pass@k over k = 1, 2, 4, …"""
    if metric == CURVE:
        return np.mean([value_of(cell, f"pass@{k}", test) for k in KS if k <= cell[test]["num_samples"]], axis=0)
    if metric.startswith("pass@"):
        return pass_at_k(cell[test]["num_samples"], np.array(cell[test]["num_correct"]), int(metric[5:]))
    if metric == "completions":
        return cell[metric]
    if metric == "unsteadiness":
        return float(np.std(np.diff(cell["log"]["reward"])))
    return cell[test][metric]


def label(row: str) -> str:
    method, _, variant = row.partition(":")
    return "base model" if method == BASE else TABLE[method].label + (", equal rollouts" if variant else "")


def present(results: Results, rows: Iterable[str]) -> list[str]:
    """Those of the rows that exist, in the same order."""
    return [row for row in rows if row in results.rows]


def ordered(results: Results) -> list[str]:
    names = [BASE, *TABLE]
    return sorted(results.rows, key=lambda row: (names.index(row.partition(":")[0]), row))


def at_equal_rollouts(results: Results) -> list[str]:
    """One row for every method that has all runs of DAPO; all rows cost as many rollouts as DAPO."""
    costs_as_much = [f"{name}:equal" if samples_more(method) else name for name, method in TABLE.items()]
    return [row for row in present(results, costs_as_much) if results.runs_of(row) == results.runs_of("dapo")]
