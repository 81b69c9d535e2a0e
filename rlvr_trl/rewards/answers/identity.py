"""Whether two numbers, quantities or expressions are equal."""

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

from flint import arb, fmpq

from .evaluate import Evaluation, TooLarge, Undefined, fraction, same_value
from .expressions import CONSTANTS, Expr
from .kinds import Value
from .literals import exact, rounded, rounds, same_number
from .rules import Verdict
from .units import UNITS, Unit


_DEGREE, _RADIAN = UNITS["degree"], UNITS["radian"]


def same_values(reference: Value, answer: Value) -> Verdict:
    """Whether two numbers or expressions are equal, with their units, percent and degree signs."""
    if reference.condition and answer.condition and reference.condition != answer.condition:
        return False
    if reference.percent or answer.percent:
        return _same_percentages(reference, answer)
    x, y = reference.unit, answer.unit
    if x is not None and y is not None and x.dimensions and y.dimensions:
        return _same_quantities(reference.expr, x, answer.expr, y)
    if x == _DEGREE or y == _DEGREE:
        degrees, other = (reference.expr, answer.expr) if x == _DEGREE else (answer.expr, reference.expr)
        if any(node.name == "pi" or node.name.startswith("arc") for node in other.walk()):
            return same_expressions(Expr("deg", (degrees,)), other)
    signs = [any(node.op == "deg" for node in value.expr.walk()) for value in (reference, answer)]
    if (
        x is None
        and y is None
        and signs[0] != signs[1]
        and (known := same_expressions(*map(_without_degrees, (reference.expr, answer.expr))))
    ):
        return known  # one of them leaves the degree sign out
    return same_expressions(reference.expr, answer.expr)


def _without_degrees(tree: Expr) -> Expr:
    if tree.op == "deg":
        return _without_degrees(tree.args[0])
    return replace(tree, args=tuple(map(_without_degrees, tree.args)))


def _same_quantities(x: Expr, unit: Unit, y: Expr, other: Unit) -> Verdict:
    """Two quantities. The same measure in other units is equal, another measure is not."""
    if {unit.dimensions, other.dimensions} == {_DEGREE.dimensions, _RADIAN.dimensions}:
        x, y = (Expr("deg", (e,)) if u.dimensions == _DEGREE.dimensions else e for e, u in ((x, unit), (y, other)))
        return same_expressions(x, y)
    if unit.dimensions != other.dimensions:
        return False
    if unit.factor != other.factor:
        x, y = _times(x, unit), _times(y, other)
    return same_expressions(x, y)


def _times(expr: Expr, unit: Unit) -> Expr:
    return Expr("mul", (expr, Expr("num", value=unit.factor)))


def _same_percentages(reference: Value, answer: Value) -> Verdict:
    """50% is equal to 0.5, and to 50 with the sign left out; but 0.5 is not 0.5%."""
    if any(value.unit is not None and value.unit.dimensions for value in (reference, answer)):
        return False
    x, y = reference.expr, answer.expr
    if reference.percent and answer.percent:
        return same_expressions(x, y)
    if reference.percent:
        return bool(same_expressions(x, y)) or same_expressions(Expr("pct", (x,)), y)
    number = exact(x)
    if number is not None and abs(number) > 1 and same_expressions(x, y):
        return True
    return same_expressions(x, Expr("pct", (y,)))


def same_expressions(reference: Expr, answer: Expr) -> Verdict:
    """Whether two expressions are equal wherever both have a real value."""
    if reference == answer:
        return True
    known = same_number(reference, answer)
    if known is not None:
        return known
    left, right = matrix_of(reference), matrix_of(answer)
    if left is not None or right is not None:
        return _same_matrices(left, right)
    if any(infinity_sign(one) is not None for one in (reference, answer)):
        return infinity_sign(reference) == infinity_sign(answer)
    bases = (10, 0) if any(_common_log(node) for one in (reference, answer) for node in one.walk()) else (10,)
    verdicts = [_same_everywhere(reference, answer, base) for base in bases]
    if True in verdicts:
        return True
    return _one_rounds_other(reference, answer) or (None if None in verdicts else False)


def _one_rounds_other(left: Expr, right: Expr) -> bool:
    """Whether one is a decimal with enough digits to stand for the value of the other, rounded."""
    for decimal, other in ((rounded(left), right), (rounded(right), left)):
        if decimal is None or variables(other):
            continue
        try:
            value = Evaluation({}, precision=256 + 4 * abs(decimal.places))(other)
        except (Undefined, TooLarge):
            continue
        if not isinstance(value, fmpq) and value.imag == 0 and value.real.rad() < arb(2) ** -128 * abs(value.real):
            return rounds(decimal, None, fraction(value.real.mid().fmpq()))
    return False


