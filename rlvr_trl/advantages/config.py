"""Advantage estimators by name, for YAML files and the command line."""

from typing import Any

from ..naming import build_by_name
from .groups import AdvantageEstimator
from .grpo import GroupRelative
from .pass_at_k import PassAtK


ESTIMATORS: dict[str, type] = {
    "group_relative": GroupRelative,
    "pass_at_k": PassAtK,
}


def build_estimator(spec: str | dict[str, Any]) -> AdvantageEstimator:
    """
    Builds an advantage estimator from its name and fields.

    Args:
        spec (`str` or `dict`):
            `"group_relative"`, or `{"name": "pass_at_k", "k": 8}`.

    Raises:
        `ValueError`: The name or a field is unknown, or a field without a default is missing; lists the valid ones.
    """
    return build_by_name(spec, ESTIMATORS, "advantage estimator")
