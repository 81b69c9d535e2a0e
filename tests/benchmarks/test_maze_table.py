"""The maze table: every method trains, and cells are skipped, retried and ended with their runner."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import maze_cell as cells
import maze_methods as methods
import maze_plan as plans
import maze_table as table
import pytest
from maze_files import write_cell

from rlvr_trl.testbed import build_tokenizer, demonstrations
from rlvr_trl.testbed.methods import make_method_trainer


pytestmark = pytest.mark.slow


BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
Cell, TABLE = plans.Cell, methods.TABLE


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The folder with the base model of the smoke."""
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
    trainer = make_method_trainer(method, base, tmp_path, mazes, seed=0, **settings)
    trainer.train()
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == trainer.state.global_step == 2
    assert all(math.isfinite(entry["loss"]) for entry in log) and any(entry["grad_norm"] > 0 for entry in log)


def test_the_same_rollouts_for_all_that_do_not_sample_more():
    scale = plans.SCALES["4x4"]
    for name, method in TABLE.items():
        batches = cells.num_batches(Cell("4x4", name, 0, 0), Path("unused"))
        rollouts = batches * method.prompts_per_batch * method.recipe["num_generations"]
        assert methods.samples_more(method) or rollouts == scale.batches * 16 * 16, name
    assert methods.samples_more(TABLE["depth_naive"]) and not methods.samples_more(TABLE["breadth_naive"])


def test_the_model_for_a_gpu_has_its_size_and_its_mazes_can_be_shown():
    scale = plans.SCALES["9x9"]
    model = cells.build(scale.model, build_tokenizer(), seed=0)
    assert 10e6 < model.num_parameters() < 100e6 and len(model.model.layers) == len(model.config.layer_types) == 8
    assert len(demonstrations(cells.held_out("9x9")["validation"]["maze"], 50)) == 50


def test_the_chain_for_a_gpu_runs_in_the_small(tmp_path, monkeypatch):
    few = {"warmup_mazes": 50, "batches": 4, "test_mazes": 4, "samples": 4, "dynamics_mazes": 2, "other_mazes": 2}
    sizes = plans.SCALES["9x9"].model | {"hidden_size": 64, "intermediate_size": 64}
    warmup = {"steps": 2, "batch_size": 8, "learning_rate": 5e-4}
    monkeypatch.setitem(plans.SCALES, "9x9", replace(plans.SCALES["9x9"], model=sizes, warmup=warmup, **few))
    cells.held_out.cache_clear()
    plan = plans.plan("9x9", ("breadth_naive",), [0], [0], search=True)
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
        cell = Cell("4x4", method, plans.SEARCH_BASE, plans.SEARCH_SEED, f"rate-{factor}")
        write_cell(folder, cell, {"error": "NaN"} if score is None else {"score": score})


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
    assert cells.num_batches(plans.search_cells(Cell("4x4", method, 0, 0))[0], tmp_path) == batches


def test_a_failed_cell_is_recorded_skipped_and_retried(tmp_path, work, capfd):
    cell = Cell("smoke", "dars_hw", 0, 0, "equal")
    assert "missing or failed" in cells.run_and_write(cell, tmp_path, work)["error"]
    assert "missing or failed" in plans.read(cell.path(tmp_path))["error"]
    assert not table.Runner([cell], tmp_path, work, 1, None, retry=False).waiting
    assert table.Runner([cell], tmp_path, work, 1, None, retry=True).waiting == [cell]
    assert "ValueError" in capfd.readouterr().err


def test_a_cell_whose_updates_are_no_multiple_of_the_logging_steps(tmp_path, work, monkeypatch):
    monkeypatch.setitem(plans.SCALES, "smoke", replace(plans.SCALES["smoke"], batches=5))
    monkeypatch.setattr(cells, "LOG_POINTS", 2)
    saved = cells.run_and_write(Cell("smoke", "dars_hw", 0, 0), tmp_path, work)
    assert saved["log"]["step"] == [2, 4] and len(saved["log"]["grad_norm"]) == 2
    # The fifth update counts in the costs, although it is in no entry of the log
    assert saved["completions"] >= 5 * 16 * 8 and saved["tokens"] > 5 * 16 * 8 * 20


def test_a_cell_again_is_the_same(tmp_path, work, capsys):
    cell = Cell("smoke", "dapo", 0, 0)
    saved = cells.run_and_write(cell, tmp_path, work)
    assert saved["completions"] == 4 * 256 and saved["dynamics"]["step"] == [0, 2, 4]
    assert len(saved["test"]["num_correct"]) == 20 and {"3x3", "5x5"} < set(saved)
    assert plans.read(cell.path(tmp_path)) == saved
    assert table.check([cell], tmp_path, work, count=3, jobs=1)
    p = sum(saved["test"]["num_correct"]) / 160
    assert f"pass@1 is {p:.3f}, was {p:.3f} [" in capsys.readouterr().out
    saved["test"]["num_correct"] = [8] * 20
    plans.write(cell.path(tmp_path), saved)
    assert not table.check([cell], tmp_path, work, count=3, jobs=1)


def test_cells_of_other_settings_are_refused(tmp_path, work):
    cell = Cell("smoke", "dapo", 0, 0)
    write_cell(tmp_path, cell, {"scale": asdict(replace(plans.SCALES["smoke"], batches=5))})
    with pytest.raises(ValueError, match="smoke dapo base 0 seed 0 was run with batches=5, but now it is 4"):
        table.Runner([cell], tmp_path, work, 1, None, False)


def test_every_cell_comes_after_what_it_needs():
    plan = plans.plan("4x4", tuple(TABLE), [0, 1, 2], [0, 1], search=True)
    assert len(plan) == len(set(plan)) == 60 * (6 + 2) + 12 * 6 + 3
    for place, cell in enumerate(plan):
        assert plans.needed(cell) <= set(plan[:place])
    wave = [cell for cell in plan if cell.base != plans.SEARCH_BASE]
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
