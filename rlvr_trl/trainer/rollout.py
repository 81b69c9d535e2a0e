"""One call of TRL's generation and scoring, and the record of what it made."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel
from trl import GRPOTrainer

from ..advantages import AdvantageEstimator
from ..advantages.nesting import shapes_tokens
from ..evaluation.engines.prompts import begins_with_two_bos
from ..shared_prefill import shared_prefill, shared_scoring
from ..trl_compat import borrow, check_generated, unsplit_pixel_values_by_grid
from .batch_layout import IMAGE_FIELDS, loss_mask
from .batch_watch import BatchWatch
from .generation_progress import GenerationProgress
from .passes import score_in_passes
from .reward_guard import RewardGuard
from .rlvr_config import RLVRConfig
from .rows import check_prompts_of_batch
from .vllm_watchdog import server_must_answer


@dataclass(frozen=True)
class GenerationRecord:
    """
    What one call of generation and scoring made: B completions on this process, T on all of them.

    Args:
        batch (`dict`): TRL's batch for the rows of this process.
        rewards_per_func (`Tensor` of shape `(T, F)`): rewards by function; NaN where a function gave none.
        lengths (`Tensor` of shape `(T,)`): lengths in tokens, without the output of tools.
        truncated (`Tensor` of shape `(T,)`): whether a completion was cut off.
        entropies, log_probs (`Tensor` of shape `(T,)`, *optional*): mean entropy and log-probability of the tokens, if
            the estimator reads them.
        answer_ids (`Tensor` of shape `(T,)`, *optional*): ids of the extracted answers, likewise.

    If the estimator shapes tokens, `batch` also holds what it sees of them, `token_log_probs` and `token_entropies`.
    """

    batch: dict
    rewards_per_func: Tensor
    lengths: Tensor
    truncated: Tensor
    entropies: Tensor | None = None
    log_probs: Tensor | None = None
    answer_ids: Tensor | None = None

    @property
    def num_local(self) -> int:
        return len(self.batch["prompt_ids"])


@dataclass
class _Recording:
    """What is caught while TRL's call runs. TRL returns none of it."""

    wants_tokens: bool  # log-probabilities and entropies of the tokens
    wants_answers: bool
    prompt_ids: list[list[int]] | None = None
    completion_ids: list[list[int]] | None = None
    tool_mask: list[list[int]] | None = None
    rewards_per_func: Tensor | None = None  # (T, F)
    log_probs: Tensor | None = None  # (B, C)
    entropies: Tensor | None = None  # (B, C)
    answer_ids: list[int] | None = None  # (B,)


@dataclass(frozen=True)
class Reads:
    """What an estimator reads of a batch that costs something, by its members of these names."""

    entropies: bool
    log_probs: bool
    answers: bool
    history: bool
    tokens: bool

    @classmethod
    def of(cls, estimator: AdvantageEstimator) -> "Reads":
        names = ("entropies", "log_probs", "answers", "history")
        needed = {name: bool(getattr(estimator, f"needs_{name}", False)) for name in names}
        return cls(**needed, tokens=shapes_tokens(estimator))


