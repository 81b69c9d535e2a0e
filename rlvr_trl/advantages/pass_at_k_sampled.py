"""Pass@k advantages from some of the k-subsets of a group (arXiv 2508.10751, §2.2 and §2.3).

*Full sampling* cuts a group of n into floor(n / k) consecutive disjoint subsets; each completion gets the standardized
reward of its subset, and the completions left over are discarded. *Bootstrap* draws N_group = n random subsets; each
completion gets the sum over the drawn subsets that hold it. A subset's reward is the best in it, standardized as
(R − mean) / (std + eps) over the subsets *of its group that were used*, with the population standard deviation: Eq. 2
prints 1/N outside the root, a typo.

    row         0  1  2  3  4  5  6  7         n = 8, k = 3
    subset      0  0  0  1  1  1  −  −         full sampling: rows 6 and 7 are left over

A bootstrap subset holds each completion with probability k / n, and there are n subsets, so an advantage is a sum of
about k terms where the analytical one is a mean: about k times its scale, and more for a completion drawn more often.
Unscored completions are skipped: n is the number of scored ones.
"""

from functools import reduce

import torch
from torch import Tensor

from .groups import RolloutGroups


def full_sampling(groups: RolloutGroups, k: int, eps: float) -> Tensor:
    """Standardized reward of the subset that each completion is in, 0 for those left over. Shape `(T,)`."""
    place, num_subsets = _place(groups), -(-groups.largest // k)  # per group; the last one may be incomplete
    cell = groups.index * num_subsets * k + place  # (T,)
    rewards = torch.full((groups.num_groups * num_subsets * k,), torch.nan, dtype=torch.float64, device=cell.device)
    best = rewards.scatter_(0, cell, groups.rewards.double()).view(groups.num_groups, num_subsets, k).amax(2)
    complete = torch.arange(num_subsets, device=cell.device) < (groups.num_scored // k).unsqueeze(1)
    scores = _standardize(best.masked_fill_(~complete, torch.nan), eps)
    return scores.take(cell // k).nan_to_num_(nan=0.0)


def in_a_subset(groups: RolloutGroups, k: int) -> Tensor:
    """Whether full sampling puts a completion into a subset: not if unscored or left over. Shape `(T,)`."""
    covered = groups.num_scored // k * k  # (P,)
    return _place(groups) < covered[groups.index]


def bootstrap(groups: RolloutGroups, k: int, eps: float) -> Tensor:
    """Sum of the standardized rewards of the drawn subsets that hold each completion. Shape `(T,)`."""
    # On the CPU, where the generator draws: there, sums are the same to the last bit for every device and process.
    device = groups.rewards.device
    if device.type != "cpu":
        groups = RolloutGroups(groups.rewards.cpu(), groups.group_ids.cpu(), seed=groups.seed)
    width = groups.largest
    cell = groups.index * width + _place(groups)  # (T,)
    rewards = torch.zeros(groups.num_groups * width, dtype=torch.float64).scatter_(0, cell, groups.rewards.double())

    count = torch.where(groups.num_scored >= k, groups.num_scored, 0)  # (P,): subsets of each group
    owner = torch.arange(groups.num_groups).repeat_interleave(count)  # (N,): group of each subset
    first = owner * width
    members = draw_subsets(count[owner], k, groups.seed).add_(first)  # (k, N)
    subset = torch.arange(len(owner)) - (count.cumsum(0) - count)[owner] + first  # (N,): its cell in a padded view
    best = torch.full_like(rewards, torch.nan)
    best[subset] = reduce(torch.maximum, (rewards.take(member) for member in members))
    scores = _standardize(best.view(-1, width), eps).take(subset)
    advantages = torch.zeros_like(rewards)
    for member in members:
        advantages.scatter_add_(0, member, scores)
    return advantages.take(cell).to(device)


def draw_subsets(sizes: Tensor, k: int, seed: int) -> Tensor:
    """
    One random k-subset of `range(size)` for each size, every subset equally likely.

    Args:
        sizes (`Tensor` of shape `(N,)`):
            Integers of at least k, on the CPU.
        k (`int`):
            Size of the subsets.
        seed (`int`):
            Seed of the generator. The same sizes and seed give the same subsets.

    Returns:
        `Tensor` of shape `(k, N)`: the members of each subset, one subset a column, in no particular order.
    """
    # Floyd's algorithm, all subsets at once: member number s is drawn from the first size − k + s + 1 items. If it is
    # in the subset already, the last of these items takes its place, which cannot be in it. No draw is rejected.
    generator = torch.Generator().manual_seed(seed)
    members = torch.empty(k, len(sizes), dtype=torch.long)
    first, taken = sizes.cumsum(0) - sizes, torch.zeros(int(sizes.sum()), dtype=torch.bool)
    for s, member in enumerate(members):  # (N,), written in place: small tensors stay in the cache
        last = sizes - k + s
        uniform = torch.rand(len(sizes), generator=generator, dtype=torch.float64)
        member.copy_(uniform.mul_(last + 1))  # rounds down
        torch.where(taken.take(first + member), last, member, out=member)
        taken.index_fill_(0, first + member, True)
    return members


def _place(groups: RolloutGroups) -> Tensor:
    """Rank of each completion within its group: the scored ones first, both kinds in row order. Shape `(T,)`."""
    scored = groups.pad(groups.scored, False)  # (P, n)
    before = scored.cumsum(1)
    unscored = torch.arange(1, groups.largest + 1, device=before.device) - before + groups.num_scored.unsqueeze(1)
    return groups.unpad(torch.where(scored, before, unscored)) - 1


def _standardize(values: Tensor, eps: float) -> Tensor:
    """Rows standardized by their population standard deviation, ignoring NaN. Shape `(P, m)`."""
    # Shifted by the largest, so that equal values give exactly 0.
    values = values - values.nan_to_num(nan=-torch.inf).amax(1, keepdim=True)
    centred = values - values.nanmean(1, keepdim=True)
    return centred / (centred.square().nanmean(1, keepdim=True).sqrt() + eps)
