"""The figures of the comparison: a panel for each task, readable at 700 pixels. A method has one colour everywhere."""

from collections.abc import Callable, Mapping
from pathlib import Path

from matplotlib.figure import Figure

from rlvr_trl.line_styles import line_styles
from rlvr_trl.testbed.comparison_methods import EVERY_RATE, METHODS
from rlvr_trl.testbed.outcomes import BASE_ROW, KS, Outcomes, Row


HEADLINE = ("grpo", "pass_at_8", "dars_hw", "a_grae_half", "combination_dars_breadth")
STYLES = line_styles(["base model", *(METHODS[name].label for name in HEADLINE)])
WIDE = "pass@32"
GAINS = "pass@k minus base model against k on four tasks, five methods at equal rollouts and their chosen rates"


def rate_text(rate: float) -> str:
    """`2.5e-5`, `1e-4`."""
    return f"{rate:.1e}".replace(".0e", "e").replace("e-0", "e-")


def panels(tasks: Mapping[str, Outcomes], path: Path, draw: Callable, xlabel: str, ylabel: str) -> None:
    figure = Figure(figsize=(7.0, 6.0), dpi=100, layout="constrained")
    for axes, (task, outcomes) in zip(figure.subplots(2, 2).flat, tasks.items(), strict=True):
        axes.axhline(0, label="base model", **STYLES["base model"])
        axes.set(title=task, xlabel=xlabel, ylabel=ylabel)
        axes.set_xscale("log", base=2)
        axes.minorticks_off()
        for name in HEADLINE:
            draw(axes, outcomes, name)
        axes.grid(alpha=0.3)
    lines = {text: line for axes in figure.axes for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    ordered = [text for text in STYLES if text in lines]
    figure.legend([lines[text] for text in ordered], ordered, loc="outside lower center", ncols=2)
    figure.savefig(path)


def draw_line(axes, found: dict, name: str) -> None:
    """Means and their band over what is measured of `found`."""
    found = {x: one for x, one in found.items() if one is not None}
    if found:
        style = STYLES[METHODS[name].label]
        low, high = zip(*(one.interval() for one in found.values()), strict=True)
        means = [one.mean for one in found.values()]
        axes.plot(list(found), means, marker="o", markersize=3, label=METHODS[name].label, **style)
        axes.fill_between(list(found), low, high, alpha=0.1, linewidth=0, color=style["color"])


def draw_gains(tasks: Mapping[str, Outcomes], path: Path) -> str:
    """pass@k minus the base model against k. Returns what the figure shows."""

    def draw(axes, outcomes: Outcomes, name: str) -> None:
        axes.set_xticks(KS, list(map(str, KS)))
        draw_line(axes, {k: outcomes.difference(Row(name, equal=True), BASE_ROW, f"pass@{k}") for k in KS}, name)

    panels(tasks, path, draw, "k", "pass@k minus base model")
    return GAINS


def draw_rates(tasks: Mapping[str, Outcomes], path: Path) -> str:
    """pass@32 minus the base model against the learning rate. Returns what the figure shows."""

    def draw(axes, outcomes: Outcomes, name: str) -> None:
        axes.set_xticks(EVERY_RATE, list(map(rate_text, EVERY_RATE)))
        rows = {rate: Row(name, rate, True) for rate in EVERY_RATE}
        draw_line(axes, {rate: outcomes.difference(row, BASE_ROW, WIDE) for rate, row in rows.items()}, name)

    panels(tasks, path, draw, "learning rate", f"{WIDE} minus base model")
    return f"{WIDE} minus base model against the learning rate on four tasks, five methods at equal rollouts"
