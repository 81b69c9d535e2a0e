"""GRPOTrainer with a replaceable advantage, a replaceable number of completions, and exact ragged batches."""

import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

from ..advantages import AdvantageEstimator, RolloutGroups, combine_rewards
from ..advantages.combine import correctness_column
from ..advantages.nesting import drops_rows
from ..checks import check_installed
from ..distributed import end_together, warn_of_lone_process
from ..hub.push import PushesToHub
from ..rewards.wrappers import check_reward_packages, check_whole_groups
from ..rollouts import RolloutAllocator
from ..trl_compat import borrow, check_attributes, check_private_parts, get_config_model_id
from . import metrics
from .batch_layout import loss_mask
from .batch_watch import BatchWatch, context_of_trainer
from .checkpoint import ResumableState, check_output_dir
from .generation_progress import GenerationProgress
from .nonfinite import ChecksGradients
from .notebook_progress import show_rewards_in_notebook
from .optimizer_step import TrainsInPasses
from .passes import update_of_prompts
from .reward_guard import RewardGuard
from .rlvr_config import RLVRConfig
from .rollout import GenerationRecord, RecordsGeneration
from .stages import Stage, ask_allocator, extra_rows, local_rows, merge_stages, without_filler
from .validation import (
    check_allocator,
    check_arguments,
    check_datasets,
    check_group_size,
    check_mean_reward,
    check_passes,
    check_prompt_source,
    check_shared_prefill,
    check_shared_scoring,
    describe_batch,
    passes_per_batch,
    prompts_per_batch,
    warn_of_no_signal,
)
from .vllm_watchdog import wait_for_server


if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import BitsAndBytesConfig

RewardFunc = str | PreTrainedModel | Callable[..., Any]  # its rewards, or a coroutine of them
EvalDataset = Dataset | IterableDataset | DatasetDict | IterableDatasetDict | dict[str, Dataset | IterableDataset]


