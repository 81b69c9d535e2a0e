"""What decides a run, in words that can be compared: a resumed run is the same one, or says what has changed.

Every checkpoint holds this description, in its manifest. Values are described by their class and fields, functions by
their name and source, the training set by a digest of its rows in their order. What a function calls, and what it
reads from elsewhere, is not described.
"""

import ast
import contextlib
import functools
import hashlib
import inspect
import json
import math
import os
import re
import textwrap
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn

from ..hub.published import default_of, hub_id, is_private, without_places


# Settings that decide how a run is watched, kept, placed and split, but not what is trained
_NEUTRAL = re.compile(
    r"^(logging|log|eval|save|ddp|dataloader|trackio|torch_compile|gradient_checkpointing|activation_checkpointing|"
    r"share_prompt|resume)(_|$)|_eval$|^fsdp|"
    r"^(advantages|rollouts|selection|reward_funcs)$|"  # described by what was made of them
    r"^(prompts_per_batch|prompts_per_update|per_device_(train|eval)_batch_size|gradient_accumulation_steps|"
    r"steps_per_generation|generation_batch_size|auto_find_batch_size|trim_padding|max_tokens_per_micro_batch|"
    r"max_rows_per_generation|pad_to_multiple_of)$|"  # described by prompts, or of no effect beyond rounding
    r"^(disable_tqdm|prediction_loss_only|include_for_metrics|include_num_input_tokens_seen|batch_eval_metrics|"
    r"enable_jit_checkpoint|load_best_model_at_end|metric_for_best_model|greater_is_better|"
    r"restore_callback_states_from_checkpoint|use_cpu|skip_memory_metrics|do_train|do_eval|do_predict|debug|"
    r"local_rank|num_completions_to_print|num_generations_eval|torch_empty_cache_steps|trust_remote_code|"
    r"model_init_kwargs|reward_timeout|parallelism_config|ds3_gather_for_generation|full_determinism)$|"
    r"^vllm_(mode|model_impl|enable_sleep_mode|group_port|gpu_memory_utilization|max_model_length|"
    r"tensor_parallel_size)$|^(use_transformers_paged|transformers_continuous_batching_config|use_cache)$|"
    # of asynchronous training; `dtype` is described by the model
    r"^(request_timeout|weight_sync_timeout|heartbeat_stale_after_s|max_inflight_tasks|queue_maxsize|token_budget|"
    r"fork_threshold_tokens|dtype)$"
)
# What is described besides settings and the batch
PARTS = ("advantages", "rollouts", "selection", "reward_funcs", "train_dataset", "model", "chat_template")
PARTS += ("end_tokens", "tools")
OF_BATCHES = ("prompts_per_batch", "updates_per_batch", "batches_per_update")
# What decides the shape of a batch, and so cannot change where one is half trained
OF_A_BATCH = ("num_generations", "num_iterations", *OF_BATCHES)
SCHEDULE = ("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_steps")
SCHEDULE += ("num_train_epochs",)
OF_THE_OPTIMIZER = {
    "weight_decay": "weight_decay",
    "adam_epsilon": "eps",
    "adam_beta1": "betas",
    "adam_beta2": "betas",
}
LIBRARIES = ("trl", "transformers", "torch", "datasets", "builtins", "functools")  # whose versions are another matter
_FIRST_SEEN: dict[int, tuple[weakref.ref, dict[str, Any]]] = {}  # by the number of an object
LONGEST = 50  # values of a collection that are described one by one
ROWS_AT_ONCE = 1000  # of the training set, that are read for its digest


def check_names_of_changes(names: list[str] | None, config: type, of_batches: Sequence[str] = OF_BATCHES) -> None:
    """
    Refuses names in `resume_with_changes` that nothing compared has.

    Args:
        names (`list[str]`, *optional*): the setting.
        config (`type`): the class of configurations whose fields are compared.
        of_batches (`Sequence[str]`, *optional*): what is compared of a batch.

    Raises:
        `ValueError`: Names one, and what may be named.
    """
    known = [*_settings_compared(config), *PARTS, *of_batches]
    for name in names or ():
        if name not in known:
            raise ValueError(
                f"`resume_with_changes` names {name!r}, which is not compared with the checkpoint. What is: "
                f"{', '.join(sorted(known))}."
            )


