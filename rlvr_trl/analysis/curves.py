"""Advantages of a group as a function of its accuracy, from the estimators that train.

The sum of |A| over a group says how much of the gradient its prompt gets: a method learns most from the difficulty at
which it peaks. Nothing is computed from a formula here: the estimator is called on groups of every possible number of
correct completions.
"""

from dataclasses import dataclass, replace
from math import ceil

import numpy as np
import torch
from torch import Tensor

from ..advantages import AdvantageEstimator, PromptRecord, RolloutGroups
from ..advantages.groups import estimate_advantages
from ..checks import check_integer
from ..rollouts import BatchAllocator, PromptHistory, RolloutAllocator, RolloutBatch
from ..rollouts.allocator import ByCounts, as_batch_allocator, check_counts_of


_TOLERANCE = 1e-3  # of the accuracy of the batch
_ROUNDING = 1e-9  # what two sums of |A| may differ by and still be one
_SEEN_BEFORE = 2**10  # times the group size: completions of each prompt in the history


@dataclass(frozen=True)
class AdvantageCurves:
    """
    What a group of each accuracy gets. All arrays have shape `(n + 1,)`: one value for c = 0…n correct of the first n.

    Args:
        accuracy: c/n.
        group_size: Completions of the group: n and those of the extra stage.
        total: Σ|A| over the group.
        total_correct, total_wrong: Its two parts, of the correct and of the wrong completions.
        positive: Advantage A⁺ of a correct completion (the mean, where they differ); NaN at c = 0.
        negative: Advantage A⁻ of a wrong completion, likewise; NaN at c = n.
        batch_accuracy: Accuracy of the whole batch that the groups were part of.
    """

    accuracy: np.ndarray
    group_size: np.ndarray
    total: np.ndarray
    total_correct: np.ndarray
    total_wrong: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    batch_accuracy: float

    @property
    def num_correct(self) -> np.ndarray:
        return np.arange(len(self.accuracy))

    @property
    def relative(self) -> np.ndarray:
        """`total` in shares of its largest value; 0 where all of it is 0."""
        return self.total / max(self.total.max(), np.finfo(float).tiny)

    @property
    def family(self) -> str:
        """
        Which prompts get most: `"hard"` or `"easy"` if `total` is largest at an accuracy below 0.4 or above 0.6,
        `"middle"` if between them, and `"all alike"` if its smallest value is at least 9/10 of the largest.
        """
        if self.total.min() >= 0.9 * self.total.max():  # or all are 0
            return "all alike"
        largest = self.accuracy[self.relative > 1 - _ROUNDING].mean()  # of several, what lies between them
        return "hard" if largest < 0.4 else "easy" if largest > 0.6 else "middle"


