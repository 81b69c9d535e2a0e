"""Reward functions with TRL's signature: keyword arguments in, one float per completion out.

They are imported on first use: what one needs is not loaded for another, nor in the workers of `math_reward`.
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from .boxed import boxed_format_reward
    from .choice import choice_reward
    from .length import LengthReward
    from .math import MathReward, math_reward
    from .maze import maze_reward
    from .noise import NoisyReward
    from .weighted import WeightedReward
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "LengthReward",
    "MathReward",
    "NoisyReward",
    "WeightedReward",
    "boxed_format_reward",
    "choice_reward",
    "math_reward",
    "maze_reward",
]
