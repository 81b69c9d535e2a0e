"""Group-relative advantages: GRPO and Dr. GRPO.

`A_i = (r_i − mean(r)) / (std(r) + eps)` over the group (arXiv 2402.03300, §4.1.2), and without the division
Dr. GRPO (arXiv 2503.20783, §3.2). The standard deviation is that of a sample (ddof 1) and `eps` is 1e-4, as in TRL, so
that these are TRL's own advantages to the last bit. A group of equal rewards gives no signal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_choice, check_not_negative
from .groups import RolloutGroups


_SCALES = ("group", "batch", "none")


def _nanstd(values: Tensor, dim: int | None = None) -> Tensor:
    # The operations of trl.trainer.utils.nanstd in its order: another order would differ in the last bit.
    mean = torch.nanmean(values, dim=dim, keepdim=True)
    variance = torch.nanmean((values - mean) ** 2, dim=dim, keepdim=True)
    count = torch.sum(~torch.isnan(values), dim=dim, keepdim=True).to(values.dtype)
    correction = torch.where(count > 1, count / (count - 1), torch.nan)
    return torch.sqrt(variance * correction)


@dataclass(frozen=True)
class GroupRelative:
    """
    Reward minus the mean of its group, with or without division by a standard deviation.

    Args:
        scale (`str`, *optional*, defaults to `"group"`):
            `"group"` divides by the standard deviation of the group (GRPO), `"batch"` by that of the whole batch,
            `"none"` does not divide (Dr. GRPO). The same words as TRL's `scale_rewards`.
        eps (`float`, *optional*, defaults to `1e-4`):
            Added to the standard deviation.

    Raises:
        `ValueError`: `scale` is none of these, or `eps` is negative.
    """

    scale: str = "group"
    eps: float = 1e-4

    min_group_size_with_signal = 2  # a completion alone is its own mean

    def __post_init__(self):
        check_choice("scale", self.scale, _SCALES)
        check_not_negative("eps", self.eps)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        dtype = torch.promote_types(groups.rewards.dtype, torch.float32)  # half precision is too coarse for a mean
        rewards = groups.pad(groups.rewards.to(dtype), torch.nan)  # (P, n)
        advantages = rewards - torch.nanmean(rewards, dim=1, keepdim=True)
        if self.scale == "group":
            advantages = advantages / (_nanstd(rewards, dim=1) + self.eps)
        elif self.scale == "batch":
            advantages = advantages / (_nanstd(groups.rewards.to(dtype)) + self.eps)
        # NaN: an unscored completion, or a group too small to have a standard deviation
        return groups.unpad(torch.nan_to_num(advantages, nan=0.0)).to(groups.rewards.dtype)
