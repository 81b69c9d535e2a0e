"""The figures of the maze table."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from maze_cell import BASE
from maze_results import Results, label, ordered, present


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
    about = {}
    for name, draw in {
        "curves": draw_curves,
        "dynamics": draw_dynamics,
        "entropy": draw_entropy,
        "end": draw_end,
    }.items():
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.subplots()
        draw(axes, results)
        file = f"results_{results.scale}_{name}.png"
        figure.savefig(folder / file, dpi=110)
        about[file] = f"{axes.get_title()}: {axes.get_ylabel()} against {axes.get_xlabel()}"
    return about


def draw_curves(axes, results: Results) -> None:
    ks = results.ks
    for row in present(results, HEADLINE):
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


def draw_dynamics(axes, results: Results) -> None:
    for row in present(results, SHOWN):
        at_1, at_many = mean_columns(results, row, "dynamics", ["eval_pass@1", f"eval_pass@{results.wide}"])
        (line,) = axes.plot(at_1, at_many, marker="o", markersize=4, label=label(row))
        axes.plot(at_1[-1], at_many[-1], marker="s", color=line.get_color())
    axes.set(xlabel="pass@1", ylabel=f"pass@{results.wide}", title="As training moves it (square: the end)")
    axes.legend(fontsize=8)


def draw_entropy(axes, results: Results) -> None:
    for row in present(results, SHOWN):
        axes.plot(*mean_columns(results, row, "log", ["step", "entropy"]), label=label(row))
    axes.set(xlabel="update", ylabel="token entropy, nats", title="Entropy of the training completions")
    axes.legend(fontsize=8)


def draw_end(axes, results: Results) -> None:
    """Methods with less than half of the pass@1 of the others are named, not drawn: they would squeeze the rest."""
    points = {row: [results.interval(row, f"pass@{k}")[0] for k in (1, results.wide)] for row in ordered(results)}
    usual = np.median([at_1 for at_1, _ in points.values()])
    outside = []
    for row, (at_1, at_many) in points.items():
        if at_1 < usual / 2:
            outside.append(f"{label(row)} ({at_1:.2f}, {at_many:.2f})")
        elif row == BASE:
            axes.scatter(at_1, at_many, s=70, color="black", label=label(row))
        elif row in SHOWN:
            axes.scatter(at_1, at_many, s=40, label=label(row), zorder=3)
        else:
            axes.scatter(at_1, at_many, s=15, color="silver")
    title = "All methods at the end" + (f"; outside: {', '.join(outside)}" if outside else "")
    axes.set(xlabel="pass@1", ylabel=f"pass@{results.wide}", title=title)
    axes.legend(fontsize=8)
