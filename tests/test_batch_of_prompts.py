"""A batch and its updates are stated in prompts, and are the same on any number of processes."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset, IterableDataset
from launching import launch
from scripts.updates_of_recipes import CASES, train_cases
from tiny_training import build, flat_weights, planned_batch, planned_steps, right_moves, trained

from rlvr_trl import DARSConfig, DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.testbed import build_model, build_tokenizer
from rlvr_trl.trainer.passes import split_updates, update_of_prompts
from rlvr_trl.trainer.stages import Stage, WithFiller, local_rows, stream_with_filler
from rlvr_trl.trainer.validation import describe_batch


TOLERANCE = 1e-5  # of the norm of the whole gradient
# metrics of how the work is done: times, tokens with filler, and padding of the passes
ON_EACH_PROCESS = {"step_time", "num_tokens", "micro_batch/padding_share"}
ON_EACH_PROCESS |= {"rollouts/seconds_stage_1", "rollouts/seconds_stage_2"}


# --- recipes of each kind, on one process and on several ---


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model"))
    build_model(build_tokenizer(), seed=0).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory, model):
    return train_cases(str(tmp_path_factory.mktemp("one")), model, 1)


@pytest.fixture(scope="module", params=[2, 3])
def several(request, tmp_path_factory, model):
    folder = tmp_path_factory.mktemp(f"on_{request.param}")
    launch("updates_of_recipes.py", str(folder), model, str(request.param), processes=request.param)
    return torch.load(folder / f"{request.param}.pt", weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: f"{CASES[case][0]}-{case}")
def test_every_update_has_the_gradient_that_it_has_on_one_process(one, several, case):
    expected, found = one[case], several[case]
    assert expected["gradients"].norm(dim=1).median() > 1e-4  # an update of a single prompt may have none
    for ours, theirs in zip(found["gradients"].double(), expected["gradients"].double(), strict=True):
        assert (ours - theirs).norm() <= TOLERANCE * theirs.norm()
    assert found["logged"] == expected["logged"]
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - ON_EACH_PROCESS:
            if ours[name] is not None or theirs[name] is not None:  # a bucket without a prompt
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


# --- the split, against brute force ---


@pytest.mark.parametrize("seed", range(40))
def test_every_completion_is_in_one_update_with_all_of_its_prompt(seed):
    draw = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=draw))

    num_prompts, processes, first = number(1, 12), number(1, 9), number(1, 5)
    num_updates = number(1, num_prompts)
    extra = torch.arange(num_prompts).repeat_interleave(torch.randint(0, 4, (num_prompts,), generator=draw))
    prompts = torch.cat([torch.arange(num_prompts).repeat_interleave(first), extra])  # (T,), of both stages
    updates = [[] for _ in range(num_updates)]
    for process in range(processes):
        rows = local_rows([stage_of(prompts, first * num_prompts, processes, process) for prompts in (prompts[: first * num_prompts], extra)])
        rows = rows[torch.randperm(len(rows), generator=draw)]
        assert len(rows) > 0  # each process has something to compute
        update = update_of_prompts(torch.where(rows < 0, -1, prompts[rows]), num_updates)
        split = split_updates({"prompt_ids": rows, "update": update}, num_updates)
        for mine, own in zip(updates, split, strict=True):
            mine += rows[own].tolist()
    assert sorted(row for update in updates for row in update) == list(range(len(prompts)))
    held = [set(prompts[update].tolist()) for update in updates]
    assert sum(map(len, held)) == num_prompts  # none in two
    assert max(map(len, held)) - min(map(len, held)) <= 1
