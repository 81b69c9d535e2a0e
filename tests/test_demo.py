"""The demo and the command line, in the small."""

import json
from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
import torch
from rich.console import Console
from tiny_task import LETTERS
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlvr_trl.cli import main
from rlvr_trl.evaluation import Completions, EvaluationResult, Problem, pass_at_k
from rlvr_trl.testbed import TASKS
from rlvr_trl.testbed.demo import DemoSettings, demo_settings, describe_results, make_table, run_demo
from rlvr_trl.testbed.methods import METHODS


pytestmark = pytest.mark.slow


TINY = DemoSettings(warmup_problems=200, warmup_steps=80, steps=3, test_problems=6, samples=8)


def result_with(num_correct, num_samples=64):
    """An evaluation with so many correct samples for each problem."""
    rewards = (np.arange(num_samples) < np.array(num_correct)[:, None]).astype(float)
    total = rewards.size
    completions = Completions([""] * total, [[0]] * total, np.ones(total), np.zeros(total, bool), np.full(total, 0.5))
    settings = {"num_samples": num_samples, "correctness_threshold": 0.5}
    problems = [Problem(f"maze {i}", {"prompt": f"maze {i}"}) for i in range(len(num_correct))]
    return EvaluationResult(problems, completions, rewards, {"extracted_answer": ["R"] * total}, {}, 0, settings)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "out"
    return folder, run_demo(folder, list(METHODS), TINY, disable_tqdm=True)


def test_demo_writes_results_picture_and_models_that_load(demo):
    folder, results = demo
    report = json.loads((folder / "results.json").read_text())
    assert list(report["methods"]) == ["base", *METHODS] == list(results)
    for name, result in results.items():
        saved = report["methods"][name]
        expected = pass_at_k(result.num_samples, result.num_correct, 4).mean()
        assert saved["pass_at_k"]["4"] == pytest.approx(expected)
        assert len(saved["problems"]) == 6
        AutoTokenizer.from_pretrained(folder / name)
        AutoModelForCausalLM.from_pretrained(folder / name)
    assert (folder / "pass_at_k.png").read_bytes().startswith(b"\x89PNG")
    assert report["conclusion"] == describe_results(results)
    assert len(report["logs"]["pass_at_k"]) > 0
    assert report["methods"]["grpo"]["rollouts_per_prompt"] == 16
    assert 8 < report["methods"]["dars"]["rollouts_per_prompt"] <= 32


def test_methods_start_from_the_same_base_and_move_away(demo):
    folder, _ = demo
    weights = {
        name: AutoModelForCausalLM.from_pretrained(folder / name).state_dict()
        for name in ("base", "grpo", "pass_at_k")
    }
    some = "model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(weights["base"][some], weights["grpo"][some])
    assert not torch.equal(weights["grpo"][some], weights["pass_at_k"][some])


