"""Pass@k advantages (Pass@k Training, arXiv 2508.10751, §3.3).

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
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .groups import RolloutGroups


_METHODS = ("analytical",)


@dataclass(frozen=True)
class PassAtK:
    """
    Advantage of a completion as the mean standardized reward of the k-subsets that hold it (arXiv 2508.10751).

    Args:
        k (`int`):
            Size of the subsets. Large k rewards exploration, k = 1 is GRPO.
        method (`str`, *optional*, defaults to `"analytical"`):
            `"analytical"` is the exact mean over all subsets.
        eps (`float`, *optional*, defaults to `1e-6`):
            Added to the standard deviation, as in the released code.

    A group with at least k completions of which fewer than k could be scored has no k-subset: its advantages are 0.

    Raises:
        `ValueError`: `k < 1`, an unknown `method`, or, when called, a group of fewer than k completions.
    """

    k: int
    method: str = "analytical"
    eps: float = 1e-6

    def __post_init__(self):
        if not isinstance(self.k, int) or isinstance(self.k, bool) or self.k < 1:
            raise ValueError(f"`k` must be an integer of at least 1, got {self.k!r}.")
        if self.method not in _METHODS:
            raise ValueError(f"`method` must be one of {', '.join(map(repr, _METHODS))}, got {self.method!r}.")
        if self.eps < 0:
            raise ValueError(f"`eps` must not be negative, got {self.eps}.")

    @property
    def min_group_size(self) -> int:
        return self.k

    def __call__(self, groups: RolloutGroups) -> Tensor:
        smallest = int(groups.sizes.min())
        if smallest < self.k:
            raise ValueError(
                f"PassAtK needs groups of at least k={self.k} completions, but the smallest group has {smallest}. "
                f"Lower `k` or raise `num_generations`."
            )
        # Sorted ascending, unscored and padding first: the scored rewards of a group end in the last column.
        rewards = groups.pad(groups.rewards.double(), torch.nan)
        rewards = torch.where(rewards.isnan(), -torch.inf, rewards)
        rewards, order = rewards.sort(dim=1)  # (P, n)
        advantages = self._analytical(rewards, groups.num_scored)
        advantages = torch.empty_like(advantages).scatter_(1, order, advantages)
        return groups.unpad(advantages).to(groups.rewards.dtype)

    def _analytical(self, rewards: Tensor, num_scored: Tensor) -> Tensor:
        k, width = self.k, rewards.shape[1]
        sizes, row = torch.unique(num_scored, return_inverse=True)  # the weights depend on the size alone
        n = sizes.double().unsqueeze(1)  # (U, 1)
        rank = torch.arange(1, width + 1, device=rewards.device) - width + n  # (U, width): 1…n in the last n columns

        # w_n = 1 and w_{i−1} = w_i (i−k)/(i−1): a product of n factors, where binomials would overflow. The factor is
        # 0 at i = k, below which no subset has its best completion.
        factor = ((rank - k) / (rank - 1)).clamp(min=0.0).nan_to_num(0.0, posinf=0.0)
        w = torch.cat([factor[:, 1:].flip(1).cumprod(1).flip(1), torch.ones_like(n)], dim=1)
        w = w * ((rank >= k) & (n >= k))  # (U, width)
        q = w * k / n.clamp(min=1.0)
        v = w * (k - 1) / (rank - 1).clamp(min=1.0)
        w, q, v = w[row], q[row], v[row]  # (P, width)

        # Shifted by the best reward of the group: where all subsets share it, every weighted term is then exactly 0.
        scored = rewards.isfinite()
        rewards = torch.where(scored, rewards - rewards[:, -1:], 0.0)
        mean = (q * rewards).sum(1, keepdim=True)
        std = (q * (rewards - mean) ** 2).sum(1, keepdim=True).sqrt()
        from_here = (v * rewards).flip(1).cumsum(1).flip(1)  # Σ over j >= i
        above = torch.cat([from_here[:, 1:], torch.zeros_like(mean)], dim=1)
        expected = w * rewards + above
        has_subset = scored & (num_scored >= k).unsqueeze(1)
        return torch.where(has_subset, (expected - mean) / (std + self.eps), 0.0)
