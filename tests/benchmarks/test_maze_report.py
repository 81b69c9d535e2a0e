"""The report of the maze table: intervals and verdicts are right, tables and figures show what the files hold."""

import re
from decimal import Decimal
from itertools import zip_longest

import maze_claims as claims
import maze_figures
import maze_report as report
import maze_results
import maze_statistics as statistics
import numpy as np
import pytest
from comparison_report import END
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from maze_files import write_cell
from maze_plan import RESULTS, Cell, read

from rlvr_trl.line_styles import line_styles
from rlvr_trl.testbed.intervals import shown


pytestmark = pytest.mark.slow


# --- statistics ---


def test_interval_of_two_runs_and_two_mazes():
    # 4 x 4 equally likely sets of runs and mazes. One in 16 holds one run and one maze only: more than 2.5 % each, so
    # that the ends are the smallest and the largest value.
    values = np.array([[0.1, 0.7], [0.3, 0.6]])
    assert statistics.mean_and_interval(values, ((0, 0), (1, 0))) == pytest.approx((0.425, 0.1, 0.7))
    # Seeds of one base model are drawn in the same way; a single run has an interval over mazes.
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


def test_the_last_bits_change_nothing():
    for value, text in ((63 / 80, "0.788"), (0.7865, "0.786"), (0.0625, "0.062"), (1.0005, "1.000")):
        around = (value, np.nextafter(value, 0), np.nextafter(value, 2), value - 1e-15, value + 1e-15)
        assert {shown(one, ".3f") for one in around} == {text}
    assert {shown(value, "+.3f") for value in (0.0, -0.0, 1e-17, -1e-17)} == {"+0.000"}
    assert shown(51200.5 + 2e-11, ",.0f") == "51,200"
    for noise in (1e-16, -1e-16):
        _, low, high = statistics.mean_and_interval(np.full((2, 3), noise), ((0, 0), (1, 0)))
        assert claims.verdict(low, high, "higher") == "not reproduced"
        _, low, high = statistics.mean_and_interval(np.full((2, 3), noise - claims.MARGIN), ((0, 0), (1, 0)))
        assert claims.verdict(low, high, "not lower") == "not reproduced"


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
    assert by_sentence["dars_hw", "dr_grpo", "pass@32"] == ("missing", "no run that both have")

    page = report.make_report(made_up, tmp_path / "docs", ["4x4", "5x5"])
    text = page.read_text()
    assert "**Failed**: 4x4 nsr base 0 seed 0: ValueError: the loss is NaN" in text
    assert "dars_hw (14)" in text and "5×5\n" not in text  # 6 runs, 6 at equal rollouts, 2 of the search
    assert "| DAPO | 6 |" in text and "0.391 ±" in text
    assert "Missing for want of a row: 7, 8, 9," in text and "Not run at this size: a_grae_dapo, " in text
    assert "| 1 | Pass@k Training" in text and "| 7 | Pass@k Training" not in text
    for name in ("curves", "dynamics", "entropy", "end"):
        assert (tmp_path / "docs" / "images" / f"results_4x4_{name}.png").read_bytes().startswith(b"\x89PNG")
    assert report.make_report(made_up, tmp_path / "docs", ["4x4", "5x5"]).read_text() == text


def test_the_best_are_chosen_on_one_half_of_the_mazes_and_measured_on_the_other(made_up):
    lines = report.best_table(maze_results.Results(made_up, "4x4")).splitlines()[2:]
    best = [line.split(" | ")[2:4] for line in lines if line.split(" | ")[1] == "1"]
    assert [name for name, _ in best] == ["DAPO", "Pass@8", "Pass@8"]
    # Three base models with two seeds: the mean over the mazes with an odd number
    runs = [(base, seed) for base in range(3) for seed in range(2)]
    counts = [read(Cell("4x4", "dapo", *run).path(made_up))["test"]["num_correct"][1::2] for run in runs]
    assert best[0][1] == shown(np.mean(counts) / 64, ".3f")


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
            mean, low, high = (shown(value, "+.3f") for value in results.difference(row, other, metric)[:3])
            assert line[column] == ("" if row == other else f"{mean} [{low}, {high}]")


