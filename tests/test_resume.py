"""Exact resume: a run that is stopped or killed anywhere and resumed ends with the weights of one that was not."""

import json
import shutil

import pytest
import torch
from launching import launch, run_script
from train_dars import make_trainer

from rlvr_trl.trainer.checkpoint import is_complete, last_complete_checkpoint


pytestmark = pytest.mark.slow


def weights_of(trainer):
    return {name: weight.clone() for name, weight in trainer.model.state_dict().items()}


def assert_equal(weights, expected):
    assert weights.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(weights[name], weight), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 10 steps, with a checkpoint after each."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    trainer = make_trainer(str(folder))
    trainer.train()
    return folder, weights_of(trainer), trainer.state.log_history


@pytest.mark.parametrize("step", range(1, 11))
def test_resume_at_any_step_gives_the_same_weights(whole, tmp_path, step):
    # odd steps are in the middle of a batch, an epoch has 4, and after step 10 nothing is left to do
    folder, expected, history = whole
    resumed = make_trainer(str(tmp_path / "resumed"))
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{step}"))
    assert resumed.state.global_step == 10
    assert_equal(weights_of(resumed), expected)
    sampled = {entry["step"]: entry["rollouts/extra"] for entry in history if "rollouts/extra" in entry}
    again = {e["step"]: e["rollouts/extra"] for e in resumed.state.log_history if "rollouts/extra" in e}
    assert sampled == again and len(set(sampled.values())) > 1


def test_the_cap_of_dars_is_annealed_and_saved(whole):
    folder, _, _ = whole
    progress = [
        torch.load(folder / f"checkpoint-{step}" / "rlvr_state_0.pt", weights_only=True)["rollouts"]["progress"]
        for step in (2, 10)
    ]
    assert progress == [0.0, 0.8]  # of the batches sampled before steps 1 and 9


@pytest.mark.parametrize(("step", "moment"), [(5, "optimizer"), (6, "trainer_state")])
def test_killed_while_saving(whole, tmp_path, step, moment):
    _, expected, _ = whole
    folder = tmp_path / "killed"
    killed = run_script("train_dars.py", str(folder), "--kill-step", str(step), "--kill-before", moment)
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert (folder / "_incomplete" / f"checkpoint-{step}" / "model.safetensors").exists()
    checkpoints = list(folder.glob("checkpoint-*"))
    assert len(checkpoints) == step - 1 and all(map(is_complete, checkpoints))
    resumed = run_script("train_dars.py", str(folder), "--resume", "last")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert not (folder / "_incomplete").exists()
    assert_equal(torch.load(folder / "final.pt", weights_only=True)["weights"], expected)


def test_killed_between_checkpoints(whole, tmp_path):
    _, expected, _ = whole
    folder = tmp_path / "killed"
    killed = run_script("train_dars.py", str(folder), "--kill-step", "3", "--kill-before", "checkpoint")
    assert killed.returncode == -9, killed.stderr[-2000:]
    assert sorted(path.name for path in folder.glob("*checkpoint*")) == ["checkpoint-1", "checkpoint-2"]
    assert run_script("train_dars.py", str(folder), "--resume", "last").returncode == 0
    assert_equal(torch.load(folder / "final.pt", weights_only=True)["weights"], expected)


def test_two_processes_resume_exactly(tmp_path):
    folder = tmp_path / "run"
    launch("train_dars.py", str(folder), processes=2)
    expected = torch.load(folder / "final.pt", weights_only=True)["weights"]
    for step in (3, 6):  # in the middle of a batch; in the second epoch
        other = tmp_path / f"from-{step}"
        launch("train_dars.py", str(other), "--resume", str(folder / f"checkpoint-{step}"), processes=2)
        assert_equal(torch.load(other / "final.pt", weights_only=True)["weights"], expected)
    with pytest.raises(ValueError, match=r"saved by 2 process\(es\) in the middle of a batch, and there are now 1"):
        make_trainer(str(tmp_path / "alone"), per_device_train_batch_size=4).train(str(folder / "checkpoint-3"))
    alone = make_trainer(str(tmp_path / "alone"), per_device_train_batch_size=4)
    alone.train(str(folder / "checkpoint-6"))  # at the end of a batch any number of processes will do
    assert alone.state.global_step == 10


def test_incomplete_checkpoints_are_refused_by_name(whole, tmp_path):
    folder, _, _ = whole
    run = tmp_path / "run"
    trainer = make_trainer(str(run))
    with pytest.raises(ValueError, match="holds no complete checkpoint"):
        trainer.train(resume_from_checkpoint=True)
    shutil.copytree(folder / "checkpoint-2", run / "checkpoint-2")
    shutil.copytree(folder / "checkpoint-4", run / "checkpoint-4")
    (run / "checkpoint-4" / "trainer_state.json").write_text('{"epo')
    with pytest.raises(ValueError, match="checkpoint-4 is missing or not whole: trainer_state.json has 5 bytes"):
        trainer.train(resume_from_checkpoint=str(run / "checkpoint-4"))
    with pytest.warns(UserWarning, match="checkpoint-4 is not whole and is skipped"):
        assert last_complete_checkpoint(run) == str(run / "checkpoint-2")


@pytest.fixture(scope="module")
def refilled(tmp_path_factory):
    """What happened in an uninterrupted run with refilled batches, and what it ended with."""
    folder = tmp_path_factory.mktemp("refilled")
    assert run_script("train_refilled.py", str(folder)).returncode == 0
    events = [tuple(event) for event in json.loads((folder / "events.json").read_text(encoding="utf-8"))]
    return events, torch.load(folder / "final.pt", weights_only=True)


# of the second batch: in each of its rounds, between and after them, and in both of its optimizer steps
POINTS = [
    *((2, name, 0) for name in ("selection", "reward", "advantages")),
    *((2, name, 1) for name in ("selection", "reward")),
    *((2, name, 0) for name in ("gradient", "checkpoint", "most of the checkpoint written")),
    *((3, name, 0) for name in ("backward", "optimizer")),
]


@pytest.mark.parametrize(("step", "name", "count"), POINTS)
def test_killed_anywhere_in_a_refilled_batch(refilled, tmp_path, step, name, count):
    events, whole = refilled
    assert [event[1] for event in events if event[0] == 2].count("selection") >= 2  # it is refilled
    at = [i for i, event in enumerate(events) if event == (step, name)][count]
    killed = run_script("train_refilled.py", str(tmp_path), "--kill-at", str(at))
    assert killed.returncode == -9, killed.stderr[-2000:]
    resumed = run_script("train_refilled.py", str(tmp_path), "--resume")
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    final = torch.load(tmp_path / "final.pt", weights_only=True)
    assert_equal(final["weights"], whole["weights"])
    assert_equal(final["history"], whole["history"])
