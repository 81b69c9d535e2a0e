"""Builds objects from their names or their dotted paths, for YAML files and the command line."""

import difflib
import importlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from inspect import Parameter, isclass, signature
from typing import Any

from .plain_yaml import read_yaml


def build_by_name(
    spec: str | dict[str, Any],
    choices: Mapping[str, Callable[..., Any]],
    kind: str,
    nested: Mapping[str, Callable[[Any], Any]] | None = None,
) -> Any:
    """
    Builds one of several objects from its name and fields, or one of the user's own from its dotted path.

    A dotted path, `my_package.my_function`, is imported, also from the current folder. A function stands for itself; a
    class is called with the fields, and so is a function that is given fields. Importing runs code: a path must come
    from the user, never from a dataset or the Hub.

    Args:
        spec (`str` or `dict`):
            The name or path alone, `"group_relative"`; with fields, `{"name": "pass_at_k", "k": 8}`; or the latter as
            YAML or JSON, `"{name: pass_at_k, k: 8}"`.
        choices (`Mapping[str, Callable]`):
            The dataclass or function behind each name. Its parameters are the fields.
        kind (`str`):
            What is built, for error messages: `"advantage estimator"`.
        nested (`Mapping[str, Callable]`, *optional*):
            For each field whose value is itself given by name, the function that builds it.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
        Nothing is found at a dotted path, or what is there cannot be called.
    """
    name, fields = name_and_fields(spec, kind)
    if name in choices:
        maker, is_made = choices[name], True
    elif _is_dotted_path(name):
        maker = import_by_path(name, kind)
        is_made = bool(fields) or isclass(maker)
    else:
        raise ValueError(
            f"Unknown {kind} {name!r}.{did_you_mean(name, choices)} Valid names: {', '.join(choices)}; or the dotted "
            f"path of your own, my_package.my_name."
        )
    if not is_made:
        return maker
    _check_fields(fields, maker, f"{kind.capitalize()} {name!r}")
    built = maker(**{key: nested[key](value) if nested and key in nested else value for key, value in fields.items()})
    if not callable(built):
        raise ValueError(f"{kind.capitalize()} {name!r} makes a {type(built).__name__}, which cannot be called.")
    return built


def name_and_fields(spec: Any, kind: str) -> tuple[str, dict[str, Any]]:
    """
    The name and the fields of a spec as [`build_by_name`] takes it.

    Raises:
        `ValueError`: It is neither a name nor a dict with one.
    """
    settings = read_yaml(spec, f"The {kind} {spec!r}") if isinstance(spec, str) and spec.lstrip()[:1] == "{" else spec
    settings = {"name": settings} if isinstance(settings, str) else settings
    if not isinstance(settings, dict) or "name" not in settings:
        raise ValueError(f"The {kind} must be a name or a dict with the key 'name', got {spec!r}.")
    fields = dict(settings)
    name = fields.pop("name")
    if not isinstance(name, str):
        raise ValueError(f"Unknown {kind} {name!r}: a name is text.")
    return name, fields


def _check_fields(fields: dict[str, Any], maker: Callable, whose: str) -> None:
    """Raises a `ValueError` unless the fields are those that the maker takes."""
    parameters = signature(maker).parameters.values()
    known = [one.name for one in parameters if one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    takes_any = any(one.kind is Parameter.VAR_KEYWORD for one in parameters)
    unknown = [key for key in fields if key not in known and not takes_any]
    missing = [
        one.name
        for one in parameters
        if one.name in known and one.default is Parameter.empty and one.name not in fields
    ]
    if unknown or missing:
        problem = f"has no field {unknown[0]!r}" if unknown else f"needs the field {missing[0]!r}"
        hint = did_you_mean(unknown[0], known) if unknown else ""
        raise ValueError(f"{whose} {problem}.{hint} Its fields: {', '.join(known) or 'none'}.")


def _is_dotted_path(name: str) -> bool:
    return "." in name and all(part.isidentifier() for part in name.split("."))


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
