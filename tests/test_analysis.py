"""Curves of the advantages and the softmax bandit, against values by hand and slow references."""

import csv
import itertools
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from rlvr_trl.advantages import (
    AGRAE,
    ESTIMATORS,
    AdaptivePassAtK,
    DominantSide,
    GroupRelative,
    PassAtK,
    build_estimator,
)
from rlvr_trl.advantages.nesting import shapes_tokens
from rlvr_trl.analysis import (
    FIGURES,
    PRESETS,
    Bandit,
    Curve,
    Figure,
    advantage_curves,
    crossing_step,
    expected_update,
    plot_bandit,
    plot_curves,
    plot_families,
    simulate,
)
from rlvr_trl.analysis.bandit import draw_uniforms
from rlvr_trl.analysis.plots import _same_lines
from rlvr_trl.cli import main
from rlvr_trl.line_styles import line_styles
from rlvr_trl.rollouts import ALLOCATORS, DARS, Allocation, DynamicSampling, KnapsackAllocator, PredictedDARS
from rlvr_trl.testbed.methods import METHODS


DR_GRPO = GroupRelative(scale="none")
GOOD, BEST, BAD = range(3)
DEFAULT = Bandit()


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Curves


@pytest.mark.parametrize("n", [1, 5, 8])
def test_dr_grpo_curve_is_its_formula(n):
    curves = advantage_curves(DR_GRPO, n)
    a = np.arange(n + 1) / n
    np.testing.assert_array_equal(curves.accuracy, a)
    np.testing.assert_allclose(curves.total, 2 * n * a * (1 - a), atol=1e-12)
    np.testing.assert_allclose(curves.positive, [np.nan, *(1 - a[1:])], atol=1e-12)
    np.testing.assert_allclose(curves.negative, [*(-a[:-1]), np.nan], atol=1e-12)
    assert (curves.group_size == n).all()


def test_pass_at_k_curve_is_the_table():
    curves = advantage_curves(PassAtK(4), 8)
    right = [0.999998, 0.522232, 0.277349, 0.120385, 0, 0, 0, 0]
    wrong = [0, -0.142857, -0.174077, -0.166409, -0.120385, 0, 0, 0]
    np.testing.assert_allclose(curves.positive[1:], right, atol=1e-6)
    np.testing.assert_allclose(curves.negative[:-1], wrong, atol=1e-6)
    c = np.arange(1, 8)
    expected = c * curves.positive[1:8] - (8 - c) * curves.negative[1:8]
    np.testing.assert_allclose(curves.total, [0, *expected, 0], atol=1e-12)


@pytest.mark.parametrize(("k", "peak"), [(1, 16), (4, 8), (8, 4), (16, 2)])
def test_larger_k_moves_the_peak_to_harder_prompts(k, peak):
    assert advantage_curves(PassAtK(k), 32).total.argmax() == peak


def test_a_grae_curve_depends_on_the_accuracy_of_the_batch():
    curves = advantage_curves(AGRAE(GroupRelative(eps=1e-6)), 8)
    assert curves.batch_accuracy == 0.5
    np.testing.assert_allclose(curves.positive[[1, 4, 7]], [1.205716, 0.330718, 0.172245], atol=1e-6)
    np.testing.assert_allclose(curves.negative[[1, 4, 7]], [-0.344490, -0.661437, -2.411431], atol=1e-6)
    base = advantage_curves(GroupRelative(), 8)
    p = base.accuracy[1:-1]
    for omega in (0.001, 0.1, 0.73, 0.999):
        curves = advantage_curves(AGRAE(), 8, batch_accuracy=omega)
        assert curves.batch_accuracy == pytest.approx(omega, abs=1e-3)
        reached = curves.batch_accuracy
        factor = reached / 2 / np.sqrt(p) + (1 - reached) / 2 / np.sqrt(1 - p)
        np.testing.assert_allclose(curves.negative[1:-1], base.negative[1:-1] * factor)
        np.testing.assert_allclose(curves.positive[1:-1], base.positive[1:-1] * factor * reached)


