"""Turns the rewards of a batch of groups into one advantage per completion. Pure torch: no trainer, no TRL."""

from .a_grae import AGRAE, DifficultyFocused, DominantSide
from .combine import combine_rewards
from .groups import AdvantageEstimator, CompletionTokens, PromptRecord, RolloutGroups
from .grpo import GroupRelative
from .grpo_lead import GRPOLead
from .hard_prompts import FGRPO, RSGRPO, MaxRL
from .implicit_rewards import AdaptivePassAtK, CombinedPassAtK, ExceedingPassAtK, WithoutEasy
from .leave_one_out import LeaveOneOut, ReinforcePlusPlus
from .max_at_k import PKPO, MaxAtK
from .named_estimators import ESTIMATORS, build_estimator
from .negative import NegativeOnly, PositiveNegativeReinforce
from .nesting import NestedEstimator, rows_in_loss, shape_tokens
from .pass_at_k import PassAtK
from .prompt_weight import PassRateObjective, PerPromptMean, TrainingGroup
from .rarity import UniquenessAware, Unlikeliness
from .schedule import Scheduled
from .token_level import REPO, EntropyShaped


__all__ = [
    "AGRAE",
    "ESTIMATORS",
    "FGRPO",
    "PKPO",
    "RSGRPO",
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
    "LeaveOneOut",
    "MaxAtK",
    "MaxRL",
    "NegativeOnly",
    "NestedEstimator",
    "PassAtK",
    "PassRateObjective",
    "PerPromptMean",
    "PositiveNegativeReinforce",
    "PromptRecord",
    "ReinforcePlusPlus",
    "RolloutGroups",
    "Scheduled",
    "TrainingGroup",
    "UniquenessAware",
    "Unlikeliness",
    "WithoutEasy",
    "build_estimator",
    "combine_rewards",
    "rows_in_loss",
    "shape_tokens",
]
