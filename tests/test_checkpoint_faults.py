"""A run is resumed from whole checkpoints of the same run, or says what is wrong: broken files, changed settings."""

import hashlib
import json
import os
import re
import shutil
import warnings

import pytest
import torch
from datasets import Dataset
from launching import on_processes
from tiny_training import ON_CPU, build, flat_weights, right_moves, short
from train_dars import make_trainer
from transformers import TrainerCallback

from rlvr_trl import RLVRConfig, RLVRTrainer, manifest
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.manifest import find_fault
from rlvr_trl.rewards import NoisyReward
from rlvr_trl.rollouts import DARS
from rlvr_trl.scripts import checkpoint_to_resume
from rlvr_trl.testbed import build_model, build_tokenizer
from rlvr_trl.trainer.checkpoint import is_complete, last_complete_checkpoint
from rlvr_trl.trainer.fingerprint import changes_of_run, describe_value


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 4 steps, 2 a batch, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    trainer = make_trainer(str(folder), max_steps=4)
    trainer.train()
    return folder, flat_weights(trainer.model)


@pytest.fixture
def run(whole, tmp_path):
    """A copy of its checkpoints 1 to 3, to be spoiled."""
    for step in (1, 2, 3):
        shutil.copytree(whole[0] / f"checkpoint-{step}", tmp_path / "run" / f"checkpoint-{step}")
    return tmp_path / "run"


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DELETED = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "rlvr_state_0.pt", "model.safetensors", "manifest.json")
DELETED += ("tokenizer.json", "trainer_state.json")


def spoil(checkpoint, how, name):
    if how == "deleted":
        (checkpoint / name).unlink()
    elif how == "of another step":
        shutil.copy(checkpoint.with_name("checkpoint-1") / name, checkpoint / name)
    elif how == "flipped":
        flip_a_bit(checkpoint / name)
    else:
        path = checkpoint / name
        path.write_bytes(path.read_bytes()[:-1])


FAULTS = [("deleted", name) for name in DELETED]
FAULTS += [("of another step", name) for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "rlvr_state_0.pt")]
FAULTS += [("flipped", name) for name in ("model.safetensors", "optimizer.pt", "trainer_state.json", "manifest.json")]
FAULTS += [("cut", "model.safetensors")]


@pytest.mark.parametrize(("how", "name"), FAULTS)
def test_a_broken_checkpoint_is_named_and_the_one_before_it_taken(whole, run, how, name):
    broken = run / "checkpoint-3"
    spoil(broken, how, name)
    assert not is_complete(broken)
    fault = find_fault(broken)
    assert name in fault
    trainer = make_trainer(str(run), max_steps=4)
    with pytest.raises(ValueError, match=re.escape(f"{broken} is missing or not whole: {fault}")):
        trainer.train(resume_from_checkpoint=str(broken))
    with pytest.warns(UserWarning, match=re.escape(f"{broken} is not whole and is skipped: {fault}")):
        trainer.train(resume_from_checkpoint=True)
    assert torch.equal(flat_weights(trainer.model), whole[1])  # from checkpoint-2, which is whole


