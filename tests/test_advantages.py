"""Advantages against brute force, the published tables, TRL's own arithmetic, and their invariances."""

from dataclasses import dataclass, replace
from itertools import combinations
from math import comb, sqrt

import pytest
import torch

from rlvr_trl.advantages import GroupRelative, PassAtK, RolloutGroups, build_estimator, combine_rewards


def ragged(sizes, kind="real", seed=0, dtype=torch.float64):
    """Groups of the given sizes with rows in random order and arbitrary ids."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.cat([torch.full((size,), 3 * i + 7) for i, size in enumerate(sizes)])
    draw = {
        "real": lambda n: torch.randn(n, generator=generator, dtype=torch.float64),
        "negative": lambda n: -5 - 10 * torch.rand(n, generator=generator, dtype=torch.float64),
        "binary": lambda n: torch.randint(0, 2, (n,), generator=generator).double(),
        "signed": lambda n: torch.randint(0, 2, (n,), generator=generator).double() * 2 - 1,
        "tied": lambda n: torch.randint(0, 3, (n,), generator=generator).double() / 4,
    }[kind]
    order = torch.randperm(len(ids), generator=generator)
    return RolloutGroups(rewards=draw(len(ids)).to(dtype), group_ids=ids[order])


def pass_at_k_by_enumeration(rewards, k):
    """Mean standardized maximum over the k-subsets that hold each response."""
    subsets = list(combinations(range(len(rewards)), k))
    best = torch.tensor([max(rewards[i] for i in subset) for subset in subsets], dtype=torch.float64)
    scores = (best - best.mean()) / (best.std(correction=0) + 1e-6)
    # one subset, or equal ones: the mean of equal numbers may differ from them in the last bit
    if best.max() == best.min():
        scores = torch.zeros_like(scores)
    return torch.stack(
        [torch.stack([s for s, subset in zip(scores, subsets, strict=True) if i in subset]).mean()
         for i in range(len(rewards))]
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["real", "negative", "binary", "signed", "tied"])
@pytest.mark.parametrize("k", range(1, 9))
def test_pass_at_k_equals_enumeration_of_all_subsets(kind, k):
    groups = ragged([8, 9, 8, 10, 11, 8, 8], kind, seed=k)
    advantages = PassAtK(k)(groups)
    for group_id in groups.group_ids.unique():
        rows = groups.group_ids == group_id
        expected = pass_at_k_by_enumeration(groups.rewards[rows].tolist(), k)
        torch.testing.assert_close(advantages[rows], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_for_every_k_up_to_the_group_size(n):
    for k in range(1, n + 1):
        groups = ragged([n], "tied", seed=31 * n + k)
        expected = pass_at_k_by_enumeration(groups.rewards.tolist(), k)
        torch.testing.assert_close(PassAtK(k)(groups), expected, rtol=0, atol=1e-9)


def test_pass_at_k_table_of_the_paper_for_8_samples_and_k_4():
    table = {1: (0.999998, -0.142857), 2: (0.522232, -0.174077), 3: (0.277349, -0.166409), 4: (0.120385, -0.120385)}
    for num_correct in range(9):
        rewards = (torch.arange(8) < num_correct).double()
        advantages = PassAtK(4)(RolloutGroups(rewards, torch.zeros(8, dtype=torch.long)))
        if num_correct in table:
            right, wrong = table[num_correct]
            expected = torch.where(rewards == 1, right, wrong).double()
            torch.testing.assert_close(advantages, expected, rtol=0, atol=1e-6)
        else:
            assert (advantages == 0).all()  # exactly


@pytest.mark.parametrize(("n", "k"), [(64, 8), (256, 32), (1024, 1), (1024, 16), (1024, 512), (1024, 1023)])
def test_pass_at_k_closed_form_in_exact_integers_up_to_1024(n, k):
    counts = sorted({1, 2, 3, n // 7, n // 2, n - k, n - 1} & set(range(1, n)))
    rewards = torch.cat([(torch.arange(n) < c).double() for c in counts])
    ids = torch.arange(len(counts)).repeat_interleave(n)
    advantages = PassAtK(k)(RolloutGroups(rewards, ids)).view(len(counts), n)
    for row, c in zip(advantages, counts, strict=True):
        all_wrong = comb(n - c, k) / comb(n, k)  # exact integers, one division
        sigma = sqrt(all_wrong * (comb(n, k) - comb(n - c, k)) / comb(n, k))
        right = all_wrong / (sigma + 1e-6)
        wrong = (all_wrong - comb(n - c - 1, k - 1) / comb(n - 1, k - 1)) / (sigma + 1e-6)
        torch.testing.assert_close(row[:c], torch.full((c,), right, dtype=torch.float64), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(row[c:], torch.full((n - c,), wrong, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_pass_at_1_is_grpo_with_the_population_standard_deviation():
    groups = ragged([4, 7, 16], "real")
    rewards = groups.pad(groups.rewards, torch.nan)
    mean = rewards.nanmean(1, keepdim=True)
    std = (rewards - mean).square().nanmean(1, keepdim=True).sqrt()
    torch.testing.assert_close(PassAtK(1)(groups), groups.unpad((rewards - mean) / (std + 1e-6)))


@pytest.mark.parametrize("kind", ["real", "binary", "tied"])
@pytest.mark.parametrize("estimator", [PassAtK(1), PassAtK(4), GroupRelative(), GroupRelative("none")])
def test_advantages_of_a_group_sum_to_zero(kind, estimator):
    groups = ragged([4, 9, 17, 64], kind)
    torch.testing.assert_close(groups.sum(estimator(groups)), torch.zeros(4, dtype=torch.float64))


ALL = [PassAtK(1), PassAtK(3), GroupRelative("group"), GroupRelative("batch"), GroupRelative("none")]


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_row_order_moves_with_the_rows(estimator):
    groups = ragged([5, 3, 8], "tied")
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    shuffled = RolloutGroups(groups.rewards[order], groups.group_ids[order])
    torch.testing.assert_close(estimator(shuffled), estimator(groups)[order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", [e for e in ALL if e != GroupRelative("batch")], ids=repr)
def test_a_group_does_not_see_the_others(estimator):
    groups = ragged([5, 3, 8], "real")
    together = estimator(groups)
    for group_id in groups.group_ids.unique():
        rows = groups.group_ids == group_id
        alone = estimator(RolloutGroups(groups.rewards[rows], groups.group_ids[rows]))
        torch.testing.assert_close(together[rows], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
def test_unscored_completions_are_outside_the_statistics(estimator):
    groups = ragged([5, 6, 8], "real")
    rewards = groups.rewards.clone()
    dropped = torch.zeros(19, dtype=torch.bool)
    dropped[[0, 7, 13]] = True
    rewards[dropped] = torch.nan
    advantages = estimator(RolloutGroups(rewards, groups.group_ids))
    kept = estimator(RolloutGroups(rewards[~dropped], groups.group_ids[~dropped]))
    assert (advantages[dropped] == 0).all()
    torch.testing.assert_close(advantages[~dropped], kept)


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_degenerate_groups_get_zero(estimator, dtype):
    ids = torch.arange(5).repeat_interleave(4)
    rewards = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, -1] + [float("nan")] * 4 + [1, 1, 1, 1], dtype=dtype)
    advantages = estimator(RolloutGroups(rewards, ids))
    assert advantages.dtype == dtype
    assert (advantages == 0).all()


def test_a_group_with_fewer_scored_completions_than_k_gets_zero():
    rewards = torch.tensor([1.0, 0.0, torch.nan, torch.nan, 1.0, 0.0, 0.0, 0.0])
    advantages = PassAtK(3)(RolloutGroups(rewards, torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])))
    assert (advantages[:4] == 0).all() and (advantages[4:] != 0).all()


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_group_relative_is_trl_to_the_last_bit(scale):
    from trl.trainer.utils import nanstd

    rewards = torch.rand(96, generator=torch.Generator().manual_seed(0))
    rewards[[3, 50]] = torch.nan
    grouped = rewards.view(-1, 8)
    expected = rewards - grouped.nanmean(1).repeat_interleave(8)
    if scale != "none":
        std = nanstd(grouped, dim=1).repeat_interleave(8) if scale == "group" else nanstd(rewards)
        expected = expected / (std + 1e-4)
    advantages = GroupRelative(scale)(RolloutGroups(rewards, torch.arange(96) // 8))
    assert torch.equal(advantages, expected.nan_to_num(0.0))


def test_groups_count_what_they_hold():
    rewards = torch.tensor([1.0, 0.0, 1.0, torch.nan, 0.0, torch.nan])
    groups = RolloutGroups(rewards, torch.tensor([9, 2, 9, 9, 2, 4]))
    assert groups.num_groups == 3
    assert groups.index.tolist() == [2, 0, 2, 2, 0, 1]
    assert groups.sizes.tolist() == [2, 1, 3]
    assert groups.num_scored.tolist() == [2, 0, 2]
    assert groups.num_correct.tolist() == [0, 0, 2]
    torch.testing.assert_close(groups.accuracy, torch.tensor([0.0, torch.nan, 1.0]), equal_nan=True)
    values = torch.arange(6.0)
    assert torch.equal(groups.unpad(groups.pad(values, -1.0)), values)


def test_groups_can_be_extended():
    @dataclass(frozen=True, eq=False)
    class Numbered(RolloutGroups):
        number: int = 3

        def __post_init__(self):
            super().__post_init__()
            object.__setattr__(self, "number", self.number + 1)

    groups = Numbered(torch.tensor([0.0, 1.0]), torch.tensor([0, 0]), progress=0.5)
    assert (groups.number, groups.progress, RolloutGroups.seed) == (4, 0.5, 0)
    assert replace(groups, number=7).number == 8 and groups.correct.tolist() == [False, True]


def test_correctness_comes_from_one_reward_function():
    per_func = torch.tensor([[0.1, 1.0], [0.9, 0.0], [torch.nan, 1.0], [torch.nan, torch.nan]])
    groups = combine_rewards(per_func, torch.tensor([0, 0, 0, 0]), torch.tensor([1.0, 0.5]), correctness_column=1)
    torch.testing.assert_close(groups.rewards, torch.tensor([0.6, 0.9, 0.5, torch.nan]), equal_nan=True)
    assert groups.correct.tolist() == [True, False, True, False]
    assert (groups.num_judged.item(), groups.num_scored.item(), groups.num_correct.item()) == (3, 3, 2)
    other = combine_rewards(per_func, torch.tensor([0, 0, 0, 0]), torch.tensor([1.0, 0.5]), correctness_threshold=0.05)
    assert (other.num_judged.item(), other.num_correct.item()) == (2, 2)


def test_normalize_then_sum_standardizes_each_function_within_the_group():
    per_func = torch.rand(12, 2, generator=torch.Generator().manual_seed(3))
    groups = combine_rewards(per_func, torch.arange(12) // 4, torch.tensor([1.0, 2.0]), normalize=True)
    grouped = per_func.view(3, 4, 2)
    standardized = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    expected = (standardized * torch.tensor([1.0, 2.0])).sum(-1).flatten()
    torch.testing.assert_close(groups.rewards, expected)


def test_k_above_the_group_size_names_both_numbers():
    groups = ragged([8, 5])
    with pytest.raises(ValueError, match=r"k=6.*smallest group has 5"):
        PassAtK(6)(groups)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PassAtK(0), "at least 1, got 0"),
        (lambda: PassAtK(2.0), "got 2.0"),
        (lambda: PassAtK(2, method="guess"), "'analytical'"),
        (lambda: PassAtK(2, eps=-1.0), "-1.0"),
        (lambda: GroupRelative("std"), "'group', 'batch', 'none'.*'std'"),
        (lambda: GroupRelative(eps=-1.0), "-1.0"),
        (lambda: RolloutGroups(torch.ones(2, 2), torch.ones(2, 2).long()), r"\(2, 2\)"),
        (lambda: RolloutGroups(torch.ones(2).long(), torch.ones(2).long()), "int64"),
        (lambda: RolloutGroups(torch.ones(0), torch.ones(0).long()), r"\(0,\)"),
        (lambda: RolloutGroups(torch.ones(3), torch.ones(2).long()), r"`group_ids`.*\(2,\)"),
        (lambda: RolloutGroups(torch.ones(3), torch.ones(3)), "float32"),
        (lambda: RolloutGroups(torch.tensor([torch.inf, 0]), torch.ones(2).long()), "infinite"),
        (lambda: RolloutGroups(torch.ones(2), torch.ones(2).long(), correct=torch.ones(2)), "boolean"),
        (lambda: build_estimator("pass_at_q"), "pass_at_q.*Valid names: group_relative, pass_at_k"),
        (lambda: build_estimator("pass_at_k"), "needs the field 'k'.*k, method, eps"),
        (lambda: build_estimator({"name": "pass_at_k", "k": 2, "size": 1}), "no field 'size'.*k, method, eps"),
        (lambda: build_estimator({"k": 2}), "key 'name'"),
        (lambda: build_estimator({"name": "pass_at_k", "k": "2"}), "got '2'"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_estimators_by_name():
    assert build_estimator("group_relative") == GroupRelative()
    assert build_estimator({"name": "group_relative", "scale": "none"}) == GroupRelative("none")
    assert build_estimator({"name": "pass_at_k", "k": 4}) == PassAtK(4)
