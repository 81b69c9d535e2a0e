"""DARS (arXiv 2508.13755): RLVRTrainer with extra rollouts for hard prompts."""

from dataclasses import dataclass, field

from ..rollouts import DARS, RolloutAllocator
from . import papers
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


@dataclass
class DARSConfig(RLVRConfig):
    r"""
    Configuration class for the [`DARSTrainer`].

    `num_generations` is the first stage. Two defaults of TRL are replaced by the paper's: `scale_rewards="none"` and
    `loss_type="dr_grpo"`; with another `scale_rewards` the schedule is the one for standardized advantages. A loss
    that weighs every prompt the same would undo DARS; none of TRL's does so here, they are normalized over the whole
    batch. For breadth set `prompts_per_batch` (3072 in the paper) and `num_iterations` (2).

    Parameters:
        schedule (`str`, *optional*, defaults to `"hardness_weighted"`):
            `"equal_treatment"` or `"hardness_weighted"`.
        max_generations (`int`, *optional*, defaults to `32`):
            Completions of one prompt at most, the first stage included.
        zero_accuracy (`str`, *optional*, defaults to `"half"`):
            What an accuracy of 0 counts as: `"half"` a correct completion, or `"cap"` for `max_generations`.
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
    thereby weigh more.

    The same as [`RLVRTrainer`] with `rollouts=DARS(…)` of what `args`, a [`DARSConfig`], says. `advantages` may be any
    estimator, for example `PassAtK(8)`.
    """

    _tag_names = ["trl", "rlvr-trl", "dars"]
    _name = "DARS"
    _paper = papers.DARS
    _config_class = DARSConfig
