"""Allocators that share out a hard budget, against all allocations and against the variance of real estimates."""

import random
import re
from fractions import Fraction
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from test_prompt_choice import batch_of
from tiny_training import trained

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import GroupRelative, PerPromptMean, RolloutGroups
from rlvr_trl.rollouts import (
    DynamicSampling,
    KnapsackAllocator,
    PromptHistory,
    ReinforceAdaEst,
    VarianceOptimalAllocator,
    build_allocator,
)


def known_prompts(seed, most=5):
    """A history of a few prompts, some of which were never seen, and their ids."""
    draw = random.Random(seed)
    ids = [f"{row}" for row in range(draw.randint(1, most))]
    history = PromptHistory(ids, prior_strength=draw.choice([0.3, 2.0]))
    samples = np.array([draw.choice([0, draw.randint(1, 40)]) for _ in ids])
    correct = np.array([draw.choice([0, count, draw.randint(0, count)]) for count in samples])
    history.update(history.find(ids), step=0, samples=samples, correct=correct)
    return history, ids


# --- what an allocation is worth, and the best there is ---


def of_knapsack(alpha, beta, n):
    p = alpha / (alpha + beta)
    return (1 - p**n - (1 - p) ** n) * p * (1 - p) ** 2


def of_variance(baseline):
    def worth(alpha, beta, n):
        spread = alpha / (alpha + beta) - alpha * (alpha + 1) / ((alpha + beta) * (alpha + beta + 1))  # E[p] − E[p²]
        return -spread * ((n - 1) / n**2 if baseline == "mean" else 1 / (n - 1))

    return worth


def of_weights(power):
    def worth(alpha, beta, n):
        return -(((alpha + beta) / alpha) ** power) / n

    return worth


BUDGETS = {
    "knapsack": (KnapsackAllocator, of_knapsack, 1),
    "mean": (VarianceOptimalAllocator, of_variance("mean"), 3),
    "leave_one_out": (
        lambda *bounds: VarianceOptimalAllocator(*bounds, baseline="leave_one_out"),
        of_variance("leave_one_out"),
        2,
    ),
    "inverse_root": (ReinforceAdaEst, of_weights(1), 1),
    "inverse": (lambda *bounds: ReinforceAdaEst(*bounds, share="inverse"), of_weights(2), 1),
}


def best_worth(prompts, worth, low, high, budget):
    """What the best allocation is worth, by dynamic programming over all of them."""
    best = {0: 0.0}
    for alpha, beta in prompts:
        added = {}
        for used, value in best.items():
            for n in range(low, min(high, budget - used) + 1):
                added[used + n] = max(added.get(used + n, -np.inf), value + worth(alpha, beta, n))
        best = added
    return best[budget]


@pytest.mark.parametrize("name", BUDGETS)
@pytest.mark.parametrize("seed", range(30))
def test_the_budget_is_shared_out_as_well_as_it_can_be(name, seed):
    make, worth, lowest = BUDGETS[name]
    low, high = random.Random(seed).choice([(lowest, 30), (max(lowest, 2), 12), (4, 8), (8, 8)])
    history, ids = known_prompts(seed)
    counts = make(high, low).first_stage(batch_of(history, ids)).tolist()
    assert sum(counts) == 8 * len(ids)
    assert all(low <= count <= high for count in counts)
    posterior = list(zip(*(each.tolist() for each in history.posterior(history.find(ids))), strict=True))
    found = sum(worth(*prompt, count) for prompt, count in zip(posterior, counts, strict=True))
    assert found == pytest.approx(best_worth(posterior, worth, low, high, sum(counts)), rel=1e-9)


@pytest.mark.parametrize(
    ("worth", "lowest"), [(of_variance("mean"), 3), (of_variance("leave_one_out"), 2), (of_weights(1), 1)]
)
def test_no_completion_adds_more_than_the_one_before(worth, lowest):
    """Exactly, from the smallest `min_generations` on; and not from one completion less."""
    half = Fraction(1, 2)
    gains = [worth(half, half, Fraction(n + 1)) - worth(half, half, Fraction(n)) for n in range(lowest, 300)]
    assert all(0 < after <= before for before, after in zip(gains, gains[1:], strict=False))
    if lowest == 3:
        assert worth(half, half, Fraction(3)) - worth(half, half, Fraction(2)) < gains[0]


def test_the_budget_of_prompts_that_are_alike_is_shared_alike():
    history = PromptHistory(list("abcd"))
    for make, *_ in BUDGETS.values():
        assert make(32, 4).first_stage(batch_of(history, list("abcd"))).tolist() == [8] * 4


def test_reinforce_ada_est_gives_completions_in_proportion_to_the_inverse_root():
    shares = np.array([1, 4, 9, 16, 36, 64])
    ids = [f"{share}" for share in shares]
    history = PromptHistory(ids, prior_strength=1e-9)
    history.update(history.find(ids), step=0, samples=np.full(6, 64), correct=shares)
    for share, weights in (("inverse_root", 8 / np.sqrt(shares)), ("inverse", 64 / shares)):
        counts = ReinforceAdaEst(1000, 1, share).first_stage(batch_of(history, ids, num_generations=200))
        assert counts.sum() == 1200
        # of 1000 at most, which 1/p of 1/64 would exceed
        wanted = weights / weights.sum() * 1200
        assert np.abs(counts.numpy() - wanted).max() < 1.0, share


