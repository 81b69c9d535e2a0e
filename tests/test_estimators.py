"""Every estimator against published tables, plain loops and a second route, and what all of them have in common."""

import asyncio
import json
import math
import pickle
import statistics
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import pytest
import torch

from rlvr_trl.advantages import (
    AGRAE,
    ESTIMATORS,
    FGRPO,
    PKPO,
    REPO,
    RSGRPO,
    AdaptivePassAtK,
    CombinedPassAtK,
    CompletionTokens,
    DifficultyFocused,
    DominantSide,
    EntropyShaped,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    LeaveOneOut,
    MaxAtK,
    MaxRL,
    NegativeOnly,
    NestedEstimator,
    PassAtK,
    PassRateObjective,
    PerPromptMean,
    PositiveNegativeReinforce,
    ReinforcePlusPlus,
    RolloutGroups,
    Scheduled,
    TrainingGroup,
    UniquenessAware,
    Unlikeliness,
    WithoutEasy,
    build_estimator,
    rows_in_loss,
    shape_tokens,
)
from rlvr_trl.advantages.nesting import min_group_size_with_signal, shapes_tokens
from rlvr_trl.advantages.pass_at_k_sampled import draw_subsets
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.digests import content_digest
from rlvr_trl.rewards import LengthReward, NoisyReward, WeightedReward, maze_reward
from rlvr_trl.rewards.wrappers import check_whole_groups


def binary(counts, n=8, dtype=torch.float64, **fields):
    """Groups of n with the given numbers of correct completions, correct ones first."""
    rewards = torch.cat([(torch.arange(n) < c).to(dtype) for c in counts])
    return RolloutGroups(rewards, torch.arange(len(counts)).repeat_interleave(n), **fields)


