"""Estimators that hold others, and pass on what these say about themselves: `min_group_size` and the like."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .groups import AdvantageEstimator, CompletionTokens, RolloutGroups


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


def shapes_tokens(estimator: AdvantageEstimator) -> bool:
    """Whether `estimator` ever gives the tokens of a completion advantages of their own."""
    return getattr(estimator, "shapes_tokens", hasattr(estimator, "shape_tokens"))


def shape_tokens(estimator: AdvantageEstimator, advantages: Tensor, tokens: CompletionTokens) -> Tensor:
    """
    The advantage of each token by `estimator`: that of its completion, unless it says otherwise. Shape `(B, C)`.

    Args:
        estimator (`AdvantageEstimator`): any.
        advantages (`Tensor` of shape `(B,)` or `(B, C)`): of these completions, or of their tokens already.
        tokens ([`CompletionTokens`]): of the same completions.
    """
    if advantages.dim() == 1:
        advantages = advantages.unsqueeze(1).expand(tokens.mask.shape)
    own = getattr(estimator, "shape_tokens", None)
    return own(advantages, tokens) if own is not None and shapes_tokens(estimator) else advantages


class NestedEstimator:
    """
    An estimator that holds others in `parts`: the one in its field `base`, unless a subclass overrides `parts`.

    It works on groups that all of them can work on, gives a signal where one of them does, reads entropies and the
    like when one of them does, and leaves a completion out of the loss when one of them does. Tokens are shaped by its
    only part: an estimator of several parts must say itself how.

    Raises:
        `ValueError`: A part cannot be called, or one of several shapes tokens; names the estimator and what it was
        given.
    """

    if TYPE_CHECKING:  # subclasses have it as a field, which in a frozen dataclass is read-only

        @property
        def base(self) -> AdvantageEstimator: ...

    def __post_init__(self):
        for part in self.parts:
            if not callable(part):
                raise ValueError(f"{type(self).__name__} takes an advantage estimator, got {part!r}.")
        own = type(self).shape_tokens is not NestedEstimator.shape_tokens
        if len(self.parts) > 1 and not own and (shaping := [part for part in self.parts if shapes_tokens(part)]):
            raise ValueError(
                f"{type(self).__name__} holds {len(self.parts)} estimators, so it cannot say what the tokens get that "
                f"{shaping[0]!r} shapes. Put that one around it, or override `shape_tokens`."
            )

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
    def needs_log_probs(self) -> bool:
        return any(getattr(part, "needs_log_probs", False) for part in self.parts)

    @property
    def needs_answers(self) -> bool:
        return any(getattr(part, "needs_answers", False) for part in self.parts)

    @property
    def needs_history(self) -> bool:
        return any(getattr(part, "needs_history", False) for part in self.parts)

    @property
    def drops_rows(self) -> bool:
        return any(drops_rows(part) for part in self.parts)

    def rows_in_loss(self, groups: RolloutGroups) -> Tensor:
        return torch.stack([rows_in_loss(part, groups) for part in self.parts]).all(0)

    @property
    def shapes_tokens(self) -> bool:
        return any(shapes_tokens(part) for part in self.parts)

    def shape_tokens(self, advantages: Tensor, tokens: CompletionTokens) -> Tensor:
        return shape_tokens(self.parts[0], advantages, tokens)


def scale_groups(advantages: Tensor, factor: Tensor, groups: RolloutGroups) -> Tensor:
    """`advantages`, shape `(T,)`, times the factor of their group, shape `(P,)`; in the dtype of the advantages."""
    advantages = advantages.to(groups.rewards.device)
    return (advantages * factor[groups.index]).to(advantages.dtype)
