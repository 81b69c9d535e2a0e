"""Sampling from a transformers model in this process."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import cast

import numpy as np
import torch
import transformers
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from ...attention import without_cudnn_attention
from ...shared_prefill import shared_prefill, why_prefill_is_not_shared
from ..samples import Sample, SamplingSettings
from .prompts import (
    PromptSurvey,
    check_engine_prompts,
    context_of,
    has_image_processor,
    processor_inputs,
    stream_key,
    survey_prompts,
    tokenize_prompts,
)


# Increment and multipliers of SplitMix64 (Steele, Lea and Flood, 2014, doi 10.1145/2660193.2660195)
_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIERS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
# Elements of noise computed at once: what fits in a CPU's cache; on other devices, what takes little memory
_CPU_BLOCK, _DEVICE_BLOCK = 2**18, 2**24
FINGERPRINT_VALUES = 64  # of each parameter: training changes every parameter, so a few values of each will do


class TransformersEngine:
    """
    Samples with `generate` of a transformers model, in batches that fit a token budget.

    Prompts are tokenized as TRL's `GRPOTrainer` does, and every EOS token of the tokenizer or of the model's
    generation config ends a completion. Nothing else of that config is used, since a repetition penalty saved with a
    model would change what is measured. The global random state, the model's mode and its generation config stay as
    they were.

    Each request draws from its own stream of noise, keyed by the seed, the content of the prompt and the number of the
    sample. At every step, Gumbel noise is added to the logits after temperature, top-k and top-p, and the token with
    the largest sum is taken. So neither the budget nor the other requests change what is drawn, except through the
    rounding of a batched forward pass, and a prompt that occurs twice gets the same samples twice.

    A prompt is read once for all its samples in a batch, unless the model takes images, is an encoder-decoder model,
    has an adapter of virtual tokens or a cache that is no [`~transformers.DynamicCache`].

    Args:
        model ([`~transformers.PreTrainedModel`] or PEFT model): the model.
        processing_class ([`~transformers.PreTrainedTokenizerBase`] or [`~transformers.ProcessorMixin`]): the model's
            tokenizer, or its processor if prompts have images.
        token_budget (`int`): largest `rows * (longest prompt + max_new_tokens)` of a batch. A batch holds at least one
            row, even if that exceeds the budget.
        chat_template_kwargs (`dict`, *optional*): passed on to the chat template, as in TRL's config.

    Raises:
        ValueError: `token_budget` is below 1.
    """

    def __init__(self, model, processing_class, token_budget: int = 16384, chat_template_kwargs: dict | None = None):
        if token_budget < 1:
            raise ValueError(f"token_budget must be at least 1, got {token_budget}.")
        self.model, self.processing_class = model, processing_class
        self.tokenizer = getattr(processing_class, "tokenizer", processing_class)
        self.token_budget, self.chat_template_kwargs = token_budget, chat_template_kwargs

    def check(self, prompts: Sequence) -> None:
        why_no_images = None
        if not has_image_processor(self.processing_class):
            why_no_images = (
                f"{type(self.processing_class).__name__} takes only text; pass the model's processor instead."
            )
        check_engine_prompts(prompts, why_no_images)
        if why_no_images:  # a processor would take long over images, and a prompt with an image always has tokens
            every = range(len(prompts))
            rows = len(self.model.get_input_embeddings().weight)
            for problem, prompt in tokenize_prompts(
                self.processing_class, prompts, every, self.chat_template_kwargs
            ).items():
                if max(prompt.ids) >= rows:
                    raise ValueError(
                        f"Prompt {problem} has token {max(prompt.ids)}, but the model has {rows} rows of embeddings: "
                        "its tokenizer has tokens that were added, and not to the model."
                    )

    def survey(self, prompts: Sequence, max_new_tokens: int) -> PromptSurvey | None:
        """How the prompts fit the model. `None` with a processor, which would take long over images."""
        if has_image_processor(self.processing_class):
            return None
        tokenized = tokenize_prompts(self.processing_class, prompts, range(len(prompts)), self.chat_template_kwargs)
        prompt_ids = [prompt.ids for prompt in tokenized.values()]
        return survey_prompts(prompt_ids, context_of(self.model.config), max_new_tokens, self.tokenizer.bos_token_id)

    def sample(
        self, prompts: Sequence, requests: Sequence[tuple[int, int]], settings: SamplingSettings
    ) -> Iterator[list[Sample]]:
        problems = [problem for problem, _ in requests]
        tokenized = tokenize_prompts(self.processing_class, prompts, problems, self.chat_template_kwargs)
        config = _generation_config(self.model, self.tokenizer, settings.max_new_tokens)
        # Prompts with and without images are in separate batches: not every processor takes them together
        for has_images in (False, True):
            chosen = [request for request in requests if tokenized[request[0]].has_images == has_images]
            lengths = [len(tokenized[problem].ids) + settings.max_new_tokens for problem, _ in chosen]
            for rows in pack(lengths, self.token_budget):
                batch = [chosen[row] for row in rows]
                keys = [stream_key(settings.seed, tokenized[problem].digest, sample) for problem, sample in batch]
                if has_images:
                    inputs = self._inputs_with_images([prompts[problem] for problem, _ in batch])
                else:
                    inputs = {"input_ids": [tokenized[problem].ids for problem, _ in batch]}
                yield self._generate(batch, self._padded(inputs, config.pad_token_id), keys, settings, config)

    def describe(self) -> dict:
        config = self.model.config
        return {
            "engine": "transformers",
            "transformers": transformers.__version__,
            "model": config.name_or_path or type(self.model).__name__,
            "revision": getattr(config, "_commit_hash", None),
            "weights": fingerprint_model(self.model),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "chat_template_kwargs": self.chat_template_kwargs or {},
        }

    def _inputs_with_images(self, prompts: list) -> dict:
        inputs = processor_inputs(self.processing_class, prompts, self.chat_template_kwargs)
        return {name: value for name, value in inputs.items() if name != "attention_mask"}

    def _padded(self, inputs: dict, pad_token_id: int) -> dict[str, torch.Tensor]:
        """Tensors on the model's device. Values per token are padded on the left, images are kept as they are."""
        widths = [len(ids) for ids in inputs["input_ids"]]
        tensors = {"attention_mask": torch.tensor(_pad_left([[1] * width for width in widths], 0))}
        for name, values in inputs.items():
            is_per_token = isinstance(values, list) and isinstance(values[0], list)
            if is_per_token and [len(row) for row in values] == widths:
                tensors[name] = torch.tensor(_pad_left(values, pad_token_id if name == "input_ids" else 0))
            else:
                tensors[name] = torch.as_tensor(np.asarray(values))
        return {
            name: tensor.to(self.model.device, self.model.dtype if tensor.is_floating_point() else None)
            for name, tensor in tensors.items()
        }

    def _generate(self, batch, inputs, keys: list[int], settings, config: GenerationConfig) -> list[Sample]:
        width = inputs["input_ids"].shape[1]
        sampler = _GumbelSampler(torch.tensor(keys, device=self.model.device), settings)
        once = shared_prefill(self.model) if why_prefill_is_not_shared(self.model) is None else nullcontext()
        with _for_generation(self.model, config), without_cudnn_attention(), once:
            output = self.model.generate(
                **inputs, generation_config=config, logits_processor=LogitsProcessorList([sampler])
            )
        ids = output[:, width:]  # (B, T), padded after the end
        is_eos = torch.isin(ids, torch.tensor(config.eos_token_id or [], dtype=ids.dtype, device=ids.device))
        ended = is_eos.any(dim=1)  # (B,)
        lengths = (is_eos.cumsum(dim=1) == 0).sum(dim=1) + ended  # (B,)
        in_completion = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
        entropies = torch.stack(sampler.entropies, dim=1)  # (B, T)
        entropies = torch.where(in_completion, entropies, 0.0).sum(dim=1) / lengths
        token_ids = [row[:length] for row, length in zip(ids.tolist(), lengths.tolist(), strict=True)]
        texts = self.tokenizer.batch_decode(token_ids, skip_special_tokens=True)
        return [
            Sample(problem, sample, text, row, len(row), truncated=not has_ended, entropy=entropy)
            for (problem, sample), text, row, has_ended, entropy in zip(
                batch, texts, token_ids, ended.tolist(), entropies.tolist(), strict=True
            )
        ]


