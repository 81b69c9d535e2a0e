"""The maze table: every method trains, cells resume and end with their runner, intervals and verdicts are right."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import maze_cell as cells
import maze_claims as claims
import maze_figures
import maze_methods as methods
import maze_report as report
import maze_results
import maze_statistics as statistics
import maze_table as table
import numpy as np
import pytest
from matplotlib.figure import Figure

from rlvr_trl.testbed import build_tokenizer, demonstrations
from rlvr_trl.testbed.methods import make_trainer


pytestmark = pytest.mark.slow


BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
Cell, TABLE = cells.Cell, methods.TABLE


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Where the base model of the smoke is."""
    folder = tmp_path_factory.mktemp("work")
    cells.base_model(Cell("smoke", "base", 0, 0), folder)
    return folder


# --- the methods ---


@pytest.mark.parametrize("name", TABLE)
def test_every_method_trains_two_updates(name, work, tmp_path):
    method = TABLE[name]
    batches = 2 // method.recipe.get("num_iterations", 1)
    cell = Cell("smoke", name, 0, 0)
    mazes = cells.training_mazes(cell, batches * method.prompts_per_batch)
    base, settings = cells.base_model(cell, work), {"logging_steps": 1, "disable_tqdm": True}
    trainer = make_trainer(method, base, tmp_path, mazes, seed=0, **settings)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == trainer.state.global_step == 2
    assert all(math.isfinite(entry["loss"]) for entry in log) and any(entry["grad_norm"] > 0 for entry in log)


def test_the_same_rollouts_for_all_that_do_not_sample_more():
    scale = cells.SCALES["4x4"]
    for name, method in TABLE.items():
        batches = cells.num_batches(Cell("4x4", name, 0, 0), Path("unused"))
        rollouts = batches * method.prompts_per_batch * method.recipe["num_generations"]
        assert methods.samples_more(method) or rollouts == scale.batches * 16 * 16, name
    assert methods.samples_more(TABLE["depth_naive"]) and not methods.samples_more(TABLE["breadth_naive"])


def test_the_model_for_a_gpu_has_its_size_and_its_mazes_can_be_shown():
    scale = cells.SCALES["9x9"]
    model = cells.build(scale.model, build_tokenizer(), seed=0)
    assert 10e6 < model.num_parameters() < 100e6 and len(model.model.layers) == len(model.config.layer_types) == 8
    assert len(demonstrations(cells.held_out("9x9")["validation"]["maze"], 50)) == 50


def test_the_chain_for_a_gpu_runs_in_the_small(tmp_path, monkeypatch):
    few = {"warmup_mazes": 50, "batches": 4, "test_mazes": 4, "samples": 4, "dynamics_mazes": 2, "other_mazes": 2}
    sizes = cells.SCALES["9x9"].model | {"hidden_size": 64, "intermediate_size": 64}
    warmup = {"steps": 2, "batch_size": 8, "learning_rate": 5e-4}
    monkeypatch.setitem(cells.SCALES, "9x9", replace(cells.SCALES["9x9"], model=sizes, warmup=warmup, **few))
    cells.held_out.cache_clear()
    plan = table.plan("9x9", ("breadth_naive",), [0], [0], search=True)
    assert [cell.method for cell in plan] == ["base", "breadth_naive"]
    saved = [cells.run_and_write(cell, tmp_path, tmp_path / "work") for cell in plan]
    cells.held_out.cache_clear()
    assert {"test", "7x7", "11x11"} < set(saved[0]) & set(saved[1])
    assert saved[1]["learning_rate"] == pytest.approx(1e-4)  # twice that of the others


def test_no_maze_is_in_two_sets():
    cell = Cell("smoke", "dapo", 0, 0)
    held_out = cells.held_out("smoke")
    sets = [held_out["test"]["maze"], held_out["validation"]["maze"], cells.warmup_mazes(cell)]
    sets.append(cells.training_mazes(cell, 50)["maze"])
    mazes = [maze for one in sets for maze in one]
    assert len(mazes) == len(set(mazes)) == 20 + 10 + 1000 + 50
    assert cells.training_mazes(cell, 20)["maze"][:] == sets[-1][:20]
    assert cells.training_mazes(replace(cell, seed=1), 20)["maze"][:] != sets[-1][:20]


# --- cells and the runner ---


def saved_search(folder, method, scores):
    for factor, score in scores.items():
        cell = Cell("4x4", method, cells.SEARCH_BASE, cells.SEARCH_SEED, f"rate-{factor}")
        write_cell(folder, cell, {"error": "NaN"} if score is None else {"score": score})


