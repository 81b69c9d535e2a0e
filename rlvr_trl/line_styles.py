"""One colour for a method in every figure."""

import re
from collections.abc import Iterable
from typing import Any


# By what a label begins with; the first that fits. GRPO and DAPO, which is GRPO with another loss, share one, as does
# Pass@1, which is GRPO with another standard deviation.
METHOD_COLORS = {
    r"base( model)?$": "#1f77b4",
    r"GRPO-N\b": "#e377c2",
    r"GRPO-LEAD\b": "#b15928",
    r"GRPO without easy problems": "#fdae61",
    r"(GRPO|DAPO|Pass@1)\b": "#ff7f0e",
    r"Dr\. GRPO\b": "#0b2f66",
    r"Pass@\w+, (then )?Pass@1\b": "#006d2c",
    r"Pass@\w+": "#2ca02c",
    r"exceeding Pass@": "#a8a900",
    r"combined Pass@": "#17becf",
    r"adaptive Pass@": "#98df8a",
    r"DARS-HW\b": "#d62728",
    r"DARS-ET\b": "#c49a00",
    r"Breadth-Naive\b": "#9467bd",
    r"A-GRAE\b": "#8c564b",
    r"NSR\b": "#7f7f7f",
    r"PSR\b": "#bcbd22",
    r"W-REINFORCE\b": "#c7c7c7",
    r"REINFORCE\+\+": "#393b79",
    r"PKPO\b": "#b2182b",
    r"max@": "#74c476",
    r"MaxRL\b": "#d6278b",
    r"RS-GRPO\b": "#6a51a3",
    r"F-GRPO\b": "#3182bd",
    r"predicted DARS-HW\b": "#fb6a4a",
    r"Reinforce-Ada\b": "#31a354",
    r"knapsack": "#756bb1",
    r"hard-focused": "#01665e",
    r"easy-focused": "#5ab4ac",
    r"unlikeliness": "#4d9221",
    r"uniqueness-aware": "#c51b7d",
    r"objective √p": "#dd3497",
    r"objective log p": "#8c2d04",
    r"training group": "#02818a",
    r"per-prompt mean": "#525252",
    r"variance-optimal": "#e6550d",
    r"positive-dominant": "#7b3294",
    r"negative-dominant": "#e7298a",
}
# For labels that are of no method
OTHER_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#17becf")
DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))


def line_styles(labels: Iterable[str]) -> dict[str, dict[str, Any]]:
    """
    Colour and dashes of every line of a figure, as arguments of matplotlib.

    A method has its colour in `METHOD_COLORS`. Several lines of one method differ in their dashes, and each is paler
    than the one before it. Labels of no method take turns in those of `OTHER_COLORS` that no method here has.
    """
    colors = {label: _method_color(label) for label in labels}
    free = [color for color in OTHER_COLORS if color not in colors.values()] or OTHER_COLORS
    others = [label for label, color in colors.items() if color is None]
    styles: dict[str, dict[str, Any]] = {}
    for label, color in colors.items():
        if color is None:
            styles[label] = {"color": free[others.index(label) % len(free)], "linestyle": DASHES[0]}
        else:
            of_method = [other for other in colors if colors[other] == color]
            place = of_method.index(label)
            paler = _paler(color, 0.6 * place / len(of_method))
            styles[label] = {"color": paler, "linestyle": DASHES[place % len(DASHES)]}
    return styles


def _method_color(label: str) -> str | None:
    return next((color for name, color in METHOD_COLORS.items() if re.match(name, label)), None)


def _paler(color: str, share: float) -> str:
    """A colour of the form `#rrggbb`, mixed with a share of white."""
    channels = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(channel + share * (255 - channel)):02x}" for channel in channels)