def pack(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """
    Divides rows of these lengths into batches of at most `token_budget` tokens, including padding, or of one row.

    The longest rows come first, so that a batch is as wide as its first row, and a budget that is too large for the
    memory fails at once.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    batches, start = [], 0
    while start < len(order):
        size = max(1, token_budget // lengths[order[start]])
        batches.append(order[start : start + size])
        start += size
    return batches


def _pad_left(rows: list[list[int]], value: int) -> list[list[int]]:
    width = max(len(row) for row in rows)
    return [[value] * (width - len(row)) + list(row) for row in rows]


def _generation_config(model, tokenizer, max_new_tokens: int) -> GenerationConfig:
    declared = model.generation_config.eos_token_id
    declared = declared if isinstance(declared, (list, tuple)) else [declared]
    eos_token_ids = [i for i in dict.fromkeys([tokenizer.eos_token_id, *declared]) if i is not None]
    pad_token_id = tokenizer.pad_token_id
    if pad_token_id is None:  # any id will do, since padding is masked on the left and cut off on the right
        pad_token_id = eos_token_ids[0] if eos_token_ids else 0
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_ids or None,
        do_sample=False,  # take the largest logit, to which `_GumbelSampler` has added noise
        use_cache=True,  # even if the model's config switched it off to train with gradient checkpointing
        disable_compile=True,
    )


@contextmanager
def _for_generation(model, config: GenerationConfig) -> Iterator[None]:
    # `generate` takes whatever a config leaves open from the model's own config, so that is replaced. PEFT copies the
    # wrapper's config to the base model. The mode of every module is restored: some stay in eval mode in training.
    owners = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    configs = [owner.generation_config for owner in owners]
    training = [module for module in model.modules() if module.training]
    try:
        for owner in owners:
            owner.generation_config = config
        model.eval()  # also switches off gradient checkpointing, which would disable the cache
        yield
    finally:
        for owner, saved in zip(owners, configs, strict=True):
            owner.generation_config = saved
        for module in training:
            module.training = True


class _GumbelSampler(LogitsProcessor):
    """Records the entropy of the full next-token distribution, then adds noise: the largest sum is a sample."""

    def __init__(self, keys: torch.Tensor, settings: SamplingSettings):
        self.keys, self.is_greedy = keys, settings.temperature == 0
        self.noise: GumbelNoise | None = None  # made at the first step, whose logits have the size of the vocabulary
        self.entropies: list[torch.Tensor] = []  # one tensor (B,) per generated token
        self.warpers = LogitsProcessorList()
        if not self.is_greedy:
            self.warpers.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k > 0:
            self.warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self.warpers.append(TopPLogitsWarper(settings.top_p))

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        step = len(self.entropies)
        self.entropies.append(torch.special.entr(torch.softmax(scores, dim=-1)).sum(-1))
        if self.is_greedy:
            return scores
        if self.noise is None:
            self.noise = GumbelNoise(self.keys, scores.shape[1])
        noisy = self.warpers(input_ids, scores) + self.noise(step)  # (B, V)
        return cast(torch.FloatTensor, noisy)  # the stubs of torch call every sum a `Tensor`


class GumbelNoise:
    """
    Standard Gumbel noise as a function of stream, step and token: `argmax(logits + noise)` is a sample.

    There is no generator to advance: each value is the hash of a counter, by the mixer of SplitMix64. So the noise of
    a row depends neither on the other rows nor on its own earlier steps, a batch takes a fixed number of tensor
    operations for any number of rows, and CPU and accelerator draw the same.

    Args:
        keys (`torch.Tensor` of shape `(B,)`): int64, one for each row, see `stream_key`.
        vocab_size (`int`): V, the number of tokens.
    """

    def __init__(self, keys: torch.Tensor, vocab_size: int):
        self.keys = keys
        self.counters = torch.arange(1, vocab_size + 1, device=keys.device) * _int64(_GAMMA)  # (V,), modulo 2^64

    def __call__(self, step: int) -> torch.Tensor:
        """The noise of a step, counted from 0: float32 of shape `(B, V)`, always finite."""
        step_keys = _mix(self.keys + _int64(_GAMMA * (step + 1)))  # (B,)
        block = _CPU_BLOCK if step_keys.device.type == "cpu" else _DEVICE_BLOCK
        rows = max(1, block // len(self.counters))
        return torch.cat([self._noise(keys) for keys in step_keys.split(rows)])

    def _noise(self, step_keys: torch.Tensor) -> torch.Tensor:
        bits = _mix(step_keys[:, None] + self.counters)  # (rows, V)
        # 53 bits rather than the 24 of a float32 uniform: the likeliest winner among V tokens has a `uniform` near
        # 1/V, where a grid of 2^-24 would be visible. Never 0 or 1, whose logarithms are infinite.
        uniform = _shift_right(bits, 11).float().add_(0.5).mul_(2.0**-53).clamp_(max=1 - 2.0**-24)
        return uniform.neg_().log1p_().neg_().log_().neg_()  # minus the log of an exponential variable


def _mix(state: torch.Tensor) -> torch.Tensor:
    state = (state ^ _shift_right(state, 30)).mul_(_int64(_MULTIPLIERS[0]))
    state.bitwise_xor_(_shift_right(state, 27)).mul_(_int64(_MULTIPLIERS[1]))
    return state.bitwise_xor_(_shift_right(state, 31))


def _shift_right(state: torch.Tensor, bits: int) -> torch.Tensor:
    # torch's `>>` fills the left with copies of the sign bit, which the mask removes
    return (state >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _int64(value: int) -> int:
    value %= 2**64
    return value - 2**64 if value >= 2**63 else value


def fingerprint_model(model) -> str:
    """
    Digest of a few values of every parameter, adapters included.

    A model that is trained further keeps its name but not its weights, and samples of the two must not end up in one
    evaluation.
    """
    digest = hashlib.blake2b(digest_size=8)
    for name, parameter in model.named_parameters():
        values = parameter.detach().flatten()
        some = values[:: max(1, len(values) // FINGERPRINT_VALUES)].float().cpu().numpy()
        digest.update(name.encode() + some.tobytes())
    return digest.hexdigest()