def test_an_earlier_demo_is_replaced_and_nothing_else(demo, tmp_path):
    folder, _ = demo
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not the folder of an earlier demo"):
        run_demo(tmp_path, ["grpo"], TINY, disable_tqdm=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    run_demo(folder, ["grpo"], replace(TINY, warmup_steps=1, steps=1), disable_tqdm=True)
    assert list(json.loads((folder / "results.json").read_text())["methods"]) == ["base", "grpo"]


@pytest.mark.parametrize(("name", "target", "warmup_steps"), [("sudoku", None, 5), ("letters", 0.2, 100)])
def test_another_task(name, target, warmup_steps, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(TASKS, "letters", LETTERS)
    settings = DemoSettings(name, 100, warmup_steps, target, steps=1, test_problems=4, samples=4)
    results = run_demo(tmp_path / "out", ["grpo"], settings, disable_tqdm=True)
    report = json.loads((tmp_path / "out/results.json").read_text())
    assert report["settings"]["task"] == name and list(report["methods"]) == ["base", "grpo"]
    assert set(results["grpo"].problems[0].row) == {"prompt", name}
    assert (
        AutoTokenizer.from_pretrained(tmp_path / "out/grpo").get_vocab() == TASKS[name].build_tokenizer().get_vocab()
    )
    printed = " ".join(capsys.readouterr().out.split())
    noun = TASKS[name].noun
    assert f"Drawing {noun}:" in printed and f"4 held-out {noun}, 4 samples each" in printed
    assert f"on the test {noun}." in printed and "maze" not in printed
    assert ("warm_up" in report) == (target is not None)
    if target is not None:
        reached = report["warm_up"]
        assert reached["checks"][-1][1] >= target > max([0, *(value for _, value in reached["checks"][:-1])])
        assert f"pass@1 of {reached['pass_at_1']:.3f} on other {noun} after {reached['steps']} steps" in printed


def test_settings_of_the_tasks():
    assert demo_settings("maze") == DemoSettings() == DemoSettings("maze", 6000, 400, None, 300, 200, 64, 0)
    assert demo_settings("maze", quick=True, seed=3) == DemoSettings("maze", 3000, 300, None, 60, 100, 64, 3)
    for name, task in TASKS.items():
        for quick in (True, False):
            settings = demo_settings(name, quick)
            assert settings.task == name and settings.target == task.target
            num_problems = settings.warmup_problems + 16 * settings.steps + settings.test_problems + 100
            assert num_problems < {"sums": 16_145, "countdown": 10_446}.get(name, 20_000)  # as many as there are


def test_the_sentence_follows_the_intervals():
    rng = np.random.default_rng(0)
    base = rng.integers(5, 15, size=100)
    results = {
        "base": result_with(base),
        "grpo": result_with(np.where(np.arange(100) < 40, 60, 0)),  # sharper: sure of fewer
        "pass_at_k": result_with(base + 5),
    }
    sentence = describe_results(results)
    grpo, at_k = sentence.rstrip(".").split("; ")
    assert grpo.startswith("GRPO against base is above at pass@1 (+") and "below at pass@32 (-" in grpo
    assert at_k.startswith("Pass@k (k=8) against GRPO is below at pass@1 (-") and "above at pass@32 (+" in at_k
    alone = describe_results({"base": results["base"], "pass_at_k": results["pass_at_k"]})
    assert alone.startswith("Pass@k (k=8) against base is above at pass@1 (+")
    same = describe_results({"base": result_with(base), "grpo": result_with(base)})
    assert same.count("not told apart") == 2 and "+0.000 [-0.026, +0.026]" in same


def test_the_table_shows_what_was_sampled():
    results = {"base": result_with([1, 2, 3], num_samples=16)}
    table = make_table(results, {})
    assert [column.header for column in table.columns][1:3] == ["pass\n@1", "pass\n@8"]
    assert list(table.columns[1].cells)[0].startswith("0.125\n±")


def test_the_table_fits_60_columns():
    ordinary = ["base", *METHODS]
    table = make_table(dict.fromkeys(ordinary, result_with([1, 9, 64])), dict.fromkeys(ordinary, 21.66))
    for width in (60, 80, 120):
        written = Console(width=width, file=StringIO(), legacy_windows=False)
        written.print(table)
        lines = [line.strip() for line in written.file.getvalue().splitlines()]
        assert max(map(len, lines)) <= 60 and not any("…" in line for line in lines)
        assert " ".join(lines[1:4]).split() == [
            *("roll-", "pass", "pass", "pass", "pass", "token", "answer", "outs/"),
            *("@1", "@8", "@32", "@64", "entropy", "entropy", "prompt"),
        ]


def test_command_line_errors_are_one_line(tmp_path, capsys):
    assert main(["demo", "--methods", "grpoo", "--output-dir", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (
        "Unknown method 'grpoo'. Did you mean 'grpo'? Valid methods: grpo, pass_at_k, dars, a_grae, grpo_n, nsr"
        in error
    )
    assert main(["demo", "--task", "sudoko", "--output-dir", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err
    assert "Unknown task 'sudoko'. Did you mean 'sudoku'? Valid tasks: maze, sudoku, sums, countdown." in error
    assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "demo" in capsys.readouterr().out
