"""DARS's schedules (arXiv 2508.13755) on what the history says of a prompt, before anything is sampled of it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, check_integer, check_positive
from .allocator import Allocation, RolloutBatch
from .dars import DARS, SCHEDULES
from .schedules import extra_of_halves


@dataclass
class PredictedDARS:
    """
    [`DARS`] that gives a prompt all its rollouts at once where its history says how hard it is.

    Where the Beta posterior of the accuracy of a prompt has a standard deviation of at most `max_deviation`, its first
    stage has what DARS's two would have together, for N rollouts of which the posterior's mean is the share of the
    correct ones, rounded to half a completion: at least half of one, as `zero_accuracy="half"` has it. Prompts whose
    predicted accuracy is at least `easy` get `easy_generations`. Other prompts get N, and DARS's second stage by what
    is then seen of them. Without such prompts a batch takes one round of generation.

    Args:
        schedule (`str`, *optional*, defaults to `"hardness_weighted"`): as in [`DARS`].
        max_generations (`int`, *optional*, defaults to `32`): cap on the completions of a prompt.
        max_deviation (`float`, *optional*, defaults to `0.16`):
            Of a posterior that is sharp. One batch of 8 with the prior's weight of 2 has at most 0.151.
        easy (`float`, *optional*, defaults to `0.9`): predicted accuracy of an easy prompt, above 1/2.
        easy_generations (`int`, *optional*):
            Completions of a prompt that is predicted to be easy, at most N, which the trainer checks. N by default.
        scale (`str`, *optional*, defaults to `"none"`): as in [`DARS`].

    Raises:
        `ValueError`: A setting is unknown or out of its range.
    """

    schedule: str = "hardness_weighted"
    max_generations: int = 32
    max_deviation: float = 0.16
    easy: float = 0.9
    easy_generations: int | None = None
    scale: str = "none"

    needs_history = True
    needs_new_prompts = False

    def __post_init__(self):
        check_choice("schedule", self.schedule, SCHEDULES)
        self._second = DARS(self.schedule, self.max_generations, scale=self.scale)
        check_positive("max_deviation", self.max_deviation)
        if not 0.5 < self.easy <= 1:
            raise ValueError(f"`easy` must be above 0.5 and at most 1, got {self.easy!r}.")
        if self.easy_generations is not None:
            check_integer("easy_generations", self.easy_generations, at_least=1)

    def first_stage(self, batch: RolloutBatch) -> Tensor:
        usual = batch.num_generations
        alpha, beta = batch.posterior()
        mean = alpha / (alpha + beta)
        half_correct = (2 * usual * mean + 0.5).floor().long().clamp(min=1)  # of 2N half completions
        total = usual + extra_of_halves(self.schedule, half_correct, usual, self.max_generations, self.scale)
        if self.easy_generations is not None:
            total = torch.where(mean >= self.easy, self.easy_generations, total)
        return torch.where(self._is_sharp(batch), total, usual)

    def __call__(self, batch: RolloutBatch) -> Allocation:
        extra = self._second(batch.stage, batch.num_samples, batch.num_correct, batch.num_judged)
        return Allocation(torch.where(self._is_sharp(batch), 0, extra))

    def _is_sharp(self, batch: RolloutBatch) -> Tensor:
        """Whether the posterior of each prompt was sharp before this batch. Boolean, `(P,)`."""
        assert batch.history is not None and batch.places is not None
        alpha, beta = (torch.from_numpy(each) for each in batch.history.posterior(batch.places))
        weight = alpha + beta
        return alpha * beta / (weight**2 * (weight + 1)) <= self.max_deviation**2

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """All that it knows is in the history."""
