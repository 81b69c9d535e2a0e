"""Pushes to a stand-in for the Hub, each from a run in a process of its own: HF_ENDPOINT is read on import."""

import json
import shlex
import subprocess
import sys
import types
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hub_stand_in import running_hub
from huggingface_hub import ModelCard
from launching import SCRIPTS, environment
from peft import PeftModel
from tiny_training import ON_CPU
from transformers import AutoModelForCausalLM

from rlvr_trl import RLVRConfig
from rlvr_trl.hub.published import names_of_model
from rlvr_trl.hub.push import PushesToHub
from rlvr_trl.trainer.checkpoint import is_complete
from rlvr_trl.trl_compat import HubStrategy


pytestmark = pytest.mark.slow


TOKEN = "hf_notarealtokenbutlookslikeone"  # as in the script
MODEL = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
MODEL |= {"tokenizer_config.json"}


class Pushed:
    """A finished run: what it told, what it left behind, and what is on the Hub."""

    def __init__(self, folder: Path, *arguments: str, output: str = "run", **failures):
        self.local, self.remote = folder / output, folder / "hub" / "tester" / "run"
        with running_hub(folder / "hub", **failures) as self.hub:
            settings = {"HF_ENDPOINT": self.hub.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
            settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(folder / "home")}
            command = [sys.executable, str(SCRIPTS / "train_and_push.py"), str(self.local), *arguments]
            run = subprocess.run(
                command, env=environment() | settings, capture_output=True, text=True, timeout=180, check=False
            )
        assert run.returncode == 0, run.stderr[-4000:]
        told = next(line for line in run.stdout.splitlines() if line.startswith("TOLD"))
        self.told = json.loads(told.removeprefix("TOLD"))
        assert self.told["step"] == 3  # whatever happens to the pushes

    def files(self, folder: str = ".") -> set[str]:
        return {path.name for path in (self.remote / folder).iterdir() if path.is_file()}

    def assert_same(self, remote: str, local: str) -> None:
        for path in (self.remote / remote).iterdir():
            if path.is_file():
                assert path.read_bytes() == (self.local / local / path.name).read_bytes(), path


def test_push_at_the_end(tmp_path):
    run = Pushed(tmp_path, "--push-at-end", "--settings", '{"save_strategy": "no"}')
    assert run.told["warnings"] == []
    assert [summary for summary, _ in run.hub.commits] == ["End of training"]
    assert run.files() == MODEL
    run.assert_same(".", ".")
    assert run.hub.tokens == {f"Bearer {TOKEN}"}
    published = [path for path in run.remote.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in path.read_bytes() for path in published)  # stock transformers publishes it
    AutoModelForCausalLM.from_pretrained(run.remote)


