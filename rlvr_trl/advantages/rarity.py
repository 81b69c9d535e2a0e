"""Right completions count more if they are rare: unlikely under the policy, or with an answer that few others gave."""

from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from ..checks import check_positive
from .groups import AdvantageEstimator, RolloutGroups
from .grpo import GroupRelative
from .leave_one_out import rewards_below_best
from .nesting import NestedEstimator


@dataclass(frozen=True)
class Unlikeliness(NestedEstimator):
    """
    Right completions earn less, the likelier they are under the policy (arXiv 2506.02355).

        r_i' = r_i − β · (c_i / n) · |r_i|  if i is right, else r_i         A = base(r')

    c_i is how many of the n completions of the group are less likely than i, by the mean log-probability of their
    tokens; of equally likely ones the mean of the places that they share. So the least likely completion of a group
    keeps its reward, and the likeliest loses β (n − 1) / n of it. This is what the published code computes, whose
    rewards are 0 and 1; there, r − β c/n · |r| is r (1 − β c/n). A group of equal rewards keeps them, as there: ranks
    alone train nothing.

    Only the scored completions of a group with a known log-probability are ranked. A completion that could not be
    judged keeps its reward.

    Args:
        beta (`float`, *optional*, defaults to `0.25`):
            β, the share of its reward that the likeliest right completion of a large group loses, as in the published
            configuration.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage, of the rewards r'.

    Raises:
        `ValueError`: `beta` is not above 0 and at most 1; or, when called, the groups hold no log-probabilities.
    """

    beta: float = 0.25
    base: AdvantageEstimator = GroupRelative()
    needs_log_probs = True

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.beta, Real) or not 0 < self.beta <= 1:
            raise ValueError(f"`beta` must be a number above 0 and at most 1, got {self.beta!r}.")

    def __call__(self, groups: RolloutGroups) -> Tensor:
        if groups.log_probs is None:
            raise ValueError("Unlikeliness ranks completions by `log_probs`, but the groups have none.")
        # in half precision, the differences between right completions would be lost
        rewards = groups.rewards.to(torch.promote_types(groups.rewards.dtype, torch.float32))
        penalty = self.beta * _share_less_likely(groups) * rewards.abs()
        below, _ = rewards_below_best(groups)  # (P, n)
        is_less = groups.correct & groups.judged & (below < 0).any(1)[groups.index]
        reduced = torch.where(is_less, rewards - penalty, rewards).to(rewards.dtype)
        return self.base(groups.with_rewards(reduced)).to(groups.rewards.dtype)


def _share_less_likely(groups: RolloutGroups) -> Tensor:
    """`c_i / n` of each completion in float64, 0 where it is not ranked. Shape `(T,)`."""
    assert groups.log_probs is not None
    ranked = groups.scored & ~groups.log_probs.isnan()
    log_probs = groups.pad(torch.where(ranked, groups.log_probs, torch.inf), torch.inf)  # (P, n)
    ascending, position = log_probs.sort(dim=1)
    # the first and the last place that a completion could have, from 0: those of equally likely ones differ
    place, width = torch.arange(groups.largest, device=ascending.device).expand_as(ascending), groups.largest
    differs = torch.ones(len(ascending), width + 1, dtype=torch.bool, device=ascending.device)
    differs[:, 1:-1] = ascending[:, 1:] != ascending[:, :-1]  # from the one before
    first = torch.where(differs[:, :-1], place, 0).cummax(dim=1).values
    last = torch.where(differs[:, 1:], place, width).flip(1).cummin(dim=1).values.flip(1)
    shared = torch.empty_like(ascending, dtype=torch.float64).scatter_(1, position, (first + last).double() / 2)
    return torch.where(ranked, groups.unpad(shared) / groups.sum(ranked.long())[groups.index], 0.0)


@dataclass(frozen=True)
class UniquenessAware(NestedEstimator):
    """
    An advantage counts less, the more completions of its group have the same answer (arXiv 2601.08763).

        A_i' = A_i / f_i^α

    f_i is the number of scored completions of the group with the answer of i, itself among them. The paper lets a
    language model cluster the completions by how they solve the problem; here the clusters are the distinct extracted
    answers, and "no answer" is one. So this is for tasks with several right answers, such as mazes or equations to be
    found. Where a single answer is right, all c right completions are one cluster, and α = 1 gives them together the
    weight of one.

    Advantages of either sign are weighted, as in the paper; those of a group no longer sum to 0. With α = 0 they would
    stay as they are. A group with equal rewards gets what `base` gives it, which is mostly 0.

    Args:
        alpha (`float`, *optional*, defaults to `1.0`):
            α, above 0; the paper has at most 1. At 1 each answer has the weight of one completion in all.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage.

    Raises:
        `ValueError`: `alpha` is not positive; or, when called, the groups hold no answers.
    """

    alpha: float = 1.0
    base: AdvantageEstimator = GroupRelative()
    needs_answers = True

    def __post_init__(self):
        super().__post_init__()
        check_positive("alpha", self.alpha)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        if groups.answer_ids is None:
            raise ValueError("UniquenessAware counts completions by `answer_ids`, but the groups have none.")
        advantages = self.base(groups).to(groups.rewards.device)
        return (advantages / groups.same_answer.double() ** self.alpha).to(advantages.dtype)
