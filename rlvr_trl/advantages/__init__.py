"""Turns the rewards of a batch of groups into one advantage per completion. Pure torch: no trainer, no TRL."""

from .a_grae import AGRAE, DifficultyFocused, DominantSide
from .combine import combine_rewards
from .groups import AdvantageEstimator, CompletionTokens, PromptRecord, RolloutGroups
from .grpo import GroupRelative
from .grpo_lead import GRPOLead
from .implicit_rewards import AdaptivePassAtK, CombinedPassAtK, ExceedingPassAtK, WithoutEasy
from .named_estimators import ESTIMATORS, build_estimator
from .negative import NegativeOnly, PositiveNegativeReinforce
from .nesting import NestedEstimator, rows_in_loss, shape_tokens
from .pass_at_k import PassAtK
from .rarity import UniquenessAware, Unlikeliness
from .schedule import Scheduled
from .token_level import REPO, EntropyShaped


__all__ = [
    "AGRAE",
    "ESTIMATORS",
    "REPO",
    "AdaptivePassAtK",
    "AdvantageEstimator",
    "CombinedPassAtK",
    "CompletionTokens",
    "DifficultyFocused",
    "DominantSide",
    "EntropyShaped",
    "ExceedingPassAtK",
    "GRPOLead",
    "GroupRelative",
    "NegativeOnly",
    "NestedEstimator",
    "PassAtK",
    "PositiveNegativeReinforce",
    "PromptRecord",
    "RolloutGroups",
    "Scheduled",
    "UniquenessAware",
    "Unlikeliness",
    "WithoutEasy",
    "build_estimator",
    "combine_rewards",
    "rows_in_loss",
    "shape_tokens",
]
