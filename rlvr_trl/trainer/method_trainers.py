"""The named trainers: RLVRTrainer with one method of a paper, set by the fields of a configuration of its own."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..advantages import AGRAE, AdvantageEstimator, NegativeOnly, PassAtK, Scheduled
from ..hub import papers
from ..rollouts import DARS, RolloutAllocator
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


# --- DARS (arXiv 2508.13755): extra rollouts for hard prompts ---


@dataclass
class DARSConfig(RLVRConfig):
    r"""
    Configuration class for the [`DARSTrainer`].

    `num_generations` is the first stage. Two defaults of TRL are replaced by the paper's: `scale_rewards="none"` and
    `loss_type="dr_grpo"`; with another `scale_rewards` the schedule is the one for standardized advantages. A loss
    that gives every prompt the same weight would undo DARS; none of TRL's does so here, as all are normalized over the
    whole batch. For breadth set `prompts_per_batch` (3072 in the paper) and `num_iterations` (2).

    Parameters:
        schedule (`str`, *optional*, defaults to `"hardness_weighted"`):
            `"equal_treatment"` or `"hardness_weighted"`.
        max_generations (`int`, *optional*, defaults to `32`):
            Completions of one prompt at most, the first stage included.
        zero_accuracy (`str`, *optional*, defaults to `"half"`):
            At accuracy 0: count `"half"` of one completion as correct, or go to the `"cap"`, `max_generations`.
        max_generations_end (`int`, *optional*):
            With it, the cap moves from `max_generations` to this over training.
        anneal (`str`, *optional*, defaults to `"linear"`):
            How it moves, `"linear"` or `"cosine"`.
    """

    _bound = {"rollouts": "`schedule` and `max_generations`"}

    scale_rewards: str = field(default="none", metadata={"help": "As in GRPOConfig; 'none' is the paper's."})
    loss_type: str = field(default="dr_grpo", metadata={"help": "As in GRPOConfig; 'dr_grpo' is the paper's."})
    schedule: str = field(default="hardness_weighted", metadata={"help": "'equal_treatment' or 'hardness_weighted'."})
    max_generations: int = field(default=32, metadata={"help": "Completions of one prompt at most."})
    zero_accuracy: str = field(
        default="half", metadata={"help": "What accuracy 0 counts as: 'half' a correct completion, or 'cap'."}
    )
    max_generations_end: int | None = field(
        default=None, metadata={"help": "With it, the cap moves from `max_generations` to this over training."}
    )
    anneal: str = field(default="linear", metadata={"help": "How the cap moves, 'linear' or 'cosine'."})

    def build_rollouts(self) -> RolloutAllocator:
        return DARS(
            schedule=self.schedule,
            max_generations=self.max_generations,
            zero_accuracy=self.zero_accuracy,
            scale="none" if self.scale_rewards == "none" else "std",
            max_generations_end=self.max_generations_end,
            anneal=self.anneal,
        )


class DARSTrainer(RLVRTrainer):
    """
    Trainer for DARS, Difficulty Adaptive Rollout Sampling (arXiv 2508.13755): hard prompts get more completions, and
    so more weight.

    The same as [`RLVRTrainer`] with `rollouts=DARS(…)`, set by `args`, a [`DARSConfig`]. `advantages` may be any
    estimator, for example `PassAtK(4)`.
    """

    _tag_names = ["trl", "rlvr-trl", "dars"]
    _name = "DARS"
    _paper = papers.DARS
    _config_class = DARSConfig


# --- Pass@k Training (arXiv 2508.10751): the PassAtK advantage ---


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

    def build_advantages(self) -> AdvantageEstimator:
        if self.k_schedule is None:
            return PassAtK(self.k, self.method)
        try:
            pairs: Iterable[Any] = self.k_schedule.items() if isinstance(self.k_schedule, dict) else self.k_schedule
            return Scheduled([(float(start), PassAtK(k, self.method)) for start, k in pairs])
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"`k_schedule` must say which k begins at which share of training, as {{0: 8, 0.7: 1}}, got "
                f"{self.k_schedule!r}: {error}"
            ) from error


class PassAtKTrainer(RLVRTrainer):
    """
    Trainer for Pass@k Training (arXiv 2508.10751): a completion is worth what it adds to sets of k completions.

    The same as [`RLVRTrainer`] with `advantages=PassAtK(…)`, set by `args`, a [`PassAtKConfig`].
    """

    _tag_names = ["trl", "rlvr-trl", "pass-at-k"]
    _name = "Pass@k Training"
    _paper = papers.PASS_AT_K
    _config_class = PassAtKConfig


# --- A-GRAE (arXiv 2602.05548): asymmetric advantages ---


@dataclass
class AGRAEConfig(RLVRConfig):
    r"""
    Configuration class for the [`AGRAETrainer`].

    Parameters:
        base (`dict` or `str`, *optional*):
            The advantage that is reshaped, by name, as in `advantages` of [`RLVRConfig`]. By default group-relative
            with `scale_rewards`.
        alpha (`float`, *optional*, defaults to `1.0`):
            Mean reward of the batch from which positive advantages count in full.
        difficulty_shift (`bool`, *optional*, defaults to `True`):
            Whether to weight prompts by difficulty, from easy to hard as the batch gets better (Eq. 12).
        suppression (`bool`, *optional*, defaults to `True`):
            Whether to weaken positive advantages while the batch is bad (Eq. 13).
        released_code (`bool`, *optional*, defaults to `False`):
            Eq. 12 as in the code published with the paper.
        omega (`str`, *optional*, defaults to `"reward"`):
            What the weights follow: the mean `"reward"` of the batch (Eq. 11), or its `"accuracy"`.
        zero_uniform (`bool`, *optional*, defaults to `False`):
            Whether groups that are all right or all wrong get 0 from other rewards too.
    """

    _bound = {
        "advantages": "`base`, `alpha`, `difficulty_shift`, `suppression`, `released_code`, `omega` and `zero_uniform`"
    }
    _VALID_DICT_FIELDS = RLVRConfig._VALID_DICT_FIELDS + ["base"]

    base: dict | str | None = field(
        default=None, metadata={"help": "The advantage that is reshaped, by name. Group-relative by default."}
    )
    alpha: float = field(
        default=1.0, metadata={"help": "Mean reward of the batch from which positive advantages count in full."}
    )
    difficulty_shift: bool = field(default=True, metadata={"help": "Whether to weight prompts by difficulty, Eq. 12."})
    suppression: bool = field(
        default=True, metadata={"help": "Whether to weaken positive advantages while the batch is bad, Eq. 13."}
    )
    released_code: bool = field(default=False, metadata={"help": "Eq. 12 as in the published code."})
    omega: str = field(
        default="reward", metadata={"help": "What the weights follow: reward or accuracy of the batch."}
    )
    zero_uniform: bool = field(default=False, metadata={"help": "Whether groups all right or all wrong get 0."})

    def build_advantages(self) -> AdvantageEstimator:
        return AGRAE(
            base=self.build_base_advantages(self.base),
            alpha=self.alpha,
            difficulty_shift=self.difficulty_shift,
            suppression=self.suppression,
            released_code=self.released_code,
            omega=self.omega,
            zero_uniform=self.zero_uniform,
        )


class AGRAETrainer(RLVRTrainer):
    """
    Trainer for A-GRAE, Asymmetric Group Relative Advantage Estimation (arXiv 2602.05548).

    The same as [`RLVRTrainer`] with `advantages=AGRAE(…)`, set by `args`, an [`AGRAEConfig`].
    """

    _tag_names = ["trl", "rlvr-trl", "a-grae"]
    _name = "A-GRAE"
    _paper = papers.A_GRAE
    _config_class = AGRAEConfig


# --- GRPO-N and GSPO-N (arXiv 2510.04028): negative advantages alone ---


@dataclass
class NegativeGRPOConfig(RLVRConfig):
    r"""
    Configuration class for the [`NegativeGRPOTrainer`]. With `importance_sampling_level="sequence"` it is GSPO-N.

    Not negative sample reinforcement, which has no baseline (`advantages="nsr"` of [`RLVRConfig`]).

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
