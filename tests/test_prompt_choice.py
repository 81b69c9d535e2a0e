"""Which prompts come next and how many completions each gets: the source, selections, refill, prediction."""

import json
import math
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import permutations
from math import ceil

import numpy as np
import pytest
import torch
from row_by_row import assert_same_gradient
from tiny_training import build, flat_weights, planned_batch, right_moves, sample, trained
from trl.trainer.utils import RepeatSampler

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import AGRAE, GroupRelative, PassAtK, PositiveNegativeReinforce, RolloutGroups
from rlvr_trl.async_trainer.refusals import check_allocator_per_prompt
from rlvr_trl.evaluation.problems import Problem
from rlvr_trl.rollouts import (
    DARS,
    Allocation,
    DifficultyPool,
    DynamicSampling,
    PredictedDARS,
    PromptHistory,
    PromptSource,
    RolloutBatch,
    SkipSolved,
    TargetAccuracy,
    hardness_weighted,
    ids_of_prompts,
)
from rlvr_trl.testbed.methods import Method, rollouts_per_prompt
from rlvr_trl.trainer.stages import has_signal, view_of_batch


# --- the source of prompts ---


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_order_is_trls_and_leaves_out_no_row(shuffle):
    """TRL drops what is left of an epoch after its last whole batch."""
    source, sampler = (
        PromptSource(10, shuffle=shuffle, seed=7),
        RepeatSampler(range(10), 1, 5, shuffle=shuffle, seed=7),
    )
    assert [source.take(5).tolist() for _ in range(8)] == [
        chunk for _ in range(4) for rows in [list(sampler)] for chunk in (rows[:5], rows[5:])
    ]
    source = PromptSource(10, shuffle=shuffle, seed=7)
    taken = np.concatenate([source.take(3) for _ in range(10)])
    # a row that comes twice in one batch is passed over the second time, and so at most 2 visits differ
    assert set(Counter(taken.tolist())) == set(range(10)) and max(Counter(taken.tolist()).values()) <= 4


@pytest.mark.parametrize("seed", range(20))
def test_a_source_resumes_anywhere_and_never_repeats_a_row_in_a_batch(seed):
    draw = random.Random(seed)
    rows = draw.randint(1, 9)
    source = PromptSource(rows, shuffle=draw.random() < 0.7, seed=seed)
    states, batches = [], []
    for _ in range(30):
        states.append(source.state_dict())
        first = source.take(draw.randint(1, rows)).tolist()
        batches.append((len(first), first, source.take(3, without=first).tolist()))
        assert len({*first, *batches[-1][2]}) == min(rows, len(first) + 3) == len(first) + len(batches[-1][2])
    at = draw.randrange(30)
    resumed = PromptSource(rows, shuffle=source.shuffle, seed=seed)
    resumed.load_state_dict(states[at])
    for count, first, second in batches[at:]:
        assert resumed.take(count).tolist() == first and resumed.take(3, without=first).tolist() == second


def test_skip_solved_passes_over_what_is_solved_and_takes_it_up_again():
    ids = [f"{row}" for row in range(100)]
    history = PromptHistory(ids)
    places = history.find(ids)
    solved = places[:50]
    known = {"samples": np.full(50, 8), "correct": np.full(50, 8)}
    history.update(solved, step=0, **known)
    history.update(places[50:90], step=0, samples=np.full(40, 8), correct=np.full(40, 3))
    source = PromptSource(100, shuffle=True, seed=1)
    selection = SkipSolved(threshold=0.8, skip_rate=0.75)
    taken = [row for _ in range(40) for row in source.take(10, selection, history=history, places=places).tolist()]
    share = sum(row < 50 for row in taken) / len(taken)
    assert abs(share - 0.25 / 1.25) < 0.06  # a quarter of the solved half is left, beside the other half
    assert len({row for row in taken if row < 50}) > 25
    history.update(solved, step=1, samples=np.full(50, 30), correct=np.zeros(50))  # the model has lost them
    assert sum(row < 50 for row in source.take(60, selection, history=history, places=places)) > 15
    whole = PromptSource(100, shuffle=True, seed=1).take(95, SkipSolved(0.2, 1.0), history=history, places=places)
    assert len(set(whole.tolist())) == 95  # more than are not skipped


