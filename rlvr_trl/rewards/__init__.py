"""Reward functions with TRL's signature: keyword arguments in, one float per completion out.

They are imported on first use: what one needs is not loaded for another, nor in the workers of `math_reward`.
"""

import importlib


_MODULES = {
    "LengthReward": "length",
    "MathReward": "math",
    "NoisyReward": "noise",
    "WeightedReward": "weighted",
    "boxed_format_reward": "boxed",
    "choice_reward": "choice",
    "math_reward": "math",
    "maze_reward": "maze",
}

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


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
