"""Sets of real numbers: intervals, points, and the unions, differences and inequalities that describe them."""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from flint import fmpq

from .evaluate import Evaluation, TooLarge, Undefined, fraction
from .expressions import Expr
from .identity import infinity_sign, same_expressions
from .kinds import ANY, INEQUALITIES, Answer, Items, Named, Relation, SetOperation, Value


INFINITE = float("inf")
TURNED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}


class Bound(NamedTuple):
    """An end of an interval: where it is, whether it belongs to the interval, and the number as it was written."""

    at: Fraction | float  # -inf or inf if the interval is not bounded
    closed: bool
    expr: Expr | None = None


class Interval(NamedTuple):
    low: Bound
    high: Bound


REALS = (Interval(Bound(-INFINITE, False), Bound(INFINITE, False)),)
RealSet = tuple[Interval, ...]


def union(parts: Iterable[Interval]) -> RealSet:
    """Disjoint intervals in order. Intervals that touch are joined."""
    found: list[Interval] = []
    for low, high in sorted(parts, key=lambda part: (part.low.at, not part.low.closed)):
        if low.at > high.at or (low.at == high.at and not (low.closed and high.closed)):
            continue  # empty
        if found:
            last = found[-1].high
            if last.at > low.at or (last.at == low.at and (last.closed or low.closed)):
                higher = high.at > last.at or (high.at == last.at and high.closed and not last.closed)
                found[-1] = Interval(found[-1].low, high if higher else last)
                continue
        found.append(Interval(low, high))
    return tuple(found)


def complement(of: RealSet) -> RealSet:
    """All real numbers outside a set of disjoint intervals in order."""
    bounds = [Bound(-INFINITE, False)]
    for low, high in of:
        bounds += [low._replace(closed=not low.closed), high._replace(closed=not high.closed)]
    bounds.append(Bound(INFINITE, False))
    ends = [b._replace(closed=False) if abs(b.at) == INFINITE else b for b in bounds]
    return union(Interval(*pair) for pair in zip(ends[::2], ends[1::2], strict=True))


def intersection(left: RealSet, right: RealSet) -> RealSet:
    return complement(union((*complement(left), *complement(right))))


def same_set(one: Answer, other: Answer) -> bool | None:
    """Whether two answers are the same set of real numbers, judged by their ends; `None` if one is not such a set."""
    left, right = real_set(one), real_set(other)
    if left is None or right is None:
        return None
    if not _same_variables(one, other) or len(left) != len(right):
        return False
    ends = [pair for intervals in zip(left, right, strict=True) for pair in zip(*intervals, strict=True)]
    return all(_same_bound(*pair) for pair in ends)


def _same_bound(one: Bound, other: Bound) -> bool:
    if one.closed != other.closed:
        return False
    if one.expr is None or other.expr is None:
        return one.expr is other.expr and one.at == other.at
    return bool(same_expressions(one.expr, other.expr))


def real_set(answer: Answer) -> RealSet | None:
    if isinstance(answer, Named):
        return {"R": REALS, "empty": ()}.get(answer.name)
    if isinstance(answer, Items):
        if answer.left in ("(", "[") and answer.right in (")", "]") and len(answer.items) == 2:
            low, high = (bound_at(item) for item in answer.items)
            if low is None or high is None or low.at >= high.at:
                return None  # a point
            low, high = low._replace(closed=answer.left == "["), high._replace(closed=answer.right == "]")
            return union([Interval(low, high)])
        if answer.left == "\\{":
            points = [point for point in map(bound_at, answer.items) if point is not None]
            return union(Interval(p, p) for p in points) if len(points) == len(answer.items) else None
        relations = tuple(item for item in answer.items if isinstance(item, Relation))
        if answer.left == "" and len(relations) == len(answer.items):
            return _of_inequalities(relations, answer.joined)
        return None
    if isinstance(answer, Relation):
        return _of_inequalities((answer,))
    if isinstance(answer, SetOperation):
        sets = [one for one in map(real_set, answer.parts) if one is not None]
        if len(sets) != len(answer.parts):
            return None
        if answer.sign == "cup":
            return union(interval for one in sets for interval in one)
        return intersection(sets[0], sets[1] if answer.sign == "cap" else complement(sets[1]))
    return None


