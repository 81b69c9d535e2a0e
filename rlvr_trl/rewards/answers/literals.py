"""Numbers as they are written: their exact values, and what a rounded decimal may stand for."""

from fractions import Fraction

from .expressions import Expr
from .kinds import Answer, Value


MAX_LITERAL_BITS = 50_000
MIN_PLACES, MIN_DIGITS = 6, 5  # of a decimal that counts as equal to what it rounds


def exact(tree: Expr) -> Fraction | None:
    """The value of a tree of integers and decimals with the four operations and small powers, else `None`."""
    if tree.op == "num":
        return tree.value
    if tree.op not in ("neg", "add", "mul", "div", "pow"):
        return None
    values: list[Fraction] = []
    for arg in tree.args:
        value = exact(arg)
        if value is None or _bits(value) > MAX_LITERAL_BITS:
            return None
        values.append(value)
    if tree.op == "neg":
        return -values[0]
    if tree.op == "add":
        return sum(values[1:], values[0])
    if tree.op == "mul":
        total = values[0]
        for value in values[1:]:
            if _bits(total) > MAX_LITERAL_BITS:
                return None
            total *= value
        return total
    if tree.op == "div":
        return values[0] / values[1] if values[1] else None
    base, exponent = values
    if exponent.denominator != 1 or abs(exponent) * _bits(base) > MAX_LITERAL_BITS or (base == 0 and exponent <= 0):
        return None
    return base**exponent.numerator


def _bits(value: Fraction) -> int:
    return abs(value.numerator).bit_length() + value.denominator.bit_length()


def rounded(tree: Expr) -> Expr | None:
    """The decimal (or number in scientific notation) that a tree is; `None` for others and for too few digits."""
    sign = 1
    while tree.op == "neg":
        tree, sign = tree.args[0], -sign
    places, digits = tree.places, tree.digits
    if tree.op == "mul" and len(tree.args) == 2 and tree.args[1].op == "pow":
        ten, exponent = (exact(arg) for arg in tree.args[1].args)
        if ten != 10 or exponent is None or exponent.denominator != 1:
            return None
        places, digits, tree = tree.args[0].places - int(exponent), tree.args[0].digits, tree
    elif tree.op != "num":
        return None
    value = exact(tree)
    scientific = tree.op == "mul" or places < 0
    enough = digits >= MIN_PLACES if scientific else digits >= MIN_DIGITS and places >= MIN_PLACES
    if value is None or not enough:
        return None
    return Expr("num", value=sign * value, places=places, digits=digits)


def same_number(left: Expr, right: Expr) -> bool | None:
    """Whether two numbers are equal, exactly or because one rounds the other; `None` if one is not a plain number."""
    x, y = exact(left), exact(right)
    if x is None or y is None:
        return None
    if x == y or any(_whole(tree) for tree in (left, right)):
        return x == y
    return rounds(rounded(left), rounded(right), y) or rounds(rounded(right), rounded(left), x)


def _whole(tree: Expr) -> bool:
    """Whether a number is written as an integer, to which no rounding applies."""
    tree = tree.args[0] if tree.op == "neg" else tree
    return tree.op == "num" and tree.digits < 0 and tree.value.denominator == 1


def rounds(decimal: Expr | None, other: Expr | None, value: Fraction) -> bool:
    """Whether a decimal is a number that was rounded or cut to the places of the decimal."""
    if decimal is None or (other is not None and other.places <= decimal.places):
        return False
    last = Fraction(10) ** -decimal.places
    beyond = abs(value) - abs(decimal.value)
    return value * decimal.value > 0 and (2 * abs(value - decimal.value) <= last or 0 <= beyond < last)


def settled(references: tuple[Answer, ...], answers: tuple[Answer, ...]) -> bool | None:
    """
    Whether two answers, each with all its readings, are equal, if that is certain without evaluating anything: for
    equal trees and for two numbers. `None` for everything else.
    """
    if any(reference == answer for reference in references for answer in answers):
        return True
    if len(references) == len(answers) == 1:
        one, other = references[0], answers[0]
        if isinstance(one, Value) and isinstance(other, Value) and one.condition == other.condition:
            plain = all(value.unit is None and not value.percent for value in (one, other))
            return same_number(one.expr, other.expr) if plain else None
    return None