def test_run_by_run(made_up):
    lines = report.runs_table(maze_results.Results(made_up, "4x4")).splitlines()
    header, base, pass_at_8 = (line.strip("| ").split(" | ") for line in (lines[0], *lines[2:]))
    assert header == ["minus DAPO, pass@1 and pass@32", *(f"base {b}, seed {s}" for b in range(3) for s in range(2))]
    assert base[0] == "base model" and pass_at_8[0] == "Pass@8"
    for run, found in zip([(b, s) for b in range(3) for s in range(2)], pass_at_8[1:], strict=True):
        correct = read(Cell("4x4", "pass_at_8", *run).path(made_up))["test"]["num_correct"]
        at_1, at_32 = map(float, found.split(", "))
        assert at_1 == pytest.approx(np.mean(correct) / 64 - 25 / 64, abs=1e-3) and at_32 > 0.4


def test_every_point_has_a_name_and_a_method_its_colour(made_up):
    write_run(made_up, Cell("4x4", "gspo_n", 0, 0), [1] + [0] * 39)  # no method of the figures
    axes, results = Figure().subplots(), maze_results.Results(made_up, "4x4")
    maze_figures.draw_end(axes, results)
    drawn = {points.get_label(): to_hex(points.get_facecolor()[0]) for points in axes.collections}
    colors = {label: style["color"] for label, style in line_styles(["base", "GRPO", "Pass@k (k=8)"]).items()}
    assert drawn == {"base model": colors["base"], "DAPO": colors["GRPO"], "Pass@8": colors["Pass@k (k=8)"]}


def test_the_page_begins_with_what_was_found(made_up, tmp_path):
    rng, results = np.random.default_rng(1), maze_results.Results(made_up, "4x4")
    for run in results.runs:  # as the base model is
        write_run(made_up, Cell("4x4", "nsr", *run), rng.integers(2, 5, 40))
    page = report.make_report(made_up, tmp_path / "docs", ["4x4"]).read_text()
    first, _, rest = page.partition("\n## ")
    results = maze_results.Results(made_up, "4x4")
    outcomes = {"raised": ("pass_at_8", "Pass@8"), "kept": ("nsr", "NSR"), "lost": ("dapo", "DAPO")}
    places = []
    for outcome, (row, name) in outcomes.items():
        at_1, at_32 = (report.signed(*results.difference(row, "base", f"pass@{k}")[:3]) for k in (1, 32))
        places += [first.index(f"**pass@32 {outcome}**"), first.index(f"- {name}: {at_1} and {at_32}\n")]
    assert places == sorted(places) and report.summary(results) in first
    assert "results_4x4_curves.png" in first and "results_4x4_curves.png" not in rest


def test_gains_over_the_base_model_are_drawn_with_their_intervals(made_up):
    axes, results = Figure().subplots(), maze_results.Results(made_up, "4x4")
    maze_figures.draw_gains(axes, results)
    _, dapo, pass_at_8 = axes.get_lines()
    for line, row in ((dapo, "dapo"), (pass_at_8, "pass_at_8")):
        expected = [results.difference(row, "base", f"pass@{k}")[0] for k in results.ks]
        assert line.get_ydata() == pytest.approx(expected) and line.get_color() == maze_figures.line(row)["color"]
    band = axes.collections[0].get_paths()[0].vertices
    _, low, high, _ = results.difference("dapo", "base", "pass@64")
    assert {low, high} <= set(band[band[:, 0] == 64][:, 1])


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


def test_the_search_is_a_part_of_the_size_on_which_it_was_made(tmp_path):
    for factor, score in ((0.5, 0.6), (1.0, 0.5)):
        found = {"score": score, "learning_rate": factor * 2e-4}
        write_cell(tmp_path, Cell("4x4", "dapo", 9, 9, f"rate-{factor}"), found)
    for scale in ("4x4", "5x5"):
        write_run(tmp_path, Cell(scale, "dapo", 0, 0), np.full(4, 9))
    small, large = (maze_results.Results(tmp_path, scale) for scale in ("4x4", "5x5"))
    assert "| DAPO | 1e-04 | 1e-04: 0.600; 2e-04: 0.500 |" in report.search_section(small)[-1]
    assert report.search_section(large) == []
    assert " 3 cells took" in report.introduction(small) and " 1 cells took" in report.introduction(large)


