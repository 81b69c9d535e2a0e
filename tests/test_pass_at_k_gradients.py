"""The estimators since the four papers: plain loops over ragged groups, the gradients that they are said to estimate,
and which of them are the same up to a factor."""

import math
from itertools import combinations, product
from statistics import fmean

import pytest
import torch

from rlvr_trl.advantages import (
    FGRPO,
    PKPO,
    RSGRPO,
    GroupRelative,
    LeaveOneOut,
    MaxAtK,
    MaxRL,
    PassAtK,
    PassRateObjective,
    ReinforcePlusPlus,
    RolloutGroups,
)


def draw_groups(seed, low=1, high=12, rewards="real", unscored=0.15):
    """Sixty ragged groups, rows in random order, rewards real or 0/1, some of them unscored."""
    generator = torch.Generator().manual_seed(seed)
    sizes = torch.randint(low, high + 1, (60,), generator=generator)
    ids = torch.arange(60).repeat_interleave(sizes)
    values = torch.rand(len(ids), generator=generator, dtype=torch.float64)
    if rewards == "binary":
        values = (values < torch.rand(60, generator=generator, dtype=torch.float64)[ids]).double()
    values[torch.rand(len(ids), generator=generator) < unscored] = torch.nan
    order = torch.randperm(len(ids), generator=generator)
    return RolloutGroups(values[order], ids[order])


def loop(groups, one_group):
    """`one_group`, from the scored rewards of a group to its advantages, on each group by itself."""
    advantages = torch.zeros_like(groups.rewards)
    for group in range(groups.num_groups):
        rows = ((groups.index == group) & groups.scored).nonzero().flatten()
        if len(rows):
            advantages[rows] = torch.tensor(one_group(groups.rewards[rows].tolist()), dtype=torch.float64)
    return advantages


def leave_one_out(r):
    others = [r[:i] + r[i + 1 :] for i in range(len(r))]
    return [x - fmean(rest) if rest else 0.0 for x, rest in zip(r, others, strict=True)]


def max_rl(r):
    mean = fmean(r)
    return [(x - mean) / mean if mean else 0.0 for x in r]


def rs_grpo(beta):
    def one_group(r):
        value = math.log(fmean(math.exp(beta * x) for x in r)) / beta
        return [(math.exp(beta * (x - value)) - 1) / beta for x in r]

    return one_group


def sets_with(i, n, k):
    return [subset for subset in combinations(range(n), k) if i in subset]


def transformed(r, k):
    """The weights of arXiv 2505.15201 and 2510.23393, Eq. 7: the best rewards of the sets with i, over C(n, k)."""
    n = len(r)
    return [sum(max(r[j] for j in s) for s in sets_with(i, n, k)) / math.comb(n, k) for i in range(n)]


def pkpo(k):
    """n times Eq. 33: what i adds to the best of the others in each set that holds it."""

    def one_group(r):
        n = len(r)
        if n < k:
            return [0.0] * n
        gains = [
            sum(max(r[j] for j in s) - max(r[j] for j in s if j != i) for s in sets_with(i, n, k)) for i in range(n)
        ]
        return [n * gain / math.comb(n, k) for gain in gains]

    return one_group


def max_at_k(k, eps=1e-6):
    def one_group(r):
        if len(r) < k or len(r) < 2:
            return [0.0] * len(r)
        values = transformed(r, k)
        mean = fmean(values)
        std = math.sqrt(sum((x - mean) ** 2 for x in values) / (len(values) - 1))
        return [(x - mean) / (std + eps) for x in values]

    return one_group


PLAIN = [
    (LeaveOneOut(), leave_one_out),
    (MaxRL(), max_rl),
    *((RSGRPO(beta), rs_grpo(beta)) for beta in (0.3, 2.0, 8.0)),
    (PKPO(1), leave_one_out),
    *((PKPO(k), pkpo(k)) for k in (2, 3, 6)),
    *((MaxAtK(k), max_at_k(k)) for k in (1, 2, 3, 6)),
]


@pytest.mark.parametrize("rewards", ["real", "binary"])
@pytest.mark.parametrize(
    ("estimator", "one_group"), PLAIN, ids=lambda value: repr(value) if hasattr(value, "__dataclass_fields__") else ""
)
def test_every_group_is_a_plain_loop(estimator, one_group, rewards):
    for seed in range(3):
        groups = draw_groups(seed, getattr(estimator, "min_group_size", 1), rewards=rewards)
        torch.testing.assert_close(estimator(groups), loop(groups, one_group), rtol=0, atol=1e-9)


