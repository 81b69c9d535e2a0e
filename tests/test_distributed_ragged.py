"""Two gloo processes with uneven numbers of rows against one process with all of them."""

from collections import Counter

import pytest
import torch
from launching import launch
from scripts.ragged_gradients import BUDGET, CASES, LOSS_TYPES, SPLITS, TWO_BLOCKS, train_cases

from rlvr_trl.advantages import GroupRelative, RolloutGroups
from rlvr_trl.rollouts import hardness_weighted, within_budget


pytestmark = pytest.mark.slow


TOLERANCE = 1e-5  # of the norm of the whole gradient


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ragged_gradients")
    launch("ragged_gradients.py", str(folder), processes=2)
    return folder


@pytest.fixture(scope="module")
def two(folder):
    results = torch.load(folder / "gradients.pt", weights_only=False)
    (folder / "gradients.pt").unlink()  # 100 MB
    return results


def without_split(case):
    """What decides the gradient: not how the rows are split."""
    loss_type, level, beta, split = case
    return loss_type, level, beta, split == "no advantage at all"


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same on this process, each set of rows and settings once."""
    folder = str(tmp_path_factory.mktemp("one_process"))
    distinct = {without_split(case): case for case in CASES}
    results = train_cases(folder, list(distinct.values()), 1)
    return {
        key: (gradient, entry)
        for key, gradient, entry in zip(distinct, results["gradients"], results["history"], strict=True)
    }


def assert_same(gradient, expected):
    if expected.norm() == 0:
        assert gradient.norm() == 0
        return
    assert expected.norm() > 1e-4
    assert (gradient.double() - expected.double()).norm() / expected.double().norm() <= TOLERANCE


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_gradients_do_not_depend_on_how_rows_are_spread(one, two, loss_type, split):
    for case, gradient in zip(CASES, two["cases"]["gradients"], strict=True):
        if case[0] == loss_type and case[3] == split:
            expected, _ = one[without_split(case)]
            assert (expected.norm() == 0) == (split == "no advantage at all" and case[2] == 0)
            assert_same(gradient, expected)


@pytest.mark.parametrize("split", SPLITS)
def test_logged_losses_and_metrics_do_not_depend_on_how_rows_are_spread(one, two, split):
    for case, entry in zip(CASES, two["cases"]["history"], strict=True):
        if case[3] == split:
            _, expected = one[without_split(case)]
            for name in ("loss", "entropy", "kl"):
                if name in expected:
                    assert entry[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), (case, name)


def test_a_token_budget_gives_the_same_gradient_on_two_processes(one, two):
    for case, gradient in zip(BUDGET, two["budget"]["gradients"], strict=True):
        assert_same(gradient, one[without_split(case)][0])


@pytest.mark.parametrize("loss_type", [name for name in LOSS_TYPES if name != "bnpo"])
def test_two_steps_on_a_batch_sum_to_the_gradient_of_one(one, two, loss_type):
    """
    Some blocks of a rank have no rows. Each of the two steps divides by half of the batch; only bnpo divides by the
    tokens of the step.
    """
    gradients = two["two_blocks"]["gradients"].unflatten(0, (len(TWO_BLOCKS), 2))
    for case, (first, second) in zip(TWO_BLOCKS, gradients, strict=True):
        if case[0] == loss_type:
            assert_same((first + second) / 2, one[without_split(case)][0])


# --- DARS for real ---


@pytest.fixture(scope="module")
def dars(folder):
    return [torch.load(folder / f"dars-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.fixture(scope="module")
def one_extra(folder):
    return [torch.load(folder / f"one_extra-{rank}.pt", weights_only=False) for rank in range(2)]


def check_batch(ranks, index, budget=None) -> int:
    """Everything that must hold for one batch of three prompts. Returns the number of extra completions."""
    first, second = (rank["batches"][index] for rank in ranks)
    prompts, rewards = first["prompt"], torch.tensor(first["rewards"])
    names = list(dict.fromkeys(prompts))
    group_ids = torch.tensor([names.index(prompt) for prompt in prompts])
    assert len(names) == 3 and group_ids[:12].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    correct = rewards[:12].view(3, 4).sum(dim=1).long()
    samples = torch.full((3,), 4)
    extra = within_budget(hardness_weighted(correct, samples, 9, zero_accuracy="cap"), correct, samples, budget)
    assert group_ids.bincount().tolist() == (samples + extra).tolist()

    assert {name: first[name] for name in ("prompt", "completion", "advantages", "rewards")} == {
        name: second[name] for name in ("prompt", "completion", "advantages", "rewards")
    }
    # sampled from the two likeliest tokens after its prompt, which those of another prompt seldom are
    assert max(first["ranks"]["own"]) <= 1
    expected = GroupRelative("none")(RolloutGroups(rewards, group_ids))
    assert first["advantages"] == expected.tolist()
    logged = Counter(zip(prompts, first["completion"], first["advantages"], strict=True))
    assert Counter(first["rows"]) + Counter(second["rows"]) == logged
    return int(extra.sum())


def test_dars_on_two_processes_with_uneven_extra_counts(dars):
    extras = [check_batch(dars, index) for index in range(5)]
    assert extras[1] == 0 and extras[2] == 15  # all right: nothing; all wrong: three prompts at the cap of 9
    assert any(extra % 2 == 1 for extra in extras) and min(extras[0], extras[3], extras[4]) > 0
    for rank, batch_sizes in zip(dars, zip(*[(6 + -(-e // 2), 6 + e // 2) for e in extras], strict=True), strict=True):
        assert [len(batch["rows"]) for batch in rank["batches"]] == list(batch_sizes)


def test_the_check_that_completions_belong_to_their_prompts_would_fail_for_others(dars):
    batches = dars[0]["batches"]
    wrong = [
        rank > 1
        for batch in batches
        for rank, different in zip(batch["ranks"]["other"], batch["different"], strict=True)
        if different
    ]
    assert sum(wrong) > 0.5 * len(wrong)


def test_a_rank_without_extra_completions(one_extra):
    assert check_batch(one_extra, 0, budget=1) == 1
    assert [len(rank["batches"][0]["rows"]) for rank in one_extra] == [7, 6]


def test_weights_are_equal_on_both_ranks(dars, one_extra):
    assert dars[0]["moved"]
    for first, second in (dars, one_extra):
        for name, weight in first["weights"].items():
            assert torch.equal(weight, second["weights"][name]), name


def test_metrics_of_dars_are_over_both_ranks(dars):
    for batch, entry in zip(dars[0]["batches"], dars[0]["history"], strict=True):
        total = len(batch["prompt"])
        assert entry["rollouts/extra"] == total - 12
        assert entry["rollouts/per_prompt_mean"] == pytest.approx(total / 3)
        assert entry["reward"] == pytest.approx(sum(batch["rewards"]) / total)
        assert entry["advantages/frac_zero"] == pytest.approx(batch["advantages"].count(0.0) / total)