def test_target_accuracy_takes_what_is_near_it_and_tries_what_is_unknown():
    ids = [f"{row}" for row in range(300)]
    history = PromptHistory(ids, prior_strength=1.0)
    places = history.find(ids)
    shares = np.repeat([0, 20, 40], 80)  # right of 40: never, half of them, always; 60 prompts were never seen
    history.update(places[:240], step=0, samples=np.full(240, 40), correct=shares)
    source = PromptSource(300, shuffle=True, seed=3)
    selection, taken = TargetAccuracy(target=0.5, candidates=3), Counter()
    for _ in range(30):
        taken.update(source.take(20, selection, history=history, places=places).tolist())
    kinds = Counter(["hard", "half", "easy", "unseen"][min(row // 80, 3)] for row in taken.elements())
    assert kinds["half"] > 0.6 * kinds.total() and kinds["unseen"] > 0.1 * kinds.total()
    assert kinds["hard"] + kinds["easy"] < 0.1 * kinds.total()
    assert source.epoch * 300 + source.position == 30 * 60  # 3 candidates for each


POOLED = [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4), None]  # right of the last group; 1 of 4 is hard, 3 of 4 normal


def pooled(discount=0.0):
    """Six prompts with an older group that says the opposite of the last one, and their history."""
    ids = [f"{row}" for row in range(len(POOLED))]
    history = PromptHistory(ids, discount=discount)
    seen = np.array([group for group in POOLED if group is not None])
    places = history.find(ids[: len(seen)])
    for correct in (4 - seen[:, 0], seen[:, 0]):
        history.update(places, step=0, samples=seen[:, 1], correct=correct)
    return history, history.find(ids)


@pytest.mark.parametrize("batch", [1, 2, 4])
@pytest.mark.parametrize("weights", [(0.2, 1.0, 0.2), (0.5, 3.0, 0.0)])
def test_a_pool_is_drawn_from_at_its_rate(batch, weights):
    """Against the probabilities of all orders in which the prompts of a batch may be drawn."""
    history, places = pooled()
    hard, normal, easy = weights
    rates = [hard, hard, normal, normal, easy, 1.0]
    expected = Counter()
    for order in permutations(range(6), batch):
        left, chance = sum(rates), 1.0
        for row in order:
            chance, left = chance * rates[row] / left if left > 1e-9 else 0.0, left - rates[row]
        expected[order] += chance
    assert sum(expected.values()) == pytest.approx(1.0)
    selection = DifficultyPool(hard_weight=hard, normal_weight=normal, easy_weight=easy)
    source, draws, found = PromptSource(6, shuffle=False, seed=0), 5000, Counter()
    for _ in range(draws):
        found[tuple(source.take(batch, selection, history=history, places=places).tolist())] += 1
    assert source.epoch == source.position == 0 and set(found) <= {order for order in expected if expected[order]}
    # Fixed seeds, so that this passes or fails for good; see test_every_subset_is_equally_likely
    chi2 = sum((found[order] - draws * p) ** 2 / (draws * p) for order, p in expected.items() if p)
    freedom, x = sum(p > 0 for p in expected.values()) - 1, math.log(1e6)
    assert chi2 < freedom + 2 * math.sqrt(freedom * x) + 2 * x


def test_pools_are_by_what_was_seen_last_and_discounted():
    for discount, rows in ((0.0, {2, 3, 5}), (1.0, {0, 1, 2, 3, 4, 5})):  # all right and all wrong are half and half
        history, places = pooled(discount)
        only_normal = DifficultyPool(hard_weight=0, easy_weight=0)
        source, taken = PromptSource(6, shuffle=True, seed=3), set()
        for _ in range(60):
            taken |= set(source.take(3, only_normal, history=history, places=places).tolist())
        assert taken == rows
    history, places = pooled()
    narrow = DifficultyPool(hard=0.0, easy=0.99, hard_weight=0, easy_weight=0)  # hopeless, and solved
    source = PromptSource(6, shuffle=True, seed=3)
    assert set(source.take(4, narrow, history=history, places=places).tolist()) == {1, 2, 3, 5}
    filled = source.take(5, narrow, history=history, places=places).tolist()
    assert set(filled[:4]) == {1, 2, 3, 5} and filled[4] in (0, 4)  # too few others


class Fixed:
    def __init__(self, *answer):
        self.answer = answer

    def __call__(self, choice):
        return self.answer


@pytest.mark.parametrize(
    "answer", [(np.array([0, 0]), 2), (np.array([0]), 1), (np.array([0, 9]), 2), (np.array([0, 1]), 9), ("ab", "c")]
)
def test_a_users_selection_is_checked(answer):
    history = PromptHistory(list("abcd"))
    with pytest.raises(ValueError, match="must return 2 different indices from 0 to 3, and how many of 4 rows"):
        PromptSource(4, shuffle=False, seed=0).take(
            2, Fixed(*answer), history=history, places=np.arange(4), progress=0.0
        )


def test_ids_are_of_the_prompt_and_of_the_row_where_there_are_images(mazes):
    twice = ids_of_prompts(mazes.select([0, 1, 0]))
    assert twice[0] == twice[2] != twice[1]
    assert ids_of_prompts(mazes.select([0, 0]).add_column("image", ["a", "b"])) == ["row 0", "row 1"]
    chats = [[{"role": "user", "content": "é"}], [{"content": "é", "role": "user"}]]
    assert len(set(ids_of_prompts(mazes.select([0, 0]).remove_columns("prompt").add_column("prompt", chats)))) == 1


def test_an_evaluation_of_the_training_prompts_is_a_beginning(cpu_settings, mazes, tokenizer, tmp_path):
    path, counts = tmp_path / "results.json", {"num_samples": 8, "num_correct": 4}
    problems = [{"id": Problem.from_row(dict(row)).id} | counts for row in mazes]
    path.write_text(json.dumps({"problems": problems}), encoding="utf-8")
    settings = cpu_settings | {"prompt_history": {"start_from": str(path)}, "selection": "skip_solved"}
    assert (build(RLVRTrainer, settings, mazes, tokenizer).history.samples == 8).all()
    path.write_text(json.dumps({"problems": [{"id": "f" * 16} | counts]}), encoding="utf-8")
    with pytest.raises(ValueError, match="holds none of the 24 prompts"):
        build(RLVRTrainer, settings, mazes, tokenizer)


# --- what has a signal ---


@pytest.mark.parametrize(
    ("estimator", "alike", "rare"),
    [
        (GroupRelative(), False, True),
        (GroupRelative("none"), False, True),
        (GroupRelative("batch"), False, True),
        (PassAtK(k=3), False, False),  # a single wrong completion changes no set of 3
        (AGRAE(), False, True),
        (PositiveNegativeReinforce(0.0, 1.0), True, True),  # all wrong is what it learns from
    ],
    ids=lambda value: type(value).__name__ if callable(value) else str(value),
)
@pytest.mark.parametrize("value", [0.1, 0.3, -0.7, 1e-4])
def test_the_estimator_says_what_has_a_signal(estimator, alike, rare, value):
    """Rewards that are alike, whose mean in float32 is not what each of them is, one wrong, and one right."""
    rewards = torch.tensor([value] * 7 + [1.0] * 6 + [0.0] + [1.0] + [0.0] * 6)
    groups = RolloutGroups(rewards, torch.arange(3).repeat_interleave(7))
    assert has_signal(estimator, groups).tolist() == [alike, rare, True]


# --- refill ---


def right_by_number(completions, number, **kwargs):
    """Nothing to learn from four in five prompts: all right or all wrong."""
    moves = right_moves(completions)
    return [float(n % 2) if n % 5 else float(i % 2) for i, (n, _) in enumerate(zip(number, moves, strict=True))]


@pytest.fixture
def numbered(mazes):
    return mazes.add_column("number", list(range(len(mazes))))


@pytest.fixture
def settings(cpu_settings):
    refilled = {"rollouts": "dynamic_sampling", "prompts_per_batch": 4, "max_completion_length": 4}
    return cpu_settings | refilled | {"per_device_train_batch_size": 4, "max_steps": 2}


def test_a_batch_is_filled_up_with_prompts_that_have_a_signal(settings, numbered, tokenizer):
    seen = []

    def reward(completions, number, **kwargs):
        seen.extend(number)
        return right_by_number(completions, number)

    trainer = build(RLVRTrainer, settings | {"max_steps": 1}, numbered, tokenizer, reward)
    trainer.train()
    logged = trainer.logged_completions
    rewards = np.array(logged["rewards"]["reward"]).reshape(4, 4)
    assert ((rewards.mean(axis=1) > 0) & (rewards.mean(axis=1) < 1)).all()
    assert len(planned_batch(trainer)["prompt_ids"]) == 16 == len(logged["advantages"])
    assert 0.0 not in logged["advantages"]
    order = PromptSource(len(numbered), shuffle=True, seed=trainer.args.seed)
    expected = order.take(len(set(seen))).tolist()
    assert list(dict.fromkeys(seen)) == expected and max(Counter(seen).values()) == 4
    history = trainer.state.log_history[0]
    assert history["rollouts/prompts_sampled"] == len(expected)
    assert history["rollouts/completions_sampled"] == 4 * len(expected)
    dapo = Method("", RLVRTrainer, RLVRConfig, {"prompts_per_batch": 4})
    assert rollouts_per_prompt(dapo, [history]) == len(expected)  # those of dropped prompts too
    assert history["rollouts/frac_dropped"] == pytest.approx(1 - 4 / len(expected))


def test_the_gradient_is_exact_over_what_remains(settings, numbered, tokenizer):
    trainer = build(RLVRTrainer, settings | {"loss_type": "dr_grpo"}, numbered, tokenizer, right_by_number)
    batch = sample(trainer, numbered, 4)
    assert len(batch["prompt_ids"]) == 16
    assert_same_gradient(trainer, batch)


class Counts(DARS):
    """DARS that notes what it is told."""

    def __call__(self, stage, num_samples, num_correct, num_judged):
        self.told.append((stage, num_samples.tolist(), num_correct.tolist()))
        return super().__call__(stage, num_samples, num_correct, num_judged)


def test_new_prompts_have_the_stages_of_the_base_too(settings, numbered, tokenizer):
    """DARS asks after the first stage of a prompt, whichever round of the batch that is."""
    base = Counts("hardness_weighted", max_generations=9)
    base.told = []
    plain = {name: value for name, value in settings.items() if name != "rollouts"} | {"max_steps": 1}
    seen = []

    def reward(completions, number, **kwargs):
        seen.extend(number)
        return [float(n % 3 == 0 and len(seen) % 2) for n in number]

    trained(RLVRTrainer, plain, numbered, tokenizer, reward, rollouts=DynamicSampling(base=base))
    counts = Counter(seen)
    assert len(counts) > 4 and set(counts.values()) <= {4, 5, 6, 7, 8, 9}
    # who has none right gets to the cap, in the batch from the start or not
    never = [n for n in counts if n % 3]
    assert len(never) > 4 and {counts[n] for n in never} == {9}
    assert {stage for stage, *_ in base.told} == {1, 2}


@pytest.mark.parametrize(("step", "selection"), [(1, "skip_solved"), (2, "difficulty_pool"), (3, "skip_solved")])
def test_a_refilled_run_resumes_to_the_same_weights(settings, numbered, tokenizer, step, selection):
    settings |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "prompts_per_update": 2}
    settings |= {"prompt_history": {"pools": "number"}, "selection": selection}
    whole = trained(RLVRTrainer, settings, numbered, tokenizer, right_by_number)
    resumed = build(RLVRTrainer, settings, numbered, tokenizer, right_by_number)
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-{step}")
    assert torch.equal(flat_weights(resumed.model), flat_weights(whole.model))
    for name, value in whole.history.state_dict().items():
        assert np.array_equal(value, resumed.history.state_dict()[name]), name


class InTurns:
    """A user's selection that remembers how often it was asked: every second time it takes the last rows."""

    def __init__(self):
        self.asked = 0

    def __call__(self, choice):
        self.asked += 1
        chosen = np.arange(choice.num_prompts)
        return (chosen, choice.num_prompts) if self.asked % 2 else (len(choice.upcoming) - 1 - chosen, 0)

    def state_dict(self):
        return {"asked": self.asked}

    def load_state_dict(self, state):
        self.asked = state["asked"]


def test_what_a_selection_remembers_is_resumed(settings, numbered, tokenizer):
    settings |= {"max_steps": 4, "save_strategy": "steps", "save_steps": 1, "rollouts": None}
    first = InTurns()
    whole = trained(RLVRTrainer, settings, numbered, tokenizer, right_by_number, selection=first)
    resumed = build(RLVRTrainer, settings, numbered, tokenizer, right_by_number, selection=InTurns())
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-1")
    assert resumed.selection.asked == first.asked
    assert torch.equal(flat_weights(resumed.model), flat_weights(whole.model))


@pytest.mark.parametrize(
    ("cap", "prompts"),
    [({"max_prompts": 6}, 6), ({"max_rollouts": 24}, 6), ({"max_tokens": 16 * 4 + 1}, 4), ({"max_prompts": 4}, 4)],
)
def test_a_cap_ends_the_search(settings, numbered, tokenizer, cap, prompts):
    def never(completions, **kwargs):
        return [0.0] * len(completions)

    settings |= {"rollouts": {"name": "dynamic_sampling"} | cap, "max_steps": 1}
    trainer = trained(RLVRTrainer, settings, numbered, tokenizer, never)
    assert len(trainer.logged_completions["prompt"]) == 4 * prompts  # nothing has a signal: all of it stays
    assert trainer.state.log_history[0]["rollouts/prompts_sampled"] == prompts


def test_the_budget_of_the_trainer_holds_for_new_prompts_too(settings, numbered, tokenizer):
    settings |= {"max_extra_rollouts": 7, "max_steps": 1}
    trainer = trained(RLVRTrainer, settings, numbered, tokenizer, right_by_number)
    assert trainer.state.log_history[0]["rollouts/prompts_sampled"] <= 5


@pytest.mark.parametrize("budget", [0, 5, 12])
def test_prompts_are_given_up_where_the_base_has_no_budget_left(settings, numbered, tokenizer, budget):
    settings |= {"max_extra_rollouts": budget, "max_steps": 4}
    settings |= {"rollouts": {"name": "dynamic_sampling", "base": {"name": "dars", "max_generations": 12}}}
    trainer = trained(RLVRTrainer, settings, numbered, tokenizer, right_by_number)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert any(log["rollouts/frac_dropped"] > 0 for log in logs)
    assert all(log["rollouts/frac_mixed"] in (0, 1) for log in logs)  # 0 where none has a signal and all stay


class DropsTheFirst(PredictedDARS):
    def __call__(self, batch):
        return Allocation(torch.zeros_like(batch.num_samples), torch.arange(len(batch)) == 0)


def test_what_the_base_drops_is_dropped():
    base = DropsTheFirst()
    base.needs_history = False
    signal = torch.ones(3).bool()
    batch = replace(RolloutBatch.unsampled(3, 8, 3), stage=1, find_signal=lambda: signal)
    asked = DynamicSampling(base=base)(batch)
    assert asked.drop.tolist() == [True, False, False] and asked.new_prompts == 1


# --- prediction ---


def batch_of(history, ids, **changed) -> RolloutBatch:
    from dataclasses import replace

    batch = RolloutBatch.unsampled(len(ids), 8, len(ids))
    return replace(batch, history=history, places=history.find(ids), **changed)


@pytest.mark.parametrize("schedule", ["equal_treatment", "hardness_weighted"])
@pytest.mark.parametrize("scale", ["none", "std"])
def test_what_is_predicted_is_the_schedule_at_the_mean_of_the_posterior(schedule, scale):
    ids = [f"{correct}" for correct in range(41)]
    history = PromptHistory(ids, prior_strength=0.5)
    places = history.find(ids)
    history.update(places, step=0, samples=np.full(41, 40), correct=np.arange(41))
    allocator = PredictedDARS(schedule, max_generations=64, scale=scale, easy_generations=3)
    counts = allocator.first_stage(batch_of(history, ids))
    for count, mean in zip(counts.tolist(), history.accuracy(places).tolist(), strict=True):
        m = max(1, int(2 * 8 * mean + 0.5))
        a = Fraction(m, 16)
        weight = 2 * (1 - a) if schedule == "hardness_weighted" else 1
        if m >= 8:
            total = 8
        elif scale == "none":
            total = ceil(weight * 4 / (2 * a * (1 - a)))
        else:  # squares of both sides, so that no root is needed
            total = next(n for n in range(8, 10_000) if n * n * 4 * a * (1 - a) >= (weight * 8) ** 2)
        expected = 3 if mean >= 0.9 else min(64, max(8, total))
        assert count == expected, (mean, m)


def test_prompts_that_are_not_known_get_two_stages():
    history = PromptHistory(list("abc"))
    history.update(history.find("a"), step=0, samples=np.array([8]), correct=np.array([1]))
    allocator = PredictedDARS(max_generations=32, max_deviation=0.16)
    batch = batch_of(history, list("abc"))
    first = allocator.first_stage(batch)
    assert first[0] > 8 and first[1:].tolist() == [8, 8]
    correct = torch.tensor([0, 0, 3])
    after = batch_of(history, list("abc"), stage=1, num_samples=first, num_judged=first, num_correct=correct)
    extra = allocator(after).extra
    assert extra.tolist() == [0, hardness_weighted(0, 8, 32), hardness_weighted(3, 8, 32)]


def test_what_the_history_foretold_is_logged(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"prompts_per_batch": 6, "num_train_epochs": 2, "max_steps": -1, "prompt_history": {}}
    trainer = build(RLVRTrainer, settings, mazes.select(range(12)), tokenizer)
    before = []
    trainer.history.update = lambda *args, update=trainer.history.update, **known: (
        before.append((trainer.history.accuracy(args[0]), known["correct"] / known["samples"])),
        update(*args, **known),
    )
    trainer.train()
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["history/frac_seen"] for entry in logged] == [0.5, 1.0, 1.0, 1.0]
    for entry, (predicted, observed) in zip(logged, before, strict=True):
        assert entry["history/prediction_error"] == pytest.approx(np.abs(predicted - observed).mean())
        for low, high in ((0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)):
            inside, name = (predicted > low) & (predicted <= high), f"history/observed/accuracy_{low}_{high}"
            assert (name in entry) == inside.any()
            if inside.any():
                assert entry[name] == pytest.approx(observed[inside].mean())
    history = trainer.history
    assert logged[-1]["history/frac_never_solved"] == pytest.approx((history.correct == 0).mean())
    assert logged[-1]["history/frac_always_solved"] == pytest.approx((history.correct == history.samples).mean())


