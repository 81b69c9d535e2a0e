"""How many completions each prompt gets. Pure torch, counts in and counts out: no trainer, no TRL."""

from collections.abc import Callable
from typing import Any

from ..registry import build_by_name
from .allocator import RolloutAllocator, within_budget
from .dars import DARS
from .reinforce_ada import ReinforceAda
from .schedules import equal_treatment, hardness_weighted


__all__ = [
    "ALLOCATORS",
    "DARS",
    "ReinforceAda",
    "RolloutAllocator",
    "build_allocator",
    "equal_treatment",
    "hardness_weighted",
    "within_budget",
]

ALLOCATORS: dict[str, Callable[..., RolloutAllocator]] = {
    "dars": DARS,
    "reinforce_ada": ReinforceAda,
}


def build_allocator(spec: str | dict[str, Any]) -> RolloutAllocator:
    """
    Builds a rollout allocator from its name and fields, for YAML files and the command line.

    Args:
        spec (`str` or `dict`):
            `"dars"`, or `{"name": "dars", "schedule": "hardness_weighted", "max_generations": 64}`.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    return build_by_name(spec, ALLOCATORS, "rollout allocator")
