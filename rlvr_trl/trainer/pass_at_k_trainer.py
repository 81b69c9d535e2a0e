"""Pass@k Training (arXiv 2508.10751): RLVRTrainer with the PassAtK advantage."""

import warnings
from dataclasses import dataclass, field

from ..advantages import AdvantageEstimator, PassAtK, Scheduled
from . import papers
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


@dataclass
class PassAtKConfig(RLVRConfig):
    r"""
    Configuration class for the [`PassAtKTrainer`].

    Parameters:
        k (`int`, *optional*, defaults to `4`):
            Size of the subsets whose best reward is rewarded. Less than `num_generations`.
        method (`str`, *optional*, defaults to `"analytical"`):
            `"analytical"`, `"bootstrap"` or `"full_sampling"`, see [`~rlvr_trl.advantages.PassAtK`].
        k_schedule (`dict`, *optional*):
            Another k from some share of training on, instead of `k`: `{0: 8, 0.7: 1}` is Pass@8 and, for the last
            30 %, Pass@1. A list of pairs will do as well.
    """

    _bound = {"advantages": "`k`, `method` and `k_schedule`"}
    _VALID_DICT_FIELDS = RLVRConfig._VALID_DICT_FIELDS + ["k_schedule"]

    k: int = field(
        default=4, metadata={"help": "Size of the subsets whose best reward is rewarded. Less than `num_generations`."}
    )
    method: str = field(default="analytical", metadata={"help": "'analytical', 'bootstrap' or 'full_sampling'."})
    k_schedule: dict | str | None = field(
        default=None, metadata={"help": 'Another k from some share of training on: \'{"0": 8, "0.7": 1}\'.'}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.k_schedule is None and self.k == self.num_generations:
            warnings.warn(
                f"k={self.k} equals num_generations={self.num_generations}: a group has a single subset of that size, "
                f"so every advantage is always 0 and nothing is trained. Lower `k` or raise `num_generations`.",
                stacklevel=3,
            )

    def build_advantages(self) -> AdvantageEstimator:
        if self.k_schedule is None:
            return PassAtK(self.k, self.method)
        try:
            pairs = self.k_schedule.items() if isinstance(self.k_schedule, dict) else self.k_schedule
            return Scheduled([(float(start), PassAtK(k, self.method)) for start, k in pairs])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`k_schedule` must say which k begins at which share of training, as {{0: 8, 0.7: 1}}, got "
                f"{self.k_schedule!r}: {error}"
            ) from error


class PassAtKTrainer(RLVRTrainer):
    """
    Trainer for Pass@k Training (arXiv 2508.10751): each completion is worth what it adds to sets of k completions.

    The same as [`RLVRTrainer`] with the `PassAtK` that `args`, a [`PassAtKConfig`], says.
    """

    _tag_names = ["trl", "rlvr-trl", "pass-at-k"]
    _name = "Pass@k Training"
    _paper = papers.PASS_AT_K
    _config_class = PassAtKConfig
