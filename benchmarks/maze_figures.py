"""The figures of the maze table."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from maze_cell import BASE
from maze_results import Results, label, ordered


SHOWN = ("dapo", "grpo_n", "nsr", "pass_at_8", "pass_at_8_then_1", "dars_hw", "a_grae_grpo")
HEADLINE = (BASE, "dapo", "pass_at_8", "combination_dars_breadth:equal", "dars_hw:equal", "breadth_naive")
HEADLINE += ("a_grae_grpo", "grpo_n", "nsr")


def mean_columns(results: Results, row: str, table: str, names: list[str]) -> list[np.ndarray]:
    """Columns of the logs, means over the runs that have them."""
    cells = [cell for cell in results.rows[row].values() if table in cell]
    return [np.array([cell[table][name] for cell in cells], dtype=float).mean(axis=0) for name in names]


def figures(results: Results, folder: Path) -> dict[str, str]:
    """Draws four figures, returns their file names and what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = results.wide
    shown = [row for row in SHOWN if row in results.rows]
    about = {}
    for name, draw in {
        "curves": draw_curves,
        "dynamics": draw_dynamics,
        "entropy": draw_entropy,
        "end": draw_end,
    }.items():
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        draw(axes, results, shown, wide)
        file = f"results_{results.scale}_{name}.png"
        figure.savefig(folder / file, dpi=110)
        about[file] = f"{axes.get_title()}: {axes.get_ylabel()} against {axes.get_xlabel()}"
    return about


def draw_curves(axes, results: Results, shown: list[str], wide: int) -> None:
    ks = results.ks
    for row in (row for row in HEADLINE if row in results.rows):
        found = [results.interval(row, f"pass@{k}") for k in ks]
        style = {"color": "black", "linestyle": "--"} if row == BASE else {}
        (line,) = axes.plot(ks, [mean for mean, _, _ in found], marker="o", markersize=3, label=label(row), **style)
        axes.fill_between(
            ks, *zip(*((low, high) for _, low, high in found), strict=True), alpha=0.08, color=line.get_color()
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(ks, map(str, ks))
    axes.set(xlabel="k", ylabel="pass@k", title="At equal rollouts, with 95 % intervals")
    axes.legend(fontsize=8)


def draw_dynamics(axes, results: Results, shown: list[str], wide: int) -> None:
    for row in shown:
        at_1, at_many = mean_columns(results, row, "dynamics", ["eval_pass@1", f"eval_pass@{wide}"])
        (line,) = axes.plot(at_1, at_many, marker="o", markersize=4, label=label(row))
        axes.plot(at_1[-1], at_many[-1], marker="s", color=line.get_color())
    axes.set(xlabel="pass@1", ylabel=f"pass@{wide}", title="As training moves it (square: the end)")
    axes.legend(fontsize=8)


def draw_entropy(axes, results: Results, shown: list[str], wide: int) -> None:
    for row in shown:
        axes.plot(*mean_columns(results, row, "log", ["step", "entropy"]), label=label(row))
    axes.set(xlabel="update", ylabel="token entropy, nats", title="Entropy of the training completions")
    axes.legend(fontsize=8)


def draw_end(axes, results: Results, shown: list[str], wide: int) -> None:
    """Methods with less than half of the pass@1 of the others are named, not drawn: they would squeeze the rest."""
    points = {row: [results.interval(row, f"pass@{k}")[0] for k in (1, wide)] for row in ordered(results)}
    usual = np.median([at_1 for at_1, _ in points.values()])
    collapsed = {row: point for row, point in points.items() if point[0] < usual / 2}
    for row, point in points.items():
        if row == BASE:
            axes.scatter(*point, s=70, color="black", label=label(row))
        elif row in shown and row not in collapsed:
            axes.scatter(*point, s=40, label=label(row), zorder=3)
        elif row not in collapsed:
            axes.scatter(*point, s=15, color="silver")
    outside = [f"{label(row)} ({at_1:.2f}, {at_many:.2f})" for row, (at_1, at_many) in collapsed.items()]
    title = "All methods at the end" + (f"; outside: {', '.join(outside)}" if outside else "")
    axes.set(xlabel="pass@1", ylabel=f"pass@{wide}", title=title)
    axes.legend(fontsize=8)
