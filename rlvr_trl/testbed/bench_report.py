"""What a user's own methods came to among the published ones: tables, a page and a picture."""

from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich import box
from rich.table import Table as RichTable

from ..line_styles import line_styles
from ..terminal import literal, print_tables, printable
from .cells import BASE, Cell
from .comparison_methods import MAIN, METHODS, RATES
from .intervals import Estimate, average, estimate, settle, shown
from .outcomes import CURVE, KS, Outcomes, Row, metric_of


AGAINST = ("grpo", "dapo", "pass_at_8", "dars_hw", BASE)
SHOWN_KS = (1, 8, 32)
FEW = 8  # names that a sentence may list
PAGE, PICTURE = "results.md", "pass_at_k.png"


@dataclass
class Grid:
    """A table, for a page or a terminal. All but the first `left` columns are numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1

    def as_markdown(self) -> str:
        rules = ["---"] * self.left + ["---:"] * (len(self.header) - self.left)
        lines = [self.header, rules, *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)

    def as_rich(self) -> RichTable:
        table = RichTable(title=literal(self.title), box=box.SIMPLE_HEAD, title_justify="left")
        for place, name in enumerate(self.header):
            table.add_column(literal(name), justify="right" if place >= self.left else "left", no_wrap=True)
        for row in self.rows:
            table.add_row(*map(literal, row))
        return table


class Report:
    """
    The finished cells of a user's own methods beside the published ones.

    Args:
        own, published (`Mapping[Cell, dict]`): cells and what is saved of them. A cell of a published method among the
            own ones was trained again.
        left_out (`list[Cell]`): cells for which there was no time.
        missing (`list[str]`): base models that are not published.

    Attributes:
        labels (`list[str]`): the own methods that have a finished cell.
        tasks (`dict[str, Outcomes]`): the tasks on which they have one.
    """

    def __init__(
        self,
        own: Mapping[Cell, dict],
        published: Mapping[Cell, dict],
        left_out: Iterable[Cell] = (),
        missing: Iterable[str] = (),
    ):
        self.left_out, self.missing = list(left_out), list(missing)
        finished = {cell: saved for cell, saved in own.items() if "error" not in saved}
        self.failed = {cell: saved["error"] for cell, saved in own.items() if "error" in saved}
        self.reruns = {
            cell: (published[cell], saved)
            for cell, saved in finished.items()
            if cell.method in METHODS and cell in published
        }
        mine = [cell for cell in finished if cell.method not in METHODS and cell.method != BASE]
        self.labels = list(dict.fromkeys(cell.method for cell in mine))
        self.cells = {**finished, **published}
        tasks = dict.fromkeys(cell.task for cell in mine)
        self.tasks = {task: Outcomes(self.cells, task) for task in tasks}
        samples = min((self.cells[cell]["test"]["num_samples"] for cell in mine), default=max(KS))
        self.ks = [k for k in KS if k <= samples]
        self.metrics = [f"pass@{k}" for k in SHOWN_KS if k <= samples] + [CURVE]

    def name(self, method: str) -> str:
        """The label of a method."""
        return "base model" if method == BASE else METHODS[method].label if method in METHODS else method

    # --- paired differences ---

    def difference(self, label: str, other: str, metric: str, task: str | None = None) -> Estimate | None:
        """Of an own method minus another: on one task, or the mean over the tasks on which both were trained."""
        tasks = self.tasks if task is None else [task]
        found = [self.tasks[one].difference_at_shared_rates(label, other, metric) for one in tasks]
        estimates = [one for one in found if one is not None]
        return average(estimates) if estimates else None

    def pairs(self, label: str, other: str, task: str | None = None) -> int:
        """Over how many pairs of cells that goes."""
        tasks = self.tasks if task is None else [task]
        return sum(len(rates) for one in tasks for rates in self.tasks[one].shared_rates(label, other).values())

    def _others(self, label: str) -> list[str]:
        """What an own method is compared with."""
        return [*AGAINST, *(own for own in self.labels if own != label)]

    def differences(self, label: str, task: str | None = None) -> Grid:
        """Of an own method minus each of `AGAINST` and of the other own ones, as far as there are cells."""
        tasks = [one for one in (self.tasks if task is None else [task]) if self.tasks[one].rates(label)]
        rows = []
        for other in self._others(label):
            found = [one for one in tasks if self.pairs(label, other, one)]
            if found:
                estimates = [self.difference(label, other, metric, task) for metric in self.metrics]
                where = f" ({' and '.join(found)} alone)" if found != tasks else ""
                cells = [one.text() for one in estimates if one is not None]
                rows.append([self.name(other) + where, str(self.pairs(label, other, task)), *cells])
        place = ("mean of " if len(tasks) > 1 else "") + " and ".join(tasks)
        title = f"{label} minus other methods, at equal rates and rollouts: {place}"
        return Grid(title, ["minus", "pairs of cells", *self.metrics], rows)

    # --- the place among the published rows ---

    def shared(self, task: str) -> dict[int, list[float]]:
        """Base models and rates at which all own methods that were trained on a task were."""
        outcomes = self.tasks[task]
        return outcomes.shared_rates(*(label for label in self.labels if outcomes.rates(label)))

    def placements(self, task: str, only: Iterable[str] | None = None) -> list[Grid]:
        """For each rate, the rows that have all base models of the own ones, best first; those of `only` alone."""
        outcomes, shared = self.tasks[task], self.shared(task)
        grids = []
        for rate in sorted({rate for rates in shared.values() for rate in rates}):
            bases = tuple(base for base, rates in shared.items() if rate in rates)
            rows = []
            for method in self._methods():
                row = Row(method, rate, True)
                if all(outcomes.cell(row, base) is not None for base in bases):
                    values = [settle(outcomes.values(row, metric, bases).mean()) for metric in self.metrics]
                    sampled = "" if method == BASE else f"{outcomes.values(row, 'completions', bases).mean():,.0f}"
                    rows.append((values, method, sampled))
            rows.sort(key=lambda row: (-row[0][-1], row[1]))
            lines = [
                [str(place), self._marked(method), *(shown(value, ".3f") for value in values), sampled]
                for place, (values, method, sampled) in enumerate(rows, start=1)
                if only is None or method in only
            ]
            title = f"{task}, rate {rate:g}, base {_numbered(bases, 'model')}: {len(rows)} rows"
            grids.append(Grid(title, ["place", "method", *self.metrics, "completions"], lines, left=2))
        return grids

    def _methods(self) -> list[str]:
        return [BASE, *METHODS, *self.labels]

    def _marked(self, method: str) -> str:
        return f"→ {method}" if method in self.labels else self.name(method)

    def lacking(self, task: str) -> list[str]:
        """The published methods that lack some of the cells of the own ones."""
        outcomes, shared = self.tasks[task], self.shared(task)
        rows = {name: [Row(name, rate) for rate in RATES] for name in METHODS}
        return [
            self.name(name)
            for name, at_rates in rows.items()
            if any(outcomes.cell(row, base) is None for base in shared for row in at_rates if row.rate in shared[base])
        ]

    # --- what is said of it ---

    def check(self) -> list[str]:
        """Whether published cells that were trained again came out the same."""
        lines = []
        for cell, (there, here) in self.reruns.items():
            if all(there[test]["num_correct"] == here[test]["num_correct"] for test in ("validation", "test")):
                lines.append(f"{cell}: trained again here, it is the same to the last digit.")
                continue
            metrics = ("pass@1", CURVE)
            values = {
                metric: [float(np.mean(metric_of(saved, metric))) for saved in (there, here)] for metric in metrics
            }
            shown_values = ", ".join(
                f"{name} {shown(a, '.4f')} and {shown(b, '.4f')}" for name, (a, b) in values.items()
            )
            lines.append(f"{cell}: there and, trained again, here: {shown_values}. {_other_versions(there, here)}")
        return lines

    def notes(self) -> list[str]:
        """What is not there, and what so small a test can tell."""
        notes = [f"Of {', '.join(self.missing)} no base model is published yet."] if self.missing else []
        if self.left_out:
            notes.append(
                f"There was no time for {counted_cells(self.left_out)}: {'; '.join(map(str, self.left_out))}."
            )
        notes += [f"Failed: {cell}: {error}" for cell, error in self.failed.items()]
        for task in self.tasks:
            if lacking := self.lacking(task):
                few = f": {', '.join(lacking)}" if len(lacking) <= FEW else ""
                notes.append(
                    f"On {task}, {len(lacking)} of {len(METHODS)} published methods lack some of these cells, and are "
                    f"not placed where they do{few}."
                )
        notes += self._of_other_rollouts()
        alone = [task for task in self.tasks if len(self.shared(task)) == 1]
        if alone:
            notes.append(
                f"On {' and '.join(alone)} there is one base model, so the interval is over problems alone: it says "
                "nothing of another base model, or of another run from this one."
            )
        compared = [
            one.interval()
            for task in (None, *(self.tasks if len(self.tasks) > 1 else ()))
            for label in self.labels
            for other in self._others(label)
            for metric in self.metrics
            if (one := self.difference(label, other, metric, task)) is not None
        ]
        apart = sum(not low <= 0 <= high for low, high in compared)
        notes.append(
            f"{len(compared)} differences are shown, and {apart} of their 95 % intervals leave out 0. Up to one in "
            "twenty would if there were no differences at all, and more where several rows are looked at for the best."
        )
        return [*notes, LIMITS]

    def _of_other_rollouts(self) -> list[str]:
        """Own methods that sampled fewer completions than the published ones, or more in their first batch alone."""
        notes = []
        for label in self.labels:
            pairs = [
                (outcomes.cell(Row(label, rate, True), base), outcomes.cell(Row(other, rate, True), base))
                for outcomes in self.tasks.values()
                for other in AGAINST
                if other != BASE
                for base, rates in outcomes.shared_rates(label, other).items()
                for rate in rates
            ]
            shares = [own["completions"] / other["completions"] for own, other in pairs if own and other]
            if shares and not 0.9 <= min(shares) <= max(shares) <= 1.1:
                notes.append(
                    f"{label} is not compared at equal rollouts: it sampled {shown(min(shares), '.2f')} to "
                    f"{shown(max(shares), '.2f')} times as many completions as the published methods."
                )
        return notes


LIMITS = (
    "What this can tell: whether a method is far better or worse than these ones on these tasks, with this recipe, at "
    "the same learning rates and with as many completions. What it cannot: a difference smaller than its interval is "
    "wide; what another rate would do, as only a few are tried and a method's best one may not be among them; other "
    "base models, of which there are few; and anything about models of more than these 160,000 parameters."
)


def _other_versions(there: dict, here: dict) -> str:
    before, now = ({**saved.get("versions", {}), "device": saved.get("device")} for saved in (there, here))
    other = [f"{name} {before.get(name)} there and {now[name]} here" for name in now if before.get(name) != now[name]]
    return f"Not the same: {', '.join(other)}." if other else "The libraries are the same; the processor may differ."


def counted_cells(cells: Sized) -> str:
    return f"{len(cells)} cell{'' if len(cells) == 1 else 's'}"


def shown_time(seconds: float) -> str:
    """`45 s`, `7 min` or `1.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _numbered(numbers: Iterable[int], noun: str) -> str:
    listed = [str(number) for number in numbers]
    return f"{noun}{'s' if len(listed) > 1 else ''} {', '.join(listed)}"


def write_report(report: Report, folder: Path, seconds: float) -> None:
    """Prints the tables with the main methods, and writes those with all and a picture into `folder`."""
    if not report.labels:
        print("No cell is finished, so there is nothing to compare.")
        for note in report.notes()[:-2]:
            print(printable(note))
        return
    main = [*MAIN, BASE, *report.labels]
    placed = [grid for task in report.tasks for grid in report.placements(task, only=main)]
    print_tables(*(grid.as_rich() for grid in [*placed, *map(report.differences, report.labels)]))
    text = [f"# {', '.join(report.labels)} among the published methods", f"![pass@k]({PICTURE})"]
    each = report.tasks if len(report.tasks) > 1 else ()
    grids = [report.differences(label, task) for label in report.labels for task in (None, *each)]
    grids = [grid for grid in grids if grid.rows]
    for grid in [*grids, *(grid for task in report.tasks for grid in report.placements(task))]:
        text += [f"## {grid.title}", grid.as_markdown()]
    text += ["## What this can tell and what it cannot", *report.notes()]
    if checks := report.check():
        text += ["## A published cell, trained again", *checks]
    (folder / PAGE).write_text("\n\n".join(text) + "\n", encoding="utf-8")
    draw(report, folder / PICTURE)
    for line in [*report.notes(), *checks]:
        print(printable(line))
    print(f"{folder / PAGE} has the tables with all rows, and {PICTURE} the curves. It took {shown_time(seconds)}.")


def draw(report: Report, path: Path) -> None:
    """pass@k minus that of the base model, at equal rates and rollouts, one panel a task."""
    from matplotlib.figure import Figure  # not pyplot, which would choose a backend for the whole process

    shown_methods = [*MAIN, *report.labels]
    styles = line_styles([report.name(method) for method in shown_methods])
    figure = Figure(figsize=(5.2 * len(report.tasks), 4.4), layout="constrained")
    panels = figure.subplots(1, len(report.tasks), squeeze=False)[0]
    for axes, task in zip(panels, report.tasks, strict=True):
        outcomes = report.tasks[task]
        own = [label for label in report.labels if outcomes.rates(label)]
        shared = outcomes.shared_rates(BASE, *own)
        axes.axhline(0, color="0.5", linewidth=0.8)
        for method in shown_methods:
            if not shared or outcomes.shared_rates(method, BASE, *own) != shared:
                continue
            name = report.name(method)
            curves = [
                outcomes.values_over(method, f"pass@{k}", shared) - outcomes.values_over(BASE, f"pass@{k}", shared)
                for k in report.ks
            ]
            means = [values.mean() for values in curves]
            mine = method in report.labels
            axes.plot(
                report.ks,
                means,
                marker="o",
                markersize=4,
                linewidth=2.5 if mine else 1.2,
                label=" " * name.startswith("_") + name.replace("$", r"\$"),
                **styles[name],
            )
            if mine:
                low, high = zip(*(estimate(values).interval() for values in curves), strict=True)
                axes.fill_between(report.ks, low, high, color=styles[name]["color"], alpha=0.15, linewidth=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(report.ks, [str(k) for k in report.ks])
        axes.set(
            xlabel="k",
            ylabel="pass@k minus that of the base model",
            title=f"{task}, base {_numbered(shared, 'model')}",
        )
        axes.grid(alpha=0.3)
        if len(axes.lines) > 1:
            axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