def test_any_flipped_bit_of_a_manifest_is_found(run):
    path = run / "checkpoint-3" / "manifest.json"
    content = path.read_bytes()
    for place in range(0, len(content), max(1, len(content) // 200)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        changed = path.read_bytes()
        assert changed.split() == content.split() or "manifest.json" in (find_fault(path.parent, digests=False) or "")
    path.write_bytes(content)
    assert find_fault(path.parent) is None


def test_all_broken_is_an_error_that_names_each(run):
    for step in (1, 2, 3):
        (run / f"checkpoint-{step}" / "optimizer.pt").unlink()
    assert checkpoint_to_resume("auto", str(run)) is True  # and not a new start over what is there
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"no complete checkpoint. What is there: checkpoint-3: optimizer.pt"):
            make_trainer(str(run), max_steps=4).train(resume_from_checkpoint=True)


def test_folders_that_are_no_checkpoints(run):
    for name in (
        "checkpoint-²",
        "checkpoint-٣",
        "checkpoint-4a",
        "checkpoint--5",
        "checkpoint-" + "9" * 5,
        "checkpoint-",
    ):
        (run / name).mkdir()
    (run / "checkpoint-8").write_text("a file")
    with pytest.warns(UserWarning, match="checkpoint-99999 is not whole and is skipped: it has no readable"):
        assert last_complete_checkpoint(run) == str(run / "checkpoint-3")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
@pytest.mark.parametrize("name", ["manifest.json", "trainer_state.json"])
def test_a_pipe_is_no_file_and_is_not_waited_for(run, name):
    (run / "checkpoint-2" / "manifest.json").unlink()
    if name == "trainer_state.json":
        (run / "checkpoint-2" / name).unlink()
    os.mkfifo(run / "checkpoint-2" / name)
    assert name in find_fault(run / "checkpoint-2")


def test_a_copy_under_another_step_is_no_later_checkpoint(run):
    shutil.copytree(run / "checkpoint-1", run / "checkpoint-7")
    assert find_fault(run / "checkpoint-7") == "its trainer_state.json is of step 1"
    shutil.copytree(run / "checkpoint-1", run / "best")
    assert find_fault(run / "best") is None


def test_checkpoints_of_earlier_versions_go_on_and_say_what_is_not_known(whole, run):
    state = torch.load(run / "checkpoint-2" / "rlvr_state_0.pt", weights_only=True)
    for name in ("manifest", "calls_per_batch"):
        del state[name]
    torch.save(state, run / "checkpoint-2" / "rlvr_state_0.pt")
    (run / "checkpoint-2" / "manifest.json").unlink()
    trainer = make_trainer(str(run), max_steps=4)
    with pytest.warns(UserWarning, match="has no manifest.json: it was saved by an earlier version or by stock TRL"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-2"))
    assert torch.equal(flat_weights(trainer.model), whole[1])
    (run / "checkpoint-2" / "optimizer.pt").unlink()  # of these, what is usually there must be
    with pytest.raises(ValueError, match=r"checkpoint-2 has no optimizer states \(optimizer\*\)"):
        make_trainer(str(run), max_steps=4).train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_a_checkpoint_that_does_not_say_what_its_run_was(run):
    path = run / "checkpoint-2" / "manifest.json"
    content = json.loads(path.read_text()) | {"run": {}}  # as asynchronous runs once had it
    del content["digest"]
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="does not say what its run was: .* these settings is not known"):
        make_trainer(str(run), max_steps=3, seed=7).train(resume_from_checkpoint=str(run / "checkpoint-2"))


def test_a_checkpoint_of_the_model_alone_is_no_place_to_go_on(tmp_path):
    make_trainer(str(tmp_path), max_steps=1, save_only_model=True).train()
    assert is_complete(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match="has no random states .*save_only_model"):
        make_trainer(str(tmp_path), max_steps=1).train(resume_from_checkpoint=True)


def test_the_best_checkpoint_is_looked_at_before_it_is_loaded(tmp_path):
    class Spoils(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == 2:
                flip_a_bit(tmp_path / "checkpoint-1" / "model.safetensors")

        def on_evaluate(self, args, state, control, metrics, **kwargs):
            metrics["eval_loss"] = state.global_step  # the first is the best

    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    trainer = plain(tmp_path, evaluated=True, eval_strategy="steps", eval_steps=1, max_steps=2, **best)
    trainer.add_callback(Spoils())
    with pytest.raises(ValueError, match="The best checkpoint, .*checkpoint-1, is not whole: model.safetensors"):
        trainer.train()


@pytest.mark.parametrize(
    "content",
    ["[]", "{}", '{"format": 2}', "[" * 100_000]
    + [
        json.dumps({"format": 1, "run": {}, "files": files})
        for files in (
            {},
            {"../optimizer.pt": {"size": 1, "digest": ""}},
            {"/etc/passwd": {"size": 1, "digest": ""}},
            {"optimizer.pt": {"size": "1", "digest": ""}},
            {"optimizer.pt": 3},
        )
    ],
)
def test_a_manifest_from_anywhere(run, content):
    (run / "checkpoint-3" / "manifest.json").write_text(content)
    assert find_fault(run / "checkpoint-3").startswith("its manifest.json ")


def test_digests_do_not_depend_on_how_files_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "PART", 8)
    monkeypatch.setattr(manifest, "BLOCK", 4)
    contents = {"empty": b"", "one": b"abcdefgh", "more": b"abcdefghi", "inner/file": bytes(1000)}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    names = manifest.files_of(tmp_path)
    assert names == sorted(contents)
    found = manifest.file_digests(tmp_path, {name: len(contents[name]) for name in names})
    for name, content in contents.items():
        parts = [content[i : i + 8] for i in range(0, max(len(content), 1), 8)]
        expected = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts))
        assert found[name] == expected.hexdigest(), name


# --- the same run ---


def longer(completions, **kwargs):
    return [len(completion) / 4 for completion in completions]


