"""Advantage estimators by name, for YAML files and the command line."""

from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

from .grpo import GroupRelative
from .pass_at_k import PassAtK


ESTIMATORS: dict[str, Callable] = {
    "group_relative": GroupRelative,
    "pass_at_k": PassAtK,
}


def build_estimator(spec: str | dict[str, Any]):
    """
    Builds an advantage estimator from its name and fields.

    Args:
        spec (`str` or `dict`):
            `"group_relative"`, or `{"name": "pass_at_k", "k": 8}`.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    settings = {"name": spec} if isinstance(spec, str) else spec
    if not isinstance(settings, dict) or "name" not in settings:
        raise ValueError(f"An advantage estimator is a name or a dict with the key 'name', got {spec!r}.")
    settings = dict(settings)
    name = settings.pop("name")
    if name not in ESTIMATORS:
        raise ValueError(f"Unknown advantage estimator {name!r}. Valid names: {', '.join(sorted(ESTIMATORS))}.")
    known = {field.name: field.default is MISSING for field in fields(ESTIMATORS[name])}
    unknown = [key for key in settings if key not in known]
    missing = [key for key, required in known.items() if required and key not in settings]
    if unknown or missing:
        problem = f"has no field {unknown[0]!r}" if unknown else f"needs the field {missing[0]!r}"
        raise ValueError(f"Advantage estimator {name!r} {problem}. Its fields: {', '.join(known)}.")
    return ESTIMATORS[name](**settings)
