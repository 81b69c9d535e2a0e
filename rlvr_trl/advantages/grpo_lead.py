"""GRPO-LEAD (arXiv 2504.09696): advantages weighted by difficulty. Its length reward is in `rewards/wrappers.py`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .nesting import NestedEstimator, scale_groups


@dataclass(frozen=True)
class GRPOLead(NestedEstimator):
    """
    Right answers count more on hard prompts, wrong ones more on easy prompts (arXiv 2504.09696).

        w(x) = 0.4 + 1.1 / (1 + exp(10 (x − 0.75)))         A > 0:  A · w(ρ)      else:  A · w(1 − ρ)

    w falls from 1.5 to 0.48 as x goes from 0 to 1. ρ is the share of the scored completions with a reward above 0: not
    the accuracy, and 0 or 1 do not make the advantage 0.

    Args:
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage.
    """

    base: AdvantageEstimator = GroupRelative()

    def __call__(self, groups: RolloutGroups) -> Tensor:
        advantages = self.base(groups)
        dtype = torch.promote_types(advantages.dtype, torch.float32)
        rho = groups.sum((groups.rewards > 0).to(dtype)) / groups.num_scored.clamp(min=1)  # (P,)
        return torch.where(
            advantages > 0,
            scale_groups(advantages, _weight(rho), groups),
            scale_groups(advantages, _weight(1 - rho), groups),
        )


def _weight(x: Tensor) -> Tensor:
    return 0.4 + 1.1 / (1 + torch.exp(10 * (x - 0.75)))
