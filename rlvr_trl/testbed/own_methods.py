"""Methods of a user's own, trained with the recipe of the comparison: from names, dotted paths and YAML."""

import contextlib
import functools
import hashlib
import inspect
import io
import json
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from ..advantages import ESTIMATORS
from ..checks import first_repeated
from ..plain_yaml import read_yaml, read_yaml_file
from ..registry import did_you_mean, import_by_path
from ..rollouts import ALLOCATORS
from ..script_parser import ScriptParser
from ..terminal import printable
from ..trainer import RLVRConfig, RLVRTrainer
from .cells import BASE, FULL_SIZE
from .comparison_methods import METHODS, RECIPE
from .methods import NUM_GENERATIONS, PROMPTS_PER_STEP, Method


# What a cell sets itself, with what says it instead
GIVEN_BY_CELLS = {
    "learning_rate": "the option --rates gives the learning rates",
    "lr_scheduler_type": "methods are compared at equal rates, which are constant after the warm-up",
    "max_steps": "every cell sees as many prompts as a published one",
    "num_train_epochs": "every cell sees as many prompts as a published one",
    "seed": "a cell has the seed of the published ones",
    "output_dir": "a cell keeps no checkpoints",
    "logging_steps": "a cell logs once a batch",
    "logging_strategy": "a cell logs once a batch",
    "share_prompt_prefill": "a cell always shares it",
    "share_prompt_scoring": "a cell always shares it",
    "disable_tqdm": "a cell has no bar",
    "use_cpu": "a cell finds the device itself",
}


@dataclass(frozen=True)
class OwnMethod(Method):
    """A method of a user's own, with the digests of the code that its dotted paths lead to."""

    sources: dict[str, str] = field(default_factory=dict)


def own_methods(
    estimators: Iterable[str] = (), rollouts: str | None = None, config: str | Path | None = None
) -> dict[str, OwnMethod]:
    """
    Methods by label, each the recipe of the comparison with something of the user's own.

    Args:
        estimators (iterable of `str`):
            Advantage estimators as `RLVRConfig(advantages=…)` takes them: a name, the dotted path of a function, a
            class or an instance, or a mapping in YAML. The label is made of it.
        rollouts (`str`, *optional*):
            An allocator for each of them, or, without any, for the estimator of the recipe.
        config (`str` or `Path`, *optional*):
            A YAML file that maps labels to settings of [`RLVRConfig`].

    Raises:
        `ValueError`: There is no method, one cannot be built, sets what a cell sets, or its label is taken.
    """
    allocation = {} if rollouts is None else {"rollouts": _spec(rollouts, "rollout allocator")}
    given = [{"advantages": _spec(text, "advantage estimator")} | allocation for text in estimators]
    if not given and allocation:
        given = [allocation]
    entries = {} if config is None else read_yaml_file(config, "The file of methods")
    for label, settings in entries.items():
        if not isinstance(settings, Mapping) or not settings:
            raise ValueError(
                f"The method {label!r} of {config} must be a mapping of settings, such as {{advantages: my_module."
                f"my_estimator}}, got {settings!r}."
            )
        if rollouts is not None and "rollouts" in settings:
            raise ValueError(f"The method {label!r} of {config} has rollouts of its own: leave out --rollouts.")
    labels = _labels(given)
    entries = {label: dict(settings) | allocation for label, settings in entries.items()}
    if (twice := first_repeated([*labels, *entries])) is not None:
        raise ValueError(f"Two methods have the label {twice!r}.")
    every = dict(zip(labels, given, strict=True)) | entries
    if not every:
        raise ValueError(
            "There is nothing to train: name an advantage estimator, such as my_module.my_estimator, --rollouts or "
            "--config."
        )
    return {label: _own_method(label, settings) for label, settings in every.items()}


def _spec(text: str, kind: str) -> str | dict:
    """A name as it is, a mapping as such."""
    return read_yaml(text, f"The {kind} {text!r}") if text.lstrip()[:1] == "{" else text


