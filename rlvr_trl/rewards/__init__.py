"""Reward functions with TRL's signature: keyword arguments in, one float per completion out."""

from .length import LengthReward
from .maze import maze_reward
from .noise import NoisyReward


__all__ = ["LengthReward", "NoisyReward", "maze_reward"]
