"""Pictures of the curves and of the bandit, each with its numbers in a CSV file beside it."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from .bandit import crossing_step
from .curves import AdvantageCurves


_PANELS = {
    "total": "sum of |A| over the group",
    "positive": "A⁺ of a correct completion",
    "negative": "A⁻ of a wrong completion",
}
_BAND = (0.05, 0.95)


def plot_curves(
    curves: Mapping[str, AdvantageCurves],
    path: str | Path,
    title: str,
    panels: Sequence[str] = tuple(_PANELS),
) -> None:
    """
    Draws curves over accuracy, one panel for each quantity, into `path`, and writes the `.csv` beside it.

    The columns of the CSV are `curve`, `num_correct`, `accuracy`, `group_size`, `total`, `positive`, `negative`. It
    holds all quantities, drawn or not.

    Args:
        curves (`Mapping[str, AdvantageCurves]`):
            The lines by label.
        path (`str` or `Path`):
            A `.png` or `.svg` file in a folder that exists.
        title (`str`):
            Title of the picture.
        panels (`Sequence[str]`, *optional*):
            Which of `"total"`, `"positive"` and `"negative"` to draw. By default all.

    Raises:
        `ValueError`: `path` has another suffix.
    """
    path = _check_suffix(path)
    figure, axes = _figure(len(panels), title)
    for axis, panel in zip(axes, panels, strict=True):
        for label, curve in curves.items():
            axis.plot(curve.accuracy, getattr(curve, panel), label=label, marker="o", markersize=2.5, linewidth=1.4)
        axis.set(xlabel="accuracy of the group, c/n", title=_PANELS[panel])
    axes[0].set_ylabel("advantage")
    _save_figure(figure, axes, path)

    columns = ("num_correct", "accuracy", "group_size", *_PANELS)
    rows = (
        (label, *row)
        for label, curve in curves.items()
        for row in zip(*(getattr(curve, column).tolist() for column in columns), strict=True)
    )
    _write_csv(path, ("curve", *columns), rows)


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
        axis.set(xlabel="step", ylim=(-0.02, 1.02), title=f"{panel}\n{when}, {len(values)} seeds")
    axes[0].set_ylabel("probability")
    _save_figure(figure, axes, path)
    _write_csv(path, ("panel", "step", "action", "mean", "low", "high"), rows)


def _check_suffix(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".png", ".svg"):
        raise ValueError(f"A picture must be a .png or .svg file, got {str(path)!r}.")
    return path


def _figure(num_panels: int, title: str):
    from matplotlib.figure import Figure  # without pyplot: no screen, and the caller's backend stays

    figure = Figure(figsize=(1.0 + 4.2 * max(num_panels, 1.4), 4.6), layout="constrained")
    figure.suptitle(title, wrap=True)
    axes = figure.subplots(1, num_panels, squeeze=False)[0]
    for axis in axes:
        axis.grid(alpha=0.3)
    return figure, axes


def _save_figure(figure, axes, path: Path) -> None:
    handles, labels = axes[0].get_legend_handles_labels()
    columns = 2 if len(axes) == 1 else 4
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), columns), fontsize="small")
    figure.savefig(path, dpi=150)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
