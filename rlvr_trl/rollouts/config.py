"""Rollout allocators by name, for YAML files and the command line."""

from typing import Any

from ..naming import build_by_name
from .allocator import RolloutAllocator
from .dars import DARS
from .reinforce_ada import ReinforceAda


ALLOCATORS: dict[str, type] = {
    "dars": DARS,
    "reinforce_ada": ReinforceAda,
}


def build_allocator(spec: str | dict[str, Any]) -> RolloutAllocator:
    """
    Builds a rollout allocator from its name and fields.

    Args:
        spec (`str` or `dict`):
            `"dars"`, or `{"name": "dars", "schedule": "hardness_weighted", "max_generations": 64}`.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    return build_by_name(spec, ALLOCATORS, "rollout allocator")
