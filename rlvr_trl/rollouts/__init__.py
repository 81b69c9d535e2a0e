"""How many completions each prompt gets. Pure torch, counts in and counts out: no trainer, no TRL."""

from .allocator import RolloutAllocator, within_budget
from .config import ALLOCATORS, build_allocator
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
