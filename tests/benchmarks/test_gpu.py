"""What is to run on a GPU is rehearsed on a CPU at toy size, and its page is of the results that are committed."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from gpu import report


ROOT = Path(__file__).parents[2]
RUN = ROOT / "benchmarks/gpu/run.py"


def numbers_and_text(page: str) -> tuple[list[float], list[str]]:
    pattern = r"[-+]?\d[\d,]*\.?\d*(?:e[-+]\d+)?"
    found = [float(number.replace(",", "")) for number in re.findall(pattern, page)]
    return found, re.split(pattern, page)


def test_page_is_of_the_committed_results():
    expected, text = numbers_and_text(report.page(report.committed()))
    found, written = numbers_and_text(report.PAGE.read_text())
    assert written == text and found == pytest.approx(expected)


def test_page_says_where_there_is_no_result():
    assert "there is no result" in report.page([])
    card = {"name": "A card", "memory_gib": 80.0}
    about = {"card": card, "cores": 16, "versions": {"torch": "2.11.0"}, "runs": []}
    lost = {"part": 2, "status": "out of time", "seconds": 65.0, "run": 1, "results": {"settings": {}}}
    page = report.page([about | {"steps": {"optimizer": lost, "mazes": lost | {"error": "a | b"}}}])
    assert page.count(report.NONE) == 7  # four parts without a step, two steps without a table, one step left out
    assert "`optimizer` is out of time after 65 s." in page and "a / b" in page


@pytest.mark.slow
def test_every_part_runs_at_toy_size(tmp_path):
    output = tmp_path / "toy.json"
    done = subprocess.run(
        [sys.executable, str(RUN), "--size", "toy", "--budget", "900", "--output", str(output)],
        cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr + output.with_suffix(".log").read_text()[-3000:]
    results = json.loads(output.read_text())
    assert all(step["status"] == "done" for step in results["steps"].values())
    assert report.NONE not in report.tables(results) and report.tables(results) in done.stdout
    steps = {name: step["results"] for name, step in results["steps"].items()}
    if results["card"] is None:
        assert steps["tests"]["pieces"]["skipped"] > 50 and not steps["tests"]["pieces"]["failed"]
    assert all(row["to_float64"] < 1e-5 for row in steps["gradients_float32"]["errors"])
    assert len(steps["gradients_bfloat16"]["errors"]) == 7
    assert all(row["to_float64"] < 0.1 for row in steps["gradients_bfloat16"]["errors"])
    assert set(steps["optimizer"]) == {"settings", "log-normal", "equal"}
    assert set(steps["optimizer_checkpointing"]) == {"settings", "log-normal"}
    for row in steps["optimizer"]["log-normal"]["variants"].values():
        assert row["error_to_reference"] < 1e-5
    for name, lengths in (("optimizer", "equal"), ("optimizer_checkpointing", "log-normal")):
        assert all(row["gradient_error"] < 1e-5 for row in steps[name][lengths]["variants"].values())
    if results["card"] is None:
        kernels = [found for row in steps["attention"]["calls"] for found in row["kernels"].values()]
        assert kernels and all(found["output"] == 0 and found["gradients"] == [0, 0, 0] for found in kernels)
        passes = [one for row in steps["attention"]["passes"] for one in row["preferred"] + row["without_cudnn"]]
        assert passes and all(one["parameters"] == 0 for one in passes)
    assert all(row["difference"] < 1e-4 for row in steps["estimators"]["estimators"])
    methods = steps["mazes"]["methods"]
    assert list(methods) == ["base", "grpo", "pass_at_8", "dars_hw"] and methods["dars_hw"]["steps"] > 0
    assert steps["continuous_batching"]["tokens_per_second"]["tokens"] == 16
    with pytest.raises(ValueError, match="size 'toy'"):
        report.take_in(output, tmp_path / "results")


def raises(save):
    save("before", 1)
    raise RuntimeError("no memory left")


def hangs(save):
    save("before", 1)
    time.sleep(1000)


def dies(save):
    save("before", 1)
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("call", "budget", "status", "error"),
    [
        (raises, 120.0, "failed", "RuntimeError: no memory left"),
        (hangs, 5.0, "out of time", ""),
        (dies, 120.0, "failed", "exit code -9"),
    ],
)
def test_a_step_that_fails_is_recorded_with_what_it_had(call, budget, status, error, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PYTHONPATH", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    from gpu import run

    begin, shown = time.monotonic(), []
    context = multiprocessing.get_context("fork")
    row = run.supervise(context, call, budget, tmp_path / "log", shown.append)
    assert row["status"] == status and error in row.get("error", "") and row["results"] == {"before": 1}
    assert time.monotonic() - begin < 60


def test_a_card_keeps_the_steps_of_earlier_runs(tmp_path):
    about = {
        "size": "card",
        "card": {"name": "NVIDIA H100 80GB HBM3"},
        "command": "run",
        "date": "today",
        "seconds": 1,
    }
    about |= {"commit": None, "cores": 16, "versions": {}}
    done, lost = {"status": "done"}, {"status": "out of time"}
    runs = {"first": {"mazes": done, "tests": done, "optimizer": lost}, "second": {"mazes": done, "tests": lost}}
    for name, steps in (runs | {"third": {"optimizer": lost}}).items():
        (tmp_path / name).write_text(json.dumps(about | {"steps": steps}))
        target = report.take_in(tmp_path / name, tmp_path / "results", note=f"the {name}")
    assert target.name == "nvidia-h100-80gb-hbm3.json"
    merged = json.loads(target.read_text())
    assert {name: step["run"] for name, step in merged["steps"].items()} == {"mazes": 2, "tests": 1, "optimizer": 3}
    assert [run["note"] for run in merged["runs"]] == ["the first", "the second", "the third"]
