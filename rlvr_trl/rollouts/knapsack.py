"""Knapsack RL (arXiv 2509.25849): the completions of a batch go where they are worth most."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_integer
from .allocator import Allocation, RolloutBatch


@dataclass
class KnapsackAllocator:
    """
    Shares out the completions of a batch so that the value of all its prompts is largest (arXiv 2509.25849).

    With accuracy p, n completions of a prompt are worth

        (1 − pⁿ − (1 − p)ⁿ) · p(1 − p)²

    the probability of a group that has right and wrong completions times the paper's approximation of how much an
    update raises p. What one more completion adds falls with n, from n = 1 on. So the best allocation takes the
    completions that add most, one by one, until as many are given as N for each prompt would be; no dynamic
    programming is needed.

    p is the mean of the posterior in the history, and so never 0 or 1: the paper, which counts the completions of the
    last epoch, treats these apart. Prompts of equal value are served in their order.

    Args:
        max_generations (`int`, *optional*, defaults to `128`): cap on the completions of a prompt.
        min_generations (`int`, *optional*, defaults to `2`):
            What every prompt gets, from 1 to the `num_generations` of the trainer.

    Raises:
        `ValueError`: `min_generations` is below 1 or above `max_generations`.
    """

    max_generations: int = 128
    min_generations: int = 2

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

    def first_stage(self, batch: RolloutBatch) -> Tensor:
        alpha, beta = batch.posterior()
        p = (alpha / (alpha + beta)).numpy()[:, None]
        # what completion n + 1 adds, for n = 1, 2, …; products in turn are the same on every machine, powers are not
        of_right, of_wrong = (np.repeat(each, self.max_generations - 1, axis=1) for each in (p, 1 - p))
        added = np.cumprod(of_right, axis=1) * (1 - p) + np.cumprod(of_wrong, axis=1) * p
        added = (added * (p * (1 - p) ** 2))[:, self.min_generations - 1 :]
        left = len(batch) * (batch.num_generations - self.min_generations)
        best = np.argsort(-added, axis=None, kind="stable")[:left]
        counts = self.min_generations + np.bincount(best // max(added.shape[1], 1), minlength=len(batch))
        return torch.from_numpy(counts)

    def __call__(self, batch: RolloutBatch) -> Allocation:
        return Allocation(torch.zeros_like(batch.num_samples))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """All that it knows is in the history."""