def test_nothing_of_this_machine_is_published(tmp_path):
    private = tmp_path / "somebody"  # in the path of the base model and in that of the run
    settings = {"log_completions": True, "eval_strategy": "steps", "eval_steps": 1, "load_best_model_at_end": True}
    settings |= {"metric_for_best_model": "loss", "greater_is_better": False, "run_name": "somebody's run"}
    settings |= {"hub_files": ["training_args.bin"]}
    arguments = ["--strategy", "all_checkpoints", "--lora", "--push-at-end", "--settings", json.dumps(settings)]
    run = Pushed(tmp_path, *arguments, "--base", str(private / "base"), output="somebody/run")
    assert run.told["warnings"] == []
    published = {path.relative_to(run.remote).as_posix(): path for path in run.remote.rglob("*") if path.is_file()}
    for name, path in published.items():
        content = path.read_bytes()
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                content = b"".join(archive.read(part) for part in archive.namelist())
        assert b"somebody" not in content and str(tmp_path).encode() not in content, name
    adapter = {"README.md", "adapter_config.json", "adapter_model.safetensors", "training_args.bin"}  # asked for
    assert {name for name in published if "/" not in name} == {*adapter, "tokenizer.json", "tokenizer_config.json"}
    assert not any(name.startswith("completions/") for name in published)
    assert any((run.local / "completions").iterdir())  # on the disk they are
    assert "checkpoint-3/README.md" not in published  # PEFT's, with the path of the base model
    assert is_complete(run.remote / "checkpoint-3") and is_complete(run.local / "checkpoint-3")
    state = json.loads(published["checkpoint-3/trainer_state.json"].read_text())
    assert state["best_model_checkpoint"].startswith("checkpoint-")
    assert json.loads(published["adapter_config.json"].read_text())["base_model_name_or_path"] is None
    kept = json.loads((run.local / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert kept == str(private / "base")  # needed to load the adapter here
    arguments = torch.load(published["training_args.bin"], weights_only=False)
    assert arguments.learning_rate == 1e-2 and arguments.output_dir is None and arguments.run_name is None

    card = ModelCard.load(published["README.md"])
    assert card.data.library_name == "peft" and card.data.pipeline_tag == "text-generation"
    assert card.data.base_model is None and card.data["base_model_relation"] == "adapter"
    assert {"lora", "pass-at-k", "rlvr-trl", "transformers"} <= set(card.data.tags)
    assert 'PeftModel.from_pretrained(base, "tester/run")' in card.text and "- PEFT: " in card.text
    base = AutoModelForCausalLM.from_pretrained(private / "base")
    PeftModel.from_pretrained(base, run.remote)


STRAY = ("notes.txt", "optimizer.pt", "rlvr_state_0.pt", "data.jsonl", "old/adapter_config.json", "adapter_model.bin")
STRAY += ("pytorch_model.bin", "model-00001-of-00003.safetensors")  # of another model


@pytest.mark.parametrize("asked", [None, ["training_args.bin", "completions/*.parquet", "old/*"]])
def test_a_push_publishes_model_tokenizer_card_and_what_is_asked_for(tmp_path, asked):
    for name in STRAY:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).write_text("mine")
    settings = {"log_completions": True} | ({} if asked is None else {"hub_files": asked})
    arguments = ["--strategy", "every_save", "--push-at-end", "--dry-run", "--settings", json.dumps(settings)]
    run = Pushed(tmp_path, *arguments)
    published = {path.relative_to(run.remote).as_posix() for path in run.remote.rglob("*") if path.is_file()}
    extra = {"training_args.bin", "old/adapter_config.json"}
    extra |= {f"completions/{path.name}" for path in (run.local / "completions").iterdir()}
    assert published == MODEL | (set() if asked is None else extra)
    assert {path for _, paths in run.hub.commits for path in paths} == published
    assert [summary for summary, _ in run.hub.commits][-1] == "End of training"
    assert run.told["listed"] == sorted(published)
    assert all(f"  {name} (" in run.told["printed"] for name in published)


def test_of_a_model_in_parts_those_of_its_index_are_published(tmp_path):
    part = "model-{}-of-00002.safetensors".format
    index = {"metadata": {}, "weight_map": {"a": part("00001"), "b": part("00002")}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    for name in (part("00001"), part("00002"), "model-00003-of-00003.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_text("")
    found = names_of_model(tmp_path, None, None, None)
    assert found == ["config.json", part("00001"), part("00002"), "model.safetensors.index.json"]


def test_what_may_be_asked_for(tmp_path):
    for asked in ("training_args.bin", [3], ["../secret"], ["/etc/passwd"], [""]):
        with pytest.raises(ValueError, match="`hub_files` must be a list of patterns of files in `output_dir`"):
            RLVRConfig(str(tmp_path), hub_files=asked, **ON_CPU)


def test_a_push_that_fails_during_training_is_made_up_for(tmp_path):
    # an adapter, as PEFT saves it; the end of training has three attempts, so the fourth commit is made in any case
    run = Pushed(tmp_path, "--strategy", "every_save", "--lora", failing_commits=range(1, 4))
    assert len(run.hub.commits) == 1 and run.hub.num_commits == 4
    assert "checkpoint-1 to tester/run failed" in run.told["warnings"][0]
    assert "500 Internal Server Error" in run.told["warnings"][0] and "is pushed again" in run.told["warnings"][0]
    assert not any("Training is over" in warning for warning in run.told["warnings"])
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= run.files()
    run.assert_same(".", ".")
    adapter = "adapter_model.safetensors"
    assert (run.remote / adapter).read_bytes() == (run.local / "checkpoint-3" / adapter).read_bytes()


def test_a_push_cut_half_way_leaves_every_checkpoint_on_the_hub(tmp_path):
    # the model of step 1 arrives, its checkpoint does not, nor when it is tried again, alone or after the newest
    failures = {"dropped_commits": [2], "dropped_uploads": [1], "refused_once": "checkpoint-1, again"}
    run = Pushed(tmp_path, "--strategy", "all_checkpoints", **failures)
    failed = [warning for warning in run.told["warnings"] if "checkpoint-1 to tester/run failed" in warning]
    assert "disconnected" in failed[0] and "500 Internal Server Error" in failed[1] and len(failed) == 2
    assert run.files() == MODEL
    for step in (1, 2, 3):
        assert is_complete(run.remote / f"checkpoint-{step}")
        assert run.files(f"checkpoint-{step}") == {path.name for path in (run.local / f"checkpoint-{step}").iterdir()}
        run.assert_same(f"checkpoint-{step}", f"checkpoint-{step}")
    weights = {step: (run.local / f"checkpoint-{step}/model.safetensors").read_bytes() for step in (1, 3)}
    assert weights[1] != weights[3]
    assert (run.remote / "model.safetensors").read_bytes() == weights[3]


def test_a_checkpoint_deleted_before_it_was_pushed_is_named(tmp_path):
    settings = ["--settings", '{"save_total_limit": 1}']
    run = Pushed(tmp_path, "--strategy", "all_checkpoints", *settings, failing_commits=[1, 2])
    lost = [warning for warning in run.told["warnings"] if "has been deleted since" in warning]
    assert sum("checkpoint-1 to tester/run failed" in warning for warning in lost) == 1
    assert not any("Training is over" in warning for warning in run.told["warnings"])
    run.assert_same("checkpoint-3", "checkpoint-3")


def test_a_checkpoint_deleted_while_it_waited_for_another_push_is_named(tmp_path):
    """To push what is left of it, which is nothing, would succeed."""
    (tmp_path / "checkpoint-3").mkdir()
    waiting = {str(tmp_path / f"checkpoint-{step}"): [] for step in (2, 3)}
    args = SimpleNamespace(hub_strategy=HubStrategy.ALL_CHECKPOINTS)
    trainer = SimpleNamespace(_pushes=waiting, args=args, hub_model_id="tester/run")
    trainer._failed = types.MethodType(PushesToHub._failed, trainer)
    with pytest.warns(UserWarning, match="checkpoint-2 to tester/run failed: .*earlier push.*has been deleted since"):
        PushesToHub._check_pushes(trainer)
    assert list(waiting) == [str(tmp_path / "checkpoint-3")]


def test_the_last_checkpoint_can_be_resumed_from(tmp_path):
    run = Pushed(tmp_path, "--strategy", "checkpoint")
    assert run.told["warnings"] == []
    assert is_complete(run.remote / "last-checkpoint")
    run.assert_same("last-checkpoint", "checkpoint-3")


def test_a_hub_that_never_answers_loses_nothing(tmp_path):
    run = Pushed(tmp_path, "--strategy", "every_save", "--push-at-end", failing_commits=range(1, 100))
    assert run.hub.commits == []
    over = [warning for warning in run.told["warnings"] if "Training is over" in warning]
    assert len(over) == 1 and "checkpoint-3 could not be pushed to tester/run: tried 3 times" in over[0]
    assert "run failed: HfHubHTTPError" in run.told["error"] and "It was tried 3 times." in run.told["error"]
    command = shlex.split(run.told["error"].split("`hf upload ")[1].split("`")[0])
    assert command[:3] == ["tester/run", str(run.local), "."] and {*command[4::2]} == MODEL
    assert {path.name for path in run.local.iterdir() if path.is_file()} >= MODEL
    AutoModelForCausalLM.from_pretrained(run.local)
    assert all(is_complete(run.local / f"checkpoint-{step}") for step in (1, 2, 3))
