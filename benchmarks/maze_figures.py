"""The figures of the maze table. They are read at half the width of a screen: text is large, and a legend is below."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from maze_plan import BASE
from maze_results import Results, label, present

from rlvr_trl.line_styles import line_styles


HEADLINE = (BASE, "dapo", "pass_at_8", "combination_dars_breadth:equal", "dars_hw:equal", "breadth_naive")
HEADLINE += ("a_grae_grpo", "grpo_n", "nsr")
LOGGED = ("dapo", "pass_at_8", "pass_at_8_then_1", "dars_hw", "a_grae_grpo", "grpo_n", "nsr")


def without_variant(row: str) -> str:
    """The label of the method of a row: a figure says itself which rollouts its rows have."""
    return label(row.partition(":")[0])


STYLES = line_styles([without_variant(row) for row in dict.fromkeys((*HEADLINE, *LOGGED))])


def line(row: str) -> dict:
    """Label and style of a row, the same in every figure."""
    return {"label": without_variant(row), **STYLES[without_variant(row)]}


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
        figure = Figure(figsize=(7.2, 5.2), layout="constrained")
        panel_titles = []
        all_axes = figure.subplots(1, len(panels), squeeze=False)[0]
        for axes, draw in zip(all_axes, panels, strict=True):
            draw(axes, results)
            axes.grid(alpha=0.3)
            panel_titles.append(f"{axes.get_title()}: {axes.get_ylabel()} against {axes.get_xlabel()}")
        handles, labels = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
        file = f"results_{results.scale}_{name}.png"
        figure.savefig(folder / file, dpi=130)
        about[file] = "; ".join(panel_titles)
    return about


def draw_curves(axes, results: Results) -> None:
    for row in present(results, HEADLINE):
        means = [results.interval(row, f"pass@{k}")[0] for k in results.ks]
        axes.plot(results.ks, means, marker="o", markersize=3, **line(row))
    against_k(axes, results)
    axes.set(ylabel="pass@k", title="At equal rollouts")


def draw_gains(axes, results: Results) -> None:
    """Differences run by run and maze by maze: curves themselves have wider intervals, as mazes and bases differ."""
    axes.axhline(0, **line(BASE))
    for row in present(results, (row for row in HEADLINE if row != BASE and results.runs_of(row, BASE))):
        found = [results.difference(row, BASE, f"pass@{k}") for k in results.ks]
        means, low, high, _ = zip(*found, strict=True)
        (drawn,) = axes.plot(results.ks, means, marker="o", markersize=3, **line(row))
        axes.fill_between(results.ks, low, high, alpha=0.1, linewidth=0, color=drawn.get_color())
    against_k(axes, results)
    axes.set(ylabel="pass@k minus base model", title="Gain, with 95 % intervals")


def against_k(axes, results: Results) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(results.ks, map(str, results.ks))
    axes.set(xlabel="k")


def draw_dynamics(axes, results: Results) -> None:
    for row in present(results, LOGGED):
        at_1, at_many = mean_columns(results, row, "dynamics", ["eval_pass@1", f"eval_pass@{results.wide}"])
        (drawn,) = axes.plot(at_1, at_many, marker="o", markersize=3, **line(row))
        axes.plot(at_1[-1], at_many[-1], marker="s", markersize=8, color=drawn.get_color())
    axes.set(xlabel="pass@1", ylabel=f"pass@{results.wide}", title="As training moves it (square: the end)")


def draw_entropy(axes, results: Results) -> None:
    for row in present(results, LOGGED):
        axes.plot(*mean_columns(results, row, "log", ["step", "entropy"]), **line(row))
    axes.set(xlabel="update", ylabel="token entropy, nats", title="Entropy of the training completions")


def draw_end(axes, results: Results) -> None:
    """Each point has its name: the methods of the other figures, and no others."""
    for row in present(results, HEADLINE):
        at_1, at_many = (results.interval(row, f"pass@{k}")[0] for k in (1, results.wide))
        axes.scatter(at_1, at_many, s=60, color=line(row)["color"], label=line(row)["label"], zorder=3)
    axes.set(xlabel="pass@1", ylabel=f"pass@{results.wide}", title="At the end, at equal rollouts")
