"""From a generation batch to gradient, in passes of similar length where TRL would make equal micro-batches."""

import contextlib
import time
from collections import defaultdict
from contextlib import AbstractContextManager
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer

from ..attention import without_cudnn_attention
from ..rollouts import PromptSource
from ..trl_compat import (
    borrow,
    is_fsdp_managed_module,
    shuffle_sequence_dict,
    split_pixel_values_by_grid,
    unsplit_pixel_values_by_grid,
)
from .metrics import update_metrics
from .nonfinite import check_loss
from .passes import BatchPlan, MicroBatch, UpdatePlan, plan_batch
from .rlvr_config import RLVRConfig
from .stages import WithFiller, stream_with_filler
from .validation import prompts_per_batch


class TrainsInPasses(GRPOTrainer):
    """
    The part of RLVRTrainer from a batch to gradient.

    As in TRL, `training_step` is called `gradient_accumulation_steps` times per optimizer step. Here the last of these
    calls makes all passes and the others make none. Without `_in_passes` everything is TRL's.
    """

    # needed, from RLVRTrainer
    args: RLVRConfig
    model: PreTrainedModel
    _in_passes: bool
    _in_stages: bool
    _source: PromptSource | None

    _plan: BatchPlan | None = None  # the batch in training and its passes
    _train_sampler: Any = None  # TRL's; none for a stream

    def get_train_dataloader(self):
        args, dataset, shuffle = self.args, self.train_dataset, self.shuffle_dataset
        if self._source is not None:  # which reads the rows itself: the loader says no more than that a batch is due
            dataset, shuffle = Dataset.from_dict({"row": range(self._source.num_rows)}), False
        elif args._prompts_of_filler and isinstance(dataset, IterableDataset):
            dataset = dataset.shuffle(seed=args.seed) if shuffle else dataset  # as TRL would, filler and all
            dataset, shuffle = stream_with_filler(dataset, prompts_per_batch(args), args._prompts_of_filler), False
        # TRL's batch has `_train_batch_size` x `steps_per_generation` rows, and comes `num_iterations` x
        # `steps_per_generation` times. Here it is a whole generation batch, whatever fits one pass or divides it
        rows, calls = args._rows_per_batch // args.world_size, args._calls_per_batch * self.num_iterations
        data = borrow(self, train_dataset=dataset, shuffle_dataset=shuffle)
        with data, borrow(self, _train_batch_size=rows, num_iterations=calls), borrow(args, steps_per_generation=1):
            return super().get_train_dataloader()

    def _get_train_sampler(self, dataset=None):
        num_filler = self.args._prompts_of_filler * self.args._group_size
        num_rows = self.args._rows_per_batch - num_filler
        with borrow(self.args, generation_batch_size=num_rows):
            self._train_sampler = super()._get_train_sampler(dataset)
        return WithFiller(self._train_sampler, num_rows, num_filler) if num_filler else self._train_sampler

    @property
    def _calls_per_update(self) -> int:
        """Calls of `training_step` on one generation batch in one optimizer step, which may take several batches."""
        return min(self.args._calls_per_batch, self.args.gradient_accumulation_steps)

    def training_step(self, model, inputs, num_items_in_batch=None):
        if not self._in_passes:
            return super().training_step(model, inputs, num_items_in_batch)
        begin = time.perf_counter()
        model.train()
        calls_per_batch = self.args._calls_per_batch
        if self._plan is None or self._step % (calls_per_batch * self.num_iterations) == 0:
            self._plan = None  # the last batch makes room before the next is sampled
            plan = self._plan_batch(self._sample_batch(inputs))
            self._metrics["train"]["micro_batch/padding_share"].append(plan.padding_share)
        assert self._plan is not None
        call, calls_per_update = self._step % calls_per_batch, self._calls_per_update
        loss = torch.zeros((), device=self.accelerator.device)
        if (call + 1) % calls_per_update == 0:  # earlier calls of the same optimizer step did nothing
            loss = self._train_update(
                model, self._plan.batch, self._plan.updates[call // calls_per_update], num_items_in_batch
            )
        self._step += 1
        self._current_train_step_time += time.perf_counter() - begin
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    @without_cudnn_attention()
    def _sample_batch(self, inputs) -> dict:
        """A generation batch with its rows in random order, as TRL shuffles them."""
        batch: dict[str, Any] = self._generate_and_score_completions(inputs)
        if not self._in_stages:  # with stages, images are one entry per row already
            batch = dict(split_pixel_values_by_grid(batch))
        return shuffle_sequence_dict(batch)

    def _plan_batch(self, batch: dict) -> BatchPlan:
        self._plan = plan_batch(
            self.accelerator,
            batch,
            max_rows=self.args.per_device_train_batch_size,
            max_tokens=self.args.max_tokens_per_micro_batch,
            calls_per_batch=self.args._calls_per_batch,
            calls_per_update=self._calls_per_update,
            skip_zero_advantages=self.beta == 0.0 and not self._entropy_bonus_enabled and not self.aux_loss_enabled,
        )
        return self._plan

    @without_cudnn_attention()
    def _train_update(self, model, batch: dict, update: UpdatePlan, num_items_in_batch) -> Tensor:
        """All forward and backward passes of one optimizer step on a batch. Returns its loss."""
        loss = torch.zeros((), device=self.accelerator.device)
        gradient_state, logged = self.accelerator.gradient_state, []  # metrics of each pass
        for index, forward_pass in enumerate(update.passes):
            micro_batch = update.micro_batch(batch, forward_pass, self.loss_type)
            micro_batch.update(unsplit_pixel_values_by_grid(micro_batch))
            last = index == len(update.passes) - 1
            metrics = defaultdict(list)
            averaged = borrow(gradient_state, sync_gradients=gradient_state.sync_gradients and last)
            with borrow(self._metrics, train=metrics), averaged:
                if index < len(update.without_gradient):
                    with torch.no_grad(), self.compute_loss_context_manager():
                        self.compute_loss(model, micro_batch)
                else:  # not TRL's training_step, which would count the call
                    with contextlib.nullcontext() if last else self._without_sync(model):
                        loss = loss + super(GRPOTrainer, self).training_step(model, micro_batch, num_items_in_batch)
            logged.append(metrics)
        combined = update_metrics(logged, update, self.importance_sampling_level == "sequence")
        if self._entropy_bonus_enabled:
            combined["entropy_coef"] = self.entropy_coef  # TRL logged the coefficient as weighted in a pass
            combined["policy_loss"] = self._policy_loss(loss, update, combined)
        for name, value in combined.items():
            self._metrics["train"][name].append(value)
        return loss

    def _without_sync(self, model) -> AbstractContextManager:
        """A context whose gradients stay on this process."""
        is_sharded = getattr(self, "is_distributed_loading_by_transformers", False) and is_fsdp_managed_module(
            self.model
        )
        if is_sharded and hasattr(self, "_defer_fsdp_gradient_reduction"):
            return self._defer_fsdp_gradient_reduction()  # accelerate did not wrap it and would do nothing
        return self.accelerator.no_sync(model)

    def _policy_loss(self, loss: Tensor, update: UpdatePlan, logged: dict[str, float]) -> float:
        """The loss of an optimizer step, all processes, without the entropy bonus and the auxiliary loss."""
        share = update.totals.calls_per_update / self.current_gradient_accumulation_steps
        whole = self.accelerator.reduce(loss, reduction="mean").item() / share
        aux = self.router_aux_loss_coef * logged["aux_loss"] if self.aux_loss_enabled else 0.0
        return whole + self.entropy_coef * logged["entropy"] - aux

    def _prepare_inputs(self, generation_batch):
        if isinstance(generation_batch, MicroBatch):
            return generation_batch
        return super()._prepare_inputs(generation_batch)

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.model.training:
            check_loss(
                self.accelerator, loss.detach(), inputs, self.model, self.state.global_step, self.args.max_grad_norm
            )
        return loss

    def _compute_loss(self, model, inputs):
        if not isinstance(inputs, MicroBatch):
            return super()._compute_loss(model, inputs)
        weights = inputs.weights
        if weights.policy == 0.0:  # nothing but filler
            return super()._compute_loss(model, inputs) * 0.0
        # TRL adds up three terms, whose weights differ here: two are divided by the weight that multiplies the sum
        with borrow(
            self,
            entropy_coef=self.entropy_coef * weights.entropy / weights.policy,
            router_aux_loss_coef=self.router_aux_loss_coef * weights.aux / weights.policy,
        ):
            return super()._compute_loss(model, inputs) * weights.policy
