"""
The cells of a comparison as rows that are compared base model by base model and problem by problem.

A row is a method at a learning rate, or at the rate that is chosen for it. For a base model the rate is chosen on the
validation problems of the *other* base models, so that what is compared was not what it was chosen by.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from ..evaluation import pass_at_k
from .cells import BASE, STRONG, Cell
from .comparison_methods import BEYOND
from .intervals import Estimate, estimate, settle


KS = (1, 2, 4, 8, 16, 32, 64)
CURVE = "whole curve"
CHOSEN = None  # in place of a learning rate


class Row(NamedTuple):
    """
    A method, a learning rate or `None` for the chosen one, and whether a run that sampled more completions than the
    others counts as it was when it had sampled as many (`"equal"` in its cell).
    """

    method: str
    rate: float | None = CHOSEN
    equal: bool = False


BASE_ROW = Row(BASE)


class Outcomes:
    """
    The finished cells of one task.

    Args:
        cells (`Mapping[Cell, dict]`): cells and what is saved of them, as in a [`Store`].
        task (`str`): whose cells count.
        strong (`bool`): whether those of the base models that are warmed up further count, in place of the others.

    Attributes:
        failed (`dict[Cell, str]`): the errors of the failed cells.

    Raises:
        ValueError: Two cells were tested on different problems.
    """

    def __init__(self, cells: Mapping[Cell, dict], task: str, strong: bool = False):
        own = {cell: saved for cell, saved in cells.items() if cell.task == task and (cell.base >= STRONG) == strong}
        self.task = task
        self.failed = {cell: saved["error"] for cell, saved in own.items() if "error" in saved}
        self.cells = {cell: saved for cell, saved in own.items() if "error" not in saved}
        for test in ("test", "validation"):
            if len(digests := {saved[test]["problems"] for saved in self.cells.values()}) > 1:
                raise ValueError(f"The cells of {task} have different {test} problems: {sorted(digests)}.")
        self.chosen_rate = cache(self.chosen_rate)
        self.values = cache(self.values)

    def rates(self, method: str) -> list[float]:
        """The learning rates that some cell of a method has."""
        return sorted({cell.rate for cell in self.cells if cell.method == method})

    def chosen_rate(self, method: str, base: int, equal: bool = False) -> float | None:
        """
        The learning rate with the highest [`CURVE`] on the validation problems of the other base models, those that
        have all rates of the method. `None` if there is no such base model. A rate of `BEYOND` counts once all of
        these base models have it.
        """
        bases: dict[float, set[int]] = {rate: set() for rate in self.rates(method)}
        for cell in self.cells:
            if cell.method == method:
                bases[cell.rate].add(cell.base)
        usual = [of_rate for rate, of_rate in bases.items() if rate not in BEYOND.values()] or list(bases.values())
        trained = set.intersection(*usual) if usual else set()
        rates, common = [rate for rate in bases if bases[rate] >= trained], sorted(trained - {base})
        if not common:
            return None
        scores = {}
        for rate in rates:
            scores[rate] = settle(self.values(Row(method, rate, equal), CURVE, tuple(common), "validation").mean())
        return max(rates, key=scores.__getitem__)  # the lowest of equally good ones

    def cell(self, row: Row, base: int) -> dict | None:
        """What is saved of a row from a base model."""
        if row.method == BASE:
            rate = 0.0
        else:
            rate = self.chosen_rate(row.method, base, row.equal) if row.rate is CHOSEN else row.rate
        saved = None if rate is None else self.cells.get(Cell(self.task, row.method, rate, base))
        return saved | saved["equal"] if saved and row.equal and "equal" in saved else saved

    def common_bases(self, *rows: Row) -> list[int]:
        """The base models from which all of the rows were trained."""
        bases = sorted({cell.base for cell in self.cells})
        return [base for base in bases if all(self.cell(row, base) is not None for row in rows)]

    def values(self, row: Row, metric: str, bases: tuple[int, ...], test: str = "test") -> np.ndarray:
        """`(bases, problems)` for pass@k and [`CURVE`], `(bases,)` for other metrics."""
        found = [self.cell(row, base) for base in bases]
        return np.array([metric_of(saved, metric, test) for saved in found if saved is not None])

    def mean(self, row: Row, metric: str) -> Estimate | None:
        """Of a row, over the base models that it has; `None` where nothing has an interval."""
        return self._estimate(metric, row)

    def difference(self, a: Row, b: Row, metric: str) -> Estimate | None:
        """
        Of row `a` minus row `b`, over the base models that both have. `None` where nothing has an interval: no base
        model is common, or only one and the metric has one value for a run.
        """
        return self._estimate(metric, a, b)

    def shared_rates(self, *methods: str) -> dict[int, list[float]]:
        """For every base model from which all of the methods were trained at one rate or more: these rates."""
        rates = sorted({rate for method in methods for rate in self.rates(method) if method != BASE})
        shared = {}
        for base in sorted({cell.base for cell in self.cells}):
            trained = [rate for rate in rates if all(self.cell(Row(method, rate), base) for method in methods)]
            if trained:
                shared[base] = trained
        return shared

    def values_over(self, method: str, metric: str, rates: Mapping[int, Sequence[float]]) -> np.ndarray:
        """`(bases, problems)`: at equal rollouts, the means over some learning rates of each base model."""
        cells = [[self.values(Row(method, rate, True), metric, (base,)) for rate in rates[base]] for base in rates]
        return np.array([np.mean(values, axis=0)[0] for values in cells])

    def difference_at_shared_rates(self, a: str, b: str, metric: str) -> Estimate | None:
        """
        Of method `a` minus method `b` at equal rollouts, over the base models and learning rates that both have; of
        several rates the mean counts. `None` if they share none.
        """
        rates = self.shared_rates(a, b)
        return estimate(self.values_over(a, metric, rates) - self.values_over(b, metric, rates)) if rates else None

    def _estimate(self, metric: str, a: Row, b: Row | None = None) -> Estimate | None:
        bases = tuple(self.common_bases(a) if b is None else self.common_bases(a, b))
        if not bases:
            return None
        values = self.values(a, metric, bases)
        if b is not None:
            values = values - self.values(b, metric, bases)
        return estimate(values) if values.size > 1 else None


def metric_of(saved: dict, metric: str, test: str = "test") -> np.ndarray | float:
    """
    One number for a run, or one for every problem: pass@k, or [`CURVE`], its mean over the k of `KS` that the samples
    allow. Not of a base model: `"completions"` and `"training_reward"`.
    """
    if metric == CURVE:
        ks = [k for k in KS if k <= saved[test]["num_samples"]]
        return np.array([metric_of(saved, f"pass@{k}", test) for k in ks]).mean(axis=0)
    if metric.startswith("pass@"):
        return pass_at_k(saved[test]["num_samples"], np.array(saved[test]["num_correct"]), int(metric[5:]))
    if metric == "completions":
        return float(saved[metric])
    if metric == "training_reward":  # of the last twentieth of the run
        return float(saved["log"]["reward"][-1])
    return saved[test][metric]
