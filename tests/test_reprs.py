"""What a prompt or a notebook shows of the public objects that hold much."""

import numpy as np
import pytest
import torch

from rlvr_trl.advantages import RolloutGroups
from rlvr_trl.evaluation import Comparison, Completions, EvaluationResult, Problem, Sample, SavedCounts, pooled


LONG = "<b>\x1b[31m" * 20_000


def result_of(num_correct, num_samples=4):
    """An evaluation of long texts; None for a problem without a scored sample."""
    rewards = [
        [float("nan")] * num_samples if c is None else [1.0] * c + [0.0] * (num_samples - c) for c in num_correct
    ]
    count = len(num_correct) * num_samples
    problems = [Problem(str(i), {"prompt": LONG, "solution": LONG}) for i in range(len(num_correct))]
    lengths = np.full(count, 5)
    completions = Completions([LONG] * count, [[1] * 5] * count, lengths, lengths > 5, lengths * 0.0)
    settings = {"correctness_threshold": 0.5, "model": LONG}
    return EvaluationResult(problems, completions, np.array(rewards), {"extracted_answer": [LONG]}, {}, 0, settings)


def test_a_result_is_a_short_table():
    result = result_of([0, 1, 4])
    assert repr(result) == (
        "EvaluationResult: 3 problems, 4 samples each\n     k  pass@k\n     1  0.4167\n     2  0.5000\n     4  0.6667"
    )
    table = result._repr_html_()
    assert "<tr><th>k</th><td>1</td><td>2</td><td>4</td></tr>" in table
    assert "<tr><th>pass@k</th><td>0.4167</td><td>0.5000</td><td>0.6667</td></tr>" in table
    assert repr(pooled([result, result])).startswith("SavedCounts: 6 problems, 4 samples each\n")
    assert str(result) == repr(result) and LONG[:5] not in table


def test_results_without_scores():
    assert "3 problems, 4 samples each, 1 without a scored sample\n" in repr(result_of([0, 1, None]))
    nothing = result_of([None])
    assert repr(nothing) == "EvaluationResult: 1 problem, 1 without a scored sample"
    assert "<th>pass@k</th>" in nothing._repr_html_()
    uneven = SavedCounts(["a", "b"], np.array([4, 2]), np.array([1, 1]))
    assert repr(uneven).startswith("SavedCounts: 2 problems, 2 to 4 scored samples each\n")


def test_groups_are_counted():
    groups = RolloutGroups(torch.tensor([1.0, 0.0, float("nan"), 1.0]).repeat(1000), torch.arange(4000) // 8)
    assert repr(groups) == "RolloutGroups(4000 completions of 500 prompts, 8 each; 2000 correct, 1000 unscored)"
    ragged = RolloutGroups(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([7, 3, 7]))
    assert repr(ragged) == "RolloutGroups(3 completions of 2 prompts, 1 to 2 each; 1 correct, 0 unscored)"


@pytest.mark.parametrize(
    "thing",
    [
        result_of([0, 1, 4] * 50).completions,
        Problem("id", {"prompt": [{"role": "user", "content": LONG}], "generations": [LONG] * 50}),
        Sample(0, 1, LONG, [1] * 30_000, 30_000, True, None),
        [Comparison("aime25", 8, 0.4, 0.5, 0.1, 0.05, 0.15, "higher")] * 5,
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_nothing_fills_the_screen(thing):
    assert len(repr(thing)) < 600 and "\x1b" not in repr(thing)