class RLVRTrainer(ResumableState, PushesToHub, TrainsInPasses, RecordsGeneration):
    """
    TRL's [`~trl.GRPOTrainer`] whose advantage and number of completions are arguments.

    Every argument and option of GRPOTrainer works as it does there. Without `advantages` and `rollouts` the training
    is GRPO, to the last bit. During evaluation, which trains nothing and may use groups smaller than the estimator
    needs (`num_generations_eval`), no prompt gets extra completions, and TRL's own group-relative advantages are
    used and logged.

    ```python
    from datasets import load_dataset
    from rlvr_trl import RLVRConfig, RLVRTrainer
    from rlvr_trl.advantages import PassAtK
    from rlvr_trl.rollouts import DARS
    from trl.rewards import accuracy_reward

    trainer = RLVRTrainer(
        model="Qwen/Qwen2.5-Math-1.5B",
        reward_funcs=accuracy_reward,
        args=RLVRConfig("Qwen2.5-Math-1.5B-RLVR", num_generations=16, prompts_per_batch=64),
        train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
        advantages=PassAtK(k=8),
        rollouts=DARS("hardness_weighted", max_generations=32),
    )
    trainer.train()
    ```

    Args:
        args ([`RLVRConfig`], *optional*):
            Configuration of the trainer. Not a plain `GRPOConfig`.
        advantages (`Callable[[RolloutGroups], Tensor]`, *optional*):
            Turns the rewards of a batch of groups into one advantage per completion, shape `(T,)` in the same order.
            It sees the whole batch, gathered from all processes, and must be deterministic: every process calls it and
            keeps its own rows. The default is what `args` describes, GRPO if they say nothing.
        rollouts ([`~rlvr_trl.rollouts.RolloutAllocator`], *optional*):
            Says after each stage of sampling how many more completions each prompt of the batch gets. The default is
            what `args` describes, none if they say nothing.

    All other arguments are those of [`~trl.GRPOTrainer`].

    Raises:
        `ValueError`: Before a model is loaded: the estimator needs larger groups than `num_generations`, `advantages`
        or `rollouts` is given here and in `args`, a dataset is empty or smaller than one batch, an option cannot work
        with ragged batches, a reward that compares the completions of a prompt would see a part of them, `output_dir`
        is not shared by all processes though checkpoints go there. Then:
        `correctness_reward` names no reward function.
        `TypeError`: `args` is not of the trainer's configuration class; `advantages` or `rollouts` cannot be called.
        `ImportError`: TRL, or another library, lacks something that this package relies on, or a package is missing
        that a reward function or vLLM needs.
        `ConnectionError`: A vLLM server does not answer within `vllm_server_timeout` seconds.
    """

    _tag_names = ["trl", "rlvr-trl"]
    _name = "RLVR"
    _paper = {}
    _config_class = RLVRConfig

    def __init__(
        self,
        model: "str | PreTrainedModel | PeftModel",
        reward_funcs: RewardFunc | list[RewardFunc] | None = None,
        args: RLVRConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: EvalDataset | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        reward_processing_classes: PreTrainedTokenizerBase | list[PreTrainedTokenizerBase] | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        quantization_config: "BitsAndBytesConfig | None" = None,
        peft_config: "PeftConfig | None" = None,
        tools: list[Callable] | None = None,
        rollout_func: Callable[..., dict[str, Any]] | None = None,
        environment_factory: Callable[[], Any] | dict[str, Callable[[], Any]] | None = None,
        *,
        advantages: AdvantageEstimator | None = None,
        rollouts: RolloutAllocator | None = None,
    ):
        if args is None:
            model_id = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_id.split('/')[-1]}-{self._name}")
        check_arguments(type(self).__name__, self._config_class, args, advantages=advantages, rollouts=rollouts)
        self.advantages = args.build_advantages() if advantages is None else advantages
        self.rollouts = args.build_rollouts() if rollouts is None else rollouts
        rows_in_loss: Callable[[RolloutGroups], Tensor] | None = getattr(self.advantages, "rows_in_loss", None)
        self._rows_in_loss = rows_in_loss if drops_rows(self.advantages) else None
        self._needs_entropies = getattr(self.advantages, "needs_entropies", False)
        self._in_passes = args.trains_in_passes or self.rollouts is not None or self._rows_in_loss is not None
        # with filler, a batch is what is left of its one stage
        self._in_stages = self.rollouts is not None or args._prompts_of_filler > 0
        check_group_size(self.advantages, args._group_size)
        num_rewards = len(reward_funcs) if isinstance(reward_funcs, list | tuple) else 1
        check_mean_reward(self.advantages, args.reward_weights or [1.0] * num_rewards)
        if args.process_index == 0:
            warn_of_no_signal(self.advantages, args._group_size, self.rollouts)
            warn_of_lone_process(args.world_size)
        if self.rollouts is not None:
            check_allocator(self.rollouts, args._group_size, args.generation_kwargs)
            check_prompt_source(train_dataset)
        if self._in_passes:
            check_passes(args)
        check_datasets(args, train_dataset, eval_dataset)

        check_reward_packages(reward_funcs)
        check_whole_groups(reward_funcs, args._rows_per_batch // args.world_size, args._group_size)
        if args.use_vllm:
            check_installed("use_vllm=True", "vllm")
            if args.vllm_mode == "colocate":
                check_private_parts("vllm")

        # TRL lets vLLM run as many sequences at once as fill this many forward passes
        passes = borrow(args, steps_per_generation=passes_per_batch(args))
        with passes, end_together(PartialState()):
            check_output_dir(args)
            wait_for_server(args)
            super().__init__(
                model=model,
                reward_funcs=reward_funcs,
                args=args,
                train_dataset=train_dataset,
                eval_dataset=eval_dataset,
                processing_class=processing_class,
                reward_processing_classes=reward_processing_classes,
                callbacks=[*(callbacks or []), ChecksGradients(self)],
                optimizers=optimizers,
                quantization_config=quantization_config,
                peft_config=peft_config,
                tools=tools,
                rollout_func=rollout_func,
                environment_factory=environment_factory,
            )
        check_attributes(self)
        check_shared_prefill(args, self.model)
        check_shared_scoring(args, self.model)

        self._correctness_column = correctness_column(self.reward_func_names, args.correctness_reward)
        self._correctness_reward = self.reward_funcs[self._correctness_column]
        self._batch_watch = BatchWatch(
            correctness_reward=self.reward_func_names[self._correctness_column],
            correctness_threshold=args.correctness_threshold,
            advantages=self.advantages,
            context=context_of_trainer(self),
            max_completion_length=args.max_completion_length,
            bos_token_id=self._tokenizer.bos_token_id,
            is_main=self.accelerator.is_main_process,
        )
        self._reward_guard = RewardGuard()
        self.reward_funcs = [
            self._reward_guard.wrap(func, name)
            for func, name in zip(self.reward_funcs, self.reward_func_names, strict=True)
        ]
        self._generation_progress = GenerationProgress(self)
        if self.use_vllm and self.vllm_mode == "colocate":
            self._generation_progress.watch_vllm(self.vllm_generation.llm)
        show_rewards_in_notebook(self)
        if self._in_passes and self.accelerator.is_main_process:
            print(describe_batch(args, train_dataset))

    @property
    def logged_completions(self) -> dict[str, Any]:
        """
        What was logged of the last batch: plain lists with one entry per completion of all processes, in the same
        order. `"prompt"`, `"completion"` and `"advantages"` are such lists, `"rewards"` holds one per reward function,
        `"extra"` one per column that a reward function logged, and `"images"` is empty where no prompt has images.
        """
        logs = self._logs
        return {
            "prompt": list(logs["prompt"]),
            "completion": list(logs["completion"]),
            "rewards": {name: list(rewards) for name, rewards in logs["rewards"].items()},
            "advantages": list(logs["advantages"]),
            "extra": {column: list(values) for column, values in logs["extra"].items()},
            "images": list(logs["images"]),
        }

    # --- one batch, from prompts to advantages: docs/one_step.md ---

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            record = self.record_generation(inputs)
            groups = self._make_groups([record], self._equal_groups(record, self.num_generations_eval))
            self._log_metrics(metrics.group_metrics(groups), "eval")
            return record.batch
        return self._generate_in_stages(inputs) if self._in_stages else self._generate_and_score_once(inputs)

    def _generate_and_score_once(self, inputs: list[dict]) -> dict:
        record = self.record_generation(inputs)
        groups = self._make_groups([record], self._equal_groups(record, self.num_generations))
        advantages = self._estimate_advantages(groups)  # (T,), all processes
        start = self.accelerator.process_index * len(inputs)
        batch = self._with_advantages(record.batch, advantages, groups, torch.arange(start, start + len(inputs)))
        self._log_metrics(metrics.group_metrics(groups) | metrics.advantage_metrics(advantages, groups))
        self._batch_watch.see_batch(groups, advantages, record.rewards_per_func[:, self._correctness_column])
        # TRL has appended its own advantages to the log of completions; these are the ones that train
        logged = self._logs["advantages"]
        for _ in range(len(advantages)):
            logged.pop()
        logged.extend(advantages.tolist())
        return batch

    def _generate_in_stages(self, inputs: list[dict]) -> dict:
        rows = [dict(row) for row in inputs]  # scoring may write into its rows
        num_rows = prompts_per_batch(self.args) * self.num_generations  # those after them are filler
        prompts = torch.arange(num_rows, device=self.accelerator.device) // self.num_generations  # (T,)
        stages, history = [self._sample_stage(1, inputs, prompts, self.num_generations)], []
        budget = self.args.max_extra_rollouts
        if self.rollouts is not None:
            self.rollouts.start_batch(self._progress)
        while True:
            prompts = torch.cat([stage.prompts for stage in stages])  # (T,)
            groups = self._make_groups([stage.record for stage in stages], prompts)
            history.append(groups)
            if self.rollouts is None:
                break
            extra = ask_allocator(self.rollouts, len(stages), groups, budget)  # (P,)
            if not extra.any():
                break
            if budget is not None:
                budget -= int(extra.sum())
            prompts = torch.arange(len(extra), device=extra.device).repeat_interleave(extra)  # (E,)
            share = extra_rows(self.accelerator, rows, self.num_generations, prompts)
            stages.append(self._sample_stage(len(stages) + 1, share, prompts, num_generations=1))
        return self._join_stages(stages, first=history[0], merged=history[-1])

    def _sample_stage(self, number: int, rows: list[dict], prompts: Tensor, num_generations: int) -> Stage:
        """Samples a completion of each row; rows beyond the first `len(prompts)` of all processes are filler."""
        begin = time.perf_counter()
        with metrics.capture(self) as captured, self._generation_progress.of_stage(number):
            record = self.record_generation(rows, num_generations)
        seconds = time.perf_counter() - begin
        return without_filler(record, prompts, captured, seconds, self.accelerator.process_index)

    def _join_stages(self, stages: list[Stage], first: RolloutGroups, merged: RolloutGroups) -> dict:
        """One batch of all stages, with its advantages and metrics. `first` are the groups after the first stage."""
        before = None if self.rollouts is None else self._estimate_advantages(first)
        advantages = self._estimate_advantages(merged)
        batch = merge_stages(self.accelerator, stages, self._tokenizer.pad_token_id)
        batch = self._with_advantages(batch, advantages, merged, local_rows(stages))
        counts = [len(stage.prompts) for stage in stages]
        rewards = torch.cat([stage.record.rewards_per_func for stage in stages])  # (T, F)
        truncated = torch.cat([stage.record.truncated for stage in stages])  # (T,)
        lengths = torch.cat([stage.record.lengths for stage in stages])  # (T,)
        called = metrics.combine_metrics([stage.captured.metrics for stage in stages], counts)
        self._log_metrics(
            called
            | metrics.completion_metrics(lengths, truncated)
            | metrics.reward_metrics(rewards, self.reward_func_names, merged, self.reward_weights)
            | metrics.group_metrics(merged)
            | metrics.advantage_metrics(advantages, merged)
        )
        self._batch_watch.see_batch(merged, advantages, rewards[:, self._correctness_column])
        if before is not None:
            self._log_metrics(metrics.rollout_metrics(first, merged, before, advantages))
            seconds = {f"rollouts/seconds_stage_{i}": stage.seconds for i, stage in enumerate(stages, start=1)}
            self._log_metrics(seconds)
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
        metrics.join_logs(self, [stage.captured.logs for stage in stages], counts, advantages.tolist())
        return batch

    @property
    def _progress(self) -> float:
        """Share of training done, in [0, 1]."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def _equal_groups(self, record: GenerationRecord, num_generations: int) -> Tensor:
        """Group of each completion: TRL keeps those of a prompt together, across processes. Shape `(T,)`."""
        rewards = record.rewards_per_func
        return torch.arange(len(rewards), device=rewards.device) // num_generations

    def _make_groups(self, records: Sequence[GenerationRecord], group_ids: Tensor) -> RolloutGroups:
        """The groups of everything sampled so far, `group_ids` of shape `(T,)` over all records."""
        entropies = [record.entropies for record in records if record.entropies is not None]
        return combine_rewards(
            torch.cat([record.rewards_per_func for record in records]),
            group_ids,
            self.reward_weights,
            correctness_column=self._correctness_column,
            correctness_threshold=self.args.correctness_threshold,
            normalize=self.multi_objective_aggregation == "normalize_then_sum",
            lengths=torch.cat([record.lengths for record in records]),
            entropies=torch.cat(entropies) if entropies else None,
            seed=self.args.seed * 2**32 + self._step,  # the same on every process, and again after a resume
            progress=self._progress,
        )

    def _estimate_advantages(self, groups: RolloutGroups) -> Tensor:
        """
        What each completion is worth. Shape `(T,)`.

        Raises:
            `ValueError`: The estimator returned anything other than one finite number per completion.
        """
        advantages = self.advantages(groups)
        if not isinstance(advantages, Tensor) or advantages.shape != groups.rewards.shape:
            found = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
            raise ValueError(
                f"The advantage estimator {self.advantages!r} must return a tensor of shape "
                f"{tuple(groups.rewards.shape)}, one advantage per completion, got {found}."
            )
        advantages = advantages.detach().to(groups.rewards.device)
        advantages = torch.where(groups.scored, advantages, 0.0).to(groups.rewards.dtype)
        if not advantages.isfinite().all():
            raise ValueError(
                f"The advantage estimator {self.advantages!r} returned {int((~advantages.isfinite()).sum())} "
                f"advantages that are NaN or infinite, for completions that have a reward."
            )
        return advantages

    def _with_advantages(self, batch: dict, advantages: Tensor, groups: RolloutGroups, rows: Tensor) -> dict:
        """
        The local batch, whose rows are `rows` among those of all processes (-1 for filler), with advantages, `in_loss`
        if the estimator drops rows, and `update` if the settings say which prompts are in one optimizer step.
        """
        rows = rows.to(advantages.device)
        batch = batch | {"advantages": torch.where(rows < 0, 0.0, advantages[rows])}  # (B,)
        if self.args.prompts_per_batch is not None:
            prompts = torch.where(rows < 0, -1, groups.group_ids[rows])  # (B,)
            batch["update"] = update_of_prompts(prompts, self.args._updates_per_batch)  # (B,)
        if self._rows_in_loss is not None:
            in_loss = self._rows_in_loss(groups).to(rows.device)[rows]  # (B,)
            tokens = (loss_mask(batch) * in_loss.unsqueeze(1)).sum()
            batch |= {"in_loss": in_loss, "num_items_in_batch": self.accelerator.gather(tokens).sum()}
        return batch

    def log(self, logs, start_time=None):
        """As TRL's, without the metrics that have no value, which TRL logs as None."""
        metrics = self._metrics["train" if self.model.training else "eval"]
        for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
            del metrics[name]
        super().log(logs, start_time)

    def _log_metrics(self, values: dict[str, float], mode: str = "train") -> None:
        for name, value in values.items():
            self._metrics[mode][name].append(value)
