"""GRPO-N and GSPO-N (arXiv 2510.04028): RLVRTrainer with the negative advantages alone."""

from dataclasses import dataclass, field

from ..advantages import AdvantageEstimator, NegativeOnly
from . import papers
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


@dataclass
class NegativeGRPOConfig(RLVRConfig):
    r"""
    Configuration class for the [`NegativeGRPOTrainer`]. With `importance_sampling_level="sequence"` it is GSPO-N.

    Not to be taken for negative sample reinforcement, which has no baseline (`advantages="nsr"` of [`RLVRConfig`]).

    Parameters:
        base (`dict` or `str`, *optional*):
            The advantage of which only the negative ones are kept, by name, as in `advantages` of [`RLVRConfig`]. By
            default group-relative with `scale_rewards`.
    """

    _bound = {"advantages": "`base`"}
    _VALID_DICT_FIELDS = RLVRConfig._VALID_DICT_FIELDS + ["base"]

    base: dict | str | None = field(
        default=None, metadata={"help": "The advantage of which only the negative ones are kept, by name."}
    )

    def build_advantages(self) -> AdvantageEstimator:
        return NegativeOnly(self.build_base_advantages(self.base))


class NegativeGRPOTrainer(RLVRTrainer):
    """
    Trainer for GRPO-N and GSPO-N (arXiv 2510.04028): positive advantages are set to 0, and still counted.

    The same as [`RLVRTrainer`] with `advantages=NegativeOnly(…)`. `args` is a [`NegativeGRPOConfig`].
    """

    _tag_names = ["trl", "rlvr-trl", "grpo-n"]
    _name = "GRPO-N"
    _paper = papers.TWO_STAGE
    _config_class = NegativeGRPOConfig