def reward_of_yesterday(completions, **kwargs):
    return [float("R" in completion) for completion in completions]


def plain(folder, dataset=None, rewards=right_moves, rollouts=None, evaluated=False, **settings):
    """A trainer on 8 mazes, 2 a batch, 2 updates a batch."""
    defaults = {"per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 4, "max_steps": 6}
    defaults |= {"prompts_per_batch": 2, "learning_rate": 1e-3, "save_strategy": "steps", "save_steps": 1}
    defaults |= {"output_dir": str(folder), "logging_steps": 1, **ON_CPU}
    mazes = make_maze_dataset(8, prompt_style="bare", seed=5) if dataset is None else dataset
    parts = {"rollouts": rollouts, "eval_dataset": mazes.select(range(1)) if evaluated else None}
    return build(RLVRTrainer, defaults | settings, mazes, build_tokenizer(), rewards, **parts)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    trainer = plain(folder)
    trainer.train()
    return folder / "checkpoint-2", flat_weights(trainer.model)


def changed_sets():
    mazes = make_maze_dataset(8, prompt_style="bare", seed=5)
    rows = mazes.to_list()
    other = [dict(row) for row in rows]
    other[3]["maze"] = other[4]["maze"]
    return {
        "order": Dataset.from_list(rows[::-1]),
        "content": Dataset.from_list(other),
        "fewer": mazes.select(range(7)),
        "column": mazes.add_column("answer", ["x"] * 8),
    }


CHANGES = [
    ("advantages", {"advantages": {"name": "pass_at_k", "k": 2}}, r"advantages: GroupRelative -> PassAtK"),
    ("rollouts", {"rollouts": DARS("equal_treatment", 8)}, "rollouts: null -> DARS"),
    ("selection", {"selection": {"name": "skip_solved"}}, "selection: null -> "),
    ("num_generations", {"num_generations": 8}, "num_generations: 4 -> 8"),
    ("prompts_per_batch", {"prompts_per_batch": 4}, "prompts_per_batch: 2 -> 4"),
    ("updates_per_batch", {"prompts_per_update": 1}, "updates_per_batch: 1 -> 2"),
    ("num_iterations", {"num_iterations": 2}, "num_iterations: 1 -> 2"),
    ("seed", {"seed": 1}, "seed: 42 -> 1"),
    ("temperature", {"temperature": 0.5}, "temperature: 1.0 -> 0.5"),
    ("loss_type", {"loss_type": "grpo"}, 'loss_type: "dapo" -> "grpo"'),
    ("epsilon_high", {"epsilon_high": 0.28}, "epsilon_high: null -> 0.28"),
    ("learning_rate", {"learning_rate": 1e-2}, "learning_rate: 0.001 -> 0.01"),
    ("lr_scheduler_type", {"lr_scheduler_type": "constant"}, 'lr_scheduler_type: "linear" -> "constant"'),
    ("warmup_steps", {"warmup_steps": 3}, "warmup_steps: 0 -> 3"),
    ("max_steps", {"max_steps": 12}, "max_steps: 6 -> 12"),
    ("weight_decay", {"weight_decay": 0.1}, "weight_decay: 0.0 -> 0.1"),
    ("reward_funcs", {"rewards": short}, r"reward_funcs\[0\]: right_moves -> short"),
    ("reward_funcs", {"rewards": [right_moves, short]}, r"reward_funcs: \["),
    ("reward_funcs", {"rewards": NoisyReward(right_moves, 0.1)}, r"reward_funcs\[0\]: right_moves -> NoisyReward"),
    ("generation_kwargs", {"generation_kwargs": {"typical_p": 0.9}}, "generation_kwargs: null -> "),
    ("train_dataset", {"dataset": "order"}, "train_dataset.digest: "),
    ("train_dataset", {"dataset": "content"}, "train_dataset.digest: "),
    ("train_dataset", {"dataset": "fewer"}, "train_dataset.rows: 8 -> 7"),
    ("train_dataset", {"dataset": "column"}, "train_dataset.columns: "),
]


@pytest.mark.parametrize(
    ("name", "change", "said"), CHANGES, ids=[f"{name}-{i}" for i, (name, _, _) in enumerate(CHANGES)]
)
def test_a_changed_run_is_refused_by_what_has_changed(saved, tmp_path, name, change, said):
    change = dict(change)
    if "dataset" in change:
        change["dataset"] = changed_sets()[change["dataset"]]
    trainer = plain(tmp_path / "run", **change)
    before = flat_weights(trainer.model).clone()
    with pytest.raises(ValueError, match=said) as error:
        trainer.train(resume_from_checkpoint=str(saved[0]))
    assert f"`resume_with_changes`=['{name}'" in str(error.value)
    assert torch.equal(flat_weights(trainer.model), before)


def test_a_reward_of_the_same_name_with_another_body_is_another(saved, tmp_path):
    def right_moves_of_today(completions, **kwargs):
        return [float("R" in completion) for completion in completions]

    one, other = plain(tmp_path, rewards=reward_of_yesterday), plain(tmp_path, rewards=right_moves_of_today)
    right_moves_of_today.__qualname__ = reward_of_yesterday.__qualname__
    changes = changes_of_run(one._describe_run(), other._describe_run(), RLVRConfig)
    assert [*changes] == ["reward_funcs"] and changes["reward_funcs"][0].startswith("reward_funcs[0].source: ")


NEUTRAL = [
    {
        "logging_steps": 2,
        "save_steps": 2,
        "per_device_train_batch_size": 8,
        "run_name": "other",
        "save_total_limit": 9,
    },
    {
        "max_rows_per_generation": 8,
        "dataloader_num_workers": 0,
        "eval_strategy": "no",
        "per_device_eval_batch_size": 4,
    },
]


@pytest.mark.parametrize("change", NEUTRAL)
def test_what_does_not_decide_the_run_may_change(saved, tmp_path, change):
    trainer = plain(tmp_path / "run", **change)
    trainer.train(resume_from_checkpoint=str(saved[0]))
    torch.testing.assert_close(flat_weights(trainer.model), saved[1], rtol=0, atol=1e-6)


def rates(trainer):
    return {entry["step"]: entry["learning_rate"] for entry in trainer.state.log_history if "learning_rate" in entry}


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 1e-2}, {"lr_scheduler_type": "constant"}, {"max_steps": 12}, {"warmup_steps": 4}]
    + [{"learning_rate": 1e-2, "max_steps": 12, "lr_scheduler_type": "cosine"}],
)
def test_an_admitted_schedule_acts_from_the_next_step_on(saved, tmp_path, changes, capsys):
    anew = plain(tmp_path / "anew", **changes)
    anew.train()
    resumed = plain(tmp_path / "run", resume_with_changes=[*changes], **changes)
    resumed.train(resume_from_checkpoint=str(saved[0]))
    assert "with changes. Saved -> now:" in capsys.readouterr().out
    expected = rates(anew)
    assert {step: rate for step, rate in rates(resumed).items() if step > 2} == pytest.approx(
        {step: rate for step, rate in expected.items() if step > 2}
    )
    again = plain(tmp_path / "again", **changes)  # what it saves is a run of the new settings
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-4"))
    assert torch.equal(flat_weights(again.model), flat_weights(resumed.model))


