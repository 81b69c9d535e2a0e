"""Checks of settings and counts, in one place so that every allocator refuses the same things in the same words."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any

import torch
from torch import Tensor


def check_integer(name: str, value: Any, at_least: int) -> None:
    """Raises a `ValueError` that names the setting unless `value` is an integer of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"`{name}` must be an integer of at least {at_least}, got {value!r}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises a `ValueError` that names the setting and the valid words unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_counts(**counts: Tensor) -> None:
    """
    Checks counts of a batch of prompts, each named and at most the one before it.

    Args:
        counts (`Tensor` of shape `(P,)`):
            Integers, largest first: `num_samples=…, num_judged=…, num_correct=…`.

    Raises:
        `ValueError`: A dtype is not an integer one, shapes differ, a count is negative, or larger than the one before.
    """
    above = None
    for name, count in counts.items():
        if not _is_integer_tensor(count):
            found = f"dtype {count.dtype}" if isinstance(count, Tensor) else repr(count)
            raise ValueError(f"`{name}` must be an integer tensor, got {found}.")
        if above is not None and count.shape != counts[above].shape:
            raise ValueError(
                f"`{name}` must have the shape of `{above}`, {tuple(counts[above].shape)}, got {tuple(count.shape)}."
            )
        if (count < 0).any():
            raise ValueError(f"`{name}` must not be negative, got {int(count.min())}.")
        if above is not None and (wrong := count > counts[above]).any():
            raise ValueError(
                f"`{name}` must be at most `{above}`, got {int(count[wrong][0])} of {int(counts[above][wrong][0])}."
            )
        above = name


def _is_integer_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and not (
        value.is_floating_point() or value.is_complex() or value.dtype == torch.bool
    )
