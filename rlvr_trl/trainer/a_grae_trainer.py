"""A-GRAE (arXiv 2602.05548): RLVRTrainer with asymmetric advantages."""

from dataclasses import dataclass, field

from ..advantages import AGRAE, AdvantageEstimator
from . import papers
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


@dataclass
class AGRAEConfig(RLVRConfig):
    r"""
    Configuration class for the [`AGRAETrainer`].

    Parameters:
        base (`dict` or `str`, *optional*):
            The advantage that is reshaped, by name, as in `advantages` of [`RLVRConfig`]. By default group-relative
            with `scale_rewards`.
        alpha (`float`, *optional*, defaults to `1.0`):
            Accuracy of the batch from which positive advantages count in full.
        difficulty_shift (`bool`, *optional*, defaults to `True`):
            Whether to weigh prompts by difficulty, from easy to hard as the batch gets better (Eq. 12).
        suppression (`bool`, *optional*, defaults to `True`):
            Whether to weaken positive advantages while the batch is bad (Eq. 13).
        released_code (`bool`, *optional*, defaults to `False`):
            Eq. 12 as in the code published with the paper.
    """

    _bound = {"advantages": "`base`, `alpha`, `difficulty_shift`, `suppression` and `released_code`"}
    _VALID_DICT_FIELDS = RLVRConfig._VALID_DICT_FIELDS + ["base"]

    base: dict | str | None = field(
        default=None, metadata={"help": "The advantage that is reshaped, by name. Group-relative by default."}
    )
    alpha: float = field(
        default=1.0, metadata={"help": "Accuracy of the batch from which positive advantages count in full."}
    )
    difficulty_shift: bool = field(default=True, metadata={"help": "Whether to weigh prompts by difficulty, Eq. 12."})
    suppression: bool = field(
        default=True, metadata={"help": "Whether to weaken positive advantages while the batch is bad, Eq. 13."}
    )
    released_code: bool = field(default=False, metadata={"help": "Eq. 12 as in the published code."})

    def build_advantages(self) -> AdvantageEstimator:
        return AGRAE(
            base=self.build_base_advantages(self.base),
            alpha=self.alpha,
            difficulty_shift=self.difficulty_shift,
            suppression=self.suppression,
            released_code=self.released_code,
        )


class AGRAETrainer(RLVRTrainer):
    """
    Trainer for A-GRAE, Asymmetric Group Relative Advantage Estimation (arXiv 2602.05548).

    The same as [`RLVRTrainer`] with the `AGRAE` that `args`, an [`AGRAEConfig`], says.
    """

    _tag_names = ["trl", "rlvr-trl", "a-grae"]
    _name = "A-GRAE"
    _paper = papers.A_GRAE
    _config_class = AGRAEConfig
