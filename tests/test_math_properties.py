"""The reward on a slice of the random pairs of benchmarks/math_properties.py."""

import pytest


pytest.importorskip("math_verify")

from math_gold import ours
from math_properties import FOUND, judge
from random_answers import KINDS, random_pairs


pytestmark = pytest.mark.slow

PAIRS = 16 * len(KINDS)


def test_equal_answers_are_found_and_no_others():
    pairs = list(random_pairs(PAIRS, seed=20))
    verdicts = judge(pairs, ours)
    wrong = [pair for pair, found in zip(pairs, verdicts, strict=True) if not pair.equal and any(found)]
    assert wrong == []
    missed = [pair for pair, found in zip(pairs, verdicts, strict=True) if pair.equal and not all(found)]
    assert len(missed) <= (1 - FOUND) * PAIRS / 2, missed
