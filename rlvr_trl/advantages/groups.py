"""The batch of groups that every advantage estimator reads.

A *group* is all completions of one prompt. Groups may be ragged (of different size), and their rows may come in any
order. Estimators work on a padded view with one group per row:

    group_ids   7  3  7  7  3                 pad(rewards, fill)   position 0  1  2
    rewards     a  b  c  d  e        <->      group 3                       b  e  fill
                                              group 7                       a  c  d
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class RolloutGroups:
    """
    Rewards of a batch of completions, and the prompt that each belongs to.

    A completion whose reward is NaN (no reward function could score it) is outside the statistics of its group: it
    counts neither in `num_scored` nor in `accuracy`, and its advantage is 0.

    Args:
        rewards (`Tensor` of shape `(T,)`):
            Floating point reward of each completion. NaN means unscored; infinite rewards are an error.
        group_ids (`Tensor` of shape `(T,)`):
            Integer id of each completion's prompt. Any integers in any order.
        correct (`Tensor` of shape `(T,)`, *optional*):
            Whether each completion is correct, boolean. By default those with a reward above 0.5.
        judged (`Tensor` of shape `(T,)`, *optional*):
            Whether `correct` is known, boolean. Only these count in `accuracy`. By default the scored completions.
        entropies (`Tensor` of shape `(T,)`, *optional*):
            Mean token entropy of each completion, in nats.
        lengths (`Tensor` of shape `(T,)`, *optional*):
            Length of each completion, in tokens.
        seed (`int`, *optional*, defaults to `0`):
            For estimators that draw random numbers: the same on every process, a different one for every batch.
        progress (`float`, *optional*, defaults to `0.0`):
            Share of the training done, in [0, 1], for estimators that change with it.

    Raises:
        `ValueError`: A shape or dtype is wrong, there is no row, or a reward is infinite.
    """

    rewards: Tensor
    group_ids: Tensor
    correct: Tensor = None  # pyrefly: ignore[bad-assignment]  # None is replaced in `__post_init__`
    judged: Tensor = None  # pyrefly: ignore[bad-assignment]
    entropies: Tensor | None = None
    lengths: Tensor | None = None
    seed: int = 0
    progress: float = 0.0

    if TYPE_CHECKING:  # the constructor takes None where the attributes never are

        def __init__(
            self,
            rewards: Tensor,
            group_ids: Tensor,
            correct: Tensor | None = None,
            judged: Tensor | None = None,
            entropies: Tensor | None = None,
            lengths: Tensor | None = None,
            seed: int = 0,
            progress: float = 0.0,
        ): ...

    def __post_init__(self):
        if self.rewards.dim() != 1 or self.rewards.numel() == 0 or not self.rewards.is_floating_point():
            raise ValueError(
                f"`rewards` must be a floating point tensor of shape (T,) with T >= 1, got shape "
                f"{tuple(self.rewards.shape)} and dtype {self.rewards.dtype}."
            )
        for name in ("group_ids", "correct", "judged", "entropies", "lengths"):
            value = getattr(self, name)
            if value is not None and value.shape != self.rewards.shape:
                raise ValueError(
                    f"`{name}` must have the shape of `rewards`, {tuple(self.rewards.shape)}, got "
                    f"{tuple(value.shape)}."
                )
        if self.group_ids.is_floating_point() or self.group_ids.dtype == torch.bool:
            raise ValueError(f"`group_ids` must hold integers, got dtype {self.group_ids.dtype}.")
        if torch.isinf(self.rewards).any():
            raise ValueError("`rewards` holds an infinite value. Use NaN for a completion that could not be scored.")
        if self.correct is None:
            object.__setattr__(self, "correct", self.rewards > 0.5)
        if self.judged is None:
            object.__setattr__(self, "judged", self.scored)
        for name in ("correct", "judged"):
            if getattr(self, name).dtype != torch.bool:
                raise ValueError(f"`{name}` must be boolean, got dtype {getattr(self, name).dtype}.")

    def __repr__(self) -> str:  # tensors of any length
        low, high = int(self.sizes.min()), self.largest
        each = f"{low} each" if low == high else f"{low} to {high} each"
        correct, unscored = int(self.num_correct.sum()), int((~self.scored).sum())
        return (
            f"RolloutGroups({len(self.rewards)} completions of {self.num_groups} prompts, {each}; {correct} correct, "
            f"{unscored} unscored)"
        )

    @cached_property
    def _layout(self) -> tuple[Tensor, Tensor, Tensor]:
        # group of each row (T,), position of each row within its group (T,), rows per group (P,)
        ids, order = torch.sort(self.group_ids, stable=True)
        _, group, sizes = torch.unique_consecutive(ids, return_inverse=True, return_counts=True)
        first = sizes.cumsum(0) - sizes
        place = torch.arange(len(order), device=order.device) - first[group]
        index = torch.empty_like(order).scatter_(0, order, group)
        position = torch.empty_like(order).scatter_(0, order, place)
        return index, position, sizes

    @cached_property
    def largest(self) -> int:
        """Completions of the largest group: the width of the padded view."""
        return int(self.sizes.max())

    @cached_property
    def _cells(self) -> Tensor:
        # place of each row in the flattened padded view (T,)
        index, position, _ = self._layout
        return index * self.largest + position

    @property
    def index(self) -> Tensor:
        """Group of each completion as 0…P−1, in the order of sorted `group_ids`. Shape `(T,)`."""
        return self._layout[0]

    @property
    def sizes(self) -> Tensor:
        """Completions per group, unscored ones included. Shape `(P,)`."""
        return self._layout[2]

    @property
    def num_groups(self) -> int:
        return len(self.sizes)

    @cached_property
    def scored(self) -> Tensor:
        """Whether each completion has a reward. Boolean, shape `(T,)`."""
        return ~self.rewards.isnan()

    @cached_property
    def num_scored(self) -> Tensor:
        """Completions with a reward per group. Integer, shape `(P,)`."""
        return self.sum(self.scored.long())

    @cached_property
    def num_judged(self) -> Tensor:
        """Completions per group whose correctness is known. Integer, shape `(P,)`."""
        return self.sum(self.judged.long())

    @cached_property
    def num_correct(self) -> Tensor:
        """Correct completions per group. Integer, shape `(P,)`."""
        return self.sum((self.judged & self.correct).long())

    @cached_property
    def accuracy(self) -> Tensor:
        """Share of correct completions per group; NaN where none could be judged. At least float32, shape `(P,)`."""
        return self.num_correct.to(torch.promote_types(self.rewards.dtype, torch.float32)) / self.num_judged

    @cached_property
    def ranking(self) -> tuple[Tensor, Tensor]:
        """
        Rewards of each group from best to worst in float64, −inf where unscored or padding, and the positions within
        the group that they come from. Two tensors of shape `(P, largest group)`.
        """
        rewards = self.rewards.double().nan_to_num(nan=-torch.inf)
        return self.pad(rewards, -torch.inf).sort(dim=1, descending=True)

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values`, shape `(T,)`, over each group. Shape `(P,)`."""
        return torch.zeros(self.num_groups, dtype=values.dtype, device=values.device).index_add_(0, self.index, values)

    def pad(self, values: Tensor, fill: float) -> Tensor:
        """`values`, shape `(T,)`, with one group per row. Shape `(P, largest group)`."""
        padded = values.new_full((self.num_groups * self.largest,), fill)
        return padded.scatter_(0, self._cells, values).view(-1, self.largest)

    def unpad(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`: shape `(P, largest group)` to `(T,)`."""
        return padded.flatten()[self._cells]


class AdvantageEstimator(Protocol):
    """
    Turns the rewards of a batch of groups into one advantage per completion, in the same order.

    Any callable with this signature works. It may have more members, which trainers look for:

        min_group_size: int                            it cannot work on smaller groups: refused before a model loads
        min_group_size_with_signal: int                in smaller groups every advantage is 0: warned of
        needs_entropies: bool                          it reads `groups.entropies`, which cost a forward pass
        rows_in_loss(groups) -> Tensor of bool (T,)    the others are left out of the loss and its normalizer
        drops_rows: bool                               whether `rows_in_loss`, if there is one, ever leaves any out
    """

    def __call__(self, groups: RolloutGroups, /) -> Tensor: ...  # (T,)
