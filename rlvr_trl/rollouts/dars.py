"""Difficulty Adaptive Rollout Sampling (DARS, arXiv 2508.13755): one more stage of rollouts for the hard prompts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import cos, floor, pi
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, check_integer, check_share
from .allocator import check_counts
from .schedules import SCALES, ZERO_ACCURACY, equal_treatment, hardness_weighted


# (num_correct, num_samples, max_generations, scale, zero_accuracy) -> extra rollouts (P,)
SCHEDULES: dict[str, Callable[[Tensor, Tensor, int, str, str], Tensor]] = {
    "equal_treatment": equal_treatment,
    "hardness_weighted": hardness_weighted,
}


@dataclass
class DARS:
    """
    A second stage of rollouts for prompts of accuracy below 1/2 in the first (arXiv 2508.13755, Eq. 6 and 8).

    Accuracy and the N of the schedule are those of the judged completions; the cap counts all sampled ones. A prompt
    without a judged completion gets no more. With `max_generations` equal to the size of the first stage
    nothing is added: plain GRPO.

    Args:
        schedule (`str`, *optional*, defaults to `"equal_treatment"`):
            `"equal_treatment"` or `"hardness_weighted"`, which spends more on the hardest prompts.
        max_generations (`int`, *optional*, defaults to `32`):
            Cap on the completions of a prompt, both stages together.
        zero_accuracy (`str`, *optional*, defaults to `"half"`):
            A prompt without a correct completion counts as having half of one (`"half"`) or goes to the cap (`"cap"`).
        scale (`str`, *optional*, defaults to `"none"`):
            `"none"` for advantages `r − mean`, `"std"` for those divided by the standard deviation.
        max_generations_end (`int`, *optional*):
            The cap at the end of training, not above `max_generations`: exploration first, precision later. The cap in
            between is rounded to the nearest integer, halves up. By default it does not change.
        anneal (`str`, *optional*, defaults to `"linear"`):
            The cap's way there: `"linear"`, or `"cosine"`, half a cosine period, slow at both ends.

    Raises:
        `ValueError`: An unknown `schedule`, `zero_accuracy`, `scale` or `anneal`; `max_generations < 1`;
        `max_generations_end` below 1 or above `max_generations`. When called: inconsistent counts, or `stage < 1`.
    """

    schedule: str = "equal_treatment"
    max_generations: int = 32
    zero_accuracy: str = "half"
    scale: str = "none"
    max_generations_end: int | None = None
    anneal: str = "linear"
    progress: float = field(default=0.0, init=False, repr=False, compare=False)

    def __post_init__(self):
        check_choice("schedule", self.schedule, SCHEDULES)
        check_integer("max_generations", self.max_generations, at_least=1)
        check_choice("zero_accuracy", self.zero_accuracy, ZERO_ACCURACY)
        check_choice("scale", self.scale, SCALES)
        check_choice("anneal", self.anneal, ("linear", "cosine"))
        if self.max_generations_end is not None:
            check_integer("max_generations_end", self.max_generations_end, at_least=1)
            if self.max_generations_end > self.max_generations:
                raise ValueError(
                    f"`max_generations_end` must be at most `max_generations`={self.max_generations}, got "
                    f"{self.max_generations_end}."
                )

    @property
    def current_max_generations(self) -> int:
        """The cap at the present progress of training."""
        if self.max_generations_end is None:
            return self.max_generations
        done = self.progress if self.anneal == "linear" else (1 - cos(pi * self.progress)) / 2
        return floor(self.max_generations + (self.max_generations_end - self.max_generations) * done + 0.5)

    def start_batch(self, progress: float) -> None:
        check_share("progress", progress)
        self.progress = float(progress)

    def __call__(self, stage: int, num_samples: Tensor, num_correct: Tensor, num_judged: Tensor) -> Tensor:
        check_integer("stage", stage, at_least=1)
        check_counts(num_samples=num_samples, num_judged=num_judged, num_correct=num_correct)
        if stage > 1:
            return torch.zeros_like(num_samples, dtype=torch.long)
        cap = self.current_max_generations
        extra = SCHEDULES[self.schedule](num_correct, num_judged, cap, self.scale, self.zero_accuracy)
        return torch.minimum(extra, (cap - num_samples.long()).clamp(min=0))  # (P,)

    def state_dict(self) -> dict[str, Any]:
        return {"progress": self.progress}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "progress" not in state:
            raise ValueError(f"The state of DARS must hold 'progress', got the keys {sorted(state)}.")
        self.start_batch(state["progress"])