def test_other_batches_of_the_same_epochs_change_the_schedule_from_the_next_step_on(tmp_path):
    epochs = {"max_steps": -1, "num_train_epochs": 3}
    first = plain(tmp_path / "run", prompts_per_batch=2, **epochs)
    first.train()
    changes = {"prompts_per_batch": 4}
    resumed = plain(tmp_path / "other", resume_with_changes=["prompts_per_batch"], **epochs | changes)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    steps = resumed.state.max_steps
    assert steps != first.state.max_steps and resumed.state.global_step > 3
    own = {step: rate for step, rate in rates(resumed).items() if step > 2}
    assert own == pytest.approx({step: rates(first)[1] * (1 - (step - 1) / steps) for step in own})


def test_admitted_settings_of_the_optimizer_act(saved, tmp_path):
    changes = {"weight_decay": 0.5, "adam_beta1": 0.5, "adam_epsilon": 1e-3}
    resumed = plain(tmp_path, resume_with_changes=[*changes], **changes)
    resumed.train(resume_from_checkpoint=str(saved[0]))
    groups = resumed.optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.5, 0.0}
    assert {(group["betas"], group["eps"]) for group in groups} == {((0.5, 0.999), 1e-3)}
    other = plain(tmp_path, optim="sgd", resume_with_changes=["optim"])
    with pytest.raises(ValueError, match="optim cannot be changed in a run that is resumed"):
        other.train(resume_from_checkpoint=str(saved[0]))


