"""What a method does, before anything is trained: curves of the cumulative advantage, and the softmax bandit.

It knows no trainer and no TRL. Everything is imported on first use, so that the command line can offer `plot` without
loading torch.
"""

from typing import TYPE_CHECKING

from ..lazy import import_on_use


_HOMES = {
    "curves": ("AdvantageCurves", "advantage_curves"),
    "figures": ("FIGURES", "Curve", "Figure"),
    "bandit": ("PRESETS", "Bandit", "crossing_step", "expected_update", "simulate"),
    "mass": ("predicted_mass_change",),
    "plots": ("plot_bandit", "plot_curves", "plot_families", "plot_mass"),
}

if TYPE_CHECKING:
    from .bandit import PRESETS, Bandit, crossing_step, expected_update, simulate
    from .curves import AdvantageCurves, advantage_curves
    from .figures import FIGURES, Curve, Figure
    from .mass import predicted_mass_change
    from .plots import plot_bandit, plot_curves, plot_families, plot_mass
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "AdvantageCurves",
    "Bandit",
    "Curve",
    "FIGURES",
    "Figure",
    "PRESETS",
    "advantage_curves",
    "crossing_step",
    "expected_update",
    "plot_bandit",
    "plot_curves",
    "plot_families",
    "plot_mass",
    "predicted_mass_change",
    "simulate",
]
