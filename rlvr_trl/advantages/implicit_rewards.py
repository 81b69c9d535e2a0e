"""Pass@k and Pass@1 advantages mixed by difficulty: implicit reward design (arXiv 2508.10751, §4).

They all move the difficulty at which a group has the largest sum of |A|. `c` is the number of correct completions of a
group, `p` its accuracy. A group without a judged completion has neither: each class says what it does then.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_share
from .groups import AdvantageEstimator, RolloutGroups
from .nesting import NestedEstimator, scale_groups
from .pass_at_k import PassAtK


@dataclass(frozen=True)
class ExceedingPassAtK(NestedEstimator):
    """
    Pass@k advantages that favour hard prompts even more: `A' = f(c) · A`, `f(c) = 4 / (10 · ln(c + 0.5))`.

    arXiv 2508.10751, §4.2.1. f(1) = 0.987, f(2) = 0.437, f(3) = 0.319, f(4) = 0.266. The paper does not state the base
    of the logarithm; the natural one makes f(1) about 1. f is not defined at c = 0: such a group gets 0, even where a
    reward other than correctness tells its completions apart. A group without a judged completion keeps A.

    Args:
        k (`int`):
            Size of the subsets, as in [`PassAtK`].

    Raises:
        `ValueError`: As [`PassAtK`].
    """

    k: int

    @property
    def parts(self) -> tuple[AdvantageEstimator, ...]:
        return (PassAtK(self.k),)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        c = groups.num_correct  # (P,)
        factor = 0.4 / (c.double().clamp(min=1.0) + 0.5).log()
        factor = torch.where(c == 0, 0.0, factor).masked_fill_(groups.num_judged == 0, 1.0)
        return scale_groups(self.parts[0](groups), factor, groups)


@dataclass(frozen=True)
class CombinedPassAtK(NestedEstimator):
    """
    Pass@k where accuracy is high, Pass@1 where it is low: `A = p · A_pass@k + (1 − p) · A_pass@1`.

    arXiv 2508.10751, §4.2.2. Pass@k advantages are 0 where fewer than k completions are wrong, so easy prompts fade
    out. A group without a judged completion takes half of each.

    Args:
        k (`int`):
            Size of the subsets, as in [`PassAtK`].

    Raises:
        `ValueError`: As [`PassAtK`].
    """

    k: int

    @property
    def parts(self) -> tuple[AdvantageEstimator, ...]:
        return PassAtK(self.k), PassAtK(1)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        p = groups.accuracy.nan_to_num(nan=0.5)[groups.index]  # (T,)
        at_k, at_1 = (part(groups) for part in self.parts)
        return (p * at_k + (1 - p) * at_1).to(groups.rewards.dtype)


@dataclass(frozen=True)
class AdaptivePassAtK(NestedEstimator):
    """
    Pass@1 for the prompts that are explored already, Pass@k for the others (arXiv 2508.10751, §4.2.3).

    The prompts of a batch are ranked by the mean token entropy of their completions. The top half, rounded down, gets
    the Pass@1 advantage and the rest Pass@k. Of equal entropies the prompt with the smaller group id ranks higher.
    The mean leaves out completions with NaN entropy; a prompt that has no others ranks last.

    Args:
        k (`int`):
            Size of the subsets, as in [`PassAtK`].

    Raises:
        `ValueError`: As [`PassAtK`]; or, when called, the groups hold no entropies.
    """

    k: int
    needs_entropies = True

    @property
    def parts(self) -> tuple[AdvantageEstimator, ...]:
        return PassAtK(self.k), PassAtK(1)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        if groups.entropies is None:
            raise ValueError("AdaptivePassAtK ranks prompts by `entropies`, but the groups have none.")
        entropies = groups.entropies.double()
        total, count = groups.sum(entropies.nan_to_num(nan=0.0)), groups.sum((~entropies.isnan()).long())
        mean = (total / count).nan_to_num(nan=-torch.inf)  # (P,)
        explored = torch.zeros_like(mean, dtype=torch.bool)
        explored[mean.argsort(descending=True, stable=True)[: groups.num_groups // 2]] = True
        at_k, at_1 = (part(groups) for part in self.parts)
        return torch.where(explored[groups.index], at_1, at_k)


@dataclass(frozen=True)
class WithoutEasy(NestedEstimator):
    """
    Any advantage, with that of easy prompts set to 0 (arXiv 2508.10751, §4.1.2).

    Their completions stay in the loss and its normalizer. A group without a judged completion is not known to be easy
    and keeps its advantages.

    Args:
        base (`AdvantageEstimator`):
            The advantage.
        threshold (`float`, *optional*, defaults to `0.5`):
            Prompts with accuracy above it are easy.

    Raises:
        `ValueError`: `threshold` is outside [0, 1].
    """

    base: AdvantageEstimator
    threshold: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        check_share("threshold", self.threshold)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        return self.base(groups).masked_fill((groups.accuracy > self.threshold)[groups.index], 0.0)
