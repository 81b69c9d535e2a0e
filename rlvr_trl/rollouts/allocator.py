"""What decides how many completions each prompt gets, and the budget of a batch."""

from typing import Any, Protocol

import torch
from torch import Tensor

from ..checks import check_integer


class RolloutAllocator(Protocol):
    """
    Says after every stage of sampling how many more completions each prompt of the batch gets.

        stage 1: num_generations each -> score -> allocate -> stage 2: the extra ones -> score -> allocate -> …

    until nothing is asked for. A user's own class with these members works as well.
    """

    @property
    def max_generations(self) -> int:
        """No prompt ever gets more completions than this in a batch."""

    def start_batch(self, progress: float) -> None:
        """Called before the first allocation of a batch with the share of training done, in [0, 1]."""

    def __call__(self, stage: int, num_samples: Tensor, num_correct: Tensor, num_judged: Tensor) -> Tensor:
        """
        Extra completions of each prompt after `stage` stages (1 after the first). All zero: done.

        Args:
            stage (`int`):
                Stages sampled so far, at least 1.
            num_samples (`Tensor` of shape `(P,)`):
                Completions sampled so far.
            num_correct (`Tensor` of shape `(P,)`):
                Those that are correct.
            num_judged (`Tensor` of shape `(P,)`):
                Those whose correctness is known. Accuracy is `num_correct / num_judged`.

        Returns:
            `Tensor` of shape `(P,)`: `int64`, not negative, the same on every process for the same counts.
        """

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold, so that a resumed run continues as if never interrupted."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""


def within_budget(extra: Tensor, num_correct: Tensor, num_judged: Tensor, budget: int | None) -> Tensor:
    """
    Caps the extra completions of a batch at a total, the hardest prompts first.

    Prompts are served by ascending accuracy, ties by position, those without a judged completion last. The first one
    that does not fit gets what is left, those after it nothing. Accuracies are compared as integer fractions, exact
    up to 2^20 completions a prompt: every device and process gives the same answer.

    Args:
        extra (`Tensor` of shape `(P,)`):
            Extra completions asked for.
        num_correct (`Tensor` of shape `(P,)`):
            Correct completions so far.
        num_judged (`Tensor` of shape `(P,)`):
            Completions so far whose correctness is known.
        budget (`int`, *optional*):
            Extra completions of the batch at most. `None` for no cap.

    Returns:
        `Tensor` of shape `(P,)`: `int64`, at most `extra`, with a sum of `min(extra.sum(), budget)`.

    Raises:
        `ValueError`: A count is not an integer, is negative or has another shape, `num_correct` is above `num_judged`,
        or `budget` is not an integer of at least 0.
    """
    check_counts(extra=extra)
    check_counts(num_judged=num_judged, num_correct=num_correct)
    if extra.shape != num_judged.shape:
        raise ValueError(
            f"`extra` must have the shape of `num_judged`, {tuple(num_judged.shape)}, got {tuple(extra.shape)}."
        )
    extra = extra.long()
    if budget is None:
        return extra
    check_integer("budget", budget, at_least=0)
    # Two different fractions of denominators up to 2^20 differ by at least 2^-40.
    accuracy = num_correct.long() * 2**40 // num_judged.long().clamp(min=1)
    accuracy = torch.where(num_judged > 0, accuracy, 2**40 + 1)
    order = torch.argsort(accuracy, stable=True)
    wanted = extra[order]  # (P,), hardest first
    left = (budget - (wanted.cumsum(0) - wanted)).clamp(min=0)
    return torch.empty_like(extra).scatter_(0, order, torch.minimum(wanted, left))


def check_counts(**counts: Tensor) -> None:
    """
    Checks named counts of a batch of prompts, each of which must be at most the one before it.

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
