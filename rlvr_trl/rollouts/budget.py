"""Allocators that share out a hard budget: as many completions in all as if every prompt of the batch had N."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_integer
from .allocator import Allocation, RolloutBatch


@dataclass
class SharesBudget:
    """
    Gives every prompt `min_generations`, and what is left one by one to the prompts to which they add most.

    A subclass says in `gains` what each further completion of a prompt adds. Where no gain of a prompt is above the
    one before it, no other allocation of as many completions is worth more.
    """

    max_generations: int
    min_generations: int

    needs_history = True
    needs_new_prompts = False

    def __post_init__(self):
        check_integer("max_generations", self.max_generations, at_least=1)
        check_integer("min_generations", self.min_generations, at_least=1)
        if self.min_generations > self.max_generations:
            raise ValueError(
                f"`min_generations` must be at most `max_generations`={self.max_generations}, got "
                f"{self.min_generations}."
            )

    def gains(self, batch: RolloutBatch, counts: np.ndarray) -> np.ndarray:
        """
        What completion n + 1 of each prompt adds, `(P, len(counts))`, for each n of `counts`, which are float64.

        Only operations that IEEE 754 rounds exactly make the same of it on every machine: no powers and no logarithms.
        """
        raise NotImplementedError

    def first_stage(self, batch: RolloutBatch) -> Tensor:
        gains = self.gains(batch, np.arange(self.min_generations, self.max_generations, dtype=np.float64))
        total = len(batch) * batch.num_generations
        return torch.from_numpy(largest_gains(gains, self.min_generations, total))

    def __call__(self, batch: RolloutBatch) -> Allocation:
        return Allocation(torch.zeros_like(batch.num_samples))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """All that it knows is in the history."""


def largest_gains(gains: np.ndarray, least: int, total: int) -> np.ndarray:
    """
    How many completions each prompt gets, `(P,)`: `least`, and those of the largest gains. Equal gains go in order.

    What an allocation is worth beyond `least` each is a sum of as many gains as it gives completions, and no sum of so
    many is larger than that of the largest. These can be had together if no gain of a prompt is above the one before.

    Args:
        gains (`np.ndarray` of shape `(P, M)`): what completion `least` + 1, `least` + 2, … of each prompt adds.
        least (`int`): what every prompt gets; the most is `least` + M.
        total (`int`): completions of all prompts; fewer if all have the most.

    Raises:
        `ValueError`: `total` is below `least` for each.
    """
    num_prompts, width = gains.shape
    left = total - least * num_prompts
    if left < 0:
        raise ValueError(f"{num_prompts} prompts with at least {least} completions each need more than {total}.")
    best = np.argsort(-gains, axis=None, kind="stable")[:left]
    return least + np.bincount(best // max(width, 1), minlength=num_prompts)
