"""`rlvr-trl bench`: methods of a user's own, their plan and budget, and their place among the published ones."""

import importlib
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
from launching import SCRIPTS, environment
from safetensors.torch import save_file
from tiny_bench import TINY

from rlvr_trl import RLVRConfig
from rlvr_trl.cli import main
from rlvr_trl.evaluation import pass_at_k
from rlvr_trl.testbed import TASKS, build_model
from rlvr_trl.testbed.bench import (
    Budget,
    OwnStore,
    Published,
    Selection,
    published_folder,
    read_duration,
    run_bench,
)
from rlvr_trl.testbed.bench_report import PAGE, PICTURE, Report, write_report
from rlvr_trl.testbed.cell_runner import Store
from rlvr_trl.testbed.cells import BASE, Cell, run_cell
from rlvr_trl.testbed.comparison_methods import METHODS, RECIPE
from rlvr_trl.testbed.intervals import estimate
from rlvr_trl.testbed.outcomes import CURVE
from rlvr_trl.testbed.own_methods import changed_sources, digests_of_sources, own_methods


DAPO = "DAPO without dynamic sampling"  # the label of a published row
IDEAS = """
import functools
from dataclasses import dataclass

import torch
from rlvr_trl.advantages import AdvantageEstimator, GroupRelative, NestedEstimator
from rlvr_trl.rollouts import DARS

SCALE = 2.0


def scaled(groups):
    return SCALE * halved(groups)


def halved(groups):
    return centred(groups) / 2


def centred(groups):
    return groups.rewards - (groups.sum(groups.rewards) / groups.sizes)[groups.index]


@dataclass(frozen=True)
class Clipped(NestedEstimator):
    base: AdvantageEstimator = GroupRelative()
    limit: float = 1.0

    def __call__(self, groups):
        return self.base(groups).clamp(-self.limit, self.limit)


narrow = Clipped(limit=0.5)
part = functools.partial(scaled)


@functools.cache
def share():
    return 0.5


@torch.no_grad()
def weighted(groups):
    return share() * groups.rewards


class Wider(DARS):
    pass


def broken(groups):
    raise KeyError("no such thing")


text = "no function"
"""


