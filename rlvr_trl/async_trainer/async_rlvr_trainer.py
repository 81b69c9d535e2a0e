"""TRL's AsyncGRPOTrainer with a replaceable advantage and a replaceable number of completions, whole groups a step."""

import copy
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import send_to_device, slice_tensors
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState
from trl.experimental.async_grpo import AsyncGRPOTrainer

from ..advantages import AdvantageEstimator, RolloutGroups, combine_rewards
from ..advantages.combine import correctness_column
from ..advantages.groups import estimate_advantages
from ..advantages.nesting import rows_in_loss
from ..distributed import Processes
from ..manifest import TRAINER_STATE
from ..rewards.wrappers import check_reward_packages
from ..rollouts import PromptHistory, PromptSelection, PromptSource, RolloutAllocator
from ..rollouts.allocator import RolloutBatch
from ..trainer import metrics
from ..trainer.batch_watch import BatchWatch
from ..trainer.checkpoint import WholeCheckpoints, state_file, strategy_of
from ..trainer.fingerprint import check_names_of_changes, describe_run
from ..trainer.nonfinite import ChecksGradients, check_loss
from ..trainer.optimizer_step import TrainsInPasses
from ..trainer.resumable_state import load_history, save_history
from ..trainer.rlvr_trainer import remember_batch
from ..trainer.rows import check_end_token, check_room_for_completions, check_rows, check_tokens_of_prompts
from ..trainer.stages import view_of_batch
from ..trainer.validation import check_arguments, check_group_size, check_mean_reward, warn_of_no_signal
from ..trl_compat import ASYNC_GRPO, borrow, check_attributes, print_prompt_completions_sample
from .async_rlvr_config import AsyncRLVRConfig
from .exchange import PromptGroup, Sampling
from .packed_step import pack_passes, plan_packed_passes, samples_of
from .prompt_feed import PromptFeed
from .prompt_worker import PromptWorker
from .refusals import (
    check_allocator_per_prompt,
    check_estimator_of_samples,
    check_is_dataset,
    check_picklable,
    check_reward_functions,
)


if TYPE_CHECKING:
    from peft import PeftConfig


