"""`rlvr-trl eval`, `score` and `compare`, end to end with a tiny random model that reads any text."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import launch
from tiny_text_model import build_text_tokenizer, save_problems, save_text_model
from transformers import AutoModelForCausalLM

from rlvr_trl.cli import main
from rlvr_trl.evaluation import load_results, pass_at_k, summarize
from rlvr_trl.evaluation.comparison import compare_runs
from rlvr_trl.evaluation.loading import load_engine
from rlvr_trl.evaluation.results import SavedCounts
from rlvr_trl.rewards import math_reward


pytestmark = pytest.mark.slow


AMC23 = Path(__file__).parents[2] / "shared/data/amc23_test.parquet"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_text_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def problems(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problems")
    return [save_problems(folder / f"{count}.jsonl", count) for count in (3, 5)]


def command(model, problems, output_dir, **options):
    options = {"num_samples": 8, "max_new_tokens": 32, "output_dir": output_dir} | options
    texts = {name: json.dumps(value) if isinstance(value, dict) else str(value) for name, value in options.items()}
    flags = [part for name, text in texts.items() for part in (f"--{name.replace('_', '-')}", text)]
    return ["eval", model, "--benchmarks", f"amc23={problems[0]}", f"math500={problems[1]}", *flags]


@pytest.fixture(scope="module")
def finished(model, problems, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    assert main(command(model, problems, folder)) == 0
    return folder


def test_eval_writes_results_of_each_benchmark_and_of_all(finished):
    summary = json.loads((finished / "results.json").read_text())
    assert list(summary["benchmarks"]) == ["amc23", "math500"]
    counts = {}
    for name, count in (("amc23", 3), ("math500", 5)):
        lines = [json.loads(line) for line in (finished / name / "samples-0.jsonl").read_text().splitlines()]
        assert sorted((line["problem"], line["sample"]) for line in lines) == [
            (p, s) for p in range(count) for s in range(8)
        ]
        # A second route: the reward of what is in the file
        rows = [json.loads(line)["row"] for line in (finished / name / "problems.jsonl").read_text().splitlines()]
        rewards = math_reward(
            completions=[line["text"] for line in lines], answer=[rows[line["problem"]]["answer"] for line in lines]
        )
        correct = np.zeros(count, dtype=int)
        np.add.at(correct, [line["problem"] for line in lines], np.array(rewards) > 0.5)
        counts[name] = correct
        saved = summary["benchmarks"][name]
        assert saved == json.loads((finished / name / "results.json").read_text())
        for k, value in saved["pass_at_k"].items():
            assert value == pytest.approx(pass_at_k(8, correct, int(k)).mean())
        assert saved["settings"]["benchmark"] == name and saved["settings"]["engine"]["engine"] == "transformers"
        assert saved["token_entropy"] > 0 and saved["mean_length"] > 1
    everything = np.concatenate(list(counts.values()))
    assert 0 < everything.sum() < 64  # not all the same, or nothing is shown
    for k in (1, 2, 4, 8):
        overall = pass_at_k(8, everything, k).mean()
        assert summary["overall"]["pass_at_k"][str(k)] == pytest.approx(overall)
        mean = np.mean([pass_at_k(8, correct, k).mean() for correct in counts.values()])
        assert summary["mean_over_benchmarks"]["pass_at_k"][str(k)] == pytest.approx(mean)
    assert summary["overall"]["num_problems"] == 8
    assert (finished / "pass_at_k.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (finished / "pass_at_k.svg").read_text()


def test_eval_goes_on_and_shows_tables(model, problems, finished, capsys):
    samples = {path: path.read_bytes() for path in finished.glob("*/samples-0.jsonl")}
    results = (finished / "results.json").read_text()
    torn = finished / "math500/samples-0.jsonl"
    torn.write_bytes(samples[torn][:-30])
    (finished / "math500/results.json").unlink()
    with pytest.warns(UserWarning, match="Not finished, and left out of the summary: math500"):
        assert main(["compare", str(finished), str(finished)]) == 0  # of what was saved before
        summarize(finished)
    capsys.readouterr()
    assert main(command(model, problems, finished)) == 0
    assert {path: path.read_bytes() for path in finished.glob("*/samples-0.jsonl")} == samples
    assert (finished / "results.json").read_text() == results
    shown = capsys.readouterr().out
    for word in (
        "amc23",
        "math500",
        "overall",
        "mean of benchmarks",
        "@8",
        "95 % interval",
        "Bayesian bootstrap",
        "pass_at_k.svg",
    ):
        assert word in shown


def test_parts_are_reported_apart(model, tmp_path, capsys):
    """By a column of the file, in its order, or numbers in theirs; pass@k of a part is that of its problems alone."""
    rows = [json.loads(line) | {"level": "hard" if i % 3 else "easy", "year": 10 - i // 4} for i, line in
            enumerate(Path(save_problems(tmp_path / "plain.jsonl", 8)).read_text().splitlines())]  # fmt: skip
    path, run = tmp_path / "own.jsonl", tmp_path / "run"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["eval", model, "--benchmarks", f"own={path}", "--num-samples", "4", "--max-new-tokens", "32"]
    assert main([*arguments, "--output-dir", str(run), "--by", "level"]) == 0
    shown = capsys.readouterr().out
    saved = json.loads((run / "own" / "results.json").read_text())
    assert list(saved["subsets"]) == ["easy", "hard"] and saved["settings"]["by"] == "level"
    counts = np.array([problem["num_correct"] for problem in saved["problems"]])
    for name, chosen in (("easy", [0, 3, 6]), ("hard", [1, 2, 4, 5, 7])):
        part = saved["subsets"][name]
        assert part["num_problems"] == len(chosen) and f"level {name}" in shown
        assert part["pass_at_k"]["4"] == pytest.approx(pass_at_k(4, counts[chosen], 4).mean())
    assert main([*arguments, "--output-dir", str(run), "--by", "year"]) == 0  # another column is no other run
    assert list(json.loads((run / "own" / "results.json").read_text())["subsets"]) == ["9", "10"]
    assert "subsets" not in json.loads((run / "results.json").read_text())["overall"]
    for by, message in (
        ("levl", "No benchmark has the column --by levl: own has solution, "),
        ("prompt", "own: by='prompt' needs a text or a number for every problem, found [{"),
    ):
        assert main([*arguments, "--output-dir", str(tmp_path / "other"), "--by", by]) == 2
        assert message in capsys.readouterr().err


def test_several_temperatures_are_one_command(model, problems, tmp_path, capsys):
    """Each is a run of its own, as if it had been made alone; greedy completions are one a problem."""
    run, alone = tmp_path / "sweep", tmp_path / "alone"
    arguments = ["eval", model, "--benchmarks", f"amc23={problems[0]}", "--num-samples", "4", "--max-new-tokens", "32"]
    assert main([*arguments, "--output-dir", str(run), "--temperature", "0", "0.6", "1.4"]) == 0
    shown = capsys.readouterr().out
    assert main([*arguments, "--output-dir", str(alone), "--temperature", "1.4"]) == 0
    for name in ("samples-0.jsonl", "scores.jsonl"):
        assert (run / "temperature-1.4/amc23" / name).read_bytes() == (alone / "amc23" / name).read_bytes()
    counts = {path.name: load_results(path)["amc23"] for path in run.glob("temperature-*")}
    assert {name: counts[name].ks for name in counts} == {
        "temperature-0": [1],
        "temperature-0.6": [1, 2, 4],
        "temperature-1.4": [1, 2, 4],
    }
    table = shown[shown.index("pass@k at each temperature") :]
    for name, count in counts.items():
        cells = [f"{value:.3f}" for value in count.pass_at_k.values()]
        (line,) = [line for line in table.splitlines() if f" {name.removeprefix('temperature-')} " in line]
        assert all(cell in line for cell in cells)
    assert (run / "pass_at_k.png").exists()
    for folder, temperatures, message in (
        (run, ("1", "1.0000001"), "--temperature has a value twice: 1 1."),
        (run, ("nan",), "temperature must be 0 (greedy) or above, got nan"),
        (run, ("1",), "holds runs at several temperatures ('temperature-"),
        (alone, ("1", "2"), "holds a run at one temperature ('amc23')"),
    ):
        assert main([*arguments, "--output-dir", str(folder), "--temperature", *temperatures]) == 2
        assert message in capsys.readouterr().err
    assert "3 problems, 1 completion each at temperature 0, judged" in shown


def test_score_again(finished, capsys):
    before = json.loads((finished / "results.json").read_text())
    assert main(["score", str(finished)]) == 0
    assert json.loads((finished / "results.json").read_text()) == before
    assert main(["score", str(finished), "--reward", "boxed_format_reward"]) == 0
    after = json.loads((finished / "results.json").read_text())
    assert after["benchmarks"]["amc23"]["settings"]["reward"] == "boxed_format_reward"
    assert after["overall"]["avg_at_n"] > before["overall"]["avg_at_n"]  # wrong answers have boxes too
    assert main(["score", str(finished)]) == 0
    assert main(["score", str(finished), "--reward", "mazereward"]) == 2
    assert "Unknown reward 'mazereward'. Did you mean 'maze_reward'? Valid rewards: boxed" in capsys.readouterr().err


def test_a_benchmark_of_ones_own(model, tmp_path, monkeypatch, capsys):
    (tmp_path / "judge.py").write_text(
        "def has_box(completions, level, **kwargs):\n"
        "    assert level[0] == 3\n"
        "    return [float('boxed' in str(text)) for text in completions]\n"
    )
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{i}+1?", "answer": "007", "level": 3} for i in range(3)]
    Path("test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--num_samples=4", "--max_new_tokens", "16", "--output_dir", "run"]
    assert main(["eval", model, "--benchmarks", "my-set=test.jsonl", "--reward", "judge.has_box", *options]) == 0
    shown = capsys.readouterr().out
    assert "my-set: 3 problems, 4 completions each, judged by judge.has_box" in shown and "│ my-set" in shown
    saved = json.loads(Path("run/results.json").read_text())["benchmarks"]["my-set"]
    assert saved["settings"]["reward"] == "has_box" and saved["num_problems"] == 3
    problems = [json.loads(line)["row"] for line in Path("run/my-set/problems.jsonl").read_text().splitlines()]
    assert problems[0]["answer"] == "007" and problems[0]["prompt"][-1]["content"] == "0+1?"

    # more samples: the earlier ones stay, and the same reward is asked for again
    before = Path("run/my-set/samples-0.jsonl").read_bytes()
    options[0] = "--num-samples=6"
    assert main(["eval", model, "--benchmarks", "my-set=test.jsonl", "--reward", "judge.has_box", *options]) == 0
    assert Path("run/my-set/samples-0.jsonl").read_bytes().startswith(before)
    assert list(json.loads(Path("run/results.json").read_text())["benchmarks"]["my-set"]["pass_at_k"]) == list("1246")

    # another judge, for the folder of the benchmark
    capsys.readouterr()
    assert main(["score", "run/my-set"]) == 2  # no code is run because a file of the run names it
    assert "scored with 'has_box', which is not in rlvr_trl.rewards" in capsys.readouterr().err
    assert main(["score", "run/my-set", "--reward", "math_reward"]) == 0
    saved = json.loads(Path("run/results.json").read_text())["benchmarks"]["my-set"]
    assert saved["settings"]["reward"] == "math_reward"
    Path("run/results.json").unlink()
    assert main(["score", "run/my-set", "--reward", "math_reward"]) == 0
    assert "my-set" in capsys.readouterr().out and not Path("run/results.json").exists()


def test_missing_folders_are_called_missing(problems, tmp_path, capsys):
    for arguments in (["score", "runs/none"], ["compare", "runs/none", "runs/other"]):
        assert main(arguments) == 2
        assert "There is no folder 'runs/none'" in capsys.readouterr().err
    for model in (f"{tmp_path}/none", "./none", "runs/of/none"):
        assert main(command(model, problems, tmp_path / "run")) == 2
        assert f"The folder '{model}' of the model does not exist" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(command(f"{tmp_path}/file", problems, tmp_path / "run")) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def save_run(folder, counts, num_samples=64):
    """What `load_results` reads, with so many correct samples for each problem."""
    problems = [{"id": str(i), "num_samples": num_samples, "num_correct": int(c)} for i, c in enumerate(counts)]
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps({"settings": {"benchmark": "amc23"}, "problems": problems}))
    return str(folder)


def test_compare(tmp_path, capsys):
    base = np.random.default_rng(0).integers(5, 15, size=100)
    a = save_run(tmp_path / "a", base)
    b = save_run(tmp_path / "b", np.where(np.arange(100) < 40, 60, 0))  # surer of fewer
    c = save_run(tmp_path / "c", base + np.tile([1, -1], 50), num_samples=63)
    assert main(["compare", a, b, c, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["reference"] == a and [run["run"] for run in report["runs"]] == [b, c]
    rows = {row["k"]: row for row in report["runs"][0]["comparisons"]}
    assert list(rows) == [1, 2, 4, 8, 16, 32, 64]
    for k, row in rows.items():
        own = SavedCounts.from_dict(json.loads((tmp_path / "b/results.json").read_text())).pass_at_k[k]
        assert row["value"] == own and row["difference"] == pytest.approx(row["value"] - row["reference"])
        assert row["verdict"] == ("higher" if row["low"] > 0 else "lower" if row["high"] < 0 else "-")
    assert rows[1]["verdict"] == "higher" and rows[64]["verdict"] == "lower"
    verdicts = {row["k"]: row["verdict"] for row in report["runs"][1]["comparisons"]}
    assert verdicts[1] == "-" and list(verdicts) == [1, 2, 4, 8, 16, 32]  # 63 samples: no 64, and 63 is not common

    assert main(["compare", a, b]) == 0
    shown = capsys.readouterr().out
    assert "higher" in shown and "lower" in shown
    short = save_run(tmp_path / "short", base[:90])
    assert main(["compare", a, short]) == 2
    assert "amc23: compare needs two evaluations of the same prompts" in (error := capsys.readouterr().err)
    assert "have 90 and 100, of which 90 agree" in error and error.count("\n") == 1


def test_compare_runs_of_several_benchmarks():
    def counts(*correct):
        return SavedCounts([str(c) for c in range(len(correct))], np.full(len(correct), 8), np.array(correct))

    a = {"amc23": counts(0, 4, 8), "aime24": counts(0, 0, 0, 0)}
    b = {"aime24": counts(1, 0, 0, 0), "amc23": counts(4, 4, 8)}
    rows = {(row.benchmark, row.k): row for row in compare_runs(a, b)}
    assert {name for name, _ in rows} == {"amc23", "aime24", "overall"}
    assert rows["overall", 1].value == pytest.approx((4 + 4 + 8 + 1) / 8 / 7)
    assert rows["overall", 8].difference == pytest.approx(2 / 7)
    with pytest.warns(UserWarning, match="Only one of the two runs has aime24"):
        assert {row.benchmark for row in compare_runs(a, {"amc23": b["amc23"]})} == {"amc23"}
    with pytest.raises(ValueError, match="no benchmark in common: amc23 and aime24"):
        compare_runs({"amc23": a["amc23"]}, {"aime24": b["aime24"]})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_samples": 0}, "--num-samples must be at least 1, got 0"),
        ({"limit": 0}, "--limit must be at least 1, got 0"),
        ({"temperature": -1}, "temperature must be 0 (greedy) or above, got -1.0"),
        ({"template": "polite"}, "template must be one of"),
        ({"tensor_parallel_size": 2}, "a whole model in each process: leave out --tensor-parallel-size, got 2"),
        ({"vllm_options": {"a": 1}}, "a whole model in each process: leave out --vllm-options, got {'a': 1}"),
        ({"base_url": "http://localhost", "dtype": "float16"}, "leave out --dtype, got float16"),
        ({"dtype": "bf16"}, "one of auto, bfloat16, float16, float32, got 'bf16'. Did you mean 'bfloat16'?"),
        ({"dtype": "int8"}, "--dtype must be one of auto, bfloat16, float16, float32, got 'int8'"),
        (
            {"reward": "math_rewards"},
            "Unknown reward 'math_rewards'. Did you mean 'math_reward'? Valid rewards: boxed",
        ),
        ({"reward": "MathReward"}, "Unknown reward 'MathReward'"),
        ({"reward": "no_such.reward"}, "there is no module 'no_such'"),
        ({"reward": "rlvr_trl.rewards.LengthReward"}, "is a class"),
        (
            {"reward": "maze_reward"},
            "amc23: The reward function 'maze_reward' needs the column 'maze', found ['prompt'",
        ),
        ({"engine": "vllm", "token_budget": 9}, "--engine vllm packs its own batches: leave out --token-budget"),
        ({}, "'no-such-model' cannot be loaded: there is no folder of this name, and on the Hub:"),
    ],
)
def test_wrong_settings_are_one_line_before_the_model_is_loaded(problems, tmp_path, capsys, options, message):
    assert main(command("no-such-model", problems, tmp_path / "run", **options)) == 2
    *_, error = capsys.readouterr().err.splitlines()  # after the bars of reading files
    assert error.startswith("rlvr-trl: ") and message in error
    assert not (tmp_path / "run").exists()


def test_wrong_benchmarks_are_refused(model, problems, finished, capsys):
    rest = ["--num-samples", "1", "--max-new-tokens", "1", "--output-dir", str(finished)]
    for benchmarks, message in (
        (["amc"], "Unknown benchmark 'amc'. Did you mean 'amc23'? Valid benchmarks: math, math500, aime24"),
        (["test.jsonl"], "To evaluate a dataset of your own, name it: mine=test.jsonl"),
        ([f"amc23={problems[0]}", f"amc23={problems[1]}"], "names 'amc23' twice"),
        ([f"mine={problems[0]}", f"Mine={problems[1]}"], "names 'mine' twice"),
        ([f"mmlu-pro={problems[0]}"], "mmlu_pro needs the columns question, options"),
        ([f"amc23={finished}/none.jsonl"], "none.jsonl does not exist"),
        ([f"mine={finished}/none"], f"There is no file or folder '{finished}/none'"),
        (["mine="], "needs a file, folder or Hub id after mine=, got nothing"),
        ([f"={problems[0]}"], "A benchmark needs a name of letters, digits"),
        ([f"../mine={problems[0]}"], "other than 'overall'"),
        ([f"a/b={problems[0]}"], "got 'a/b'"),
        ([f"..={problems[0]}"], "got '..'"),
        *(
            ([f"{name}={problems[0]}"], f"got '{name}'")
            for name in ("overall", "results.json", "pass_at_k.PNG", "nul")
        ),
    ):
        assert main(["eval", model, "--benchmarks", *benchmarks, *rest]) == 2
        assert message in capsys.readouterr().err
    other = AutoModelForCausalLM.from_pretrained(model)
    other.lm_head.weight.data.add_(1)
    other.save_pretrained(finished.parent / "other")
    build_text_tokenizer().save_pretrained(finished.parent / "other")
    arguments = ["eval", str(finished.parent / "other"), "--benchmarks", f"aime24={problems[0]}", *rest]
    assert main(arguments) == 2  # another model in the same run
    assert "was sampled with" in capsys.readouterr().err and not (finished / "aime24").exists()


def test_adapters_are_found(model, tmp_path):
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(model),
        peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False),
    )
    adapted.save_pretrained(tmp_path / "adapter")
    weights = {"plain": load_engine(model).describe()["weights"]}
    for name, engine in {
        "folder": load_engine(str(tmp_path / "adapter")),
        "option": load_engine(model, adapter=str(tmp_path / "adapter")),
    }.items():
        saved = adapted.state_dict()
        for key, value in engine.model.state_dict().items():
            assert value.equal(saved[key])
        weights[name] = engine.describe()["weights"]
    assert weights["folder"] == weights["option"] != weights["plain"]
    with pytest.raises(ValueError, match="is itself an adapter"):
        load_engine(str(tmp_path / "adapter"), adapter=str(tmp_path / "adapter"))
    config = tmp_path / "adapter/adapter_config.json"
    config.write_text(
        json.dumps(json.loads(config.read_bytes()) | {"base_model_name_or_path": None}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="does not say what its base model is: name both"):
        load_engine(str(tmp_path / "adapter"))
    assert load_engine(model, adapter=str(tmp_path / "adapter")).describe()["weights"] == weights["folder"]


KINDS = {
    "resized": {},
    "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "trainable_token_indices": {"trainable_token_indices": [264, 265]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_adapters_trained_with_added_tokens(model, tmp_path, kind):
    peft = pytest.importorskip("peft")
    tokenizer = build_text_tokenizer()
    assert len(tokenizer) == 264 and tokenizer.add_tokens(["<new1>", "<new2>"]) == 2
    base = AutoModelForCausalLM.from_pretrained(model)
    base.resize_token_embeddings(len(tokenizer))
    config = peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False, **KINDS[kind])
    trained = peft.get_peft_model(base, config).eval()
    with torch.no_grad():
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    trained.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    first, second = load_engine(str(tmp_path)), load_engine(model, adapter=str(tmp_path))
    ids = torch.tensor([tokenizer("1+1=<new1><new2>")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(first.model(ids).logits, trained(ids).logits)
        assert torch.equal(second.model(ids).logits, trained(ids).logits)
    assert first.describe()["weights"] == second.describe()["weights"]  # no row is random
    assert len(first.tokenizer) == 266
    with pytest.raises(ValueError, match="--engine vllm takes only the LoRA weights of an adapter"):
        load_engine(str(tmp_path), engine="vllm")


def test_adapters_without_the_rows_of_added_tokens(model, tmp_path):
    peft = pytest.importorskip("peft")
    tokenizer = build_text_tokenizer()
    tokenizer.add_tokens(["<new1>"])
    adapted = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(model), peft.LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM")
    )
    adapted.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    engine = load_engine(str(tmp_path))  # the tokenizer has a token that the model has no row for
    engine.check(["1+1="])
    with pytest.raises(ValueError, match="Prompt 1 has token 264, but the model has 264 rows of embeddings"):
        engine.check(["1+1=", "1+1=<new1>"])


def test_models_without_eyes_are_refused(model):
    with pytest.raises(ValueError, match="has images, but .* takes only text"):
        load_engine(model, images=True)


def test_a_server_needs_no_model():
    engine = load_engine("name", base_url="http://localhost:9/v1")
    assert engine.describe()["model"] == "name"


def test_eval_on_two_processes_is_eval_on_one(model, problems, finished, tmp_path):
    launch("command_line.py", *command(model, problems, tmp_path), processes=2)
    assert sorted(path.name for path in (tmp_path / "amc23").glob("samples-*")) == [
        "samples-0.jsonl",
        "samples-1.jsonl",
    ]
    for name, counts in load_results(finished).items():
        both = load_results(tmp_path)[name]
        assert both.problem_ids == counts.problem_ids and both.num_correct.tolist() == counts.num_correct.tolist()


@pytest.mark.skipif(not AMC23.exists(), reason="the file of AMC23 is not here")
def test_amc23_end_to_end(model, tmp_path, capsys):
    arguments = ["--num-samples", "2", "--max-new-tokens", "4", "--output-dir", str(tmp_path), "--top-p", "0.95"]
    assert main(["eval", model, "--benchmarks", f"amc23={AMC23}", *arguments]) == 0
    saved = json.loads((tmp_path / "results.json").read_text())["benchmarks"]["amc23"]
    assert saved["num_problems"] == 40 and saved["num_unscorable_problems"] == 0
    assert list(saved["pass_at_k"]) == ["1", "2"] and saved["settings"]["top_p"] == 0.95
    problems = [json.loads(line)["row"] for line in (tmp_path / "amc23/problems.jsonl").read_text().splitlines()]
    assert problems[0]["answer"] == "27" and "Alicia bikes" in problems[0]["prompt"][-1]["content"]
    assert "amc23" in capsys.readouterr().out
    assert main(["compare", str(tmp_path), str(tmp_path)]) == 0