@pytest.fixture
def ideas(tmp_path, monkeypatch):
    """The module `ideas`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "ideas.py").write_text(IDEAS, encoding="utf-8")
    yield tmp_path
    sys.modules.pop("ideas", None)


# --- methods ---


def test_methods_and_their_labels(ideas):
    nested = "{name: ideas.Clipped, base: {name: pass_at_k, k: 4}, limit: 0.5}"
    stages = "{name: scheduled, stages: [[0.0, ideas.scaled], [0.5, nsr]]}"
    (ideas / "methods.yaml").write_text(
        "mine, other loss: {advantages: ideas.narrow, loss_type: grpo, epsilon_high: 0.2, num_generations: 32}\n",
        encoding="utf-8",
    )
    methods = own_methods(["ideas.scaled", nested, stages, "nsr", "ideas.part"], config="methods.yaml")
    assert list(methods) == [
        "scaled",
        "Clipped(base=pass_at_k(k=4), limit=0.5)",
        "scheduled(stages=[[0.0, scaled], [0.5, nsr]])",
        "nsr (yours)",
        "part",
        "mine, other loss",
    ]
    assert all(method.label == label for label, method in methods.items())
    assert all(method.settings.items() >= RECIPE.items() for method in methods.values())
    last = methods["mine, other loss"]
    assert last.settings["num_generations"] == 32 and last.settings["epsilon_high"] == 0.2
    assert list(methods["scaled"].sources) == ["ideas.scaled"] and not methods["nsr (yours)"].sources
    assert list(methods["scheduled(stages=[[0.0, scaled], [0.5, nsr]])"].sources) == ["ideas.scaled"]
    on_cpu = {"output_dir": "out", "use_cpu": True, "max_steps": 1}
    for method in methods.values():
        json.dumps(method.settings)
        assert RLVRConfig(**method.recipe, **on_cpu).build_advantages() is not None


def test_allocators(ideas):
    assert list(own_methods(rollouts="ideas.Wider")) == ["Wider"]
    spec = "{name: dars, max_generations: 64}"
    methods = own_methods(["ideas.scaled", "nsr"], rollouts=spec)
    assert list(methods) == ["scaled with dars(max_generations=64)", "nsr with dars(max_generations=64)"]
    assert methods["nsr with dars(max_generations=64)"].settings["rollouts"] == {"name": "dars", "max_generations": 64}
    assert list(own_methods(rollouts="ideas.Wider")["Wider"].sources) == ["ideas.Wider"]


def test_two_of_one_name_have_whole_paths(ideas):
    (ideas / "others.py").write_text("from ideas import centred as scaled\n", encoding="utf-8")
    assert list(own_methods(["ideas.scaled", "others.scaled"])) == ["ideas.scaled", "others.scaled"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "There is nothing to train: name an advantage estimator, such as my_module.my_estimator"),
        (["ideas.scalled"], "'ideas.scalled': the module ideas (.*) has no 'scalled'. Did you mean 'scaled'?"),
        (["ideas.text"], "Advantage estimator 'ideas.text' cannot be called: text in the module ideas"),
        (["idea.scaled"], "there is no module 'idea', neither installed nor in"),
        (["pass_at_k"], "Advantage estimator 'pass_at_k' needs the field 'k'"),
        (["pass_at_q"], "Unknown advantage estimator 'pass_at_q'. Did you mean 'pass_at_k'?"),
        (["{name: ideas.Clipped, limits: 1}"], "'ideas.Clipped' has no field 'limits'. Did you mean 'limit'?"),
        (["{name: a_grae, base: {name: pass_at_k, k: 0}}"], "`k` must be an integer of at least 1, got 0"),
        (["{name: pass_at_k, k: 32}"], "num_generations"),
        (["{name: ["], "The advantage estimator '{name: [' is neither YAML nor JSON"),
        (["ideas.scaled", "ideas.scaled"], "Two methods have the label 'ideas.scaled'."),
        (["ideas.scaled", "--rollouts", "ideas.scaled"], "has no max_generations, start_batch, state_dict"),
        (["--rollouts", "{name: dars, max_generations: 8}"], "allows 8 completions a prompt, but the first stage"),
        (["--config", "none.yaml"], "The file of methods is 'none.yaml', but there is no such file"),
        (["--config", "x: nsr"], "The method 'x' of own.yaml must be a mapping of settings, such as {advantages: my_"),
        (["--config", "x: {advantage: nsr}"], "'x' has an unknown setting 'advantage'. Did you mean 'advantages'?"),
        (["--config", "x: {loss_type: grpo2}"], "`loss_type` must be one of"),
        (["--config", "x: {learning_rate: 1e-3}"], "sets 'learning_rate', which it must not: the option --rates"),
        (["--config", "x: {prompts_per_batch: many}"], "invalid int value: 'many'"),
        (
            ["--config", "x: {prompts_per_batch: null, prompts_per_update: null}"],
            "`prompts_per_batch` must be a number",
        ),
        (
            ["--config", "x: {prompts_per_batch: 1600, num_generations: 32}"],
            r"is 51,200 completions in one batch, and a published cell has 25,600 in all",
        ),
        (["--config", "x: {epsilon_high: .inf}"], "not JSON compliant"),
        (["--config", "GRPO: {advantages: nsr}"], "The label 'GRPO' is that of a published row. Choose another."),
        (["--config", "'a\\nb': {advantages: nsr}"], None),
        (["--config", '"a\\u001b[2J": {advantages: nsr}'], "A label must be a line of text that can be printed"),
        (["--config", "x: {rollouts: dars}", "--rollouts", "dars"], "has rollouts of its own: leave out --rollouts"),
        (["nsr", "--tasks", "mase"], "--tasks mase is not published. Did you mean 'maze'?"),
        (["nsr", "--bases", "7"], "--bases 7 is not published. There are 0, 1, 2."),
        (["nsr", "--rates", "3e-4"], "--rates 0.0003 is not published. There are 5e-05, 0.0001, 0.0002."),
        (["nsr", "--bases", "0", "0"], "--bases names one twice: 0, 0."),
        (["nsr", "--budget", "20"], "--budget must be a time such as 90s, 20m or 1.5h, got '20'."),
        (["nsr", "--budget", "0m"], "--budget must be a time such as"),
        (["nsr", "--jobs", "0"], "`--jobs` must be an integer of at least 1, got 0."),
        (["nsr", "--published", "."], "'.' holds no base model of a comparison, such as bases/maze-0.safetensors."),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments, message, ideas, capsys):
    if "--config" in arguments and not arguments[arguments.index("--config") + 1].endswith(".yaml"):
        place = arguments.index("--config") + 1
        (ideas / "own.yaml").write_text(arguments[place], encoding="utf-8")
        arguments = [*arguments[:place], "own.yaml", *arguments[place + 1 :]]
    if message is None:
        assert list(own_methods(config="own.yaml")) == ["a\\nb"]  # single quotes: no line break
        return
    assert main(["bench", *arguments]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("rlvr-trl: ")
    before, _, after = message.partition("(.*)")
    assert before in error and after in error, error
    assert not (ideas / "rlvr-bench").exists()


# --- what code a method is ---


def digests(spec):
    sys.modules.pop("ideas", None)
    importlib.invalidate_caches()
    return digests_of_sources({"advantages": spec})


@pytest.mark.parametrize(
    ("path", "old", "new", "changes"),
    [
        ("ideas.scaled", "return SCALE * halved", "return -SCALE * halved", True),
        ("ideas.scaled", "SCALE = 2.0", "SCALE = 3.0", True),
        ("ideas.scaled", "groups.rewards - ", "groups.correct - ", True),  # two functions down
        ("ideas.part", "groups.rewards - ", "groups.correct - ", True),
        ("ideas.scaled", "limit: float = 1.0", "limit: float = 2.0", False),
        ("ideas.Clipped", "limit: float = 1.0", "limit: float = 2.0", True),
        ("ideas.narrow", "limit=0.5", "limit=0.6", True),
        ("ideas.Clipped", "limit=0.5", "limit=0.6", False),
        ("ideas.weighted", "return share() * ", "return -share() * ", True),
        ("ideas.weighted", "return 0.5", "return 0.25", True),
        ("ideas.scaled", "text = ", "\n\nother = ", False),
    ],
)
def test_the_digest_is_of_what_a_method_is_made_of(path, old, new, changes, ideas):
    before = digests(path)
    assert digests(path) == before and len(before[path]) == 16
    assert IDEAS.count(old) == 1
    edited = IDEAS.replace(old, new) + "# so that the file has another size\n"
    (ideas / "ideas.py").write_text(edited, encoding="utf-8")
    assert (digests({"name": "a_grae", "base": path}) != before) == changes


# --- the plan and the budget ---


def saved(cell, share=0.5, problems=20, samples=32, seed=0, **more):
    """What is saved of a cell that is right in a share of the samples."""
    counts = np.random.default_rng([seed, cell.base]).binomial(samples, share, problems).tolist()
    tested = {"problems": "0123456789ab", "num_samples": samples, "num_correct": counts}
    label = "base model" if cell.method == BASE else cell.method
    done = {"cell": asdict(cell), "label": label, "validation": tested, "test": tested, "seconds": 100.0}
    done |= {"versions": {"torch": "2.13.0"}, "device": "x86_64"}
    return done | ({} if cell.method == BASE else {"completions": 51200}) | more


def test_times():
    assert [read_duration(text) for text in ("90s", "20m", "1.5h", " 2m ")] == [90, 1200, 5400, 120]
    for text in ("", "m", "-1m", "1e9s", "20 m", "nan", "infm", "1m30s", "1" * 5000 + "s"):
        with pytest.raises(ValueError, match="--budget must be a time"):
            read_duration(text)


def test_a_cell_that_would_not_end_in_time_is_not_begun():
    cells, usual = {}, {"maze": 80.0, "sums": 160.0}
    maze, sums = Cell("maze", "mine", 1e-4, 0), Cell("sums", "mine", 1e-4, 0)
    budget = Budget(300.0, time.monotonic(), usual, cells)
    assert budget.expected(maze) == pytest.approx(98) and budget.expected(sums) == pytest.approx(186)
    assert budget.allows(maze) and budget.allows(sums)
    cells[Cell("maze", BASE, 0.0, 0)] = {"seconds": 1.0}  # is only tested
    cells[Cell("maze", "broken", 1e-4, 0)] = {"error": "at once"}
    assert budget.expected(maze) == pytest.approx(98)
    cells[maze] = {"seconds": 160.0}  # twice as slow as the published ones
    assert budget.expected(Cell("maze", "mine", 5e-5, 1)) == pytest.approx(186)
    assert budget.expected(sums) == pytest.approx(362) and not budget.allows(sums)
    assert budget.expected(Cell("countdown", "mine", 1e-4, 0)) == pytest.approx(362)
    cells[sums] = {"seconds": 200.0}
    assert budget.expected(sums) == pytest.approx(230) and budget.allows(sums)
    late = Budget(300.0, time.monotonic() - 100, usual, cells)
    assert not late.allows(sums) and late.allows(maze)
    assert Budget(None, time.monotonic() - 1e9, {}, cells).allows(sums)
    assert Budget(60.0, time.monotonic(), {}, {}).allows(sums)  # nothing is known of any cell


def publish(folder, cells, weights=()):
    store = Store(folder)
    for cell, done in cells.items():
        store.add(cell, done)
    (folder / "bases").mkdir(exist_ok=True)
    for name in weights:
        (folder / "bases" / f"{name}.safetensors").touch()
    return folder


def test_the_plan_is_made_of_what_is_published(tmp_path):
    done = [Cell("sums", name, 1e-4, 0) for name in ("grpo", "dapo")] + [Cell("maze", "nsr", 1e-4, 0)]
    done += [Cell("countdown", "grpo", 1e-4, 0), Cell("countdown", BASE, 0.0, 0)]
    cells = {cell: saved(cell) for cell in done}
    failed = Cell("maze", "grpo", 5e-5, 0)
    cells[failed] = {"cell": asdict(failed), "error": "out of memory"}
    weights = ("sums-0", "sums-1", "countdown-0", "countdown-2", "maze-1", "maze-10")
    published = Published(publish(tmp_path, cells, weights))
    assert set(published.cells) == set(done)
    assert published.bases == {"maze": [1], "sums": [0, 1], "countdown": [0, 2]}
    assert published.usual_tasks() == ["sums", "countdown"] and published.seconds()["sums"] == 100
    plan, missing = Selection().plan(["a", "b"], published)
    assert missing == ["countdown 1"]
    bases = [Cell("sums", BASE, 0.0, 0), Cell("sums", BASE, 0.0, 1)]  # of countdown it is published
    assert plan[:2] == bases and all(cell.method != BASE for cell in plan[2:])
    places = [(cell.rate, cell.base, cell.task, cell.method) for cell in plan[2:]]
    assert places[:3] == [(5e-5, 0, "sums", "a"), (5e-5, 0, "sums", "b"), (5e-5, 0, "countdown", "a")]
    assert len(places) == 2 * 2 * 3 and places[-1] == (1e-4, 1, "sums", "b")
    plan, missing = Selection(full=True).plan(["a"], published)
    assert len([cell for cell in plan if cell.method == "a"]) == 3 * 5 and len(missing) == 7
    plan, missing = Selection(["maze"], [1], [2e-4]).plan(["a"], published)
    assert plan == [Cell("maze", BASE, 0.0, 1), Cell("maze", "a", 2e-4, 1)] and not missing
    with pytest.raises(ValueError, match="No base model is published of maze 0. There are maze 1; sums 0, 1; countd"):
        Selection(["maze"], [0]).plan(["a"], published)


def test_published_cells_that_grow_are_only_read(tmp_path):
    cell = Cell("maze", "grpo", 1e-4, 0)
    path = publish(tmp_path, {cell: saved(cell)}, ["maze-0"]) / "maze.jsonl"
    growing = path.read_text(encoding="utf-8") + '{"cell": {"task": "maze", "met'
    path.write_text(growing, encoding="utf-8")
    assert list(Published(tmp_path).cells) == [cell] and path.read_text(encoding="utf-8") == growing


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": "1"},
        {"completions": None},
        {"test": {"num_samples": 4, "num_correct": [5]}},
        {"test": {"num_samples": 4, "num_correct": [True]}},
        {"test": {"num_samples": 4, "num_correct": []}},
        {"equal": {}},
        {"error": 1},
        {"cell": {"task": "maze", "method": "grpo", "rate": "1e-4", "base": 0}},
        {"cell": {"task": ["maze"], "method": "grpo", "rate": 1e-4, "base": 0}},
    ],
)
def test_a_line_that_is_no_cell_is_named(change, tmp_path):
    cell = Cell("maze", "grpo", 1e-4, 0)
    publish(tmp_path, {cell: saved(cell) | change}, ["maze-0"])
    with pytest.raises(ValueError, match="line 1 of '.*maze.jsonl' is not a cell of a comparison"):
        Published(tmp_path)


def test_the_published_cells_of_this_package():
    published = Published(published_folder())
    assert all(
        saved["label"] == METHODS[cell.method].label
        for cell, saved in published.cells.items()
        if saved["label"] != "base model"
    )
    for cell, done in published.cells.items():
        if cell.method != BASE:
            assert done["settings"] == json.loads(json.dumps(METHODS[cell.method].settings)), cell


def test_cells_of_another_method_are_not_taken_for_those_of_this_one(ideas):
    cell = Cell("maze", "scaled", 1e-4, 0)
    (method,) = own_methods(["ideas.scaled"]).values()
    OwnStore(ideas / "cells", {"scaled": method}).add(cell, saved(cell, settings=method.settings))
    again = OwnStore(ideas / "cells", {"scaled": method})
    assert again.cells[cell]["sources"] == method.sources != {}
    (other,) = own_methods(["nsr"]).values()
    assert list(OwnStore(ideas / "cells", {"nsr": other}).cells) == [cell]
    (ideas / "changed.yaml").write_text("scaled: {advantages: ideas.scaled, beta: 0.1}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="The cells of 'scaled' that are there were trained with beta=None, and now "):
        OwnStore(ideas / "cells", own_methods(config="changed.yaml"))
    (ideas / "ideas.py").write_text(IDEAS.replace("SCALE = 2.0", "SCALE = 20.0"), encoding="utf-8")
    sys.modules.pop("ideas")
    with pytest.raises(
        ValueError, match="The code of ideas.scaled has changed since the cells of 'scaled' that are th"
    ):
        OwnStore(ideas / "cells", own_methods(["ideas.scaled"]))
    failed = {"cell": asdict(cell), "error": "a mistake that is mended now"}
    (ideas / "cells" / "maze.jsonl").write_text(json.dumps(failed) + "\n", encoding="utf-8")
    assert OwnStore(ideas / "cells", own_methods(["ideas.scaled"])).is_done(cell, retry=True) is False


# --- the report ---


SHARES = {BASE: 0.1, "grpo": 0.3, "dapo": 0.35, "pass_at_8": 0.5, "dars_hw": 0.45, "nsr": 0.2}
RATES = (5e-5, 1e-4)


def published_cells(tasks=("maze", "sums"), bases=(0, 1), lacking=()):
    cells = {}
    for task in tasks:
        for base in bases:
            cells[Cell(task, BASE, 0.0, base)] = None
            cells |= {Cell(task, name, rate, base): None for name in SHARES if name != BASE for rate in RATES}
    places = {name: place for place, name in enumerate(SHARES)}
    return {cell: saved(cell, SHARES[cell.method], seed=places[cell.method]) for cell in cells if cell not in lacking}


def own_cells(tasks=("maze", "sums"), bases=(0, 1), rates=RATES, label="mine"):
    cells = [Cell(task, label, rate, base) for task in tasks for base in bases for rate in rates]
    return {cell: saved(cell, 0.6 if cell.rate == 1e-4 else 0.4, seed=9) for cell in cells}


def test_differences_are_paired_and_at_equal_rates_and_rollouts():
    published, own = published_cells(), own_cells()
    more = Cell("maze", "dars_hw", 1e-4, 0)
    published[more]["equal"] = saved(more, 0.2, seed=77) | {"completions": 50000}  # of a run that sampled more
    report = Report(own, published)

    def values(cells, cell):
        tested = cells[cell] | cells[cell].get("equal", {})
        return pass_at_k(32, np.array(tested["test"]["num_correct"]), 8)

    for other in ("grpo", "dars_hw"):
        by_hand = np.zeros((2, 20))
        for base in (0, 1):
            for rate in RATES:
                mine, theirs = Cell("maze", "mine", rate, base), Cell("maze", other, rate, base)
                by_hand[base] += (values(own, mine) - values(published, theirs)) / 2
        found, expected = report.difference("mine", other, "pass@8", "maze"), estimate(by_hand)
        assert found.mean == expected.mean and found.interval() == expected.interval() and found.runs == 2
        assert report.pairs("mine", other, "maze") == 4 and report.pairs("mine", other) == 8
    both = [report.difference("mine", "grpo", CURVE, task) for task in ("maze", "sums")]
    mean = report.difference("mine", "grpo", CURVE)
    assert mean.mean == pytest.approx((both[0].mean + both[1].mean) / 2)
    assert mean.variance == pytest.approx((both[0].variance + both[1].variance) / 4)
    alone = report.difference("mine", BASE, "pass@1", "maze")
    assert alone.mean == pytest.approx(0.4, abs=0.05) and alone.interval()[0] > 0.2
    grid = report.differences("mine")
    assert [row[0] for row in grid.rows] == ["GRPO", DAPO, "Pass@8", "DARS-HW", "base model"]
    assert grid.title.endswith(": mean of maze and sums") and {row[1] for row in grid.rows} == {"8"}


def test_a_pair_needs_both_cells():
    lacking = [Cell("maze", "grpo", 1e-4, 0), Cell("maze", "grpo", 5e-5, 1), Cell("maze", "grpo", 1e-4, 1)]
    lacking += [cell for cell in published_cells() if cell.method == "pass_at_8"]
    report = Report(own_cells(), published_cells(lacking=lacking))
    assert report.pairs("mine", "grpo", "maze") == 1 and report.pairs("mine", "dapo", "maze") == 4
    assert report.difference("mine", "grpo", "pass@1", "maze").runs == 1
    assert report.difference("mine", "pass_at_8", "pass@1") is None
    assert [row[:2] for row in report.differences("mine", "maze").rows][:2] == [["GRPO", "1"], [DAPO, "4"]]
    assert not any("Pass@8" in row[0] for row in report.differences("mine").rows)
    assert {"GRPO", "Pass@8", "PSR"} <= set(report.lacking("maze")) and DAPO not in report.lacking("maze")
    named = re.search(r"On maze, (\d+) of (\d+) published methods lack some of these cells", " ".join(report.notes()))
    lack, published = map(int, named.groups())
    assert lack == len(report.lacking("maze")) == published - 3  # DAPO, DARS-HW and NSR have them all


def test_the_place_among_the_rows_that_have_the_same_cells():
    lacking = [Cell("maze", "nsr", 1e-4, 1)]
    report = Report(own_cells(), published_cells(lacking=lacking))
    low, high = report.placements("maze")
    assert low.title == "maze, rate 5e-05, base models 0, 1: 7 rows" and len(low.rows) == 7
    assert high.title == "maze, rate 0.0001, base models 0, 1: 6 rows"  # without NSR
    assert [row[1] for row in low.rows] == ["Pass@8", "DARS-HW", "→ mine", DAPO, "GRPO", "NSR", "base model"]
    assert high.rows[0][:2] == ["1", "→ mine"] and high.rows[-1][-1] == "" and high.rows[0][-1] == "51,200"
    assert high.header == ["place", "method", "pass@1", "pass@8", "pass@32", CURVE, "completions"]
    means = [
        pass_at_k(32, np.array(own_cells()[Cell("maze", "mine", 1e-4, base)]["test"]["num_correct"]), 1)
        for base in (0, 1)
    ]
    assert float(high.rows[0][2]) == pytest.approx(np.mean(means), abs=5e-4)
    (shown, _) = report.placements("maze", only=["mine", "grpo"])
    assert [row[:2] for row in shown.rows] == [["3", "→ mine"], ["5", "GRPO"]]


def test_one_base_model_is_no_sample_of_base_models():
    notes = " ".join(Report(own_cells(bases=(0,)), published_cells(bases=(0,))).notes())
    assert "On maze and sums there is one base model, so the interval is over problems alone" in notes
    notes = " ".join(Report(own_cells(), published_cells(), [Cell("maze", "mine", 2e-4, 2)], ["sums 2"]).notes())
    assert "over problems alone" not in notes and "Of sums 2 no base model is published yet." in notes
    assert "There was no time for 1 cell: maze mine rate 0.0002 base 2 seed 0." in notes
    assert "60 differences are shown, and " in notes  # 5 rows x 4 metrics, of two tasks and of their mean
    assert "160,000 parameters" in notes


def test_it_is_said_of_a_method_that_samples_less_that_it_does():
    own = own_cells()
    assert "equal rollouts" not in " ".join(Report(own, published_cells()).notes())
    half = {cell: one | {"completions": 25600} for cell, one in own.items()}
    notes = " ".join(Report(half, published_cells()).notes())
    assert "mine is not compared at equal rollouts: it sampled 0.50 to 0.50 times as many completions" in notes


def test_cells_that_were_trained_again():
    published, own = published_cells(), own_cells()
    cell, other = Cell("maze", "dapo", 1e-4, 0), Cell("maze", "grpo", 1e-4, 0)
    own |= {cell: published[cell], other: saved(other, 0.31, seed=5, versions={"torch": "3.0"})}
    report = Report(own, published)
    same, differs = report.check()
    assert same == f"{cell}: trained again here, it is the same to the last digit."
    assert differs.startswith(f"{other}: there and, trained again, here: pass@1 0.") and "whole curve 0." in differs
    assert differs.endswith("Not the same: torch 2.13.0 there and 3.0 here.")
    assert report.labels == ["mine"] and report.cells[other] is published[other]


def test_the_page_and_the_picture(tmp_path, capsys):
    own = own_cells() | own_cells(tasks=("sums",), label="a | $b$ [red]")
    failed = Cell("maze", "a | $b$ [red]", 1e-4, 0)
    own[failed] = {"cell": asdict(failed), "error": "\x1b[2J"}
    report = Report(own, published_cells())
    write_report(report, tmp_path, 61.0)
    page = (tmp_path / PAGE).read_text(encoding="utf-8")
    assert "| → a \\| $b$ [red] |" in page and "## sums, rate 0.0001, base models 0, 1: 8 rows" in page
    assert "| Pass@8 | 8 | " in page and f"![pass@k]({PICTURE})" in page
    assert "## mine minus other methods, at equal rates and rollouts: sums" in page
    assert "| a \\| $b$ [red] (sums alone) | 4 | " in page
    assert "## a | $b$ [red] minus other methods, at equal rates and rollouts: sums\n" in page
    shown = capsys.readouterr().out
    assert "a | $b$ [red]" in shown and "\x1b" not in shown and "Failed: maze a | $b$ [red] rate 0.0001" in shown
    assert "NSR" not in shown.split("Published rows")[0] and "It took 61 s." in shown
    assert (tmp_path / PICTURE).stat().st_size > 10_000
    (tmp_path / PICTURE).unlink()
    bare = {cell: done for cell, done in published_cells().items() if cell.method != BASE}
    write_report(Report(own, bare), tmp_path, 61.0)  # nothing to draw against
    assert (tmp_path / PICTURE).exists()
    write_report(Report({failed: own[failed]}, published_cells()), tmp_path, 61.0)
    assert "No cell is finished, so there is nothing to compare." in capsys.readouterr().out


# --- all of it ---


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with two untrained base models of the sums, and two published cells from each."""
    folder = tmp_path_factory.mktemp("published")
    weights, work = folder / "bases", tmp_path_factory.mktemp("work")
    weights.mkdir()
    store = Store(folder)
    for base in (0, 1):
        model = build_model(TASKS["sums"].build_tokenizer(), seed=base)
        parameters = {name: weight.detach().half() for name, weight in model.named_parameters()}
        save_file(parameters, weights / f"sums-{base}.safetensors")
        for cell, method in (
            (Cell("sums", BASE, 0.0, base), None),
            (Cell("sums", "dapo", 5e-5, base), METHODS["dapo"]),
        ):
            store.add(cell, run_cell(cell, method, weights, work, TINY))
    return folder


