"""Datasets in the columns that TRL's trainers and this package's reward functions expect."""

from .maze import make_maze_dataset


__all__ = ["make_maze_dataset"]