def test_after_the_first_epoch_a_batch_takes_one_round(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"prompts_per_batch": 6, "num_train_epochs": 3, "max_steps": -1}
    settings |= {"rollouts": {"name": "predicted_dars", "max_generations": 12, "max_deviation": 0.25}}
    settings["max_completion_length"] = 4
    trainer = trained(RLVRTrainer, settings, mazes.select(range(12)), tokenizer)
    rounds = [entry["rollouts/rounds"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(rounds) == 6 and 2 in rounds[:2] and set(rounds[2:]) == {1}
    assert trainer.history.seen.tolist() == [3] * 12
    assert trainer.history.samples.sum() > 12 * 3 * 4


# --- what cannot work is refused by name ---


@pytest.mark.parametrize(
    ("rollouts", "name"),
    [
        ("knapsack", "min_generations"),
        ({"name": "predicted_dars", "easy_generations": 2}, "easy_generations"),
        ({"name": "dynamic_sampling", "base": "variance_optimal"}, "min_generations"),
    ],
)
def test_groups_that_an_estimator_cannot_take_are_refused(cpu_settings, rollouts, name):
    with pytest.raises(ValueError, match=f"at least 4 completions, but .* `{name}`"):
        RLVRConfig(**cpu_settings, rollouts=rollouts, advantages={"name": "pass_at_k", "k": 4})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"selection": "skip_solve"}, "Did you mean 'skip_solved'"),
        ({"selection": {"name": "skip_solved", "threshold": 2}}, "`threshold` must be a number above 0 and at most 1"),
        ({"selection": {"name": "target_accuracy", "candidates": 0.5}}, "`candidates` must be at least 1, got 0.5"),
        ({"selection": {"name": "target_accuracy", "target": -1}}, "`target` must be a number from 0 to 1"),
        ({"selection": {"name": "difficulty_pool", "hard": 1.1}}, "`hard` must be a number from 0 to 1, got 1.1"),
        ({"selection": {"name": "difficulty_pool", "easy": 0.2}}, "`easy` must be at least `hard`=0.25, got 0.2"),
        (
            {"selection": {"name": "difficulty_pool", "easy_weight": -1}},
            "`easy_weight` must be a number of at least 0",
        ),
        (
            {
                "selection": {"name": "difficulty_pool"}
                | dict.fromkeys(["hard_weight", "normal_weight", "easy_weight"], 0)
            },
            "are all 0",
        ),
        ({"rollouts": {"name": "knapsack", "min_generations": 5}}, "`min_generations`=5 of .* Lower it to 4 or less"),
        (
            {"rollouts": {"name": "variance_optimal", "min_generations": 2}},
            "`min_generations` must be an integer of at",
        ),
        ({"rollouts": {"name": "variance_optimal", "min_generations": 5}}, "`min_generations`=5 of Var"),
        ({"rollouts": {"name": "variance_optimal", "baseline": "median"}}, "`baseline` must be one of 'mean', 'leave"),
        ({"rollouts": {"name": "reinforce_ada_est", "share": "root"}}, "`share` must be one of 'inverse_root', 'inv"),
        ({"rollouts": {"name": "predicted_dars", "easy_generations": 6}}, "`easy_generations`=6 of .* Lower it to 4"),
        (
            {"rollouts": {"name": "dynamic_sampling", "base": {"name": "predicted_dars", "easy_generations": 6}}},
            "`easy_generations`=6 of PredictedDARS",
        ),
        ({"rollouts": {"name": "dynamic_sampling", "max_prompts": 0}}, "`max_prompts` must be an integer of at least"),
        ({"rollouts": {"name": "predicted_dars", "easy": 0.3}}, "`easy` must be above 0.5"),
        ({"rollouts": {"name": "knapsack", "min_generations": 200}}, "`min_generations` must be at most `max_gener"),
        ({"prompt_history": {"discont": 1}}, "`prompt_history` has no 'discont'. It may hold ids, pools"),
        ({"prompt_history": {"discount": 3}}, "`discount` must be a number from 0 to 1"),
        ({"prompt_history": "text"}, "must be a dict of settings"),
    ],
)
def test_settings_are_checked_before_a_model_is_loaded(cpu_settings, changed, message):
    with pytest.raises(ValueError, match=message):
        RLVRConfig(**cpu_settings | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"prompt_history": {"ids": "name"}}, "takes `ids` from the column 'name', but `train_dataset` has the col"),
        ({"remove_unused_columns": True, "selection": "skip_solved"}, "Set it to False"),
    ],
)
def test_columns_that_are_not_there_are_named(cpu_settings, mazes, tokenizer, changed, message):
    with pytest.raises(ValueError, match=message):
        build(RLVRTrainer, cpu_settings | changed, mazes, tokenizer)