def bench(folder, *arguments):
    command = [sys.executable, str(SCRIPTS / "tiny_bench.py"), "bench", *arguments, "--output-dir", "out"]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, encoding="utf-8", timeout=300
    )


@pytest.mark.slow
def test_from_an_idea_to_its_place(tiny, ideas):
    (ideas / "own.yaml").write_text(
        "wider: {rollouts: {name: ideas.Wider, max_generations: 32}, num_generations: 8, loss_type: dr_grpo}\n",
        encoding="utf-8",
    )
    spec = "{name: ideas.Clipped, base: {name: pass_at_k, k: 4}}"
    options = ["--published", str(tiny), "--rates", "5e-5", "--budget", "1h"]
    ran = bench(ideas, spec, "--config", "own.yaml", *options, "--bases", "0", "--check")
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert "leaked semaphore" not in ran.stderr
    assert "sums dapo rate 5e-05 base 0 seed 0: trained again here, it is the same to the last digit." in ran.stdout
    own = ["Clipped(base=pass_at_k(k=4))", "wider"]
    assert [cell.method for cell in Store(ideas / "out" / "cells").cells] in ([*own, "dapo"], [*own[::-1], "dapo"])
    page = (ideas / "out" / PAGE).read_text(encoding="utf-8")
    assert all(f"## {name} minus other methods" in page for name in own)
    assert page.count(f"| {DAPO} | 1 |") == page.count("| base model | 1 |") == 2
    lines = (ideas / "out" / "cells" / "sums.jsonl").read_text(encoding="utf-8")
    again = bench(ideas, spec, *options, "--bases", "0")
    assert again.returncode == 0 and "1 cell, 1 of them there." in again.stdout
    assert (ideas / "out" / "cells" / "sums.jsonl").read_text(encoding="utf-8") == lines


