"""Checks of settings, so that every part of the toolkit refuses the same things in the same words."""

from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def check_integer(name: str, value: Any, at_least: int) -> None:
    """Raises a `ValueError` that names the setting unless `value` is an integer of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"`{name}` must be an integer of at least {at_least}, got {value!r}.")


def check_positive(name: str, value: float) -> None:
    """Raises a `ValueError` that names the setting unless `value` is a number above 0."""
    if not isinstance(value, Real) or not value > 0:
        raise ValueError(f"`{name}` must be a positive number, got {value!r}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises a `ValueError` that names the setting and the valid words unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")