def _settings_compared(config: Any) -> dict[str, Any]:
    """The settings that decide a run, with their defaults. A named trainer's own settings make its parts."""
    every = (field for field in fields(config) if not is_private(field.name))
    return {field.name: default_of(field) for field in every if not _NEUTRAL.search(field.name)}


def _describe_setting(value: Any) -> Any:
    return describe_value(_names_for_places(value) if isinstance(value, dict) else value)


def _names_for_places(value: Any) -> Any:
    """A value whose places are replaced by what they name, since folders differ between machines."""
    if isinstance(value, dict):
        return {key: _names_for_places(inner) for key, inner in value.items() if not is_private(str(key))}
    if isinstance(value, (list, tuple)):
        return [_names_for_places(inner) for inner in value]
    if not isinstance(value, str) or without_places(value) is not None:
        return value
    return _digest_of(value.encode()) if "://" in value else os.path.basename(value) or value


def describe_run(
    trainer: Any,
    config: type,
    *,
    reward_funcs: Iterable[Any],
    train_dataset: Any,
    tools: Iterable[Any],
    of_batches: dict[str, Any],
) -> dict[str, Any]:
    """
    What decides the run of a trainer, as JSON can hold it, before it has trained.

    Args:
        trainer ([`RLVRTrainer`] or [`AsyncRLVRTrainer`]): the trainer.
        config (`type`): the class of configurations whose fields are compared.
        reward_funcs, tools (`Iterable`): functions that it was given.
        train_dataset (`Dataset` or `IterableDataset`): its prompts.
        of_batches (`dict`): what decides the shape of its batches.
    """
    args = trainer.args
    settings = {name: _describe_setting(getattr(args, name)) for name in _settings_compared(config)}
    if args.max_steps > 0:
        settings["num_train_epochs"] = None  # of no effect
    tokenizer = getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    return settings | {
        "advantages": describe_value(trainer.advantages),
        "rollouts": describe_value(trainer.rollouts),
        "selection": describe_value(trainer.selection),
        "reward_funcs": [describe_value(function) for function in reward_funcs],
        "train_dataset": _describe_dataset(train_dataset),
        "model": _describe_model(trainer.model, getattr(trainer, "ref_model", None)),
        "chat_template": describe_value(getattr(tokenizer, "chat_template", None)),
        "end_tokens": _describe_end_tokens(trainer.model, tokenizer),
        "tools": [describe_value(each) for each in tools],
        **of_batches,
    }


def changes_of_run(saved: dict[str, Any], now: dict[str, Any], config: type) -> dict[str, list[str]]:
    """
    Each name whose value differs between two descriptions, with the differences in words.

    A setting that the version did not have which wrote the first one, counts as its default. Of a part that it did not
    describe nothing is known.
    """
    defaults = _settings_compared(config)
    new = {name: _describe_setting(default) for name, default in defaults.items() if name not in saved}
    return {
        name: [f"{place}: {_short(before)} -> {_short(after)}" for place, before, after in found]
        for name in now | saved
        if (name in saved or name in new)
        and (found := list(_differences(name, (new | saved).get(name), now.get(name))))
    }


def in_lines(changes: dict[str, list[str]], names: list[str]) -> str:
    return "\n".join(f"  {line}" for name in names for line in changes[name])


