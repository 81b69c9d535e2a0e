"""Configuration of RLVRTrainer: everything GRPOConfig has, and what each completion is worth."""

from dataclasses import dataclass, field

from trl import GRPOConfig

from ..advantages import AdvantageEstimator, GroupRelative, build_estimator


def check_group_size(estimator: AdvantageEstimator, num_generations: int) -> None:
    """
    Refuses an estimator that cannot work on groups of `num_generations` completions.

    Raises:
        `ValueError`: The estimator's `min_group_size` is larger; names both numbers.
    """
    needed = getattr(estimator, "min_group_size", 1)
    if needed > num_generations:
        raise ValueError(
            f"{estimator!r} needs groups of at least {needed} completions, but `num_generations` is "
            f"{num_generations}. Raise `num_generations` to {needed} or more, or lower k."
        )


@dataclass
class RLVRConfig(GRPOConfig):
    r"""
    Configuration class for the [`RLVRTrainer`]. Every parameter of [`~trl.GRPOConfig`] works as it does there.

    Parameters:
        advantages (`dict` or `str`, *optional*):
            Advantage estimator by name, for YAML files and the command line: `"group_relative"` or
            `{"name": "pass_at_k", "k": 8}`. By default group-relative with TRL's `scale_rewards`, that is GRPO.
        correctness_reward (`str`, *optional*):
            Name of the reward function that says which completions are correct. The first one by default.
        correctness_threshold (`float`, *optional*, defaults to `0.5`):
            A completion is correct when the reward of that function is above this.
    """

    _VALID_DICT_FIELDS = GRPOConfig._VALID_DICT_FIELDS + ["advantages"]

    advantages: dict | str | None = field(
        default=None,
        metadata={
            "help": "Advantage estimator by name, for example 'group_relative', or a dict with its name and fields. "
            "Group-relative with `scale_rewards` by default, that is GRPO."
        },
    )
    correctness_reward: str | None = field(
        default=None,
        metadata={
            "help": "Name of the reward function that says which completions are correct. The first by default."
        },
    )
    correctness_threshold: float = field(
        default=0.5,
        metadata={"help": "A completion is correct when the reward of `correctness_reward` is above this."},
    )

    def __post_init__(self):
        super().__post_init__()
        check_group_size(self.build_advantages(), self.num_generations)

    def build_advantages(self) -> AdvantageEstimator:
        """The advantage estimator that these settings describe."""
        if self.advantages is not None:
            return build_estimator(self.advantages)
        # normalize_then_sum has standardized within the groups already; TRL ends it with the batch's deviation
        return GroupRelative(
            "batch" if self.multi_objective_aggregation == "normalize_then_sum" else self.scale_rewards
        )
