"""What a method does before anything is trained: curves of the cumulative advantage, and the softmax bandit.

Knows no trainer and no TRL. Everything is imported on first use, so that the command line can offer `plot` without
loading torch.
"""

import importlib


_HOMES = {
    "curves": ("FIGURES", "AdvantageCurves", "Curve", "Figure", "advantage_curves"),
    "bandit": ("PRESETS", "Bandit", "crossing_step", "expected_update", "simulate"),
    "plots": ("plot_bandit", "plot_curves"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
