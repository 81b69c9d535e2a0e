"""GRPOTrainer with a replaceable advantage, a replaceable number of completions, and exact ragged batches."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin, TrainerCallback

from ..advantages import (
    AdvantageEstimator,
    CompletionTokens,
    PromptRecord,
    RolloutGroups,
    combine_rewards,
    shape_tokens,
)
from ..advantages.combine import correctness_column
from ..advantages.groups import estimate_advantages
from ..advantages.nesting import drops_rows
from ..checks import check_installed
from ..distributed import end_together, raise_together, warn_of_lone_process
from ..hub.push import PushesToHub
from ..rewards.wrappers import check_reward_packages, check_whole_groups
from ..rollouts import PromptHistory, PromptSelection, PromptSource, RolloutAllocator
from ..rollouts.allocator import BatchAllocator, RolloutBatch, as_batch_allocator
from ..trl_compat import borrow, check_attributes, check_private_parts, get_config_model_id
from . import metrics
from .batch_layout import loss_mask
from .batch_watch import BatchWatch, context_of_trainer
from .checkpoint import check_output_dir
from .fingerprint import check_names_of_changes
from .generation_progress import GenerationProgress
from .nonfinite import ChecksGradients
from .notebook_progress import show_rewards_in_notebook
from .optimizer_step import TrainsInPasses
from .passes import update_of_prompts
from .resumable_state import ResumableState
from .reward_guard import RewardGuard
from .rlvr_config import RLVRConfig
from .rollout import GenerationRecord, Reads, RecordsGeneration
from .rows import check_end_token, check_rows, check_tokens_of_prompts
from .stages import (
    BatchRows,
    Stage,
    ask_first_stage,
    ask_next_stage,
    first_stages,
    local_rows,
    merge_stages,
    view_of_batch,
    without_filler,
    without_prompts,
)
from .validation import (
    check_allocator,
    check_answers,
    check_arguments,
    check_datasets,
    check_group_size,
    check_mean_reward,
    check_passes,
    check_prompt_source,
    check_prompts_can_be_chosen,
    check_shared_prefill,
    check_shared_scoring,
    check_stop_strings_of_model,
    check_token_advantages,
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
            keeps its own rows. It may then give the tokens of these rows advantages of their own: see
            [`~rlvr_trl.advantages.AdvantageEstimator`], also for what else it may read. The default is what `args`
            describes, GRPO if they say nothing.
        rollouts ([`~rlvr_trl.rollouts.RolloutAllocator`] or [`~rlvr_trl.rollouts.BatchAllocator`], *optional*):
            Says after each stage of sampling how many more completions each prompt of the batch gets; the second kind
            also before the first, which prompts are given up and how many others come. The default is what `args`
            describes, none if they say nothing.
        selection ([`~rlvr_trl.rollouts.PromptSelection`], *optional*):
            Says which prompts come next. The default is what `args` describes, the order of the training set if they
            say nothing.

    All other arguments are those of [`~trl.GRPOTrainer`].

    Attributes:
        history ([`~rlvr_trl.rollouts.PromptHistory`], *optional*):
            What is known of each training prompt, where `selection`, `rollouts` or `prompt_history` needs it.

    Raises:
        `ValueError`: Before a model is loaded: the estimator needs larger groups than `num_generations`, `advantages`,
        `rollouts` or `selection` is given here and in `args`, a dataset is empty or smaller than one batch, an option
        cannot work with ragged batches, prompts are to be chosen from a stream, a reward that compares the completions
        of a prompt would see a part of them, `output_dir` is not shared by all processes though checkpoints go there.
        Then:
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
    _evaluated = "eval"  # prefix of the metrics of the evaluation that runs

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
        rollouts: RolloutAllocator | BatchAllocator | None = None,
        selection: PromptSelection | None = None,
    ):
        if args is None:
            model_id = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_id.split('/')[-1]}-{self._name}")
        check_arguments(
            type(self).__name__,
            self._config_class,
            args,
            advantages=advantages,
            rollouts=rollouts,
            selection=selection,
        )
        self.advantages = args.build_advantages() if advantages is None else advantages
        self.rollouts = args.build_rollouts() if rollouts is None else rollouts
        self.selection = args.build_selection() if selection is None else selection
        self._allocator = None if self.rollouts is None else as_batch_allocator(self.rollouts)
        rows_in_loss: Callable[[RolloutGroups], Tensor] | None = getattr(self.advantages, "rows_in_loss", None)
        self._rows_in_loss = rows_in_loss if drops_rows(self.advantages) else None
        self._reads = Reads.of(self.advantages)
        self._in_passes = args.trains_in_passes or self.rollouts is not None or self._rows_in_loss is not None
        needs_history = self.selection is not None or args.prompt_history is not None
        needs_history = needs_history or (self._allocator is not None and self._allocator.needs_history)
        needs_history = needs_history or self._reads.history
        needs_source = needs_history or (self._allocator is not None and self._allocator.needs_new_prompts)
        self._in_passes = self._in_passes or needs_source
        # with filler, a batch is what is left of its one stage
        self._in_stages = self.rollouts is not None or needs_source or args._prompts_of_filler > 0
        check_group_size(self.advantages, args._group_size, self.rollouts)
        num_rewards = len(reward_funcs) if isinstance(reward_funcs, list | tuple) else 1
        check_mean_reward(self.advantages, args.reward_weights or [1.0] * num_rewards)
        if args.process_index == 0:
            warn_of_no_signal(self.advantages, args._group_size, self.rollouts)
            warn_of_lone_process(args.world_size)
        if self.rollouts is not None:
            check_allocator(self.rollouts, args._group_size, args.generation_kwargs)
            check_prompt_source(train_dataset)
        if needs_source:
            check_prompts_can_be_chosen(args, train_dataset, self.rollouts)
        if self._in_passes:
            check_passes(args)
        if self._reads.tokens:
            check_token_advantages(args, self.advantages)
        check_datasets(args, train_dataset, eval_dataset)
        check_rows(args, train_dataset, eval_dataset, environment_factory is not None)
        check_names_of_changes(args.resume_with_changes, RLVRConfig)
        if processing_class is not None:
            check_end_token(processing_class)

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
        check_end_token(self._tokenizer)
        if environment_factory is None:
            check_tokens_of_prompts(train_dataset, eval_dataset, self._tokenizer)
        check_stop_strings_of_model(args, self.model)
        check_shared_prefill(args, self.model)
        check_shared_scoring(args, self.model)

        self._prompts = self._source = self.history = self._places = None
        if needs_source:
            assert isinstance(self.train_dataset, Dataset)
            self._prompts = self.train_dataset
            self._source = PromptSource(len(self._prompts), shuffle=bool(self.shuffle_dataset), seed=args.seed)
            if needs_history:
                self.history, self._places = args.build_prompt_history(self._prompts)

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
        if self._reads.answers:
            check_answers(self._correctness_reward, self.advantages)
        self._reward_guard = RewardGuard(
            self.accelerator,
            limit=args.reward_timeout or args.ddp_timeout,
            answers_of=self._correctness_reward if self._reads.answers else None,
        )
        self.reward_funcs = [
            self._reward_guard.wrap(func, name)
            for func, name in zip(self.reward_funcs, self.reward_func_names, strict=True)
        ]
        self._generation_progress = GenerationProgress(self)
        if self.use_vllm and self.vllm_mode == "colocate":
            self._generation_progress.watch_vllm(self.vllm_generation.llm)
        show_rewards_in_notebook(self)
        if self._in_passes and self.accelerator.is_main_process:
            # a source of prompts leaves none out at the end of an epoch
            print(describe_batch(args, None if needs_source else train_dataset))

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
        usual, allocator = self.num_generations, self._allocator
        rows, stages, groups = self._rows_of_batch(inputs), [], None
        room = self.args.max_extra_rollouts  # for further completions of this batch
        room = None if room is None else room + rows.count * usual
        dropped = torch.zeros(rows.count, dtype=torch.bool)  # (P,)
        if allocator is None:
            extra = torch.full((rows.count,), usual)  # (P,)
        else:
            extra = ask_first_stage(allocator, self._view(rows, None), room)
        while extra.any():
            room = None if room is None else room - int(extra.sum())
            prompts = torch.arange(len(extra)).repeat_interleave(extra)  # (E,)
            if not stages and bool((extra == usual).all()):
                stages = [self._sample_stage(1, rows.whole_groups(), prompts, usual)]
            else:
                stages.append(self._sample_stage(len(stages) + 1, rows.share(prompts), prompts, num_generations=1))
            groups = self._groups_of(stages, places=self._places_of(rows))
            if allocator is None:
                break
            asked = ask_next_stage(allocator, self._view(rows, groups, stages, dropped), room)
            extra, dropped = asked.extra, dropped | asked.drop
            if asked.new_prompts and (new := rows.more(asked.new_prompts)):
                left = None if room is None else room - int(extra.sum())
                counts = ask_first_stage(allocator, self._view(rows, None, begin=rows.count - new), left)
                extra, dropped = torch.cat([extra, counts]), torch.cat([dropped, torch.zeros(new, dtype=torch.bool)])
        if groups is None:
            raise ValueError(
                f"The rollout allocator {self.rollouts!r} gives no completion to any of {len(extra)} prompts."
            )
        batch = self._join_stages(stages, dropped, self._places_of(rows))
        if self.history is not None:  # after the estimator, which knows of earlier batches alone
            self._remember(rows, groups)
        return batch

    def _rows_of_batch(self, inputs: list[dict]) -> BatchRows:
        choose = {"selection": self.selection, "history": self.history, "places": self._places}
        return BatchRows(
            self.accelerator,
            inputs,
            prompts_per_batch(self.args),
            self.num_generations,
            dataset=self._prompts,
            source=self._source,
            choose=choose | {"progress": self._progress},
        )

    def _view(
        self,
        rows: BatchRows,
        groups: RolloutGroups | None,
        stages: Sequence[Stage] = (),
        dropped: Tensor | None = None,
        begin: int = 0,
    ) -> RolloutBatch:
        """What the allocator sees of the prompts of a batch, or of those from `begin` on."""
        batch = RolloutBatch.unsampled(rows.count - begin, self.num_generations, prompts_per_batch(self.args))
        batch = replace(batch, stage=len(stages), seed=self._seed_of_batch + len(stages), progress=self._progress)
        for stage in stages:
            batch.num_stages[stage.prompts.unique().cpu()] += 1
        if dropped is not None:
            batch = replace(batch, dropped=dropped)
        places = self._places_of(rows)
        if places is not None:
            batch = replace(batch, history=self.history, places=places[begin:])
        return batch if groups is None else view_of_batch(batch, groups, self.advantages)

    def _places_of(self, rows: BatchRows) -> np.ndarray | None:
        """Where the prompts of a batch are in the history, `(P,)`, if there is one."""
        return None if self._places is None else self._places[rows.rows]

    def _groups_of(self, stages: list[Stage], places: np.ndarray | None) -> RolloutGroups:
        prompts, history = torch.cat([stage.prompts for stage in stages]), None
        if self._reads.history and places is not None:
            history = self._record_of(places[prompts.unique().cpu().numpy()])
        return self._make_groups([stage.record for stage in stages], prompts, history)

    def _record_of(self, places: np.ndarray) -> PromptRecord:
        """What the history says of prompts, `(P,)`, as an estimator sees it."""
        history, device = self.history, self.accelerator.device
        assert history is not None
        columns = (places, history.seen[places], history.samples[places], history.correct[places])
        return PromptRecord(
            *(torch.from_numpy(column.astype(np.int64)).to(device) for column in columns),
            *(torch.from_numpy(parameter).to(device) for parameter in history.posterior(places)),
        )

    def _remember(self, rows: BatchRows, groups: RolloutGroups) -> None:
        """Writes what a batch has shown of its prompts into the history, also of those that were given up."""
        assert self.history is not None
        self._log_metrics(remember_batch(self.history, self._view(rows, groups), groups, self.state.global_step))

    def _sample_stage(self, number: int, rows: list[dict], prompts: Tensor, num_generations: int) -> Stage:
        """Samples a completion of each row; rows beyond the first `len(prompts)` of all processes are filler."""
        begin = time.perf_counter()
        with metrics.capture(self) as captured, self._generation_progress.of_stage(number):
            record = self.record_generation(rows, num_generations)
        seconds = time.perf_counter() - begin
        prompts = prompts.to(self.accelerator.device)
        return without_filler(record, prompts, captured, seconds, self.accelerator.process_index)

    def _join_stages(self, stages: list[Stage], dropped: Tensor, places: np.ndarray | None) -> dict:
        """One batch of all stages without the dropped prompts, with its advantages and metrics."""
        sampled = self._groups_of(stages, places)
        counts = [len(stage.prompts) for stage in stages]
        called = metrics.combine_metrics([stage.captured.metrics for stage in stages], counts)
        stages, kept = without_prompts(stages, dropped)
        places = None if places is None else places[kept.numpy()]
        merged = self._groups_of(stages, places)
        first = before = None
        if self.rollouts is not None:
            first = self._groups_of(first_stages(stages), places)
            before = self._estimate_advantages(first)
        advantages = self._estimate_advantages(merged)
        batch = merge_stages(self.accelerator, stages, self._tokenizer.pad_token_id)
        batch = self._with_advantages(batch, advantages, merged, local_rows(stages))
        rewards = torch.cat([stage.record.rewards_per_func for stage in stages])  # (T, F)
        truncated = torch.cat([stage.record.truncated for stage in stages])  # (T,)
        lengths = torch.cat([stage.record.lengths for stage in stages])  # (T,)
        self._log_metrics(
            called
            | metrics.completion_metrics(lengths, truncated)
            | metrics.reward_metrics(rewards, self.reward_func_names, merged, self.reward_weights)
            | metrics.group_metrics(merged)
            | metrics.advantage_metrics(advantages, merged)
        )
        self._batch_watch.see_batch(merged, advantages, rewards[:, self._correctness_column])
        if first is not None and before is not None:
            self._log_metrics(metrics.rollout_metrics(first, merged, before, advantages))
            seconds = {f"rollouts/seconds_stage_{i}": stage.seconds for i, stage in enumerate(stages, start=1)}
            self._log_metrics(seconds)
        if self.rollouts is not None or self._source is not None:
            self._log_metrics(metrics.sampling_metrics(sampled, merged, len(stages)))
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
        metrics.join_logs(
            self,
            [stage.captured.logs for stage in stages],
            [stage.rows.tolist() for stage in stages if stage.rows is not None],
            advantages.tolist(),
        )
        return batch

    @property
    def _seed_of_batch(self) -> int:
        """The same on every process, and again after a resume."""
        return self.args.seed * 2**32 + self._step

    @property
    def _progress(self) -> float:
        """Share of training done, in [0, 1]."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def _equal_groups(self, record: GenerationRecord, num_generations: int) -> Tensor:
        """Group of each completion: TRL keeps those of a prompt together, across processes. Shape `(T,)`."""
        rewards = record.rewards_per_func
        return torch.arange(len(rewards), device=rewards.device) // num_generations

    def _make_groups(
        self, records: Sequence[GenerationRecord], group_ids: Tensor, history: PromptRecord | None = None
    ) -> RolloutGroups:
        """The groups of everything sampled so far, `group_ids` of shape `(T,)` over all records."""

        def joined(name: str) -> Tensor | None:
            found = [values for record in records if (values := getattr(record, name)) is not None]
            return torch.cat(found) if found else None

        return combine_rewards(
            torch.cat([record.rewards_per_func for record in records]),
            group_ids,
            self.reward_weights,
            correctness_column=self._correctness_column,
            correctness_threshold=self.args.correctness_threshold,
            normalize=self.multi_objective_aggregation == "normalize_then_sum",
            lengths=joined("lengths"),
            truncated=joined("truncated"),
            entropies=joined("entropies"),
            log_probs=joined("log_probs"),
            answer_ids=joined("answer_ids"),
            reward_names=tuple(self.reward_func_names),
            history=history,
            seed=self._seed_of_batch,
            progress=self._progress,
        )

    def _estimate_advantages(self, groups: RolloutGroups) -> Tensor:
        return estimate_advantages(self.advantages, groups)

    def _with_advantages(self, batch: dict, advantages: Tensor, groups: RolloutGroups, rows: Tensor) -> dict:
        """
        The local batch, whose rows are `rows` among those of all processes (-1 for filler), with advantages, `in_loss`
        if the estimator drops rows, and `update` if the settings say which prompts are in one optimizer step. The
        advantages are of completions, `(B,)`, or if the estimator shapes tokens of these, `(B, C)`.
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
        if self._reads.tokens:
            scored = (rows >= 0) & groups.scored[rows]  # (B,)
            batch["advantages"] = self._advantages_of_tokens(batch, scored)  # (B, C)
        return batch

    def _advantages_of_tokens(self, batch: dict, scored: Tensor) -> Tensor:
        """
        What each token of the local batch is worth, `(B, C)`: 0 where it is not in the loss, or its completion, as
        `scored` says, has no reward. Takes what the estimator sees of the tokens out of the batch.

        Raises:
            `ValueError`: On every process: the estimator returned anything other than one finite number per token.
        """
        mask = loss_mask(batch).bool()  # (B, C)
        tokens = CompletionTokens(
            log_probs=torch.where(mask, batch.pop("token_log_probs"), 0.0),
            entropies=torch.where(mask, batch.pop("token_entropies"), 0.0),
            mask=mask,
            progress=self._progress,
        )
        shaped, error = None, None
        try:
            shaped = shape_tokens(self.advantages, batch["advantages"], tokens)
            if not isinstance(shaped, Tensor) or shaped.shape != mask.shape:
                found = tuple(shaped.shape) if isinstance(shaped, Tensor) else type(shaped).__name__
                raise ValueError(
                    f"`shape_tokens` of {self.advantages!r} must return a tensor of shape {tuple(mask.shape)}, one "
                    f"advantage per token, got {found}."
                )
            in_use = mask & scored.unsqueeze(1)
            shaped = torch.where(in_use, shaped.detach().to(mask.device), 0.0).to(batch["advantages"].dtype)
            if not shaped.isfinite().all():
                raise ValueError(
                    f"`shape_tokens` of {self.advantages!r} returned {int((~shaped.isfinite()).sum())} advantages "
                    f"that are NaN or infinite, for tokens in the loss."
                )
        except Exception as raised:  # of this process alone: the others have other rows
            error = raised
        raise_together(self.accelerator, error)
        assert shaped is not None
        return shaped

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix="eval"):
        """As in transformers; with several datasets the metrics of each have its name."""
        with borrow(self, _evaluated=metric_key_prefix):
            return super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)

    def log(self, logs, start_time=None):
        """
        As TRL's, without the metrics that have no value, which TRL logs as None. Those of one of several datasets are
        `eval_<dataset>_<metric>`, where TRL has `eval_<metric>` for all.
        """
        mode = "train" if self.model.training else "eval"
        metrics = self._metrics[mode]
        for name in [name for name, values in metrics.items() if all(map(math.isnan, values))]:
            del metrics[name]
        dataset = self._evaluated.removeprefix("eval_")
        if mode == "eval" and dataset != self._evaluated:
            for name in list(metrics):
                metrics[f"{dataset}_{name}"] = metrics.pop(name)
        super().log(logs, start_time)

    def _log_metrics(self, values: dict[str, float], mode: str = "train") -> None:
        for name, value in values.items():
            self._metrics[mode][name].append(value)


def remember_batch(history: PromptHistory, batch: RolloutBatch, groups: RolloutGroups, step: int) -> dict[str, float]:
    """
    Writes what a batch has shown of its prompts into the history. Returns metrics.

    Args:
        history ([`PromptHistory`]): is changed.
        batch ([`RolloutBatch`]): the view of what was sampled, with the places of its prompts.
        groups ([`RolloutGroups`]): what was sampled, whose `group_ids` are the prompts.
        step (`int`): optimizer steps done.
    """
    assert batch.places is not None and groups.lengths is not None
    longest = torch.zeros(len(batch), dtype=torch.long)
    longest.scatter_reduce_(0, groups.group_ids.cpu(), groups.lengths.long().cpu(), "amax")
    predicted = torch.from_numpy(history.accuracy(batch.places))
    history.update(
        batch.places,
        step=step,
        samples=batch.num_judged.numpy(),
        correct=batch.num_correct.numpy(),
        rewards=batch.reward_mean.nan_to_num().numpy(),
        lengths=(batch.num_tokens / batch.num_samples.clamp(min=1)).numpy(),
        max_lengths=longest.numpy(),
    )
    return metrics.history_metrics(history, predicted, batch)
