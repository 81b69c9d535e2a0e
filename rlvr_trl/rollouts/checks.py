"""Checks of counts, in one place so that every allocator refuses the same things in the same words."""

from typing import Any

import torch
from torch import Tensor


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