def bound_at(answer: Answer) -> Bound | None:
    if not isinstance(answer, Value) or answer.percent:
        return None
    sign = infinity_sign(answer.expr)
    if sign is not None:
        return Bound(sign * INFINITE, False)
    try:
        value = Evaluation({})(answer.expr)
    except (Undefined, TooLarge):
        return None
    if not isinstance(value, fmpq):
        if value.imag != 0:
            return None
        value = value.real.mid().fmpq()
    return Bound(fraction(value), True, answer.expr)


def variable_of(answer: Answer) -> str | None:
    return answer.expr.name if isinstance(answer, Value) and answer.expr.op == "sym" and not bound_at(answer) else None


def _names_of(answer: Answer) -> set[str]:
    """The variables of inequalities."""
    relations = answer.items if isinstance(answer, Items) else (answer,)
    sides = [side for one in relations if isinstance(one, Relation) for side in one.sides]
    return {name for name in map(variable_of, sides) if name is not None}


def _same_variables(one: Answer, other: Answer) -> bool:
    """Whether two sets may be about the same variable. A set without a name for it fits any."""
    names = [_names_of(one), _names_of(other)]
    return not all(names) or names[0] == names[1] or ANY in names[0] | names[1]


def _of_inequalities(relations: tuple[Relation, ...], joined: str = "and") -> RealSet | None:
    """
    The real numbers for which inequalities in one variable hold: all of the inequalities, or any of them if they are
    joined by "or", or if they are joined by commas and have no solution in common.
    """
    names, sets = set(), []
    for relation in relations:
        if not set(relation.signs) <= {*INEQUALITIES, "="}:
            return None
        distance = _distance(relation)
        if distance is not None:
            name, found = distance
            names.add(name)
            sets.append(found)
            continue
        meets = REALS
        variables = [variable_of(side) for side in relation.sides]
        if sum(name is not None for name in variables) != 1:
            return None
        names.update(name for name in variables if name is not None)
        for i, sign in enumerate(relation.signs):
            left, right = relation.sides[i : i + 2]
            if variables[i] is None:
                left, right, sign = right, left, TURNED.get(sign, sign)
            bound = bound_at(right)
            if bound is None or variables[i] is None and variables[i + 1] is None:
                return None
            meets = intersection(meets, _half_line(sign, bound))
        sets.append(meets)
    if len(names) != 1:
        return None
    found = sets[0]
    for one in sets[1:]:
        both = intersection(found, one) if joined != "or" else ()
        found = both if both or joined == "and" else union((*found, *one))
    return found


def _distance(relation: Relation) -> tuple[str, RealSet] | None:
    """The variable and the set of |x| < 3, or |x| > 3."""
    side = relation.sides[0]
    expr = side.expr if isinstance(side, Value) else None
    if expr is None or expr.op != "abs" or len(relation.sides) != 2 or relation.signs[0] not in ("<", "<=", ">", ">="):
        return None
    name, bound = variable_of(Value(expr.args[0])), bound_at(relation.sides[1])
    if name is None or bound is None or bound.expr is None or bound.at < 0:
        return None
    inside = "<" in relation.signs[0]
    other = Bound(-bound.at, True, Expr("neg", (bound.expr,)))
    near, far = _half_line(relation.signs[0], bound), _half_line(TURNED[relation.signs[0]], other)
    return name, intersection(near, far) if inside else union((*near, *far))


def _half_line(sign: str, bound: Bound) -> RealSet:
    low, high = Bound(-INFINITE, False), Bound(INFINITE, False)
    point = union([Interval(bound, bound)])
    if sign in ("=", "!="):
        return point if sign == "=" else complement(point)
    end = bound._replace(closed=sign in ("<=", ">="))
    return union([Interval(low, end) if sign in ("<", "<=") else Interval(end, high)])
