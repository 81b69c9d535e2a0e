"""Advantage estimators by name, for YAML files and the command line."""

from collections.abc import Callable
from typing import Any

from ..registry import build_by_name
from .a_grae import AGRAE, DifficultyFocused, DominantSide
from .groups import AdvantageEstimator
from .grpo import GroupRelative
from .grpo_lead import GRPOLead
from .hard_prompts import FGRPO, RSGRPO, MaxRL
from .implicit_rewards import AdaptivePassAtK, CombinedPassAtK, ExceedingPassAtK, WithoutEasy
from .leave_one_out import LeaveOneOut, ReinforcePlusPlus
from .max_at_k import PKPO, MaxAtK
from .negative import NegativeOnly, PositiveNegativeReinforce
from .pass_at_k import PassAtK
from .prompt_weight import PassRateObjective, PerPromptMean, TrainingGroup
from .rarity import UniquenessAware, Unlikeliness
from .schedule import Scheduled
from .token_level import REPO, EntropyShaped


ESTIMATORS: dict[str, Callable[..., AdvantageEstimator]] = {
    "group_relative": GroupRelative,
    "pass_at_k": PassAtK,
    "exceeding_pass_at_k": ExceedingPassAtK,
    "combined_pass_at_k": CombinedPassAtK,
    "adaptive_pass_at_k": AdaptivePassAtK,
    "without_easy": WithoutEasy,
    "scheduled": Scheduled,
    "a_grae": AGRAE,
    "dominant_side": DominantSide,
    "difficulty_focused": DifficultyFocused,
    "negative_only": NegativeOnly,
    "psr": PositiveNegativeReinforce.psr,
    "nsr": PositiveNegativeReinforce.nsr,
    "w_reinforce": PositiveNegativeReinforce.w_reinforce,
    "grpo_lead": GRPOLead,
    "per_prompt_mean": PerPromptMean,
    "pass_rate_objective": PassRateObjective,
    "training_group": TrainingGroup,
    "max_rl": MaxRL,
    "rs_grpo": RSGRPO,
    "f_grpo": FGRPO,
    "pkpo": PKPO,
    "max_at_k": MaxAtK,
    "leave_one_out": LeaveOneOut,
    "reinforce_plus_plus": ReinforcePlusPlus,
    "unlikeliness": Unlikeliness,
    "uniqueness_aware": UniquenessAware,
    "entropy_shaped": EntropyShaped,
    "repo": REPO,
}


def build_estimator(spec: str | dict[str, Any]) -> AdvantageEstimator:
    """
    Builds an advantage estimator from its name and fields, or a user's own from its dotted path.

    A field that holds an estimator is given in the same way, as deep as it goes:

        name: scheduled
        stages:
        - [0, {name: a_grae, base: {name: pass_at_k, k: 8}}]
        - [0.7, a_grae]

    Args:
        spec (`str` or `dict`):
            `"group_relative"`, `{"name": "pass_at_k", "k": 8}`, `"my_package.my_estimator"`, or as text: `"{name:
            pass_at_k, k: 8}"`. See [`~rlvr_trl.registry.build_by_name`].

    Raises:
        `ValueError`: At any level a name or a field is unknown, or a field without a default is missing; lists the
        valid ones. There is nothing at a dotted path that can be called.
    """
    nested = {"base": build_estimator, "stages": _build_stages}
    return build_by_name(spec, ESTIMATORS, "advantage estimator", nested)


def _build_stages(stages: Any) -> Any:
    if not isinstance(stages, (list, tuple)) or not all(isinstance(pair, (list, tuple)) for pair in stages):
        return stages  # refused by Scheduled, in its own words
    return [(*pair[:1], *map(build_estimator, pair[1:])) for pair in stages]
