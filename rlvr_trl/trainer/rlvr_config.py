"""Configuration of RLVRTrainer: everything GRPOConfig has, and what this toolkit adds."""

import math
from dataclasses import dataclass, field

from trl import GRPOConfig

from ..advantages import AdvantageEstimator, GroupRelative, build_estimator
from ..hub.published import check_hub_files
from ..trl_compat import borrow
from .method_settings import MethodSettings
from .validation import (
    check_allocator,
    check_breadth,
    check_generation,
    check_group_size,
    check_numbers,
    check_passes,
    check_prompt_history,
    check_server_address,
)


@dataclass
class RLVRConfig(MethodSettings, GRPOConfig):
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
        rollouts (`dict` or `str`, *optional*):
            Rollout allocator by name, `{"name": "dars", "schedule": "hardness_weighted", "max_generations": 32}`. By
            default every prompt gets `num_generations` completions.
        max_extra_rollouts (`int`, *optional*):
            Budget: completions of one batch beyond `num_generations` for each of its prompts, over all processes and
            stages, at most. The hardest prompts are served first.
        selection (`dict` or `str`, *optional*):
            Which prompts come next, by name: `{"name": "skip_solved", "threshold": 0.9}`. By default they come in the
            order of the training set.
        prompt_history (`dict`, *optional*):
            How prompts are known and remembered: `ids` and `pools`, names of columns; `start_from`, a file that
            [`~rlvr_trl.rollouts.PromptHistory.read`] reads; `discount`, `pool_discount` and `prior_strength` of
            [`~rlvr_trl.rollouts.PromptHistory`]. `{}` for a history that is kept and not used. By default there is one
            where `selection` or `rollouts` needs it, and a prompt is known by its text.
        prompts_per_batch (`int`, *optional*):
            Breadth: prompts of one batch, on any number of processes. All their completions are trained on, in as many
            forward passes of `per_device_train_batch_size` rows as it takes. Replaces `gradient_accumulation_steps`,
            `steps_per_generation` and `generation_batch_size`.
        prompts_per_update (`int`, *optional*):
            Mini-batch: prompts of one optimizer step, with all their completions. A batch takes
            `prompts_per_batch / prompts_per_update` steps, rounded up, whose numbers of prompts differ by at most one,
            and all of them `num_iterations` times. By default the whole batch is one step.
        trim_padding (`bool`, *optional*, defaults to `False`):
            Sort the completions of an optimizer step by length, and trim every forward pass to its own longest.
            Faster with completions of different length; equal to TRL up to the rounding of sums, not to the last bit.
            Always on with `rollouts`, `prompts_per_batch` or `max_tokens_per_micro_batch`.
        max_tokens_per_micro_batch (`int`, *optional*):
            Most tokens of one forward pass, prompts and padding included. The limit of `per_device_train_batch_size`
            rows still holds.
        max_rows_per_generation (`int`, *optional*):
            Most completions that transformers generates at once on each process. By default all of the batch, as in
            TRL; with thousands of prompts their cache may not fit in memory. Refused with vLLM and continuous
            batching, which do their own scheduling.
        share_prompt_prefill (`bool`, *optional*, defaults to `False`):
            Read a prompt once for all its completions that transformers generates at once, and not once for each.
            Faster with long prompts and many completions; the same completions but for rounding and dropout, so not to
            the last bit. For models of text with a dynamic cache. Refused with vLLM, which caches prefixes itself,
            with continuous batching, and with another cache.
        share_prompt_scoring (`bool`, *optional*, defaults to `False`):
            Read a prompt once for all its completions in each pass that scores them: for the old and the reference
            log-probabilities and for the loss. Faster where prompts are long beside their completions; the same
            gradient but for rounding and dropout. For causal models of text with attention alone. Refused with
            gradient checkpointing, which keeps no cache, with `use_liger_kernel` and with an auxiliary loss.
        reward_timeout (`float`, *optional*):
            Seconds after which a reward function that has not returned ends the run, on all processes. By default
            `ddp_timeout`, after which other processes would no longer wait for its rewards.
        resume_with_changes (`list[str]`, *optional*):
            What may differ from the run that saved the checkpoint to resume from, by name: `["learning_rate"]`. The
            values of now are used. By default a difference in anything that decides the run is an error that lists it.
        hub_files (`list[str]`, *optional*):
            Patterns of files in `output_dir` that a push publishes besides model, tokenizer and card, such as
            `["training_args.bin", "completions/*.parquet"]`.
    """

    _VALID_DICT_FIELDS = GRPOConfig._VALID_DICT_FIELDS + MethodSettings.dict_fields

    max_extra_rollouts: int | None = field(
        default=None, metadata={"help": "Extra completions of one batch at most, the hardest prompts first."}
    )
    prompts_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "Prompts of one batch, on any number of processes. Replaces `gradient_accumulation_steps`, "
            "`steps_per_generation` and `generation_batch_size`."
        },
    )
    prompts_per_update: int | None = field(
        default=None,
        metadata={"help": "Prompts of one optimizer step, with all their completions. By default the whole batch."},
    )
    trim_padding: bool = field(
        default=False,
        metadata={"help": "Sort completions by length and trim every forward pass to its own longest."},
    )
    max_tokens_per_micro_batch: int | None = field(
        default=None, metadata={"help": "Tokens that one forward pass computes at most, padding included."}
    )
    max_rows_per_generation: int | None = field(
        default=None, metadata={"help": "Completions that transformers generates at once on each process, at most."}
    )
    share_prompt_prefill: bool = field(
        default=False,
        metadata={"help": "Read a prompt once for all its completions that transformers generates at once."},
    )
    share_prompt_scoring: bool = field(
        default=False,
        metadata={"help": "Read a prompt once for all its completions that go through the model together."},
    )
    reward_timeout: float | None = field(
        default=None,
        metadata={"help": "Seconds after which a reward function that has not returned ends the run."},
    )
    hub_files: list[str] | None = field(
        default=None,
        metadata={"help": "Patterns of files in output_dir to push besides model, tokenizer and card."},
    )

    def __post_init__(self):
        check_breadth(self)
        check_server_address(self)
        self._read_dict_fields()
        if self.prompts_per_batch is None:
            super().__post_init__()
        else:
            names = ("gradient_accumulation_steps", "steps_per_generation", "generation_batch_size")
            given = {name: getattr(self, name) for name in names}
            self.steps_per_generation = self.generation_batch_size = None
            # TRL wants whole groups in every micro-batch of a process; here only the batch has to hold whole groups
            with borrow(self, per_device_train_batch_size=self.prompts_per_batch * self._group_size):
                super().__post_init__()
            self._replace_batch_split(given)
        for name, fields in self._bound.items():
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{type(self).__name__} makes its {name} from {fields}, but `{name}` is set to "
                    f"{getattr(self, name)!r}. Use RLVRConfig to choose another."
                )
        advantages = self.build_advantages()
        allocator = self.build_rollouts()
        check_group_size(advantages, self._group_size, allocator)
        if allocator is not None:
            check_allocator(allocator, self._group_size, self.generation_kwargs)
        self.build_selection()
        check_prompt_history(self.prompt_history)
        if self.max_extra_rollouts is not None and self.max_extra_rollouts < 0:
            raise ValueError(f"`max_extra_rollouts` must not be negative, got {self.max_extra_rollouts}.")
        if self.trains_in_passes:
            check_passes(self)
        check_generation(self)
        check_numbers(self)
        check_hub_files(self.hub_files)

    def _replace_batch_split(self, given: dict[str, int | None]):
        """`prompts_per_batch` replaces TRL's three ways to say how large a batch is. They must not contradict it."""
        needed = {
            "gradient_accumulation_steps": 1,
            "steps_per_generation": self._updates_per_batch,
            "generation_batch_size": self._prompts_sampled * self._group_size,
        }
        for name, value in needed.items():
            if given[name] not in (None, value):
                raise ValueError(
                    f"`prompts_per_batch`={self.prompts_per_batch} says how large a batch is, and "
                    f"`prompts_per_update` what one optimizer step takes of it; do not set `{name}`, which is "
                    f"{given[name]}."
                )
            setattr(self, name, value)

    @property
    def trains_in_passes(self) -> bool:
        """Whether batches are split anew into passes of similar length, instead of by TRL."""
        return (
            self.trim_padding
            or self.prompts_per_batch is not None
            or self.max_tokens_per_micro_batch is not None
            or self.build_rollouts() is not None
            or self.selection is not None
            or self.prompt_history is not None
        )

    # TRL annotates these as optional, but its `__post_init__` sets them to numbers

    @property
    def _group_size(self) -> int:
        """`num_generations`, completions of one prompt in the first stage."""
        assert self.num_generations is not None
        return self.num_generations

    @property
    def _rows_per_batch(self) -> int:
        """`generation_batch_size`, completions of one generation batch, all processes."""
        assert self.generation_batch_size is not None
        return self.generation_batch_size

    @property
    def _calls_per_batch(self) -> int:
        """`steps_per_generation`, how often TRL calls `training_step` on one generation batch."""
        assert self.steps_per_generation is not None
        return self.steps_per_generation

    @property
    def _updates_per_batch(self) -> int:
        """Optimizer steps that one pass over a batch takes; 1 also where one step takes several batches."""
        if self.prompts_per_batch is None:
            return max(1, self._calls_per_batch // self.gradient_accumulation_steps)
        return math.ceil(self.prompts_per_batch / (self.prompts_per_update or self.prompts_per_batch))

    @property
    def _prompts_sampled(self) -> int:
        """Prompts whose completions are sampled for one batch: those of the batch, and filler at the end of them."""
        if self.prompts_per_batch is None:
            return self._rows_per_batch // self._group_size
        # the fewest whole groups that are equally many completions on every process
        unit = self.world_size // math.gcd(self.world_size, self._group_size)
        return math.ceil(self.prompts_per_batch / unit) * unit

    @property
    def _prompts_of_filler(self) -> int:
        """Prompts of one call of generation that are no part of the batch. Their completions are dropped."""
        return 0 if self.prompts_per_batch is None else self._prompts_sampled - self.prompts_per_batch

    def build_advantages(self) -> AdvantageEstimator:
        """The advantage estimator that these settings describe."""
        return self.build_base_advantages(self.advantages)

    def build_base_advantages(self, spec: dict | str | None) -> AdvantageEstimator:
        """The estimator of that name, or by default the one that TRL's settings describe."""
        if spec is not None:
            return build_estimator(spec)
        # normalize_then_sum has standardized within the groups already; TRL ends it with the batch's deviation
        scale = "batch" if self.multi_objective_aggregation == "normalize_then_sum" else self.scale_rewards
        return GroupRelative(scale)