def test_rows_without_an_id_are_refused(cpu_settings, mazes, tokenizer):
    named = mazes.add_column("name", ["a", None] * 12)
    with pytest.raises(ValueError, match="'name', which is empty in some rows"):
        build(RLVRTrainer, cpu_settings | {"prompt_history": {"ids": "name"}}, named, tokenizer)


def test_a_search_that_may_not_begin_is_refused(settings, numbered, tokenizer):
    settings |= {"rollouts": {"name": "dynamic_sampling", "max_prompts": 3}}
    with pytest.raises(ValueError, match="`max_prompts`=3 of .* Raise it to 4 or more"):
        build(RLVRTrainer, settings, numbered, tokenizer)
    with pytest.raises(ValueError, match="`base` must not ask for other prompts itself"):
        DynamicSampling(base=DynamicSampling())


def test_a_stream_has_no_ids(settings, mazes, tokenizer):
    with pytest.raises(ValueError, match="`train_dataset` is a IterableDataset, whose rows come in an order of their"):
        build(RLVRTrainer, settings, mazes.to_iterable_dataset(), tokenizer)


def test_a_checkpoint_without_a_history_is_refused(settings, numbered, tokenizer):
    plain = {name: value for name, value in settings.items() if name != "rollouts"}
    trained(RLVRTrainer, plain | {"save_strategy": "steps", "save_steps": 1}, numbered, tokenizer, right_by_number)
    admitted = settings | {"resume_with_changes": ["rollouts"]}
    for now, error in (
        (settings, "rollouts: null -> DynamicSampling"),
        (admitted, "chose no prompts and kept no hist"),
    ):
        with pytest.raises(ValueError, match=error):
            build(RLVRTrainer, now, numbered, tokenizer, right_by_number).train(
                resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-1"
            )


