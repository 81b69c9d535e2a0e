"""Advantages from wrong completions alone, or constants for right and wrong ones without a baseline."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_not_negative
from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .max_at_k import PKPO
from .nesting import NestedEstimator


@dataclass(frozen=True)
class NegativeOnly(NestedEstimator):
    """
    The negative advantages of another estimator, `A · 1[A < 0]`: GRPO-N and GSPO-N (arXiv 2510.04028).

    The other completions get 0 and stay in the loss: its normalizer counts them.

    Args:
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage.

    Raises:
        `ValueError`: `base` never gives a negative advantage.
    """

    base: AdvantageEstimator = GroupRelative()

    def __post_init__(self):
        super().__post_init__()
        rewards_only = isinstance(self.base, PositiveNegativeReinforce) and not self.base.negative
        if rewards_only or (isinstance(self.base, PKPO) and self.base.k > 1):
            raise ValueError(
                f"NegativeOnly keeps negative advantages, but {self.base!r} gives none: nothing would be trained."
            )

    def __call__(self, groups: RolloutGroups) -> Tensor:
        return self.base(groups).clamp(max=0.0)


@dataclass(frozen=True)
class PositiveNegativeReinforce:
    """
    A constant for correct completions and one for wrong ones, without a baseline (arXiv 2506.01347).

        psr()           +1 / −     positive sample reinforcement: correct completions only
        nsr()            − / −1    negative sample reinforcement: wrong completions only
        w_reinforce()   +λ / −1    W-REINFORCE, λ = 0.1

    Where one of the two weights is 0, only the completions that get an advantage are in the loss and its normalizer.
    A completion that could not be judged gets 0.

    Args:
        positive (`float`):
            Advantage of a correct completion.
        negative (`float`):
            Size of the advantage of a wrong one, which is `-negative`.

    Raises:
        `ValueError`: A weight is negative, or both are 0.
    """

    positive: float
    negative: float

    def __post_init__(self):
        for name, value in (("positive", self.positive), ("negative", self.negative)):
            check_not_negative(name, value)
        if self.positive == self.negative == 0:
            raise ValueError("`positive` and `negative` are both 0: nothing would be trained. Raise one of them.")

    @classmethod
    def psr(cls) -> "PositiveNegativeReinforce":
        """Positive sample reinforcement: correct completions alone, each with an advantage of 1."""
        return cls(1.0, 0.0)

    @classmethod
    def nsr(cls) -> "PositiveNegativeReinforce":
        """Negative sample reinforcement: wrong completions alone, each with an advantage of -1."""
        return cls(0.0, 1.0)

    @classmethod
    def w_reinforce(cls, weight: float = 0.1) -> "PositiveNegativeReinforce":
        """Weighted REINFORCE: `weight` for correct completions, the paper's λ, and -1 for wrong ones."""
        return cls(weight, 1.0)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        advantages = torch.full_like(groups.rewards, -self.negative).masked_fill_(groups.correct, self.positive)
        return advantages.masked_fill_(~groups.judged, 0.0)

    @property
    def drops_rows(self) -> bool:
        return not (self.positive and self.negative)

    def rows_in_loss(self, groups: RolloutGroups) -> Tensor:
        if not self.drops_rows:
            return torch.ones_like(groups.judged)
        return groups.judged & (groups.correct if self.positive else ~groups.correct)