def test_pages_of_the_methods_get_their_tables(made_up, tmp_path):
    root, results = tmp_path / "root", maze_results.Results(made_up, "4x4")
    (root / "docs/methods").mkdir(parents=True)
    pages = [root / "docs/methods" / f"{name}.md" for name in ("README", *report.METHOD_PAGES)]
    for page in pages:
        page.write_text(f"# Title\n\n{report.BEGIN}\nold\n{END}\n\nThe rest\n")
    report.fill_in_tables(root, results)
    texts = {page.stem: page.read_text() for page in pages}
    for text in texts.values():
        assert text.startswith("# Title\n") and text.endswith("The rest\n") and "old" not in text
        assert "Runs of each: 6. Base models: 3." in text
    assert "| DAPO | 0.391 ±" in texts["README"]
    difference = report.signed(*results.difference("pass_at_8", "dapo", "pass@32")[:3])
    assert "| DAPO | 0.391 | 0.500 |  |  | 0.50 |" in texts["pass_at_k"]
    assert f" | {difference} | 0.50 |" in next(line for line in texts["noise"].splitlines() if "Pass@8" in line)
    pages[-1].write_text("# Title\n")
    with pytest.raises(ValueError, match="noise.md' has no place for its table"):
        report.fill_in_tables(root, results)


def test_every_page_of_a_method_has_rows_and_they_are_at_equal_rollouts():
    pages = {page.stem for page in (report.ROOT / "docs/methods").glob("*.md")}
    assert report.METHOD_PAGES.keys() == pages - {"README"}
    shown = {row for rows in report.METHOD_PAGES.values() for row in rows.split()}
    assert shown <= set(maze_results.at_equal_rollouts(maze_results.Results(RESULTS, report.HEADLINE_SIZE)))


def pages_with_figures(root):
    return [root / "README.md", *(root / "docs/methods").glob("*.md")]


NUMBER = re.compile(r"[+-]?\d+(?:,\d{3})*(?:\.\d+)?")


def other_lines(page, again):
    """The lines of the two texts that differ in a word, or in a number by more than half a unit of its last digit."""

    def number(text):
        return Decimal(text.replace(",", ""))

    def is_same(line, other):
        if NUMBER.split(line) != NUMBER.split(other):
            return False
        pairs = zip(NUMBER.findall(line), NUMBER.findall(other), strict=True)
        units = [(number(a), number(b), Decimal(1).scaleb(number(a).as_tuple().exponent)) for a, b in pairs]
        return all(abs(a - b) <= unit / 2 for a, b, unit in units)

    lines = zip_longest(page.splitlines(), again.splitlines(), fillvalue="")
    return [(line, other) for line, other in lines if not is_same(line, other)]


def test_pages_are_compared_by_their_words_and_numbers():
    line = "| DAPO, 2 of 3 | +0.391 [-0.000, +0.788] | 51,200 | **not reproduced** |"
    assert other_lines(line, line.replace("-0.000", "+0.000").replace("0.391", "0.3905")) == []
    for old, new in (("0.788", "0.787"), ("+0.391", "-0.391"), ("51,200", "51,201"), ("2 of", "1 of"), ("not ", "")):
        assert other_lines(line, line.replace(old, new)) == [(line, line.replace(old, new))]
    assert other_lines(line, f"{line}\n{line}") == [("", line)]


def test_page_and_readme_are_of_the_committed_results(tmp_path):
    root = report.ROOT
    (tmp_path / "docs/methods").mkdir(parents=True)
    for page in pages_with_figures(root):
        (tmp_path / page.relative_to(root)).write_text(page.read_text())
    report.make_report(RESULTS, tmp_path / "docs", ["4x4", "5x5", "9x9"], fill_in=tmp_path)
    for page in [root / "docs/results.md", *pages_with_figures(root)]:
        again = f"{page.name}: run python benchmarks/maze_report.py, and commit what it writes."
        assert other_lines(page.read_text(), (tmp_path / page.relative_to(root)).read_text()) == [], again


def test_figures_in_sentences_stand_on_the_page():
    """Sentences are written by hand; every figure with an interval in them stands on the page of results."""
    root = report.ROOT
    results = (root / "docs/results.md").read_text()
    for page in pages_with_figures(root):
        figures = re.findall(r"[+-]?0\.\d{3} \[[^]]*\]", " ".join(page.read_text().split()))
        assert [figure for figure in figures if f" {figure}" not in results] == [], page


def test_report_of_nothing_and_of_different_mazes(made_up, tmp_path):
    with pytest.raises(ValueError, match="holds no finished cell of 5x5"):
        report.make_report(made_up, tmp_path / "docs", ["5x5"])
    other = measured([1] * 40) | {"mazes": "others"}
    write_cell(made_up, Cell("4x4", "dr_grpo", 0, 0), {"test": other})
    with pytest.raises(ValueError, match=r"4x4 were tested on different mazes: \['m', 'others'\]"):
        maze_results.Results(made_up, "4x4")
