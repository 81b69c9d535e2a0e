"""Rewards of a batch of groups to one advantage per completion. Pure torch: no trainer, no TRL."""

from .combine import combine_rewards
from .config import ESTIMATORS, build_estimator
from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .pass_at_k import PassAtK


__all__ = [
    "ESTIMATORS",
    "AdvantageEstimator",
    "GroupRelative",
    "PassAtK",
    "RolloutGroups",
    "build_estimator",
    "combine_rewards",
]
