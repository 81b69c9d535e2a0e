"""What decides how many completions each prompt gets: from its counts, or from the whole batch; and the budget."""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from ..checks import check_integer
from .history import PromptHistory


_MEMBERS = ("max_generations", "start_batch", "state_dict", "load_state_dict")
_OF_BATCHES = ("max_generations", "needs_history", "needs_new_prompts", "first_stage", "state_dict", "load_state_dict")


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


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """
    What is known of the P prompts of a batch at some moment, in the order in which they came. All tensors on the CPU.

    Args:
        stage (`int`):
            Stages sampled so far, 0 before the first.
        num_generations (`int`):
            N, the completions that a prompt usually gets.
        num_prompts (`int`):
            Prompts that the batch is to train on.
        num_stages (`Tensor` of shape `(P,)`):
            Stages in which each prompt got completions: fewer than `stage` if it came later, or got none in one.
        num_samples, num_correct, num_judged (`Tensor` of shape `(P,)`):
            Completions of each prompt so far, those that are correct, and those whose correctness is known.
        dropped (`Tensor` of shape `(P,)`):
            Whether the prompt was given up: its completions will not be trained on.
        reward_mean, reward_variance (`Tensor` of shape `(P,)`):
            Of the rewards so far, float64; NaN where there are none. The variance is that of the population.
        num_tokens (`Tensor` of shape `(P,)`):
            Tokens of all its completions.
        places (`np.ndarray` of shape `(P,)`, *optional*), history ([`PromptHistory`], *optional*):
            What was known before this batch, and where each prompt is in it. Without a history, None.
        seed (`int`):
            For random choices: the same on every process, another one for every stage.
        progress (`float`):
            Share of the training done, in [0, 1].
        room (`int`, *optional*):
            Further completions that `max_extra_rollouts` allows in this batch. None: any number.
        find_signal (`Callable`, *optional*):
            What `has_signal` is, once it is read. None: no prompt has a signal.

    Attributes:
        has_signal (`Tensor` of shape `(P,)`):
            Whether the estimator gives any completion of the prompt an advantage other than 0. The estimator is asked
            when this is read, and not otherwise.
    """

    stage: int
    num_generations: int
    num_prompts: int
    num_stages: Tensor
    num_samples: Tensor
    num_correct: Tensor
    num_judged: Tensor
    dropped: Tensor
    reward_mean: Tensor
    reward_variance: Tensor
    num_tokens: Tensor
    places: np.ndarray | None = None
    history: PromptHistory | None = None
    seed: int = 0
    progress: float = 0.0
    room: int | None = None
    find_signal: Callable[[], Tensor] | None = None

    @cached_property
    def has_signal(self) -> Tensor:
        return torch.zeros_like(self.dropped) if self.find_signal is None else self.find_signal()

    @classmethod
    def unsampled(cls, count: int, num_generations: int, num_prompts: int) -> "RolloutBatch":
        """`count` prompts before anything is sampled."""
        zero, no, none = torch.zeros(count).long(), torch.zeros(count).bool(), torch.zeros(count).double() / 0
        return cls(0, num_generations, num_prompts, zero.clone(), zero, zero, zero, no, none, none, zero)

    def __len__(self) -> int:
        return len(self.num_samples)

    def part(self, prompts: Tensor, stage: int) -> "RolloutBatch":
        """Some of the prompts, by their indices, as a batch after `stage` stages."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        columns = {name: value[prompts] for name, value in values.items() if isinstance(value, Tensor)}
        places = None if self.places is None else self.places[prompts.numpy()]
        return replace(self, **columns, stage=stage, places=places, find_signal=lambda: self.has_signal[prompts])

    def posterior(self) -> tuple[Tensor, Tensor]:
        """
        α and β of the Beta distribution of the accuracy of each prompt, from the history and this batch. `(P,)` each.

        Raises:
            `ValueError`: There is no history.
        """
        if self.history is None or self.places is None:
            raise ValueError("An allocator asked for the posterior of the prompts, but this training has no history.")
        alpha, beta = (torch.from_numpy(np.asarray(values)) for values in self.history.posterior(self.places))
        return alpha + self.num_correct, beta + (self.num_judged - self.num_correct)


@dataclass(frozen=True, eq=False)
class Allocation:
    """
    What happens next in a batch.

    Args:
        extra (`Tensor` of shape `(P,)`): further completions of each prompt, integers of at least 0.
        drop (`Tensor` of shape `(P,)`, *optional*): prompts that are given up now, boolean. None by default.
        new_prompts (`int`, *optional*, defaults to `0`): further prompts, which come from the source of prompts.
    """

    extra: Tensor
    drop: Tensor = None  # pyrefly: ignore[bad-assignment]  # None is replaced in `__post_init__`
    new_prompts: int = 0

    if TYPE_CHECKING:  # the constructor takes None where the attribute never is

        def __init__(self, extra: Tensor, drop: Tensor | None = None, new_prompts: int = 0): ...

    def __post_init__(self):
        if self.drop is None and isinstance(self.extra, Tensor):  # else it is refused by the name of the allocator
            object.__setattr__(self, "drop", torch.zeros_like(self.extra, dtype=torch.bool))


class BatchAllocator(Protocol):
    """
    Decides from the whole view of a batch. A user's own class with these members works as well.

        allocator.first_stage(batch)  ->  counts, N for each or others  ->  sample
        allocator(batch)              ->  extra completions, prompts to drop, new prompts  ->  sample  ->  again …

    until nothing is asked for. New prompts get what `first_stage` gives them.
    """

    @property
    def max_generations(self) -> int | None:
        """No prompt ever gets more completions than this in a batch; None: never more than `num_generations`."""

    @property
    def needs_history(self) -> bool:
        """Whether it reads `batch.history`."""
        ...

    @property
    def needs_new_prompts(self) -> bool:
        """Whether it ever asks for other prompts than those of the batch."""
        ...

    def first_stage(self, batch: RolloutBatch) -> Tensor:
        """Completions that each prompt gets in its first stage, shape `(P,)`, integers of at least 0."""
        ...

    def __call__(self, batch: RolloutBatch) -> Allocation:
        """What happens after `batch.stage` stages, at least 1."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        ...