def tiny_bench(methods, tiny, folder, **options):
    selection = Selection(rates=[5e-5], bases=options.pop("bases", None))
    return run_bench(methods, selection, folder, published_in=tiny, size=TINY, **options)


@pytest.mark.slow
def test_every_cell_begins_with_the_code_as_it_was_imported(tiny, ideas):
    """The state of a module does not go from one cell to the next. Nothing begins after an error in a first batch."""
    (ideas / "later.py").write_text(
        "calls = []\n\n\ndef second(groups):\n    calls.append(1)\n"
        "    if len(calls) > 1:\n        raise RuntimeError\n    return groups.rewards - groups.rewards.mean()\n",
        encoding="utf-8",
    )
    report = tiny_bench(own_methods(["later.second"]), tiny, ideas / "out", jobs=1)
    assert report.pairs("second", "dapo") == 2 and not report.failed
    with pytest.raises(ValueError, match="^The method 'broken' fails in its first batch: KeyError: 'no such thing'$"):
        tiny_bench(own_methods(["ideas.broken"]), tiny, ideas / "other", bases=[0])
    assert not list((ideas / "other" / "cells").glob("*.jsonl"))


def test_nothing_is_begun_for_which_there_is_no_time(tiny, ideas, capsys):
    report = tiny_bench(own_methods(["ideas.scaled"]), tiny, ideas / "out", budget=1.0)
    assert [cell.base for cell in report.left_out] == [0, 1] and not list((ideas / "out" / "cells").glob("*.jsonl"))
    assert "There was no time for 2 cells: sums scaled rate 5e-05 base 0 seed 0; sums" in capsys.readouterr().out


