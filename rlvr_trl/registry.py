"""Builds objects from their names, for YAML files and the command line."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, signature
from typing import Any


def build_by_name(
    spec: str | dict[str, Any],
    choices: Mapping[str, Callable[..., Any]],
    kind: str,
    nested: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Any:
    """
    Builds one of several objects from its name and fields.

    Args:
        spec (`str` or `dict`):
            The name alone, `"group_relative"`, or with fields, `{"name": "pass_at_k", "k": 8}`.
        choices (`Mapping[str, Callable]`):
            The dataclass or function behind each name. Its parameters are the fields.
        kind (`str`):
            What is built, for error messages: `"advantage estimator"`.
        nested (`Mapping[str, Callable]`, *optional*):
            For each field whose value is itself given by name, the function that builds it.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    settings = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(settings, dict) or "name" not in settings:
        raise ValueError(f"The {kind} must be a name or a dict with the key 'name', got {spec!r}.")
    settings = dict(settings)
    name = settings.pop("name")
    if not isinstance(name, str) or name not in choices:
        raise ValueError(f"Unknown {kind} {name!r}. Valid names: {', '.join(choices)}.")
    known = signature(choices[name]).parameters
    unknown = [key for key in settings if key not in known]
    missing = [key for key, field in known.items() if field.default is Parameter.empty and key not in settings]
    if unknown or missing:
        problem = f"has no field {unknown[0]!r}" if unknown else f"needs the field {missing[0]!r}"
        raise ValueError(f"{kind.capitalize()} {name!r} {problem}. Its fields: {', '.join(known) or 'none'}.")
    for key, build in (nested or {}).items():
        if key in settings:
            settings[key] = build(settings[key])
    return choices[name](**settings)


def import_by_path(path: str, kind: str) -> Callable[..., Any]:
    """
    The function, class or callable object at a dotted path, `my_package.my_module.my_function`.

    The current folder is searched last, so that no file in it takes the place of an installed package. An error inside
    the module is raised as it is.

    Raises:
        `ValueError`: There is no such module, it has no such name, or what is there cannot be called.
    """
    module_name, _, name = path.rpartition(".")
    if os.getcwd() not in sys.path and "" not in sys.path:  # a console script does not search it
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name != missing and not module_name.startswith(f"{missing}."):
            raise  # a module that the user's own imports
        raise ValueError(
            f"Unknown {kind} {path!r}: there is no module {missing!r}, neither installed nor in {os.getcwd()}."
        ) from error
    found = getattr(module, name, None)
    if not callable(found):
        where = f"the module {module_name} ({getattr(module, '__file__', None) or 'a folder'})"
        public = [other for other in vars(module) if not other.startswith("_")]
        if hasattr(module, name):
            raise ValueError(f"{kind.capitalize()} {path!r} cannot be called: {name} in {where} is {found!r}.")
        raise ValueError(f"Unknown {kind} {path!r}: {where} has no {name!r}.{did_you_mean(name, public)}")
    return found


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """The choice that a misspelt word is closest to, as a question to put after an error; empty if none is close."""
    names = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(word.lower(), names, n=1)
    return f" Did you mean {names[close[0]]!r}?" if close else ""
