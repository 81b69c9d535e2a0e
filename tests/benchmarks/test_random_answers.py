"""The generator of random answers: what it says about a pair is true, and all kinds and both classes occur."""

import cmath
import math
import random
import re
from collections import Counter
from fractions import Fraction

import pytest
from expression_trees import Tree, Writer, compare, fn, has_two_readings, log, num, root, var, variables
from random_answers import KINDS, Pair, random_pairs
from random_expressions import EXPRESSIONS
from random_numbers import NUMBERS


def test_every_kind_has_both_classes():
    pairs = list(random_pairs(4 * len(KINDS), seed=1))
    assert Counter((pair.kind, pair.equal) for pair in pairs) == {(k, e): 2 for k in KINDS for e in (True, False)}
    assert all(pair.reference.strip() and pair.answer.strip() for pair in pairs)
    assert not any(pair.reference == pair.answer for pair in pairs if not pair.equal)


def test_the_seed_decides():
    first, again, other = (list(random_pairs(300, seed)) for seed in (5, 5, 6))
    assert first == again and isinstance(first[0], Pair)
    assert sum(a == b for a, b in zip(first, other, strict=True)) < 30
    assert list(random_pairs(100, 5)) == first[:100]


def evaluate(t: Tree, point: dict[str, float]) -> complex:
    """Floats, as a second route to the values that the generator computes with mpmath."""
    args = [evaluate(a, point) for a in t.args]
    functions = {"ln": cmath.log, "arctan": cmath.atan, "sec": lambda z: 1 / cmath.cos(z)}
    match t.op:
        case "num":
            return complex(t.leaf)
        case "var":
            return complex(point[t.leaf])
        case "const":
            return {r"\pi": cmath.pi, "e": cmath.e, "i": 1j}[t.leaf]
        case "sum":
            return sum(args)
        case "prod":
            return math.prod(args)
        case "frac":
            return args[0] / args[1]
        case "pow":
            return args[0] ** args[1]
        case "root":
            return args[0] ** (1 / t.leaf)
        case "fn":
            return functions.get(t.leaf, getattr(cmath, t.leaf, None))(args[0])
        case "log":
            return cmath.log(args[1]) / cmath.log(args[0])
    raise ValueError(t.op)


def exact(t: Tree) -> Fraction:
    """Rational numbers of any size."""
    args = [exact(a) for a in t.args]
    match t.op:
        case "num":
            return t.leaf
        case "sum":
            return sum(args, Fraction(0))
        case "prod":
            return math.prod(args, start=Fraction(1))
        case "frac":
            return args[0] / args[1]
        case "pow":
            return args[0] ** int(args[1])
        case "fact":
            return Fraction(math.factorial(int(args[0])))
        case "binom":
            return Fraction(math.comb(int(args[0]), int(args[1])))
    raise ValueError(t.op)


@pytest.mark.parametrize("name", sorted(set(EXPRESSIONS) - {"power or factorial"}))
def test_expressions_are_equal_or_not_as_said(name):
    rng = random.Random(3)
    for i in range(200):
        trees = EXPRESSIONS[name](rng, i % 2 == 0)
        if trees is None:
            continue
        points = [{v: rng.uniform(0.5, 3) for v in variables(trees[0]) | variables(trees[1])} for _ in range(3)]
        try:
            values = [[evaluate(t, point) for t in trees] for point in points]
        except OverflowError:  # floats have a smaller range than the generator's numbers
            continue
        gaps = [abs(a - b) / max(abs(a), abs(b), 1e-9) for a, b in values]
        assert (max(gaps) < 1e-7) is (i % 2 == 0), [Writer(rng, plain=True)(t) for t in trees]


def test_large_numbers_are_equal_or_not_as_said():
    rng = random.Random(4)
    for i in range(200):
        trees = EXPRESSIONS["power or factorial"](rng, i % 2 == 0)
        if trees is not None:
            assert (exact(trees[0]) == exact(trees[1])) is (i % 2 == 0)


def read(text: str) -> Fraction | None:
    """The value of a number in one of the plainer spellings, None for the others."""
    text = re.sub(r"^(x|n|AB) ?= ?|[{} ]|\\[,!]|\\(text|mathbf|mathrm)|(?<=\d),(?=\d{3})", "", text.replace("−", "-"))
    found = re.fullmatch(r"(-?)(\d*\.?\d+)(?:(?:[eE]|(?:\\times|\\cdot|×)10\^)(-?\d+))?", text)
    if found is None:
        return None
    sign, digits, exponent = found.groups()
    return (-1 if sign else 1) * Fraction(digits) * Fraction(10) ** int(exponent or 0)


@pytest.mark.parametrize("name", ["integer", "decimal", "scientific"])
def test_numbers_are_equal_or_not_as_said(name):
    rng, checked = random.Random(5), 0
    for i in range(400):
        texts = NUMBERS[name](rng, i % 2 == 0)
        values = texts and [read(text) for text in texts]
        if values and None not in values:
            assert (values[0] == values[1]) is (i % 2 == 0), texts
            checked += 1
    assert checked > 200


def test_comparison_of_trees():
    x, y = var("x"), var("y")
    assert compare((x + y) ** 2, x**2 + 2 * x * y + y**2) is True
    assert compare(fn("sin", x) ** 2, 1 - fn("cos", x) ** 2) is True
    assert compare(x, y) is False and compare(root(x), x) is False and compare(log(2, x), log(x, 2)) is False
    assert compare(root(x**2), x) is None  # equal only where x is positive
    assert compare(num(10**40), num(10**40 + 1)) is None and compare(num(10**40), num(10**40 + 1), 100) is False
    assert compare(x / (x - x), x) is None


def test_spellings_have_one_reading():
    x, half = var("x"), num(Fraction(1, 2))
    texts = {Writer(random.Random(seed))(2 * (half * x) + var("f") * (x + 1)) for seed in range(200)}
    assert len(texts) > 50
    assert not any(re.search(r"\d\\[dt]?frac|(?<!\\[dt])(?<!\\)f(\(|\\left\()", text) for text in texts)
    assert Writer(random.Random(0), plain=True)(-(x - half)) == r"-(x-\frac{1}{2})"
    for text in ("ln(x)", "3pm+x", r"\frac{dx}{2}", "x or y", "5cm+x"):
        assert has_two_readings(text)
    for text in (r"\ln(x)", "3p+m", r"\frac{d}{2}", "x+y", "5c+m"):
        assert not has_two_readings(text)
