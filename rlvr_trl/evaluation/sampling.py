"""Many completions for each prompt, in batches that fit a token budget."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList


@dataclass(frozen=True, eq=False)
class Completions:
    """
    Sampled completions, prompt by prompt: completion `s` of prompt `p` is at `p * num_samples + s`.

    Args:
        texts (`list[str]`): decoded without special tokens.
        token_ids (`list[list[int]]`): up to and including the token that ended the completion.
        lengths (`np.ndarray` of shape `(completions,)`): tokens, the ending one included.
        truncated (`np.ndarray` of shape `(completions,)`): whether `max_new_tokens` came before an EOS token.
        entropies (`np.ndarray` of shape `(completions,)`): mean over the completion's tokens of the entropy of the
            model's full next-token distribution at temperature 1, in nats.
    """

    texts: list[str]
    token_ids: list[list[int]]
    lengths: np.ndarray
    truncated: np.ndarray
    entropies: np.ndarray


def sample_completions(
    model,
    tokenizer,
    prompts: Sequence,
    num_samples: int,
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    token_budget: int = 16384,
    chat_template_kwargs: dict | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Completions:
    """
    Samples `num_samples` completions for every prompt.

    Prompts are tokenized as TRL's `GRPOTrainer` does, and every EOS token of the tokenizer or of the model's
    generation config ends a completion. Nothing else of that config is used: a repetition penalty saved with a model
    would otherwise change what is measured. The result is a function of the arguments; the global random state, the
    model's mode and its generation config stay as they were.

    Args:
        model ([`~transformers.PreTrainedModel`] or PEFT model): the model, on one process.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]): its tokenizer.
        prompts (sequence of `str`, or of lists of messages): conversations get the chat template and a generation
            prompt. The two kinds cannot be mixed.
        num_samples (`int`): completions per prompt.
        max_new_tokens (`int`): tokens after which a completion is cut.
        temperature (`float`): sampling temperature; 0 is greedy.
        top_p (`float`), top_k (`int`): nucleus and top-k sampling; 1 and 0 switch them off.
        token_budget (`int`): a batch holds as many rows as fit `rows * (longest prompt + max_new_tokens)`, and at
            least one. Batches draw from random streams of their own, so another budget gives other samples.
        chat_template_kwargs (`dict`, *optional*): passed on to the chat template, as in TRL's config.
        seed (`int`): seed of the samples.
        progress (`bool`): whether to show a progress bar.

    Raises:
        ValueError: a setting out of range, no prompts, prompts of both kinds, with images or without a single token.
    """
    _check_settings(num_samples, max_new_tokens, temperature, token_budget)
    prompt_ids = _tokenize(tokenizer, prompts, chat_template_kwargs)
    eos_token_ids = _eos_token_ids(model, tokenizer)
    config = _generation_config(tokenizer, eos_token_ids, max_new_tokens, temperature, top_p, top_k)
    batches = _pack([len(ids) for ids in prompt_ids], num_samples, max_new_tokens, token_budget)

    total = len(prompts) * num_samples
    token_ids = [None] * total
    lengths, entropies = np.zeros(total, dtype=np.int64), np.zeros(total)
    truncated = np.zeros(total, dtype=bool)
    with (
        _for_generation(model, config),
        _private_random_state(model.device),
        tqdm(total=total, desc="sampling", unit="completion", disable=not progress) as bar,
    ):
        for index, rows in enumerate(batches):
            _seed_generators(model.device, seed, index)
            batch = _generate(model, [prompt_ids[row // num_samples] for row in rows], config)
            for row, ids, length in zip(rows, batch.token_ids, batch.lengths, strict=True):
                token_ids[row] = ids[:length]
            lengths[rows], truncated[rows], entropies[rows] = batch.lengths, batch.truncated, batch.entropies
            bar.update(len(rows))
    texts = tokenizer.batch_decode(token_ids, skip_special_tokens=True)
    return Completions(texts, token_ids, lengths, truncated, entropies)


def _check_settings(num_samples, max_new_tokens, temperature, token_budget):
    for name, value in (
        ("num_samples", num_samples),
        ("max_new_tokens", max_new_tokens),
        ("token_budget", token_budget),
    ):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if temperature < 0:
        raise ValueError(f"temperature must be 0 (greedy) or above, got {temperature}.")


def is_conversation(prompt) -> bool:
    return not isinstance(prompt, str)


def _tokenize(tokenizer, prompts, chat_template_kwargs) -> list[list[int]]:
    # The same calls as `GRPOTrainer._tokenize_prompts`, so that a model is measured on what it was trained on
    if len(prompts) == 0:
        raise ValueError("There are no prompts to sample from.")
    num_conversations = sum(is_conversation(prompt) for prompt in prompts)
    if num_conversations == 0:
        prompt_ids = tokenizer(text=list(prompts))["input_ids"]
    elif num_conversations == len(prompts):
        _refuse_images(prompts)
        prompt_ids = tokenizer.apply_chat_template(
            conversation=list(prompts),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            **(chat_template_kwargs or {}),
        )["input_ids"]
    else:
        raise ValueError(
            f"Prompts must be all strings or all conversations, but {num_conversations} of {len(prompts)} are "
            "conversations."
        )
    for index, ids in enumerate(prompt_ids):
        if len(ids) == 0:
            raise ValueError(f"Prompt {index} ({prompts[index]!r}) has 0 tokens, but generation needs at least 1.")
    return prompt_ids


def _refuse_images(prompts):
    for index, prompt in enumerate(prompts):
        contents = [message["content"] for message in prompt if isinstance(message["content"], list)]
        kinds = {part["type"] for content in contents for part in content}
        if kinds - {"text"}:
            raise ValueError(f"Prompt {index} has content of type {sorted(kinds - {'text'})}; only text is supported.")


def _eos_token_ids(model, tokenizer) -> list[int]:
    declared = model.generation_config.eos_token_id
    declared = declared if isinstance(declared, (list, tuple)) else [declared]
    return [i for i in dict.fromkeys([tokenizer.eos_token_id, *declared]) if i is not None]


def _generation_config(tokenizer, eos_token_ids, max_new_tokens, temperature, top_p, top_k) -> GenerationConfig:
    pad_token_id = tokenizer.pad_token_id
    if pad_token_id is None:  # any id will do: padding is masked on the left and cut off on the right
        pad_token_id = eos_token_ids[0] if eos_token_ids else 0
    sampling = {"do_sample": True, "temperature": float(temperature), "top_p": top_p, "top_k": top_k}
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        pad_token_id=pad_token_id,
        eos_token_id=eos_token_ids or None,
        use_cache=True,  # also for a model whose config switched it off to train with gradient checkpointing
        disable_compile=True,
        **(sampling if temperature > 0 else {"do_sample": False}),
    )


def _pack(prompt_lengths: list[int], num_samples: int, max_new_tokens: int, token_budget: int) -> list[np.ndarray]:
    # Longest first: a batch is as wide as its first row, and a budget too large for the memory fails at once
    lengths = np.repeat(prompt_lengths, num_samples)  # (prompts * num_samples,)
    order = np.argsort(-lengths, kind="stable")
    batches, start = [], 0
    while start < len(order):
        size = max(1, token_budget // (int(lengths[order[start]]) + max_new_tokens))
        batches.append(order[start : start + size])
        start += size
    return batches


@contextmanager
def _for_generation(model, config: GenerationConfig) -> Iterator[None]:
    # `generate` fills whatever a config leaves open from the model's own config, hence the swap. PEFT copies the
    # wrapper's config to the base model. Modes are kept by module: some are held in eval mode while the rest trains.
    owners = [model, model.get_base_model()] if hasattr(model, "get_base_model") else [model]
    configs = [owner.generation_config for owner in owners]
    training = [module for module in model.modules() if module.training]
    try:
        for owner in owners:
            owner.generation_config = config
        model.eval()  # also switches gradient checkpointing, and with it the loss of the cache, off
        yield
    finally:
        for owner, saved in zip(owners, configs, strict=True):
            owner.generation_config = saved
        for module in training:
            module.training = True


@contextmanager
def _private_random_state(device: torch.device) -> Iterator[None]:
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices, device_type=device.type):
        yield


def _seed_generators(device: torch.device, seed: int, batch: int):
    # Not `torch.manual_seed`: it would reseed every accelerator, also those whose state is not restored afterwards.
    # A stream per batch, because the number of draws of a batch depends on when its last completion ends.
    state = int(np.random.SeedSequence([seed, batch]).generate_state(1, np.uint64)[0])
    torch.default_generator.manual_seed(state)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(state)
    elif device.type != "cpu":
        torch.get_device_module(device).manual_seed(state)


class _EntropyRecorder(LogitsProcessor):
    """Records the entropy of each next-token distribution. `generate` runs it before temperature, top-k and top-p."""

    def __init__(self):
        self.steps = []  # a tensor (B,) per generated token

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.steps.append(torch.special.entr(torch.softmax(scores, dim=-1)).sum(-1))
        return scores


@dataclass(frozen=True, eq=False)
class _Batch:
    token_ids: list[list[int]]  # B rows of T, the rest of a finished row being padding
    lengths: np.ndarray  # (B,)
    truncated: np.ndarray  # (B,)
    entropies: np.ndarray  # (B,)


def _generate(model, prompt_ids: list[list[int]], config: GenerationConfig) -> _Batch:
    width = max(len(ids) for ids in prompt_ids)
    padded = [[config.pad_token_id] * (width - len(ids)) + ids for ids in prompt_ids]
    mask = [[0] * (width - len(ids)) + [1] * len(ids) for ids in prompt_ids]
    recorder = _EntropyRecorder()
    output = model.generate(
        input_ids=torch.tensor(padded, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        generation_config=config,
        logits_processor=LogitsProcessorList([recorder]),
    )
    ids = output[:, width:]  # (B, T)
    eos = torch.tensor(config.eos_token_id or [], dtype=ids.dtype, device=ids.device)
    is_eos = torch.isin(ids, eos)
    ended = is_eos.any(dim=1)  # (B,)
    lengths = (is_eos.cumsum(dim=1) == 0).sum(dim=1) + ended  # (B,)
    entropies = torch.stack(recorder.steps, dim=1)[:, : ids.shape[1]]  # (B, T)
    in_completion = torch.arange(ids.shape[1], device=ids.device) < lengths[:, None]
    mean_entropies = torch.where(in_completion, entropies, 0.0).sum(dim=1) / lengths
    return _Batch(ids.tolist(), lengths.cpu().numpy(), (~ended).cpu().numpy(), mean_entropies.cpu().numpy())