def advantage_curves(
    estimator: AdvantageEstimator,
    num_samples: int,
    *,
    rollouts: RolloutAllocator | BatchAllocator | None = None,
    batch_accuracy: float = 0.5,
) -> AdvantageCurves:
    """
    Σ|A|, A⁺ and A⁻ of an estimator for groups with 0…n correct completions and rewards of 0 and 1.

    All groups are in one batch, with filler groups of n completions that bring the accuracy of the batch to
    `batch_accuracy`, for estimators that look beyond the group (ω of [`AGRAE`], `GroupRelative("batch")`). There are
    at least as many fillers as other groups, and they alone have entropy: [`AdaptivePassAtK`] gives Pass@1 to the
    prompts of high entropy, so the curve shows its Pass@k side. Lengths are 1, seed and progress 0. The order within a
    group is random but always the same; an estimator that samples is shown with one draw. Log-probabilities are random
    and have nothing to do with what is right. The right completions of a group have one answer, and each wrong one has
    one of its own. None is cut off, and correctness is the only reward function. The history of a prompt has seen it
    1024 n times with its accuracy. Advantages are those of completions, before any token is shaped.

    With `rollouts`, a group is the expected one after the first extra stage (an allocator's further rounds are left
    out): n + Δ(c) completions of the same accuracy, hence (n + Δ)·c/n correct ones. Where that is not an integer, each
    value is interpolated linearly between the two neighbouring counts. With Dr. GRPO the result is below
    `(n + Δ)·2a(1 − a)` by at most `1 / 2(n + Δ)`.

    An allocator of whole batches decides for a batch of one prompt of each accuracy, which are also those that share
    what it has to give. A prompt that it gives up has no sum of |A|; the prompts that it asks for instead are left
    out.

    Args:
        estimator (`AdvantageEstimator`):
            Any estimator, including a function of your own.
        num_samples (`int`):
            Completions of the first stage, n.
        rollouts (`RolloutAllocator` or `BatchAllocator`, *optional*):
            Asked for its first stage, if it has one of its own, and once after it. By default n completions each.
        batch_accuracy (`float`, *optional*, defaults to `0.5`):
            Accuracy of the batch, reached to within 0.001.

    Raises:
        `ValueError`: `num_samples < 1`, `batch_accuracy` outside [0.001, 0.999], the estimator refuses such groups or
        returns anything but one finite number per completion, or the allocator has no completion for one of them.
    """
    check_integer("num_samples", num_samples, at_least=1)
    if not _TOLERANCE <= batch_accuracy <= 1 - _TOLERANCE:
        raise ValueError(
            f"`batch_accuracy` must be between {_TOLERANCE} and {1 - _TOLERANCE}, got {batch_accuracy!r}: the batch "
            f"holds a group of every accuracy."
        )
    n = num_samples
    correct = torch.arange(n + 1)  # (n+1,)
    sizes, dropped = torch.full_like(correct, n), torch.zeros(n + 1, dtype=torch.bool)
    if rollouts is not None:
        sizes, dropped = _after_one_allocation(as_batch_allocator(rollouts), estimator, n, batch_accuracy)

    # The expected number of correct completions lies between two integers; groups of both are in the batch.
    low = sizes * correct // n
    share = (sizes * correct % n).double() / n  # (n+1,), weight of low + 1
    high = low + (share > 0).long()
    groups = _batch(torch.cat([sizes, sizes]), torch.cat([low, high]), n, batch_accuracy)
    advantages, right = estimate_advantages(estimator, groups), groups.correct.double()  # (T,) each
    gone = torch.zeros(groups.num_groups, dtype=torch.bool)
    gone[: 2 * (n + 1)] = dropped.repeat(2)
    advantages = advantages.masked_fill(gone[groups.index], 0.0)
    wrong = 1 - right

    def at_expected_count(values: Tensor) -> np.ndarray:  # (P,) -> (n+1,)
        below, above = values[: 2 * (n + 1)].view(2, -1)
        return torch.lerp(below, above, share).numpy()

    return AdvantageCurves(
        accuracy=(correct.double() / n).numpy(),
        group_size=sizes.numpy(),
        total=at_expected_count(groups.sum(advantages.abs())),
        total_correct=at_expected_count(groups.sum(advantages.abs() * right)),
        total_wrong=at_expected_count(groups.sum(advantages.abs() * wrong)),
        positive=at_expected_count(groups.sum(advantages * right) / groups.sum(right)),
        negative=at_expected_count(groups.sum(advantages * wrong) / groups.sum(wrong)),
        batch_accuracy=float(right.mean()),
    )


