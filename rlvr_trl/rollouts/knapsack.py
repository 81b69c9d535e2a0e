"""Knapsack RL (arXiv 2509.25849): the completions of a batch go where they are worth most."""

from dataclasses import dataclass

import numpy as np

from .allocator import RolloutBatch
from .budget import SharesBudget


@dataclass
class KnapsackAllocator(SharesBudget):
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

    def gains(self, batch: RolloutBatch, counts: np.ndarray) -> np.ndarray:
        alpha, beta = batch.posterior()
        p = (alpha / (alpha + beta)).numpy()[:, None]
        # from n = 1 on; products in turn are the same on every machine, powers are not
        of_right, of_wrong = (np.repeat(each, self.max_generations - 1, axis=1) for each in (p, 1 - p))
        added = np.cumprod(of_right, axis=1) * (1 - p) + np.cumprod(of_wrong, axis=1) * p
        return (added * (p * (1 - p) ** 2))[:, self.min_generations - 1 :]
