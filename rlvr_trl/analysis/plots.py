"""Pictures of the curves and of the bandit, each with its numbers in a CSV file beside it."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path

import numpy as np
from torch import Tensor

from ..line_styles import line_styles
from .bandit import crossing_step
from .curves import AdvantageCurves


_PANELS = {
    "total": "sum of |A| over the group",
    "total_correct": "sum of |A| over its correct completions",
    "total_wrong": "sum of |A| over its wrong completions",
    "positive": "A⁺ of a correct completion",
    "negative": "A⁻ of a wrong completion",
}
_COLUMNS = ("num_correct", "accuracy", "group_size", *_PANELS)  # of a CSV of curves
_BAND = (0.05, 0.95)
_MASS = {
    "correct": "right, sampled at the start",
    "wrong": "wrong, sampled at the start",
    "known": "right, not sampled at the start",
    "rest": "everything else",
    "greedy": "greedy at the start",
}


def plot_curves(
    curves: Mapping[str, AdvantageCurves],
    path: str | Path,
    title: str,
    panels: Sequence[str] = ("total", "positive", "negative"),
) -> None:
    """
    Draws curves over accuracy, one panel for each quantity, into `path`, and writes the `.csv` beside it.

    The columns of the CSV are `curve`, `num_correct`, `accuracy`, `group_size`, `total`, `total_correct`,
    `total_wrong`, `positive`, `negative`. It holds all quantities, drawn or not.

    Args:
        curves (`Mapping[str, AdvantageCurves]`):
            The lines by label.
        path (`str` or `Path`):
            A `.png` or `.svg` file in a folder that exists.
        title (`str`):
            Title of the picture.
        panels (`Sequence[str]`, *optional*):
            Which of the last five to draw. By default `"total"`, `"positive"` and `"negative"`.

    Raises:
        `ValueError`: `path` has another suffix.
    """
    path = _check_suffix(path)
    figure, axes = _figure(len(panels), title)
    styles = line_styles(curves)
    for axis, panel in zip(axes, panels, strict=True):
        for label, curve in curves.items():
            axis.plot(curve.accuracy, getattr(curve, panel), label=label, linewidth=1.5, **styles[label])
        axis.set(xlabel="accuracy of the group, c/n", ylabel="advantage", title=_PANELS[panel])
    _save_figure(figure, axes, path)
    _write_csv(
        path, ("curve", *_COLUMNS), ((label, *row) for label, curve in curves.items() for row in _curve_rows(curve))
    )


def plot_families(families: Mapping[str, Mapping[str, AdvantageCurves]], path: str | Path, title: str) -> None:
    """
    Draws Σ|A| over accuracy in shares of its largest, a panel for each family, into `path`, and writes the `.csv`
    beside it. Lines that are one but for a factor are drawn once, with the labels of all.

    The columns of the CSV are `family` and those of [`plot_curves`].

    Args:
        families (`Mapping[str, Mapping[str, AdvantageCurves]]`):
            The lines by label of each family, by its title.
        path (`str` or `Path`):
            A `.png` or `.svg` file in a folder that exists.
        title (`str`):
            Title of the picture.

    Raises:
        `ValueError`: `path` has another suffix.
    """
    from matplotlib.figure import Figure

    path = _check_suffix(path)
    lines = {family: _same_lines(curves) for family, curves in families.items()}
    heights = [1.5 + 0.17 * sum(map(len, groups)) for groups in lines.values()]  # in inches, with room for the legend
    figure = Figure(figsize=(7.2, 0.5 + sum(heights)), layout="constrained")
    figure.suptitle(title, wrap=True)
    axes = figure.subplots(len(lines), 1, squeeze=False, height_ratios=heights, sharex=True).ravel()
    for axis, (family, groups) in zip(axes, lines.items(), strict=True):
        styles = line_styles(group[0] for group in groups)
        for group in groups:
            curve = families[family][group[0]]
            axis.plot(curve.accuracy, curve.relative, label="\n= ".join(group), linewidth=1.5, **styles[group[0]])
        axis.set(title=family, ylabel="Σ|A| / largest", ylim=(-0.03, 1.05))
        axis.grid(alpha=0.3)
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize="small")
    axes[-1].set_xlabel("accuracy of the group, c/n")
    figure.savefig(path, dpi=130)
    rows = (
        (f, label, *row) for f, curves in families.items() for label, c in curves.items() for row in _curve_rows(c)
    )
    _write_csv(path, ("family", "curve", *_COLUMNS), rows)


def _same_lines(curves: Mapping[str, AdvantageCurves]) -> list[list[str]]:
    """The labels, together where the relative sums of |A| are the same."""
    groups: list[list[str]] = []
    for label, curve in curves.items():
        for group in groups:
            if np.abs(curves[group[0]].relative - curve.relative).max() < 1e-6:
                group.append(label)
                break
        else:
            groups.append([label])
    return groups


def plot_bandit(
    runs: Mapping[str, tuple[Tensor, Sequence[str]]],
    path: str | Path,
    title: str,
) -> None:
    """
    Draws mean probabilities with a 5–95 % band over seeds, one panel for each run, and writes the `.csv` beside it.

    A dotted line marks the step where the mean of the second action overtakes that of the first. The columns of the
    CSV are `panel`, `step`, `action`, `mean`, `low`, `high`.

    Args:
        runs (`Mapping[str, tuple[Tensor, Sequence[str]]]`):
            For each panel the probabilities, shape `(seeds, steps + 1, K)`, and the names of the K actions.
        path (`str` or `Path`):
            A `.png` or `.svg` file in a folder that exists.
        title (`str`):
            Title of the picture.

    Raises:
        `ValueError`: `path` has another suffix.
    """
    path = _check_suffix(path)
    figure, axes = _figure(len(runs), title)
    rows = []
    for axis, (panel, (probabilities, actions)) in zip(axes, runs.items(), strict=True):
        values = probabilities.numpy()  # (S, steps+1, K)
        mean, (low, high) = values.mean(0), np.quantile(values, _BAND, axis=0)  # (steps+1, K) each
        steps = np.arange(len(mean))
        for k, action in enumerate(actions):
            (line,) = axis.plot(steps, mean[:, k], label=action, linewidth=1.4)
            axis.fill_between(steps, low[:, k], high[:, k], color=line.get_color(), alpha=0.15, linewidth=0)
            band = (low[:, k].tolist(), high[:, k].tolist())
            rows += zip(
                [panel] * len(mean), steps.tolist(), [action] * len(mean), mean[:, k].tolist(), *band, strict=True
            )
        crossing, _ = crossing_step(probabilities)
        if not np.isnan(crossing):
            axis.axvline(crossing, color="gray", linestyle=":", linewidth=1)
        when = "no crossing" if np.isnan(crossing) else f"crossing at step {crossing:.0f}"
        axis.set(
            xlabel="step", ylabel="probability", ylim=(-0.02, 1.02), title=f"{panel}\n{when}, {len(values)} seeds"
        )
    _save_figure(figure, axes, path)
    _write_csv(path, ("panel", "step", "action", "mean", "low", "high"), rows)


def plot_mass(
    histories: Mapping[str, Sequence[Mapping[str, float]]],
    path: str | Path,
    title: str,
    prefix: str = "mass",
) -> None:
    """
    Draws the probability of the answers that a callback has followed over steps, one panel for each run, and writes
    the `.csv` beside it.

    The columns of the CSV are `panel`, `step`, `answers`, `probability`.

    Args:
        histories (`Mapping[str, Sequence[Mapping[str, float]]]`):
            For each panel the `history` of a [`MassDynamicsCallback`], or these entries of a `log_history`.
        path (`str` or `Path`):
            A `.png` or `.svg` file in a folder that exists.
        title (`str`):
            Title of the picture.
        prefix (`str`, *optional*, defaults to `"mass"`):
            That of the callback.

    Raises:
        `ValueError`: `path` has another suffix, or a history has no entry with this prefix.
    """
    path = _check_suffix(path)
    empty = [label for label, history in histories.items() if not any(f"{prefix}_rest" in entry for entry in history)]
    if empty or not histories:
        raise ValueError(f"No history has entries with the prefix {prefix!r}: {', '.join(empty) or 'there is none'}.")
    figure, axes = _figure(len(histories), title)
    rows = []
    for axis, (panel, history) in zip(axes, histories.items(), strict=True):
        for kind, label in _MASS.items():
            points = [(e["step"], e[f"{prefix}_{kind}"]) for e in history if f"{prefix}_{kind}" in e]
            if points:
                axis.plot(*zip(*points, strict=True), label=label, marker="o", markersize=3, linewidth=1.4)
                rows += [(panel, step, kind, value) for step, value in points]
        axis.set(xlabel="step", ylabel="probability", ylim=(-0.02, 1.02), title=panel)
    _save_figure(figure, axes, path)
    _write_csv(path, ("panel", "step", "answers", "probability"), rows)


def _check_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"A picture must be a .png or .svg file, got {str(path)!r}.")
    return path


def _figure(num_panels: int, title: str):
    """Panels of a page's half, two in a row, so that they can be read at the width of a page."""
    from matplotlib.figure import Figure  # without pyplot: no screen, and the caller's backend stays

    rows, columns = ceil(num_panels / 2), min(num_panels, 2)
    figure = Figure(figsize=(7.2 if columns == 2 else 6.0, 0.8 + 3.2 * rows), layout="constrained")
    figure.suptitle(title, wrap=True)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes[:num_panels]


def _save_figure(figure, axes, path: Path) -> None:
    """Writes the figure, its legend in the panel that is left over, or else below all panels."""
    handles, labels = axes[0].get_legend_handles_labels()
    if left_over := figure.axes[len(axes) :]:
        left_over[0].axis("off")
        left_over[0].legend(handles, labels, loc="center", frameon=False)
    else:
        figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 3), fontsize="small")
    figure.savefig(path, dpi=130)


def _curve_rows(curve: AdvantageCurves) -> Iterable[tuple]:
    return zip(*(getattr(curve, column).tolist() for column in _COLUMNS), strict=True)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