def test_a_published_method_by_its_settings_gives_the_published_cell(tiny, tmp_path):
    (method,) = own_methods(["{name: pass_at_k, k: 8}"]).values()
    own, published = (
        run_cell(Cell("sums", name, 1e-4, 0), one, tiny / "bases", tmp_path, TINY)
        for name, one in ((method.label, method), ("pass_at_8", METHODS["pass_at_8"]))
    )
    assert method.label == "pass_at_k(k=8)" and own["settings"] == published["settings"]
    assert all(own[name] == published[name] for name in ("test", "validation", "log", "completions"))


def test_other_test_problems_cannot_be_compared(tiny, ideas, capsys):
    assert main(["bench", "nsr", "--published", str(tiny)]) == 2  # of the full size
    assert "The test problems of sums drawn here (" in capsys.readouterr().err


def test_code_that_changes_during_a_run_fails(ideas):
    (method,) = own_methods(["ideas.scaled"]).values()
    assert changed_sources(method.sources, digests_of_sources(method.settings)) == []
    (ideas / "ideas.py").write_text(IDEAS.replace("SCALE = 2.0", "SCALE = 20.0"), encoding="utf-8")
    sys.modules.pop("ideas")  # as in a new process
    tokenizer = TASKS["sums"].build_tokenizer()
    settings = {name: value for name, value in method.recipe.items() if name != "learning_rate"}
    config = RLVRConfig("out", use_cpu=True, max_steps=1, max_completion_length=4, **settings)
    with pytest.raises(ValueError, match="the code of ideas.scaled has been changed since this run began"):
        method.trainer(
            build_model(tokenizer),
            [TASKS["sums"].reward],
            config,
            TASKS["sums"].draw(16),
            processing_class=tokenizer,
        )
