"""The plan of the comparison, and that every one of its methods trains."""

from dataclasses import asdict, replace
from itertools import product

import pytest
from comparison import ON_STRONG, beyond_the_edge, plan
from safetensors.torch import save_file

from rlvr_trl.testbed import TASKS, build_model
from rlvr_trl.testbed.cell_runner import Store
from rlvr_trl.testbed.cells import BASE, STRONG, Cell, Size, run_cell
from rlvr_trl.testbed.comparison_methods import BASES, BEYOND, METHODS, ON_EVERY_TASK, RATES


TINY = Size(batches=1, test_problems=2, samples=2, validation_problems=2, validation_samples=2, warmup_problems=10)


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bases")
    model = build_model(TASKS["sums"].build_tokenizer(), seed=0)
    weights = {name: weight.detach().half() for name, weight in model.named_parameters()}
    save_file(weights, folder / "sums-0.safetensors")
    return folder, tmp_path_factory.mktemp("work")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_trains(bases, name):
    method = METHODS[name]
    size = replace(TINY, batches=max(1, method.prompts_per_batch // 16))  # at least one batch of its own
    saved = run_cell(Cell("sums", name, 1e-4, 0), method, *bases, size)
    assert saved["batches"] == 1 and saved["label"] == method.label
    assert saved["updates"] == (1 if name == "dapo_one_update" else 2 if "breadth" in name else 4)
    assert saved["completions"] == 256 * size.batches or "rollouts" in method.settings or name == "depth_naive"


def test_labels_differ():
    assert len({method.label for method in METHODS.values()}) == len(METHODS)


def test_the_plan():
    cells = plan(list(TASKS))
    assert len(set(cells)) == len(cells)
    for task in TASKS:
        rows = [cell for cell in cells if cell.task == task and cell.base in BASES]
        wanted = METHODS if task == "maze" else ON_EVERY_TASK
        trained = {(cell.method, cell.rate, cell.base) for cell in rows if cell.method != BASE}
        assert trained == {(name, rate, base) for name in wanted for rate in RATES for base in BASES}
    assert {cell.method for cell in cells if cell.base == STRONG} == {BASE, *ON_STRONG}
    for place, cell in enumerate(cells):
        assert cell.method == BASE or Cell(cell.task, BASE, 0.0, cell.base) in cells[:place]


def test_another_rate_follows_where_the_last_is_the_best(tmp_path):
    """The same rule for every method, on validation problems, once all base models are there."""
    store = Store(tmp_path)
    right = {"grpo": (6, 5, 4), "nsr": (5, 6, 4), "psr": (5, 5, 4), "dapo": (6, 5, 4), "pass_at_8": (4, 5, 6)}
    for name, counts in right.items():
        for (rate, count), base in product(zip(RATES, counts, strict=True), BASES):
            cell = Cell("sums", name, rate, base)
            tested = {"problems": "v", "num_samples": 8, "num_correct": [count, count]}
            if (name, rate, base) != ("dapo", RATES[-1], BASES[-1]):  # one cell of it is not there yet
                store.add(cell, {"cell": asdict(cell), "validation": tested, "test": tested | {"num_correct": [1, 8]}})
    lower, higher = BEYOND[RATES[0]], BEYOND[RATES[-1]]
    expected = [Cell("sums", "grpo", lower, base) for base in BASES]
    expected += [Cell("sums", "pass_at_8", higher, base) for base in BASES]
    assert set(beyond_the_edge(plan(["sums"]), store.cells)) == set(expected)