class RecordsGeneration(GRPOTrainer):
    """
    The part of RLVRTrainer from prompts to scored completions: [`record_generation`] calls TRL and returns a record.

    TRL makes everything in one method that returns the batch alone. The methods that it calls on the way are
    overridden here to catch the rest.
    """

    # needed, from RLVRTrainer
    args: RLVRConfig
    model: PreTrainedModel
    num_generations: int
    num_generations_eval: int
    _in_passes: bool
    _reads: Reads
    _reward_guard: RewardGuard
    _generation_progress: GenerationProgress
    _batch_watch: BatchWatch

    _recording: _Recording | None = None  # while a call runs

    def record_generation(self, inputs: list[dict], num_generations: int | None = None) -> GenerationRecord:
        """
        Generates and scores one completion of each row. All processes must call it, with the same number of rows.

        Args:
            inputs (`list[dict]`): this process's rows, each prompt `num_generations` times.
            num_generations (`int`, *optional*): completions of one prompt in these rows, the trainer's by default.
        """
        check_prompts_of_batch(inputs, self.environment_factories is not None)
        usual = self.num_generations if num_generations is None else num_generations
        reads, training = self._reads, self.model.training
        recording = _Recording(
            wants_tokens=training and (reads.entropies or reads.log_probs or reads.tokens),
            wants_answers=training and reads.answers,
        )
        with borrow(self, _recording=recording, num_generations=usual):
            batch = super()._generate_and_score_completions(inputs)
            check_generated(batch, recording.rewards_per_func, len(self.reward_funcs))
            if recording.wants_tokens and recording.entropies is None:
                self._score_tokens(batch)
        assert recording.rewards_per_func is not None, "TRL has scored nothing"
        lengths, truncated = self._gather_lengths(recording)
        entropies, log_probs = self._gather_means(recording, batch) if recording.wants_tokens else (None, None)
        if recording.wants_tokens and reads.tokens:
            batch = batch | {"token_log_probs": recording.log_probs, "token_entropies": recording.entropies}
        answer_ids = None
        if recording.answer_ids is not None:
            answer_ids = self.accelerator.gather(torch.tensor(recording.answer_ids, device=self.accelerator.device))
        return GenerationRecord(
            batch, recording.rewards_per_func, lengths, truncated, entropies, log_probs, answer_ids
        )

    # --- what TRL calls on the way ---

    def _generate(self, prompts):
        with server_must_answer(self):
            generated = super()._generate(prompts)
        if self._recording is not None:
            self._recording.prompt_ids, self._recording.completion_ids, self._recording.tool_mask = generated[:3]
        return generated

    def _generate_single_turn(self, prompt_ids, images, multimodal_fields, num_generations, *args, **kwargs):
        if not all(prompt_ids):
            raise ValueError("A prompt of this batch has no tokens: the tokenizer or the chat template makes none.")
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
                with self._prefill():
                    completion_ids += super()._generate_single_turn(
                        batch, images, multimodal_fields, num_generations, *args, **kwargs
                    )[0]
        return completion_ids, None  # transformers returns no log-probabilities

    def _prefill(self) -> AbstractContextManager[None]:
        """The context of one call of `generate`, on the module that TRL calls it on."""
        if not self.args.share_prompt_prefill:
            return nullcontext()
        return shared_prefill(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

    def _read_once(self, model, width: int) -> AbstractContextManager[None]:
        """The context of one call that scores completions of `width` columns."""
        if not self.args.share_prompt_scoring:
            return nullcontext()
        return shared_scoring(self.accelerator.unwrap_model(model, keep_torch_compile=False), width)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._reward_guard.forget_answers()
        rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self._reward_guard.raise_together(self.accelerator)
        if self._recording is not None:
            self._recording.rewards_per_func = rewards_per_func
            if self._recording.wants_answers:
                self._recording.answer_ids = self._reward_guard.answer_ids(self.accelerator, len(completions))
        return rewards_per_func

    def _get_per_token_logps_and_entropies(
        self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False, **kwargs
    ):
        recording = self._recording
        # The estimator reads what the policy says of the tokens, which TRL scores first. Not so where an adapter is
        # trained: then the first may be the reference, which is this model without the adapter
        by_policy = model is self.model and (compute_entropy or self.beta == 0.0 or self.ref_model is not None)
        keep = recording is not None and recording.wants_tokens and recording.entropies is None and by_policy
        keep = keep and batch_size is not None
        compute_entropy = compute_entropy or keep
        usual = super()._get_per_token_logps_and_entropies

        def score(model, ids, mask, width, *args, **kwargs):
            with self._read_once(model, width):
                return usual(model, ids, mask, width, *args, **kwargs)

        is_whole_batch = batch_size is not None and self.model.training
        if is_whole_batch and self._in_passes and all(value is None for value in kwargs.values()):
            logps, entropies = score_in_passes(
                lambda ids, mask, width: score(model, ids, mask, width, compute_entropy=compute_entropy),
                self.accelerator,
                input_ids,
                attention_mask,
                logits_to_keep,
                max_rows=batch_size,
                max_tokens=self.args.max_tokens_per_micro_batch,
            )
            aux_loss = None
        else:
            logps, entropies, aux_loss = score(
                model, input_ids, attention_mask, logits_to_keep, batch_size, compute_entropy, **kwargs
            )
        if recording is not None and keep:
            recording.log_probs, recording.entropies = logps, entropies
        return logps, entropies, aux_loss

    # --- what is gathered afterwards ---

    def _score_tokens(self, batch: dict) -> None:
        """Scores the completions for their tokens' sake, if TRL needed no log-probabilities and computed neither."""
        ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
        mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        rows, width = self.args.per_device_train_batch_size, batch["completion_ids"].shape[1]
        images = unsplit_pixel_values_by_grid({name: batch[name] for name in IMAGE_FIELDS if name in batch})
        with torch.no_grad():
            self._get_per_token_logps_and_entropies(self.model, ids, mask, width, rows, compute_entropy=True, **images)

    def _gather_means(self, recording: _Recording, batch: dict) -> tuple[Tensor | None, Tensor | None]:
        """
        Mean entropy and mean log-probability of the tokens of each completion, all processes, as far as they are read.
        Two of shape `(T,)`. Without a token in the loss the first is 0 and the second NaN, which is no probability.
        """
        assert recording.entropies is not None and recording.log_probs is not None
        mask, entropies, log_probs = loss_mask(batch), None, None  # (B, C)
        count = mask.sum(dim=1)
        if self._reads.entropies:
            entropies = self.accelerator.gather((recording.entropies * mask).sum(dim=1) / count.clamp(min=1))
        if self._reads.log_probs:
            log_probs = self.accelerator.gather((recording.log_probs * mask).sum(dim=1) / count)
        return entropies, log_probs

    def _gather_lengths(self, recording: _Recording) -> tuple[Tensor, Tensor]:
        """
        Length and truncation of each completion, all processes. Two of shape `(T,)`. The lengths of the prompts are
        looked at on the way.
        """
        prompt_ids, completion_ids, tool_mask = recording.prompt_ids, recording.completion_ids, recording.tool_mask
        assert prompt_ids is not None and completion_ids is not None, "TRL has generated nothing"
        lengths = [len(ids) for ids in completion_ids] if tool_mask is None else [sum(mask) for mask in tool_mask]
        ends = (*self.eos_token_ids, self._tokenizer.pad_token_id)  # as TRL decides what is truncated
        truncated = [ids[-1] not in ends for ids in completion_ids]
        prompt_lengths = [len(ids) for ids in prompt_ids]
        two_bos = [begins_with_two_bos(ids, self._batch_watch.bos_token_id) for ids in prompt_ids]
        columns = torch.tensor([lengths, truncated, prompt_lengths, two_bos], device=self.accelerator.device)
        lengths, truncated, prompt_lengths, two_bos = self.accelerator.gather(columns.T.contiguous()).T  # (T,) each
        self._batch_watch.see_prompts(prompt_lengths, two_bos.bool())
        return lengths, truncated.bool()
