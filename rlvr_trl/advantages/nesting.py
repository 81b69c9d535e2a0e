"""Estimators that hold others, and pass on what these say about themselves: `min_group_size` and the like."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .groups import AdvantageEstimator, RolloutGroups


def min_group_size_with_signal(estimator: AdvantageEstimator) -> int:
    """Size of the smallest groups in which `estimator` can give an advantage other than 0; 1 if it does not say."""
    return getattr(estimator, "min_group_size_with_signal", 1)


def drops_rows(estimator: AdvantageEstimator) -> bool:
    """Whether `estimator` ever leaves a completion out of the loss."""
    return getattr(estimator, "drops_rows", hasattr(estimator, "rows_in_loss"))


def rows_in_loss(estimator: AdvantageEstimator, groups: RolloutGroups) -> Tensor:
    """The completions that `estimator` leaves in the loss: all, unless it says otherwise. Boolean, shape `(T,)`."""
    own = getattr(estimator, "rows_in_loss", None)
    return torch.ones_like(groups.scored) if own is None else own(groups).to(groups.scored.device)


class NestedEstimator:
    """
    An estimator that holds others in `parts`: the one in its field `base`, unless a subclass overrides `parts`.

    It works on groups that all of them can work on, gives a signal where one of them does, reads entropies when one of
    them does, and leaves a completion out of the loss when one of them does.

    Raises:
        `ValueError`: A part cannot be called; names the estimator and what it was given.
    """

    if TYPE_CHECKING:  # subclasses have it as a field, which in a frozen dataclass is read-only

        @property
        def base(self) -> AdvantageEstimator: ...

    def __post_init__(self):
        for part in self.parts:
            if not callable(part):
                raise ValueError(f"{type(self).__name__} takes an advantage estimator, got {part!r}.")

    @property
    def parts(self) -> tuple[AdvantageEstimator, ...]:
        return (self.base,)

    @property
    def min_group_size(self) -> int:
        return max(getattr(part, "min_group_size", 1) for part in self.parts)

    @property
    def min_group_size_with_signal(self) -> int:
        return min(min_group_size_with_signal(part) for part in self.parts)

    @property
    def needs_entropies(self) -> bool:
        return any(getattr(part, "needs_entropies", False) for part in self.parts)

    @property
    def drops_rows(self) -> bool:
        return any(drops_rows(part) for part in self.parts)

    def rows_in_loss(self, groups: RolloutGroups) -> Tensor:
        return torch.stack([rows_in_loss(part, groups) for part in self.parts]).all(0)


def scale_groups(advantages: Tensor, factor: Tensor, groups: RolloutGroups) -> Tensor:
    """`advantages`, shape `(T,)`, times the factor of their group, shape `(P,)`; in the dtype of the advantages."""
    advantages = advantages.to(groups.rewards.device)
    return (advantages * factor[groups.index]).to(advantages.dtype)
