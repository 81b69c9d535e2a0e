"""Advantages of a group as a function of its accuracy, from the estimators that train.

The sum of |A| over a group says how much of the gradient its prompt gets: a method learns most from the difficulty at
which it peaks. Nothing is computed from a formula here: the estimator is called on groups of every possible number of
correct completions.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from ..advantages import (
    AGRAE,
    AdvantageEstimator,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    ExceedingPassAtK,
    GroupRelative,
    PassAtK,
    RolloutGroups,
    WithoutEasy,
)
from ..checks import check_integer
from ..rollouts import DARS, RolloutAllocator


_TOLERANCE = 1e-3  # of the accuracy of the batch


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


def advantage_curves(
    estimator: AdvantageEstimator,
    num_samples: int,
    *,
    rollouts: RolloutAllocator | None = None,
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
    one of its own. Advantages are those of completions, before any token is shaped.

    With `rollouts`, a group is the expected one after the first extra stage (an allocator's further rounds are left
    out): n + Δ(c) completions of the same accuracy, hence (n + Δ)·c/n correct ones. Where that is not an integer, each
    value is interpolated linearly between the two neighbouring counts. With Dr. GRPO the result is below
    `(n + Δ)·2a(1 − a)` by at most `1 / 2(n + Δ)`.

    Args:
        estimator (`AdvantageEstimator`):
            Any estimator, including a function of your own.
        num_samples (`int`):
            Completions of the first stage, n.
        rollouts (`RolloutAllocator`, *optional*):
            Asked once, after stage 1, how many more completions a group with c of n correct gets. By default none.
        batch_accuracy (`float`, *optional*, defaults to `0.5`):
            Accuracy of the batch, reached to within 0.001.

    Raises:
        `ValueError`: `num_samples < 1`, `batch_accuracy` outside [0.001, 0.999], or the estimator refuses such groups.
    """
    check_integer("num_samples", num_samples, at_least=1)
    if not _TOLERANCE <= batch_accuracy <= 1 - _TOLERANCE:
        raise ValueError(
            f"`batch_accuracy` must be between {_TOLERANCE} and {1 - _TOLERANCE}, got {batch_accuracy!r}: the batch "
            f"holds a group of every accuracy."
        )
    n = num_samples
    correct = torch.arange(n + 1)  # (n+1,)
    sizes = torch.full_like(correct, n)
    if rollouts is not None:
        sizes = sizes + rollouts(1, sizes, correct, sizes)

    # The expected number of correct completions lies between two integers; groups of both are in the batch.
    low = sizes * correct // n
    share = (sizes * correct % n).double() / n  # (n+1,), weight of low + 1
    high = low + (share > 0).long()
    groups = _batch(torch.cat([sizes, sizes]), torch.cat([low, high]), n, batch_accuracy)
    advantages, right = estimator(groups).double(), groups.correct.double()  # (T,) each
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
    return RolloutGroups(
        rewards=right.double(),
        group_ids=group_ids,
        entropies=is_filler[group_ids].double(),
        lengths=torch.ones_like(group_ids),
        log_probs=-torch.rand(len(rank), generator=torch.Generator().manual_seed(1), dtype=torch.float64),
        answer_ids=torch.where(right, 0, 1 + rank),
    )


@dataclass(frozen=True)
class Curve:
    """One line of a figure: its label, and the arguments of [`advantage_curves`]."""

    label: str
    estimator: AdvantageEstimator
    rollouts: RolloutAllocator | None = None
    batch_accuracy: float = 0.5


@dataclass(frozen=True)
class Figure:
    """
    Lines to compare.

    Args:
        title (`str`):
            Title of the whole picture.
        curves (`tuple[Curve, ...]`):
            The lines.
        num_samples (`int`, *optional*, defaults to `32`):
            Completions of the first stage, unless `compute` is given another number.
        panels (`tuple[str, ...]`, *optional*):
            Which of `"total"`, `"total_correct"`, `"total_wrong"`, `"positive"` and `"negative"` are drawn. By default
            the first and the last two.
    """

    title: str
    curves: tuple[Curve, ...]
    num_samples: int = 32
    panels: tuple[str, ...] = ("total", "positive", "negative")

    def compute(self, num_samples: int | None = None) -> dict[str, AdvantageCurves]:
        """The numbers of every line by its label, for groups of `num_samples` or the figure's own number."""
        n = self.num_samples if num_samples is None else num_samples
        return {
            line.label: advantage_curves(line.estimator, n, rollouts=line.rollouts, batch_accuracy=line.batch_accuracy)
            for line in self.curves
        }