class Asks:
    """A user's allocator of whole batches that answers what it was given."""

    max_generations, needs_history, needs_new_prompts = 8, False, False

    def __init__(self, first=None, then=None):
        self.first, self.then = first, then

    def first_stage(self, batch):
        return torch.full((len(batch),), 4) if self.first is None else self.first

    def __call__(self, batch):
        return self.then

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


NONE = torch.zeros(4, dtype=torch.long)


@pytest.mark.parametrize(
    ("asks", "message"),
    [
        (Asks(first=torch.tensor([4, 4, 4])), r"one non-negative integer per prompt, shape \(4,\)"),
        (Asks(first=torch.tensor([9, 4, 4, 4])), "asks for 9 completions of one prompt, above its `max_generations`"),
        (Asks(first=NONE), "gives no completion to any of 4 prompts"),
        (Asks(then=Allocation(NONE, new_prompts=2)), "asks for 2 new prompts, but its `needs_new_prompts` is False"),
        (Asks(then=Allocation(NONE + 1, NONE == 0)), "asks for completions of a prompt that it drops"),
        (Asks(then=Allocation(NONE, torch.zeros(3).bool())), "must say of each of 4 prompts whether it is dropped"),
    ],
)
def test_a_users_allocator_of_batches_is_checked(settings, numbered, tokenizer, asks, message):
    plain = {name: value for name, value in settings.items() if name != "rollouts"}
    with pytest.raises(ValueError, match=message):
        trained(RLVRTrainer, plain, numbered, tokenizer, rollouts=asks)


