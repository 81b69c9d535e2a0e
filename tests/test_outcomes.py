"""Intervals over base models and problems, and cells that become rows: by hand, by simulation, and where some lack."""

import math
from dataclasses import asdict

import numpy as np
import pytest

from rlvr_trl.evaluation import pass_at_k
from rlvr_trl.testbed.cells import BASE, STRONG, Cell
from rlvr_trl.testbed.intervals import (
    Estimate,
    average,
    estimate,
    false_discovery,
    settle,
    shown,
    t_quantile,
    t_tails,
)
from rlvr_trl.testbed.outcomes import BASE_ROW, CURVE, Outcomes, Row


# --- intervals ---


@pytest.mark.parametrize(  # printed tables of Student's t, and the normal distribution
    ("df", "quantile"),
    [(1, 12.706205), (2, 4.302653), (3, 3.182446), (10, 2.228139), (199, 1.971957), (1e7, 1.959964)],
)
def test_quantiles_of_t(df, quantile):
    assert t_quantile(0.95, df) == pytest.approx(quantile, abs=2e-6)
    assert t_tails(quantile, df) == pytest.approx(0.05, abs=1e-7)


def test_tails_of_t_have_their_closed_forms():
    for t in (0.0, 0.3, 2.0, 50.0):
        assert t_tails(t, 1) == pytest.approx(1 - 2 / math.pi * math.atan(t), rel=1e-10)  # Cauchy
        assert t_tails(t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-8)
    assert t_tails(-2.0, 7.5) == t_tails(2.0, 7.5)
    assert 0 < t_tails(40.0, 100) < 1e-60


def test_an_estimate_by_hand():
    # two base models, three problems: the means of rows are 2 and 4, of columns 2, 3 and 4
    found = estimate(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]))
    by_base, by_problem = 3 * 2, 2 * 2 / 2  # the rest is 0
    variance, df = (by_base + by_problem) / 6, (by_base + by_problem) ** 2 / (by_base**2 / 1 + by_problem**2 / 2)
    assert (found.mean, found.variance, found.runs) == (3.0, pytest.approx(variance), 2)
    assert found.df == pytest.approx(df)
    half = t_quantile(0.95, df) * math.sqrt(variance)
    assert found.interval() == pytest.approx((3 - half, 3 + half))
    assert found.p_value(3.0) == 1.0 and found.p_value(3 - half) == pytest.approx(0.05)


def test_one_base_model_has_an_interval_over_its_problems_and_one_metric_over_base_models():
    values = np.array([0.1, 0.4, 0.2, 0.9])
    for shaped in (values[None, :], values):
        found = estimate(shaped)
        assert found.variance == pytest.approx(values.var(ddof=1) / 4) and found.df == 3
    with pytest.raises(ValueError, match=r"shape \(1, 1\): one value has no interval"):
        estimate(values[:1])


def test_what_is_the_same_everywhere_has_no_width():
    found = estimate(np.full((3, 5), 0.25))
    assert found.interval() == (0.25, 0.25)
    assert found.p_value(0.25) == 1.0 and found.p_value() == 0.0


@pytest.mark.parametrize("spread", [(0.03, 0.1, 0.2), (0.0, 0.1, 0.2), (0.06, 0.02, 0.1)])
def test_intervals_cover_the_mean_at_least_as_often_as_they_say(spread):
    rng, hits, over_tasks, small = np.random.default_rng(0), 0, 0, 0
    for _ in range(100):
        of_tasks = []
        for _ in range(4):
            of_base, of_problem = rng.normal(0, spread[0], (3, 1)), rng.normal(0, spread[1], (1, 60))
            of_tasks.append(estimate(of_base + of_problem + rng.normal(0, spread[2], (3, 60))))
            low, high = of_tasks[-1].interval()
            hits += low <= 0 <= high
            small += of_tasks[-1].p_value() < 0.01
        low, high = average(of_tasks).interval()
        over_tasks += low <= 0 <= high
    assert hits / 400 >= 0.91 and over_tasks / 100 >= 0.91
    assert small <= 8  # of 400; a false discovery rate rests on small p-values


def test_base_models_that_agree_by_chance_do_not_narrow_an_interval_all_at_once():
    """The interval hardly changes where the spread of base models passes that of chance."""
    rng = np.random.default_rng(0)
    rest = rng.normal(0, 0.2, (3, 200))
    rest -= rest.mean(axis=0) + rest.mean(axis=1, keepdims=True) - rest.mean()
    chance = math.sqrt((rest**2).sum() / (2 * 199) / 200)  # of the mean of a base model
    widths = []
    for spread in (0.98, 0.999, 1.001, 1.02):
        found = estimate(rest + spread * chance * np.array([[-1.0], [0.0], [1.0]]))
        low, high = found.interval()
        widths.append(high - low)
    assert max(widths) < 1.03 * min(widths)


