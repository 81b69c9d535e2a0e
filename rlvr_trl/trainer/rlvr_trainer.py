"""GRPOTrainer with a replaceable advantage, a replaceable number of completions, and exact ragged batches."""

from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from trl.trainer.utils import get_config_model_id, unsplit_pixel_values_by_grid

from ..advantages import AdvantageEstimator, RolloutGroups, combine_rewards
from ..advantages.combine import correctness_column
from ..advantages.nesting import drops_rows
from ..rollouts import RolloutAllocator
from . import metrics
from .checkpoint import ResumableState
from .checks import (
    check_allocator,
    check_arguments,
    check_datasets,
    check_group_size,
    check_passes,
    check_prompts,
    describe_batch,
    passes_per_batch,
)
from .failures import end_together
from .hub import PushesToHub
from .microbatch import IMAGE_FIELDS, loss_mask
from .pass_training import TrainsInPasses
from .progress import GenerationProgress
from .reward_calls import RewardCalls
from .rlvr_config import RLVRConfig
from .stages import Stage, local_rows, merge_stages, sample_in_stages
from .trl_seams import check_trl
from .vllm_server import server_must_answer, wait_for_server


check_trl()


class RLVRTrainer(ResumableState, PushesToHub, TrainsInPasses):
    """
    TRL's [`~trl.GRPOTrainer`] whose advantage and number of completions are arguments.

    Every argument and option of GRPOTrainer works as it does there. Without `advantages` and `rollouts` the training
    is GRPO, to the last bit. During evaluation, which trains nothing and may use groups smaller than the estimator
    needs (`num_generations_eval`), every prompt gets as many completions, and TRL's own group-relative advantages are
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
        args=RLVRConfig("Qwen2.5-Math-1.5B-RLVR", num_generations=16),
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
        with ragged batches. Then: `correctness_reward` names no reward function.
        `ConnectionError`: A vLLM server does not answer within `vllm_server_timeout` seconds.
    """

    _tag_names = ["trl", "rlvr-trl"]
    _name = "RLVR"
    _paper = {}
    _config_class = RLVRConfig

    def __init__(
        self,
        model,
        reward_funcs=None,
        args: RLVRConfig | None = None,
        train_dataset=None,
        eval_dataset=None,
        *positional,
        advantages: AdvantageEstimator | None = None,
        rollouts: RolloutAllocator | None = None,
        **kwargs,
    ):
        if args is None:
            model_id = model if isinstance(model, str) else get_config_model_id(model.config)
            args = self._config_class(f"{model_id.split('/')[-1]}-{self._name}")
        check_arguments(type(self).__name__, self._config_class, args, advantages=advantages, rollouts=rollouts)
        self.advantages = args.build_advantages() if advantages is None else advantages
        self.rollouts = args.build_rollouts() if rollouts is None else rollouts
        self._rows_in_loss = self.advantages.rows_in_loss if drops_rows(self.advantages) else None
        self._needs_entropies = getattr(self.advantages, "needs_entropies", False)
        self._in_passes = args.trains_in_passes or self.rollouts is not None or self._rows_in_loss is not None
        check_group_size(self.advantages, args.num_generations)
        if self.rollouts is not None:
            check_allocator(self.rollouts, args.num_generations, args.generation_kwargs)
            check_prompts(train_dataset)
        if self._in_passes:
            check_passes(args)
        check_datasets(args, train_dataset, eval_dataset)

        # TRL lets vLLM run as many sequences at once as fill this many forward passes
        steps, args.steps_per_generation = args.steps_per_generation, passes_per_batch(args)
        try:
            with end_together(PartialState()):
                wait_for_server(args)
                super().__init__(model, reward_funcs, args, train_dataset, eval_dataset, *positional, **kwargs)
        finally:
            args.steps_per_generation = steps

        self._correctness_column = correctness_column(self.reward_func_names, args.correctness_reward)
        self._correctness_reward = self.reward_funcs[self._correctness_column]
        self._reward_calls = RewardCalls()
        self.reward_funcs = [
            self._reward_calls.guard(func, name)
            for func, name in zip(self.reward_funcs, self.reward_func_names, strict=True)
        ]
        self._rewards_per_func = None  # (T, F), of the last completions scored, from all processes
        self._generated = None  # token ids and tool masks of the last completions generated, this process
        self._generation_progress = GenerationProgress(self)
        if self.use_vllm and self.vllm_mode == "colocate":
            self._generation_progress.watch_vllm(self.vllm_generation.llm)
        if self._in_passes and self.accelerator.is_main_process:
            print(describe_batch(args))

    # --- sampling and scoring ---

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

    def _generate(self, prompts):
        with server_must_answer(self):
            generated = super()._generate(prompts)
        self._generated = generated[1:3]
        return generated

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        if self.use_vllm or self.use_transformers_continuous_batching:
            return super()._generate_single_turn(
                prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs
            )
        limit = self.args.max_rows_per_generation
        if limit is None:
            limit = len(prompt_ids)
        elif images is not None:
            raise ValueError(f"`max_rows_per_generation`={limit} cannot be used with images. Remove it.")
        else:
            multimodal_fields = {}
        batches = [prompt_ids[start : start + limit] for start in range(0, len(prompt_ids), limit)]
        completion_ids = []
        with self._generation_progress.watch_transformers([len(batch) for batch in batches]) as next_batch:
            for batch in batches:
                next_batch()
                completion_ids += super()._generate_single_turn(
                    batch, images, multimodal_fields, num_generations, *args, **kwargs
                )[0]
        return completion_ids, None  # transformers returns no log-probabilities

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._reward_calls.raise_together(self.accelerator)
        return self._rewards_per_func

    def _gathered_lengths(self) -> tuple[Tensor, Tensor]:
        """Length and truncation of the completions just generated, from all processes. Two of shape `(T,)`."""
        completion_ids, tool_mask = self._generated
        lengths = [len(ids) for ids in completion_ids] if tool_mask is None else [sum(mask) for mask in tool_mask]
        ends = (*self.eos_token_ids, self._tokenizer.pad_token_id)
        truncated = [ids[-1] not in ends for ids in completion_ids]
        both = torch.tensor([lengths, truncated], device=self.accelerator.device)
        return tuple(self.accelerator.gather(both.T.contiguous()).T)

    def _gathered_entropies(self, output: dict) -> Tensor | None:
        """Mean token entropy of the completions just generated, all processes, if the estimator reads it. `(T,)`."""
        if not self._needs_entropies:
            return None
        entropies, self._entropies = self._entropies, None
        if entropies is None:  # TRL needed no log-probabilities that these could come with
            ids = torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1)
            mask = torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1)
            rows, width = self.args.per_device_train_batch_size, output["completion_ids"].shape[1]
            images = unsplit_pixel_values_by_grid({name: output[name] for name in IMAGE_FIELDS if name in output})
            with torch.no_grad():
                self._get_per_token_logps_and_entropies(
                    self.model, ids, mask, width, rows, compute_entropy=True, **images
                )
            entropies, self._entropies = self._entropies, None
        mask = loss_mask(output)
        return self.accelerator.gather((entropies * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))

    def _generate_and_score_completions(self, inputs):
        if not self.model.training:
            output = super()._generate_and_score_completions(inputs)
            groups = self._groups(self._rewards_per_func, self._equal_groups(self.num_generations_eval))
            self._log_metrics(metrics.group_metrics(groups), "eval")
            return output
        if self.rollouts is not None:
            return self._generate_and_score_in_stages(inputs)
        output = super()._generate_and_score_completions(inputs)
        lengths, _ = self._gathered_lengths()
        entropies = self._gathered_entropies(output)
        groups = self._groups(self._rewards_per_func, self._equal_groups(self.num_generations), lengths, entropies)
        advantages = self._estimate_advantages(groups)  # (T,), all processes
        start = self.accelerator.process_index * len(inputs)
        self._set_advantages(output, advantages, groups, torch.arange(start, start + len(inputs)))
        self._log_metrics(metrics.group_metrics(groups) | metrics.advantage_metrics(advantages, groups))
        # TRL has appended its own advantages to the log of completions; these are the ones that train
        logged = self._logs["advantages"]
        for _ in range(len(advantages)):
            logged.pop()
        logged.extend(advantages.tolist())
        return output

    def _generate_and_score_in_stages(self, inputs) -> dict:
        stages, history = sample_in_stages(
            self, inputs, self._sample, self._stage_groups, self.rollouts, self.args.max_extra_rollouts
        )
        first, groups = history[0], history[-1]
        before, advantages = self._estimate_advantages(first), self._estimate_advantages(groups)
        output = merge_stages(self, stages)
        self._set_advantages(output, advantages, groups, local_rows(stages))

        counts = [len(stage.prompts) for stage in stages]
        rewards = torch.cat([stage.rewards_per_func for stage in stages])
        called = metrics.combine_metrics([stage.captured.metrics for stage in stages], counts)
        self._log_metrics(
            called
            | metrics.completion_metrics(groups.lengths, torch.cat([stage.truncated for stage in stages]).bool())
            | metrics.reward_metrics(rewards, self.reward_func_names, groups, self.reward_weights)
            | metrics.group_metrics(groups)
            | metrics.advantage_metrics(advantages, groups)
            | metrics.rollout_metrics(first, groups, before, advantages)
            | {f"rollouts/seconds_stage_{i}": stage.seconds for i, stage in enumerate(stages, start=1)}
        )
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]
        metrics.join_logs(self, [stage.captured.logs for stage in stages], counts, advantages.tolist())
        return output

    def _sample(self, inputs: list[dict], num_generations: int) -> dict:
        """TRL's generation and scoring, with another number of generations per prompt."""
        usual, self.num_generations = self.num_generations, num_generations
        try:
            return super()._generate_and_score_completions(inputs)
        finally:
            self.num_generations = usual

    @property
    def _progress(self) -> float:
        """Share of training done, in [0, 1]."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def _equal_groups(self, num_generations: int) -> Tensor:
        """Group of each completion: TRL keeps those of a prompt together, across processes. Shape `(T,)`."""
        rows = self._rewards_per_func
        return torch.arange(len(rows), device=rows.device) // num_generations

    def _stage_groups(self, stages: list[Stage]) -> RolloutGroups:
        columns = ["rewards_per_func", "prompts", "lengths"]
        if stages[0].entropies is not None:
            columns.append("entropies")
        return self._groups(*(torch.cat([getattr(stage, column) for stage in stages]) for column in columns))

    def _groups(
        self,
        rewards_per_func: Tensor,
        group_ids: Tensor,
        lengths: Tensor | None = None,
        entropies: Tensor | None = None,
    ) -> RolloutGroups:
        return combine_rewards(
            rewards_per_func,
            group_ids,
            self.reward_weights,
            correctness_column=self._correctness_column,
            correctness_threshold=self.args.correctness_threshold,
            normalize=self.multi_objective_aggregation == "normalize_then_sum",
            lengths=lengths,
            entropies=entropies,
            seed=self.args.seed * 2**32 + self._step,  # the same on every process, and again after a resume
            progress=self._progress,
        )

    def _estimate_advantages(self, groups: RolloutGroups) -> Tensor:
        """
        What each completion is worth. Shape `(T,)`.

        Raises:
            `ValueError`: The estimator returned something else than one finite number per completion.
        """
        advantages = self.advantages(groups)
        if not isinstance(advantages, Tensor) or advantages.shape != groups.rewards.shape:
            found = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
            raise ValueError(
                f"The advantage estimator {self.advantages!r} must return a tensor of shape "
                f"{tuple(groups.rewards.shape)}, one advantage per completion, got {found}."
            )
        advantages = torch.where(groups.scored, advantages.detach(), 0.0).to(groups.rewards.dtype)
        if not advantages.isfinite().all():
            raise ValueError(
                f"The advantage estimator {self.advantages!r} returned {int((~advantages.isfinite()).sum())} "
                f"advantages that are NaN or infinite, for completions that have a reward."
            )
        return advantages

    def _set_advantages(self, output: dict, advantages: Tensor, groups: RolloutGroups, rows: Tensor) -> None:
        """Gives the local batch its `rows` of the advantages of all processes, and says which are in the loss."""
        rows = rows.to(advantages.device)
        output["advantages"] = advantages[rows]  # (B,)
        if self._rows_in_loss is not None:
            output["in_loss"] = self._rows_in_loss(groups)[rows]
            tokens = (loss_mask(output) * output["in_loss"].unsqueeze(1)).sum()
            output["num_items_in_batch"] = self.accelerator.gather(tokens).sum()

    def _log_metrics(self, values: dict[str, float], mode: str = "train") -> None:
        for name, value in values.items():
            self._metrics[mode][name].append(value)
