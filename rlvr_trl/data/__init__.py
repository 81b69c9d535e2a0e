"""Datasets in the columns that TRL's trainers and this package's reward functions expect.

They are imported on first use: the rewards, which need the rules of the maze, do not load what reads the Hub.
"""

from ..lazy import import_on_use


_HOMES = {
    "benchmarks": ("BENCHMARKS", "load_benchmark"),
    "filters": ("deduplicate", "filter_by_length", "filter_by_pass_rate", "filter_by_verifier"),
    "loaders": ("load_math", "load_source"),
    "maze": ("make_maze_dataset",),
    "sources": ("SOURCES",),
    "templates": ("PROMPT_TEMPLATES",),
}

__getattr__, __dir__, __all__ = import_on_use(__name__, _HOMES)