def test_a_first_stage_may_give_some_prompts_nothing(settings, numbered, tokenizer):
    plain = {name: value for name, value in settings.items() if name != "rollouts"} | {"max_steps": 1}
    asks = Asks(first=torch.tensor([0, 1, 8, 5]), then=Allocation(NONE))
    trainer = trained(RLVRTrainer, plain, numbered, tokenizer, rollouts=asks)
    assert sorted(Counter(trainer.logged_completions["prompt"]).values()) == [1, 5, 8]
    assert isinstance(DynamicSampling(base=DARS()).max_generations, int)


def test_where_only_prompts_without_completions_are_left_all_stay(settings, numbered, tokenizer):
    plain = {name: value for name, value in settings.items() if name != "rollouts"} | {"max_steps": 1}
    asks = Asks(first=torch.tensor([4, 4, 0, 0]), then=Allocation(NONE, torch.tensor([True, True, False, False])))
    trainer = trained(RLVRTrainer, plain, numbered, tokenizer, rollouts=asks)
    assert sorted(Counter(trainer.logged_completions["prompt"]).values()) == [4, 4]


class NoState:
    max_generations = 8
    start_batch = state_dict = print

    def __call__(self, stage, num_samples, num_correct, num_judged):
        return torch.zeros_like(num_samples)


