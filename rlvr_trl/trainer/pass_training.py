"""Training on a generation batch in passes of similar length, where TRL would split it into equal micro-batches."""

import contextlib
import time
from collections import defaultdict

import torch
from torch import Tensor
from transformers.integrations import is_fsdp_managed_module
from trl import GRPOTrainer
from trl.trainer.utils import shuffle_sequence_dict, split_pixel_values_by_grid
from trl.trainer.utils import unsplit_pixel_values_by_grid as unsplit_images

from .finite import check_loss
from .metrics import block_metrics
from .microbatch import row_lengths
from .window import Block, MicroBatch, Window, plan_passes, plan_window


class TrainsInPasses(GRPOTrainer):
    """
    The part of RLVRTrainer from a batch to gradient.

    TRL's calls per optimizer step stay as they are, `gradient_accumulation_steps` of them. The last one makes all
    passes, the others none. Without `_in_passes` everything is TRL's.
    """

    _in_passes = False
    _window: Window | None = None  # the batch in training and its passes
    _needs_entropies = False
    _entropies = None  # (B, C), of the last completions generated, if the estimator reads them

    def get_train_dataloader(self):
        # With `prompts_per_batch`, a batch of the data loader is a whole generation batch, whatever fits one pass
        usual = self._train_batch_size
        self._train_batch_size = self.args.generation_batch_size // (
            self.args.world_size * self.args.steps_per_generation
        )
        try:
            return super().get_train_dataloader()
        finally:
            self._train_batch_size = usual

    @property
    def _steps_per_block(self) -> int:
        """TRL's steps on one generation batch that make up one optimizer step, or its part of one."""
        return min(self.args.steps_per_generation, self.args.gradient_accumulation_steps)

    def training_step(self, model, inputs, num_items_in_batch=None):
        if not self._in_passes:
            return super().training_step(model, inputs, num_items_in_batch)
        begin = time.perf_counter()
        model.train()
        steps, per_block = self.args.steps_per_generation, self._steps_per_block
        if self._window is None or self._step % (steps * self.num_iterations) == 0:
            self._window = None  # the last batch makes room before the next is sampled
            self._start_window(self._sample_batch(inputs))
        slot = self._step % steps
        loss = torch.zeros((), device=self.accelerator.device)
        if (slot + 1) % per_block == 0:  # the steps before this one of the same optimizer step did nothing
            loss = self._train_block(model, self._window.blocks[slot // per_block], num_items_in_batch)
        self._step += 1
        self._current_train_step_time += time.perf_counter() - begin
        if self._step % self.current_gradient_accumulation_steps == 0:
            self._metrics["train"]["step_time"].append(self._current_train_step_time)
            self._current_train_step_time = 0.0
        return loss

    def _sample_batch(self, inputs) -> dict:
        """A generation batch with its rows in random order, as TRL shuffles them."""
        batch = self._generate_and_score_completions(inputs)
        if self.rollouts is None:  # with stages, images are split by row already
            batch = split_pixel_values_by_grid(batch)
        return shuffle_sequence_dict(batch)

    def _start_window(self, batch: dict) -> None:
        self._window = plan_window(
            self.accelerator,
            batch,
            max_rows=self.args.per_device_train_batch_size,
            max_tokens=self.args.max_tokens_per_micro_batch,
            steps_per_generation=self.args.steps_per_generation,
            steps_per_block=self._steps_per_block,
            skip_zero_advantages=self.beta == 0.0 and not self._entropy_bonus_enabled and not self.aux_loss_enabled,
        )
        self._metrics["train"]["micro_batch/padding_share"].append(self._window.padding_share)

    def _train_block(self, model, block: Block, num_items_in_batch) -> Tensor:
        """All forward and backward passes of one optimizer step. Returns its loss."""
        loss = torch.zeros((), device=self.accelerator.device)
        sync = self.accelerator.gradient_state.sync_gradients
        logged, usual = [], self._metrics["train"]
        try:
            for index, part in enumerate(block.passes):
                self._metrics["train"] = defaultdict(list)
                micro_batch = self._window.micro_batch(block, part, self.loss_type)
                micro_batch.update(unsplit_images(micro_batch))
                last = index == len(block.passes) - 1
                self.accelerator.gradient_state._set_sync_gradients(sync and last)
                if index < len(block.without_gradient):
                    with torch.no_grad(), self.compute_loss_context_manager():
                        self.compute_loss(model, micro_batch)
                else:
                    with contextlib.nullcontext() if last else self._without_sync(model):
                        # past TRL's training_step, which counts its calls
                        loss = loss + super(GRPOTrainer, self).training_step(model, micro_batch, num_items_in_batch)
                logged.append(self._metrics["train"])
        finally:
            self._metrics["train"] = usual
            self.accelerator.gradient_state._set_sync_gradients(sync)
        combined = block_metrics(logged, block, self.importance_sampling_level == "sequence")
        if self._entropy_bonus_enabled:
            combined["entropy_coef"] = self.entropy_coef  # TRL has logged what one pass used
            combined["policy_loss"] = self._policy_loss(loss, block, combined)
        self._log_metrics(combined)
        return loss

    def _without_sync(self, model):
        """A context whose gradients stay on this process."""
        if getattr(self, "is_distributed_loading_by_transformers", False) and is_fsdp_managed_module(self.model):
            return self._defer_fsdp_gradient_reduction()  # accelerate did not wrap it and would do nothing
        return self.accelerator.no_sync(model)

    def _policy_loss(self, loss: Tensor, block: Block, logged: dict[str, float]) -> float:
        """The loss of an optimizer step, all processes, without the entropy bonus and the auxiliary loss."""
        share = block.totals.steps_per_block / self.current_gradient_accumulation_steps
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
        weights, entropy_coef, aux_coef = inputs.weights, self.entropy_coef, self.router_aux_loss_coef
        if weights.policy == 0.0:  # nothing but filling
            return super()._compute_loss(model, inputs) * 0.0
        # TRL adds up three terms that are weighted differently here: what multiplies the sum is taken out of two
        self.entropy_coef = entropy_coef * weights.entropy / weights.policy
        self.router_aux_loss_coef = aux_coef * weights.aux / weights.policy
        try:
            return super()._compute_loss(model, inputs) * weights.policy
        finally:
            self.entropy_coef, self.router_aux_loss_coef = entropy_coef, aux_coef

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        whole_batch = batch_size is not None and self.model.training
        # The first whole batch after generation is scored by the policy, which is whose entropies an estimator reads;
        # but where an adapter is trained, TRL may score the reference first, which is this model without the adapter
        by_policy = compute_entropy or self.beta == 0.0 or self.ref_model is not None
        keep = whole_batch and self._needs_entropies and self._entropies is None and model is self.model and by_policy
        arguments = (model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy or keep)
        if whole_batch and self._in_passes and all(value is None for value in kwargs.values()):
            scores = self._score_in_passes(*arguments)
        else:
            scores = super()._get_per_token_logps_and_entropies(*arguments, **kwargs)
        if keep:
            self._entropies = scores[1]
        return scores

    def _score_in_passes(self, model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy):
        """Log-probabilities and entropies of a whole batch, two of `(B, C)`, in trimmed passes."""
        prompt_width = input_ids.shape[1] - logits_to_keep
        lengths = row_lengths(attention_mask[:, :prompt_width], attention_mask[:, prompt_width:])
        rows = torch.arange(len(input_ids))
        scores = [torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device) for _ in range(2)]
        max_tokens = self.args.max_tokens_per_micro_batch
        for part in plan_passes(self.accelerator, lengths, rows, batch_size, max_tokens):
            columns = slice(prompt_width - part.prompt_width, prompt_width + part.completion_width)
            chosen = part.rows.to(input_ids.device)
            of_pass = super()._get_per_token_logps_and_entropies(
                model,
                input_ids[chosen, columns],
                attention_mask[chosen, columns],
                part.completion_width,
                compute_entropy=compute_entropy,
            )
            for score, values in zip(scores, of_pass[:2], strict=True):
                if values is not None:
                    score[chosen[: part.size], : part.completion_width] = values[: part.size].to(score.dtype)
        return scores[0], scores[1] if compute_entropy else None, None
