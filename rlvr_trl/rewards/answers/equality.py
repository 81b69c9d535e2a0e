"""
What is equal, as a table: `RULES` has one rule for each pair of kinds.

A rule returns True, False, or None if it cannot tell. Then math-verify is asked, after both answers were written as
LaTeX of a closed set of names. docs/verifier.md has the policy in words.
"""

import operator
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import product

from . import rules
from .expressions import Expr
from .identity import same_expressions
from .kinds import Answer, Based, Clock, Items, Named, Ratio, Relation, SetOperation, Text, Unread, Value
from .lists import all_say, items_and_value, same_items, same_lists, signed_values, text_and_items
from .literals import exact
from .reader import read
from .real_sets import same_set
from .relations import relation_and_other, same_relations
from .rules import RULES, NeedsAlgebra, Verdict, equal


def judge(reference: str, answer: str) -> bool:
    """Whether the text of an answer is equal to that of a reference, in any reading of each. This may take long."""
    return any(equal(one, other) for one, other in product(read(reference), read(answer)))


def judge_without_algebra(reference: str, answer: str) -> bool | None:
    """Like `judge`, but this process never asks math-verify from now on. `None` if only math-verify could tell."""
    rules.ALGEBRA = False
    undecided = False
    for one, other in product(read(reference), read(answer)):
        try:
            if equal(one, other):
                return True
        except NeedsAlgebra:
            undecided = True
    return None if undecided else False


def _sets(reference: Answer, answer: Answer) -> Verdict:
    """Whether two sets of real numbers are equal. If they have variables, they are compared part by part."""
    same = same_set(reference, answer)
    if same is not None:
        return same
    if isinstance(reference, SetOperation) and isinstance(answer, SetOperation) and reference.sign == answer.sign:
        if reference.sign == "setminus":
            return all(equal(*pair) for pair in zip(reference.parts, answer.parts, strict=True))
        return same_lists(Items(reference.parts), Items(answer.parts))
    return False


# Rules for the small kinds
def _texts(reference: Text, answer: Text) -> bool:
    return reference.words == answer.words


def _text_and_value(text: Text, value: Value) -> Verdict:
    """A capital letter may be the name of a point, an option, or a variable."""
    letter = text.original
    return len(letter) == 1 and value.unit is None and same_expressions(Expr("sym", name=letter), value.expr)


def _based_and_value(based: Based, value: Value) -> bool:
    """The base may be left out."""
    number = exact(value.expr)
    if number is None or value.unit is not None or value.percent:
        return False
    # a number of more bits has more digits, and Python refuses to write out a huge one
    return number.numerator.bit_length() <= 4 * len(based.digits) and str(number) == based.digits


def _clocks(reference: Clock, answer: Clock) -> bool:
    """20:34 is 8:34 p.m. A time that does not name its half of the day may be in either."""
    same = (reference.minute, reference.second) == (answer.minute, answer.second)
    return same and bool(_hours(reference) & _hours(answer))


def _hours(clock: Clock) -> set[int]:
    half = clock.hour % 12
    if clock.half:
        return {half + 12 * (clock.half == "pm")}
    return {half, half + 12} if 1 <= clock.hour <= 12 else {clock.hour % 24}


def _ratio_and_clock(ratio: Ratio, clock: Clock) -> Verdict:
    """10:15 for the ratio 2:3."""
    parts = (clock.hour, clock.minute, *((clock.second,) if clock.second else ()))
    return not clock.half and _ratios(ratio, Ratio(tuple(Expr("num", value=Fraction(part)) for part in parts)))


def _ratios(reference: Ratio, answer: Ratio) -> Verdict:
    zero = Expr("num")
    if len(reference.parts) != len(answer.parts):
        return False
    if any(same_expressions(part, zero) is not False for one in (reference, answer) for part in one.parts):
        return all(same_expressions(*pair) for pair in zip(reference.parts, answer.parts, strict=True))
    (x, *xs), (y, *ys) = reference.parts, answer.parts
    return all(same_expressions(Expr("mul", (x, b)), Expr("mul", (a, y))) for a, b in zip(xs, ys, strict=True))


def _ratio_and_value(ratio: Ratio, value: Value) -> Verdict:
    return len(ratio.parts) == 2 and same_expressions(Expr("div", ratio.parts), value.expr)


def _swapped(rule: Callable) -> Callable[[Answer, Answer], Verdict]:
    return lambda reference, answer: rule(answer, reference)


def _both_ways(one: type, other: type, rule: Callable) -> dict:
    """A rule that holds whichever of the two is the reference."""
    return {(one, other): rule, (other, one): _swapped(rule)}


# (kind of the reference, kind of the answer) -> rule. For other pairs math-verify is asked, or they are not equal.
RULES |= {
    (Value, Value): signed_values,
    (Text, Text): _texts,
    (Items, Items): same_items,
    (Relation, Relation): same_relations,
    (SetOperation, SetOperation): _sets,
    (Based, Based): operator.eq,
    (Clock, Clock): _clocks,
    (Ratio, Ratio): _ratios,
    (Items, Value): partial(items_and_value, swapped=False),
    (Value, Items): _swapped(partial(items_and_value, swapped=True)),
    **dict.fromkeys([(Based, Items), (Clock, Items), (Ratio, Items)], all_say),
    **_both_ways(Text, Value, _text_and_value),
    **_both_ways(Text, Items, text_and_items),
    **_both_ways(Based, Value, _based_and_value),
    (Ratio, Clock): _ratio_and_clock,
    **_both_ways(Ratio, Value, _ratio_and_value),
    **_both_ways(Named, Items, _sets),
    **_both_ways(SetOperation, Items, _sets),
    **_both_ways(SetOperation, Relation, _sets),
    **_both_ways(SetOperation, Named, _sets),
    **{
        (Relation, kind): partial(relation_and_other, swapped=False)
        for kind in (Value, Text, Items, Named, Based, Clock, Ratio, Unread)
    },
    **{
        (kind, Relation): _swapped(partial(relation_and_other, swapped=True))
        for kind in (Value, Text, Items, Named, Based, Clock, Ratio, Unread)
    },
}
