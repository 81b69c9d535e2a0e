"""Reinforce-Ada (arXiv 2510.04996, Algorithm 1): rounds of rollouts until a prompt has shown what is to be learned.

This is the paper's sequential sampling. What surrounds it differs:

- All completions of a prompt are kept and trained on: the pool and the group are the same. The paper trains on a fixed
  number of completions drawn from the pool, right and wrong ones if there are both, and takes the baseline of their
  advantages from the whole pool.
- The first round has `num_generations` completions, each later one `round_size`, and the cap is on completions. In the
  paper all rounds have one size, and the cap is on their number.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_integer
from .allocator import check_counts


@dataclass(frozen=True)
class ReinforceAda:
    """
    More completions, round by round, for prompts with too few correct or too few wrong ones (arXiv 2510.04996).

    `positives=1, negatives=0` is the paper's "positive" exit rule; `positives` and `negatives` both half the size of a
    training group its "balanced" one, which also samples easy prompts until they fail. A prompt without a
    judged completion gets no more.

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
