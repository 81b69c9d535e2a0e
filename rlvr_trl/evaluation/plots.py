"""Curves of pass@k over k."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .counts import ProblemCounts


def plot_pass_at_k(results: Mapping[str, ProblemCounts], *paths: Path, title: str) -> None:
    """
    Writes the pass@k curves, each with its 95 % interval over problems, once for each path as an image of its type.

    Args:
        results (`dict[str, ProblemCounts]`): evaluations by label.
        paths (`Path`): where to, such as `pass_at_k.png` and `pass_at_k.svg`.
        title (`str`): title of the picture.
    """
    from matplotlib.figure import Figure  # no pyplot: it would choose a backend for the whole process

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, result in results.items():
        means, intervals = result.pass_at_k, result.intervals()
        low, high = np.array([intervals[k] for k in means]).T
        label = label.replace("$", r"\$")  # not the beginning of a formula
        (line,) = axes.plot(list(means), list(means.values()), marker="o", markersize=4, label=label)
        axes.fill_between(list(means), low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    ticks = sorted({k for result in results.values() for k in result.ks})
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set(xlabel="k", ylabel="pass@k", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    for path in paths:
        figure.savefig(path, dpi=150)