def _after_one_allocation(
    allocator: BatchAllocator, estimator: AdvantageEstimator, n: int, batch_accuracy: float
) -> tuple[Tensor, Tensor]:
    """Completions of a prompt of accuracy c/n, c = 0…n, and whether it is given up. `(n+1,)` each."""
    correct = torch.arange(n + 1)
    batch = RolloutBatch.unsampled(n + 1, n, n + 1)
    if allocator.needs_history:
        ids = [str(count) for count in correct.tolist()]
        history = PromptHistory(ids)
        places = history.find(ids)
        seen = np.full(n + 1, n * _SEEN_BEFORE)
        history.update(places, step=0, samples=seen, correct=correct.numpy() * _SEEN_BEFORE)
        batch = replace(batch, places=places, history=history)
    first = allocator.first_stage(batch)
    if not isinstance(allocator, ByCounts):  # whose cap may be below n: then it asks for nothing more
        first = check_counts_of(allocator, first, batch)
    if (first < 1).any():
        raise ValueError(
            f"The rollout allocator {allocator!r} has no completion for a prompt of accuracy "
            f"{int((first < 1).nonzero()[0])}/{n}, and without any there is no advantage to draw."
        )
    num_correct = (2 * first * correct + n) // (2 * n)  # rounded, halves up
    rewards = num_correct / first.double()

    def find_signal() -> Tensor:  # (n+1,)
        groups = _batch(first, num_correct, n, batch_accuracy)
        return groups.sum((estimate_advantages(estimator, groups) != 0).long())[: n + 1] > 0

    batch = replace(
        batch,
        stage=1,
        num_stages=torch.ones_like(first),
        num_samples=first,
        num_correct=num_correct,
        num_judged=first,
        reward_mean=rewards,
        reward_variance=rewards * (1 - rewards),
        num_tokens=first,
        find_signal=find_signal,
    )
    allocation = allocator(batch)
    return first + check_counts_of(allocator, allocation.extra, batch), allocation.drop.cpu()


def _batch(sizes: Tensor, counts: Tensor, filler_size: int, accuracy: float) -> RolloutGroups:
    """Groups of these sizes and correct counts, `(P,)` each, in this order, then as many fillers as are needed."""
    rows, correct = int(sizes.sum()), int(counts.sum())
    # There are at least as many fillers as groups, enough to bring the accuracy there (if all are right or all wrong),
    # and enough that half a completion more or less is within the tolerance.
    missing = max(correct / accuracy, (rows - correct) / (1 - accuracy), 1 / _TOLERANCE) - rows
    fillers = max(len(sizes), ceil(missing / filler_size) + 1)
    filler_rows = fillers * filler_size
    filler_correct = min(max(round(accuracy * (rows + filler_rows)) - correct, 0), filler_rows)
    each, one_more = divmod(filler_correct, fillers)
    filler_counts = each + (torch.arange(fillers) < one_more).long()

    sizes = torch.cat([sizes, torch.full((fillers,), filler_size)])
    counts = torch.cat([counts, filler_counts])
    group_ids = torch.arange(len(sizes)).repeat_interleave(sizes)  # (T,)
    # A random rank within the group: the completions of the lowest ranks are the correct ones.
    order = torch.randperm(len(group_ids), generator=torch.Generator().manual_seed(0))
    order = order[group_ids[order].argsort(stable=True)]
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
    rank = rank - (sizes.cumsum(0) - sizes)[group_ids]
    is_filler = torch.arange(len(sizes)) >= len(sizes) - fillers
    right = rank < counts[group_ids]
    seen, known = torch.full_like(sizes, _SEEN_BEFORE), _SEEN_BEFORE * filler_size
    solved = (known * counts / sizes).round()  # (P,)
    return RolloutGroups(
        rewards=right.double(),
        group_ids=group_ids,
        entropies=is_filler[group_ids].double(),
        lengths=torch.ones_like(group_ids),
        log_probs=-torch.rand(len(rank), generator=torch.Generator().manual_seed(1), dtype=torch.float64),
        answer_ids=torch.where(right, 0, 1 + rank),
        truncated=torch.zeros_like(right),
        rewards_per_func=right.double().unsqueeze(1),
        reward_names=("correctness",),
        history=PromptRecord(
            prompt_ids=torch.arange(len(sizes)),
            seen=seen,
            samples=torch.full_like(sizes, known),
            correct=solved.long(),
            alpha=1.0 + solved.double(),
            beta=1.0 + known - solved.double(),
        ),
    )