class AsyncRLVRTrainer(WholeCheckpoints, AsyncGRPOTrainer):
    """
    TRL's experimental [`~trl.experimental.async_grpo.AsyncGRPOTrainer`] whose advantage and number of completions are
    arguments, and whose optimizer step is a number of whole prompts. Experimental, as TRL's is.

    A vLLM server samples without a pause, each prompt on its own: as soon as its completions are there they are
    scored, and `rollouts` may ask for more of them. The training takes whole groups, those first that were begun with
    the oldest weights. `docs/asynchronous.md` says when this pays.

    ```python
    from datasets import load_dataset
    from rlvr_trl import AsyncRLVRConfig, AsyncRLVRTrainer
    from rlvr_trl.advantages import PassAtK
    from rlvr_trl.rollouts import DARS
    from trl.rewards import accuracy_reward

    trainer = AsyncRLVRTrainer(
        model="Qwen/Qwen2.5-Math-1.5B",
        reward_funcs=accuracy_reward,
        args=AsyncRLVRConfig("Qwen2.5-Math-1.5B-async", num_generations=16, prompts_per_update=64, max_staleness=2),
        train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
        advantages=PassAtK(k=8),
        rollouts=DARS("hardness_weighted", max_generations=32),
    )
    trainer.train()
    ```

    Args:
        model (`str`):
            Name or folder of the model, as in TRL.
        reward_funcs (`Callable` or `list[Callable]`):
            Functions that can be pickled: they are called in the process that samples, which has no GPU. They get all
            completions of one stage of a prompt.
        args ([`AsyncRLVRConfig`], *optional*):
            Configuration of the trainer. Not a plain `AsyncGRPOConfig`.
        train_dataset (`Dataset`):
            Prompts, texts or conversations. Not a stream.
        advantages (`Callable[[RolloutGroups], Tensor]`, *optional*):
            As in [`RLVRTrainer`]. It sees the groups of one optimizer step, on the first process alone.
        rollouts ([`~rlvr_trl.rollouts.RolloutAllocator`], *optional*):
            As in [`RLVRTrainer`], but asked for one prompt at a time, with tensors of shape `(1,)`, in the process
            that samples. `start_batch` is called before each question.
        selection ([`~rlvr_trl.rollouts.PromptSelection`], *optional*):
            As in [`RLVRTrainer`]. Chooses the prompts of a step at once.
        processing_class, callbacks, optimizers, peft_config, tools, weight_transfer:
            As in TRL.

    Attributes:
        history ([`~rlvr_trl.rollouts.PromptHistory`], *optional*):
            What is known of each training prompt, where `selection` or `prompt_history` needs it; on the first
            process.

    Raises:
        `ValueError`: Before a model is loaded: the estimator needs larger groups or reads what a server does not
        report, the allocator decides from a whole batch, something is given here and in `args`, the training set is a
        stream or empty, or something that the other process needs cannot be pickled.
        `TypeError`: `args` is not an [`AsyncRLVRConfig`]; `advantages`, `rollouts` or `selection` cannot be called.
        `ImportError`: TRL lacks something that this package relies on, or vLLM or a package of a reward function is
        missing.
    """

    _tag_names = ["trl", "rlvr-trl", "async"]
    _name = "AsyncRLVR"
    _paper = {}
    _config_class = AsyncRLVRConfig
    _worker_class = PromptWorker
    _compared_config = AsyncRLVRConfig

    args: AsyncRLVRConfig
    history: PromptHistory | None
    _feed: PromptFeed | None  # on the first process
    # TRL annotates these with what they are before training, or on another process
    rollout_worker: Any
    vllm_client: Any
    _rollout_dataset: Any
    processing_class: Any

    def __init__(
        self,
        model: str,
        reward_funcs: Callable[..., Any] | list[Callable[..., Any]],
        args: AsyncRLVRConfig | None = None,
        train_dataset: Dataset | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[torch.optim.Optimizer | None, torch.optim.lr_scheduler.LambdaLR | None] = (None, None),
        peft_config: "PeftConfig | None" = None,
        tools: list[Callable] | None = None,
        weight_transfer: Any = None,
        *,
        advantages: AdvantageEstimator | None = None,
        rollouts: RolloutAllocator | None = None,
        selection: PromptSelection | None = None,
    ):
        if args is None:
            args = self._config_class(f"{model.split('/')[-1]}-{self._name}")
        given = {"advantages": advantages, "rollouts": rollouts, "selection": selection}
        check_arguments(type(self).__name__, self._config_class, args, **given)
        self.advantages = args.build_advantages() if advantages is None else advantages
        self.rollouts = args.build_rollouts() if rollouts is None else rollouts
        self.selection = args.build_selection() if selection is None else selection
        reward_funcs = list(reward_funcs) if isinstance(reward_funcs, list | tuple) else [reward_funcs]
        self.reward_func_names = check_reward_functions(reward_funcs, args.reward_weights)
        self.reward_weights = torch.tensor(args.reward_weights or [1.0] * len(reward_funcs))
        self._correctness_column = correctness_column(self.reward_func_names, args.correctness_reward)
        check_group_size(self.advantages, args.num_generations)
        check_mean_reward(self.advantages, self.reward_weights.tolist())
        check_estimator_of_samples(self.advantages, args)
        if self.rollouts is not None:
            check_allocator_per_prompt(self.rollouts, args.num_generations)
        train_dataset = check_is_dataset(train_dataset)
        with borrow(args, remove_unused_columns=False):  # TRL's worker gives all of them to reward functions
            check_rows(args, train_dataset, None, False)
        num_rows = len(train_dataset)
        check_names_of_changes(args.resume_with_changes, AsyncRLVRConfig, ["prompts_per_update"])
        check_reward_packages(reward_funcs)
        check_picklable(reward_funcs=reward_funcs, tools=tools or [], rollouts=self.rollouts)
        self._worker_class.check_packages()
        if PartialState().is_main_process:
            warn_of_no_signal(self.advantages, args.num_generations, self.rollouts)

        self._num_visits: int | None = None  # of all epochs
        if args.max_steps <= 0:  # steps hold a known number of prompts, so that TRL need not count
            self._num_visits = math.ceil(args.num_train_epochs * num_rows)
            args = copy.copy(args)  # which may be those of another run, too
            args.max_steps = math.ceil(self._num_visits / args.prompts_per_update)
        sampling = Sampling(
            num_generations=args.num_generations,
            rollouts=self.rollouts,
            correctness_column=self._correctness_column,
            correctness_threshold=args.correctness_threshold,
            reward_timeout=args.reward_timeout or args.ddp_timeout,
            orders_ahead=math.ceil(args.max_inflight_tasks / args.num_generations),
        )
        worker = functools.partial(self._worker_class, sampling=sampling)
        with borrow(sys.modules[ASYNC_GRPO], AsyncRolloutWorker=worker):
            super().__init__(
                model=model,
                reward_funcs=reward_funcs,
                args=args,
                train_dataset=train_dataset,
                processing_class=processing_class,
                callbacks=[*(callbacks or []), ChecksGradients(self), _CountsEpochs(self)],
                optimizers=optimizers,
                peft_config=peft_config,
                tools=tools,
                weight_transfer=weight_transfer,
            )
        check_attributes(self, f"{ASYNC_GRPO}:AsyncGRPOTrainer")
        check_end_token(self.processing_class)
        check_tokens_of_prompts(train_dataset, None, self.processing_class)
        check_room_for_completions(args, train_dataset, self.processing_class, tools or [])
        self.history = self._places = self._feed = None
        self._in_step: list[int] = []  # tickets of the step in training
        self._latest: tuple[list[PromptGroup], Tensor, Tensor] | None = None  # groups, rewards, advantages
        self._has_trained = False
        self._saved_step = 0
        self._given = {"reward_funcs": reward_funcs, "train_dataset": train_dataset, "tools": tools or []}
        self._num_rows = num_rows
        self._batch_watch = BatchWatch(
            correctness_reward=self.reward_func_names[self._correctness_column],
            correctness_threshold=args.correctness_threshold,
            advantages=self.advantages,
            context=None,  # a server refuses what is too long for it
            max_completion_length=args.max_completion_length,
            bos_token_id=None,
            is_main=self.accelerator.is_main_process,
        )
        if self.accelerator.is_main_process:
            if self.selection is not None or args.prompt_history is not None:
                self.history, self._places = args.build_prompt_history(train_dataset)
            self._feed = self._make_feed()

    def _make_feed(self) -> PromptFeed:
        return PromptFeed(
            self.rollout_worker.rollout_buffer,
            PromptSource(self._num_rows, shuffle=self.args.shuffle_dataset, seed=self.args.seed),
            num_prompts=self.args.prompts_per_update,
            seed=self.args.seed,
            max_open=(self.args.max_staleness * self.args.weight_sync_steps + 1) * self.args.prompts_per_update,
            max_attempts=self.args.max_attempts,
            num_visits=self._num_visits,
            selection=self.selection,
            history=self.history,
            places=self._places,
        )

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        """
        As in transformers, from the start or from a checkpoint, once for each trainer.

        A resumed run knows which prompts were trained on, and samples those again that were in work or waited.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): a checkpoint, or True for the last complete one.

        Raises:
            `ConnectionError`: The server has not answered for `vllm_server_timeout` seconds.
            `RuntimeError`: The process that samples has failed or died, with the cause if it has left one; a
            checkpoint could not be written; or this trainer has trained before.
            `ValueError`: The checkpoint is missing, incomplete, of a synchronous trainer, or of a run with other
            settings than `resume_with_changes` admits.
        """
        if self._has_trained:
            raise RuntimeError("This trainer has trained before, and its sampler is gone. Build another one to go on.")
        self._has_trained = True
        is_main = self.accelerator.is_main_process
        watch = self.rollout_worker.watch_server(self.args.vllm_server_timeout, self.accelerator) if is_main else None
        try:
            with watch or nullcontext():
                return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            if self._feed is not None:
                self._feed.close()

    # --- one optimizer step, from prompts to gradient ---

    def get_train_dataloader(self) -> Any:
        if self.args.token_budget is None and self.accelerator.is_main_process:  # as in TRL
            self.vllm_client.wait_for_server_ready()
            self.args.token_budget = self.vllm_client.get_max_model_len()
        self._rollout_dataset = _Steps(self)
        return self._rollout_dataset

    def _next_step(self) -> dict[str, Any] | None:
        """The passes of this process for the next optimizer step; None if there is no prompt left."""
        processes, passes = Processes(PartialState()), None
        with processes.agreed("sampling an optimizer step"):
            if processes.is_main:
                passes = self._sample_step()
        passes = processes.broadcast(passes)
        if passes is None:
            self.control.should_training_stop = True
            # before `max_steps` where prompts were given up, so that transformers does not save the last step
            is_saved = self._saved_step == self.state.global_step
            self.control.should_save = self.args.save_strategy == "steps" and not is_saved
            return None
        own = [slice_tensors(one, slice(processes.index, processes.index + 1)) for one in passes]
        own = send_to_device(own, self.accelerator.device)
        # transformers counts the tokens of `input_ids`
        return {"passes": own, "input_ids": torch.cat([one["input_ids"][one["attention_mask"] > 0] for one in own])}

    def _sample_step(self) -> list[dict[str, Tensor]] | None:
        """Waits for the groups of a step, and packs them for all processes. On the first process."""
        feed, budget, begin = self._feed, self.args.token_budget, time.perf_counter()
        assert feed is not None and budget is not None
        self._check_sampler()
        with feed.lock:
            feed.progress = self._progress
        feed.start()
        groups = feed.take(self.model_version, self.args.max_staleness, self._check_sampler)
        self._rollout_dataset.wait_s += time.perf_counter() - begin
        self._log_metrics(feed.count_stale())
        if not groups:
            return None
        advantages, in_loss = self._estimate_step(groups)
        samples = samples_of(groups, advantages.tolist(), in_loss.tolist())
        if not samples:  # the estimator leaves all out of the loss; the step is one without a gradient
            samples = samples_of(groups, [0.0] * len(advantages), [True] * len(advantages))[:1]
        if not samples:
            raise ValueError("No completion of an optimizer step has a token. Does the server report `token_ids`?")
        self._in_step = [group.order.ticket for group in groups]
        passes = plan_packed_passes(
            samples,
            self.accelerator.num_processes,
            max_tokens=budget,
            max_samples=self.args.per_device_train_batch_size,
        )
        return pack_passes(
            passes,
            int(sum(sample["completion_mask"].sum() for sample in samples)),
            pad_token_id=self.processing_class.pad_token_id,
            max_tokens=budget,
            metrics=self._metrics["train"],
        )

    def _check_sampler(self) -> None:
        self.rollout_worker.check_health(self.args.heartbeat_stale_after_s)

    def _estimate_step(self, groups: list[PromptGroup]) -> tuple[Tensor, Tensor]:
        """Advantages of all completions of a step, and whether each is in the loss. Two of shape `(T,)`."""
        rewards = torch.from_numpy(np.concatenate([group.rewards_per_func for group in groups]))  # (T, F)
        sizes = torch.tensor([len(group) for group in groups])
        ids = torch.arange(len(groups)).repeat_interleave(sizes)  # (T,)
        lengths = torch.from_numpy(np.concatenate([group.lengths for group in groups]))  # (T,)
        truncated = torch.from_numpy(np.concatenate([group.truncated for group in groups]))  # (T,)
        entropies = torch.tensor(sampled_entropies(groups)) if self.args.estimate_entropies else None  # (T,)

        def combined(rows: Tensor) -> RolloutGroups:
            return combine_rewards(
                rewards[rows],
                ids[rows],
                self.reward_weights,
                correctness_column=self._correctness_column,
                correctness_threshold=self.args.correctness_threshold,
                lengths=lengths[rows],
                truncated=truncated[rows],
                reward_names=tuple(self.reward_func_names),
                entropies=None if entropies is None else entropies[rows],
                seed=self.args.seed * 2**32 + self.state.global_step,
                progress=self._progress,
            )

        merged = combined(torch.arange(len(ids)))
        advantages = estimate_advantages(self.advantages, merged)
        in_loss = rows_in_loss(self.advantages, merged)
        self._log_metrics(
            metrics.reward_metrics(rewards, self.reward_func_names, merged, self.reward_weights)
            | metrics.group_metrics(merged)
            | metrics.advantage_metrics(advantages, merged)
            | self._staleness_of(groups)
        )
        self._batch_watch.see_batch(merged, advantages, rewards[:, self._correctness_column])
        if self.rollouts is not None:
            stages = torch.from_numpy(np.concatenate([group.stages for group in groups]))  # (T,)
            first = combined((stages == 1).nonzero().flatten())
            before = estimate_advantages(self.advantages, first)
            self._log_metrics(metrics.rollout_metrics(first, merged, before, advantages))
        if self.history is not None:
            self._remember_step(groups, merged)
        if self.args.log_completions:
            self._latest = groups, rewards, advantages
        return advantages, in_loss

    def _staleness_of(self, groups: list[PromptGroup]) -> dict[str, float]:
        staleness = [self.model_version - group.model_version for group in groups]
        now = time.time()
        return {
            "sample/staleness_mean": sum(staleness) / len(staleness),
            "sample/staleness_max": float(max(staleness)),
            "sample/time_in_queue_s": sum(now - group.enqueued_at for group in groups) / len(groups),
        }

    def _remember_step(self, groups: list[PromptGroup], merged: RolloutGroups) -> None:
        assert self.history is not None and self._places is not None and self._feed is not None
        count = self.args.num_generations
        places = self._places[[group.order.row for group in groups]]
        batch = replace(RolloutBatch.unsampled(len(groups), count, len(groups)), history=self.history, places=places)
        view = view_of_batch(batch, merged, self.advantages)
        with self._feed.lock:  # the next prompts are chosen in another thread
            self._log_metrics(remember_batch(self.history, view, merged, self.state.global_step))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log(logs, start_time)
        if self._latest is not None:
            self._print_completions(*self._latest)
        self._latest = None

    def _print_completions(self, groups: list[PromptGroup], rewards: Tensor, advantages: Tensor) -> None:
        """Those of the last step."""
        print_prompt_completions_sample(
            [group.prompt for group in groups for _ in range(len(group))],
            [completion for group in groups for completion in group.completions],
            dict(zip(self.reward_func_names, rewards.T.tolist(), strict=True)),
            advantages.tolist(),
            self.state.global_step,
            self.args.num_completions_to_print,  # pyrefly: ignore[bad-argument-type]  # all by default
        )

    def training_step(self, model, inputs, num_items_in_batch=None):
        """All passes of an optimizer step. Returns its loss."""
        passes, gradient_state = inputs["passes"], self.accelerator.gradient_state
        tokens = self._step_trained_tokens
        loss = torch.zeros((), device=self.accelerator.device)
        for index, one in enumerate(passes):
            last = index == len(passes) - 1
            with borrow(gradient_state, sync_gradients=last), nullcontext() if last else self._without_sync(model):
                loss = loss + super().training_step(model, one, num_items_in_batch)
        # TRL has added the tokens of the step in every pass
        self._step_trained_tokens = tokens + float(passes[0]["global_n_tokens"][0])
        check_loss(
            self.accelerator, loss.detach(), passes[0], self.model, self.state.global_step, self.args.max_grad_norm
        )
        if self._feed is not None:
            self._feed.settle(self._in_step)
            self._trained_groups.update(self._in_step)
        return loss

    _without_sync: Any = TrainsInPasses._without_sync

    @property
    def _progress(self) -> float:
        """Share of training done, in [0, 1]."""
        return self.state.global_step / max(self.state.max_steps, 1)

    def _log_metrics(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            if not math.isnan(value):
                self._metrics["train"][name].append(value)

    # --- checkpoints ---

    def _describe_run(self) -> dict[str, Any]:
        of_batches = {"prompts_per_update": self.args.prompts_per_update}
        steps = self.args.max_steps if self._num_visits is None else -1  # of an epoch run they follow from the rest
        with borrow(self.args, max_steps=steps):
            return describe_run(self, self._compared_config, **self._given, of_batches=of_batches)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        if self._feed is None:
            return
        state = {
            "strategy": strategy_of(self.accelerator),
            "asynchronous": self._feed.state_dict(),
            "batch_watch": self._batch_watch.state_dict(),
        }
        torch.save(state, state_file(output_dir, 0))
        if self.history is not None:
            save_history(self.history, output_dir)

    def _prepare_resuming(self, checkpoint: str) -> None:
        processes, max_steps = Processes(PartialState()), self.args.max_steps
        with processes.agreed("reading which prompts the checkpoint was trained on"):
            if self._feed is not None:
                self._load_accounts(Path(checkpoint))
                if self._changed and self._feed.num_left is not None:
                    done = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE)).global_step
                    max_steps = done + math.ceil(self._feed.num_left / self.args.prompts_per_update)
        self.args.max_steps = processes.broadcast(max_steps)

    def _load_accounts(self, checkpoint: Path) -> None:
        path = state_file(checkpoint, 0)
        state = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else {}
        if "asynchronous" not in state:
            raise ValueError(
                f"{checkpoint} was not saved by an AsyncRLVRTrainer, so which prompts it has trained on is not known. "
                f"Start a new run from its weights: model={str(checkpoint)!r}."
            )
        assert self._feed is not None
        self._feed.load_state_dict(state["asynchronous"])
        self._trained_groups.update(self._feed.trained_tickets())
        self._last_groups_trained = len(self._trained_groups)
        self._batch_watch.load_state_dict(state["batch_watch"])
        if self.rollouts is not None and self._feed.allocator_state is not None:
            self.rollouts.load_state_dict(self._feed.allocator_state)
        if self.history is not None:
            load_history(self.history, checkpoint)