@pytest.mark.parametrize("num_samples", [1, 3, 8])
@pytest.mark.parametrize("rollouts", [None, DARS("hardness_weighted", 64)])
@pytest.mark.parametrize("accuracy", [0.001, 0.37, 0.5, 0.999])
def test_batch_accuracy_is_reached(num_samples, rollouts, accuracy):
    curves = advantage_curves(DR_GRPO, num_samples, rollouts=rollouts, batch_accuracy=accuracy)
    assert curves.batch_accuracy == pytest.approx(accuracy, abs=1e-3)


def test_any_estimator_has_a_curve():
    at_k = advantage_curves(PassAtK(4), 8)
    adaptive = advantage_curves(AdaptivePassAtK(4), 8)  # needs entropies
    np.testing.assert_array_equal(adaptive.total, at_k.total)
    sampled = advantage_curves(PassAtK(4, method="bootstrap"), 8)  # needs a seed
    np.testing.assert_array_equal(sampled.total, advantage_curves(PassAtK(4, method="bootstrap"), 8).total)
    assert sampled.positive[1] > 0 > sampled.negative[1]
    own = advantage_curves(lambda groups: groups.rewards * 3, 8)
    np.testing.assert_array_equal(own.total, 3 * np.arange(9))


@pytest.mark.parametrize("n", [6, 8, 16])
def test_equal_treatment_brings_hard_prompts_to_the_peak(n):
    curves = advantage_curves(DR_GRPO, n, rollouts=DARS("equal_treatment", 2**20))
    plain = advantage_curves(DR_GRPO, n)
    hard = np.arange(1, (n + 1) // 2)
    size, a = curves.group_size[hard], curves.accuracy[hard]
    share = 2 * a * (1 - a)  # of one completion
    exact = size * share  # at the same accuracy, whole completions or not
    assert (exact >= n / 2 - 1e-12).all() and (exact < n / 2 + share).all()
    whole = size * hard % n == 0
    np.testing.assert_allclose(curves.total[hard][whole], exact[whole])
    assert (curves.total[hard] <= exact + 1e-12).all() and (curves.total[hard] >= exact - 0.5 / size).all()
    np.testing.assert_array_equal(curves.total[n // 2 :], plain.total[n // 2 :])
    assert curves.total[0] == 0 and curves.group_size[0] > n


def test_the_merged_group_is_interpolated_between_its_neighbours():
    # n = 8, c = 3, equal treatment: Δ = 1, 9 · 3/8 = 3.375 correct of 9.
    curves = advantage_curves(PassAtK(4), 8, rollouts=DARS("equal_treatment", 32))
    of_nine = advantage_curves(PassAtK(4), 9)
    assert curves.group_size[3] == 9
    for name in ("total", "positive", "negative"):
        low, high = getattr(of_nine, name)[3:5]
        assert getattr(curves, name)[3] == pytest.approx(0.625 * low + 0.375 * high, abs=1e-12)


def test_curves_refuse_wrong_settings():
    with pytest.raises(ValueError, match="`num_samples` must be an integer of at least 1, got 0"):
        advantage_curves(DR_GRPO, 0)
    with pytest.raises(ValueError, match="`batch_accuracy` must be between"):
        advantage_curves(DR_GRPO, 8, batch_accuracy=0.0)
    with pytest.raises(ValueError, match="k=9"):
        advantage_curves(PassAtK(9), 8)


# Bandit


def plain_simulate(rewards, logits, draws, temperature, learning_rate, negative_only, optimizer):
    """One seed in plain Python; `draws` has one list of uniform numbers per step."""
    z = list(logits)
    first, second = [0.0] * len(z), [0.0] * len(z)

    def policy():
        weights = [math.exp(value / temperature) for value in z]
        return [weight / sum(weights) for weight in weights]

    history = [policy()]
    for step, uniforms in enumerate(draws, start=1):
        pi = policy()
        actions = [
            next((a for a, top in enumerate(itertools.accumulate(pi)) if u < top), len(z) - 1) for u in uniforms
        ]
        mean = sum(rewards[a] for a in actions) / len(actions)
        gradient = [0.0] * len(z)
        for action in actions:
            advantage = rewards[action] - mean
            if negative_only:
                advantage = min(advantage, 0.0)
            for v in range(len(z)):
                gradient[v] += ((1 - pi[v]) if v == action else -pi[v]) * advantage / len(actions)
        for v, g in enumerate(gradient):
            first[v] = 0.9 * first[v] + 0.1 * g
            second[v] = 0.999 * second[v] + 0.001 * g * g
            adam = first[v] / (1 - 0.9**step) / (math.sqrt(second[v] / (1 - 0.999**step)) + 1e-8)
            z[v] += learning_rate * (adam if optimizer == "adam" else g)
        history.append(policy())
    return history


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("negative_only", [False, True])
@pytest.mark.parametrize(("group_size", "temperature"), [(2, 1.0), (5, 3.0)])
def test_all_seeds_at_once_equal_a_plain_loop(optimizer, negative_only, group_size, temperature):
    rewards, logits, steps = [0.5, 1.0, 0.0, 0.2], [0.0, -1.0, 0.0, 0.5], 40
    settings = {"temperature": temperature, "learning_rate": 0.2, "negative_only": negative_only}
    result = simulate(rewards, logits, group_size, steps=steps, seeds=3, optimizer=optimizer, **settings)
    assert result.shape == (3, steps + 1, 4)
    draws = draw_uniforms(3, steps, group_size)
    for seed in range(3):
        plain = plain_simulate(rewards, logits, draws[:, seed].tolist(), optimizer=optimizer, **settings)
        torch.testing.assert_close(result[seed], torch.tensor(plain, dtype=torch.double), rtol=0, atol=1e-7)


def test_a_seed_does_not_depend_on_the_others():
    assert torch.equal(DEFAULT.simulate(2, 30), DEFAULT.simulate(5, 30)[:2])
    assert not torch.equal(*DEFAULT.simulate(2, 30))


def enumerated_update(pi, rewards, group_size, negative_only):
    """Mean of g/G over all ordered groups."""
    update = np.zeros(len(pi))
    for actions in itertools.product(range(len(pi)), repeat=group_size):
        chance = math.prod(pi[a] for a in actions)
        mean = sum(rewards[a] for a in actions) / group_size
        for action in actions:
            advantage = rewards[action] - mean
            advantage = min(advantage, 0) if negative_only else advantage
            update += chance * advantage * ((np.arange(len(pi)) == action) - pi) / group_size
    return update


@pytest.mark.parametrize("negative_only", [False, True])
@pytest.mark.parametrize("group_size", [2, 3, 5])
def test_theorem_1_is_exact(group_size, negative_only):
    rewards = [0.5, 1.0, 0.0, 0.2]
    pi = torch.tensor([[0.4, 0.1, 0.3, 0.2], [0.97, 0.02, 0.01, 0.0]], dtype=torch.double)
    result = expected_update(pi, rewards, group_size, learning_rate=0.3, negative_only=negative_only)
    for row, policy in zip(result.numpy(), pi.numpy(), strict=True):
        expected = 0.3 * enumerated_update(policy, rewards, group_size, negative_only)
        np.testing.assert_allclose(row, expected, atol=1e-14)
    if not negative_only:  # as printed, with the reward less its expectation, it lacks (G − 1)/G
        r = torch.tensor(rewards, dtype=torch.double)
        a = r - (pi @ r)[:, None]
        others = (pi * a).sum(1, keepdim=True) - pi * a
        printed = 0.3 * pi * ((1 - pi) * a - others)
        torch.testing.assert_close(result, (group_size - 1) / group_size * printed, rtol=0, atol=1e-14)


@pytest.mark.parametrize("negative_only", [False, True])
def test_theorem_1_is_the_mean_of_simulated_steps(negative_only):
    # Six means within 5 standard errors: a false alarm in 300,000 choices of seeds.
    seeds, logits = 10_000, [0.3, -1.0, 0.0]
    pi = simulate(
        DEFAULT.rewards, logits, 3, steps=1, seeds=seeds, negative_only=negative_only, optimizer="sgd"
    )  # (S, 2, K)
    change = pi.log().diff(dim=1).squeeze(1)
    change = change - change.mean(1, keepdim=True)  # of the logits: what one gains the others lose
    expected = expected_update(pi[0, 0], DEFAULT.rewards, 3, negative_only=negative_only)
    error = (change.mean(0) - expected) / (change.std(0) / math.sqrt(seeds))
    assert error.abs().max() < 5


def test_default_bandit_exploits_first_and_explores_later():
    probabilities = DEFAULT.simulate(100)
    mean = probabilities.mean(0)
    crossing, each = crossing_step(probabilities)
    peak = int(mean[:, GOOD].argmax())
    assert 20 < peak < 80 < crossing < 250
    assert mean[peak, GOOD] > 0.9 and mean[30, BEST] < 1.5 * mean[0, BEST]  # the best one waits meanwhile
    assert mean[-1, BEST] > 0.8 and mean[-1, BAD] < 0.01
    assert (~each.isnan()).double().mean() > 0.8


def test_larger_groups_and_higher_temperatures_cross_earlier():
    for preset in ("group_size", "temperature"):
        steps = [crossing_step(bandit.simulate(60, 300))[0] for bandit in PRESETS[preset].values()]
        assert steps == sorted(steps, reverse=True) and not np.isnan(steps).any()


def test_negative_advantages_alone_explore_with_adam_and_not_without():
    panels = list(PRESETS["negative_only"].values())
    (crossing, _), (crossing_n, each_n) = (crossing_step(bandit.simulate(60)) for bandit in panels[:2])
    assert crossing_n < 0.8 * crossing and not each_n.isnan().any()
    # Nothing ever pushes the best action down, but little pushes it up: Adam makes full steps of it.
    start = torch.tensor(DEFAULT.logits, dtype=torch.double).softmax(0)
    late = torch.tensor([0.95, 0.03, 0.02], dtype=torch.double)
    for pi in (start, late):
        both, negative = (expected_update(pi, DEFAULT.rewards, 2, negative_only=n)[BEST] for n in (False, True))
        assert 0 < negative < 0.5 * both
    gradient_only = panels[3].simulate(60, 1000)
    assert crossing_step(gradient_only)[0] != crossing_step(gradient_only)[0]  # NaN
    assert (gradient_only[:, -1, BEST] < gradient_only[:, 0, BEST]).all()


def test_crossing_step_is_the_first_step_ahead():
    best = torch.tensor([[0.1, 0.4, 0.7, 0.3], [0.1, 0.5, 0.4, 0.9], [0.1, 0.1, 0.1, 0.1]], dtype=torch.double)
    mean, each = crossing_step(torch.stack([1 - best, best], dim=2))
    assert each[:2].tolist() == [2, 3] and each[2].isnan()
    assert math.isnan(mean)  # 0.1, 1/3, 0.4, 0.43
    assert crossing_step(torch.stack([1 - best, best], dim=2)[:2])[0] == 2


def test_bandit_refuses_wrong_settings():
    for settings, message in [
        ({"steps": 0}, "`steps` must be an integer of at least 1, got 0"),
        ({"temperature": 0.0}, "`temperature` must be a positive number, got 0.0"),
        ({"optimizer": "adamw"}, "`optimizer` must be one of 'adam', 'sgd', got 'adamw'"),
    ]:
        with pytest.raises(ValueError, match=message):
            simulate([1.0, 0.0], [0.0, 0.0], 2, **settings)
    with pytest.raises(ValueError, match="at least 2 actions, got 2 and 3"):
        simulate([1.0, 0.0], [0.0, 0.0, 0.0], 2)
    with pytest.raises(ValueError, match="`group_size` must be an integer of at least 2, got 1"):
        simulate([1.0, 0.0], [0.0, 0.0], 1)


# Pictures and the command line


def test_csv_holds_the_arrays(tmp_path):
    curves = Figure("", (Curve("a", PassAtK(2)), Curve("b", DR_GRPO, DARS())), num_samples=4).compute()
    plot_curves(curves, tmp_path / "curves.svg", "title", panels=("total",))
    rows = read_csv(tmp_path / "curves.csv")
    assert [row["curve"] for row in rows] == ["a"] * 5 + ["b"] * 5
    for column in ("num_correct", "accuracy", "group_size", "total", "positive", "negative"):
        saved = [float(row[column]) for row in rows]
        np.testing.assert_array_equal(saved, np.concatenate([getattr(c, column) for c in curves.values()]))

    probabilities = DEFAULT.simulate(7, 5)
    plot_bandit({"panel": (probabilities, DEFAULT.actions)}, tmp_path / "bandit.png", "title")
    rows = read_csv(tmp_path / "bandit.csv")
    assert len(rows) == 6 * 3 and rows[6]["action"] == "best, unexplored"
    for column, array in [
        ("mean", probabilities.numpy().mean(0)),
        ("low", np.quantile(probabilities.numpy(), 0.05, axis=0)),
        ("high", np.quantile(probabilities.numpy(), 0.95, axis=0)),
    ]:
        np.testing.assert_array_equal([float(row[column]) for row in rows], array.T.ravel())
    with pytest.raises(ValueError, match="must be a .png or .svg file"):
        plot_curves(curves, tmp_path / "curves.pdf", "title")


def test_a_method_has_one_colour_in_every_figure():
    demo = ["base", *(method.label for method in METHODS.values())]
    for labels in [demo, *([curve.label for curve in figure.curves] for figure in FIGURES.values())]:
        styles = line_styles(labels)
        assert len({tuple(style.values()) for style in styles.values()}) == len(labels)
        solid = [label for label in labels if styles[label]["linestyle"] == "-"]
        assert len({styles[label]["color"] for label in solid}) == len(solid)
        assert [styles[label] for label in solid] == [line_styles([label])[label] for label in solid]
    files = [f"file {number}" for number in range(12)]
    styles = line_styles([*files, "GRPO"])
    assert styles["GRPO"] == line_styles(["GRPO"])["GRPO"]
    assert styles["GRPO"]["color"] not in {styles[file]["color"] for file in files}


def test_the_two_parts_of_grpo_are_equal_and_of_other_methods_not():
    """As the paper's Fig. 1 shows them, and Fig. 6: 2n√(p(1 − p)), largest at 1/2 and the same at 1/4 and 3/4."""
    for figure in ("a_grae_fig1", "a_grae_fig6"):
        curves = FIGURES[figure].compute(8)["GRPO"]
        p = curves.accuracy
        inner = slice(1, -1)
        ratio = curves.total[inner] / (16 * np.sqrt(p * (1 - p)))[inner]
        np.testing.assert_allclose(ratio, np.sqrt(7 / 8), rtol=1e-3)  # GRPO divides by the unbiased deviation
        np.testing.assert_allclose(curves.total_correct, curves.total_wrong)
        np.testing.assert_allclose(curves.total_correct + curves.total_wrong, curves.total)
    curves = advantage_curves(DominantSide(10.0), 8, rollouts=DARS("hardness_weighted", 32))
    np.testing.assert_allclose(curves.total_correct + curves.total_wrong, curves.total)
    assert np.abs(curves.total_correct - curves.total_wrong).max() > 0.1


def test_smaller_caps_contract_the_curves_to_that_of_the_base():
    """As App. G.1 of DARS says of Fig. 16: with N_max = N it is the method without DARS."""
    curves = FIGURES["dars_fig16"].compute()
    for name, limits in (("DARS-ET", (10, 12, 16)), ("DARS-HW", (12, 16, 32))):
        totals = [curves["Dr. GRPO"].total, *(curves[f"{name}, {limit}"].total for limit in limits)]
        for smaller, larger in zip(totals, totals[1:], strict=False):
            assert (smaller <= larger + 0.1).all() and smaller.sum() < larger.sum()  # interpolated between counts
    assert curves["Dr. GRPO"].group_size.tolist() == [8] * 9


def test_every_figure_can_be_computed():
    for figure in FIGURES.values():
        for curves in figure.compute(16).values():
            assert np.isfinite(curves.total).all()
            assert figure.by_family or curves.total[0] == curves.total[-1] == 0


# --- All methods by family, and allocators of whole batches


def test_the_figure_of_families_has_every_estimator_and_allocator():
    lines = FIGURES["families"].curves
    drawn = {type(line.estimator) for line in lines}
    specs = {
        "without_easy": {"base": "group_relative"},
        "training_group": {"size": 2},
        **{name: {"k": 2} for name in ("pkpo", "max_at_k")},
    }
    for name in set(ESTIMATORS) - {"scheduled"}:  # one after another, each with its own curve
        fields = specs.get(name, {"k": 2} if name.endswith("pass_at_k") else {})
        estimator = build_estimator({"name": name, **fields})
        if not shapes_tokens(estimator):  # afterwards: the curve is that of the base
            assert type(estimator) in drawn, name
    assert {type(line.rollouts) for line in lines if line.rollouts} == {*ALLOCATORS.values()} - {DynamicSampling}


def test_families_are_where_the_sum_is_largest(tmp_path):
    figure = FIGURES["families"]
    curves = figure.compute()
    families = figure.families(curves)
    assert [label for lines in families.values() for label in lines] != list(curves)  # grouped
    assert sorted(label for lines in families.values() for label in lines) == sorted(curves)
    for family, words in {"Hard prompts": "hard", "Easy prompts": "easy", "Prompts of accuracy 1/2": "middle"}.items():
        for label, curve in families[f"{family} weigh most"].items():
            peak = curve.accuracy[curve.total > curve.total.max() * (1 - 1e-9)].mean()  # of a plateau its middle
            assert {"hard": peak < 0.4, "easy": peak > 0.6, "middle": 0.4 <= peak <= 0.6}[words], label
    (label,) = families["All prompts weigh alike"]
    assert label == "REINFORCE++"
    plot_families(families, tmp_path / "families.png", figure.title)
    rows = read_csv(tmp_path / "families.csv")
    assert {(row["family"], row["curve"]) for row in rows} == {(f, c) for f, lines in families.items() for c in lines}
    for lines in families.values():
        joined = _same_lines(lines)
        assert sorted(label for group in joined for label in group) == sorted(lines)
    assert ["Dr. GRPO", "RLOO", "REINFORCE++ with baseline", "per-prompt mean"] in _same_lines(
        families["Prompts of accuracy 1/2 weigh most"]
    )


def test_a_curve_of_nothing_is_of_no_family_that_weighs_anything():
    curves = advantage_curves(lambda groups: torch.zeros_like(groups.rewards), 4)
    assert curves.relative.tolist() == [0] * 5
    assert curves.family == "all alike"


def test_a_curve_has_the_whole_view_of_an_estimator():
    def own(groups):  # `groups` always has these, and the history if it is asked for
        history = groups.history
        known = (history.alpha / (history.alpha + history.beta))[groups.index]
        reward = groups.rewards_per_func[:, groups.reward_names.index(groups.reward_names[0])]
        return torch.where(groups.truncated, 0.0, (reward - known) / groups.lengths)

    own.needs_history = True
    found, expected = advantage_curves(own, 8), advantage_curves(DR_GRPO, 8)
    np.testing.assert_allclose(found.total, expected.total, atol=2e-3)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (lambda groups: groups.rewards / 0, "returned [0-9]+ advantages that are NaN or infinite"),
        (lambda groups: groups.rewards.unsqueeze(1), r"must return a tensor of shape \([0-9]+,\).* got \([0-9]+, 1\)"),
        (lambda groups: 3, "got int"),
    ],
)
def test_a_curve_refuses_what_a_trainer_would(own, message):
    with pytest.raises(ValueError, match=message):
        advantage_curves(own, 4)


def test_allocators_of_counts_and_of_batches_that_decide_alike_have_one_curve():
    """PredictedDARS knows from its history what DARS sees in its first stage, and DynamicSampling asks its base."""
    dars = DARS("hardness_weighted", 64)
    expected = advantage_curves(DR_GRPO, 16, rollouts=dars)
    for rollouts in (PredictedDARS("hardness_weighted", 64), DynamicSampling(base=dars)):
        found = advantage_curves(DR_GRPO, 16, rollouts=rollouts)
        np.testing.assert_array_equal(found.group_size, expected.group_size)
        np.testing.assert_allclose(found.total, expected.total)


def test_a_knapsack_shares_out_what_a_batch_of_every_accuracy_has():
    curves = advantage_curves(DR_GRPO, 16, rollouts=KnapsackAllocator(max_generations=64))
    assert curves.group_size.sum() == 17 * 16
    assert curves.group_size[0] == curves.group_size[-1] == 2 and curves.group_size.max() > 16
    p = curves.accuracy
    assert (curves.total <= curves.group_size * 2 * p * (1 - p) + 1e-9).all()


class Whole:
    """Gives a prompt of accuracy c/n first c + `least` completions, none more, and drops the odd ones."""

    needs_history, needs_new_prompts, max_generations = True, False, 99

    def __init__(self, least):
        self.least = least

    def first_stage(self, batch):
        assert batch.stage == 0 and batch.num_generations == batch.num_prompts - 1
        alpha, beta = batch.posterior()
        return self.least + (alpha / (alpha + beta) * batch.num_generations).round().long()

    def __call__(self, batch):
        mixed = (batch.num_correct > 0) & (batch.num_correct < batch.num_samples)
        assert batch.stage == 1 and torch.equal(batch.has_signal, mixed)
        return Allocation(torch.zeros_like(batch.num_samples), torch.arange(len(batch)) % 2 == 1)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


def test_an_allocator_of_batches_is_told_of_a_batch_of_every_accuracy_and_dropped_prompts_have_no_sum():
    curves = advantage_curves(DR_GRPO, 8, rollouts=Whole(4))
    assert curves.group_size.tolist() == [4 + c for c in range(9)]
    assert (curves.total[1::2] == 0).all() and (curves.total[2:8:2] > 0).all()
    plain = advantage_curves(DR_GRPO, 8)
    np.testing.assert_allclose(curves.total[4], plain.total[4])  # 8 completions, half of them right
    with pytest.raises(ValueError, match="has no completion for a prompt of accuracy 0/8"):
        advantage_curves(DR_GRPO, 8, rollouts=Whole(0))


def test_command_line_draws_the_users_own_and_allocators_of_batches(tmp_path, monkeypatch):
    (tmp_path / "my_curves.py").write_text(
        "from rlvr_trl.rollouts import KnapsackAllocator\n"
        "def own(groups):\n    return groups.rewards - 0.25\n"
        "class Mine(KnapsackAllocator):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    for estimator in ("my_curves.own", "{name: negative_only, base: my_curves.own}"):
        for rollouts in ("{name: dynamic_sampling, base: dars}", "knapsack", "my_curves.Mine"):
            out = ["--output-dir", "out", "--num-samples", "16"]
            assert main(["plot", "curves", "--estimator", estimator, "--rollouts", rollouts, *out]) == 0
    rows = read_csv(tmp_path / "out" / "curves.csv")
    assert [float(row["negative"]) for row in rows if row["curve"] == "without it"][:16] == [-0.25] * 16
    assert {row["curve"] for row in rows} == {"without it", "with the allocator"}


def test_command_line_writes_pictures_and_numbers(tmp_path, capsys):
    out = ["--output-dir", str(tmp_path / "new")]
    assert main(["plot", "curves", "--figure", "a_grae_fig1", "--num-samples", "4", *out]) == 0
    estimator = {"name": "a_grae", "base": {"name": "pass_at_k", "k": 8}}
    spec = ["--estimator", json.dumps(estimator), "--rollouts", "dars", "--batch-accuracy", "0.3"]
    assert main(["plot", "curves", *spec, "--num-samples", "16", "--format", "svg", *out]) == 0
    assert main(["plot", "bandit", "--preset", "default", "--seeds", "3", "--steps", "20", *out]) == 0
    assert "default, G = 2, η = 0.1: the mean crosses never; 0 of 3 seeds do" in capsys.readouterr().out
    own = ["--rewards", "0.5", "1", "0", "--logits", "0", "-3", "0", "--group-size", "3", "--optimizer", "sgd"]
    assert main(["plot", "bandit", *own, "--negative-only", "--seeds", "3", "--steps", "20", *out]) == 0
    expected = simulate((0.5, 1, 0), (0, -3, 0), 3, optimizer="sgd", negative_only=True, seeds=3, steps=20)
    rows = [row for row in read_csv(tmp_path / "new" / "bandit_own.csv") if row["action"] == "reward 1, logit -3"]
    np.testing.assert_allclose([float(row["mean"]) for row in rows], expected.mean(0)[:, 1])
    capsys.readouterr()
    assert main(["plot", "bandit", "--rewards", "1", "0.5", "0", "--seeds", "2", "--steps", "3", *out]) == 0
    rows = read_csv(tmp_path / "new" / "bandit_own.csv")
    first, second = list(dict.fromkeys(row["action"] for row in rows))[:2]  # a crossing is the second's, the best
    assert (first, second) == ("reward 0.5, logit 0", "reward 1, logit 0")
    names = {path.stem: path for path in (tmp_path / "new").iterdir() if path.suffix != ".csv"}
    assert set(names) == {"a_grae_fig1", "curves", "bandit_default", "bandit_own"}
    assert names["a_grae_fig1"].read_bytes().startswith(b"\x89PNG") and "<svg" in names["curves"].read_text()
    rows = [row for row in read_csv(tmp_path / "new" / "curves.csv") if row["curve"] == "without it"]
    expected = advantage_curves(AGRAE(PassAtK(8)), 16, batch_accuracy=0.3)
    np.testing.assert_array_equal([float(row["total"]) for row in rows], expected.total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["curves", "--figure", "fig1"],
            "Unknown figure 'fig1'. Valid figures: dars_fig2, ",
        ),
        (
            ["bandit", "--preset", "three"],
            "Unknown preset 'three'. Valid presets: default, policies, rewards, group_size, ",
        ),
        (["bandit", "--logits", "1", "2"], "--logits needs --rewards: the presets have their own."),
        (["bandit", "--negative-only"], "--negative-only needs --rewards"),
        (["bandit", "--group-size", "0"], "--group-size needs --rewards"),
        (["bandit", "--rewards", "1", "0", "--logits", "1"], "one value for each of at least 2 actions, got 2 and 1"),
        (["bandit", "--rewards", "nan", "1"], "`rewards` must be finite numbers, got "),
        (["bandit", "--seeds", "0"], "`seeds` must be an integer of at least 1, got 0"),
        (["curves", "--estimator", "none"], "Unknown advantage estimator 'none'. Valid names: group_relative, "),
        (
            ["curves", "--estimator", "{name: a_grae"],
            "The advantage estimator '{name: a_grae' is neither YAML nor JSON: ",
        ),
        (["curves", "--estimator", '{"name": "pass_at_k", "k": 64}'], "k=64"),
        (["curves", "--rollouts", "dars"], "--rollouts needs --estimator"),
        (["curves", "--estimator", "a_grae", "--rollouts", "dars"], "--rollouts dars adds nothing to groups of 32"),
    ],
)
def test_command_line_errors_are_one_line(tmp_path, capsys, arguments, message):
    assert main(["plot", *arguments, "--output-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert not list(tmp_path.iterdir())


def test_help_loads_nothing_heavy_and_analysis_no_trl():
    heavy = "{'torch', 'numpy', 'matplotlib', 'transformers', 'trl'}"
    code = (
        "import sys, rlvr_trl.cli\n"
        f"assert not {heavy} & set(sys.modules)\n"
        "from rlvr_trl.analysis import advantage_curves, plot_curves, simulate\n"
        "assert not {'trl', 'transformers', 'rlvr_trl.trainer'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