def test_the_average_over_tasks():
    one, other = Estimate(0.2, 0.04, 2, 3), Estimate(0.6, 0.0, 5, 3)
    found = average([one, other])
    assert (found.mean, found.variance, found.runs) == (pytest.approx(0.4), pytest.approx(0.01), 6)
    assert found.df == pytest.approx(2)  # all of the variance is that of the first
    assert average([one]) == Estimate(0.2, pytest.approx(0.04), pytest.approx(2), 3)


def test_false_discoveries_are_those_of_benjamini_and_hochberg():
    # .041 is below .05 · 5/6 and takes all smaller ones with it, although .025 and .03 are above their own limits
    values = [0.041, 0.0302, 0.001, 0.9, 0.03, 0.025]
    assert false_discovery(values) == [True, True, True, False, True, True]
    assert false_discovery([0.06, 0.2]) == [False, False] and false_discovery([]) == []


def test_the_last_bits_change_nothing():
    for value, text in ((63 / 80, "0.788"), (0.7865, "0.786"), (0.0625, "0.062"), (1.0005, "1.000")):
        around = (value, np.nextafter(value, 0), np.nextafter(value, 2), value - 1e-15, value + 1e-15)
        assert {shown(one, ".3f") for one in around} == {text}
    assert {shown(value, "+.3f") for value in (0.0, -0.0, 1e-17, -1e-17)} == {"+0.000"}
    assert shown(51200.5 + 2e-11, ",.0f") == "51,200" and settle(-1e-12) == 0


# --- cells as rows ---


PROBLEMS, SAMPLES = 6, 8


def saved(cell: Cell, test: list[int], validation: list[int] | None = None, **others) -> dict:
    def counts(name: str, num_correct: list[int]) -> dict:
        return {"problems": name, "num_samples": SAMPLES, "num_correct": num_correct, "token_entropy": cell.rate}

    both = {"test": counts("t", test), "validation": counts("v", validation or test)}
    return {"cell": asdict(cell), **both, "completions": 100, **others}


def outcomes(*rows: tuple) -> Outcomes:
    """Of rows `(method, rate, base, correct in the test, correct in the validation)`, the same for all problems."""
    cells = {}
    for method, rate, base, test, validation in rows:
        cell = Cell("sums", method, rate, base)
        cells[cell] = saved(cell, [test] * PROBLEMS, [validation] * PROBLEMS)
    return Outcomes(cells, "sums")


def test_a_rate_is_chosen_on_the_validation_problems_of_the_other_base_models():
    found = outcomes(
        ("grpo", 1e-4, 0, 3, 8), ("grpo", 2e-4, 0, 5, 1),
        ("grpo", 1e-4, 1, 2, 1), ("grpo", 2e-4, 1, 6, 2),
        ("grpo", 1e-4, 2, 1, 1), ("grpo", 2e-4, 2, 4, 4),
    )  # fmt: skip
    # without base 0 the higher rate is better; its own validation, and any test, say something else
    assert [found.chosen_rate("grpo", base) for base in range(3)] == [2e-4, 1e-4, 1e-4]
    values = found.values(Row("grpo"), "pass@1", (0, 1, 2))
    assert values.shape == (3, PROBLEMS) and values[:, 0] == pytest.approx([5 / 8, 2 / 8, 1 / 8])
    assert found.values(Row("grpo", 2e-4), "pass@1", (0, 1, 2))[:, 0] == pytest.approx([5 / 8, 6 / 8, 4 / 8])


def test_a_rate_beyond_the_edge_counts_once_all_base_models_have_it():
    rows = [("grpo", rate, base, 3, round(1e4 * rate)) for rate in (1e-4, 2e-4) for base in range(3)]
    beyond = [("grpo", 4e-4, base, 3, 6) for base in range(3)]
    for so_far in range(3):
        found = outcomes(*rows, *beyond[:so_far])
        assert [found.chosen_rate("grpo", base) for base in range(3)] == [2e-4] * 3
        assert found.common_bases(Row("grpo")) == [0, 1, 2]
    found = outcomes(*rows, *beyond)
    assert [found.chosen_rate("grpo", base) for base in range(3)] == [4e-4] * 3


