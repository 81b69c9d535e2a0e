"""Reinforce-Ada (arXiv 2510.04996): more rollouts for hard prompts, by rounds or by what is remembered of them.

The first two versions of the paper have the rounds alone, their Algorithm 1; the third has them as Algorithm 2
(Reinforce-Ada-Seq), and as Algorithm 1 an allocation by predicted pass rates (Reinforce-Ada-Est). What its training
makes of the rollouts is an estimator's part: [`~rlvr_trl.advantages.TrainingGroup`] draws a group of fixed size from
all rollouts of a prompt, with the advantages of all of them, and [`~rlvr_trl.advantages.PassRateObjective`] weighs
them by a non-linear objective. Without the first, all completions of a prompt are trained on.

Here the first round has `num_generations` completions, each later one `round_size`, and the cap is on completions. In
the paper all rounds have one size, and the cap is on their number. Of its two predictors of pass rates, the network is
not here; the discounted counts are those of the history.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..checks import check_choice, check_integer
from .allocator import RolloutBatch, check_counts
from .budget import SharesBudget


@dataclass(frozen=True)
class ReinforceAda:
    """
    More completions, round by round, for prompts with too few correct or too few wrong ones (arXiv 2510.04996).

    `negatives=0` is the paper's "positive" exit rule, and `positives` and `negatives` alike, half the size of a
    training group, its "balanced" one, which also samples easy prompts until they fail. A prompt without a judged
    completion gets no more.

    Args:
        max_generations (`int`):
            Cap on the completions of a prompt, all rounds together.
        round_size (`int`):
            Completions that an unresolved prompt gets in each further round, fewer when the cap is near.
        positives (`int`, *optional*, defaults to `1`):
            Correct completions that a prompt needs to be resolved.
        negatives (`int`, *optional*, defaults to `0`):
            Wrong completions that a prompt needs to be resolved.

    Raises:
        `ValueError`: `max_generations` or `round_size` below 1, `positives` or `negatives` negative or both 0, or
        their sum above `max_generations`. When called: inconsistent counts, or `stage < 1`.
    """

    max_generations: int
    round_size: int
    positives: int = 1
    negatives: int = 0

    def __post_init__(self):
        check_integer("max_generations", self.max_generations, at_least=1)
        check_integer("round_size", self.round_size, at_least=1)
        check_integer("positives", self.positives, at_least=0)
        check_integer("negatives", self.negatives, at_least=0)
        if not 1 <= self.positives + self.negatives <= self.max_generations:
            raise ValueError(
                f"`positives` + `negatives` must be at least 1 and at most `max_generations`={self.max_generations}, "
                f"got {self.positives} + {self.negatives}."
            )

    def start_batch(self, progress: float) -> None:
        """Nothing depends on the progress of training."""

    def __call__(self, stage: int, num_samples: Tensor, num_correct: Tensor, num_judged: Tensor) -> Tensor:
        check_integer("stage", stage, at_least=1)
        check_counts(num_samples=num_samples, num_judged=num_judged, num_correct=num_correct)
        num_wrong = num_judged - num_correct
        resolved = (num_correct >= self.positives) & (num_wrong >= self.negatives)
        room = (self.max_generations - num_samples.long()).clamp(min=0, max=self.round_size)
        return torch.where(resolved | (num_judged == 0), 0, room)  # (P,)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is no state."""


@dataclass
class ReinforceAdaEst(SharesBudget):
    """
    Shares out the completions of a batch by predicted pass rates, n ∝ 1/√p (arXiv 2510.04996v3, Algorithm 1).

    The budget of N for each prompt is given out to the last completion, in the whole numbers between the two bounds
    for which the sum of w²/n over all prompts is smallest, w being 1/√p or 1/p. For real numbers that is n ∝ w, as far
    as the bounds allow (the proof is one line: the derivatives w²/n² are alike). Prompts of equal value are served in
    their order.

    p is the mean of the posterior in the history, which is the paper's Ada-EMA but for the prior: counts that are
    discounted with each batch, on a Beta prior, fixed in the paper and here that of the pool. It is never 0, and the
    paper's ε is not needed.

    Args:
        max_generations (`int`, *optional*, defaults to `32`): cap on the completions of a prompt.
        min_generations (`int`, *optional*, defaults to `4`):
            What every prompt gets, from 1 to the `num_generations` of the trainer.
        share (`str`, *optional*, defaults to `"inverse_root"`):
            `"inverse_root"` is 1/√p, half of the weight that the logarithm of the pass rate gives a prompt; the other
            half is `PassRateObjective(power=0.5)`. `"inverse"` is 1/p, all of it.

    Raises:
        `ValueError`: A setting is unknown or out of its range.
    """

    max_generations: int = 32
    min_generations: int = 4
    share: str = "inverse_root"

    def __post_init__(self):
        super().__post_init__()
        check_choice("share", self.share, ("inverse_root", "inverse"))

    def gains(self, batch: RolloutBatch, counts: np.ndarray) -> np.ndarray:
        alpha, beta = (each.numpy() for each in batch.posterior())
        squared = (alpha + beta) / alpha  # 1 / p
        squared = squared if self.share == "inverse_root" else squared * squared
        return squared[:, None] / (counts * (counts + 1))
