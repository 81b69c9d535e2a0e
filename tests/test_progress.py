"""The bar of a long generation against what was generated, and the table of a training in a notebook."""

import io

import pytest
import torch
from tqdm.auto import tqdm
from transformers import TrainerState

import rlvr_trl.trainer.generation_progress as progress
from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.rewards import maze_reward
from rlvr_trl.rollouts import DARS
from rlvr_trl.trainer.generation_progress import _TokenCounter
from rlvr_trl.trainer.notebook_progress import NotebookProgress


@pytest.fixture
def at_once(monkeypatch):
    """Bars appear and look at once; they are meant for generations of minutes."""
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "REFRESH", 0.0)


def train(model, tokenizer, mazes, settings, **kwargs):
    args = RLVRConfig(**settings)
    trainer = RLVRTrainer(model, maze_reward, args, mazes, processing_class=tokenizer, **kwargs)
    trainer.train()
    return trainer


def test_counts_are_those_of_what_was_generated(model, tokenizer, mazes, at_once):
    rows, max_length = [list(mazes["prompt"][:5]), list(mazes["prompt"][5:8])], 12
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    bar = tqdm(total=8, file=io.StringIO())
    watch = _TokenCounter(bar, [5, 3], max_length, ends)
    hook = model.register_forward_pre_hook(watch, with_kwargs=True)
    lengths, torch_lengths = [], []
    for batch in rows:
        watch.next_batch()
        inputs = tokenizer(batch, return_tensors="pt", padding=True, padding_side="left")
        torch.manual_seed(len(batch))
        # A row that has ended is filled with padding; this model would also sample it
        sampling = {"do_sample": True, "max_new_tokens": max_length, "suppress_tokens": [tokenizer.pad_token_id]}
        output = model.generate(**inputs, **sampling)[:, inputs["input_ids"].shape[1] :]
        is_end = torch.isin(output, torch.tensor(ends))
        torch_lengths.append(output.shape[1])
        lengths += ((is_end.cumsum(1) == 0).sum(1) + is_end.any(1)).tolist()
    hook.remove()
    watch._count_tokens()
    assert watch.tokens == sum(lengths) and len(set(lengths)) > 1
    assert watch.all_steps == sum(torch_lengths)
    # when the last pass began: the first batch was over, and those of the second that had ended before
    assert bar.n == 5 + sum(length < torch_lengths[1] for length in lengths[5:])
    assert "tokens/s, at most 00:00 left" in bar.postfix


def test_a_bar_for_each_stage(model, tokenizer, mazes, cpu_settings, at_once, capfd):
    settings = cpu_settings | {"disable_tqdm": False, "max_steps": 1, "max_rows_per_generation": 3}
    train(model, tokenizer, mazes, settings, rollouts=DARS("hardness_weighted", max_generations=8))
    shown = capfd.readouterr().err
    for text in ("sampling, stage 1: ", "/8 [", "sampling, stage 2: ", "tokens/s, at most 00:0"):
        assert text in shown
    assert not model._forward_pre_hooks


def test_without_stages(model, tokenizer, mazes, cpu_settings, at_once, capfd):
    train(model, tokenizer, mazes, cpu_settings | {"disable_tqdm": False, "max_steps": 1})
    assert "sampling: " in capfd.readouterr().err


def test_quiet(model, tokenizer, mazes, cpu_settings, at_once, capfd):
    trainer = train(model, tokenizer, mazes, cpu_settings | {"max_steps": 1})
    assert trainer.args.disable_tqdm
    assert "sampling" not in capfd.readouterr().err


def test_short_generations_show_nothing(model, tokenizer, mazes, cpu_settings, capfd, monkeypatch):
    monkeypatch.setattr(progress, "DELAY", 600.0)
    train(model, tokenizer, mazes, cpu_settings | {"disable_tqdm": False, "max_steps": 1})
    assert "sampling" not in capfd.readouterr().err


def test_the_table_of_a_notebook_is_bounded():
    table, state = NotebookProgress(), TrainerState(max_steps=99, is_world_process_zero=False)  # displays nothing
    for step in range(50):
        state.global_step = step
        table.on_log(None, state, None, {"eval_pass@1": 0.1, "eval_pass@2": 0.2, "eval_pass@8": 0.8, "a<b_pass@1": 1})
        table.on_log(None, state, None, {"loss": 0.0, "reward": step / 100, "completions/mean_length": None})
    shown = table._html(49, 99)
    assert "The last 20 of 50 rows" in shown and shown.count("<tr>") == 21 and "step 49 of 99" in shown
    assert "<td>step</td><td>reward</td><td>pass@1</td><td>pass@8</td><td>a&lt;b pass@1</td>" in shown
    assert "<td>49</td><td>0.490</td><td>0.100</td><td>0.800</td><td>1.000</td>" in shown
    assert table.shown is None
