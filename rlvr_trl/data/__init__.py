"""Datasets in the columns that TRL's trainers and this package's reward functions expect.

They are imported on first use: a program that wants mazes does not load what reads the Hub.
"""

from typing import TYPE_CHECKING

from ..lazy import import_on_use


_HOMES = {
    "benchmarks": ("BENCHMARKS", "load_benchmark"),
    "filters": ("deduplicate", "filter_by_length", "filter_by_pass_rate", "filter_by_verifier"),
    "loaders": ("load_math", "load_own", "load_source"),
    "maze": ("load_mazes", "make_maze_dataset"),
    "puzzle_sets": ("load_arc_agi", "load_enigmata", "load_reasoning_gym"),
    "sources": ("SOURCES",),
    "templates": ("PROMPT_TEMPLATES",),
}

if TYPE_CHECKING:
    from .benchmarks import BENCHMARKS, load_benchmark
    from .filters import deduplicate, filter_by_length, filter_by_pass_rate, filter_by_verifier
    from .loaders import load_math, load_own, load_source
    from .maze import load_mazes, make_maze_dataset
    from .puzzle_sets import load_arc_agi, load_enigmata, load_reasoning_gym
    from .sources import SOURCES
    from .templates import PROMPT_TEMPLATES
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "BENCHMARKS",
    "PROMPT_TEMPLATES",
    "SOURCES",
    "deduplicate",
    "filter_by_length",
    "filter_by_pass_rate",
    "filter_by_verifier",
    "load_arc_agi",
    "load_benchmark",
    "load_enigmata",
    "load_math",
    "load_mazes",
    "load_own",
    "load_reasoning_gym",
    "load_source",
    "make_maze_dataset",
]
