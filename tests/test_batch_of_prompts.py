"""A batch and its updates are stated in prompts, and are the same on any number of processes."""

import functools
import itertools
import random
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from launching import launch
from scripts.updates_of_recipes import CASES, CASES_ON, EVERY, EVERY_RECIPE, train_cases, train_every_recipe
from tiny_training import build, flat_weights, planned_batch, planned_steps, right_moves, trained

from rlvr_trl import DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.rewards import LengthReward
from rlvr_trl.testbed import build_model, build_tokenizer
from rlvr_trl.trainer.metrics import Captured
from rlvr_trl.trainer.passes import split_updates, update_of_prompts
from rlvr_trl.trainer.rollout import GenerationRecord
from rlvr_trl.trainer.stages import Stage, WithFiller, local_rows, stream_with_filler, without_filler
from rlvr_trl.trainer.validation import describe_batch


TOLERANCE = 1e-5  # of the norm of the whole gradient
# metrics of how the work is done: times, tokens with filler, and padding of the passes
ON_EACH_PROCESS = {"step_time", "num_tokens", "micro_batch/padding_share"}
ON_EACH_PROCESS |= {f"rollouts/seconds_stage_{number}" for number in range(1, 12)}


# --- recipes of each kind, on one process and on several ---


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model"))
    build_model(build_tokenizer(), seed=0).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def one(tmp_path_factory, model):
    return train_cases(str(tmp_path_factory.mktemp("one")), model, 1)


@pytest.fixture(scope="module")
def several(tmp_path_factory, model):
    """The updates on some number of processes, which are started once."""

    @functools.cache
    def train_on(processes: int) -> dict[int, dict]:
        folder = tmp_path_factory.mktemp(f"on_{processes}")
        launch("updates_of_recipes.py", str(folder), model, str(processes), "cases", processes=processes)
        return torch.load(folder / f"{processes}.pt", weights_only=False)

    return train_on