class ByCounts:
    """
    A [`RolloutAllocator`], which knows counts alone, as a [`BatchAllocator`].

    Args:
        allocator ([`RolloutAllocator`]): its first stage is N completions for each prompt.
    """

    needs_history = False
    needs_new_prompts = False

    def __init__(self, allocator: RolloutAllocator):
        self.allocator = allocator

    @property
    def max_generations(self) -> int:
        return self.allocator.max_generations

    def first_stage(self, batch: RolloutBatch) -> Tensor:
        self.allocator.start_batch(batch.progress)
        return torch.full((len(batch),), batch.num_generations)

    def __call__(self, batch: RolloutBatch) -> Allocation:
        extra = self.allocator(batch.stage, batch.num_samples, batch.num_correct, batch.num_judged)
        return Allocation(check_counts_of(self.allocator, extra, batch))

    def state_dict(self) -> dict[str, Any]:
        return self.allocator.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.allocator.load_state_dict(state)


def as_batch_allocator(allocator: RolloutAllocator | BatchAllocator) -> BatchAllocator:
    """
    The allocator itself if it reads whole batches, else wrapped so that it does.

    Raises:
        `ValueError`: It lacks a member of [`BatchAllocator`] or, without `first_stage`, of [`RolloutAllocator`].
    """
    reads_batches = hasattr(allocator, "first_stage")
    kind, members = ("BatchAllocator", _OF_BATCHES) if reads_batches else ("RolloutAllocator", _MEMBERS)
    if missing := [name for name in members if not hasattr(allocator, name)]:
        raise ValueError(f"The rollout allocator {allocator!r} has no {', '.join(missing)}, as a {kind} must.")
    return cast(BatchAllocator, allocator) if reads_batches else ByCounts(cast(RolloutAllocator, allocator))


def check_counts_of(allocator: Any, counts: Any, batch: RolloutBatch) -> Tensor:
    """
    The answer of an allocator, if it is one non-negative integer per prompt and within its cap. Shape `(P,)`, int64.

    Raises:
        `ValueError`: It is anything else.
    """
    wanted = f"must return one non-negative integer per prompt, shape {tuple(batch.num_samples.shape)}"
    if not isinstance(counts, Tensor) or counts.shape != batch.num_samples.shape:
        raise ValueError(f"The rollout allocator {allocator!r} {wanted}, got {counts!r}.")
    counts = counts.cpu()
    try:
        check_counts(counts=counts)
    except ValueError as error:
        raise ValueError(f"The rollout allocator {allocator!r} {wanted}, got {counts!r}.") from error
    counts = counts.long()
    most = int((batch.num_samples + counts).max())
    cap = batch.num_generations if allocator.max_generations is None else allocator.max_generations
    if most > cap and counts.any():
        raise ValueError(
            f"The rollout allocator {allocator!r} asks for {most} completions of one prompt, above its "
            f"`max_generations` of {cap}."
        )
    return counts


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
