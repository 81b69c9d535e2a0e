"""Objects by name, for YAML files and the command line."""

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any


def build_by_name(spec: str | dict[str, Any], choices: Mapping[str, type], kind: str) -> Any:
    """
    Builds one of several dataclasses from its name and fields.

    Args:
        spec (`str` or `dict`):
            The name alone, `"group_relative"`, or with fields, `{"name": "pass_at_k", "k": 8}`.
        choices (`Mapping[str, type]`):
            The dataclass behind each name.
        kind (`str`):
            What is built, for the errors: `"advantage estimator"`.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    settings = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(settings, dict) or "name" not in settings:
        raise ValueError(f"The {kind} must be a name or a dict with the key 'name', got {spec!r}.")
    settings = dict(settings)
    name = settings.pop("name")
    if not isinstance(name, str) or name not in choices:
        raise ValueError(f"Unknown {kind} {name!r}. Valid names: {', '.join(sorted(choices))}.")
    known = {
        field.name: field.default is MISSING and field.default_factory is MISSING
        for field in fields(choices[name])
        if field.init
    }
    unknown = [key for key in settings if key not in known]
    missing = [key for key, required in known.items() if required and key not in settings]
    if unknown or missing:
        problem = f"has no field {unknown[0]!r}" if unknown else f"needs the field {missing[0]!r}"
        raise ValueError(f"{kind.capitalize()} {name!r} {problem}. Its fields: {', '.join(known)}.")
    return choices[name](**settings)