def _differences(place: str, before: Any, after: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict) and before.get("class") == after.get("class"):
        of_object = "class" in before  # which may have got a further field since, with a default
        for key in before if of_object else before | after:
            yield from _differences(f"{place}.{key}", before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{place}[{i}]", one, other)
    elif before != after:
        yield place, before, after


def _short(value: Any) -> str:
    if isinstance(value, dict) and "class" in value:
        return str(value["class"]).rpartition(".")[2]
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


# --- descriptions ---


def describe_value(value: Any, within: tuple[int, ...] = ()) -> Any:
    """
    A value as JSON can hold it: the same for equal values in every process, whatever it is.

    Args:
        value: anything.
        within (`tuple[int, ...]`): ids of the objects that it was found in.
    """
    inner = functools.partial(describe_value, within=within)
    if value is None or isinstance(value, (bool, str)):
        return value if not isinstance(value, str) or len(value) <= 200 else _digest_of(value.encode())
    if isinstance(value, Enum):
        return inner(value.value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else repr(number)
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {key: inner(each) for key, each in value.items() if not is_private(key)}
        return [[inner(key), inner(each)] for key, each in value.items()]  # such as weights of functions
    if isinstance(value, (list, tuple)):
        return [inner(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((inner(each) for each in value), key=repr)
    if isinstance(value, (np.ndarray, torch.Tensor)):
        array = value.detach().cpu().double().numpy() if isinstance(value, torch.Tensor) else value
        return {"shape": list(array.shape), "digest": _digest_of(np.ascontiguousarray(array).tobytes())}
    return _describe_object(value, within)


def _describe_object(value: Any, within: tuple[int, ...]) -> dict[str, Any]:
    within_this = (*within, id(value))

    def inner(held: Any) -> Any:
        return _bounded(describe_value(held, within_this))

    if isinstance(value, functools.partial):
        return {"class": "partial"} | {name: inner(getattr(value, name)) for name in ("func", "args", "keywords")}
    is_function = inspect.isroutine(value) or isinstance(value, type)
    kind = value if is_function else type(value)
    module = kind.__module__ or ""
    is_own = module.startswith("rlvr_trl.")  # where modules within a package may move
    is_of_user = not is_own and module.partition(".")[0] not in LIBRARIES
    # what is the user's has another module where its file is the script
    module = "" if is_of_user else f"{'.'.join(module.split('.')[:2]) if is_own else module}."
    described: dict[str, Any] = {"class": f"{module}{kind.__qualname__}"}
    if is_of_user and (is_function or callable(value) or is_dataclass(value)):
        described["source"] = _digest_of_source(kind)
    if id(value) in within:
        return described
    if is_function:
        described |= _as_first_seen(getattr(value, "__func__", value), _held_by, inner)
        return described | ({"of": _describe_owner(value, inner)} if inspect.ismethod(value) else {})
    if isinstance(value, nn.Module):
        path = getattr(getattr(value, "config", None), "_name_or_path", "")
        return described | {"name": hub_id(path) or os.path.basename(path)}
    if is_dataclass(value):
        return described | {field.name: inner(getattr(value, field.name)) for field in fields(value) if field.init}
    is_reward = is_of_user or is_own or module.startswith("trl.rewards.")
    if not callable(value) or not is_reward:
        return described  # a tool of the functions above, such as a pool or a tokenizer
    return described | _as_first_seen(value, _attributes_of_own if is_own else _attributes, inner)


def _as_first_seen(holder: Any, held_by: Callable[[Any], dict[str, Any]], inner: Callable) -> dict[str, Any]:
    """
    What an object or function of a user holds, without secrets and places, as it was when this process first described
    it: what counts its calls, or keeps answers, is another one after a training.
    """
    known = _FIRST_SEEN.get(id(holder))
    if known is not None and known[0]() is holder:
        return known[1]
    described = {name: inner(held) for name, held in held_by(holder).items() if not is_private(name)}
    with contextlib.suppress(TypeError):  # not all can be referred to
        _FIRST_SEEN[id(holder)] = weakref.ref(holder), described
    return described


def _bounded(described: Any) -> Any:
    """A collection of many values by its digest, such as the answers that a reward function looks up."""
    if not isinstance(described, (dict, list)) or "class" in described or len(described) <= LONGEST:
        return described
    return {"length": len(described), "digest": _digest_of(json.dumps(described).encode())}


def _attributes(value: Any) -> dict[str, Any]:
    slots = [name for kind in type(value).__mro__ for name in getattr(kind, "__slots__", ()) if hasattr(value, name)]
    held = {name: getattr(value, name) for name in slots} | getattr(value, "__dict__", {})
    return {name: each for name, each in held.items() if not name.startswith("__")}


def _attributes_of_own(value: Any) -> dict[str, Any]:
    return {name: each for name, each in _attributes(value).items() if not name.startswith("_")}


def _held_by(function: Any) -> dict[str, Any]:
    """What a function has besides its source: the values that it was made with, which include what it wraps."""
    held: dict[str, Any] = {}
    code = getattr(function, "__code__", None)
    if code is None:
        return held
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a cell that is still empty
            held[name] = cell.cell_contents
    defaults = function.__defaults__ or ()
    held |= zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults, strict=True)
    return held | (function.__kwdefaults__ or {})


def _describe_owner(method: Any, inner: Any) -> Any:
    owner = method.__self__
    described = inner(owner)
    if isinstance(owner, type) or not isinstance(described, dict) or callable(owner):
        return described
    return described | _as_first_seen(owner, _attributes, inner)


def _digest_of_source(function: Any) -> str | None:
    """Of a function or class, without comments and layout; None where there is none, as in C."""
    try:
        # not that of what it wraps, which `inspect` would take
        source = textwrap.dedent(inspect.getsource(getattr(function, "__code__", function)))
    except (OSError, TypeError):
        return None
    with contextlib.suppress(SyntaxError, RecursionError):  # a part of a statement, as a lambda among arguments
        source = ast.unparse(ast.parse(source))
    return _digest_of(source.encode())


def _digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _describe_dataset(dataset: Any) -> dict[str, Any] | None:
    """The number of rows, the columns, and a digest of all rows in their order; of a stream only that it is one."""
    if not isinstance(dataset, Dataset):
        return None if dataset is None else {"stream": type(dataset).__name__}
    digest = hashlib.sha256()
    # Arrow's own values: images are not decoded, and a transform of the user is not run
    for table in dataset.with_format("arrow").iter(ROWS_AT_ONCE):
        for row in table.to_pylist():  # pyrefly: ignore[missing-attribute]  # with that format it is a table
            digest.update(json.dumps(_without_paths(row), default=_plain_content).encode())
    return {"rows": len(dataset), "columns": list(dataset.column_names), "digest": digest.hexdigest()[:16]}


def _without_paths(value: Any) -> Any:
    """Images and sounds by their bytes, or where these are in a file by its name: folders differ between machines."""
    if isinstance(value, dict):
        if value.keys() == {"bytes", "path"}:
            return value["bytes"] or os.path.basename(value["path"] or "")
        return {key: _without_paths(inner) for key, inner in value.items()}
    return [_without_paths(inner) for inner in value] if isinstance(value, list) else value


def _plain_content(value: Any) -> str:
    return _digest_of(bytes(value)) if isinstance(value, (bytes, bytearray)) else str(value)


def _describe_end_tokens(model: Any, tokenizer: Any) -> dict[str, Any]:
    """What ends a completion."""
    of_model = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return {"tokenizer": getattr(tokenizer, "eos_token", None), "model": describe_value(of_model)}


def _describe_model(model: Any, reference: Any) -> dict[str, Any]:
    described = {"name": type(model).__name__, "dtype": str(getattr(model, "dtype", None)).removeprefix("torch.")}
    # weights that no checkpoint holds
    fixed = {"base": model if getattr(model, "peft_config", None) else None, "reference": reference}
    for what, each in fixed.items():
        if each is not None:
            path = getattr(getattr(each, "config", None), "_name_or_path", "") or ""
            described[what] = os.path.basename(path.rstrip("/"))
    for name, config in getattr(model, "peft_config", {}).items():
        settings = {key: value for key, value in config.to_dict().items() if key not in _OF_NO_ADAPTER}
        described[f"adapter {name}"] = describe_value(settings)
    return described


_OF_NO_ADAPTER = ("base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping")
