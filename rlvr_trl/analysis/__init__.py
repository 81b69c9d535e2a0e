"""What a method does before anything is trained: curves of the cumulative advantage, and the softmax bandit.

Knows no trainer and no TRL. Everything is imported on first use, so that the command line can offer `plot` without
loading torch.
"""

from ..lazy import import_on_use


_HOMES = {
    "curves": ("FIGURES", "AdvantageCurves", "Curve", "Figure", "advantage_curves"),
    "bandit": ("PRESETS", "Bandit", "crossing_step", "expected_update", "simulate"),
    "plots": ("plot_bandit", "plot_curves"),
}

__getattr__, __dir__, __all__ = import_on_use(__name__, _HOMES)