def test_of_equally_good_rates_the_lowest_is_chosen_and_of_one_base_model_none():
    found = outcomes(
        ("grpo", 1e-4, 0, 3, 3), ("grpo", 2e-4, 0, 3, 3), ("grpo", 1e-4, 1, 3, 3), ("grpo", 2e-4, 1, 3, 3)
    )
    assert found.chosen_rate("grpo", 0) == 1e-4
    alone = outcomes(("grpo", 1e-4, 0, 3, 3), ("grpo", 2e-4, 0, 3, 3), ("grpo", 1e-4, 1, 3, 3))
    # base 1 lacks a rate, so that nothing is chosen for base 0, and for base 1 there is base 0
    assert alone.chosen_rate("grpo", 0) is None and alone.chosen_rate("grpo", 1) == 1e-4
    assert alone.common_bases(Row("grpo")) == [1] and alone.common_bases(Row("grpo", 1e-4)) == [0, 1]
    assert alone.mean(Row("nsr"), "pass@1") is None and alone.chosen_rate("nsr", 0) is None


def test_differences_are_taken_base_model_by_base_model_and_problem_by_problem():
    cells = {}
    rng = np.random.default_rng(0)
    for base in range(3):
        for method, rate in ((BASE, 0.0), ("grpo", 1e-4)):
            cell = Cell("sums", method, rate, base)
            cells[cell] = saved(cell, rng.integers(0, SAMPLES + 1, PROBLEMS).tolist())
    found = Outcomes(cells, "sums")
    for metric, k in (("pass@1", 1), ("pass@4", 4)):
        values = {cell: pass_at_k(SAMPLES, np.array(one["test"]["num_correct"]), k) for cell, one in cells.items()}
        pairs = [values[Cell("sums", "grpo", 1e-4, base)] - values[Cell("sums", BASE, 0.0, base)] for base in range(3)]
        assert found.difference(Row("grpo", 1e-4), BASE_ROW, metric) == estimate(np.array(pairs))
    curve = [found.values(Row("grpo", 1e-4), f"pass@{k}", (0, 1, 2)) for k in (1, 2, 4, 8)]  # there are 8 samples
    assert found.values(Row("grpo", 1e-4), CURVE, (0, 1, 2)) == pytest.approx(np.mean(curve, axis=0))
    assert found.difference(Row("grpo", 1e-4), BASE_ROW, "token_entropy").mean == pytest.approx(1e-4)
    one = {cell: value for cell, value in cells.items() if cell.base == 0}
    assert Outcomes(one, "sums").difference(Row("grpo", 1e-4), BASE_ROW, "token_entropy") is None
    assert Outcomes(one, "sums").difference(Row("grpo", 1e-4), BASE_ROW, "pass@1").runs == 1


def test_equal_rollouts_are_those_of_the_run_itself_where_it_sampled_more():
    cell = Cell("sums", "dars", 1e-4, 0)
    before = {
        "batches": 3,
        "completions": 60,
        **{name: saved(cell, [2] * PROBLEMS)[name] for name in ("test", "validation")},
    }
    found = Outcomes({cell: saved(cell, [5] * PROBLEMS, equal=before)}, "sums")
    whole, equal = (found.values(Row("dars", 1e-4, equal), "pass@1", (0,)).mean() for equal in (False, True))
    assert (whole, equal) == (5 / 8, 2 / 8)
    assert found.values(Row("dars", 1e-4, True), "completions", (0,)) == [60]
    less = Outcomes({cell: saved(cell, [5] * PROBLEMS)}, "sums")
    assert less.values(Row("dars", 1e-4, True), "pass@1", (0,)).mean() == 5 / 8


def test_failed_cells_other_tasks_and_strong_base_models_are_apart():
    cells = {}
    for task, base in (("sums", 0), ("sums", STRONG), ("maze", 0)):
        cell = Cell(task, "grpo", 1e-4, base)
        cells[cell] = saved(cell, [base] * PROBLEMS if base < 8 else [8] * PROBLEMS)
    broken = Cell("sums", "grpo", 2e-4, 0)
    cells[broken] = {"cell": asdict(broken), "error": "ValueError: NaN"}
    found = Outcomes(cells, "sums")
    assert list(found.cells) == [Cell("sums", "grpo", 1e-4, 0)] and found.failed == {broken: "ValueError: NaN"}
    assert list(Outcomes(cells, "sums", strong=True).cells) == [Cell("sums", "grpo", 1e-4, STRONG)]
    other = Cell("sums", "nsr", 1e-4, 0)
    cells[other] = saved(other, [1] * PROBLEMS)
    cells[other]["test"]["problems"] = "others"
    with pytest.raises(ValueError, match=r"cells of sums have different test problems: \['others', 't'\]"):
        Outcomes(cells, "sums")