def write_cell(folder, cell, value):
    about = {"cell": asdict(cell), "scale": asdict(cells.SCALES[cell.scale]), "seconds": 1.0}
    cells.write(cell.path(folder), about | value)


def test_the_learning_rate_is_that_of_the_best_score(tmp_path):
    cell = Cell("5x5", "dapo", 0, 0)  # chosen on the other size
    assert cells.rate_factor(cell, tmp_path) == 1.0
    saved_search(tmp_path, "dapo", {0.5: 0.6, 1.0: 0.5})
    assert cells.rate_factor(cell, tmp_path) == 0.5
    saved_search(tmp_path, "dapo", {0.5: None, 1.0: 0.5})
    assert cells.rate_factor(cell, tmp_path) == 1.0
    saved_search(tmp_path, "dapo", {0.5: None, 1.0: None})
    with pytest.raises(ValueError, match="Every cell of the search for dapo failed"):
        cells.rate_factor(cell, tmp_path)


def test_batches_at_equal_rollouts(tmp_path):
    cell = Cell("4x4", "dars_hw", 0, 0)
    equal = replace(cell, variant="equal")
    with pytest.raises(ValueError, match="need the cell itself, which is missing or failed"):
        cells.num_batches(equal, tmp_path)
    write_cell(tmp_path, cell, {"completions": 64_000, "batches": 200})
    assert cells.num_batches(equal, tmp_path) == 160  # x 16 x 20 = 51,200


@pytest.mark.parametrize("method, batches", [("dapo", 100), ("breadth_naive", 25)])
def test_a_search_is_half_as_long(tmp_path, method, batches):
    assert cells.num_batches(cells.search_cells(Cell("4x4", method, 0, 0))[0], tmp_path) == batches


def test_a_failed_cell_is_recorded_skipped_and_retried(tmp_path, work, capfd):
    cell = Cell("smoke", "dars_hw", 0, 0, "equal")
    assert "missing or failed" in cells.run_and_write(cell, tmp_path, work)["error"]
    assert "missing or failed" in cells.read(cell.path(tmp_path))["error"]
    assert not table.Runner([cell], tmp_path, work, 1, None, retry=False).waiting
    assert table.Runner([cell], tmp_path, work, 1, None, retry=True).waiting == [cell]
    assert "ValueError" in capfd.readouterr().err


def test_a_cell_whose_updates_are_no_multiple_of_the_logging_steps(tmp_path, work, monkeypatch):
    monkeypatch.setitem(cells.SCALES, "smoke", replace(cells.SCALES["smoke"], batches=5))
    monkeypatch.setattr(cells, "LOG_POINTS", 2)
    saved = cells.run_and_write(Cell("smoke", "dars_hw", 0, 0), tmp_path, work)
    assert saved["log"]["step"] == [2, 4] and len(saved["log"]["grad_norm"]) == 2
    # The fifth update is in the costs, though in no entry of the log
    assert saved["completions"] >= 5 * 16 * 8 and saved["tokens"] > 5 * 16 * 8 * 20


def test_a_cell_again_is_the_same(tmp_path, work, capsys):
    cell = Cell("smoke", "dapo", 0, 0)
    saved = cells.run_and_write(cell, tmp_path, work)
    assert saved["completions"] == 4 * 256 and saved["dynamics"]["step"] == [0, 2, 4]
    assert len(saved["test"]["num_correct"]) == 20 and {"3x3", "5x5"} < set(saved)
    assert cells.read(cell.path(tmp_path)) == saved
    assert table.check([cell], tmp_path, work, count=3, jobs=1)
    p = sum(saved["test"]["num_correct"]) / 160
    assert f"pass@1 is {p:.3f}, was {p:.3f} [" in capsys.readouterr().out
    saved["test"]["num_correct"] = [8] * 20
    cells.write(cell.path(tmp_path), saved)
    assert not table.check([cell], tmp_path, work, count=3, jobs=1)


def test_cells_of_other_settings_are_refused(tmp_path, work):
    cell = Cell("smoke", "dapo", 0, 0)
    write_cell(tmp_path, cell, {"scale": asdict(replace(cells.SCALES["smoke"], batches=5))})
    with pytest.raises(ValueError, match="smoke dapo base 0 seed 0 was run with batches=5, but now it is 4"):
        table.Runner([cell], tmp_path, work, 1, None, False)