@pytest.mark.parametrize("rewards", ["real", "binary"])
@pytest.mark.parametrize("group_baseline", [False, True])
def test_reinforce_plus_plus_is_a_plain_loop_over_the_batch(group_baseline, rewards):
    groups = draw_groups(4, rewards=rewards)
    values = groups.rewards
    if group_baseline:
        values = loop(groups, lambda r: [x - fmean(r) for x in r]).where(groups.scored, torch.nan)
    scored = values[groups.scored].tolist()
    mean = fmean(scored)
    std = math.sqrt(fmean((x - mean) ** 2 for x in scored))
    expected = ((values - mean) / (std + 1e-8)).nan_to_num(nan=0.0)
    torch.testing.assert_close(ReinforcePlusPlus(group_baseline)(groups), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("base", [GroupRelative(), PassAtK(3)])
@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_f_grpo_weighs_its_base_by_accuracy(base, gamma):
    groups = draw_groups(5, low=3, rewards="binary")
    p = [groups.accuracy[group].item() for group in groups.index.tolist()]
    factor = torch.tensor([1.0 if math.isnan(x) else (1 - x) ** gamma for x in p], dtype=torch.float64)
    torch.testing.assert_close(FGRPO(base, gamma)(groups), base(groups) * factor, rtol=0, atol=1e-9)


def test_f_grpo_gives_nothing_where_all_are_right_and_the_base_where_none_is_judged():
    format_rewards = torch.tensor([1.1, 1.0, 0.6, 1.1]).double()
    groups = RolloutGroups(format_rewards, torch.zeros(4).long(), correct=torch.ones(4).bool())
    assert (FGRPO()(groups) == 0).all() and GroupRelative()(groups).abs().min() > 0
    unjudged = RolloutGroups(format_rewards, torch.zeros(4).long(), judged=torch.zeros(4).bool())
    assert torch.equal(FGRPO()(unjudged), GroupRelative()(unjudged))


def test_reinforce_plus_plus_judges_a_whole_group_by_the_batch():
    groups = RolloutGroups(torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0, 0.0]).double(), torch.tensor([0, 0, 1, 1, 2, 2]))
    assert ReinforcePlusPlus()(groups).sign().tolist() == [1, 1, -1, 1, -1, -1]
    with_baseline = ReinforcePlusPlus(group_baseline=True)(groups)
    assert with_baseline[:2].tolist() == with_baseline[4:].tolist() == [0, 0] and (with_baseline[2:4] != 0).all()
    equal = RolloutGroups(torch.full((5,), 0.7).double(), torch.tensor([0, 0, 1, 1, 1]))
    for estimator in (ReinforcePlusPlus(), ReinforcePlusPlus(group_baseline=True)):
        assert (estimator(equal) == 0).all()


@pytest.mark.parametrize(
    "estimator", [MaxRL(), RSGRPO(), FGRPO(PassAtK(2)), PKPO(1), PKPO(2), PKPO(3), MaxAtK(2), LeaveOneOut()], ids=repr
)
def test_equal_rewards_give_exactly_zero(estimator):
    rewards = torch.tensor([0.7] * 3 + [0.1] * 7, dtype=torch.float64)  # their mean differs from them in the last bit
    assert (estimator(RolloutGroups(rewards, torch.tensor([0] * 3 + [1] * 7))) == 0).all()


def test_pkpo_of_0_and_1_has_its_closed_form():
    n, k = 12, 4
    for c in range(n + 1):
        groups = RolloutGroups((torch.arange(n) < c).double(), torch.zeros(n).long())
        right = k * math.comb(n - c, k - 1) / math.comb(n - 1, k - 1)
        expected = torch.tensor([right] * c + [0.0] * (n - c), dtype=torch.float64)
        found = PKPO(k)(groups)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        assert (found.count_nonzero() == 0) == (c == 0 or n - c < k - 1)


# --- The gradients that they estimate, in a softmax bandit: an action is a completion


def probabilities(logits):
    return torch.softmax(torch.tensor(logits, dtype=torch.float64), 0)


def max_at_k_gradient(logits, rewards, k):
    """Of the expected best of k actions, by differentiation of the sum over all k-tuples."""
    z = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    p, total = torch.softmax(z, 0), torch.zeros((), dtype=torch.float64)
    for actions in product(range(len(logits)), repeat=k):
        total = total + p[list(actions)].prod() * max(rewards[a] for a in actions)
    (gradient,) = torch.autograd.grad(total, z)
    return gradient