def _labels(given: list[dict[str, Any]]) -> list[str]:
    """Short labels, with whole paths where two would be the same."""
    short = [_label(settings, whole=False) for settings in given]
    labels = [
        label if short.count(label) == 1 else _label(settings, whole=True)
        for label, settings in zip(short, given, strict=True)
    ]
    return [f"{label} (yours)" if label in _taken() else label for label in labels]


def _label(settings: dict[str, Any], whole: bool) -> str:
    return " with ".join(_spec_text(settings[name], whole) for name in ("advantages", "rollouts") if name in settings)


def _spec_text(spec: Any, whole: bool) -> str:
    """`a_grae(base=pass_at_k(k=4))`; of a dotted path the last part, unless it is to be whole."""
    if isinstance(spec, dict) and "name" in spec:
        fields = ", ".join(f"{name}={_spec_text(value, whole)}" for name, value in spec.items() if name != "name")
        return _spec_text(spec["name"], whole) + (f"({fields})" if fields else "")
    if isinstance(spec, list):
        return f"[{', '.join(_spec_text(one, whole) for one in spec)}]"
    return spec.rpartition(".")[2] if isinstance(spec, str) and not whole else str(spec)


@functools.cache
def _taken() -> set[str]:
    """Names and labels of the published rows."""
    return {BASE, "base model", *METHODS, *(method.label for method in METHODS.values())}


def _own_method(label: str, settings: dict[str, Any]) -> OwnMethod:
    if label in _taken():
        raise ValueError(f"The label {label!r} is that of a published row. Choose another.")
    if not label.strip() or printable(label) != label or "\n" in label or "\t" in label:
        raise ValueError(f"A label must be a line of text that can be printed, got {label!r}.")
    names = {one.name for one in fields(RLVRConfig)}
    for name in settings:
        if name in GIVEN_BY_CELLS:
            raise ValueError(f"The method {label!r} sets {name!r}, which it must not: {GIVEN_BY_CELLS[name]}.")
        if name not in names:
            raise ValueError(f"The method {label!r} has an unknown setting {name!r}.{did_you_mean(name, names)}")
    try:
        json.dumps(settings, allow_nan=False)
        settings = _as_read(settings)
        sources = digests_of_sources(settings)
    except ValueError as error:
        raise ValueError(f"The method {label!r}: {error}") from error
    trainer = functools.partial(make_own_trainer, sources=sources)
    return OwnMethod(label, trainer, RLVRConfig, RECIPE | settings, sources=sources)