@pytest.mark.parametrize(
    ("allocator", "missing"),
    [
        (NoState(), "has no load_state_dict, as a RolloutAllocator must"),
        (lambda *counts: counts[1], "has no max_generations, start_batch, state_dict, load_state_dict"),
    ],
)
def test_an_allocator_that_lacks_a_member_is_refused(settings, numbered, tokenizer, allocator, missing):
    plain = {name: value for name, value in settings.items() if name != "rollouts"}
    with pytest.raises(ValueError, match=missing):
        build(RLVRTrainer, plain, numbered, tokenizer, rollouts=allocator)
    with pytest.raises(ValueError, match=missing):
        DynamicSampling(base=allocator)
    with pytest.raises(ValueError, match=missing):
        check_allocator_per_prompt(allocator, 4)


def test_the_base_of_dynamic_sampling_is_no_name():
    with pytest.raises(ValueError, match="The rollout allocator 'dars' has no max_generations"):
        DynamicSampling(base="dars")


@pytest.mark.parametrize(
    ("start_from", "message"),
    [
        (3, "must be the path of a file, got 3"),
        ("gone.json", "holds no results"),
        ("gone.parquet", "holds no history"),
    ],
)
def test_what_a_history_cannot_start_from(cpu_settings, mazes, tokenizer, start_from, message):
    with pytest.raises(ValueError, match=message):
        build(RLVRTrainer, cpu_settings | {"prompt_history": {"start_from": start_from}}, mazes, tokenizer)


def test_the_estimator_is_asked_for_signals_only_if_they_are_read():
    """Once for a view, and not for an allocator that reads counts alone."""
    asked = []

    def estimator(groups):
        asked.append(groups.num_groups)
        return GroupRelative()(groups)

    rewards = torch.tensor([1.0, 0.0, 1.0, 1.0])
    groups = RolloutGroups(rewards, torch.tensor([0, 0, 2, 2]), lengths=torch.ones(4))
    batch = view_of_batch(RolloutBatch.unsampled(3, 2, 3), groups, estimator)
    assert batch.num_correct.tolist() == [1, 0, 2] and not asked
    part = batch.part(torch.tensor([2, 0]), stage=1)
    assert part.has_signal.tolist() == [False, True]
    assert batch.has_signal.tolist() == [True, False, False] and batch.has_signal is batch.has_signal
    assert asked == [2]
    assert not RolloutBatch.unsampled(3, 2, 3).has_signal.any()