_GRPO, _DR_GRPO = GroupRelative(), GroupRelative(scale="none")
_UNCAPPED = 2**20  # no schedule asks for so many


def _dars(estimator: AdvantageEstimator, scale: str) -> tuple[Curve, ...]:
    return (
        Curve("DARS-ET, no cap", estimator, DARS("equal_treatment", _UNCAPPED, scale=scale)),
        Curve("DARS-HW, no cap", estimator, DARS("hardness_weighted", _UNCAPPED, scale=scale)),
        Curve("DARS-ET, at most 32", estimator, DARS("equal_treatment", 32, scale=scale)),
        Curve("DARS-HW, at most 64", estimator, DARS("hardness_weighted", 64, scale=scale)),
    )


FIGURES: dict[str, Figure] = {
    # arXiv 2508.13755
    "dars_fig2": Figure(
        "DARS, advantages r − mean",
        (Curve("Dr. GRPO", _DR_GRPO), Curve("GRPO", _GRPO), *_dars(_DR_GRPO, "none")),
        num_samples=16,
        panels=("total",),
    ),
    "dars_fig16": Figure(
        "DARS, groups of 8 and at most N_max",
        (
            Curve("Dr. GRPO", _DR_GRPO),
            *(
                Curve(f"{name}, {limit}", _DR_GRPO, DARS(schedule, limit))
                for name, schedule, limits in (
                    ("DARS-ET", "equal_treatment", (10, 12, 16)),
                    ("DARS-HW", "hardness_weighted", (12, 16, 32)),
                )
                for limit in limits
            ),
        ),
        num_samples=8,
        panels=("total",),
    ),
    "dars_std": Figure(
        "DARS, advantages divided by the standard deviation",
        (Curve("GRPO", _GRPO), *_dars(_GRPO, "std")),
        num_samples=16,
        panels=("total",),
    ),
    # arXiv 2508.10751
    "pass_at_k_fig9": Figure("Pass@k advantages", tuple(Curve(f"Pass@{k}", PassAtK(k)) for k in (1, 4, 8, 16))),
    "pass_at_k_fig18": Figure(
        "Exceeding and combined Pass@k advantages",
        (
            Curve("Pass@1", PassAtK(1)),
            Curve("Pass@8", PassAtK(8)),
            Curve("Pass@1 without easy problems", WithoutEasy(_GRPO, 0.6)),
            *(Curve(f"exceeding Pass@{k}", ExceedingPassAtK(k)) for k in (4, 8, 16)),
            *(Curve(f"combined Pass@{k}, Pass@1", CombinedPassAtK(k)) for k in (4, 8, 16)),
        ),
    ),
    # arXiv 2602.05548
    "a_grae_fig1": Figure(
        "The two symmetries of GRPO's advantages",
        (Curve("GRPO", _GRPO),),
        num_samples=8,
        panels=("total_correct", "total_wrong", "total"),
    ),
    "a_grae_fig6": Figure("GRPO by difficulty: 2n√(p(1 − p))", (Curve("GRPO", _GRPO),), panels=("total",)),
    "a_grae_shift": Figure(
        "A-GRAE at several batch accuracies ω",
        (
            Curve("GRPO", _GRPO),
            *(Curve(f"A-GRAE, ω = {w}", AGRAE(), batch_accuracy=w) for w in (0.1, 0.3, 0.5, 0.7, 0.9)),
        ),
        num_samples=8,
    ),
    "a_grae_focused": Figure(
        "Control groups of A-GRAE: one difficulty in focus",
        (
            Curve("GRPO", _GRPO),
            Curve("hard-focused", DifficultyFocused("hard")),
            Curve("easy-focused", DifficultyFocused("easy")),
        ),
        num_samples=8,
    ),
    "a_grae_dominant": Figure(
        "Control groups of A-GRAE: one side dominant",
        (
            Curve("GRPO", _GRPO),
            Curve("positive-dominant, β = 10", DominantSide(10.0)),
            Curve("negative-dominant, β = 10", DominantSide(0.1)),
        ),
        num_samples=8,
    ),
}
