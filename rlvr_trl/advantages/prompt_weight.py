"""How much a prompt weighs beside the others of its batch, whatever its number of completions."""

from dataclasses import dataclass

from torch import Tensor

from ..checks import check_integer, check_share
from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .nesting import NestedEstimator, rows_in_loss, scale_groups


@dataclass(frozen=True)
class PerPromptMean(NestedEstimator):
    """
    The gradient as the mean over prompts of the mean over the completions of each: `A' = A · (T/P)/n`.

    T completions of P prompts are in the loss, n scored ones of them of the prompt. A loss that divides by all
    completions (`grpo`, `dr_grpo`) or all tokens weighs a prompt by its completions, so that extra ones weigh it more;
    here every prompt counts once, as the 1/G of GRPO's objective has it (arXiv 2402.03300). In groups of one size the
    factor is 1 and nothing changes. With DARS it undoes what extra completions are for; an allocator that lowers
    variance, [`~rlvr_trl.rollouts.VarianceOptimalAllocator`], means this gradient.

    Where the loss divides by tokens (`bnpo`, `dapo`), n counts completions all the same, and a prompt weighs by the
    mean length of its completions.

    Args:
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative("none")`): the advantage.
    """

    base: AdvantageEstimator = GroupRelative("none")

    def __call__(self, groups: RolloutGroups) -> Tensor:
        in_loss = self.rows_in_loss(groups)
        counts = groups.sum((in_loss & groups.scored).long())  # (P,)
        factor = in_loss.sum().double() / groups.num_groups / counts.clamp(min=1)
        return scale_groups(self.base(groups), factor, groups)


@dataclass(frozen=True)
class PassRateObjective(NestedEstimator):
    """
    The gradient of a non-linear objective of the pass rate p: `A' = A · p^(power − 1)` (arXiv 2510.04996v3, §2.2).

    The policy gradient of f(p) is f'(p) times that of p. `power=0` is f = log p with the weight 1/p, and any other one
    f = p^power / power: the lower it is, the more hard prompts weigh, and at 1 nothing changes. `power=0.5` is twice
    the paper's √p objective (its Example 2), and half of the weight of log p where
    [`~rlvr_trl.rollouts.ReinforceAdaEst`] has the other half.

    p is the accuracy of the group. Where it is 0 the weight is not defined: such a group gets 0, even where a reward
    other than correctness tells its completions apart. A group without a judged completion keeps A.

    Args:
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative("none")`): the advantage; the paper's.
        power (`float`, *optional*, defaults to `0.0`): from 0 to 1.

    Raises:
        `ValueError`: `power` is not a number from 0 to 1.
    """

    base: AdvantageEstimator = GroupRelative("none")
    power: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        check_share("power", self.power)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        p = groups.num_correct.double() / groups.num_judged  # (P,), NaN where none was judged
        factor = p ** (self.power - 1)
        factor = factor.masked_fill(factor.isinf(), 0.0).nan_to_num(nan=1.0)
        return scale_groups(self.base(groups), factor, groups)


@dataclass(frozen=True)
class TrainingGroup(NestedEstimator):
    """
    Trains on `size` completions of each prompt, half of them right, with the advantages of all (Reinforce-Ada).

    arXiv 2510.04996v3, Algorithm 2: the baseline, and whatever else `base` makes of a group, comes from all
    completions of a prompt, but a group of fixed size is in the loss, size // 2 right and the other half wrong ones.
    Where there are fewer of one kind, more of the other take their places. So prompts weigh alike, although they were
    sampled more or less often, and a step costs as much as one with groups of `size`.

    The first of each kind are taken, as in the released code. Which completions come first does not depend on what is
    in them, beyond right and wrong: it is a random draw. Completions that are not judged are never drawn, and a group
    of fewer than `size` judged ones is in the loss with all of these.

    Args:
        size (`int`):
            Completions of each prompt in the loss, at least 2, and at most the `num_generations` of the trainer.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative("none")`):
            The advantage; the paper's. Completions that it leaves out of the loss are not drawn.

    Raises:
        `ValueError`: `size` is not an integer of at least 2.
    """

    size: int
    base: AdvantageEstimator = GroupRelative("none")

    drops_rows = True

    def __post_init__(self):
        super().__post_init__()
        check_integer("size", self.size, at_least=2)

    @property
    def min_group_size(self) -> int:
        return max(self.size, super().min_group_size)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        return self.base(groups).to(groups.rewards.device).masked_fill(~self.rows_in_loss(groups), 0.0)

    def rows_in_loss(self, groups: RolloutGroups) -> Tensor:
        drawable = groups.judged & groups.scored & rows_in_loss(self.base, groups)
        right, wrong = drawable & groups.correct, drawable & ~groups.correct  # (T,)
        half = self.size // 2
        most_right = (self.size - groups.sum(wrong.long())).clamp(min=half)  # (P,)
        most_wrong = (self.size - groups.sum(right.long())).clamp(min=self.size - half)
        return _first_of(right, most_right, groups) | _first_of(wrong, most_wrong, groups)


def _first_of(kind: Tensor, most: Tensor, groups: RolloutGroups) -> Tensor:
    """Those of a kind, `(T,)`, that are among the first `most` of it in their group, `(P,)`. Boolean, `(T,)`."""
    number = groups.unpad(groups.pad(kind.long(), 0).cumsum(1))
    return kind & (number <= most[groups.index])