def group_gradients(estimator, logits, rewards, actions):
    """`mean_i A_i ∇log π(a_i)` of each group of actions, shape `(P, n)` to `(P, K)`."""
    p = probabilities(logits)
    count, n = actions.shape
    values = torch.tensor(rewards, dtype=torch.float64)[actions]
    groups = RolloutGroups(values.flatten(), torch.arange(count).repeat_interleave(n))
    advantages = estimator(groups).view(count, n)
    score = torch.eye(len(p), dtype=torch.float64)[actions] - p  # ∇ of log softmax
    return (advantages.unsqueeze(-1) * score).mean(1)


def expected_gradient(estimator, logits, rewards, n):
    """Exact: all groups of n actions, each with its probability."""
    actions = torch.tensor(list(product(range(len(logits)), repeat=n)))
    weight = probabilities(logits)[actions].prod(1)
    return (weight.unsqueeze(1) * group_gradients(estimator, logits, rewards, actions)).sum(0)


LOGITS = [0.4, -0.9, 1.1]
REWARDS = {"binary": [0.0, 1.0, 0.0], "real": [0.3, 1.7, -0.4]}


@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize(("n", "k"), [(5, 1), (5, 2), (5, 3), (4, 4), (6, 4)])
def test_pkpo_is_unbiased_exactly(rewards, n, k):
    found = expected_gradient(PKPO(k), LOGITS, REWARDS[rewards], n)
    torch.testing.assert_close(found, max_at_k_gradient(LOGITS, REWARDS[rewards], k), rtol=0, atol=1e-12)


def test_pkpo_is_unbiased_in_a_simulated_bandit():
    # 200,000 groups of 8 draws of 5 actions, one of which is right; a fixed seed, so this passes or fails for good
    logits, rewards, k, n = [1.5, 0.5, -1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0, 0.0], 4, 8
    p = probabilities(logits)
    drawn = torch.multinomial(p, 200_000 * n, replacement=True, generator=torch.Generator().manual_seed(0))
    gradients = group_gradients(PKPO(k), logits, rewards, drawn.view(-1, n))
    mean, error = gradients.mean(0), gradients.std(0) / math.sqrt(len(gradients))
    truth = max_at_k_gradient(logits, rewards, k)
    assert ((mean - truth).abs() < 4 * error).all()
    # an interval that can tell: those of pass@1 and of Pass@k Training lie outside
    assert (4 * error < 0.02 * truth.abs()).all()
    for other in (LeaveOneOut(), PassAtK(k)):
        assert ((group_gradients(other, logits, rewards, drawn.view(-1, n)).mean(0) - truth).abs() > 20 * error).any()


@pytest.mark.parametrize("n", [2, 4, 6])
def test_max_rl_is_the_truncated_likelihood_exactly(n):
    # arXiv 2602.02710v3, Theorem 5: to the order n − 1, as groups without a right completion are dropped
    rewards = REWARDS["binary"]
    found = expected_gradient(MaxRL(), LOGITS, rewards, n)
    truth = sum(max_at_k_gradient(LOGITS, rewards, k) / k for k in range(1, n))
    torch.testing.assert_close(found, truth, rtol=0, atol=1e-12)


# --- The same up to a factor


def factor_of(first, second, groups):
    """The factor of each group from the advantages of `second` to those of `first`, NaN where both are 0."""
    a, b = first(groups), second(groups)
    along, square = groups.sum(a * b), groups.sum(b * b)
    factor = torch.where(square > 0, along / square, torch.nan)  # (P,)
    torch.testing.assert_close(a, b * factor.nan_to_num(nan=0.0)[groups.index], rtol=0, atol=1e-9)
    return factor


def test_leave_one_out_is_dr_grpo_times_n_over_n_minus_1():
    groups = draw_groups(6, low=2, unscored=0)
    factor = factor_of(LeaveOneOut(), GroupRelative("none"), groups)
    torch.testing.assert_close(factor, groups.sizes / (groups.sizes - 1.0).double())


def test_max_rl_is_dr_grpo_over_accuracy_and_grpo_by_the_odds():
    groups = draw_groups(7, low=2, rewards="binary", unscored=0)
    n, p = groups.sizes.double(), groups.accuracy
    mixed = (p > 0) & (p < 1)
    torch.testing.assert_close(factor_of(MaxRL(), GroupRelative("none"), groups)[mixed], 1 / p[mixed])
    by_grpo = factor_of(MaxRL(), GroupRelative(eps=0.0), groups)[mixed]
    torch.testing.assert_close(by_grpo, (((1 - p) / p) * n / (n - 1)).sqrt()[mixed])
    torch.testing.assert_close(PassRateObjective()(groups), MaxRL()(groups))


