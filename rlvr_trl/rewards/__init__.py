"""Reward functions with TRL's signature: keyword arguments in, one float per completion out.

They are imported on first use: none loads what only another needs, nor do the workers of `math_reward`.
"""

from typing import TYPE_CHECKING

from ..lazy import import_on_use


_HOMES = {
    "boxed": ("boxed_format_reward",),
    "choice": ("choice_reward",),
    "enigmata": ("EnigmataReward",),
    "gym": ("ReasoningGymReward", "reasoning_gym_reward"),
    "math": ("MathReward", "math_reward"),
    "maze": ("lenient_maze_reward", "maze_reward"),
    "puzzle": ("countdown_reward", "grid_reward", "sudoku_reward", "sums_reward"),
    "wrappers": ("LengthReward", "NoisyReward", "WeightedReward"),
}

if TYPE_CHECKING:
    from .boxed import boxed_format_reward
    from .choice import choice_reward
    from .enigmata import EnigmataReward
    from .gym import ReasoningGymReward, reasoning_gym_reward
    from .math import MathReward, math_reward
    from .maze import lenient_maze_reward, maze_reward
    from .puzzle import countdown_reward, grid_reward, sudoku_reward, sums_reward
    from .wrappers import LengthReward, NoisyReward, WeightedReward
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "EnigmataReward",
    "LengthReward",
    "MathReward",
    "NoisyReward",
    "ReasoningGymReward",
    "WeightedReward",
    "boxed_format_reward",
    "choice_reward",
    "countdown_reward",
    "grid_reward",
    "lenient_maze_reward",
    "math_reward",
    "maze_reward",
    "reasoning_gym_reward",
    "sudoku_reward",
    "sums_reward",
]