@pytest.mark.slow
@pytest.mark.parametrize(
    ("processes", "case"),
    [
        pytest.param(processes, case, id=f"{processes}-{CASES[case][0]}-{case}")
        for processes in (2, 3)
        for case in CASES_ON.get(processes, EVERY)
    ],
)
def test_every_update_has_the_gradient_that_it_has_on_one_process(one, several, processes, case):
    expected, found = one[case], several(processes)[case]
    assert expected["gradients"].norm(dim=1).median() > 1e-4  # an update of a single prompt may have none
    for ours, theirs in zip(found["gradients"].double(), expected["gradients"].double(), strict=True):
        assert (ours - theirs).norm() <= TOLERANCE * theirs.norm()
    assert found["logged"] == expected["logged"]
    for ours, theirs in zip(found["history"], expected["history"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours.keys() - ON_EACH_PROCESS:
            if ours[name] is not None or theirs[name] is not None:  # a bucket without a prompt
                assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


@pytest.fixture(scope="module")
def every_recipe(tmp_path_factory, model):
    """The weights of all recipes, on one process and on two."""
    folder = tmp_path_factory.mktemp("every")
    launch("updates_of_recipes.py", str(folder), model, "2", "every", processes=2, timeout=600)
    return train_every_recipe(str(folder), model, 1), torch.load(folder / "2.pt", weights_only=False)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", EVERY_RECIPE)
def test_every_recipe_has_the_same_weights_on_two_processes(every_recipe, recipe):
    """After two small batches, with its own estimator, allocator, loss and group size."""
    (one, two), start = every_recipe, every_recipe[0]["start"]
    assert (one[recipe] - start).norm() > 1e-4  # it has trained
    assert (one[recipe] - two[recipe]).norm() <= TOLERANCE * (one[recipe] - start).norm()


# --- the split, against brute force ---


def stage_of(prompts: torch.Tensor, processes: int, process: int) -> Stage:
    """What a process has of a stage that sampled `prompts`, spread evenly, with filler at the end."""
    own = -(-len(prompts) // processes)
    every = own * processes
    batch = {name: torch.ones(own, 2) for name in ("prompt_ids", "completion_mask")}
    record = GenerationRecord(batch, torch.zeros(every, 1), torch.ones(every), torch.zeros(every))
    return without_filler(record, prompts, Captured(), 0.0, process)


@pytest.mark.parametrize("seed", range(40))
def test_every_completion_is_in_one_update_with_all_of_its_prompt(seed):
    draw = random.Random(seed)
    num_prompts, processes, first = draw.randint(1, 12), draw.randint(1, 9), draw.randint(1, 5)
    num_updates = draw.randint(1, num_prompts)
    numbers = range(num_prompts)
    extra = [prompt for prompt in numbers for _ in range(draw.choice((0, 0, 1, 5)))]
    sampled = [torch.arange(num_prompts).repeat_interleave(first), torch.tensor(extra, dtype=torch.long)]
    prompts = torch.cat(sampled)  # (T,)
    updates = [[] for _ in range(num_updates)]
    for process in range(processes):
        rows = local_rows([stage_of(stage, processes, process) for stage in sampled if len(stage)])
        assert len(rows) > 0  # every process has something to compute
        rows = rows[torch.tensor(draw.sample(range(len(rows)), len(rows)))]
        update = update_of_prompts(torch.where(rows < 0, -1, prompts[rows]), num_updates)
        split = split_updates({"prompt_ids": rows, "update": update}, num_updates)
        for everywhere, own in zip(updates, split, strict=True):
            everywhere += rows[own].tolist()
    assert sorted(row for update in updates for row in update) == list(range(len(prompts)))
    held = [set(prompts[update].tolist()) for update in updates]
    assert sum(map(len, held)) == num_prompts  # no prompt is in two
    assert max(map(len, held)) - min(map(len, held)) <= 1


# --- what a batch is made of ---


def on(processes: int, monkeypatch) -> None:
    """Lets configurations believe that there are so many processes."""
    monkeypatch.setattr(RLVRConfig, "world_size", property(lambda self: processes))


@pytest.mark.parametrize("processes", [1, 2, 3, 7, 8, 64])
@pytest.mark.parametrize(("prompts", "generations"), [(128, 8), (3, 4), (1, 2), (6, 5)])
def test_every_process_samples_equally_many_completions_of_whole_groups(
    cpu_settings, monkeypatch, processes, prompts, generations
):
    on(processes, monkeypatch)
    args = RLVRConfig(**cpu_settings | {"prompts_per_batch": prompts, "num_generations": generations})
    fits = (more for more in itertools.count(prompts) if more * generations % processes == 0)
    assert args.generation_batch_size == next(fits) * generations


def test_a_reward_of_whole_groups_refuses_parts_of_them(cpu_settings, mazes, tokenizer, monkeypatch):
    on(8, monkeypatch)
    settings = cpu_settings | {"prompts_per_batch": 2}
    with pytest.raises(ValueError, match="'right_moves_length' .* each process has 1 completions"):
        build(RLVRTrainer, settings, mazes, tokenizer, rewards=LengthReward(right_moves))


def test_the_split_is_described(cpu_settings, mazes, monkeypatch):
    settings = cpu_settings | {"prompts_per_batch": 10, "prompts_per_update": 4, "num_iterations": 2}
    assert describe_batch(RLVRConfig(**settings), mazes).splitlines() == [
        "Batch: 10 prompts x 4 generations = 40 completions on 1 process, 40 each, at most 8 in one forward pass.",
        "Optimizer steps: 6 per batch: 1 update of 4 prompts and 2 of 3, num_iterations=2.",
        "Epoch: 2 batches, which leave out 4 of 24 prompts, others each time.",
    ]
    in_order = describe_batch(RLVRConfig(**settings | {"shuffle_dataset": False}), mazes).splitlines()
    assert in_order[-1] == "Epoch: 2 batches, which leave out 4 of 24 prompts, always the last."
    on(7, monkeypatch)
    page = (Path(__file__).parents[1] / "docs/batches.md").read_text(encoding="utf-8")
    spread = describe_batch(RLVRConfig(**settings), mazes)
    assert f"```text\n{spread}\n```" in page and "on 7 processes, 8 each (16 in all are filler" in spread


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"gradient_accumulation_steps": 3}, "1 per batch: 1 update of 24 completions, as many as 6 prompts have"),
        ({"steps_per_generation": 4}, "4 per batch: 4 updates of 8 completions, as many as 2 prompts have"),
        ({"steps_per_generation": 1, "gradient_accumulation_steps": 3}, "1 for every 3 batches, 6 prompts"),
        ({"generation_batch_size": 24, "num_generations": 6}, "3 per batch: 3 updates of 8 completions, as many as "),
    ],
)
def test_what_trls_settings_amount_to_is_described(cpu_settings, settings, steps):
    lines = describe_batch(RLVRConfig(**cpu_settings | settings | {"trim_padding": True})).splitlines()
    assert lines[1].startswith(f"Optimizer steps: {steps}")
    assert lines[2].startswith("With another number of processes these are other numbers")


