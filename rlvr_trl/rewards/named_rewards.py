"""Reward functions by name, for YAML files and the command line: those of this package and those of TRL."""

from collections.abc import Callable
from functools import partial
from typing import Any

from trl.rewards import (
    accuracy_reward,
    get_cosine_scaled_reward,
    get_repetition_penalty_reward,
    get_soft_overlong_punishment,
    reasoning_accuracy_reward,
    think_format_reward,
)

from ..registry import build_by_name
from .boxed import boxed_format_reward
from .choice import choice_reward
from .enigmata import EnigmataReward
from .gym import ReasoningGymReward
from .math import math_reward
from .maze import lenient_maze_reward, maze_reward
from .puzzle import countdown_reward, grid_reward, sudoku_reward, sums_reward
from .wrappers import LengthReward, NoisyReward


# A reward that is a plain function stands behind a function without parameters: it has no fields to set.
REWARDS: dict[str, Callable[..., Callable]] = {
    "math_reward": lambda: math_reward,
    "maze_reward": lambda: maze_reward,
    "lenient_maze_reward": lambda: lenient_maze_reward,
    "sudoku_reward": lambda: sudoku_reward,
    "sums_reward": lambda: sums_reward,
    "countdown_reward": lambda: countdown_reward,
    "grid_reward": lambda: grid_reward,
    "choice_reward": lambda: choice_reward,
    "boxed_format_reward": lambda: boxed_format_reward,
    "reasoning_gym_reward": ReasoningGymReward,
    "enigmata_reward": EnigmataReward,
    "noisy_reward": NoisyReward,
    "length_reward": LengthReward,
    # TRL's, as `trl grpo` names them
    "accuracy_reward": lambda: accuracy_reward,
    "reasoning_accuracy_reward": lambda: reasoning_accuracy_reward,
    "think_format_reward": lambda: think_format_reward,
    "get_soft_overlong_punishment": partial(
        get_soft_overlong_punishment, max_completion_len=1280, soft_punish_cache=256
    ),
    "get_repetition_penalty_reward": get_repetition_penalty_reward,
    "get_cosine_scaled_reward": get_cosine_scaled_reward,
}


def build_reward(spec: str | dict[str, Any]) -> Callable:
    """
    Builds a reward function from its name and fields, or a user's own from its dotted path.

    Args:
        spec (`str` or `dict`):
            `"math_reward"`, `{"name": "noisy_reward", "reward_func": "maze_reward", "share": 0.3}`,
            `"my_package.my_reward"`, `{"name": "my_package.MyReward", "scale": 2}`, or such a dict as text in YAML or
            JSON. See [`~rlvr_trl.registry.build_by_name`].

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
        There is nothing at a dotted path that can be called.
    """
    return build_by_name(spec, REWARDS, "reward function", {"reward_func": build_reward})