def test_a_budget_below_what_every_prompt_gets_is_refused():
    history = PromptHistory(list("abc"))
    for make, *_ in BUDGETS.values():
        with pytest.raises(ValueError, match="3 prompts with at least 9 completions each need more than 24"):
            make(32, 9).first_stage(batch_of(history, list("abc")))


# --- the variance, by enumeration ---


def above_the_others(groups):
    """RLOO: the reward minus the mean of those of the others of the group."""
    others = (groups.sum(groups.rewards)[groups.index] - groups.rewards) / (groups.sizes - 1)[groups.index]
    return groups.rewards - others


def variance_by_enumeration(ps, sizes, leave_one_out):
    """Of the gradient of a batch for scores of −1 or 1, over all rewards and scores. A Fraction of real advantages."""
    prompts = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    scores = torch.tensor(list(product([-1.0, 1.0], repeat=len(prompts))), dtype=torch.float64)
    mean = square = 0.0
    for rewards in product([0, 1], repeat=len(prompts)):
        chances = [ps[prompt] for prompt in prompts]
        likely = np.prod([p if reward else 1 - p for p, reward in zip(chances, rewards, strict=True)])
        groups = RolloutGroups(torch.tensor(rewards, dtype=torch.float64), prompts)
        estimator = PerPromptMean(above_the_others if leave_one_out else GroupRelative("none"))
        gradients = scores @ estimator(groups) / len(prompts)  # the loss of dr_grpo
        mean += likely * gradients.mean().item()
        square += likely * gradients.square().mean().item()
    assert abs(mean) < 1e-12
    return square


@pytest.mark.parametrize("sizes", [[2], [3], [5], [2, 3], [4, 2], [2, 3, 2]], ids=str)
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
def test_the_variance_is_that_of_the_estimates(sizes, baseline):
    ps = [0.3, 0.85, 0.5][: len(sizes)]
    per_prompt = [
        p * (1 - p) * ((n - 1) / n**2 if baseline == "mean" else 1 / (n - 1)) for p, n in zip(ps, sizes, strict=True)
    ]
    found = variance_by_enumeration(ps, sizes, baseline == "leave_one_out")
    assert found == pytest.approx(sum(per_prompt) / len(sizes) ** 2, rel=1e-9)


# --- on the page, and in training ---


def test_the_table_of_the_page_is_what_the_allocators_give():
    text = (Path(__file__).parents[1] / "docs/methods/variance_optimal.md").read_text(encoding="utf-8")
    right = [int(count) for count in re.search(r"^\| right of 100 \| (.+) \|$", text, re.MULTILINE)[1].split(" | ")]
    history = PromptHistory([f"{count}" for count in right])
    ids = [f"{count}" for count in right]
    history.update(history.find(ids), step=0, samples=np.full(len(ids), 100), correct=np.array(right))
    rows = re.findall(r"^\| `(\{name: .+?\})` \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for spec, counts in rows:
        found = build_allocator(spec).first_stage(batch_of(history, ids))
        assert found.tolist() == [int(count) for count in counts.split(" | ")], spec
    share = float(re.search(r"variance of this batch is ([0-9.]+) of that", text)[1])
    posterior = list(zip(*(each.tolist() for each in history.posterior(history.find(ids))), strict=True))
    counts, worth = VarianceOptimalAllocator().first_stage(batch_of(history, ids)).tolist(), of_variance("mean")
    found = sum(worth(*prompt, count) for prompt, count in zip(posterior, counts, strict=True))
    assert found / sum(worth(*prompt, 8) for prompt in posterior) == pytest.approx(share, abs=0.005)


@pytest.mark.parametrize("name", ["knapsack", "variance_optimal", "reinforce_ada_est"])
def test_a_batch_takes_as_many_completions_as_without(cpu_settings, mazes, tokenizer, name):
    settings = cpu_settings | {"prompts_per_batch": 6, "num_train_epochs": 3, "max_steps": -1}
    settings |= {"rollouts": {"name": name, "max_generations": 12, "min_generations": 3}, "max_completion_length": 4}
    settings["advantages"] = "per_prompt_mean"
    trainer = trained(RLVRTrainer, settings, mazes.select(range(12)), tokenizer)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["rollouts/completions_sampled"] for entry in logged] == [24] * 6
    assert [entry["rollouts/rounds"] for entry in logged] == [1] * 6
    assert any(entry["rollouts/per_prompt_max"] > 4 for entry in logged[2:])


def test_prompts_that_come_later_share_a_budget_of_their_own():
    history, ids = known_prompts(3, most=9)
    batch = batch_of(history, ids)
    inner, outer = VarianceOptimalAllocator(), DynamicSampling(base=VarianceOptimalAllocator())
    assert outer.needs_history and outer.max_generations == 32
    assert torch.equal(outer.first_stage(batch), inner.first_stage(batch))
    assert inner(batch).extra.sum() == 0 and not inner(batch).drop.any()
