"""Cells of a comparison: their problems, base models that are kept, training, and a runner that stops and goes on."""

import json
import os
import signal
import time
from dataclasses import asdict, replace

import psutil
import pytest
import torch
from filelock import FileLock
from launching import run_script
from safetensors.torch import load_file, save_file
from tiny_task import LETTERS
from tiny_training import short
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.testbed import TASKS, build_model
from rlvr_trl.testbed.cell_runner import CellProcess, Job, Store, outcome_of, run_cells
from rlvr_trl.testbed.cells import (
    BASE,
    Cell,
    Size,
    log_columns,
    problems_of,
    run_cell,
    training_problems,
    unpacked_base,
)
from rlvr_trl.testbed.methods import METHODS, Method


TINY = Size(batches=2, test_problems=6, samples=8, validation_problems=4, validation_samples=4, warmup_problems=40)
KEPT = "sums-0.safetensors"
SMALL = {"num_generations": 4, "prompts_per_batch": 4, "per_device_train_batch_size": 16}
CONSTANT = {"lr_scheduler_type": "constant", "shuffle_dataset": False}
DARS = {"name": "dars", "max_generations": 8}
TINY_METHODS = {
    "updates": Method(
        "two updates", RLVRTrainer, RLVRConfig, SMALL | {"prompts_per_update": 2, "num_iterations": 2}, (short,)
    ),
    "more": Method("more rollouts", RLVRTrainer, RLVRConfig, SMALL | {"rollouts": DARS}),
    "broken": Method("broken", RLVRTrainer, RLVRConfig, SMALL | {"num_generations": 1}),
}


@pytest.mark.parametrize("name", TASKS)
def test_no_two_sets_share_a_problem_and_methods_see_the_same_ones(name):
    cell = Cell(name, "dapo", 1e-4, 1)
    problems = problems_of(name, 1, TINY)
    sets = [problems.warmup, problems.validation, problems.test, training_problems(cell, 20, TINY)]
    texts = [one[name] for one in sets]
    assert [len(one) for one in texts] == [40, 4, 6, 20]
    assert len({text for one in texts for text in one}) == 70
    other = training_problems(Cell(name, "nsr", 2e-4, 1), 8, TINY)
    assert list(other[name]) == list(texts[3])[:8]
    assert list(problems_of(name, 2, TINY).test[name]) == list(texts[2])  # all base models are tested on the same
    assert list(training_problems(replace(cell, base=2), 8, TINY)[name]) != list(other[name])


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    """A folder with an untrained base model of the sums."""
    folder = tmp_path_factory.mktemp("bases")
    model = build_model(TASKS["sums"].build_tokenizer(), seed=0)
    save_file({name: weight.detach().half() for name, weight in model.named_parameters()}, folder / KEPT)
    return folder


