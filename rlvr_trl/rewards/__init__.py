"""Reward functions with TRL's signature: keyword arguments in, one float per completion out.

They are imported on first use: what one needs is not loaded for another, nor in the workers of `math_reward`.
"""

from ..lazy import import_on_use


_HOMES = {
    "boxed": ("boxed_format_reward",),
    "choice": ("choice_reward",),
    "length": ("LengthReward",),
    "math": ("MathReward", "math_reward"),
    "maze": ("maze_reward",),
    "noise": ("NoisyReward",),
    "weighted": ("WeightedReward",),
}

__getattr__, __dir__, __all__ = import_on_use(__name__, _HOMES)
