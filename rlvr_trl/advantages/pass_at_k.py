"""Pass@k advantages (Pass@k Training, arXiv 2508.10751, §2.4).

The reward of a subset of k completions is the best reward in it. A completion's advantage is the mean, over all
k-subsets that hold it, of the subset's standardized reward:

    A_i = (E_i − μ) / (σ + eps)

with μ, σ the mean and population standard deviation over all C(n, k) subsets and E_i the mean over the subsets that
hold i. The paper and its code have this in closed form for rewards of 0 and 1; here it is for any real rewards. With
the rewards of a group sorted ascending, the i-th is the best one of C(i−1, k−1) subsets, hence

    μ   = Σ_i q_i r_i                       q_i = C(i−1, k−1) / C(n, k)
    σ²  = Σ_i q_i (r_i − μ)²
    E_i = w_i r_i + Σ_{j>i} v_j r_j         w_i = C(i−1, k−1) / C(n−1, k−1),   v_j = C(j−2, k−2) / C(n−1, k−1)

which costs one sort per group. k = 1 is GRPO with the population standard deviation. The advantages of a group sum to
0. When every k-subset has the same best reward (all wrong, all right, fewer than k wrong) they are exactly 0.

The two methods that use only some of the subsets are in `pass_at_k_sampled.py`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, check_integer, check_not_negative
from .groups import RolloutGroups
from .pass_at_k_sampled import bootstrap, full_sampling, in_a_subset


_METHODS = ("analytical", "bootstrap", "full_sampling")


@dataclass(frozen=True)
class PassAtK:
    """
    Advantage of a completion as the mean standardized reward of the k-subsets that hold it (arXiv 2508.10751).

    Args:
        k (`int`):
            Size of the subsets. Large k rewards exploration, k = 1 is GRPO.
        method (`str`, *optional*, defaults to `"analytical"`):
            `"analytical"` is the exact mean over all subsets. `"bootstrap"` draws as many random subsets as the group
            has scored completions and takes the *sum* over those that hold a completion: about k times the analytical
            scale. `"full_sampling"` cuts the group into consecutive disjoint subsets; the completions left over
            are left out of the loss.
        eps (`float`, *optional*, defaults to `1e-6`):
            Added to the standard deviation, as in the released code.

    A group of at least k completions, fewer than k of them scored, has no k-subset: its advantages are 0.

    Raises:
        `ValueError`: `k < 1`, an unknown `method`, or, when called, a group of fewer than k completions.
    """

    k: int
    method: str = "analytical"
    eps: float = 1e-6

    def __post_init__(self):
        check_integer("k", self.k, at_least=1)
        check_choice("method", self.method, _METHODS)
        check_not_negative("eps", self.eps)

    @property
    def min_group_size(self) -> int:
        return self.k

    @property
    def min_group_size_with_signal(self) -> int:
        """Completions that make two different subsets: of a single one, the standardized reward is 0."""
        return 2 * self.k if self.method == "full_sampling" else self.k + 1

    @property
    def drops_rows(self) -> bool:
        return self.method == "full_sampling"

    def rows_in_loss(self, groups: RolloutGroups) -> Tensor:
        """All completions except those that full sampling leaves over. Boolean, shape `(T,)`."""
        if self.method == "full_sampling":
            return in_a_subset(groups, self.k) | ~groups.scored
        return torch.ones_like(groups.scored)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        check_holds_subsets(self, groups)
        estimate = {"analytical": _analytical, "bootstrap": bootstrap, "full_sampling": full_sampling}[self.method]
        return estimate(groups, self.k, self.eps).to(groups.rewards.dtype)


def check_holds_subsets(estimator: Any, groups: RolloutGroups) -> None:
    """
    Refuses groups that are smaller than the sets of `estimator.k` completions that an estimator looks at.

    Raises:
        `ValueError`: Names the estimator, k, and the size of the smallest group.
    """
    smallest = int(groups.sizes.min())
    if smallest < estimator.k:
        raise ValueError(
            f"{type(estimator).__name__} needs groups of at least k={estimator.k} completions, but the smallest group "
            f"has {smallest}. Lower `k` or raise `num_generations`."
        )


def _analytical(groups: RolloutGroups, k: int, eps: float) -> Tensor:
    centred, std = centred_expectations(groups, k)
    return groups.unpad(centred.div_(std + eps)).masked_fill_(~groups.scored, 0.0)


def centred_expectations(groups: RolloutGroups, k: int) -> tuple[Tensor, Tensor]:
    """
    `E_i − μ` of every completion in the padded view, `(P, largest group)`, and σ, `(P, 1)`; float64. Unscored
    completions and padding have any number.
    """
    rewards, position = groups.ranking  # (P, n), best first
    w, v = subset_weights(groups, k)  # (P, n)
    # Shifted by the best reward of the group: where all subsets share it, every weighted term is then exactly 0.
    rewards = (rewards - rewards[:, :1]).nan_to_num_(nan=0.0, neginf=0.0)
    per_subset = k / groups.num_scored.double().clamp(min=1.0).unsqueeze(1)  # q = w k / n
    mean = (w * rewards).sum(1, keepdim=True) * per_subset
    std = ((rewards - mean).square_().mul_(w).sum(1, keepdim=True) * per_subset).sqrt_()
    from_best = (v * rewards).cumsum(1)  # Σ over j >= i
    expected = from_best.addcmul_(w - v, rewards).sub_(mean)
    return torch.empty_like(expected).scatter_(1, position, expected), std


def subset_weights(groups: RolloutGroups, k: int) -> tuple[Tensor, Tensor]:
    """`w` and `v` of each rank, best first; 0 for groups with fewer than k scored. Two of shape `(P, n)`."""
    sizes, row = torch.unique(groups.num_scored, return_inverse=True)  # w and v depend on the size alone
    n = sizes.double().unsqueeze(1)  # (U, 1)
    rank = n - torch.arange(groups.largest, device=n.device)  # (U, width): n, n−1, …
    # w_n = 1 and w_{i−1} = w_i (i−k)/(i−1): a product of n factors, where binomials would overflow. The factor is 0 at
    # i = k, below which no subset has its best completion.
    below = (rank - 1).clamp(min=1.0)
    factor = (rank - k).clamp(min=0.0) / below
    w = torch.cat([(n >= k).double(), factor[:, :-1]], dim=1).cumprod(1)
    v = w * ((k - 1) / below)
    return w[row], v[row]