def test_rs_grpo_goes_from_dr_grpo_to_max_rl():
    groups = draw_groups(8, low=2, unscored=0)
    torch.testing.assert_close(RSGRPO(1e-7)(groups), GroupRelative("none")(groups), rtol=0, atol=1e-6)
    binary = draw_groups(8, low=2, rewards="binary", unscored=0)
    p = binary.accuracy
    mixed = (p > 0) & (p < 1)
    for beta in (0.5, 2.0, 50.0):
        slope = math.expm1(beta) / beta
        factor = factor_of(RSGRPO(beta), GroupRelative("none"), binary)[mixed]
        torch.testing.assert_close(factor, slope / (1 + beta * slope * p[mixed]))
    # e^β is large against 1/p: β times the advantage is MaxRL's
    torch.testing.assert_close(50.0 * RSGRPO(50.0)(binary), MaxRL()(binary), rtol=0, atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_max_at_k_is_pass_at_k_training_up_to_a_factor_of_the_group(k):
    for rewards in ("binary", "real"):
        groups = draw_groups(9, low=k + 1, rewards=rewards)
        factor = factor_of(MaxAtK(k), PassAtK(k), groups)
        assert factor[~factor.isnan()].min() > 0
    # r̃ = r / n, so that an eps would weigh n times as much. GroupRelative has n / (n − 1) in float32, as TRL has.
    grpo = GroupRelative(eps=0.0)(groups)
    torch.testing.assert_close(MaxAtK(1, eps=0.0)(groups), grpo, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("k", [2, 4])
def test_max_at_k_of_0_and_1_is_grpo_in_groups_with_k_wrong_ones(k):
    groups = draw_groups(13, low=k + 1, rewards="binary", unscored=0)
    enough = (groups.sizes - groups.num_correct >= k)[groups.index]
    found, grpo = MaxAtK(k, eps=0.0)(groups), GroupRelative(eps=0.0)(groups)
    torch.testing.assert_close(found[enough], grpo[enough], rtol=1e-7, atol=1e-9)
    assert (found[~enough] == 0).all()


@pytest.mark.parametrize("k", [2, 4])
def test_pkpo_of_0_and_1_is_pass_at_k_training_up_to_a_factor_of_the_group_and_a_baseline(k):
    groups = draw_groups(10, low=k + 1, rewards="binary", unscored=0)
    n, wrong = groups.sizes, groups.sizes - groups.num_correct
    rho = torch.tensor(
        [1 - math.comb(w, k) / math.comb(m, k) for m, w in zip(n.tolist(), wrong.tolist(), strict=True)],
        dtype=torch.float64,
    )
    sigma = (rho * (1 - rho)).sqrt()
    found = PKPO(k)(groups)
    centred = found - (groups.sum(found) / n)[groups.index]
    both = ((wrong >= k) & (groups.num_correct > 0))[groups.index]
    factor = k * sigma * wrong / (wrong - k + 1)
    expected = PassAtK(k)(groups) * (1 + 1e-6 / sigma)[groups.index] * factor[groups.index]
    torch.testing.assert_close(centred[both], expected[both], rtol=0, atol=1e-9)
    # with k − 1 wrong ones every set of k has a right one, and only PKPO tells them apart
    alone = ((wrong == k - 1) & (groups.num_correct > 0))[groups.index] & groups.correct
    assert alone.any() and (found[alone] > 0).all() and (PassAtK(k)(groups)[alone] == 0).all()


@pytest.mark.parametrize("rewards", REWARDS)
@pytest.mark.parametrize(("n", "k"), [(4, 1), (4, 2), (5, 3), (4, 4)])
def test_without_its_deviation_pass_at_k_training_estimates_a_share_of_the_gradient(rewards, n, k):
    def undivided(groups):
        values = loop(groups, lambda r: transformed(r, k))
        return n * (values - (groups.sum(values) / n)[groups.index])

    found = expected_gradient(undivided, LOGITS, REWARDS[rewards], n)
    truth = max_at_k_gradient(LOGITS, REWARDS[rewards], k)
    torch.testing.assert_close(found, (1 - k / n) * truth, rtol=0, atol=1e-12)


def test_reinforce_plus_plus_with_baseline_is_dr_grpo_over_one_number():
    groups = draw_groups(11, low=2)
    advantages, base = ReinforcePlusPlus(group_baseline=True, eps=0.0)(groups), GroupRelative("none")(groups)
    scale = base[groups.scored].square().mean().sqrt()
    torch.testing.assert_close(advantages, base / scale, rtol=0, atol=1e-9)


def test_f_grpo_with_gamma_0_is_its_base():
    groups = draw_groups(12, low=3, rewards="binary")
    for base in (GroupRelative(), PassAtK(3), LeaveOneOut()):
        assert torch.equal(FGRPO(base, 0)(groups), base(groups))
