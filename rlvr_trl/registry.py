"""Builds objects from their names, for YAML files and the command line."""

from collections.abc import Callable, Mapping
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
