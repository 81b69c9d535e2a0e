"""Pass@k Training (arXiv 2508.10751): RLVRTrainer with the PassAtK advantage."""

import textwrap
import warnings
from dataclasses import dataclass, field

from ..advantages import AdvantageEstimator, PassAtK
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


@dataclass
class PassAtKConfig(RLVRConfig):
    r"""
    Configuration class for the [`PassAtKTrainer`].

    Parameters:
        k (`int`, *optional*, defaults to `4`):
            Size of the subsets whose best reward is rewarded. Less than `num_generations`.
    """

    k: int = field(
        default=4, metadata={"help": "Size of the subsets whose best reward is rewarded. Less than `num_generations`."}
    )

    def __post_init__(self):
        super().__post_init__()
        if self.k == self.num_generations:
            warnings.warn(
                f"k={self.k} equals num_generations={self.num_generations}: a group has a single subset of that size, "
                f"so every advantage is always 0 and nothing is trained. Lower `k` or raise `num_generations`.",
                stacklevel=3,
            )

    def build_advantages(self) -> AdvantageEstimator:
        if self.advantages is not None:
            raise ValueError(
                f"PassAtKConfig takes its advantage from `k`, but `advantages` is set to {self.advantages!r}. Use "
                f"RLVRConfig to choose another."
            )
        return PassAtK(self.k)


class PassAtKTrainer(RLVRTrainer):
    """
    Trainer for Pass@k Training (arXiv 2508.10751): each completion is worth what it adds to sets of k completions.

    The same as [`RLVRTrainer`] with `advantages=PassAtK(k=args.k)`. Args as there; `args` is a [`PassAtKConfig`].
    """

    _tag_names = ["trl", "rlvr-trl", "pass-at-k"]
    _name = "Pass@k Training"
    _paper = {
        "title": "Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
        "id": "2508.10751",
        "citation": textwrap.dedent("""\
            @article{chen2025passatk,
                title        = {{Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large
                                Reasoning Models}},
                author       = {Zhipeng Chen and Xiaobo Qin and Youbin Wu and Yue Ling and Qinghao Ye and
                                Wayne Xin Zhao and Guang Shi},
                year         = 2025,
                eprint       = {arXiv:2508.10751},
            }"""),
    }
    _config_class = PassAtKConfig

    def __init__(self, model, reward_funcs=None, args: PassAtKConfig | None = None, *positional, **kwargs):
        if kwargs.get("advantages") is not None:
            raise ValueError(
                f"PassAtKTrainer takes its advantage from `args.k`, but `advantages` is {kwargs['advantages']!r}. Use "
                f"RLVRTrainer to choose another."
            )
        super().__init__(model, reward_funcs, args, *positional, **kwargs)
