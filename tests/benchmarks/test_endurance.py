"""benchmarks/endurance.py: kills are survived, what grew is on the page, and a difference is found."""

import copy
import json

import pytest
from running import ROOT, run_benchmark


FIGURES = json.loads((ROOT / "benchmarks/results/endurance.json").read_text(encoding="utf-8"))


def endure(*arguments, output):
    run_benchmark("endurance.py", *arguments, "--output", str(output), timeout=300)
    return json.loads(output.read_text(encoding="utf-8"))


@pytest.mark.parametrize("what", ["trainings", "evaluations"])
def test_killed_runs_end_the_same(tmp_path, what):
    figures = endure(what, "--kills", "1", output=tmp_path / "figures.json")[what]
    assert figures["kills"] == figures["the same"] == 1


def test_long_runs_are_watched(tmp_path):
    endure("dars", "--steps", "12", output=tmp_path / "figures.json")
    figures = endure("judgements", "--count", "300", output=tmp_path / "figures.json")
    assert [state["steps"] for state in figures["dars"]["states"]] == [2, 4, 6, 8, 10, 12]
    assert figures["judgements"]["workers"]["done"] >= 300
    for what in ("dars", "judgements"):
        assert figures[what]["states"][-1].keys() == FIGURES[what]["states"][-1].keys()


def test_a_difference_is_found(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import torch
    from endurance import of_a_log, same

    run = {"weights": {"w": torch.ones(2)}, "log": json.dumps(of_a_log([{"loss": 1.0, "train_runtime": 3.0}]))}
    assert same(run, copy.deepcopy(run)) and "runtime" not in run["log"]
    assert not same(run, run | {"weights": {"w": torch.tensor([1.0, 1.0000001])}})
    assert not same(run, run | {"log": run["log"].replace("1.0", "1.1")})


def test_committed_figures_have_no_loss():
    for what in ("trainings", "trainings on 2 processes", "evaluations"):
        assert FIGURES[what]["the same"] == FIGURES[what]["kills"]
    assert FIGURES["trainings"]["kills"] + FIGURES["trainings on 2 processes"]["kills"] >= 50
    assert FIGURES["evaluations"]["kills"] >= 20
    assert FIGURES["dars"]["states"][-1]["steps"] == 300
    assert FIGURES["judgements"]["states"][-1]["judgements"] >= 50_000


def test_figures_are_on_the_page():
    page = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    shown = {"dars": {50, 300}, "judgements": {5027, 25_030, 30_023, 50_020}}
    for what, done in shown.items():
        states = [state for state in FIGURES[what]["states"] if next(iter(state.values())) in done]
        assert len(states) == len(done)
        for state in states:
            _, resident, *counts = state.values()
            assert f"| {' | '.join(f'{figure:.0f}' for figure in (resident, *counts))} |" in page