# --- filler in the data ---


def test_every_batch_of_the_sampler_ends_with_filler():
    sampler = WithFiller([0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3], 4, 2)
    assert list(sampler) == [0, 0, 1, 1, 0, 0, 0, 0, 1, 1, 0, 0, 2, 2, 3, 3, 2, 2]
    assert len(sampler) == 18


def test_a_stream_has_the_same_filler():
    prompts = Dataset.from_dict({"prompt": list("abcde"), "number": list(range(5))}).to_iterable_dataset()
    filled = list(stream_with_filler(prompts, 2, 1))
    assert [row["prompt"] for row in filled] == list("abacdc")
    assert [row["number"] for row in filled] == [0, 1, 0, 2, 3, 2]


@pytest.mark.parametrize("processes", [2, 3, 4, 7, 8, 64])
def test_no_process_has_both_a_prompt_and_its_filler(cpu_settings, monkeypatch, processes):
    on(processes, monkeypatch)
    for prompts, generations in itertools.product((1, 2, 3, 5, 9, 65), (2, 3, 8)):
        args = RLVRConfig(**cpu_settings | {"prompts_per_batch": prompts, "num_generations": generations})
        real = prompts * generations
        sampled = list(WithFiller(list(range(real)), real, args.generation_batch_size - real))
        own = len(sampled) // processes
        for start in range(0, len(sampled), own):
            groups = [row // generations for row in sampled[start : start + own]]
            assert not {*groups[: max(real - start, 0)]} & {*groups[max(real - start, 0) :]}


# --- on one process ---


def test_updates_hold_the_prompts_of_the_batch_in_turn(cpu_settings, mazes, tokenizer):
    settings = cpu_settings | {"prompts_per_batch": 5, "prompts_per_update": 2, "max_generations": 9, "max_steps": 3}
    trainer = trained(DARSTrainer, settings | {"per_device_train_batch_size": 3}, mazes, tokenizer)
    batch = planned_batch(trainer)
    names = list(dict.fromkeys(trainer.logged_completions["prompt"]))
    texts = tokenizer.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
    assert len(names) == 5 and len(texts) > 20
    for update, step in enumerate(planned_steps(trainer)):
        rows = [row for part in step.passes for row in part.rows[: part.num_real].tolist()]
        assert sorted(rows) == [row for row, text in enumerate(texts) if names.index(text) % 3 == update]
    assert trainer.state.global_step == 3 == len(planned_steps(trainer))


@pytest.mark.parametrize("step", [1, 2, 4])
def test_a_run_resumes_in_the_middle_of_the_updates_of_a_batch(cpu_settings, mazes, tokenizer, step):
    settings = cpu_settings | {"prompts_per_batch": 5, "prompts_per_update": 2, "max_generations": 9, "max_steps": 5}
    settings |= {"num_iterations": 2, "save_strategy": "steps", "save_steps": 1}
    whole = trained(DARSTrainer, settings, mazes, tokenizer)
    resumed = build(DARSTrainer, settings, mazes, tokenizer)
    resumed.train(resume_from_checkpoint=f"{settings['output_dir']}/checkpoint-{step}")
    assert torch.equal(flat_weights(resumed.model), flat_weights(whole.model))
