"""How many completions each prompt gets, and what is known of it. Counts in and counts out: no trainer, no TRL."""

from collections.abc import Callable
from typing import Any

from ..registry import build_by_name
from .allocator import RolloutAllocator, within_budget
from .dars import DARS
from .history import PromptHistory
from .reinforce_ada import ReinforceAda
from .schedules import equal_treatment, hardness_weighted


__all__ = [
    "ALLOCATORS",
    "DARS",
    "PromptHistory",
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

_MEMBERS = ("max_generations", "start_batch", "state_dict", "load_state_dict")


def build_allocator(spec: str | dict[str, Any]) -> RolloutAllocator:
    """
    Builds a rollout allocator from its name and fields, or a user's own from its dotted path.

    Args:
        spec (`str` or `dict`):
            `"dars"`, `{"name": "dars", "schedule": "hardness_weighted", "max_generations": 64}`,
            `"my_package.MyAllocator"`, or a dict as text in YAML or JSON. See [`~rlvr_trl.registry.build_by_name`].

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
        What is at a dotted path lacks a member of [`RolloutAllocator`].
    """
    allocator = build_by_name(spec, ALLOCATORS, "rollout allocator")
    if missing := [name for name in _MEMBERS if not hasattr(allocator, name)]:
        raise ValueError(f"The rollout allocator {spec!r} has no {', '.join(missing)}, as a RolloutAllocator must.")
    return allocator
