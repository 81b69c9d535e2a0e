"""REINFORCE with simple baselines: RLOO (arXiv 2402.14740) and REINFORCE++ (2501.03262)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_boolean, check_not_negative
from .groups import RolloutGroups


def rewards_below_best(groups: RolloutGroups) -> tuple[Tensor, Tensor]:
    """
    Rewards minus the best of their group, NaN where there is none, `(P, largest group)`, and the best, `(P, 1)`, NaN
    where nothing is scored; float64. Where all rewards of a group are equal, these are exactly 0, and so is their
    mean: in rewards of 0.7 it would be off by a rounding.
    """
    rewards = groups.pad(groups.rewards.double(), torch.nan)
    best = rewards.nan_to_num(nan=-torch.inf).amax(1, keepdim=True)
    best = best.masked_fill_(best == -torch.inf, torch.nan)
    return rewards - best, best


@dataclass(frozen=True)
class LeaveOneOut:
    """
    The reward minus the mean reward of the other completions of the group: RLOO (arXiv 2402.14740).

        A_i = r_i − mean of the other r = n / (n − 1) · (r_i − mean(r))

    The baseline does not depend on the completion, so the gradient is unbiased; that of Dr. GRPO, from which only the
    factor differs, is (n − 1) / n of it. In a group of equal rewards all advantages are 0, as is that of a completion
    alone, which has no others.
    """

    min_group_size_with_signal = 2

    def __call__(self, groups: RolloutGroups) -> Tensor:
        below, _ = rewards_below_best(groups)  # (P, n)
        n = groups.num_scored.double().unsqueeze(1)  # (P, 1)
        advantages = (below - below.nanmean(1, keepdim=True)) * (n / (n - 1).clamp(min=1.0))
        return groups.unpad(advantages.nan_to_num_(nan=0.0)).to(groups.rewards.dtype)


@dataclass(frozen=True)
class ReinforcePlusPlus:
    """
    Rewards, or what they are above the mean of their group, standardized over the whole batch: REINFORCE++.

        A_i = (b_i − mean(b)) / (std(b) + eps)         b_i = r_i, or r_i − mean of its group (arXiv 2501.03262)

    with the mean and the population standard deviation over all scored completions of the batch, each of which counts
    once; the authors' code counts each token once. KL is TRL's, in the loss and not in the reward.

    Without the baseline a group is not compared with itself: all right, it has positive advantages where the batch is
    worse; all wrong, negative ones; and so has a completion alone. With it such groups have 0 or nearly, since the
    mean of all `b` is 0 up to rounding. A batch of equal `b` has 0.

    Args:
        group_baseline (`bool`, *optional*, defaults to `False`):
            Whether to subtract the mean of the group first: the paper's variant "w/ baseline", for several completions
            of a prompt.
        eps (`float`, *optional*, defaults to `1e-8`):
            Added to the standard deviation.

    Raises:
        `ValueError`: `eps` is negative, or `group_baseline` neither true nor false.
    """

    group_baseline: bool = False
    eps: float = 1e-8

    def __post_init__(self):
        check_boolean("group_baseline", self.group_baseline)
        check_not_negative("eps", self.eps)

    @property
    def min_group_size_with_signal(self) -> int:
        return 2 if self.group_baseline else 1

    def __call__(self, groups: RolloutGroups) -> Tensor:
        if self.group_baseline:
            below, _ = rewards_below_best(groups)  # (P, n)
            values = groups.unpad(below - below.nanmean(1, keepdim=True))  # (T,)
        else:
            values = groups.rewards.double()
            values = values - values[groups.scored].amax() if groups.scored.any() else values
            values = values - values.nanmean()
        advantages = values / (values.square().nanmean().sqrt() + self.eps)
        return advantages.nan_to_num(nan=0.0).to(groups.rewards.dtype)