def test_every_cell_comes_after_what_it_needs():
    plan = table.plan("4x4", tuple(TABLE), [0, 1, 2], [0, 1], search=True)
    assert len(plan) == len(set(plan)) == 60 * (6 + 2) + 12 * 6 + 3
    for place, cell in enumerate(plan):
        assert table.needed(cell) <= set(plan[:place])
    wave = [cell for cell in plan if cell.base != cells.SEARCH_BASE]
    assert {cell.method for cell in wave[: 60 + 12 + 1]} == {"base", *TABLE}


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def is_running(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_cells_end_with_their_runner_and_leave_no_result(how, tmp_path):
    options = ["--only", "dapo", "--sizes", "4x4", "--results", tmp_path / "results", "--work", tmp_path / "work"]
    with open(tmp_path / "log", "w") as log:
        runner = subprocess.Popen(
            [sys.executable, BENCHMARKS / "maze_table.py", *options],
            env=os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)},
            stdout=log,
            stderr=log,
        )
    try:
        deadline = time.monotonic() + 60
        while len(running := children(runner.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert len(running) == 2, (tmp_path / "log").read_text()
        runner.send_signal(how)
        runner.wait(timeout=20)
        while any(map(is_running, running)) and time.monotonic() < deadline + 20:
            time.sleep(0.2)
        assert not any(map(is_running, running))
    finally:
        runner.kill()
        runner.wait()
    assert not list(tmp_path.glob("results/**/*.json"))


# --- statistics ---


def test_interval_of_two_runs_and_two_mazes():
    # 4 x 4 equally likely sets of runs and mazes. One in 16 holds one run and one maze only: more than 2.5 % each, so
    # that the ends are the smallest and the largest value.
    values = np.array([[0.1, 0.7], [0.3, 0.6]])
    assert statistics.mean_and_interval(values, ((0, 0), (1, 0))) == pytest.approx((0.425, 0.1, 0.7))
    # Seeds of one base model are drawn alike; a single run has an interval over mazes.
    assert statistics.mean_and_interval(values, ((0, 0), (0, 1))) == pytest.approx((0.425, 0.1, 0.7))
    assert statistics.mean_and_interval(values[:1], ((0, 0),)) == pytest.approx((0.4, 0.1, 0.7))
    with pytest.raises(ValueError, match="has 2 rows, but one for each"):
        statistics.mean_and_interval(values, ((0, 0),))


def test_base_models_weigh_the_same():
    mean, low, high = statistics.mean_and_interval(np.array([0.0, 0.0, 1.0]), ((0, 0), (0, 1), (1, 0)))
    assert (mean, low, high) == (0.5, 0.0, 1.0)


def test_interval_covers():
    rng, runs = np.random.default_rng(0), tuple((base, seed) for base in range(12) for seed in range(2))
    covered = 0
    for _ in range(200):
        base, run = rng.normal(0, 0.1, 12).repeat(2), rng.normal(0, 0.05, 24)
        values = (base + run)[:, None] + rng.normal(0, 0.3, 60) + rng.normal(0, 0.3, (24, 60))
        _, low, high = statistics.mean_and_interval(values, runs)
        covered += low <= 0 <= high
    assert 0.9 <= covered / 200 <= 1


@pytest.mark.parametrize(
    ("low", "high", "expected", "outcome"),
    [
        (0.01, 0.1, "higher", "reproduced"),
        (-0.1, -0.01, "higher", "opposite"),
        (-0.01, 0.1, "higher", "not reproduced"),
        (-0.1, -0.01, "lower", "reproduced"),
        (0.01, 0.1, "lower", "opposite"),
        (0.0, 0.0, "lower", "not reproduced"),
        (-0.01, 0.1, "not lower", "reproduced"),
        (-0.03, 0.1, "not lower", "not reproduced"),
        (-0.1, -0.03, "not lower", "opposite"),
    ],
)
def test_verdicts(low, high, expected, outcome):
    assert claims.verdict(low, high, expected) == outcome


# --- the report ---


def measured(num_correct, samples=64):
    means = dict.fromkeys(("token_entropy", "answer_entropy", "wrong_answer_diversity"), 0.5)
    return {"mazes": "m", "num_samples": samples, "num_correct": list(map(int, num_correct)), **means}


def write_run(folder, cell, num_correct):
    value = {"test": measured(num_correct), "3x3": measured([1, 2]), "5x5": measured([0, 1])}
    value |= {"versions": {"torch": "2"}, "device": "x86_64"}
    if cell.method != "base":
        value |= {"completions": 51_200, "tokens": 10**6, "batches": 200, "learning_rate": 2e-4}
        value["log"] = {"step": [100, 200], "reward": [0.1, 0.2], "entropy": [0.6, 0.5]}
        value["dynamics"] = {"step": [0, 200], "eval_pass@1": [0.1, 0.2], "eval_pass@32": [0.7, 0.6]}
    write_cell(folder, cell, value)


@pytest.fixture
def made_up(tmp_path):
    """Pass@8 solves all mazes rarely, DAPO half of them often; nothing else was run but GRPO once."""
    rng, runs = np.random.default_rng(0), [(base, seed) for base in range(3) for seed in range(2)]
    for base, seed in runs:
        write_run(tmp_path, Cell("4x4", "base", base, 0), rng.integers(2, 5, 40))
        write_run(tmp_path, Cell("4x4", "dapo", base, seed), np.where(np.arange(40) < 20, 50, 0))
        write_run(tmp_path, Cell("4x4", "pass_at_8", base, seed), rng.integers(8, 12, 40))
    write_run(tmp_path, Cell("4x4", "grpo", 0, 0), np.full(40, 5))
    write_cell(tmp_path, Cell("4x4", "nsr", 0, 0), {"error": "ValueError: the loss is NaN"})
    return tmp_path


def test_report_judges_what_there_is_and_says_what_is_missing(made_up, tmp_path):
    results = maze_results.Results(made_up, "4x4")
    by_sentence = {(claim.a, claim.b, claim.metric): report.judge(results, claim) for claim in claims.CLAIMS}
    outcome, figure = by_sentence["pass_at_8", "dapo", "pass@32"]
    assert outcome == "reproduced" and figure.endswith("6 runs")
    assert by_sentence["pass_at_8", "dapo", "pass@1"][0] == "opposite"
    assert by_sentence["grpo", "base", "pass@64"][0] == "not reproduced"
    assert by_sentence["pass_at_8", "dapo", "token_entropy"][0] == "not reproduced"
    assert by_sentence["grpo", "base", "pass@1"][1].endswith("1 run")
    assert by_sentence["dars_hw", "dr_grpo", "pass@32"] == ("missing", "no run of dars_hw or dr_grpo")

    page = report.make_report(made_up, tmp_path / "docs", ["4x4", "5x5"])
    text = page.read_text()
    assert "**Failed**: 4x4 nsr base 0 seed 0: ValueError: the loss is NaN" in text
    assert "dars_hw (14)" in text and "5×5\n" not in text  # 6 runs, 6 at equal rollouts, 2 of the search
    assert "| DAPO | 6 |" in text and "0.391 ±" in text
    for name in ("curves", "dynamics", "entropy", "end"):
        assert (tmp_path / "docs" / "images" / f"results_4x4_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert report.make_report(made_up, tmp_path / "docs", ["4x4", "5x5"]).read_text() == text


def test_the_best_are_chosen_on_one_half_of_the_mazes_and_measured_on_the_other(made_up):
    lines = report.best_table(maze_results.Results(made_up, "4x4")).splitlines()[2:]
    best = [line.split(" | ")[2:4] for line in lines if line.split(" | ")[1] == "1"]
    assert [name for name, _ in best] == ["DAPO", "Pass@8", "Pass@8"]
    # Three base models with two seeds: the mean over the mazes with an odd number
    runs = [(base, seed) for base in range(3) for seed in range(2)]
    counts = [cells.read(Cell("4x4", "dapo", *run).path(made_up))["test"]["num_correct"][1::2] for run in runs]
    assert best[0][1] == f"{np.mean(counts) / 64:.3f}"


def test_differences_to_dapo_and_the_base_model(made_up):
    results = maze_results.Results(made_up, "4x4")
    header, _, *lines = (
        [part.strip() for part in line.split("|")[1:-1]] for line in report.against_table(results).splitlines()
    )
    assert header[1:] == [
        *(f"{m} minus DAPO" for m in ("pass@1", "pass@32", "whole curve")),
        "pass@32 minus base model",
    ]
    # Highest curve first, of those with all runs
    assert [line[0] for line in lines] == ["Pass@8", "DAPO", "base model"]
    for line, row in zip(lines, ("pass_at_8", "dapo", "base"), strict=True):
        for column, metric, other in ((1, "pass@1", "dapo"), (2, "pass@32", "dapo"), (4, "pass@32", "base")):
            mean, low, high, _ = results.difference(row, other, metric)
            assert line[column] == ("" if row == other else f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]")


def test_run_by_run(made_up):
    lines = report.runs_table(maze_results.Results(made_up, "4x4")).splitlines()
    header, base, pass_at_8 = (line.strip("| ").split(" | ") for line in (lines[0], *lines[2:]))
    assert header == ["minus DAPO, pass@1 and pass@32", *(f"base {b}, seed {s}" for b in range(3) for s in range(2))]
    assert base[0] == "base model" and pass_at_8[0] == "Pass@8"
    for run, found in zip([(b, s) for b in range(3) for s in range(2)], pass_at_8[1:], strict=True):
        correct = cells.read(Cell("4x4", "pass_at_8", *run).path(made_up))["test"]["num_correct"]
        at_1, at_32 = map(float, found.split(", "))
        assert at_1 == pytest.approx(np.mean(correct) / 64 - 25 / 64, abs=1e-3) and at_32 > 0.4


def test_a_collapsed_method_is_named_outside_of_the_figure(made_up):
    write_run(made_up, Cell("4x4", "gspo_n", 0, 0), [1] + [0] * 39)
    axes = Figure().subplots()
    maze_figures.draw_end(axes, maze_results.Results(made_up, "4x4"), ["dapo"], 32)
    assert axes.get_title() == "All methods at the end; outside: GSPO-N, two updates a batch (0.00, 0.01)"
    assert len(axes.collections) == 4 and axes.get_xlim()[0] > 0.01  # the base model, DAPO, Pass@8, GRPO


def test_tables_have_the_runs_that_all_methods_have(tmp_path, monkeypatch):
    monkeypatch.setitem(maze_results.METHODS_OF, "4x4", ("dapo", "nsr"))
    for base, seed in [(0, 0), (0, 1), (1, 0)]:
        write_run(tmp_path, Cell("4x4", "base", base, 0), np.full(4, 5))
        write_run(tmp_path, Cell("4x4", "dapo", base, seed), np.full(4, 9))
    write_run(tmp_path, Cell("4x4", "nsr", 0, 0), np.full(4, 9))
    assert len(maze_results.Results(tmp_path, "4x4").rows["dapo"]) == 1
    write_cell(tmp_path, Cell("4x4", "nsr", 0, 1), {"error": "a failed run is not a missing one"})
    results = maze_results.Results(tmp_path, "4x4")
    assert results.runs == [(0, 0), (0, 1)] and [len(results.rows[row]) for row in ("base", "dapo", "nsr")] == [
        1,
        2,
        1,
    ]


def test_rows_of_equal_rollouts(made_up):
    rows = maze_results.at_equal_rollouts(maze_results.Results(made_up, "4x4"))
    assert rows == ["dapo", "pass_at_8"]  # not GRPO, which has one run
    write_run(made_up, Cell("4x4", "dars_hw", 0, 0), np.full(40, 5))
    for base, seed in [(base, seed) for base in range(3) for seed in range(2)]:
        write_run(made_up, Cell("4x4", "dars_hw", base, seed, "equal"), np.full(40, 5))
    assert maze_results.at_equal_rollouts(maze_results.Results(made_up, "4x4")) == [*rows, "dars_hw:equal"]


def test_the_readme_gets_its_table(made_up, tmp_path):
    readme, results = tmp_path / "README.md", maze_results.Results(made_up, "4x4")
    readme.write_text("# Title\n")
    with pytest.raises(ValueError, match="has no place for the table"):
        report.update_readme(readme, results)
    readme.write_text(f"# Title\n\n{report.BEGIN}\nold\n{report.END}\n\nThe rest\n")
    report.update_readme(readme, results)
    text = readme.read_text()
    assert text.startswith("# Title\n") and text.endswith("The rest\n") and "old" not in text
    assert "| DAPO | 0.391 ±" in text and "Runs of each: 6. Base models: 3." in text


def test_page_and_readme_are_of_the_committed_results(tmp_path):
    root = Path(table.HERE).parent
    page = report.make_report(table.RESULTS, tmp_path, ["4x4", "5x5", "9x9"])
    again = "Run python benchmarks/maze_report.py, and commit what it writes."
    assert page.read_text() == (root / "docs/results.md").read_text(), again
    readme = tmp_path / "README.md"
    readme.write_text((root / "README.md").read_text())
    report.update_readme(readme, maze_results.Results(table.RESULTS, report.HEADLINE_SIZE))
    assert readme.read_text() == (root / "README.md").read_text(), again


def test_report_of_nothing_and_of_different_mazes(made_up, tmp_path):
    with pytest.raises(ValueError, match="holds no finished cell of 5x5"):
        report.make_report(made_up, tmp_path / "docs", ["5x5"])
    other = measured([1] * 40) | {"mazes": "others"}
    write_cell(made_up, Cell("4x4", "dr_grpo", 0, 0), {"test": other})
    with pytest.raises(ValueError, match=r"4x4 were tested on different mazes: \['m', 'others'\]"):
        maze_results.Results(made_up, "4x4")
