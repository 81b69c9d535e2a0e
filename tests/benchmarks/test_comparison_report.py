"""The report of the comparison: verdicts by hand, and pages that say what made-up cells hold and what they lack."""

import re
import shutil
from dataclasses import asdict

import comparison_claims as claims
import comparison_report as report
import numpy as np
import pytest
from comparison_claims import Claim, judge

from rlvr_trl.testbed import TASKS
from rlvr_trl.testbed.cell_runner import Store
from rlvr_trl.testbed.cells import BASE, Cell
from rlvr_trl.testbed.comparison_methods import BEYOND, METHODS, RATES
from rlvr_trl.testbed.intervals import Estimate


HIGHER = Claim("paper", "§1", "it is higher", "pass_at_8", "dapo", "pass@8")
LOW, MIDDLE, HIGH = RATES


def around(mean: float, half: float = 0.05) -> Estimate:
    return Estimate(mean, (half / 1.96) ** 2, 1e6, 3)


@pytest.mark.parametrize(
    ("chosen", "equal", "verdict"),
    [
        (0.1, (0.1, 0.02, 0.1), claims.REPRODUCED),
        (-0.1, (-0.02, -0.1, -0.03), claims.OPPOSITE),
        (0.02, (0.01, -0.02, 0.03), claims.NOT_REPRODUCED),
        (0.1, (0.02, 0.03, 0.04), claims.DEPENDS),  # the rates make it
        (0.1, (0.1, 0.1, -0.01), claims.DEPENDS),  # the sign differs
        (0.1, (0.1, 0.1, -0.1), claims.DEPENDS),
        (0.02, (0.1, 0.02, 0.02), claims.DEPENDS),  # clear at one equal rate, not at the chosen ones
        (-0.1, (0.1, 0.1, 0.1), claims.DEPENDS),
        (0.1, (0.1, 0.0, 0.1), claims.REPRODUCED),  # no difference has no sign
    ],
)
def test_verdicts(chosen, equal, verdict):
    found = {None: around(chosen)} | {rate: around(mean) for rate, mean in zip(RATES, equal, strict=True)}
    assert judge(HIGHER, found).verdict == verdict
    mirrored = Claim("paper", "§1", "it is lower", "dapo", "pass_at_8", "pass@8", "lower")
    turned = {rate: Estimate(-one.mean, one.variance, one.df, one.runs) for rate, one in found.items()}
    assert judge(mirrored, turned).verdict == verdict


@pytest.mark.parametrize(
    ("mean", "expected", "side"),
    [
        (0.031, "not lower", 1), (0.029, "not lower", 0), (-0.069, "not lower", 0), (-0.071, "not lower", -1),
        (-0.031, "not higher", 1), (-0.029, "not higher", 0), (0.071, "not higher", -1),
    ],
)  # fmt: skip
def test_margins(mean, expected, side):
    assert claims.side(around(mean), expected) == side
    claim = Claim("paper", "§1", "", "pass_at_8", "dapo", "pass@1", expected)
    p_value = judge(claim, {None: around(mean), LOW: around(mean)}).p_value
    assert (p_value < 0.05) == (side != 0)


def test_what_lacks_the_chosen_rates_or_all_equal_ones_is_not_run_yet():
    for found in ({}, {None: around(0.1)}, {rate: around(0.1) for rate in RATES}):
        assert judge(HIGHER, found).verdict == claims.MISSING


