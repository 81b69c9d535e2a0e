"""Gradients of max@k, the expected best reward of k completions: PKPO (arXiv 2505.15201) and BoN-mean (2510.23393).

For rewards of 0 and 1 max@k is pass@k. Of the n completions of a group, let S_i be the sum of the best rewards of all
k-subsets that hold the i-th, over C(n, k). Then `Σ S_i ∇log π(y_i)` estimates the gradient of max@k without bias
(2505.15201; 2510.23393, Eq. 9), and `n S_i = k E_i` with the E_i of `pass_at_k.py`. Advantages here are n
times the weights of the papers, since the losses average over completions where the papers add up.

Both methods subtract something from S_i to lower the variance, and that is all in which they differ:

    PKPO       n (S_i − what the subsets without i reach)      unbiased; the default of the paper, its Eq. 33
    BoN-mean   (S_i − mean(S)) / (std(S) + eps)                as GRPO does with rewards
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_integer, check_not_negative
from .groups import RolloutGroups
from .leave_one_out import LeaveOneOut
from .pass_at_k import centred_expectations, check_holds_subsets, subset_weights


@dataclass(frozen=True)
class PKPO:
    """
    An unbiased gradient of pass@k, or of max@k for other rewards than 0 and 1 (arXiv 2505.15201, Eq. 33).

    A completion is worth what it adds to the best reward of k − 1 others, on average over all such sets, times k:

        A_i = k · mean over the (k−1)-subsets J of the others of max(0, r_i − max_J r)

    No advantage is negative. For rewards 0 and 1 a wrong completion has 0 and a right one k · C(n−c, k−1) / C(n−1,
    k−1). Computed with one sort: with the rewards ascending and `w_j = C(j−1, k−1) / C(n−1, k−1)`, it is
    `k Σ_{1<j<=i} w_j (r_j − r_{j−1})`. For k = 1, where there are no others in the set, it is [`LeaveOneOut`].

    Groups of equal rewards, all right or all wrong, have 0, as have those with fewer than k − 1 wrong completions and
    those with fewer than k scored ones.

    Args:
        k (`int`):
            Size of the sets.

    Raises:
        `ValueError`: `k < 1`, or, when called, a group of fewer than k completions.
    """

    k: int

    def __post_init__(self):
        check_integer("k", self.k, at_least=1)

    @property
    def min_group_size(self) -> int:
        return self.k

    @property
    def min_group_size_with_signal(self) -> int:
        return max(self.k, 2)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        check_holds_subsets(self, groups)
        if self.k == 1:
            return LeaveOneOut()(groups)
        rewards, position = groups.ranking  # (P, n), best first, −inf where there is none
        w, _ = subset_weights(groups, self.k)  # (P, n)
        gaps = torch.zeros_like(rewards)  # to the next worse completion
        gaps[:, :-1] = (rewards[:, :-1] - rewards[:, 1:]).nan_to_num_(nan=0.0, posinf=0.0)
        added = w.mul_(gaps).flip(1).cumsum(1).flip(1).mul_(self.k)
        added = groups.unpad(torch.empty_like(added).scatter_(1, position, added))
        return added.masked_fill_(~groups.scored, 0.0).to(groups.rewards.dtype)


@dataclass(frozen=True)
class MaxAtK:
    """
    GRPO with each reward replaced by what the sets that hold the completion reach: "BoN mean" of arXiv 2510.23393.

        r̃_i = (k/n) E_i  (Eq. 9)        A_i = (r̃_i − mean(r̃)) / (std(r̃) + eps)

    with the mean and the standard deviation (ddof 1) of the group. Up to a factor of each group these are the
    advantages of [`PassAtK`], whose σ is that of the sets. For rewards 0 and 1, which make two values of r̃, they are
    but for `eps` those of GRPO, in groups with at least k wrong completions. Only the paper's estimate on policy is
    here: that off policy weighs each set by the probability ratios of the current model, which an estimator does not
    see.

    Groups in which all k-subsets have the same best reward (all wrong, all right, fewer than k wrong) have 0.

    Args:
        k (`int`):
            Size of the sets.
        eps (`float`, *optional*, defaults to `1e-6`):
            Added to the standard deviation, as in [`PassAtK`]; the paper prints none.

    Raises:
        `ValueError`: `k < 1`, `eps` is negative, or, when called, a group of fewer than k completions.
    """

    k: int
    eps: float = 1e-6

    def __post_init__(self):
        check_integer("k", self.k, at_least=1)
        check_not_negative("eps", self.eps)

    @property
    def min_group_size(self) -> int:
        return self.k

    @property
    def min_group_size_with_signal(self) -> int:
        return self.k + 1

    def __call__(self, groups: RolloutGroups) -> Tensor:
        check_holds_subsets(self, groups)
        centred, _ = centred_expectations(groups, self.k)  # (P, n)
        n = groups.num_scored.double().unsqueeze(1)  # (P, 1)
        scored = groups.pad(groups.scored.double(), 0.0)
        centred = centred.mul_(scored).mul_(self.k / n.clamp(min=1.0))
        std = (centred.square().sum(1, keepdim=True) / (n - 1).clamp(min=1.0)).sqrt_()
        advantages = groups.unpad(centred.div_(std + self.eps).nan_to_num_(nan=0.0))  # NaN: 0/0 where eps is 0
        return advantages.masked_fill_(~groups.scored, 0.0).to(groups.rewards.dtype)
