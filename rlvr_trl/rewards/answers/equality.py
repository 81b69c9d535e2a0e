"""
Whether two answers are equal: one rule for each pair of kinds, in `RULES`.

A rule gives True, False, or None where it cannot tell. What no rule can tell is asked of math-verify, once both are
LaTeX of a closed set of names. docs/verifier.md has the policy in words.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from itertools import product

from flint import arb, fmpq

from .evaluate import Evaluation, TooLarge, Undefined, same_value
from .expressions import CONSTANTS, Expr, render
from .kinds import (
    Answer,
    Based,
    Clock,
    Items,
    Named,
    Ratio,
    Relation,
    SetOperation,
    Text,
    Unread,
    Value,
    read,
    show,
)
from .literals import exact, rounded, rounds, same_number
from .real_sets import INFINITE, REALS, Bound, Interval, RealSet, complement, intersection, same_set, union
from .sympy_judge import latex, verify
from .units import Unit, lookup


MAX_ITEMS = 100  # of a list whose order does not matter
MAX_SIGNS = 4  # ± in an expression
Verdict = bool | None
_INEQUALITIES = ("<", ">", "<=", ">=", "!=")
_DEGREE, _RADIAN = lookup("degree"), lookup("radian")


def judge(reference: str, answer: str) -> bool:
    """Whether the text of an answer is equal to that of a reference, in one reading of each. It may take long."""
    return any(equal(one, other) for one, other in product(read(reference), read(answer)))


def equal(reference: Answer, answer: Answer) -> bool:
    """Whether two answers are equal."""
    if reference == answer:
        return True
    rule = RULES.get((type(reference), type(answer)))
    known = rule(reference, answer) if rule is not None else None
    if known is None and _may_ask(reference, answer):
        texts = [_latex(one) for one in (reference, answer)]
        known = None not in texts and verify(*texts)
    return bool(known)


def _may_ask(reference: Answer, answer: Answer) -> bool:
    kinds = {type(reference), type(answer)}
    return bool(kinds & {Unread, Value, Relation}) and not kinds & {Text, Clock, Based, Named}


def _latex(answer: Answer) -> str | None:
    if isinstance(answer, Unread):
        return latex(answer.tokens) if answer.tokens else None
    if isinstance(answer, Relation):
        parts = [_latex(side) for side in answer.sides]
        return None if None in parts or set(answer.signs) != {"="} else "=".join(parts)
    if isinstance(answer, Value):
        plain = all(
            node.op != "apply" and (node.op != "sym" or node.name.replace("_", "").isalnum())
            for node in answer.expr.walk()
        )
        return render(answer.expr) if plain else None
    if isinstance(answer, Items):
        parts = [_latex(item) for item in answer.items]
        return None if None in parts else answer.left + ",".join(parts) + answer.right
    return None


# Numbers and expressions
def _values(reference: Value, answer: Value) -> Verdict:
    if any(node.op == "pm" for value in (reference, answer) for node in value.expr.walk()):
        return _lists(_expanded(reference), _expanded(answer))
    if reference.percent or answer.percent:
        return _percentages(reference, answer)
    x, y = reference.unit, answer.unit
    if x is not None and y is not None and x.dimensions and y.dimensions:
        return _quantities(reference.expr, x, answer.expr, y)
    if x == _DEGREE or y == _DEGREE:
        degrees, other = (reference.expr, answer.expr) if x == _DEGREE else (answer.expr, reference.expr)
        if any(node.name == "pi" for node in other.walk()):
            return expressions(Expr("deg", (degrees,)), other)
    signs = [any(node.op == "deg" for node in value.expr.walk()) for value in (reference, answer)]
    if (
        x is None
        and y is None
        and signs[0] != signs[1]
        and (known := expressions(*map(_without_degrees, (reference.expr, answer.expr))))
    ):
        return known  # the sign was left out
    return expressions(reference.expr, answer.expr)


def _without_degrees(tree: Expr) -> Expr:
    if tree.op == "deg":
        return _without_degrees(tree.args[0])
    return replace(tree, args=tuple(map(_without_degrees, tree.args)))


def _quantities(x: Expr, unit: Unit, y: Expr, other: Unit) -> Verdict:
    """Two quantities: the same measure in other units is equal, and another measure is not."""
    if {unit.dimensions, other.dimensions} == {_DEGREE.dimensions, _RADIAN.dimensions}:
        x, y = (Expr("deg", (e,)) if u.dimensions == _DEGREE.dimensions else e for e, u in ((x, unit), (y, other)))
        return expressions(x, y)
    if unit.dimensions != other.dimensions:
        return False
    return expressions(x, y) if unit.factor == other.factor else expressions(_times(x, unit), _times(y, other))


def _times(expr: Expr, unit: Unit) -> Expr:
    return Expr("mul", (expr, Expr("num", value=unit.factor)))


def _percentages(reference: Value, answer: Value) -> Verdict:
    """50% is 50 where the sign is left out, and 0.5; but 0.5 is not 0.5%."""
    if any(value.unit is not None and value.unit.dimensions for value in (reference, answer)):
        return False
    x, y = reference.expr, answer.expr
    if reference.percent and answer.percent:
        return expressions(x, y)
    if reference.percent:
        return bool(expressions(x, y)) or expressions(Expr("pct", (x,)), y)
    number = exact(x)
    if number is not None and abs(number) > 1 and expressions(x, y):
        return True
    return expressions(x, Expr("pct", (y,)))


def expressions(reference: Expr, answer: Expr) -> Verdict:
    """Whether two expressions are equal wherever both have a real value."""
    if reference == answer:
        return True
    known = same_number(reference, answer)
    if known is not None:
        return known
    left, right = _matrix(reference), _matrix(answer)
    if left is not None or right is not None:
        return _matrices(left, right)
    if any(_infinity(one) is not None for one in (reference, answer)):
        return _infinity(reference) == _infinity(answer)
    bases = (10, 0) if any(_common_log(node) for one in (reference, answer) for node in one.walk()) else (10,)
    verdicts = [_same_everywhere(reference, answer, base) for base in bases]
    if True in verdicts:
        return True
    return _rounds(reference, answer) or (None if None in verdicts else False)


def _rounds(left: Expr, right: Expr) -> bool:
    """Whether one is a decimal of enough digits that rounds the value of the other."""
    for decimal, other in ((rounded(left), right), (rounded(right), left)):
        if decimal is None or _names(other):
            continue
        try:
            value = Evaluation({}, precision=256 + 4 * abs(decimal.places))(other)
        except (Undefined, TooLarge):
            continue
        if not isinstance(value, fmpq) and value.imag == 0 and value.real.rad() < arb(2) ** -128 * abs(value.real):
            middle = value.real.mid().fmpq()
            return rounds(decimal, None, Fraction(int(middle.p), int(middle.q)))
    return False


def _common_log(node: Expr) -> bool:
    return node.op == "call" and node.name == "log" and len(node.args) == 1


def _infinity(tree: Expr) -> int | None:
    if tree.op == "neg":
        sign = _infinity(tree.args[0])
        return None if sign is None else -sign
    return 1 if tree == Expr("sym", name="infty") else None


def _names(*trees: Expr) -> tuple[str, ...]:
    return tuple(sorted({n.name for t in trees for n in t.walk() if n.op == "sym" and n.name not in CONSTANTS}))


def _same_everywhere(left: Expr, right: Expr, log_base: int) -> Verdict:
    """By exact numbers and balls: at the one point where there are no variables, else at many."""
    names = _names(left, right)
    real = bool(names) and not any(node == Expr("sym", name="i") for tree in (left, right) for node in tree.walk())
    try:
        if not names:
            return same_value(left, right, {}, log_base, real=False)
        for points in _points(len(names)):
            agreed = 0
            for point in points:
                try:
                    same = same_value(left, right, dict(zip(names, point, strict=True)), log_base, real)
                except Undefined:
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
def _points(count: int) -> tuple[list[tuple[fmpq, ...]], list[tuple[fmpq, ...]]]:
    """Where expressions of so many variables are compared: real numbers, and if most are outside, whole ones."""
    draw = random.Random(20251).randint
    ranges = [(1, 96)] * 6 + [(1, 400)] * 6 + [(-400, 400)] * 6 + [(-4_000, 4_000)] * 3
    real = [tuple(fmpq(draw(*bounds) or 7, 97) for _ in range(count)) for bounds in ranges]
    return real, [tuple(fmpq(draw(1, 12)) for _ in range(count)) for _ in range(10)]


def _matrix(tree: Expr) -> Expr | None:
    """A matrix, with the scalars around it multiplied into it; `None` for what is none."""
    if tree.op == "matrix":
        return tree
    inner = [_matrix(arg) for arg in tree.args]
    if tree.op == "neg" and inner[0] is not None:
        return _mapped(inner[0], lambda cell: Expr("neg", (cell,)))
    if tree.op == "div" and inner[0] is not None and inner[1] is None:
        return _mapped(inner[0], lambda cell: Expr("div", (cell, tree.args[1])))
    if tree.op == "mul" and sum(one is not None for one in inner) == 1:
        found = next(one for one in inner if one is not None)
        scalars = tuple(arg for arg, one in zip(tree.args, inner, strict=True) if one is None)
        return _mapped(found, lambda cell: Expr("mul", (*scalars, cell)))
    return None


def _mapped(matrix: Expr, change: Callable[[Expr], Expr]) -> Expr:
    return Expr("matrix", tuple(Expr("row", tuple(map(change, row.args))) for row in matrix.args))


def _matrices(left: Expr | None, right: Expr | None) -> Verdict:
    if left is None or right is None:
        return None
    if [len(row.args) for row in left.args] != [len(row.args) for row in right.args]:
        return False
    cells = [[cell for row in matrix.args for cell in row.args] for matrix in (left, right)]
    return all(expressions(*pair) for pair in zip(*cells, strict=True))


# Several answers
def _expanded(answer: Answer) -> Items:
    r"""As a list in which `\pm 2` is two answers, and x = 1 or x = 2 are 1 and 2."""
    items = answer.items if isinstance(answer, Items) and answer.left in ("", "\\{") else (answer,)
    found: list[Answer] = []
    for item in items:
        if isinstance(item, Items) and item.left == "":
            found += _expanded(item).items
        elif isinstance(item, Value) and any(node.op == "pm" for node in item.expr.walk()):
            found += [Value(expr, item.percent, item.unit) for expr in _signs(item.expr)]
        elif isinstance(item, Relation) and isinstance(item.sides[-1], Value) and item.signs == ("=",):
            if any(node.op == "pm" for node in item.sides[-1].expr.walk()):
                found += [Relation((item.sides[0], Value(expr)), ("=",)) for expr in _signs(item.sides[-1].expr)]
            else:
                found.append(item)
        else:
            found.append(item)
    assigned = [_assigned(item) for item in found]
    names = {pair[0] for pair in assigned if pair is not None}
    if len(names) == 1 and assigned[0] is not None:  # x = 7, 100, and x = 7 or x = 100
        found = [item if pair is None else pair[1] for item, pair in zip(found, assigned, strict=True)]
    left, right = (answer.left, answer.right) if isinstance(answer, Items) else ("", "")
    return Items(tuple(found), left, right)


def _signs(expr: Expr) -> list[Expr]:
    nodes = [node for node in expr.walk() if node.op == "pm"]
    free = 1 if any(node.name == "∓" for node in nodes) else len(nodes)  # ± and ∓ go together
    if free > MAX_SIGNS:
        return [expr]
    found = []
    for signs in product((1, -1), repeat=free):
        order = iter(signs * (1 if free > 1 else len(nodes)))
        found.append(_with_signs(expr, order))
    return found


def _with_signs(tree: Expr, order) -> Expr:
    if tree.op == "pm":
        sign = next(order) * (1 if tree.name == "±" else -1)
        inner = _with_signs(tree.args[0], order)
        return inner if sign > 0 else Expr("neg", (inner,))
    args = tuple(_with_signs(arg, order) for arg in tree.args)
    return replace(tree, args=args)


def _assigned(answer: Answer) -> tuple[str, Answer] | None:
    if isinstance(answer, Relation) and answer.signs == ("=",) and _is_name(answer.sides[0]):
        return show(answer.sides[0]), answer.sides[1]
    return None


def _lists(reference: Items, answer: Items) -> Verdict:
    """Lists and sets: in any order, each as often as the other has it, but for repetitions in a set."""
    if len(reference.items) > MAX_ITEMS or len(answer.items) > MAX_ITEMS:
        return False
    golds, answers = list(reference.items), list(answer.items)
    if reference.left == answer.left == "\\{":
        golds, answers = _distinct(golds), _distinct(answers)
    if len(golds) != len(answers):
        return False
    for gold in golds:
        same = next((one for one in answers if one == gold), None)
        found = same if same is not None else next((one for one in answers if equal(gold, one)), None)
        if found is None:
            return False
        answers.remove(found)
    return True


def _distinct(items: list[Answer]) -> list[Answer]:
    kept: list[Answer] = []
    for item in items:
        if not any(equal(item, one) for one in kept):
            kept.append(item)
    return kept


def _items(reference: Items, answer: Items) -> Verdict:
    if any(one.left not in ("", "\\{") for one in (reference, answer)):
        coordinates = [_coordinates(one) for one in (reference, answer)]
        return None not in coordinates and _tuples(*coordinates)
    x, y = _expanded(reference), _expanded(answer)
    assignments = [[_assigned(item) for item in one.items] for one in (x, y)]
    if all(None not in one for one in assignments):
        names = [[name for name, _ in one] for one in assignments]
        if all(len(set(one)) == len(one) for one in names):  # x = 2, y = 3
            by_name = [dict(one) for one in assignments]
            return by_name[0].keys() == by_name[1].keys() and all(
                equal(v, by_name[1][n]) for n, v in by_name[0].items()
            )
    sets = [_as_set(one) for one in (reference, answer)]
    if None not in sets and any(isinstance(item, Relation) for one in (x, y) for item in one.items):
        return same_set(*sets, expressions)
    return _lists(x, y)


def _coordinates(items: Items) -> Items | None:
    """(2, 3) for x = 2, y = 3; a tuple as it is; `None` for any other list."""
    if items.left not in ("", "\\{"):
        return items
    pairs = [_assigned(item) for item in items.items]
    if None in pairs or items.left or len({name for name, _ in pairs}) != len(pairs):
        return None
    return Items(tuple(value for _, value in sorted(pairs, key=lambda pair: pair[0])), "(", ")")


def _tuples(x: Items, y: Items) -> Verdict:
    vectors = len(x.items) > 2 and {x.left + x.right, y.left + y.right} <= {"()", "[]"}
    if len(x.items) != len(y.items) or ((x.left, x.right) != (y.left, y.right) and not vectors):
        return False
    return all(equal(*pair) for pair in zip(x.items, y.items, strict=True))


def _items_and_value(items: Items, value: Value, swapped: bool) -> Verdict:
    matrix = _matrix(value.expr)
    if items.left not in ("", "\\{"):
        if matrix is None or not (len(matrix.args) == 1 or all(len(row.args) == 1 for row in matrix.args)):
            return False
        cells = [Value(cell) for row in matrix.args for cell in row.args]
        return len(cells) == len(items.items) and all(equal(*p) for p in zip(items.items, cells, strict=True))
    if any(node.op == "pm" for node in value.expr.walk()):
        return _lists(_expanded(items), _expanded(value))
    if swapped and items.left == "":
        return _all_say(value, items)
    expanded = _expanded(items).items
    return len(expanded) == 1 and equal(expanded[0], value)


def _all_say(reference: Answer, items: Items) -> bool:
    """A reference of one, and a list of which each item says the same: 1/2, or 0.5."""
    expanded = _expanded(items).items
    return items.left == "" and len(expanded) <= MAX_ITEMS and all(equal(reference, item) for item in expanded)


# Sets
def _as_set(answer: Answer) -> RealSet | None:
    if isinstance(answer, Named):
        return {"R": REALS, "empty": ()}.get(answer.name)
    if isinstance(answer, Items):
        if answer.left in ("(", "[") and answer.right in (")", "]") and len(answer.items) == 2:
            low, high = (_bound(item) for item in answer.items)
            if low is None or high is None:
                return None
            low, high = low._replace(closed=answer.left == "["), high._replace(closed=answer.right == "]")
            return union([Interval(low, high)])
        if answer.left == "\\{":
            points = [_bound(item) for item in _expanded(answer).items]
            return None if None in points else union(Interval(point, point) for point in points)
        if answer.left == "" and all(isinstance(item, Relation) for item in answer.items):
            return _of_inequalities(answer.items)
        return None
    if isinstance(answer, Relation):
        return _of_inequalities((answer,))
    if isinstance(answer, SetOperation):
        sets = [_as_set(part) for part in answer.parts]
        if None in sets:
            return None
        if answer.sign == "cup":
            return union(interval for one in sets for interval in one)
        return intersection(sets[0], sets[1] if answer.sign == "cap" else complement(sets[1]))
    return None


def _bound(answer: Answer) -> Bound | None:
    if not isinstance(answer, Value) or answer.percent:
        return None
    sign = _infinity(answer.expr)
    if sign is not None:
        return Bound(sign * INFINITE, False)
    try:
        value = Evaluation({})(answer.expr)
    except (Undefined, TooLarge):
        return None
    if not isinstance(value, fmpq):
        if value.imag != 0:
            return None
        middle = value.real.mid().fmpq()
        return Bound(Fraction(int(middle.p), int(middle.q)), True, answer.expr)
    return Bound(Fraction(int(value.p), int(value.q)), True, answer.expr)


def _variable(answer: Answer) -> str | None:
    return answer.expr.name if isinstance(answer, Value) and answer.expr.op == "sym" and not _bound(answer) else None


def _of_inequalities(relations: tuple[Relation, ...]) -> RealSet | None:
    """The real numbers for which inequalities in one variable hold: each of them, or any where they do not meet."""
    names, sets = set(), []
    for relation in relations:
        if not set(relation.signs) <= {*_INEQUALITIES, "="}:
            return None
        meets = REALS
        variables = [_variable(side) for side in relation.sides]
        if sum(name is not None for name in variables) != 1:
            return None
        names.update(name for name in variables if name is not None)
        for i, sign in enumerate(relation.signs):
            left, right = relation.sides[i : i + 2]
            if variables[i] is None:
                left, right, sign = right, left, {"<": ">", ">": "<", "<=": ">=", ">=": "<="}.get(sign, sign)
            bound = _bound(right)
            if bound is None or variables[i] is None and variables[i + 1] is None:
                return None
            meets = intersection(meets, _half_line(sign, bound))
        sets.append(meets)
    if len(names) != 1:
        return None
    found = sets[0]
    for one in sets[1:]:
        both = intersection(found, one)
        found = both or union((*found, *one))
    return found


def _half_line(sign: str, bound: Bound) -> RealSet:
    low, high = Bound(-INFINITE, False), Bound(INFINITE, False)
    point = union([Interval(bound, bound)])
    if sign in ("=", "!="):
        return point if sign == "=" else complement(point)
    end = bound._replace(closed=sign in ("<=", ">="))
    return union([Interval(low, end) if sign in ("<", "<=") else Interval(end, high)])


def _sets(reference: Answer, answer: Answer) -> Verdict:
    sets = [_as_set(one) for one in (reference, answer)]
    if None not in sets:
        return same_set(*sets, expressions)
    if isinstance(reference, SetOperation) and isinstance(answer, SetOperation) and reference.sign == answer.sign:
        if reference.sign == "setminus":
            return all(equal(*pair) for pair in zip(reference.parts, answer.parts, strict=True))
        return _lists(Items(reference.parts), Items(answer.parts))
    return False


# Equations and inequalities
def _is_name(side: Answer) -> bool:
    """Whether a side only says of what the other is the value: x, f(x), AB, Area, P(X=2)."""
    if isinstance(side, Value):
        expr = side.expr
        letters = expr.op == "mul" and all(arg.op == "sym" and arg.name not in CONSTANTS for arg in expr.args)
        return (expr.op == "sym" and expr.name not in CONSTANTS) or expr.op == "apply" or letters
    if isinstance(side, Unread):
        return bool(side.tokens) and side.tokens[0].kind in ("letters", "symbol", "op") and side.tokens[0].text != "|"
    return isinstance(side, Text)


def _says(relation: Relation, compound: bool) -> Answer | None:
    """
    The value that a chain of equations ends in. With `compound` the other side may be any expression with variables,
    as in a + b = 10.
    """
    sides, signs = relation.sides, relation.signs
    if "≈" in signs:
        at = signs.index("≈")
        if at == 0 and not _is_name(sides[0]):
            return sides[0]
        sides, signs = (sides[: at + 1], signs[:at]) if at else (sides[: at + 2], ("=",))
        if not signs:
            return sides[0]
    if set(signs) != {"="}:
        return None
    if _is_name(sides[0]):
        return sides[-1]
    if _is_name(sides[-1]) and len(sides) == 2:
        return sides[0]
    if not all(isinstance(side, Value) for side in sides):
        return sides[-1] if compound and isinstance(sides[0], Unread) else None
    if not _names(*(side.expr for side in sides)):
        return sides[-1] if all(equal(sides[-1], side) for side in sides[:-1]) else None
    return sides[-1] if compound and not _names(sides[-1].expr) and exact(sides[-1].expr) != 0 else None


def _relation_and_other(relation: Relation, other: Answer, swapped: bool) -> Verdict:
    if set(relation.signs) & set(_INEQUALITIES):
        sets = [_as_set(relation), _as_set(other)]
        return None not in sets and same_set(*sets, expressions)
    value = _says(relation, compound=swapped)
    if value is None or isinstance(value, Relation):
        return False
    return equal(other, value) if swapped else equal(value, other)


def _relations(reference: Relation, answer: Relation) -> Verdict:
    if any(set(one.signs) & set(_INEQUALITIES) for one in (reference, answer)):
        sets = [_as_set(one) for one in (reference, answer)]
        if None not in sets:
            names = [next(filter(None, map(_variable, one.sides))) for one in (reference, answer)]
            return names[0] == names[1] and same_set(*sets, expressions)
    if len(reference.sides) == len(answer.sides) and reference.signs == answer.signs:
        if all(_same_side(*pair) for pair in zip(reference.sides, answer.sides, strict=True)):
            return True
        if reference.signs == ("=",) and reference.sides == answer.sides[::-1]:
            return True
    values = [_says(one, compound=False) for one in (reference, answer)]
    names = [[show(side) for side in (one.sides[0], one.sides[-1]) if _is_name(side)] for one in (reference, answer)]
    approximate = "≈" in reference.signs and "≈" in answer.signs
    if None not in values and (approximate or (all(names) and names[0][:1] == names[1][:1])):
        return equal(*values)
    if not all(len(one.sides) == 2 and all(isinstance(s, Value) for s in one.sides) for one in (reference, answer)):
        return False
    return _proportional(reference, answer)


def _same_side(one: Answer, other: Answer) -> bool:
    """By form where they are mathematics: two equations that are true have equal values on both sides."""
    return one == other or (not isinstance(one, Value | Unread) and equal(one, other))


def _proportional(reference: Relation, answer: Relation) -> bool:
    """Whether one equation, or inequality, is a multiple of the other."""
    (sign,), (other_sign,) = reference.signs, answer.signs
    one, other = (Expr("add", (r.sides[0].expr, Expr("neg", (r.sides[1].expr,)))) for r in (reference, answer))
    zero = Expr("num")
    names = _names(one, other)
    if not names or _names(one) != _names(other) or any(expressions(d, zero) is not False for d in (one, other)):
        return False
    primed = {name: f"{name} again" for name in names}
    crossed = [Expr("mul", (one, _renamed(other, primed))), Expr("mul", (other, _renamed(one, primed)))]
    if not expressions(*crossed):
        return False
    if sign == other_sign and sign in ("=", "!=", "≡"):
        return True
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
    if sign not in turned or other_sign not in (sign, turned[sign]):
        return False
    return _same_sign(one, other, names) == (sign == other_sign)


def _same_sign(one: Expr, other: Expr, names: tuple[str, ...]) -> bool | None:
    for point in _points(len(names))[0]:
        try:
            values = [Evaluation(dict(zip(names, point, strict=True)))(tree) for tree in (one, other)]
        except (Undefined, TooLarge):
            continue
        signs = [v > 0 if isinstance(v, fmpq) else v.real > 0 for v in values]
        return signs[0] == signs[1]
    return None


def _renamed(tree: Expr, names: dict[str, str]) -> Expr:
    if tree.op == "sym":
        return Expr("sym", name=names.get(tree.name, tree.name))
    args = tuple(_renamed(arg, names) for arg in tree.args)
    return replace(tree, args=args)


# The small kinds
def _texts(reference: Text, answer: Text) -> bool:
    return reference.words == answer.words


def _text_and_value(text: Text, value: Value) -> Verdict:
    """A capital letter is a name of a point, an option, or a variable."""
    letter = text.original
    return len(letter) == 1 and value.unit is None and expressions(Expr("sym", name=letter), value.expr)


def _text_and_items(text: Text, items: Items) -> bool:
    """AC as the options A, C."""
    letters = [item.original for item in items.items if isinstance(item, Text)]
    word = text.original
    return (
        len(letters) == len(items.items) == len(word) > 1
        and word.isupper()
        and set(word) <= set("ABCDEFGHIJ")
        and sorted(word) == sorted(letters)
    )


def _based_and_value(based: Based, value: Value) -> bool:
    """The base may be left out."""
    number = exact(value.expr)
    return value.unit is None and not value.percent and number is not None and str(number) == based.digits


def _clocks(reference: Clock, answer: Clock) -> bool:
    if reference.half and answer.half:
        return reference == answer
    same = (reference.minute, reference.second) == (answer.minute, answer.second)
    if reference.hour > 12 or answer.hour > 12:  # 20:34 is 8:34 p.m.
        afternoon = [one.hour + 12 if one.hour < 12 and one.half != "am" else one.hour for one in (reference, answer)]
        return same and afternoon[0] == afternoon[1]
    return same and reference.hour == answer.hour


def _clock_and_ratio(clock: Clock, ratio: Ratio) -> Verdict:
    parts = (clock.hour, clock.minute, *((clock.second,) if clock.second else ()))
    numbers = tuple(Expr("num", value=Fraction(part)) for part in parts)
    return not clock.half and _ratios(Ratio(numbers), ratio)


def _ratios(reference: Ratio, answer: Ratio) -> Verdict:
    if len(reference.parts) != len(answer.parts):
        return False
    (x, *xs), (y, *ys) = reference.parts, answer.parts
    return all(expressions(Expr("mul", (x, b)), Expr("mul", (a, y))) for a, b in zip(xs, ys, strict=True))


def _ratio_and_value(ratio: Ratio, value: Value) -> Verdict:
    return len(ratio.parts) == 2 and expressions(Expr("div", ratio.parts), value.expr)


def _named_and_items(named: Named, items: Items) -> Verdict:
    sets = [_as_set(one) for one in (named, items)]
    return None not in sets and same_set(*sets, expressions)


def _swapped(rule: Callable) -> Callable[[Answer, Answer], Verdict]:
    return lambda reference, answer: rule(answer, reference)


def _both_ways(one: type, other: type, rule: Callable) -> dict:
    """A rule that is the same whichever of the two is the reference."""
    return {(one, other): rule, (other, one): _swapped(rule)}


# (kind of the reference, kind of the answer) -> rule. A pair that is not here is asked of math-verify or not equal.
RULES: dict[tuple[type, type], Callable[[Answer, Answer], Verdict]] = {
    (Value, Value): _values,
    (Text, Text): _texts,
    (Items, Items): _items,
    (Relation, Relation): _relations,
    (SetOperation, SetOperation): _sets,
    (Based, Based): lambda reference, answer: reference == answer,
    (Clock, Clock): _clocks,
    (Ratio, Ratio): _ratios,
    (Items, Value): lambda reference, answer: _items_and_value(reference, answer, swapped=False),
    (Value, Items): lambda reference, answer: _items_and_value(answer, reference, swapped=True),
    **dict.fromkeys([(Based, Items), (Clock, Items), (Ratio, Items)], _all_say),
    **_both_ways(Text, Value, _text_and_value),
    **_both_ways(Text, Items, _text_and_items),
    **_both_ways(Based, Value, _based_and_value),
    **_both_ways(Clock, Ratio, _clock_and_ratio),
    **_both_ways(Ratio, Value, _ratio_and_value),
    **_both_ways(Named, Items, _named_and_items),
    **_both_ways(SetOperation, Items, _sets),
    **_both_ways(SetOperation, Relation, _sets),
    **_both_ways(SetOperation, Named, _sets),
    **{
        (Relation, kind): lambda reference, answer: _relation_and_other(reference, answer, swapped=False)
        for kind in (Value, Text, Items, Named, Based, Clock, Ratio, Unread)
    },
    **{
        (kind, Relation): lambda reference, answer: _relation_and_other(answer, reference, swapped=True)
        for kind in (Value, Text, Items, Named, Based, Clock, Ratio, Unread)
    },
}
