"""Sets of real numbers: intervals, points, and what unions, differences and inequalities make of them."""

from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import NamedTuple

from .expressions import Expr


class Bound(NamedTuple):
    """An end of an interval: where it is, whether it belongs to it, and the number as it was written."""

    at: Fraction | float  # -inf and inf for the infinite ones
    closed: bool
    expr: Expr | None = None


class Interval(NamedTuple):
    low: Bound
    high: Bound


INFINITE = float("inf")
REALS = (Interval(Bound(-INFINITE, False), Bound(INFINITE, False)),)
RealSet = tuple[Interval, ...]


def union(parts: Iterable[Interval]) -> RealSet:
    """Disjoint intervals in order, with what touches joined."""
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
    """All real numbers that are not in a set of disjoint intervals in order."""
    bounds = [Bound(-INFINITE, False)]
    for low, high in of:
        bounds += [low._replace(closed=not low.closed), high._replace(closed=not high.closed)]
    bounds.append(Bound(INFINITE, False))
    ends = [b._replace(closed=False) if abs(b.at) == INFINITE else b for b in bounds]
    return union(Interval(*pair) for pair in zip(ends[::2], ends[1::2], strict=True))


def intersection(left: RealSet, right: RealSet) -> RealSet:
    return complement(union((*complement(left), *complement(right))))


def same_set(left: RealSet, right: RealSet, equal: Callable[[Expr, Expr], bool]) -> bool:
    """Whether two sets are the same; `equal` compares their ends as they were written."""
    if len(left) != len(right):
        return False
    for one, other in zip(left, right, strict=True):
        for a, b in zip(one, other, strict=True):
            if a.closed != b.closed or (a.expr is None) != (b.expr is None):
                return False
            if a.expr is None and a.at != b.at:
                return False
            if a.expr is not None and not equal(a.expr, b.expr):
                return False
    return True