def _as_read(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as [`RLVRConfig`] reads them, after it has accepted them."""
    method = Method("", RLVRTrainer, RLVRConfig, RECIPE | settings)
    on_cpu = {"output_dir": "unused", "use_cpu": True, "max_steps": 1, "disable_tqdm": True}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of transformers, about its own settings
            (config,) = ScriptParser([RLVRConfig]).parse_settings(method.recipe | on_cpu)
    except TypeError as error:  # of what was compared with a number
        raise ValueError(str(error)) from error
    most = FULL_SIZE.batches * PROMPTS_PER_STEP
    if config.prompts_per_batch is None or config.prompts_per_batch > most:
        raise ValueError(
            f"`prompts_per_batch` must be a number up to {most}, the prompts of a cell, got "
            f"{config.prompts_per_batch}."
        )
    completions, of_a_cell = config.prompts_per_batch * config.num_generations, most * NUM_GENERATIONS
    if completions > of_a_cell:
        raise ValueError(
            f"`prompts_per_batch` x `num_generations` is {completions:,} completions in one batch, and a published "
            f"cell has {of_a_cell:,} in all."
        )
    read = {name: getattr(config, name) for name in settings}
    return {name: read[name] if isinstance(read[name], bool | int | float) else settings[name] for name in settings}


def make_own_trainer(model: Any, rewards: list, config: RLVRConfig, *arguments, sources: dict[str, str], **options):
    """
    The trainer of a cell, made where the user's code is still what it was when the run began.

    Raises:
        `ValueError`: It has been changed in between.
    """
    now = digests_of_sources({"advantages": config.advantages, "rollouts": config.rollouts})
    if changed := changed_sources(sources, now):
        raise ValueError(f"the code of {', '.join(changed)} has been changed since this run began")
    with contextlib.redirect_stdout(io.StringIO()):  # it describes the batch, which is the same in every cell
        return RLVRTrainer(model, rewards, config, *arguments, **options)


# --- what the code of a user was ---


def changed_sources(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The dotted paths whose code differs."""
    return sorted(path for path in {*before, *now} if before.get(path) != now.get(path))


def digests_of_sources(settings: Mapping[str, Any]) -> dict[str, str]:
    """
    A digest of the code behind every dotted path in `advantages` and `rollouts`.

    It covers the source of a function or of a class and its parents, and what these name in their own module:
    functions, classes and constants. What is imported from elsewhere does not count, nor does what has no source.
    """
    paths = {path for name in ("advantages", "rollouts") for path in _dotted_paths(settings.get(name))}
    return {path: _source_digest(import_by_path(path, "object")) for path in sorted(paths)}


def _dotted_paths(spec: Any) -> Iterator[str]:
    if isinstance(spec, str) and spec.lstrip()[:1] == "{":
        spec = read_yaml(spec, f"The setting {spec!r}")
    if isinstance(spec, str):
        if "." in spec and spec not in ESTIMATORS and spec not in ALLOCATORS:
            yield spec
    elif isinstance(spec, dict):
        for name, value in spec.items():
            if name in ("name", "base", "stages"):
                yield from _dotted_paths(value)
    elif isinstance(spec, list):
        for value in spec:
            yield from _dotted_paths(value)


def _source_digest(found: Any) -> str:
    parts: dict[str, str] = {}
    _add_parts(found, "", parts)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _add_parts(found: Any, name: str, parts: dict[str, str]) -> None:
    """Adds the source of an object, and of what it names in its module, by qualified name."""
    if isinstance(found, functools.partial):
        parts[f"{name} arguments"] = _constant([found.args, found.keywords])
        _add_parts(found.func, name, parts)
        return
    found = inspect.unwrap(found)
    if not isinstance(found, type | types.FunctionType | types.MethodType):
        parts[f"{name} fields"] = _constant(found if is_dataclass(found) else getattr(found, "__dict__", {}))
        found = type(found)  # of an instance
    place = f"{found.__module__}.{found.__qualname__}"
    if place in parts or found.__module__.split(".")[0] in ("builtins", "torch", "rlvr_trl"):
        return
    try:
        parts[place] = inspect.getsource(found)
    except (OSError, TypeError):  # of what was made without a file
        parts[place] = ""
    if isinstance(found, type):
        for parent in found.__bases__:
            _add_parts(parent, name, parts)
    module = inspect.getmodule(found)
    for used in _names_used(found):
        value = getattr(module, used, None)
        value = inspect.unwrap(value) if callable(value) else value
        if isinstance(value, type | types.FunctionType) and value.__module__ == found.__module__:
            _add_parts(value, used, parts)
        elif constant := _constant(value):
            parts[f"{found.__module__}.{used}"] = constant


def _names_used(found: Callable) -> set[str]:
    """The global names in the code of a function, or of the functions of a class."""
    if isinstance(found, type):
        members = (member.fget if isinstance(member, property) else member for member in vars(found).values())
        return {name for member in members for name in _names_used(inspect.unwrap(_function(member)))}
    names, waiting = set(), [code] if (code := getattr(found, "__code__", None)) else []
    while waiting:
        code = waiting.pop()
        names |= set(code.co_names)
        waiting += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    return names


def _function(member: Any) -> Any:
    return getattr(member, "__func__", member)  # of a class method or a static method


def _constant(value: Any) -> str:
    """A plain value, or what is made of such, as text; nothing for an object without a text of its own."""
    if isinstance(value, bool | int | float | str):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_constant, value))}]"
    if isinstance(value, dict):
        return _constant([part for pair in value.items() for part in pair])
    if is_dataclass(value) and not isinstance(value, type):
        return type(value).__qualname__ + _constant({one.name: getattr(value, one.name) for one in fields(value)})
    return getattr(value, "__qualname__", "")