def test_no_comparison_stands_twice_and_all_rows_exist():
    assert len({(claim.a, claim.b, claim.metric) for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    assert not any((claim.b, claim.a, claim.metric) == (other.a, other.b, other.metric)
                   for claim in claims.CLAIMS for other in claims.CLAIMS)  # fmt: skip
    for claim in claims.CLAIMS:
        for name in (claim.a, claim.b):
            assert claims.row_of(name).method in {BASE, *METHODS} and claim.expected in claims.EXPECTED


# --- the pages ---


def made_up(folder, methods=("grpo", "dapo", "pass_at_8"), bases=(0, 1, 2), tasks=TASKS) -> Store:
    """Pass@8 solves all problems rarely, the others half of them often; and the more, the higher the rate."""
    store, rng = Store(folder), np.random.default_rng(0)
    for task in tasks:
        for base in bases:
            cells = [(BASE, 0.0), *((method, rate) for method in methods for rate in RATES)]
            for method, rate in cells:
                share = {BASE: 0.1, "pass_at_8": 0.15}.get(method, 0.6 + 1000 * rate)
                solved = np.ones(40) if method in (BASE, "pass_at_8") else np.arange(40) < 20
                store.add(*cell_of(task, method, rate, base, rng.binomial(64, np.where(solved, share, 0))))
    return store


def cell_of(task, method, rate, base, num_correct) -> tuple[Cell, dict]:
    cell = Cell(task, method, rate, base)
    counts = {"problems": task, "num_samples": 64, "num_correct": num_correct.tolist()}
    tested = counts | {"token_entropy": 0.5 - 1000 * rate, "answer_entropy": 1.0, "wrong_answer_diversity": 0.5}
    validation = counts | {"num_samples": 32, "num_correct": np.minimum(num_correct, 32).tolist()}
    saved = {"cell": asdict(cell), "test": tested, "validation": validation, "seconds": 90.0}
    saved |= {"versions": {"torch": "2"}, "device": "x86_64", "completions": 51_200}
    return cell, saved | {"log": {"step": [10], "reward": [0.4]}}


def test_the_pages_say_what_the_cells_hold(tmp_path):
    made_up(tmp_path / "cells")
    comparison = report.make_report(tmp_path / "cells", tmp_path)
    verdicts = {
        (claim.a, claim.b, claim.metric): {task: one.verdict for task, one in found.items()}
        for claim, found in comparison.judgements.items()
    }
    everywhere = dict.fromkeys([*TASKS, claims.ALL_TASKS], claims.REPRODUCED)
    assert verdicts["grpo", BASE, "pass@1"] == verdicts["grpo", BASE, "pass@64"] == everywhere
    assert verdicts["pass_at_8", "dapo", "pass@8"] == everywhere
    assert verdicts["pass_at_8", "dapo", "pass@1"] == dict.fromkeys(everywhere, claims.OPPOSITE)
    assert verdicts["dars_hw", "dr_grpo", "pass@64"] == {}

    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    first, second, third = re.findall(r"(?m)^[123]\. \*\*(.*)$", page)
    tested = sum(len(found) - (claims.ALL_TASKS in found) for found in comparison.judgements.values())
    judged = sum(bool(found) for found in comparison.judgements.values())
    assert f"{judged} of {len(claims.CLAIMS)} claims, 3 of them ours and the others of four papers, are" in first
    assert f"{tested} comparisons" in first and ", 4 opposite and " in first
    assert second.startswith("The learning rate matters") and "maze " in second
    assert third.startswith(
        "GRPO against base model**: pass@1 is higher on maze, sudoku, sums and countdown, lower on"
    )
    assert "| [1](claims.md#claim-1) | A-GRAE | GRPO raises pass@1 above the base model | reproduced |" in page
    assert "maze dr_grpo (9)" in page and "sums grpo (" not in page  # what is not run yet
    assert "## A base model that is warmed up further" in page and "Not run yet." in page

    one_by_one = (tmp_path / "claims.md").read_text(encoding="utf-8")
    assert len(re.findall("(?m)^### Claim ", one_by_one)) == len(claims.CLAIMS)
    section = one_by_one.split("### Claim 1\n")[1].split("###")[0]
    assert "Source: §4.2. *GRPO* minus *base model*, pass@1: higher." in section
    assert re.findall(r"(?m)^\| (\w+) \| 3 \| ", section) == list(TASKS)  # base models
    assert section.count("| reproduced | yes |") == 4 and f"| {claims.ALL_TASKS} | " in section
    for paper, limits in claims.LIMITS.items():
        assert f"## {paper}\n\n{limits}\n" in one_by_one
    assert "No run of A-GRAE has ended yet." in one_by_one
    for name in ("results_gains.png", "results_rates.png"):
        assert (tmp_path / "images" / name).read_bytes().startswith(b"\x89PNG") and f"images/{name}" in page
    again = report.make_report(tmp_path / "cells", tmp_path / "again")
    assert report.page(again, {}) == report.page(comparison, {})


def test_it_is_said_whether_a_grae_has_reached_its_second_half(tmp_path):
    store = made_up(tmp_path, methods=("grpo", "a_grae_half"), tasks=("maze",))
    text = report.shift_of_difficulty(report.Comparison(store.cells))
    assert "is from 0.40 to 0.40." in text and "in single batches at most" in text
    for cell, saved in store.cells.items():
        saved["log"]["reward"] = [0.2, 0.9] if cell.method == "grpo" else [0.3, 0.51]
    text = report.shift_of_difficulty(report.Comparison(store.cells))
    assert "is from 0.30 to 0.51." in text and "single batches" not in text


def test_cells_beyond_the_edge_that_are_to_come_are_counted(tmp_path):
    store = made_up(tmp_path, methods=("grpo",), tasks=("maze",))
    for cell, saved in store.cells.items():  # on validation problems the highest rate is the best
        saved["validation"]["num_correct"] = [RATES.index(cell.rate) if cell.rate else 0] * 40
    left = report.edges_left(report.Comparison(store.cells))
    assert left == " (3 cells of it still to be run, which are not counted below)"
    for base in (0, 1, 2):
        store.add(*cell_of("maze", "grpo", BEYOND[RATES[-1]], base, np.arange(40)))
    assert report.edges_left(report.Comparison(store.cells)) == ""


def test_one_base_model_gives_equal_rates_and_no_verdict(tmp_path):
    comparison = report.Comparison(made_up(tmp_path, bases=(0,), tasks=("sums",)).cells)
    found = comparison.judgements[claims.CLAIMS[0]]
    assert {task: one.verdict for task, one in found.items()} == {"sums": claims.MISSING}
    assert set(found["sums"].equal) == set(RATES) and found["sums"].p_value is None
    assert "0 comparisons" in report.sentences(comparison)[0]
    assert report.ranking_table(comparison) is None


def test_the_best_on_all_tasks_comes_first(tmp_path):
    names = [name for name in report.ON_EVERY_TASK if name != "dr_grpo"]
    ranked = report.ranking(report.Comparison(made_up(tmp_path, methods=names).cells))
    means = [one.mean for _, one in ranked]
    assert means == sorted(means, reverse=True) and len(ranked) == len(names)  # not the one that was not run
    assert ranked[0][0] == "pass_at_8:equal"  # about .65 on the whole curve, and those that solve one half below .5


def test_the_pages_of_this_project_have_their_places(tmp_path):
    """README.md and the pages of the methods, with what the made-up cells say."""
    made_up(tmp_path / "cells")
    (tmp_path / "docs").mkdir()
    shutil.copy(report.ROOT / "README.md", tmp_path)
    shutil.copytree(report.ROOT / "docs/methods", tmp_path / "docs/methods")
    comparison = report.make_report(tmp_path / "cells", tmp_path / "docs")
    report.fill_in_tables(tmp_path, comparison)
    first = report.sentences(comparison)[0]
    for path, image in (("README.md", "docs/images"), ("docs/methods/README.md", "../images")):
        page = (tmp_path / path).read_text(encoding="utf-8")
        assert f"]({image}/results_gains.png)" in page and f"- {first}" in page
        assert f"This rests on 120 of {len(comparison.planned)} runs so far." in page
    page = (tmp_path / "docs/methods/grpo.md").read_text(encoding="utf-8")
    block = page.split(report.BEGIN)[1].split(report.END)[0]
    assert block.count("| GRPO | pass@") == 2 and "| Dr. GRPO |" not in block


def test_tables_stand_between_their_comments(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", encoding="utf-8")
    report.fill_in_place(page, "new")
    assert page.read_text(encoding="utf-8") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"
    page.write_text("nothing\n", encoding="utf-8")
    with pytest.raises(ValueError, match="has no place for its table"):
        report.fill_in_place(page, "new")
    with pytest.raises(ValueError, match="holds no finished cell"):
        report.make_report(tmp_path / "none", tmp_path)
