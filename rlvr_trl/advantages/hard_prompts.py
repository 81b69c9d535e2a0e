"""Estimators that give hard prompts more by a formula of their rewards: MaxRL, RS-GRPO and F-GRPO."""

from dataclasses import dataclass

from torch import Tensor

from ..checks import check_positive
from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .leave_one_out import rewards_below_best
from .nesting import NestedEstimator, scale_groups


@dataclass(frozen=True)
class MaxRL:
    """
    The reward minus the mean of its group, over that mean: maximum likelihood RL (arXiv 2602.02710, Algorithm 1).

        A_i = (r_i − mean(r)) / mean(r), and 0 where the mean is 0

    For rewards 0 and 1 and p the probability of being right, the mean over a group of `A_i ∇log π(y_i)` is an unbiased
    estimate of the gradient of a truncated log p, `Σ_{k<n} ∇pass@k / k` (Theorem 5 of the paper's third version). With
    −1 for each completion of a group without a right one it would have the term of k = n too; the paper drops these
    groups, which takes it away, as `(1 − p)ⁿ E[∇log π | wrong] = −∇pass@n / n`. Groups of equal rewards have 0, as has
    a completion alone. The released code adds 1e-6 to the mean; this does not.

    Raises:
        `ValueError`: When called: a reward is negative. A negative mean would reward the wrong completions.
    """

    min_group_size_with_signal = 2

    def __call__(self, groups: RolloutGroups) -> Tensor:
        if (groups.rewards < 0).any():
            raise ValueError(
                f"MaxRL divides by the mean reward of a group, so no reward may be negative, got "
                f"{groups.rewards.nan_to_num(nan=0.0).min().item():.4g}. Give rewards of 0 and more."
            )
        below, best = rewards_below_best(groups)  # (P, n) and (P, 1)
        mean_below = below.nanmean(1, keepdim=True)
        advantages = (below - mean_below) / (best + mean_below)  # 0/0 where all rewards are 0
        return groups.unpad(advantages.nan_to_num_(nan=0.0)).to(groups.rewards.dtype)


@dataclass(frozen=True)
class RSGRPO:
    """
    Risk-seeking advantages, between those of the mean and those of the best reward (arXiv 2509.24261).

        A_i = (exp(β (r_i − V)) − 1) / β = (exp(β r_i) / mean(exp(β r)) − 1) / β         V = log(mean(exp(β r))) / β

    over the group. They sum to 0. For small β they are those of Dr. GRPO, r − mean; the larger β is, the more a group
    with a single good completion weighs. Groups of equal rewards have 0, as has a completion alone, for which the
    released code takes V = 0.

    Args:
        beta (`float`, *optional*, defaults to `2.0`):
            β, which the authors recommend to be 2.

    Raises:
        `ValueError`: `beta` is not positive.
    """

    beta: float = 2.0

    min_group_size_with_signal = 2

    def __post_init__(self):
        check_positive("beta", self.beta)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        below, _ = rewards_below_best(groups)  # (P, n)
        # exp(x) − 1 of x <= 0: nothing overflows, and small β lose no digits
        utility = (self.beta * below).expm1()
        mean = utility.nanmean(1, keepdim=True)
        advantages = (utility - mean) / (1 + mean) / self.beta
        return groups.unpad(advantages.nan_to_num_(nan=0.0)).to(groups.rewards.dtype)


@dataclass(frozen=True)
class FGRPO(NestedEstimator):
    """
    Any advantage times `(1 − p)^γ`, as focal loss weighs examples: F-GRPO (arXiv 2602.06717).

    p is the accuracy of the group. With γ = 0 it is the base. With γ > 0 a group that is all right has 0, even where a
    reward other than correctness tells its completions apart. A group without a judged completion keeps its
    advantages.

    Args:
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage.
        gamma (`float`, *optional*, defaults to `0.5`):
            γ: the larger, the less easy prompts count. The paper tries 0.5, 1 and 2 and takes 0.5 with GRPO.

    Raises:
        `ValueError`: `gamma` is negative or no number.
    """

    base: AdvantageEstimator = GroupRelative()
    gamma: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if self.gamma != 0:
            check_positive("gamma", self.gamma)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        factor = (1 - groups.accuracy).pow(self.gamma).nan_to_num(nan=1.0)  # (P,)
        return scale_groups(self.base(groups), factor, groups)