def test_another_batch_size_is_admitted_at_the_end_of_a_batch_only(tmp_path):
    first = plain(tmp_path / "run", prompts_per_update=1, max_steps=3)
    first.train()
    changes = {"prompts_per_batch": 4, "prompts_per_update": None}
    names = ["prompts_per_batch", "updates_per_batch"]
    other = plain(tmp_path / "other", max_steps=3, resume_with_changes=names, **changes)
    with pytest.raises(ValueError, match="in the middle of a batch, .*prompts_per_batch, updates_per_batch"):
        other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-1"))
    other = plain(tmp_path / "other", max_steps=3, resume_with_changes=names, **changes)
    other.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert other.state.global_step == 3 and len(other.logged_completions["prompt"]) == 16


def test_what_may_be_admitted_is_checked(tmp_path):
    for name in ("learning_rat", "logging_steps", "output_dir"):
        with pytest.raises(ValueError, match=f"`resume_with_changes` names '{name}', which is not compared"):
            plain(tmp_path, resume_with_changes=[name])


def test_values_that_no_json_holds_and_circles(tmp_path):
    class Reward:
        def __init__(self):
            self.inner, self.limit, self.names, self.lock = self, float("nan"), {"b", "a"}, object()

        def __call__(self, completions, **kwargs):
            return [0.0] * len(completions)

    described = describe_value(Reward())
    assert json.loads(json.dumps(described)) == described == describe_value(Reward())
    assert described["limit"] == "nan" and described["names"] == ["a", "b"]


# --- two processes ---


def test_two_processes_agree_which_checkpoint_is_whole(tmp_path):
    folder = tmp_path / "run"
    done = on_processes("train_dars.py", str(folder), processes=2)
    assert [each.returncode for each in done] == [0, 0]
    expected = torch.load(folder / "final.pt", weights_only=True)["weights"]
    names = json.loads((folder / "checkpoint-9" / "manifest.json").read_text())["files"].keys()
    assert {"rlvr_state_0.pt", "rlvr_state_1.pt", "rng_state_0.pth", "rng_state_1.pth"} <= names
    shutil.rmtree(folder / "checkpoint-10")
    (folder / "checkpoint-9" / "rng_state_1.pth").unlink()
    flip_a_bit(folder / "checkpoint-8" / "rlvr_state_1.pt")
    os.rename(folder / "checkpoint-7", folder / "kept")
    done = on_processes("train_dars.py", str(folder), "--resume", "last", processes=2)
    assert [each.returncode for each in done] == [0, 0], done[0].stderr[-3000:]
    for each in done:
        assert "checkpoint-9 is not whole and is skipped: rng_state_1.pth is missing" in each.stderr
        assert "checkpoint-8 is not whole and is skipped: rlvr_state_1.pt does not have the content" in each.stderr
    again = torch.load(folder / "final.pt", weights_only=True)["weights"]
    assert all(torch.equal(again[name], weight) for name, weight in expected.items())


def test_a_reference_that_follows_is_kept(tmp_path):
    build_model(build_tokenizer(), seed=0).save_pretrained(tmp_path / "base")

    def made(folder):
        settings = {"per_device_train_batch_size": 4, "num_generations": 4, "prompts_per_batch": 2, "max_steps": 6}
        settings |= {"output_dir": str(tmp_path / folder), "learning_rate": 1e-3, "save_steps": 1, "beta": 0.1}
        settings |= {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.7}
        settings |= ON_CPU | {"max_completion_length": 4}
        mazes = make_maze_dataset(8, prompt_style="bare", seed=5)
        return build(RLVRTrainer, settings, mazes, build_tokenizer(), short, str(tmp_path / "base"))

    whole, resumed = made("whole"), made("resumed")
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole/checkpoint-4"))
    assert torch.equal(flat_weights(whole.model), flat_weights(resumed.model))
    assert torch.equal(flat_weights(whole.ref_model), flat_weights(resumed.ref_model))


def test_the_best_checkpoint_of_a_run_that_was_moved(tmp_path):
    class FirstIsBest(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics, **kwargs):
            metrics["eval_loss"] = state.global_step

    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "greater_is_better": False}
    best |= {"eval_strategy": "steps", "eval_steps": 1, "evaluated": True}

    def made(folder, **settings):
        trainer = plain(tmp_path / folder, **best, **settings)
        trainer.add_callback(FirstIsBest())
        return trainer

    made("old", max_steps=2).train()
    os.rename(tmp_path / "old", tmp_path / "new")
    trainer = made("new", max_steps=4, save_total_limit=2, resume_with_changes=["max_steps"])
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "new/checkpoint-1")
    assert (tmp_path / "new/checkpoint-1").is_dir()