def _common_log(node: Expr) -> bool:
    return node.op == "call" and node.name == "log" and len(node.args) == 1


def infinity_sign(tree: Expr) -> int | None:
    if tree.op == "neg":
        sign = infinity_sign(tree.args[0])
        return None if sign is None else -sign
    return 1 if tree == Expr("sym", name="infty") else None


def variables(*trees: Expr) -> tuple[str, ...]:
    return tuple(sorted({n.name for t in trees for n in t.walk() if n.op == "sym" and n.name not in CONSTANTS}))


def _same_everywhere(left: Expr, right: Expr, log_base: int) -> Verdict:
    """Compare by exact numbers and balls: once if there are no variables, else at many points."""
    names = variables(left, right)
    real = bool(names) and not any(node == Expr("sym", name="i") for tree in (left, right) for node in tree.walk())
    try:
        if not names:
            return same_value(left, right, {}, log_base, real=False)
        too_large = 0
        for points in sample_points(len(names)):
            agreed = 0
            for point in points:
                try:
                    same = same_value(left, right, dict(zip(names, point, strict=True)), log_base, real)
                except Undefined:
                    continue
                except TooLarge:
                    too_large += 1
                    if too_large > 3:
                        return False
                    continue
                if same is False:
                    return False
                agreed += same is True
            if agreed >= 6:
                return True
    except Undefined:
        return None
    except TooLarge:
        return False
    return None


@lru_cache(maxsize=64)
def sample_points(count: int) -> tuple[list[tuple[fmpq, ...]], list[tuple[fmpq, ...]]]:
    """The points at which expressions with `count` variables are compared: real ones, and whole ones as a fallback."""
    draw = random.Random(20251).randint
    ranges = [(1, 96)] * 6 + [(1, 400)] * 6 + [(-400, 400)] * 6 + [(-4_000, 4_000)] * 3
    parts = [97, 89, 83, 101, 103, 107, 109]
    real = [tuple(fmpq(draw(*bounds) or 7, parts[i % 7]) for _ in range(count)) for i, bounds in enumerate(ranges)]
    real += [
        tuple(draw(1, 5) - fmpq(1, 1009) for _ in range(count)),
        tuple(draw(1, 5) + fmpq(1, 1013) for _ in range(count)),
    ]
    whole = [tuple(fmpq(draw(1, 12)) for _ in range(count)) for _ in range(10)]
    return real, [*whole, *(tuple(fmpq(n + i) for i in range(count)) for n in (26, 77, 1001))]


def matrix_of(tree: Expr) -> Expr | None:
    """The matrix that an expression is, with the scalars around it multiplied in; `None` if it is not one."""
    if tree.op == "matrix":
        return tree
    inner = [matrix_of(arg) for arg in tree.args]
    if tree.op == "neg" and inner[0] is not None:
        return _mapped(inner[0], lambda cell: Expr("neg", (cell,)))
    if tree.op == "div" and inner[0] is not None and inner[1] is None:
        return _mapped(inner[0], lambda cell: Expr("div", (cell, tree.args[1])))
    matrices = [one for one in inner if one is not None]
    if tree.op == "add" and len(matrices) == len(inner) and len({_shape(one) for one in matrices}) == 1:
        rows = zip(*(one.args for one in matrices), strict=True)
        cells = [zip(*(row.args for row in several), strict=True) for several in rows]
        return Expr("matrix", tuple(Expr("row", tuple(Expr("add", cell) for cell in row)) for row in cells))
    if tree.op == "mul" and len(matrices) == 1:
        scalars = tuple(arg for arg, one in zip(tree.args, inner, strict=True) if one is None)
        return _mapped(matrices[0], lambda cell: Expr("mul", (*scalars, cell)))
    return None


def _shape(matrix: Expr) -> tuple[int, ...]:
    return tuple(len(row.args) for row in matrix.args)


def _mapped(matrix: Expr, change: Callable[[Expr], Expr]) -> Expr:
    return Expr("matrix", tuple(Expr("row", tuple(map(change, row.args))) for row in matrix.args))


def _same_matrices(left: Expr | None, right: Expr | None) -> Verdict:
    if left is None or right is None:
        return False
    if _shape(left) != _shape(right):
        return False
    cells = [[cell for row in matrix.args for cell in row.args] for matrix in (left, right)]
    return all(same_expressions(*pair) for pair in zip(*cells, strict=True))
