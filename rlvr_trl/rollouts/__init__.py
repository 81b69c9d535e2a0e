"""How many completions each prompt gets, and what is known of it. Counts in and counts out: no trainer, no TRL."""

from collections.abc import Callable
from typing import Any

from ..registry import build_by_name
from .allocator import (
    Allocation,
    BatchAllocator,
    RolloutAllocator,
    RolloutBatch,
    as_batch_allocator,
    within_budget,
)
from .dars import DARS
from .dynamic_sampling import DynamicSampling
from .history import PromptHistory, ids_of_prompts
from .knapsack import KnapsackAllocator
from .predicted_dars import PredictedDARS
from .reinforce_ada import ReinforceAda, ReinforceAdaEst
from .schedules import equal_treatment, hardness_weighted
from .source import DifficultyPool, PromptChoice, PromptSelection, PromptSource, SkipSolved, TargetAccuracy
from .variance_optimal import VarianceOptimalAllocator


__all__ = [
    "ALLOCATORS",
    "Allocation",
    "BatchAllocator",
    "DARS",
    "DifficultyPool",
    "DynamicSampling",
    "KnapsackAllocator",
    "PredictedDARS",
    "PromptChoice",
    "PromptHistory",
    "PromptSelection",
    "PromptSource",
    "ReinforceAda",
    "ReinforceAdaEst",
    "RolloutAllocator",
    "RolloutBatch",
    "SELECTIONS",
    "SkipSolved",
    "TargetAccuracy",
    "VarianceOptimalAllocator",
    "build_allocator",
    "build_selection",
    "equal_treatment",
    "hardness_weighted",
    "ids_of_prompts",
    "within_budget",
]

ALLOCATORS: dict[str, Callable[..., RolloutAllocator | BatchAllocator]] = {
    "dars": DARS,
    "dynamic_sampling": DynamicSampling,
    "knapsack": KnapsackAllocator,
    "predicted_dars": PredictedDARS,
    "reinforce_ada": ReinforceAda,
    "reinforce_ada_est": ReinforceAdaEst,
    "variance_optimal": VarianceOptimalAllocator,
}
SELECTIONS: dict[str, Callable[..., PromptSelection]] = {
    "difficulty_pool": DifficultyPool,
    "skip_solved": SkipSolved,
    "target_accuracy": TargetAccuracy,
}


def build_selection(spec: str | dict[str, Any]) -> PromptSelection:
    """
    Builds a selection of prompts from its name and fields, or a user's own from its dotted path.

    Args:
        spec (`str` or `dict`): as in [`build_allocator`]: `{"name": "skip_solved", "skip_rate": 0.8}`.

    Raises:
        `ValueError`: As there; what is at a dotted path cannot be called.
    """
    return build_by_name(spec, SELECTIONS, "selection of prompts")


def build_allocator(spec: str | dict[str, Any]) -> RolloutAllocator | BatchAllocator:
    """
    Builds a rollout allocator from its name and fields, or a user's own from its dotted path.

    Args:
        spec (`str` or `dict`):
            `"dars"`, `{"name": "dars", "schedule": "hardness_weighted", "max_generations": 64}`,
            `"my_package.MyAllocator"`, or a dict as text in YAML or JSON. See [`~rlvr_trl.registry.build_by_name`].

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
        What is at a dotted path lacks a member of [`RolloutAllocator`] or of [`BatchAllocator`].
    """
    allocator = build_by_name(spec, ALLOCATORS, "rollout allocator", nested={"base": build_allocator})
    as_batch_allocator(allocator)  # which names what is missing
    return allocator
