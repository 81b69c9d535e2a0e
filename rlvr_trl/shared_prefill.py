"""
Prompts read once where a batch holds many completions of each: in `generate`, and where completions are scored.

transformers reads the prompt of every row, also where rows are the same prompt: with 16 completions of each prompt, 15
of 16 rows of this first forward pass repeat another one. Here that pass gets each distinct prompt once, and then its
cache and logits are copied to all rows of the prompt:

    rows a a a b b a  ->  first pass of a b  ->  cache and logits of a a a b b a  ->  sampling as before

What is sampled is the same but for rounding: a matrix product of fewer rows may differ in the last bit. So are the
log-probabilities of completions and their gradient, which flows through the copies of the cache: as with the shared
prefixes of arXiv 2506.05433, but without a kernel of its own.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor
from transformers import DynamicCache


CACHE = ("cache", "past_key_values")  # the argument of `forward` since transformers 5.24, and before
ATTENTION_LAYERS = {"DynamicLayer", "DynamicSlidingWindowLayer"}  # of a DynamicCache
BY_ROW = ("input_ids", "attention_mask", "position_ids")  # what the first pass reads, `(B, P)` each


def why_prefill_is_not_shared(model) -> str | None:
    """
    Why the prompts of a model cannot be read once for many rows, as the end of a sentence. `None` where they can.

    They can for decoders of text that keep what they have read in a [`~transformers.DynamicCache`], whatever its
    layers: full or sliding attention, linear attention, or both.
    """
    kind = type(base_model(model))
    if any(config.is_prompt_learning for config in getattr(model, "peft_config", {}).values()):
        return "its adapter puts virtual tokens before each prompt"
    if model.config.is_encoder_decoder:
        return f"{kind.__name__} is an encoder-decoder model"
    if model.config.get_text_config() is not model.config:
        return f"{kind.__name__} takes more than text"
    takes_cache = inspect.signature(kind.forward).parameters.keys() & set(CACHE)
    if not takes_cache or not kind._supports_default_dynamic_cache():
        return f"{kind.__name__} keeps what it has read in something else than a DynamicCache"
    return None


def why_scoring_is_not_shared(model) -> str | None:
    """
    Why the prompts of a model cannot be read once for many completions that are scored or trained on, as the end of a
    sentence. `None` where they can: as for generation, if all layers attend to what was read and to nothing later, so
    that completions of any length can follow it, and no router counts its tokens.
    """
    if why := why_prefill_is_not_shared(model):
        return why
    name = type(base_model(model)).__name__
    layers = {type(layer).__name__ for layer in DynamicCache(config=model.config).layers}
    if others := layers - ATTENTION_LAYERS:
        return f"{name} has other layers than attention ({', '.join(sorted(others))})"
    if any(getattr(module, "is_causal", True) is False for module in model.modules()):
        return f"{name} attends to later tokens"
    if getattr(model.config, "output_router_logits", False):
        return f"{name} balances its experts by the tokens of every row"
    return None


def base_model(model):
    """The model whose forward pass `generate` calls: the one under an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def shared_scoring(model, width: int) -> Iterator[None]:
    """
    A context for the forward passes that score completions, with or without a gradient, in which each distinct prompt
    is read once and its completions follow with copies of the cache. The gradient flows through the copies.

    Args:
        model ([`~transformers.PreTrainedModel`] or PEFT model): the model that scores, not wrapped for training on
            several processes.
        width (`int`): columns of completions; those before are the prompts, padded on the left.
    """
    backbone = base_model(model).base_model
    usual, own = backbone.forward, vars(backbone).get("forward")
    name = next(name for name in CACHE if name in inspect.signature(type(backbone).forward).parameters)

    def read_once(input_ids: Tensor, attention_mask: Tensor, **kwargs):
        prompts = torch.cat([input_ids[:, :-width], attention_mask[:, :-width]], dim=1)  # (B, 2P)
        no_prompts = prompts.shape[1] == 0  # torch.unique takes none
        distinct, rows = (prompts, prompts) if no_prompts else torch.unique(prompts, dim=0, return_inverse=True)
        if len(distinct) == len(rows):
            return usual(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        ids, mask = distinct.chunk(2, dim=1)
        cache = DynamicCache(config=backbone.config)
        of_prompts = usual(input_ids=ids, attention_mask=mask, **kwargs | {"use_cache": True, name: cache})
        cache.reorder_cache(cast(torch.LongTensor, rows))
        output = usual(
            input_ids=input_ids[:, -width:], attention_mask=attention_mask, **kwargs | {"use_cache": True, name: cache}
        )
        output.last_hidden_state = torch.cat([of_prompts.last_hidden_state[rows], output.last_hidden_state], dim=1)
        return output

    backbone.forward = read_once
    try:
        yield
    finally:
        del backbone.forward
        if own is not None:
            backbone.forward = own


@contextmanager
def shared_prefill(model) -> Iterator[None]:
    """
    A context for one call of `generate`, whose prompts are read once for all rows that hold the same one.

    Args:
        model ([`~transformers.PreTrainedModel`] or PEFT model): the model whose `generate` is called, not wrapped for
            training on several processes.

    Raises:
        ValueError: from `generate`, the model reads more than tokens, or keeps what it has read in something else than
            a `DynamicCache`.
    """
    module = base_model(model)
    prefill = _Prefill(type(module).__name__)
    hooks = [
        module.register_forward_pre_hook(prefill.take_distinct, with_kwargs=True),
        module.register_forward_hook(prefill.copy_to_rows, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Prefill:
    """The hooks of a model: they change its first forward pass, which reads the prompts, and no later one."""

    def __init__(self, name: str):
        self.name, self.is_over = name, False
        # while the pass runs: its cache, and the prompt of each row, (B,)
        self.copies: tuple[DynamicCache, torch.LongTensor] | None = None

    def take_distinct(self, module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        if self.is_over:
            return None
        self.is_over = True
        cache = self._checked_cache(kwargs)
        read = [kwargs[name] for name in ("input_ids", "attention_mask") if kwargs.get(name) is not None]
        distinct, prompt_of_row = torch.unique(torch.cat(read, dim=1), dim=0, return_inverse=True)  # (U, …), (B,)
        num_rows, num_prompts = len(prompt_of_row), len(distinct)
        if num_prompts == num_rows:
            return None
        self.copies = cache, cast(torch.LongTensor, prompt_of_row)
        rows = torch.arange(num_rows, device=prompt_of_row.device)
        first = rows.new_full((num_prompts,), num_rows).scatter_reduce(0, prompt_of_row, rows, "amin")  # (U,)
        return args, kwargs | {name: kwargs[name][first] for name in BY_ROW if kwargs.get(name) is not None}

    def copy_to_rows(self, module, args: tuple, kwargs: dict, output):
        if self.copies is not None:
            (cache, rows), self.copies = self.copies, None
            cache.reorder_cache(rows)  # of beam search, which also copies rows
            output.logits = output.logits[rows]
        return output

    def _checked_cache(self, kwargs: dict) -> DynamicCache:
        others = [name for name, value in kwargs.items() if isinstance(value, Tensor) and name not in BY_ROW]
        if others:
            raise ValueError(f"Prompts cannot be read once for many completions: {self.name} also reads {others}.")
        cache = next((kwargs[name] for name in CACHE if kwargs.get(name) is not None), None)
        if type(cache) is not DynamicCache:
            raise ValueError(
                f"Prompts cannot be read once for many completions: {self.name} generates with "
                f"{type(cache).__name__} as its cache, which must be DynamicCache."
            )
        shapes = [tuple(kwargs[name].shape) for name in BY_ROW if kwargs.get(name) is not None]
        if len(set(shapes)) != 1 or len(shapes[0]) != 2:
            raise ValueError(
                f"Prompts cannot be read once for many completions: what {self.name} reads has the shapes {shapes}, "
                f"which must be one of rows and columns."
            )
        return cache
