"""Datasets in the columns that TRL's trainers and this package's reward functions expect.

They are imported on first use: the rewards, which need the rules of the maze, do not load what reads the Hub.
"""

import importlib


_MODULES = {
    "BENCHMARKS": "benchmarks",
    "PROMPT_TEMPLATES": "templates",
    "SOURCES": "sources",
    "deduplicate": "filters",
    "filter_by_length": "filters",
    "filter_by_pass_rate": "filters",
    "filter_by_verifier": "filters",
    "load_benchmark": "benchmarks",
    "load_math": "loaders",
    "load_source": "loaders",
    "make_maze_dataset": "maze",
}

__all__ = [
    "BENCHMARKS",
    "PROMPT_TEMPLATES",
    "SOURCES",
    "deduplicate",
    "filter_by_length",
    "filter_by_pass_rate",
    "filter_by_verifier",
    "load_benchmark",
    "load_math",
    "load_source",
    "make_maze_dataset",
]


def __getattr__(name):
    if name in _MODULES:
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