def test_a_base_model_is_what_was_kept_of_it(bases, tmp_path):
    folder = unpacked_base(TASKS["sums"], 0, TINY, bases, tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    kept, weights = load_file(bases / KEPT), dict(model.named_parameters())
    assert weights.keys() == kept.keys() and model.dtype == torch.float32
    assert all(torch.equal(weight, kept[name].float()) for name, weight in weights.items())
    text = problems_of("sums", 0, TINY).test["prompt"][0]
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_base_model_is_made_once(monkeypatch, tmp_path):
    monkeypatch.setitem(TASKS, "letters", LETTERS)
    folders = [unpacked_base(LETTERS, 3, TINY, tmp_path / "bases", tmp_path / work) for work in ("one", "two")]
    about = json.loads((tmp_path / "bases" / "letters-3.json").read_text())
    assert about["validation_pass@1"] > 0.1 and about["steps"] > 25
    kept = load_file(tmp_path / "bases" / "letters-3.safetensors")
    assert {weight.dtype for weight in kept.values()} == {torch.float16}
    first, second = (load_file(folder / "model.safetensors") for folder in folders)
    assert folders[0] != folders[1] and all(torch.equal(first[name], second[name]) for name in first)


def test_a_cell_is_its_arguments(bases, tmp_path):
    cell = Cell("sums", "updates", 1e-3, 0)
    saved, again = (run_cell(cell, TINY_METHODS["updates"], bases, tmp_path, TINY) for _ in range(2))
    assert (saved["batches"], saved["updates"], saved["completions"]) == (2, 8, 32)
    assert len(saved["test"]["num_correct"]) == 6 and len(saved["validation"]["num_correct"]) == 4
    assert saved["log"]["step"] == [4, 8] and len(saved["log"]["reward"]) == 2  # one entry a batch
    ignored = {"seconds": 0}
    assert saved | ignored == again | ignored
    assert json.loads(json.dumps(saved, allow_nan=False)) == saved
    other = run_cell(replace(cell, rate=1e-2), TINY_METHODS["updates"], bases, tmp_path, TINY)
    assert other["test"]["problems"] == saved["test"]["problems"] and other["log"] != saved["log"]
    assert "pass" not in outcome_of(saved) and outcome_of(saved).startswith("@1 0.")


def test_what_samples_more_is_also_tested_at_equal_rollouts(bases, tmp_path):
    """It is the same as a run that ends there, since the learning rate is constant."""
    size = replace(TINY, batches=3)  # of 256 completions: 48 of these
    settings = CONSTANT | {"num_generations": 64, "prompts_per_batch": 6}
    more = Method("more", RLVRTrainer, RLVRConfig, settings, (short,))
    cell = Cell("sums", "more", 1e-3, 0)
    saved = run_cell(cell, more, bases, tmp_path, size)
    assert (saved["batches"], saved["completions"]) == (3, 3 * 6 * 64)
    assert (saved["equal"]["batches"], saved["equal"]["completions"]) == (2, 2 * 6 * 64)  # 768 of 768
    shorter = run_cell(cell, more, bases, tmp_path, replace(size, batches=2))
    assert "equal" in shorter and saved["equal"]["test"] != saved["test"]
    assert saved["equal"]["test"] == shorter["test"] and saved["equal"]["validation"] == shorter["validation"]
    assert "equal" not in run_cell(cell, TINY_METHODS["updates"], bases, tmp_path, size)


def test_a_budget_of_tokens_ends_training_before_the_batch_that_exceeds_it(bases, tmp_path):
    """What is tested is the same as after a run of as many batches, also where some of it was thrown away."""
    settings = CONSTANT | {"num_generations": 8, "prompts_per_batch": 4, "rollouts": {"name": "dynamic_sampling"}}
    method = Method("refilled", RLVRTrainer, RLVRConfig, settings, (short,))
    cell, size = Cell("sums", "refilled", 1e-3, 0), replace(TINY, batches=50, training_problems=6, max_tokens=900)
    saved = run_cell(cell, method, bases, tmp_path, size)
    assert 1 < saved["batches"] < 50 and "equal" not in saved
    assert 0 < saved["tokens_sampled"] <= 900 and saved["updates"] == saved["batches"]
    of_batches = saved["of_batches"]
    assert [len(values) for values in of_batches.values()] == [saved["batches"]] * len(of_batches)
    assert saved["completions"] == 8 * sum(of_batches["rollouts/prompts_sampled"])
    # a budget that the last batch just fits is the same
    exact = run_cell(cell, method, bases, tmp_path, replace(size, max_tokens=saved["tokens_sampled"]))
    assert exact["test"] == saved["test"] and exact["batches"] == saved["batches"]
    less = run_cell(cell, method, bases, tmp_path, replace(size, max_tokens=saved["tokens_sampled"] - 1))
    assert less["batches"] == saved["batches"] - 1 and less["test"] != saved["test"]
    with pytest.raises(ValueError, match="2 batches sampled .* tokens, fewer than 10000000"):
        run_cell(cell, method, bases, tmp_path, replace(size, batches=2, max_tokens=10**7))


def test_updates_of_a_batch():
    broad = Method("", RLVRTrainer, RLVRConfig, {"prompts_per_batch": 64, "prompts_per_update": 16})
    assert broad.updates_per_batch == 4 and METHODS["grpo"].updates_per_batch == 1


def test_logs_are_means_of_so_many_entries():
    entries = [{"step": 4 * i, "reward": float(i), "entropy": None} for i in range(1, 6)]
    assert log_columns(entries[:2], ("step", "reward"), points=20) == {"step": [4, 8], "reward": [1.0, 2.0]}
    assert log_columns(entries, ("reward", "step"), points=2) == {"reward": [2.0, 4.5], "step": [12, 20]}


# --- the runner ---


def test_a_store_forgets_half_a_line_and_names_what_is_no_cell(tmp_path):
    store, cell = Store(tmp_path), Cell("sums", "updates", 1e-3, 0)
    store.add(cell, {"cell": asdict(cell), "error": "first"})
    path = tmp_path / "sums.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + whole[:20], encoding="utf-8")
    again = Store(tmp_path)
    assert again.cells == store.cells and path.read_text(encoding="utf-8") == whole + whole[:20]
    other = Cell("sums", "updates", 2e-3, 0)
    again.add(other, {"cell": asdict(other), "error": "second"})
    store.read()  # what another one has added
    assert list(store.cells) == [cell, other] and len(path.read_text(encoding="utf-8").splitlines()) == 2
    for line in ('{"cell": {}}', "{", '{"cell": {"task": "sums", "colour": 1}}'):
        path.write_text(f"{whole}{line}\n", encoding="utf-8")
        with pytest.raises(ValueError, match="line 2 of '.*sums.jsonl' is not a cell"):
            Store(tmp_path)


def test_two_runners_do_not_share_a_store(bases, tmp_path):
    with FileLock(tmp_path / ".lock"), pytest.raises(ValueError, match="another runner is at work"):
        run_cells([Cell("sums", BASE, 0.0, 0)], {}, Store(tmp_path), bases, tmp_path / "w", TINY)


@pytest.mark.slow
def test_the_runner_runs_what_is_missing_and_goes_on_after_a_failure(bases, tmp_path):
    names = [BASE, "updates", "more", "broken"]
    cells = [Cell("sums", name, 0.0 if name == BASE else 1e-3, 0) for name in names]
    told = []
    options = {"size": TINY, "tell": told.append, "jobs": 2}
    left = run_cells(cells, TINY_METHODS, Store(tmp_path / "r"), bases, tmp_path / "w", **options)
    assert left == 0 and len(told) == 4
    store = Store(tmp_path / "r")
    assert set(store.cells) == set(cells)
    failed = {cell.method: saved["error"] for cell, saved in store.cells.items() if "error" in saved}
    assert failed.keys() == {"broken"} and "at least 2 generations" in failed["broken"]
    alone = run_cell(cells[1], TINY_METHODS["updates"], bases, tmp_path / "w", TINY)
    assert alone["test"] == store.cells[cells[1]]["test"] and alone["log"] == store.cells[cells[1]]["log"]
    lines = (tmp_path / "r" / "sums.jsonl").read_text()
    run_cells(cells, TINY_METHODS, store, bases, tmp_path / "w", **options)
    assert (tmp_path / "r" / "sums.jsonl").read_text() == lines and len(told) == 4


@pytest.mark.slow
def test_a_process_that_dies_before_it_reads_its_job_costs_a_cell_and_no_more(tmp_path):
    process = CellProcess(tmp_path, tmp_path, TINY)
    cell = Cell("sums", BASE, 0.0, 0)
    os.kill(process.process.pid, signal.SIGSTOP)
    process.give(Job(cell, None))
    os.kill(process.process.pid, signal.SIGKILL)
    assert process.take(cell)["error"] == "The process ended with code -9."
    process.give(Job(cell, None))
    assert "ended with code -9" in process.take(cell)["error"]
    process.end()


KILLED = """
import multiprocessing, os, signal, sys
from pathlib import Path
from test_cells import *

def die(line):
    print(*(process.pid for process in multiprocessing.active_children()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    cells = [Cell("sums", "updates", rate, 0) for rate in (1e-3, 2e-3, 3e-3)]
    bases, folder = map(Path, sys.argv[1:])

    run_cells(
        *(cells, TINY_METHODS, Store(folder / "r"), bases, folder / "w"),
        **{"size": TINY, "jobs": 1, "tell": die},
    )
"""


@pytest.mark.slow
def test_a_runner_that_is_killed_leaves_no_process_and_goes_on(bases, tmp_path):
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    killed = run_script(script, str(bases), str(tmp_path))
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    store = Store(tmp_path / "r")
    assert [cell.rate for cell in store.cells] == [1e-3]
    worker = int(killed.stdout.splitlines()[-1])
    deadline = time.monotonic() + 20
    while psutil.pid_exists(worker):
        assert time.monotonic() < deadline, "the worker goes on without its runner"
        time.sleep(0.1)
    cells = [Cell("sums", "updates", rate, 0) for rate in (1e-3, 2e-3)]
    assert run_cells(cells, TINY_METHODS, store, bases, tmp_path / "w", size=TINY, jobs=1, tell=lambda _: None) == 0
    again = Store(tmp_path / "r").cells
    assert list(again) == cells and not any("error" in saved for saved in again.values())
