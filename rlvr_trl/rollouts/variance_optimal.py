"""Completions where they lower the variance of the gradient most, in a hard budget (after VIP, arXiv 2602.01601)."""

from dataclasses import dataclass

import numpy as np

from ..checks import check_choice, check_integer
from .allocator import RolloutBatch
from .budget import SharesBudget


# the smallest n from which on the variance as a function of n is convex
_CONVEX_FROM = {"mean": 3, "leave_one_out": 2}


@dataclass
class VarianceOptimalAllocator(SharesBudget):
    """
    Shares out the completions of a batch for the smallest variance of its gradient (after VIP, arXiv 2602.01601).

    The gradient of a prompt is the mean over its n completions of advantage times score, `∇log π`, and that of the
    batch the mean over its prompts. Rewards are 0 or 1, and a component of the score is taken to have mean 0 and the
    same variance σ² for all completions, and to be independent of their rewards. The squared advantages `r − mean` of
    a group sum to n − 1 times p(1 − p) on average. So the variance of a component is σ² times

        p(1 − p) · (n − 1)/n²      for advantages r − mean of the group          `baseline="mean"`, Dr. GRPO
        p(1 − p) · 1/(n − 1)       for r − mean of the others in the group       `baseline="leave_one_out"`, RLOO

    The second derivatives by n, 2(n − 3)/n⁴ and 2/(n − 1)³, are not negative from n = 3 and n = 2 on: there the
    variance is convex, what one more completion takes from it falls, and giving completions one by one to where they
    take most is the best of all allocations. Below 3 it is not: with one completion, whose advantage is 0, there is no
    variance, nor anything to learn.

    p(1 − p) is its mean under the posterior in the history, αβ/((α + β)(α + β + 1)). The gradient weighs prompts alike
    only with [`~rlvr_trl.advantages.PerPromptMean`], without which each of them weighs by its completions.

    This is VIP's problem. Its text was not at hand beyond the abstract: the variances are derived here, and agree with
    what others report of it. VIP predicts p with a Gaussian process over embeddings of the prompts, and rounds the
    solution for real n.

    Args:
        max_generations (`int`, *optional*, defaults to `32`): cap on the completions of a prompt.
        min_generations (`int`, *optional*, defaults to `3`):
            What every prompt gets, from 3, or 2 with `baseline="leave_one_out"`, to `num_generations` of the trainer.
        baseline (`str`, *optional*, defaults to `"mean"`): `"mean"` or `"leave_one_out"`.

    Raises:
        `ValueError`: A setting is unknown or out of its range.
    """

    max_generations: int = 32
    min_generations: int = 3
    baseline: str = "mean"

    def __post_init__(self):
        super().__post_init__()
        check_choice("baseline", self.baseline, _CONVEX_FROM)
        check_integer("min_generations", self.min_generations, at_least=_CONVEX_FROM[self.baseline])

    def gains(self, batch: RolloutBatch, counts: np.ndarray) -> np.ndarray:
        alpha, beta = (each.numpy() for each in batch.posterior())
        p_times_wrong = alpha * beta / ((alpha + beta) * (alpha + beta + 1))
        n, after = counts, counts + 1
        of_mean, of_others = (n * n - n - 1) / (n * n * after * after), 1 / (n * (n - 1))
        return p_times_wrong[:, None] * (of_mean if self.baseline == "mean" else of_others)
