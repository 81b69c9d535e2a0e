"""The figures of the papers, and one of all methods, as curves to be computed and drawn."""

from dataclasses import dataclass

from ..advantages import (
    AGRAE,
    FGRPO,
    PKPO,
    RSGRPO,
    AdaptivePassAtK,
    AdvantageEstimator,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    LeaveOneOut,
    MaxAtK,
    MaxRL,
    NegativeOnly,
    PassAtK,
    PassRateObjective,
    PerPromptMean,
    PositiveNegativeReinforce,
    ReinforcePlusPlus,
    TrainingGroup,
    UniquenessAware,
    Unlikeliness,
    WithoutEasy,
)
from ..rollouts import (
    DARS,
    BatchAllocator,
    KnapsackAllocator,
    PredictedDARS,
    ReinforceAda,
    ReinforceAdaEst,
    RolloutAllocator,
    VarianceOptimalAllocator,
)
from .curves import AdvantageCurves, advantage_curves


@dataclass(frozen=True)
class Curve:
    """One line of a figure: its label, and the arguments of [`advantage_curves`]."""

    label: str
    estimator: AdvantageEstimator
    rollouts: RolloutAllocator | BatchAllocator | None = None
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
        by_family (`bool`, *optional*, defaults to `False`):
            Draws instead a panel for each family of estimators, and one for the allocators, with sums of |A| in shares
            of the largest.
    """

    title: str
    curves: tuple[Curve, ...]
    num_samples: int = 32
    panels: tuple[str, ...] = ("total", "positive", "negative")
    by_family: bool = False

    def compute(self, num_samples: int | None = None) -> dict[str, AdvantageCurves]:
        """The numbers of every line by its label, for groups of `num_samples` or the figure's own number."""
        n = self.num_samples if num_samples is None else num_samples
        return {
            line.label: advantage_curves(line.estimator, n, rollouts=line.rollouts, batch_accuracy=line.batch_accuracy)
            for line in self.curves
        }

    def families(self, curves: dict[str, AdvantageCurves]) -> dict[str, dict[str, AdvantageCurves]]:
        """What `compute` returned by the family of each line, and the lines with an allocator by themselves."""
        families = {title: {} for title in _FAMILIES.values()}
        for line in self.curves:
            kind = "allocator" if line.rollouts is not None else curves[line.label].family
            families[_FAMILIES[kind]][line.label] = curves[line.label]
        return {title: lines for title, lines in families.items() if lines}


_FAMILIES = {
    "hard": "Hard prompts weigh most",
    "middle": "Prompts of accuracy 1/2 weigh most",
    "easy": "Easy prompts weigh most",
    "all alike": "All prompts weigh alike",
    "allocator": "Dr. GRPO with allocators",
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
    "a_grae_fig6": Figure("GRPO by difficulty: 2√(n(n − 1)p(1 − p))", (Curve("GRPO", _GRPO),), panels=("total",)),
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
    "families": Figure(
        "Which prompts weigh most, by method",
        (
            Curve("GRPO", _GRPO),
            Curve("Dr. GRPO", _DR_GRPO),
            Curve("RLOO", LeaveOneOut()),
            Curve("REINFORCE++", ReinforcePlusPlus()),
            Curve("REINFORCE++ with baseline", ReinforcePlusPlus(group_baseline=True)),
            Curve("Pass@8", PassAtK(8)),
            Curve("adaptive Pass@8", AdaptivePassAtK(8)),
            Curve("exceeding Pass@8", ExceedingPassAtK(8)),
            Curve("combined Pass@8", CombinedPassAtK(8)),
            Curve("GRPO without easy problems", WithoutEasy(_GRPO)),
            Curve("PKPO, k = 8", PKPO(8)),
            Curve("max@8", MaxAtK(8)),
            Curve("MaxRL", MaxRL()),
            Curve("objective log p", PassRateObjective()),
            Curve("objective √p", PassRateObjective(power=0.5)),
            Curve("training group of 8", TrainingGroup(8)),
            Curve("per-prompt mean", PerPromptMean()),
            Curve("RS-GRPO, β = 2", RSGRPO()),
            Curve("F-GRPO, γ = 1", FGRPO(gamma=1.0)),
            Curve("A-GRAE, ω = 0.5", AGRAE()),
            Curve("hard-focused", DifficultyFocused("hard")),
            Curve("easy-focused", DifficultyFocused("easy")),
            Curve("positive-dominant", DominantSide()),
            Curve("GRPO-LEAD", GRPOLead()),
            Curve("unlikeliness", Unlikeliness()),
            Curve("uniqueness-aware", UniquenessAware()),
            Curve("GRPO-N", NegativeOnly()),
            Curve("PSR", PositiveNegativeReinforce.psr()),
            Curve("NSR", PositiveNegativeReinforce.nsr()),
            Curve("W-REINFORCE", PositiveNegativeReinforce.w_reinforce()),
            Curve("DARS-ET, at most 64", _DR_GRPO, DARS("equal_treatment", 64)),
            Curve("DARS-HW, at most 64", _DR_GRPO, DARS("hardness_weighted", 64)),
            Curve("predicted DARS-HW, at most 64", _DR_GRPO, PredictedDARS("hardness_weighted", 64)),
            Curve("Reinforce-Ada, 8 right and 8 wrong", _DR_GRPO, ReinforceAda(64, 32, 8, 8)),
            Curve("Reinforce-Ada by prediction, at most 128", _DR_GRPO, ReinforceAdaEst(128)),
            Curve("knapsack, at most 128", _DR_GRPO, KnapsackAllocator()),
            Curve("variance-optimal, at most 128", _DR_GRPO, VarianceOptimalAllocator(128)),
        ),
        panels=("total",),
        by_family=True,
    ),
}
