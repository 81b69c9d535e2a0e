"""A different advantage in each part of training, as Pass@k first and Pass@1 after it (arXiv 2508.10751, §3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..checks import is_real
from .groups import AdvantageEstimator, CompletionTokens, RolloutGroups
from .nesting import NestedEstimator, rows_in_loss, shape_tokens


@dataclass(frozen=True)
class Scheduled(NestedEstimator):
    """
    Advantage estimators that take turns: each is used from its share of training until the next begins.

    Args:
        stages (`list[tuple[float, AdvantageEstimator]]`):
            Share of training at which each begins, and the estimator: `[(0, PassAtK(8)), (0.7, PassAtK(1))]`. The
            first begins at 0, each other one later than the one before it, and all before 1. `groups.progress` says
            where training is.

    Groups must be large enough for every stage from the beginning, and what a stage reads, such as entropies, is
    computed throughout.

    Raises:
        `ValueError`: `stages` is empty, holds anything other than pairs, or its shares are not as above.
    """

    stages: Sequence[tuple[float, AdvantageEstimator]]

    def __post_init__(self):
        try:
            stages = tuple((start, estimator) for start, estimator in self.stages)
        except (TypeError, ValueError):
            raise ValueError(
                f"`stages` must be a list of pairs of a share of training and an estimator, got {self.stages!r}."
            ) from None
        object.__setattr__(self, "stages", stages)
        starts = [start for start, _ in stages]
        if not all(map(is_real, starts)) or starts[:1] != [0] or starts != sorted(set(starts)) or starts[-1] >= 1:
            raise ValueError(f"The shares in `stages` must begin at 0, increase and stay below 1, got {starts}.")
        super().__post_init__()

    @property
    def parts(self) -> tuple[AdvantageEstimator, ...]:
        return tuple(estimator for _, estimator in self.stages)

    def current(self, progress: float) -> AdvantageEstimator:
        """The estimator in use when the share `progress` of training is done."""
        return [estimator for start, estimator in self.stages if start <= progress][-1]

    def __call__(self, groups: RolloutGroups) -> Tensor:
        return self.current(groups.progress)(groups)

    def rows_in_loss(self, groups: RolloutGroups) -> Tensor:
        return rows_in_loss(self.current(groups.progress), groups)

    def shape_tokens(self, advantages: Tensor, tokens: CompletionTokens) -> Tensor:
        return shape_tokens(self.current(tokens.progress), advantages, tokens)
