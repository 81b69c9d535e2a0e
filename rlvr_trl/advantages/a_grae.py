"""A-GRAE (Asymmetric Group Relative Advantage Estimation, arXiv 2602.05548) and its control groups.

With p the accuracy of a group over the completions that could be judged, and ω the mean reward of the batch (Eq. 11):

    Eq. 12   A = (ω/2) · A₀ / sqrt(p) + ((1 − ω)/2) · A₀ / sqrt(1 − p)      focus shifts to hard prompts as ω grows
    Eq. 13   A > 0:  A · min(1, ω/α)                                        positives count less while ω is low

A group with p = 0 or p = 1 is not rescaled, as the paper says where Eq. 12 is printed: with the reward of correctness
alone its advantages are 0 in any case, and another reward keeps what it gives. Nor is one without a judged completion,
whose p is unknown. In a batch without a scored completion, all advantages stay as they are.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_boolean, check_choice, check_positive
from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .nesting import NestedEstimator, scale_groups


OMEGAS = ("reward", "accuracy")


def _where_mixed(factor: Tensor, p: Tensor, zero_uniform: bool) -> Tensor:
    """`factor` for groups with right and wrong completions, 1 (or 0) for p of 0 or 1, 1 where unknown. `(P,)`."""
    uniform = (p == 0) | (p == 1)
    return factor.masked_fill(uniform, 0.0 if zero_uniform else 1.0).nan_to_num(nan=1.0)


@dataclass(frozen=True)
class AGRAE(NestedEstimator):
    """
    Asymmetric advantages: the focus shifts to hard prompts as the batch gets better; until then positives count less.

    arXiv 2602.05548, Eq. 12 and 13, on top of any advantage.

    Args:
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            A₀: GRPO, Dr. GRPO, or any other.
        alpha (`float`, *optional*, defaults to `1.0`):
            α, the ω from which positives count in full. 1 for mathematics, 0.5 for multimodal tasks.
        difficulty_shift (`bool`, *optional*, defaults to `True`):
            Whether to apply Eq. 12.
        suppression (`bool`, *optional*, defaults to `True`):
            Whether to apply Eq. 13, to the result of Eq. 12.
        released_code (`bool`, *optional*, defaults to `False`):
            Whether to divide by `1 − sqrt(p)`, as the published code does, where Eq. 12 has `sqrt(1 − p)`.
        omega (`str`, *optional*, defaults to `"reward"`):
            `"reward"`: ω is the mean reward of the batch, Eq. 11, which must stay from 0 to 1. `"accuracy"`: the share
            of its judged completions that are correct, whatever other rewards there are.
        zero_uniform (`bool`, *optional*, defaults to `False`):
            Whether groups that are all right or all wrong get 0, even if a reward other than correctness tells their
            completions apart. The paper does not rescale them.

    Raises:
        `ValueError`: `alpha` is not positive, `omega` is neither of the two, or `released_code` is set without
        `difficulty_shift`. When called: the mean reward is below 0 or above 1.
    """

    base: AdvantageEstimator = GroupRelative()
    alpha: float = 1.0
    difficulty_shift: bool = True
    suppression: bool = True
    released_code: bool = False
    omega: str = "reward"
    zero_uniform: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_choice("omega", self.omega, OMEGAS)
        for name in ("difficulty_shift", "suppression", "released_code", "zero_uniform"):
            check_boolean(name, getattr(self, name))
        if self.released_code and not self.difficulty_shift:
            raise ValueError("`released_code` changes Eq. 12 only, but `difficulty_shift` is False. Set it to True.")

    @property
    def min_group_size_with_signal(self) -> int:
        return max(super().min_group_size_with_signal, 2 if self.difficulty_shift and self.zero_uniform else 1)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        advantages = self.base(groups)
        p = groups.accuracy  # (P,)
        omega = self._omega(groups).to(p.dtype)  # NaN where nothing counts
        factor = torch.ones_like(p)
        if self.difficulty_shift:
            hard = 1 - p.sqrt() if self.released_code else (1 - p).sqrt()
            factor = _where_mixed(omega / 2 / p.sqrt() + (1 - omega) / 2 / hard, p, self.zero_uniform)
        attenuation = (omega / self.alpha).clamp(max=1.0).nan_to_num(nan=1.0) if self.suppression else 1.0
        positive = factor * attenuation
        return torch.where(
            advantages > 0, scale_groups(advantages, positive, groups), scale_groups(advantages, factor, groups)
        )

    def _omega(self, groups: RolloutGroups) -> Tensor:
        if self.omega == "accuracy":
            return groups.num_correct.sum() / groups.num_judged.sum()
        omega = groups.rewards[groups.scored].mean()
        if omega < 0 or omega > 1:
            raise ValueError(
                "A-GRAE weighs by the mean reward of the batch, which must be from 0 to 1, and is "
                f"{omega.item():.4g}. Give rewards and `reward_weights` that keep it there, or set `omega` to "
                f"'accuracy'."
            )
        return omega


@dataclass(frozen=True)
class DominantSide(NestedEstimator):
    """
    Positive advantages times β: the control groups of arXiv 2602.05548.

    `beta=10` is positive-dominant; `beta=0.1`, which is `A / β` for a β of 10, is negative-dominant.

    Args:
        beta (`float`, *optional*, defaults to `10.0`):
            Factor on the positive advantages.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage.

    Raises:
        `ValueError`: `beta` is not positive.
    """

    beta: float = 10.0
    base: AdvantageEstimator = GroupRelative()

    def __post_init__(self):
        super().__post_init__()
        check_positive("beta", self.beta)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        advantages = self.base(groups)
        return torch.where(advantages > 0, advantages * self.beta, advantages)


@dataclass(frozen=True)
class DifficultyFocused(NestedEstimator):
    """
    Advantages that always favour hard or easy prompts: `γ · A / sqrt(p)` or `γ · A / sqrt(1 − p)`.

    The other control groups of arXiv 2602.05548.

    Args:
        focus (`str`, *optional*, defaults to `"hard"`):
            `"hard"` divides by `sqrt(p)`, `"easy"` by `sqrt(1 − p)`.
        gamma (`float`, *optional*, defaults to `0.5`):
            γ.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage.
        zero_uniform (`bool`, *optional*, defaults to `False`):
            As in [`AGRAE`].

    Raises:
        `ValueError`: `focus` is neither of the two, or `gamma` is not positive.
    """

    focus: str = "hard"
    gamma: float = 0.5
    base: AdvantageEstimator = GroupRelative()
    zero_uniform: bool = False

    def __post_init__(self):
        super().__post_init__()
        check_choice("focus", self.focus, ("hard", "easy"))
        check_positive("gamma", self.gamma)
        check_boolean("zero_uniform", self.zero_uniform)

    @property
    def min_group_size_with_signal(self) -> int:
        return max(super().min_group_size_with_signal, 2 if self.zero_uniform else 1)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        p = groups.accuracy  # (P,)
        share = p if self.focus == "hard" else 1 - p
        return scale_groups(self.base(groups), _where_mixed(self.gamma / share.sqrt(), p, self.zero_uniform), groups)