def ragged(sizes, seed=0, real=False, dtype=torch.float64):
    """Groups of the given sizes with rows in random order, entropies, and rewards 0/1 or real."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)) * 3 + 7
    rewards = torch.rand(len(ids), generator=generator, dtype=torch.float64)
    rewards = rewards if real else (rewards < 0.4).double()
    entropies = torch.rand(len(ids), generator=generator, dtype=torch.float64)
    order = torch.randperm(len(ids), generator=generator)
    log_probs = -torch.rand(len(ids), generator=generator, dtype=torch.float64)
    answers = torch.randint(-1, 3, (len(ids),), generator=generator)
    return RolloutGroups(
        rewards.to(dtype), ids[order], entropies=entropies, seed=seed, log_probs=log_probs, answer_ids=answers
    )


OF_COMPLETIONS = ("rewards", "group_ids", "correct", "judged", "entropies", "log_probs", "answer_ids")


def subset(groups, rows):
    """The groups with some of the rows, in the order given."""
    return RolloutGroups(
        **{name: getattr(groups, name)[rows] for name in OF_COMPLETIONS}, seed=groups.seed, progress=groups.progress
    )


DR_GRPO = GroupRelative("none")
BOOTSTRAP, FULL = PassAtK(3, "bootstrap"), PassAtK(3, "full_sampling")
PSR, NSR, W = (getattr(PositiveNegativeReinforce, name)() for name in ("psr", "nsr", "w_reinforce"))
ALL = [
    BOOTSTRAP, FULL, ExceedingPassAtK(3), CombinedPassAtK(3), AdaptivePassAtK(3), WithoutEasy(PassAtK(3)), AGRAE(),
    AGRAE(PassAtK(3), released_code=True), DominantSide(), DifficultyFocused(), DifficultyFocused("easy"),
    NegativeOnly(), PSR, NSR, W, GRPOLead(), Scheduled([(0, PassAtK(3)), (0.5, GroupRelative())]), PerPromptMean(),
    PassRateObjective(), PassRateObjective(power=0.5), TrainingGroup(3), TrainingGroup(4, PassRateObjective()),
    MaxRL(), RSGRPO(), FGRPO(PassAtK(3), 0.5), PKPO(1), PKPO(3), MaxAtK(3), LeaveOneOut(), ReinforcePlusPlus(),
    ReinforcePlusPlus(group_baseline=True), Unlikeliness(), Unlikeliness(0.5, PassAtK(3)), UniquenessAware(),
    UniquenessAware(0.5, GroupRelative("none")), EntropyShaped(), REPO(),
]  # fmt: skip
IN_ROW_ORDER = [BOOTSTRAP, FULL, *(e for e in ALL if isinstance(e, TrainingGroup))]
REINFORCE = [PSR, NSR, W, ReinforcePlusPlus()]
OVER_THE_BATCH = [
    BOOTSTRAP, AdaptivePassAtK(3), *(e for e in ALL if isinstance(e, AGRAE | PerPromptMean | ReinforcePlusPlus)),
]  # fmt: skip


# --- Pass@k from some of the subsets


def standardized(best, eps=1e-6):
    if len(set(best)) <= 1:
        return [0.0] * len(best)
    mean, std = statistics.fmean(best), statistics.pstdev(best)
    return [(value - mean) / (std + eps) for value in best]


def rows_by_group(groups):
    for group_id in groups.group_ids.unique():
        yield [i for i in (groups.group_ids == group_id).nonzero().flatten().tolist() if groups.scored[i]]


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_full_sampling_is_a_plain_loop(k, real):
    groups = ragged([8, 9, 13, 16, 31], seed=k, real=real)
    groups.rewards[[5, 20, 60]] = torch.nan
    groups = replace(groups, correct=None, judged=None)
    estimator = PassAtK(k, "full_sampling")
    advantages, in_loss = estimator(groups), estimator.rows_in_loss(groups)
    for rows in rows_by_group(groups):
        chunks = [rows[i : i + k] for i in range(0, len(rows) - k + 1, k)]
        scores = standardized([max(groups.rewards[chunk].tolist()) for chunk in chunks])
        for chunk, score in zip(chunks, scores, strict=True):
            torch.testing.assert_close(advantages[chunk], torch.full((k,), score, dtype=torch.float64))
            assert in_loss[chunk].all()
        left_over = rows[len(chunks) * k :]
        assert (advantages[left_over] == 0).all() and not in_loss[left_over].any()
    assert (advantages[~groups.scored] == 0).all() and in_loss[~groups.scored].all()
    assert rows_in_loss(PassAtK(k), groups).all() and rows_in_loss(PassAtK(k, "bootstrap"), groups).all()


@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8])
def test_bootstrap_is_a_plain_loop_over_the_same_subsets(k, real):
    groups = ragged([8, 9, 13, 16, 31], seed=k, real=real)
    groups.rewards[[5, 20, 60]] = torch.nan
    groups = replace(groups, correct=None, judged=None)
    sizes = [n for n in groups.num_scored.tolist() if n >= k]  # one subset for each scored completion, group by group
    drawn = iter(draw_subsets(torch.tensor([n for n in sizes for _ in range(n)]), k, groups.seed).T.tolist())
    expected = torch.zeros_like(groups.rewards)
    for rows in rows_by_group(groups):
        mine = [[rows[i] for i in next(drawn)] for _ in rows] if len(rows) >= k else []
        scores = standardized([max(groups.rewards[s].tolist()) for s in mine])
        for s, score in zip(mine, scores, strict=True):
            expected[s] += score
    assert next(drawn, None) is None
    estimator = PassAtK(k, "bootstrap")
    torch.testing.assert_close(estimator(groups), expected, rtol=0, atol=1e-9)
    assert torch.equal(estimator(groups), estimator(replace(groups)))  # the seed decides
    if real:
        assert not torch.equal(estimator(groups), estimator(replace(groups, seed=groups.seed + 1)))


@pytest.mark.parametrize(("n", "k"), [(6, 1), (6, 3), (7, 5), (5, 5)])
def test_every_subset_is_equally_likely(n, k):
    # Fixed seed, so that this passes or fails for good. With another seed it would fail with probability 1e-6: chi²
    # of df degrees is above df + 2 sqrt(df x) + 2 x with probability below exp(−x) (Laurent & Massart 2000, Lemma 1).
    draws = 20_000
    members = draw_subsets(torch.full((draws,), n), k, seed=3).sort(0).values
    subsets = list(combinations(range(n), k))
    counts = torch.tensor([members.T.eq(torch.tensor(s)).all(1).sum() for s in subsets])
    assert counts.sum() == draws  # k different items of range(n), always
    expected, df, x = draws / len(subsets), len(subsets) - 1, -math.log(1e-6)
    chi2 = ((counts - expected) ** 2 / expected).sum().item()
    assert chi2 <= df + 2 * math.sqrt(df * x) + 2 * x


def test_bootstrap_is_about_k_times_the_analytical_scale():
    # the mean over seeds against k times the exact value; few subsets bias their std, so "about" is 10 %
    groups, k = binary([3], n=32), 4
    groups = RolloutGroups(groups.rewards.repeat(400), torch.arange(400).repeat_interleave(32))
    advantages = PassAtK(k, "bootstrap")(groups).view(400, 32)
    exact = k * PassAtK(k)(binary([3], n=32))
    right, wrong = advantages[:, :3].mean(), advantages[:, 3:].mean()
    assert abs(right / exact[0] - 1) < 0.1 and abs(wrong / exact[-1] - 1) < 0.1
    torch.testing.assert_close(advantages.sum(1), torch.zeros(400, dtype=torch.float64), rtol=0, atol=1e-9)


def test_full_sampling_sums_to_zero():
    groups = ragged([9, 12, 30], real=True)
    torch.testing.assert_close(groups.sum(FULL(groups)), torch.zeros(3, dtype=torch.float64))


# --- Implicit rewards


def test_exceeding_pass_at_k_is_pass_at_k_times_f():
    table = {1: 0.987, 2: 0.437, 3: 0.319, 4: 0.266, 5: 0.235}
    groups = binary([0, 1, 2, 3, 4, 5, 8])
    ratio = ExceedingPassAtK(2)(groups) / PassAtK(2)(groups)
    for i, c in enumerate([0, 1, 2, 3, 4, 5, 8]):
        if c in table:
            expected = torch.full((8,), 4 / (10 * math.log(c + 0.5)), dtype=torch.float64)
            torch.testing.assert_close(ratio[8 * i : 8 * i + 8], expected)
            assert expected[0].item() == pytest.approx(table[c], abs=6e-4)
        else:
            assert (ExceedingPassAtK(2)(groups)[8 * i : 8 * i + 8] == 0).all()


def test_exceeding_pass_at_k_is_0_without_a_correct_completion_and_pass_at_k_without_a_judged_one():
    rewards, ids = torch.arange(8.0) / 10, torch.zeros(8, dtype=torch.long)
    none = torch.zeros(8, dtype=torch.bool)
    assert (ExceedingPassAtK(2)(RolloutGroups(rewards, ids, correct=none)) == 0).all()
    unjudged = RolloutGroups(rewards, ids, correct=none, judged=none)
    assert torch.equal(ExceedingPassAtK(2)(unjudged), PassAtK(2)(unjudged))


def test_combined_pass_at_k_weighs_by_accuracy():
    for c in range(9):
        groups = binary([c])
        expected = c / 8 * PassAtK(4)(groups) + (1 - c / 8) * PassAtK(1)(groups)
        torch.testing.assert_close(CombinedPassAtK(4)(groups), expected)


def test_adaptive_pass_at_k_gives_pass_at_1_to_the_half_with_the_most_entropy():
    for entropies, explored in {(0.1, 0.9, 0.5, 0.7, 0.2): [1, 3], (0.5,) * 5: [0, 1], (0.3,) * 4: [0, 1]}.items():
        groups = binary([2] * len(entropies))
        # only the mean of a group matters
        spread = torch.tensor(entropies).repeat_interleave(8) + torch.tensor([-0.05, 0.05]).repeat(4 * len(entropies))
        groups = replace(groups, entropies=spread.double())
        advantages, at_1, at_4 = AdaptivePassAtK(4)(groups), PassAtK(1)(groups), PassAtK(4)(groups)
        chosen = torch.isin(groups.group_ids, torch.tensor(explored))
        assert torch.equal(advantages, torch.where(chosen, at_1, at_4))
    assert AdaptivePassAtK(4).needs_entropies and NegativeOnly(AdaptivePassAtK(4)).needs_entropies
    assert not AGRAE().needs_entropies
    with pytest.raises(ValueError, match="AdaptivePassAtK.*entropies"):
        AdaptivePassAtK(4)(binary([2]))


def test_adaptive_pass_at_k_ranks_prompts_without_entropy_last():
    groups = replace(binary([2, 2]), entropies=torch.tensor([torch.nan] * 8 + [0.1] * 7 + [torch.nan]))
    expected = torch.cat([PassAtK(4)(groups)[:8], PassAtK(1)(groups)[8:]])
    assert torch.equal(AdaptivePassAtK(4)(groups), expected)


def test_without_easy_zeroes_prompts_above_the_threshold():
    groups = binary([2, 4, 5, 8])
    base = GroupRelative()(groups)
    assert torch.equal(WithoutEasy(GroupRelative())(groups), torch.cat([base[:16], torch.zeros_like(base[16:])]))
    kept = WithoutEasy(GroupRelative(), threshold=0.625)(groups)
    assert torch.equal(kept[:24], base[:24]) and (kept[24:] == 0).all()


def test_scheduled_switches_at_its_shares_of_training():
    a, b, c = PassAtK(8), FULL, GroupRelative()
    schedule = Scheduled([(0, a), (0.25, b), (0.7, c)])
    groups = binary([2, 3])
    for progress, current in {0.0: a, 0.2499: a, 0.25: b, 0.69: b, 0.7: c, 1.0: c}.items():
        now = replace(groups, progress=progress)
        assert torch.equal(schedule(now), current(now))
        assert torch.equal(schedule.rows_in_loss(now), rows_in_loss(current, now))
    assert schedule.min_group_size == 8
    assert not schedule.needs_entropies and Scheduled([(0, a), (0.5, AdaptivePassAtK(2))]).needs_entropies


# --- A-GRAE and its control groups

AGRAE_TABLE = {1: (1.205716, -0.344490), 4: (0.330718, -0.661437), 7: (0.172245, -2.411431)}


@pytest.mark.parametrize("c", AGRAE_TABLE)
def test_a_grae_table_for_8_samples_and_half_of_the_batch_correct(c):
    groups = binary([c, 8 - c])  # ω = 1/2
    advantages = AGRAE(GroupRelative(eps=1e-6))(groups)[:8].tolist()
    assert advantages == pytest.approx([AGRAE_TABLE[c][0]] * c + [AGRAE_TABLE[c][1]] * (8 - c), abs=1e-6)


@pytest.mark.parametrize("by_accuracy", [False, True])
@pytest.mark.parametrize("released_code", [False, True])
@pytest.mark.parametrize(("shift", "suppression"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_grae_is_a_plain_loop(shift, suppression, released_code, by_accuracy):
    if released_code and not shift:
        with pytest.raises(ValueError, match="difficulty_shift"):
            AGRAE(difficulty_shift=False, released_code=True)
        return
    groups = ragged([5, 9, 8, 12, 3], real=True)
    correct = groups.correct.clone()
    correct[:5], correct[5:14] = True, False  # all right, all wrong, and rewards that differ all the same
    groups = replace(groups, correct=correct, rewards=groups.rewards.clamp(0, 1))
    base, alpha = GroupRelative(), 0.8
    a0 = base(groups).tolist()
    omega = (groups.correct.double() if by_accuracy else groups.rewards).mean().item()
    uniform = 0.0 if by_accuracy else 1.0
    expected = []
    for i, group in enumerate(groups.index.tolist()):
        p, a = groups.accuracy[group].item(), a0[i]
        if shift:
            easy = 1 - math.sqrt(p) if released_code else math.sqrt(1 - p)
            a = omega / 2 * a / math.sqrt(p) + (1 - omega) / 2 * a / easy if 0 < p < 1 else uniform * a
        if suppression and a > 0:
            a *= min(1, omega / alpha)
        expected.append(a)
    options = {"omega": "accuracy", "zero_uniform": True} if by_accuracy else {}
    estimator = AGRAE(base, alpha, shift, suppression, released_code, **options)
    torch.testing.assert_close(estimator(groups), torch.tensor(expected, dtype=torch.float64))


def test_a_grae_weighs_by_a_mean_reward_from_0_to_1():
    groups = ragged([5, 9], real=True)
    for rewards in (groups.rewards - 3, groups.rewards + 3):
        with pytest.raises(ValueError, match="mean reward of the batch, which must be from 0 to 1, and is "):
            AGRAE()(replace(groups, rewards=rewards))
        assert AGRAE(omega="accuracy")(replace(groups, rewards=rewards)).isfinite().all()
    with pytest.raises(ValueError, match="omega"):
        AGRAE(omega="accurracy")


def test_a_grae_without_judged_completions_is_its_base():
    groups = ragged([5, 9], real=True)
    groups = replace(groups, judged=torch.zeros_like(groups.judged))
    for estimator in (AGRAE(omega="accuracy"), DifficultyFocused(gamma=0.3), WithoutEasy(GroupRelative())):
        assert torch.equal(estimator(groups), GroupRelative()(groups))
    half = (PassAtK(3)(groups) + PassAtK(1)(groups)) / 2
    torch.testing.assert_close(CombinedPassAtK(3)(groups), half)


def test_control_groups_of_a_grae():
    groups = binary([2, 6])
    base = GroupRelative()(groups)
    positive_dominant, negative_dominant = DominantSide(10.0)(groups), DominantSide(0.1)(groups)
    torch.testing.assert_close(positive_dominant, torch.where(base > 0, base * 10, base))
    torch.testing.assert_close(negative_dominant, torch.where(base > 0, base / 10, base))
    p = torch.tensor([0.25, 0.75]).double().repeat_interleave(8)
    torch.testing.assert_close(DifficultyFocused("hard")(groups), 0.5 * base / p.sqrt())
    torch.testing.assert_close(DifficultyFocused("easy", 0.7)(groups), 0.7 * base / (1 - p).sqrt())


# --- Negative gradients, GRPO-LEAD


def test_negative_only_zeroes_positives_and_keeps_them_in_the_loss():
    groups = ragged([5, 9], real=True)
    base = GroupRelative()(groups)
    assert torch.equal(NegativeOnly()(groups), torch.where(base < 0, base, 0.0))
    assert NegativeOnly().rows_in_loss(groups).all()


def test_reinforce_with_positives_negatives_or_both():
    rewards = torch.tensor([1.0, 0.0, torch.nan, 1.0, 0.0])
    groups = RolloutGroups(rewards, torch.tensor([0, 0, 0, 1, 1]))
    assert PSR(groups).tolist() == [1, 0, 0, 1, 0]
    assert PSR.rows_in_loss(groups).tolist() == [True, False, False, True, False]
    assert NSR(groups).tolist() == [0, -1, 0, 0, -1]
    assert NSR.rows_in_loss(groups).tolist() == [False, True, False, False, True]
    torch.testing.assert_close(W(groups), torch.tensor([0.1, -1, 0, 0.1, -1]))
    assert W.rows_in_loss(groups).all()
    # correctness decides, not the reward
    other = RolloutGroups(rewards, groups.group_ids, correct=~groups.correct, judged=groups.judged)
    assert PSR(other).tolist() == [0, 1, 0, 0, 1]


def test_grpo_lead_weighs_by_the_share_of_positive_rewards():
    def weight(x):
        return 0.4 + 1.1 / (1 + math.exp(10 * (x - 0.75)))

    assert weight(0) == pytest.approx(1.5, abs=1e-3)
    groups = RolloutGroups(torch.tensor([1, 0.2, 0, 0, 0, 0, 0, -1]).double(), torch.zeros(8, dtype=torch.long))
    base, advantages = GroupRelative()(groups), GRPOLead()(groups)
    expected = [a * (weight(0.25) if a > 0 else weight(0.75)) for a in base.tolist()]
    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64))


# --- How much a prompt weighs


@pytest.mark.parametrize("base", [GroupRelative("none"), GroupRelative(), PSR, FULL], ids=repr)
def test_the_mean_over_prompts_of_the_means_of_their_completions(base):
    """As the loss divides: by all completions in it, whose scores are random numbers here."""
    groups = ragged([8, 3, 9, 16, 5], real=True)
    groups.rewards[[2, 9, 30]] = torch.nan
    groups = replace(groups, correct=None, judged=None)
    scores = torch.rand(41, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    estimator = PerPromptMean(base)
    in_loss = rows_in_loss(estimator, groups)
    assert torch.equal(in_loss, rows_in_loss(base, groups))
    gradient = (estimator(groups) * scores)[in_loss].sum() / in_loss.sum()
    means = []
    for group in range(5):
        rows = (groups.index == group) & in_loss & groups.scored
        means.append((base(groups) * scores)[rows].mean().item() if rows.any() else 0.0)
    assert gradient.item() == pytest.approx(statistics.fmean(means), rel=1e-9)
    equal = ragged([8] * 5, real=True)
    assert torch.equal(PerPromptMean(GroupRelative())(equal), GroupRelative()(equal))  # to the last bit


@pytest.mark.parametrize("power", [0, 0.3, 0.5, 1])
def test_the_weight_is_the_derivative_of_the_objective(power):
    objective = torch.log if power == 0 else lambda p: p**power / power
    for c in range(1, 9):
        p = torch.tensor(c / 8, dtype=torch.float64, requires_grad=True)
        objective(p).backward()
        expected = p.grad * GroupRelative("none")(binary([c]))
        torch.testing.assert_close(PassRateObjective(power=power)(binary([c])), expected, rtol=1e-12, atol=0)


def test_without_a_right_one_there_is_no_pass_rate_to_weigh_by():
    groups = ragged([5, 6, 7], real=True)
    correct, judged = groups.correct.clone(), groups.judged.clone()
    correct[groups.index == 0], judged[groups.index == 1] = False, False
    groups = replace(groups, correct=correct, judged=judged)
    plain, weighted = GroupRelative("none")(groups), PassRateObjective()(groups)
    assert (weighted[groups.index == 0] == 0).all() and plain[groups.index == 0].abs().max() > 0
    assert torch.equal(weighted[groups.index == 1], plain[groups.index == 1])
    assert torch.equal(PassRateObjective(power=1)(groups), plain)


@pytest.mark.parametrize("size", [2, 3, 4, 7])
@pytest.mark.parametrize("base", [GroupRelative("none"), PassRateObjective(), FULL], ids=repr)
def test_a_training_group_is_a_plain_loop(size, base):
    groups = ragged([8, 9, 13, 7, 31, 8, 8], seed=size)
    groups.rewards[groups.index == 5], groups.rewards[groups.index == 6] = 0.0, 1.0
    groups.rewards[[5, 20, 60]] = torch.nan
    groups = replace(groups, correct=None, judged=None)
    judged = groups.judged.clone()
    judged[[7, 30]] = False
    groups = replace(groups, judged=judged)
    drawn = []
    for group in range(groups.num_groups):
        rows = [i for i in (groups.index == group).nonzero().flatten().tolist() if judged[i] and groups.scored[i]]
        rows = [i for i in rows if rows_in_loss(base, groups)[i]]
        right, wrong = [i for i in rows if groups.correct[i]], [i for i in rows if not groups.correct[i]]
        chosen = right[: size // 2] + wrong[: size - size // 2]
        for i in right[size // 2 :] + wrong[size - size // 2 :]:  # only one of them has any where places are left
            chosen += [i] if len(chosen) < size else []
        assert len(chosen) == min(size, len(rows))
        drawn += chosen
    estimator = TrainingGroup(size, base)
    expected = torch.zeros(len(judged), dtype=torch.bool)
    expected[drawn] = True
    assert torch.equal(estimator.rows_in_loss(groups), expected) and estimator.drops_rows
    assert torch.equal(estimator(groups), torch.where(expected, base(groups), 0.0))  # with the statistics of all
    assert estimator.min_group_size == max(size, getattr(base, "min_group_size", 1))


def test_the_estimate_of_reinforce_ada_seq():
    """Its printed gradient: over n of the drawn group, 1/p̂ · (r − p̂), with p̂ of the whole pool."""
    groups = binary([3, 1], n=20)
    estimator = TrainingGroup(4, PassRateObjective())
    for group, p in ((0, 3 / 20), (1, 1 / 20)):
        rows = (groups.index == group) & estimator.rows_in_loss(groups)
        right = 2 if group == 0 else 1
        expected = [(1 - p) / p] * right + [-1.0] * (4 - right)
        assert estimator(groups)[rows].tolist() == pytest.approx(expected, rel=1e-12)


# --- Rare completions


def rows_of(groups):
    """The rows of each group, unscored ones included."""
    return [(groups.group_ids == group_id).nonzero().flatten().tolist() for group_id in groups.group_ids.unique()]


def with_gaps(sizes, seed, real=False):
    """Ragged groups with unscored, unjudged and unlikely-unknown completions, ties, and negative rewards if `real`."""
    groups = ragged(sizes, seed=seed, real=real)
    generator = torch.Generator().manual_seed(seed + 100)
    rewards = groups.rewards - (0.3 if real else 0.0)
    total = len(rewards)
    rewards[torch.randint(total, (total // 8,), generator=generator)] = torch.nan
    log_probs = (groups.log_probs * 4).round() / 4  # ties
    log_probs[torch.randint(total, (total // 8,), generator=generator)] = torch.nan
    correct = torch.rand(total, generator=generator) < 0.6
    judged = torch.rand(total, generator=generator) < 0.8
    return replace(groups, rewards=rewards, log_probs=log_probs, correct=correct, judged=judged)


@pytest.mark.parametrize("base", [GroupRelative(), DR_GRPO, PassAtK(2)], ids=repr)
@pytest.mark.parametrize("real", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_unlikeliness_is_a_plain_loop(base, real, seed):
    groups = with_gaps([2, 3, 7, 8, 19, 33], seed, real)
    rewards, log_probs = groups.rewards.tolist(), groups.log_probs.tolist()
    expected = list(rewards)
    for rows in rows_of(groups):
        ranked = [i for i in rows if not math.isnan(rewards[i]) and not math.isnan(log_probs[i])]
        for i in ranked:
            less = sum(log_probs[j] < log_probs[i] for j in ranked)
            tied = sum(log_probs[j] == log_probs[i] for j in ranked)
            differ = len({rewards[j] for j in rows if not math.isnan(rewards[j])}) > 1
            if groups.correct[i] and groups.judged[i] and differ:
                expected[i] -= 0.3 * (less + (tied - 1) / 2) / len(ranked) * abs(rewards[i])
    assert expected != rewards
    shaped = replace(groups, rewards=torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(Unlikeliness(0.3, base)(groups), base(shaped), rtol=1e-9, atol=1e-9)


def test_unlikeliness_by_hand_and_as_published():
    """What the published code computes for rewards of 0 and 1 without ties: places from the least likely, over n."""
    log_probs = torch.tensor([-1.0, -3.0, -2.0, -4.0], dtype=torch.float64)
    groups = replace(binary([3], n=4), log_probs=log_probs)  # right: likeliest, third and second
    places = log_probs.argsort().argsort() / 4
    published = groups.rewards * (1 - places * 0.25)
    assert published.tolist() == [1 - 0.75 * 0.25, 1 - 0.25 * 0.25, 1 - 0.5 * 0.25, 0]
    expected = (published - published.mean()) / (published.std() + 1e-4)
    torch.testing.assert_close(Unlikeliness()(groups), expected, rtol=1e-7, atol=1e-7)  # TRL's n / (n − 1) is float32
    # all right, or all wrong: such groups are left out before the penalty
    assert (Unlikeliness()(replace(binary([4, 0], n=4), log_probs=log_probs.repeat(2))) == 0).all()


@pytest.mark.parametrize("alpha", [0.3, 1.0])
@pytest.mark.parametrize("base", [GroupRelative(), PassAtK(2), NegativeOnly()], ids=repr)
@pytest.mark.parametrize("seed", range(5))
def test_uniqueness_aware_is_a_plain_loop(base, alpha, seed):
    groups = with_gaps([2, 3, 7, 8, 19, 33], seed, real=True)
    answers, plain = groups.answer_ids.tolist(), base(groups)
    expected = torch.zeros_like(plain)
    for rows in rows_of(groups):
        scored = [i for i in rows if groups.scored[i]]
        for i in scored:
            expected[i] = plain[i] / sum(answers[j] == answers[i] for j in scored) ** alpha
    torch.testing.assert_close(UniquenessAware(alpha, base)(groups), expected, rtol=1e-9, atol=1e-9)
    assert not torch.equal(expected, plain)


def test_each_answer_has_the_weight_of_one_completion():
    # of 8, three right ones have one answer and one has another; two wrong ones have none
    answers = torch.tensor([5, 5, 5, 9, -1, -1, 2, 3])
    groups = replace(binary([4]), answer_ids=answers)
    assert groups.same_answer.tolist() == [3, 3, 3, 1, 2, 2, 1, 1]
    advantages = UniquenessAware(base=DR_GRPO)(groups)
    torch.testing.assert_close(
        advantages, 0.5 * torch.tensor([1 / 3, 1 / 3, 1 / 3, 1, -1 / 2, -1 / 2, -1, -1], dtype=torch.float64)
    )
    # the ids mean nothing: other ones with the same equalities, in other groups too
    twice = RolloutGroups(
        groups.rewards.repeat(2), torch.arange(16) // 8, answer_ids=torch.cat([answers, -answers * 2**40])
    )
    assert torch.equal(UniquenessAware(base=DR_GRPO)(twice), advantages.repeat(2))
    with pytest.raises(
        ValueError, match="UniquenessAware counts completions by `answer_ids`, but the groups have non"
    ):
        UniquenessAware()(binary([4]))
    with pytest.raises(ValueError, match="`same_answer` counts completions by `answer_ids`, but the groups have none"):
        binary([4]).same_answer  # noqa: B018
    with pytest.raises(ValueError, match="Unlikeliness ranks completions by `log_probs`, but the groups have none"):
        Unlikeliness()(binary([4]))


# --- Tokens


def some_tokens(rows=5, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs, entropies = (torch.rand(rows, width, generator=generator, dtype=torch.float64) for _ in range(2))
    mask = torch.rand(rows, width, generator=generator) < 0.7
    return CompletionTokens(-2 * log_probs, entropies, mask)


ADVANTAGES = torch.tensor([1.5, -0.7, 0.0, 0.1, -2.0], dtype=torch.float64)


def test_entropy_shaped_tokens_are_a_plain_loop():
    tokens = some_tokens()
    shaped = EntropyShaped(0.6, 3.0).shape_tokens(ADVANTAGES, tokens)
    for row, advantage in enumerate(ADVANTAGES.tolist()):
        for column in range(7):
            bonus = min(0.6 * tokens.entropies[row, column].item(), abs(advantage) / 3)
            assert shaped[row, column].item() == pytest.approx(advantage + bonus, rel=1e-12)
    assert torch.equal(shaped.sign(), ADVANTAGES.sign().unsqueeze(1).expand(5, 7))  # never another sign


@pytest.mark.parametrize("rescale", [False, True])
def test_repo_tokens_are_a_plain_loop(rescale):
    tokens, beta = some_tokens(), 1.5
    shaped = REPO(beta, rescale=rescale).shape_tokens(ADVANTAGES, tokens)
    for row, advantage in enumerate(ADVANTAGES.tolist()):
        for column in range(7):
            log_prob, entropy = tokens.log_probs[row, column].item(), tokens.entropies[row, column].item()
            expected = advantage - beta * (log_prob + entropy)
            if rescale:  # as two cases, each on its own side of 0
                right = max(advantage * (1 - beta * log_prob), 0.0)
                expected = right if advantage > 0 else min(advantage * (1 + beta * log_prob), 0.0)
            assert shaped[row, column].item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert not rescale or (shaped[1] == 0).any()  # a rare token of a wrong completion


def test_the_penalty_of_repo_is_the_gradient_of_the_entropy():
    """Its sum over all tokens, weighted by their probability, moves the logits by β times the gradient of H."""
    logits = torch.randn(9, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(0)
    entropy = -(log_probs.exp() * log_probs).sum()
    (expected,) = torch.autograd.grad(entropy, logits, retain_graph=True)
    tokens = CompletionTokens(
        log_probs.detach().unsqueeze(1), entropy.detach().expand(9, 1), torch.ones(9, 1, dtype=torch.bool)
    )
    advantages = REPO(0.3).shape_tokens(torch.zeros(9, dtype=torch.float64), tokens).squeeze(1)
    (found,) = torch.autograd.grad((log_probs.exp().detach() * advantages * log_probs).sum(), logits)
    torch.testing.assert_close(found, 0.3 * expected, rtol=1e-9, atol=1e-12)


def test_shaping_of_tokens_nests_and_comes_last():
    tokens = some_tokens()
    inner = REPO(0.5).shape_tokens(ADVANTAGES, tokens)
    bonus = torch.minimum(0.4 * tokens.entropies, inner.abs() / 2)
    torch.testing.assert_close(shape_tokens(EntropyShaped(base=REPO(0.5)), ADVANTAGES, tokens), inner + bonus)
    # around it, estimators of completions have done their part before
    around = NegativeOnly(DominantSide(2.0, REPO(0.5)))
    assert shapes_tokens(around) and not shapes_tokens(NegativeOnly()) and not shapes_tokens(PassAtK(2))
    assert torch.equal(shape_tokens(around, ADVANTAGES, tokens), inner)
    groups = ragged([4, 5])
    assert torch.equal(around(groups), NegativeOnly(DominantSide(2.0))(groups))
    # without one, each token gets what its completion gets
    assert torch.equal(shape_tokens(GRPOLead(), ADVANTAGES, tokens), ADVANTAGES.unsqueeze(1).expand(5, 7))
    taking_turns = Scheduled([(0, REPO(0.5)), (0.5, GroupRelative())])
    assert shapes_tokens(taking_turns)
    assert torch.equal(shape_tokens(taking_turns, ADVANTAGES, tokens), inner)
    later = shape_tokens(taking_turns, ADVANTAGES, replace(tokens, progress=0.5))
    assert torch.equal(later, ADVANTAGES.unsqueeze(1).expand(5, 7))


def test_several_estimators_that_shape_tokens_must_say_how():
    @dataclass(frozen=True)
    class Mean(NestedEstimator):
        parts = (GroupRelative(), REPO())

        def __call__(self, groups):
            return torch.stack([part(groups) for part in self.parts]).mean(0)

    with pytest.raises(ValueError, match=r"Mean holds 2 estimators, so it cannot say .* REPO\(beta=0.01"):
        Mean()


def test_what_the_tokens_say_of_themselves():
    tokens = some_tokens()
    assert tokens.positions.tolist() == [list(range(7))] * 5
    assert tokens.lengths.tolist() == [sum(row) for row in tokens.mask.tolist()]
    row = tokens.mask[3]
    torch.testing.assert_close(tokens.mean(tokens.log_probs)[3], tokens.log_probs[3][row].mean())
    empty = CompletionTokens(torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool))
    assert empty.mean(empty.log_probs).isnan().all()
    with pytest.raises(ValueError, match=r"one shape \(B, C\), got \[\(5, 7\), \(5, 7\), \(5, 6\)\]"):
        replace(tokens, mask=tokens.mask[:, 1:])
    with pytest.raises(ValueError, match="`mask` must be boolean, got dtype torch.int64"):
        replace(tokens, mask=tokens.mask.long())


@pytest.mark.parametrize("name", ["entropies", "log_probs", "answers", "history"])
def test_what_a_part_reads_is_read_by_what_holds_it(name):
    class Reader:
        def __call__(self, groups):
            return groups.rewards

    setattr(Reader, f"needs_{name}", True)
    for nested in (NegativeOnly(Reader()), Scheduled([(0, GroupRelative()), (0.5, AGRAE(Reader()))])):
        assert getattr(nested, f"needs_{name}")
        assert not getattr(NegativeOnly(), f"needs_{name}")


# --- What all of them have in common


@pytest.mark.parametrize("estimator", [e for e in ALL if e not in IN_ROW_ORDER], ids=repr)
def test_row_order_moves_with_the_rows(estimator):
    groups = ragged([5, 3, 8, 4])
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(estimator(subset(groups, order)), estimator(groups)[order], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", [e for e in ALL if e not in OVER_THE_BATCH], ids=repr)
def test_a_group_does_not_see_the_others(estimator):
    groups = ragged([5, 3, 8, 4], real=True)
    together = estimator(groups)
    for group_id in groups.group_ids.unique():
        rows = groups.group_ids == group_id
        torch.testing.assert_close(together[rows], estimator(subset(groups, rows)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("estimator", [e for e in ALL if e not in (BOOTSTRAP, PerPromptMean())], ids=repr)
def test_unscored_completions_are_outside_the_statistics(estimator):
    groups = ragged([5, 6, 8], real=True)
    dropped = torch.zeros(19, dtype=torch.bool)
    dropped[[0, 7, 13]] = True
    rewards = groups.rewards.masked_fill(dropped, torch.nan)
    # NaN entropy as well: the entropy of a completion counts whether or not it is scored
    entropies = groups.entropies.masked_fill(dropped, torch.nan)
    seen = {name: getattr(groups, name) for name in ("log_probs", "answer_ids")}
    advantages = estimator(RolloutGroups(rewards, groups.group_ids, entropies=entropies, **seen))
    assert (advantages[dropped] == 0).all()
    torch.testing.assert_close(advantages[~dropped], estimator(subset(groups, ~dropped)))


@pytest.mark.parametrize("estimator", [e for e in ALL if e not in REINFORCE], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_degenerate_groups_get_zero(estimator, dtype):
    rewards = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, -1, -1, -1, -1] + [torch.nan] * 4 + [0.5] * 3, dtype=dtype)
    if estimator == MaxRL():  # which refuses negative rewards
        rewards = rewards.abs()
    alike = {"log_probs": -torch.ones(19), "answer_ids": torch.arange(19) % 3}
    groups = RolloutGroups(rewards, torch.arange(19) // 4, entropies=torch.ones(19), **alike)
    advantages = estimator(groups)
    assert advantages.dtype == dtype and advantages.shape == (19,)
    assert (advantages == 0).all()
    assert rows_in_loss(estimator, groups).dtype == torch.bool


@pytest.mark.parametrize("method", ["analytical", "bootstrap", "full_sampling"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_pass_at_k_of_equal_rewards_is_exactly_zero(method, k):
    rewards = torch.tensor([0.7] * 3 + [-0.1] * 7, dtype=torch.float64)  # their mean differs from them in the last bit
    groups = RolloutGroups(rewards, torch.tensor([0] * 3 + [1] * 7))
    assert (PassAtK(k, method)(groups) == 0).all()


@pytest.mark.parametrize(
    "estimator",
    [
        AGRAE(), DominantSide(), DifficultyFocused(), NegativeOnly(), GRPOLead(), BOOTSTRAP, MaxRL(), RSGRPO(),
        FGRPO(), PKPO(1), LeaveOneOut(), ReinforcePlusPlus(group_baseline=True),
    ],
    ids=repr,
)  # fmt: skip
def test_groups_of_one_get_zero(estimator):
    estimator = PassAtK(1, "bootstrap") if estimator is BOOTSTRAP else estimator
    assert (estimator(binary([1, 0, 1], n=1)) == 0).all()


@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-4), (torch.bfloat16, 3e-2)])
def test_lower_precision_is_close_to_float64(estimator, dtype, tolerance):
    groups = ragged([5, 3, 8, 4, 33], seed=4)
    low = replace(groups, rewards=groups.rewards.to(dtype))  # 0 and 1 are exact in all of them
    advantages = estimator(low)
    assert advantages.dtype == dtype
    torch.testing.assert_close(advantages.double(), estimator(groups), rtol=tolerance, atol=tolerance)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("estimator", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_cuda_agrees_with_the_cpu(estimator, dtype):
    groups = ragged([5, 3, 8, 4, 33], real=True, dtype=dtype)
    groups.rewards[3] = torch.nan
    groups = replace(groups, correct=None, judged=None)
    cuda = RolloutGroups(**{name: getattr(groups, name).cuda() for name in OF_COMPLETIONS}, seed=groups.seed)
    advantages = estimator(cuda)
    assert advantages.is_cuda and rows_in_loss(estimator, cuda).is_cuda
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    torch.testing.assert_close(advantages.cpu(), estimator(groups), rtol=tolerance, atol=tolerance)
    assert torch.equal(rows_in_loss(estimator, cuda).cpu(), rows_in_loss(estimator, groups))


def test_three_deep():
    groups = ragged([9, 12, 30])
    nested = NegativeOnly(DominantSide(3.0, AGRAE(PassAtK(4, "full_sampling"))))
    inner = AGRAE(PassAtK(4, "full_sampling"))(groups)
    assert torch.equal(nested(groups), inner.clamp(max=0.0))
    assert nested.min_group_size == 4
    assert torch.equal(nested.rows_in_loss(groups), PassAtK(4, "full_sampling").rows_in_loss(groups))
    assert not nested.rows_in_loss(groups).all()
    with pytest.raises(ValueError, match=r"k=4.*smallest group has 3"):
        nested(ragged([3, 8]))


def with_every_k():
    """Every named estimator, those with a k with several, and some that are nested."""
    for name in ESTIMATORS:
        if "pass_at_k" in name:
            methods = ("analytical", "bootstrap", "full_sampling") if name == "pass_at_k" else (None,)
            specs = [{"k": k} | ({"method": method} if method else {}) for k in (1, 2, 3, 4, 8) for method in methods]
        elif name in ("pkpo", "max_at_k"):
            specs = [{"k": k} for k in (1, 2, 3, 4, 8)]
        elif name == "scheduled":
            specs = [{"stages": [(0, {"name": "pass_at_k", "k": 3}), (0.5, {"name": "pass_at_k", "k": 2})]}]
        else:
            given = {"without_easy": {"base": {"name": "pass_at_k", "k": 3}}, "training_group": {"size": 4}}
            specs = [given.get(name, {})]
        yield from (build_estimator({"name": name, **spec}) for spec in specs)
    yield from (AGRAE(PassAtK(3)), AGRAE(PositiveNegativeReinforce.nsr()), AGRAE(PassAtK(2, "full_sampling")))
    yield AGRAE(PositiveNegativeReinforce.nsr(), difficulty_shift=False)
    yield from (NegativeOnly(DominantSide(3.0, PassAtK(4))), DifficultyFocused("easy", base=CombinedPassAtK(2)))
    yield from (GRPOLead(ExceedingPassAtK(4)), WithoutEasy(Scheduled([(0, PassAtK(5)), (0.5, PassAtK(6))]), 0.9))


@pytest.mark.parametrize("estimator", list(with_every_k()), ids=repr)
def test_groups_below_the_size_with_a_signal_have_none_and_others_do(estimator):
    for n in range(max(1, getattr(estimator, "min_group_size", 1)), 9):
        largest = 0.0
        for real, progress in ((False, 0.0), (True, 0.5)):
            groups = ragged([n] * 30, seed=n, real=real)
            advantages = estimator(replace(groups, correct=None, judged=None, progress=progress))
            largest = max(largest, advantages.abs().max().item())
        assert (largest == 0.0) == (n < min_group_size_with_signal(estimator)), (n, largest)


def test_only_negative_advantages_of_what_has_none_are_refused():
    with pytest.raises(ValueError, match=r"PositiveNegativeReinforce\(positive=1.0, negative=0.0\) gives none"):
        NegativeOnly(PositiveNegativeReinforce.psr())
    with pytest.raises(ValueError, match=r"PKPO\(k=2\) gives none"):
        NegativeOnly(PKPO(2))
    NegativeOnly(PKPO(1))  # RLOO


def test_a_plain_function_is_as_good_as_an_estimator():
    nested = NegativeOnly(lambda groups: groups.rewards - 0.5)
    groups = binary([2])
    assert nested(groups).tolist() == [0, 0] + [-0.5] * 6
    assert (nested.min_group_size, nested.min_group_size_with_signal, nested.needs_entropies) == (1, 1, False)
    assert nested.rows_in_loss(groups).all()


# --- By name

SPECS = {
    "group_relative": ({"scale": "none"}, GroupRelative("none")),
    "pass_at_k": ({"k": 8, "method": "bootstrap"}, PassAtK(8, "bootstrap")),
    "exceeding_pass_at_k": ({"k": 4}, ExceedingPassAtK(4)),
    "combined_pass_at_k": ({"k": 4}, CombinedPassAtK(4)),
    "adaptive_pass_at_k": ({"k": 4}, AdaptivePassAtK(4)),
    "without_easy": ({"base": "negative_only", "threshold": 0.3}, WithoutEasy(NegativeOnly(), 0.3)),
    "scheduled": (
        {"stages": [[0, {"name": "a_grae", "base": {"name": "pass_at_k", "k": 8}}], [0.7, "group_relative"]]},
        Scheduled([(0, AGRAE(PassAtK(8))), (0.7, GroupRelative())]),
    ),
    "a_grae": ({"base": {"name": "pass_at_k", "k": 8}, "alpha": 0.5}, AGRAE(PassAtK(8), 0.5)),
    "dominant_side": ({"beta": 0.1}, DominantSide(0.1)),
    "difficulty_focused": ({"focus": "easy", "gamma": 1}, DifficultyFocused("easy", 1)),
    "negative_only": ({"base": {"name": "group_relative", "scale": "none"}}, NegativeOnly(GroupRelative("none"))),
    "psr": ({}, PSR),
    "nsr": ({}, NSR),
    "w_reinforce": ({"weight": 0.2}, PositiveNegativeReinforce(0.2, 1.0)),
    "grpo_lead": ({"base": "group_relative"}, GRPOLead()),
    "per_prompt_mean": ({"base": {"name": "pass_at_k", "k": 4}}, PerPromptMean(PassAtK(4))),
    "pass_rate_objective": ({"power": 0.5}, PassRateObjective(power=0.5)),
    "training_group": ({"size": 4, "base": "pass_rate_objective"}, TrainingGroup(4, PassRateObjective())),
    "max_rl": ({}, MaxRL()),
    "rs_grpo": ({"beta": 4}, RSGRPO(4)),
    "f_grpo": ({"base": {"name": "pass_at_k", "k": 8}, "gamma": 0.5}, FGRPO(PassAtK(8), 0.5)),
    "pkpo": ({"k": 4}, PKPO(4)),
    "max_at_k": ({"k": 4, "eps": 0.0}, MaxAtK(4, 0.0)),
    "leave_one_out": ({}, LeaveOneOut()),
    "reinforce_plus_plus": ({"group_baseline": True}, ReinforcePlusPlus(group_baseline=True)),
    "unlikeliness": ({"beta": 0.5, "base": {"name": "group_relative", "scale": "none"}}, Unlikeliness(0.5, DR_GRPO)),
    "uniqueness_aware": ({"alpha": 0.5, "base": {"name": "pass_at_k", "k": 4}}, UniquenessAware(0.5, PassAtK(4))),
    "entropy_shaped": ({"alpha": 0.2, "kappa": 3, "base": "negative_only"}, EntropyShaped(0.2, 3, NegativeOnly())),
    "repo": ({"beta": 0.02, "base": "unlikeliness", "rescale": True}, REPO(0.02, Unlikeliness(), rescale=True)),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_name_builds_and_refuses_unknown_fields(name):
    fields, expected = SPECS[name]
    built = build_estimator(json.loads(json.dumps({"name": name, **fields})))
    assert built == expected and pickle.loads(pickle.dumps(built)) == expected and hash(built) == hash(expected)
    assert repr(built).startswith(type(built).__name__ + "(")
    with pytest.raises(ValueError, match=f"'{name}' has no field 'colour'. Its fields: "):
        build_estimator({"name": name, **fields, "colour": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: build_estimator({"name": "psr", "weight": 1}), "'psr' has no field 'weight'. Its fields: none."),
        (
            lambda: build_estimator("grae"),
            "Valid names: group_relative, pass_at_k, exceeding_pass_at_k, .*, reinforce_plus_plus",
        ),
        (
            lambda: build_estimator({"name": "a_grae", "base": "grae"}),
            "estimator 'grae'. Did you mean 'a_grae'.*group_relative",
        ),
        (
            lambda: build_estimator({"name": "a_grae", "base": {"name": "pass_at_k"}}),
            "'pass_at_k' needs the field 'k'",
        ),
        (lambda: build_estimator({"name": "a_grae", "base": 3}), "must be a name or a dict.*got 3"),
        (
            lambda: build_estimator({"name": "scheduled", "stages": [[0, {"name": "pass_at_k", "k": 2, "q": 1}]]}),
            "'pass_at_k' has no field 'q'.*k, method, eps",
        ),
        (lambda: build_estimator({"name": "scheduled", "stages": "pass_at_k"}), "pairs.*'pass_at_k'"),
        (lambda: build_estimator({"name": "scheduled", "stages": [[0, "psr", "nsr"]]}), "pairs"),
        (lambda: Scheduled([]), r"begin at 0.*got \[\]"),
        (lambda: Scheduled([(0.1, PSR)]), r"\[0.1\]"),
        (lambda: Scheduled([(0, PSR), (0.5, NSR), (0.5, W)]), r"\[0, 0.5, 0.5\]"),
        (lambda: Scheduled([(0, PSR), (1, NSR)]), r"stay below 1, got \[0, 1\]"),
        (lambda: Scheduled([(0, PSR), ("1/2", NSR)]), "'1/2'"),
        (lambda: Scheduled([(0, "psr")]), "Scheduled takes an advantage estimator, got 'psr'"),
        (lambda: NegativeOnly("pass_at_k"), "NegativeOnly takes an advantage estimator, got 'pass_at_k'"),
        (lambda: ExceedingPassAtK(0), "`k`.*got 0"),
        (lambda: CombinedPassAtK(0), "`k`.*got 0"),
        (lambda: AdaptivePassAtK(0), "`k`.*got 0"),
        (lambda: WithoutEasy(PSR, 1.5), "`threshold`.*1.5"),
        (lambda: PassRateObjective(power=-0.5), "`power` must be a number from 0 to 1, got -0.5"),
        (lambda: TrainingGroup(1), "`size` must be an integer of at least 2, got 1"),
        (lambda: AGRAE(alpha=0), "`alpha`.*got 0"),
        (lambda: AGRAE(alpha="1"), "`alpha`.*got '1'"),
        (lambda: DominantSide(-1), "`beta`.*got -1"),
        (lambda: DifficultyFocused("soft"), "'hard', 'easy', got 'soft'"),
        (lambda: DifficultyFocused(gamma=0), "`gamma`.*got 0"),
        (lambda: PositiveNegativeReinforce(-1, 1), "`positive`.*got -1"),
        (lambda: RSGRPO(0), "`beta`.*got 0"),
        (lambda: FGRPO(gamma=-1), "`gamma`.*got -1"),
        (lambda: FGRPO("pass_at_k"), "FGRPO takes an advantage estimator, got 'pass_at_k'"),
        (lambda: PKPO(0), "`k`.*got 0"),
        (lambda: MaxAtK(0), "`k`.*got 0"),
        (lambda: MaxAtK(2, -1.0), "`eps`.*got -1.0"),
        (lambda: ReinforcePlusPlus(eps=-1.0), "`eps`.*got -1.0"),
        (lambda: PKPO(4)(ragged([3, 8])), "PKPO needs groups of at least k=4.*has 3"),
        (lambda: MaxAtK(4)(ragged([3, 8])), "MaxAtK needs groups of at least k=4.*has 3"),
        (lambda: MaxRL()(RolloutGroups(torch.tensor([1, -0.5]), torch.zeros(2).long())), "negative, got -0.5"),
        (lambda: PositiveNegativeReinforce(0, 0), "both 0"),
        (lambda: Unlikeliness(0), "`beta`.*above 0 and at most 1, got 0"),
        (lambda: Unlikeliness(1.5), "`beta`.*above 0 and at most 1, got 1.5"),
        (lambda: UniquenessAware(0), "`alpha`.*got 0"),
        (lambda: EntropyShaped(0), "`alpha`.*got 0"),
        (lambda: EntropyShaped(kappa=1), "`kappa` must be above 1, got 1"),
        (lambda: REPO(-0.1), "`beta`.*got -0.1"),
    ],
)
def test_bad_settings_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Reward functions around reward functions


def right_or_wrong(prompts, completions, completion_ids, **kwargs):
    """1 for "right", 0 for "wrong…", None for "?"."""
    return [None if text == "?" else float(text.startswith("right")) for text in completions]


async def right_or_wrong_later(**kwargs):
    await asyncio.sleep(0)
    return right_or_wrong(**kwargs)


class RightOrWrong:
    async def __call__(self, **kwargs):
        return right_or_wrong(**kwargs)


def call(reward_func, completions, prompts=None, lengths=None):
    prompts = ["1 + 1?"] * len(completions) if prompts is None else prompts
    ids = [[0] * length for length in lengths or map(len, completions)]
    return reward_func(prompts=prompts, completions=completions, completion_ids=ids, trainer_state=None)


def test_noise_flips_a_share_of_the_wrong_ones():
    wrong = [f"wrong {i}" for i in range(10_000)]
    for share in (0.1, 0.3, 0.5):
        rewards = call(NoisyReward(right_or_wrong, share), wrong)
        # fixed hashes; of other texts, 1 in 10^6 would be outside 4.9 standard deviations
        assert abs(sum(rewards) - share * 10_000) < 4.9 * math.sqrt(10_000 * share * (1 - share))
    assert call(NoisyReward(right_or_wrong, 0.0), wrong[:9]) == [0.0] * 9
    assert call(NoisyReward(right_or_wrong, 1.0), ["wrong", "right", "?"]) == [1.0, 1.0, None]


def test_noise_depends_on_seed_prompt_and_completion_alone():
    wrong = [f"wrong {i}" for i in range(64)]
    noisy = NoisyReward(right_or_wrong, 0.5)
    rewards = call(noisy, wrong)
    assert call(noisy, wrong[::-1]) == rewards[::-1]  # whatever else is in the call
    assert [call(noisy, [text])[0] for text in wrong] == rewards
    assert call(NoisyReward(right_or_wrong, 0.5, seed=1), wrong) != rewards
    assert call(noisy, wrong, prompts=["2 + 2?"] * 64) != rewards
    # in another process too, where Python's own hash is salted anew
    code = "from rlvr_trl.digests import content_digest; print(content_digest(0, 'a', [{'b': 1}]).hex())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert printed == content_digest(0, "a", [{"b": 1}]).hex()


def test_noise_reads_conversations_and_images():
    pytest.importorskip("PIL")
    from PIL import Image

    def ask(colour):
        return [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (2, 2), colour)}]}]

    answers = [[{"role": "assistant", "content": f"wrong {i}"}] for i in range(64)]
    noisy = NoisyReward(lambda completions, **kwargs: [0.0] * len(completions), 0.5)
    red = call(noisy, answers, prompts=[ask("red") for _ in answers])
    assert 0 < sum(red) < 64 and red == call(noisy, answers, prompts=[ask("red") for _ in answers])
    assert red != call(noisy, answers, prompts=[ask("blue") for _ in answers])


@pytest.mark.parametrize("wrap", [partial(NoisyReward, share=1.0), LengthReward])
def test_wrappers_keep_the_form_of_what_they_wrap(wrap):
    from trl.trainer.utils import get_callable_name, is_async_callable

    suffix = "length" if wrap is LengthReward else "noisy"
    texts, expected = ["wrong", "right", "?"], [-1.0 if wrap is LengthReward else 1.0, 1.0, None]
    for func, name in {
        right_or_wrong: "right_or_wrong",
        partial(right_or_wrong, extra=1): "right_or_wrong",
        right_or_wrong_later: "right_or_wrong_later",
        partial(right_or_wrong_later, extra=1): "right_or_wrong_later",
        RightOrWrong(): "RightOrWrong",
    }.items():
        wrapped = pickle.loads(pickle.dumps(wrap(func)))
        assert get_callable_name(wrapped) == f"{name}_{suffix}"
        assert is_async_callable(wrapped) == is_async_callable(func)
        rewards = call(wrapped, texts)
        assert (asyncio.run(rewards) if is_async_callable(wrapped) else rewards) == expected
    assert call(wrap(lambda completions, **kwargs: torch.tensor([0.0, math.nan])), ["a", "b"])[1] is None
    with pytest.raises(ValueError, match="'reward/model'"):
        wrap("reward/model")


def test_noise_on_mazes():
    mazes = make_maze_dataset(20, prompt_style="bare", seed=1)
    noisy = NoisyReward(maze_reward, 0.5)
    completions = ["<answer>U</answer>"] * 20
    rewards = noisy(prompts=mazes["prompt"], completions=completions, completion_ids=None, maze=mazes["maze"])
    assert set(rewards) == {0.0, 1.0} and noisy.__name__ == "maze_reward_noisy"


def test_length_reward_is_a_plain_loop_over_the_prompts():
    texts = ["right", "right", "wrong", "right", "right", "right", "?", "right", "wrong", "right", "right"]
    prompts = ["a", "a", "a", "b", "a", "b", "b", "c", "c", "d", "d"]
    lengths = [4100, 5000, 9000, 3000, 6000, 8900, 10, 5000, 5000, 5000, 5000]
    rewards = call(LengthReward(right_or_wrong), texts, prompts, lengths)
    expected = [-1.0 if text == "wrong" else None if text == "?" else 1.0 for text in texts]
    for rows in ([0, 1, 4], [3, 5]):  # of c there is one, those of d are equally long
        correct = [lengths[i] for i in rows]
        mean, std = statistics.fmean(correct), statistics.stdev(correct)
        for i in rows:
            expected[i] = math.exp(-0.05 * (lengths[i] - mean) / std)
    assert rewards == pytest.approx(expected)
    assert rewards[0] > 1 > rewards[4]


@pytest.mark.parametrize(("lengths", "shortened"), [([4000] * 3 + [9000], False), ([4000] * 2 + [4001, 9000], True)])
def test_length_reward_leaves_short_completions_alone(lengths, shortened):
    rewards = call(LengthReward(right_or_wrong), ["right"] * 4, lengths=lengths)
    assert (rewards != [1.0] * 4) == shortened
    assert call(LengthReward(right_or_wrong, min_tokens=5000), ["right"] * 4, lengths=lengths) == [1.0] * 4


def test_length_reward_looks_at_short_wrong_completions_too_as_the_released_code_does():
    lengths, texts = [5000, 9000, 10, 20], ["right", "right", "wrong", "wrong"]
    assert call(LengthReward(right_or_wrong), texts, lengths=lengths) == [1.0, 1.0, -1.0, -1.0]
    texts[2:] = "?", "?"  # nothing is known of these, so they do not count
    assert call(LengthReward(right_or_wrong), texts, lengths=lengths)[0] > 1


@pytest.mark.parametrize(
    "reward",
    [
        LengthReward(right_or_wrong),
        partial(NoisyReward(LengthReward(right_or_wrong), 0.1)),
        WeightedReward({right_or_wrong: 0.5, LengthReward(right_or_wrong): 0.5}),
    ],
)
def test_rewards_that_compare_completions_of_a_prompt_need_all_of_them(reward):
    check_whole_groups([right_or_wrong, reward], 12, 4)
    check_whole_groups(NoisyReward(right_or_wrong, 0.1), 6, 4)
    with pytest.raises(
        ValueError, match="compares the completions of a prompt.* has 6 .*`num_generations`=4 does not"
    ):
        check_whole_groups([right_or_wrong, reward], 6, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoisyReward(right_or_wrong, 1.5), "`share`.*1.5"),
        (lambda: NoisyReward(right_or_wrong, "a third"), "`share`.*'a third'"),
        (lambda: LengthReward(right_or_wrong, min_tokens=-1), "`min_tokens`.*-1"),
        (lambda: LengthReward(right_or_wrong, decay=-0.05), "`decay`.*-0.05"),
    ],
)
def test_bad_settings_of_wrappers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
