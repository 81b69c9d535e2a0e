"""Reward functions with TRL's signature: keyword arguments in, one float per completion out."""

from .maze import maze_reward


__all__ = ["maze_reward"]