def sampled_entropies(groups: Sequence[PromptGroup]) -> list[float]:
    """
    The mean of −log p over the sampled tokens of each completion, in nats, NaN without one: an unbiased estimate of
    the mean entropy at these tokens, if p is the distribution that they were sampled from.
    """
    means = []
    for sequences in (each for group in groups for each in group.sequences):
        mask = np.concatenate([each.completion_mask for each in sequences] or [[]]) > 0
        log_probs = np.concatenate([each.old_log_probs for each in sequences] or [[]])[mask]
        means.append(float(-log_probs.mean()) if len(log_probs) else math.nan)
    return means


class _Steps:
    """What transformers takes for a data loader. It yields optimizer steps, and takes none before it is asked."""

    def __init__(self, trainer: AsyncRLVRTrainer):
        self.trainer, self.wait_s = trainer, 0.0  # TRL logs the seconds waited

    def __iter__(self) -> Iterator[dict[str, Any]]:
        while (step := self.trainer._next_step()) is not None:
            yield step


class _CountsEpochs(TrainerCallback):
    """Epochs are visits of all prompts that were trained on, and not shares of `max_steps`."""

    def __init__(self, trainer: AsyncRLVRTrainer):
        self.trainer = trainer

    def on_save(self, args, state, control, **kwargs):
        self.trainer._saved_step = state.global_step

    def on_step_end(self, args, state, control, **kwargs):
        if self.trainer._feed is not None:
            state.epoch = self.trainer._feed.num_trained / self.trainer._num_rows
