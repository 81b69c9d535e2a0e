"""The figures of the maze table."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from maze_plan import BASE
from maze_results import Results, label, ordered, present
from maze_statistics import shown


SHOWN = ("dapo", "grpo_n", "nsr", "pass_at_8", "pass_at_8_then_1", "dars_hw", "a_grae_grpo")
HEADLINE = (BASE, "dapo", "pass_at_8", "combination_dars_breadth:equal", "dars_hw:equal", "breadth_naive")
HEADLINE += ("a_grae_grpo", "grpo_n", "nsr")
STYLE = {BASE: {"color": "black", "linestyle": "--"}}
STYLE |= {row: {"color": f"C{number}"} for number, row in enumerate(row for row in HEADLINE if row != BASE)}


def mean_columns(results: Results, row: str, table: str, names: list[str]) -> list[np.ndarray]:
    """Columns of the logs, as means over the runs that have them."""
    cells = [cell for cell in results.rows[row].values() if table in cell]
    return [np.array([cell[table][name] for cell in cells], dtype=float).mean(axis=0) for name in names]


def figures(results: Results, folder: Path) -> dict[str, str]:
    """Draws four figures. Returns their file names and what they show."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {}
    for name, panels in {
        "curves": (draw_curves, draw_gains),
        "dynamics": (draw_dynamics,),
        "entropy": (draw_entropy,),
        "end": (draw_end,),
    }.items():
        figure = Figure(figsize=(7 if len(panels) == 1 else 12, 5), layout="constrained")
        panel_titles = []
        for axes, draw in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            draw(axes, results)
            panel_titles.append(f"{axes.get_title()}: {axes.get_ylabel()} against {axes.get_xlabel()}")
        file = f"results_{results.scale}_{name}.png"
        figure.savefig(folder / file, dpi=110)
        about[file] = "; ".join(panel_titles)
    return about


def draw_curves(axes, results: Results) -> None:
    for row in present(results, HEADLINE):
        means = [results.interval(row, f"pass@{k}")[0] for k in results.ks]
        method, _, _ = row.partition(":")
        axes.plot(results.ks, means, marker="o", markersize=3, label=label(method), **STYLE[row])
    against_k(axes, results)
    axes.set(ylabel="pass@k", title="At equal rollouts")
    axes.legend(fontsize=8)


def draw_gains(axes, results: Results) -> None:
    """Differences run by run and maze by maze: curves themselves have wider intervals, as mazes and bases differ."""
    axes.axhline(0, **STYLE[BASE])
    for row in present(results, (row for row in HEADLINE if row != BASE and results.runs_of(row, BASE))):
        found = [results.difference(row, BASE, f"pass@{k}") for k in results.ks]
        means, low, high, _ = zip(*found, strict=True)
        axes.plot(results.ks, means, marker="o", markersize=3, **STYLE[row])
        axes.fill_between(results.ks, low, high, alpha=0.1, **STYLE[row])
    against_k(axes, results)
    axes.set(ylabel="pass@k minus that of the base model", title="With 95 % intervals")


def against_k(axes, results: Results) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(results.ks, map(str, results.ks))
    axes.set(xlabel="k")


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
    """Methods with less than half of the usual pass@1 are named and not drawn: they would squeeze the rest."""
    points = {row: [results.interval(row, f"pass@{k}")[0] for k in (1, results.wide)] for row in ordered(results)}
    usual = np.median([at_1 for at_1, _ in points.values()])
    outside = []
    for row, (at_1, at_many) in points.items():
        if at_1 < usual / 2:
            outside.append(f"{label(row)} ({shown(at_1, '.2f')}, {shown(at_many, '.2f')})")
        elif row == BASE:
            axes.scatter(at_1, at_many, s=70, color="black", label=label(row))
        elif row in SHOWN:
            axes.scatter(at_1, at_many, s=40, label=label(row), zorder=3)
        else:
            axes.scatter(at_1, at_many, s=15, color="silver")
    title = "All methods at the end" + (f"; outside: {', '.join(outside)}" if outside else "")
    axes.set(xlabel="pass@1", ylabel=f"pass@{results.wide}", title=title)
    axes.legend(fontsize=8)
