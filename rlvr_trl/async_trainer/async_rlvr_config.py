"""Configuration of AsyncRLVRTrainer: everything AsyncGRPOConfig has, and what this toolkit adds."""

from dataclasses import dataclass, field

from trl.experimental.async_grpo import AsyncGRPOConfig

from ..advantages import AdvantageEstimator, GroupRelative, build_estimator
from ..checks import check_integer, check_positive
from ..trainer.method_settings import MethodSettings
from ..trainer.validation import check_group_size, check_numbers, check_prompt_history, check_server_address
from .refusals import check_allocator_per_prompt, check_estimator_of_samples


@dataclass
class AsyncRLVRConfig(MethodSettings, AsyncGRPOConfig):
    r"""
    Configuration class for the [`AsyncRLVRTrainer`], which is experimental as TRL's trainer is. The parameters of
    [`~trl.experimental.async_grpo.AsyncGRPOConfig`] work as they do there, but for those named here.

    Parameters:
        prompts_per_update (`int`, *optional*, defaults to `32`):
            Prompts of one optimizer step, on any number of processes, with all their completions. Its loss is the mean
            over all their tokens, in as many passes as they fill. Replaces `gradient_accumulation_steps`, which must
            be 1. `per_device_train_batch_size` is the number of completions in a pass where `token_budget` is 0.
        num_train_epochs (`float`, *optional*, defaults to `3.0`):
            Visits of each prompt, if `max_steps` is not set. What was sampled and not trained on does not count.
        advantages (`dict` or `str`, *optional*):
            Advantage estimator by name, as in [`RLVRConfig`]. By default `"group_relative"`, that is GRPO. It sees the
            groups of one optimizer step.
        correctness_reward (`str`, *optional*), correctness_threshold (`float`, *optional*, defaults to `0.5`):
            As in [`RLVRConfig`].
        reward_weights (`list[float]`, *optional*):
            Weight of each reward function. All 1 by default.
        rollouts (`dict` or `str`, *optional*):
            Rollout allocator by name, as in [`RLVRConfig`]: one that decides by the counts of each prompt.
        selection (`dict` or `str`, *optional*), prompt_history (`dict`, *optional*):
            As in [`RLVRConfig`]. Prompts are chosen some steps before they are trained on.
        shuffle_dataset (`bool`, *optional*, defaults to `True`):
            Whether each epoch has an order of its own.
        max_staleness (`int`, *optional*, defaults to `4`):
            Transfers of weights since the oldest completion of a group was begun, at most: updates, unless
            `weight_sync_steps` is above 1. A group that is older is dropped as a whole, and its prompt sampled again.
        max_attempts (`int`, *optional*, defaults to `2`):
            How often a prompt is sampled before it is given up because all its groups were stale. It is counted, and
            does not count as trained on.
        max_inflight_tasks (`int`, *optional*, defaults to `-1`):
            Completions that are sampled at once, at most. By default as many as `max_staleness` steps have (at least
            one step), `num_generations` for each prompt. The prompts that are in work or wait are in any case no more
            than those of `max_staleness` transfers of weights and one step, so `queue_maxsize` cannot be set.
        reward_timeout (`float`, *optional*):
            Seconds after which a reward function that has not returned ends the run. By default `ddp_timeout`.
        resume_with_changes (`list[str]`, *optional*):
            As in [`RLVRConfig`]: what may differ from the run that saved the checkpoint to resume from.
        estimate_entropies (`bool`, *optional*, defaults to `False`):
            Give estimators that read entropies the mean of −log p over the sampled tokens of a completion. Its
            expectation is the mean entropy at these tokens; it varies. Needs `temperature=1`, `top_p=1`, no `top_k`,
            no `min_p` and no `repetition_penalty`. Without it such estimators are refused.
    """

    _VALID_DICT_FIELDS = AsyncGRPOConfig._VALID_DICT_FIELDS + MethodSettings.dict_fields

    prompts_per_update: int = field(
        default=32, metadata={"help": "Prompts of one optimizer step, with all their completions."}
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Weight of each reward function. All 1 by default."}
    )
    shuffle_dataset: bool = field(default=True, metadata={"help": "Whether each epoch has an order of its own."})
    max_attempts: int = field(
        default=2,
        metadata={"help": "How often a prompt is sampled before it is given up because its groups were stale."},
    )
    reward_timeout: float | None = field(
        default=None,
        metadata={"help": "Seconds after which a reward function that has not returned ends the run."},
    )
    estimate_entropies: bool = field(
        default=False,
        metadata={"help": "Take the mean of −log p of the sampled tokens for the entropy of a completion."},
    )

    def __post_init__(self):
        self._read_dict_fields()
        super().__post_init__()
        check_server_address(self)
        for name in (
            "prompts_per_update",
            "num_generations",
            "max_attempts",
            "weight_sync_steps",
            "max_completion_length",
        ):
            check_integer(name, getattr(self, name), at_least=1)
        check_numbers(self)
        for name in ("request_timeout", "heartbeat_stale_after_s", "weight_sync_timeout"):
            check_positive(name, getattr(self, name))
        if self.token_budget is not None:
            check_integer("token_budget", self.token_budget, at_least=-1)
        if self.max_steps <= 0:
            check_positive("num_train_epochs", self.num_train_epochs)
        for name in ("save_strategy", "logging_strategy"):
            if getattr(self, name) == "epoch":
                raise ValueError(
                    f"`{name}` is 'epoch', but to transformers an asynchronous run is one epoch without an end. Set "
                    f"it to 'steps', and how many to `{name.removesuffix('_strategy')}_steps`."
                )
        if self.auto_find_batch_size:
            raise ValueError(
                "`auto_find_batch_size` begins a training again, for which an asynchronous run has no sampler left. "
                "Remove it, and lower `token_budget` if memory runs out."
            )
        check_integer("max_staleness", self.max_staleness, at_least=0)
        if self.gradient_accumulation_steps != 1:
            raise ValueError(
                f"`gradient_accumulation_steps`={self.gradient_accumulation_steps} must be 1: `prompts_per_update`="
                f"{self.prompts_per_update} says how many prompts an optimizer step has, and it takes as many passes "
                f"as they fill."
            )
        if self.queue_maxsize != AsyncGRPOConfig.queue_maxsize:
            raise ValueError(
                f"`queue_maxsize`={self.queue_maxsize} has no effect here: as many prompts are in work or wait as "
                f"`max_staleness`={self.max_staleness} and `prompts_per_update`={self.prompts_per_update} allow. "
                f"Remove it."
            )
        if self.max_inflight_tasks < 0:
            self.max_inflight_tasks = max(1, self.max_staleness) * self.prompts_per_update * self.num_generations
        check_integer("max_inflight_tasks", self.max_inflight_tasks, at_least=1)
        if self.token_budget is not None and 0 < self.token_budget <= self.max_completion_length:
            raise ValueError(
                f"`token_budget`={self.token_budget} must be above `max_completion_length`="
                f"{self.max_completion_length}, to hold one prompt and its completion."
            )
        estimator, allocator = self.build_advantages(), self.build_rollouts()
        check_group_size(estimator, self.num_generations)
        check_estimator_of_samples(estimator, self)
        if allocator is not None:
            check_allocator_per_prompt(allocator, self.num_generations)
        self.build_selection()
        check_prompt_history(self.prompt_history)

    def build_advantages(self) -> AdvantageEstimator:
        """The advantage estimator that these settings describe."""
        return GroupRelative() if self.advantages is None else build_estimator(self.advantages)
