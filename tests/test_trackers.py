"""What trackers get of a measurement of pass@k: the curve over k and a table of completions, and nothing hostile."""

import json
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from tiny_training import build
from transformers import TrainerCallback
from trl import ModelConfig

from rlvr_trl import PassAtKCallback, RLVRConfig, RLVRTrainer
from rlvr_trl.evaluation import Completions, EvaluationResult, Problem
from rlvr_trl.script_parser import ScriptParser
from rlvr_trl.scripts import TrainingScriptArguments
from rlvr_trl.trainer import trackers
from rlvr_trl.trainer.trackers import CHARACTERS, ROWS, sampled_rows, show_in_trackers


HOSTILE = "<script>x</script> \x1b[31m a|b `c` *d* _e_ $f$ [g](http://h) ![i](j)\n\n# k &amp; \udc80"


def hostile_reward(completions, log_extra, **kwargs):
    log_extra("extracted_answer", [HOSTILE for _ in completions])
    return [float("R" in completion) for completion in completions]


def result_of(num_problems, num_samples, text="", prompt="", answers=True):
    count = num_problems * num_samples
    rewards = np.resize([1.0, 0.0, np.nan], (num_problems, num_samples))
    problems = [Problem(str(i), {"prompt": prompt or f"prompt {i}"}) for i in range(num_problems)]
    lengths = np.ones(count, dtype=int)
    completions = Completions(
        [f"{text}{i}" for i in range(count)], [None] * count, lengths, lengths > 1, lengths * 0.0
    )
    columns = {"extracted_answer": [None if i == 0 else i for i in range(count)]} if answers else {}
    return EvaluationResult(problems, completions, rewards, columns, {}, 0, {"correctness_threshold": 0.5})


@pytest.mark.parametrize(("problems", "samples"), [(1, 1), (1, 100), (3, 4), (16, 2), (17, 2), (500, 3)])
def test_a_bounded_number_of_rows(problems, samples):
    rows = sampled_rows(result_of(problems, samples), step=7)
    per_problem = min(samples, ROWS // min(problems, ROWS))
    assert len(rows) == min(problems, ROWS) * per_problem <= ROWS
    prompts = list(dict.fromkeys(row[1] for row in rows))
    assert prompts[0] == "prompt 0" and prompts[-1] == f"prompt {problems - 1}"
    assert rows[0] == (7, "prompt 0", "0", "", "right") and len(set(rows)) == len(rows)


def test_verdicts_answers_and_conversations():
    chat = [{"role": "system", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "b"}]}]
    rows = sampled_rows(result_of(1, 3, prompt=chat), step=0)
    assert [row[3:] for row in rows] == [("", "right"), ("1", "wrong"), ("2", "not scored")]
    assert rows[0][1] == "system: a\nuser: b"
    assert [row[3] for row in sampled_rows(result_of(1, 3, answers=False), step=0)] == ["", "", ""]


def test_long_texts_are_cut_and_say_so_and_control_characters_are_escaped():
    long = sampled_rows(result_of(1, 1, text="x" * 100_000), step=0)[0][2]
    assert len(long) < CHARACTERS + 40 and "[…98001 characters…]" in long
    hostile = sampled_rows(result_of(1, 1, text=HOSTILE), step=0)[0][2]
    assert "\x1b" not in hostile and "\\x1b[31m" in hostile and "\\udc80" in hostile
    json.dumps(hostile).encode("utf-8")


def test_markdown_shows_the_text_and_nothing_else():
    plugin = pytest.importorskip("tensorboard.plugin_util")
    rows = sampled_rows(result_of(2, 1, text=HOSTILE, prompt=HOSTILE), step=0)
    html = plugin.markdown_to_safe_html(trackers._markdown_table(rows))
    assert set(re.findall("<(\\w+)", html)) == {"table", "thead", "tbody", "tr", "th", "td", "br"}
    assert html.count("<tr>") == 1 + len(rows)


def train_with(trackers_wanted, model, tokenizer, mazes, cpu_settings, **callback):
    settings = cpu_settings | {"report_to": trackers_wanted, "max_steps": 1, "run_name": "test", "project": "test"}
    trainer = build(RLVRTrainer, settings, mazes, tokenizer, rewards=hostile_reward, model=model)
    measure = PassAtKCallback(trainer, mazes.select(range(3)), num_samples=4, every=1, **callback)
    trainer.add_callback(measure)
    trainer.train()
    return measure.history


@pytest.mark.parametrize(("prefix", "group"), [("eval", "eval/"), ("eval_hard", "eval/hard_"), ("own", "train/own_")])
def test_tensorboard(model, tokenizer, mazes, cpu_settings, prefix, group):
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    history = train_with(["tensorboard"], model, tokenizer, mazes, cpu_settings, prefix=prefix)
    (folder,) = Path(cpu_settings["output_dir"], "runs").iterdir()
    events = module.EventAccumulator(str(folder))
    events.Reload()
    images = events.Images(f"{group}pass_at_k_over_k")
    assert [image.step for image in images] == [0, 1] and images[0].encoded_image_string.startswith(b"\x89PNG")
    scalars = events.Scalars(f"{group}pass@4")  # beside those of transformers
    assert [scalar.value for scalar in scalars] == pytest.approx([entry[f"{prefix}_pass@4"] for entry in history])
    texts = [event.tensor_proto.string_val[0].decode() for event in events.Tensors(f"{group}completions/text_summary")]
    assert [text.count("\n") for text in texts] == [1 + 12, 1 + 12]
    assert not any("<script" in text or "\x1b" in text for text in texts)


def test_wandb(model, tokenizer, mazes, cpu_settings, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.chdir(tmp_path)
    history = train_with(["wandb"], model, tokenizer, mazes, cpu_settings)
    files = Path(wandb.run.dir, "media/table/eval")
    wandb.finish()
    tables = [json.loads(path.read_text()) for path in sorted(files.iterdir())]
    curves = [table["data"] for table in tables if table["columns"] == ["k", "pass@k", "step"]]
    expected = [[k, entry[f"eval_pass@{k}"], f"step {entry['step']}"] for entry in history for k in (1, 2, 4)]
    assert max(curves, key=len) == expected
    texts = [table["data"] for table in tables if table["columns"] == list(trackers.COLUMNS)]
    assert [len(rows) for rows in texts] == [12, 12]


def test_scripts_log_to_tensorboard_where_it_is_installed(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("report_to: none\n")

    def reported(*arguments):
        fixed = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--bf16", "false"]
        parser = ScriptParser((TrainingScriptArguments, RLVRConfig, ModelConfig))
        return parser.parse_args_and_config([*fixed, *arguments])[1].report_to

    assert reported() == (["tensorboard"] if find_spec("tensorboard") else [])
    assert reported("--report_to", "none") == reported("--config", str(recipe)) == []
    assert reported("--config", str(recipe), "--report_to", "wandb") == ["wandb"]
    recipe.write_text("report_to: [wandb, trackio]\n")
    assert reported("--config", str(recipe)) == ["wandb", "trackio"]


def test_nothing_happens_without_a_tracker(model, tokenizer, mazes, cpu_settings, monkeypatch):
    trainer = build(RLVRTrainer, cpu_settings, mazes, tokenizer, model=model, callbacks=[TrainerCallback()])
    monkeypatch.setattr(trackers, "sampled_rows", None)  # would be called first
    show_in_trackers(trainer, "eval", {0: {1: 0.5}}, result_of(2, 1))
