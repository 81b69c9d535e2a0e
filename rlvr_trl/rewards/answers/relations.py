"""Equations and inequalities, and the values that they state."""

from dataclasses import replace
from fractions import Fraction

from flint import fmpq

from .evaluate import Evaluation, TooLarge, Undefined
from .expressions import CONSTANTS, Expr
from .identity import same_expressions, sample_points, variables
from .kinds import INEQUALITIES, Answer, Items, Ratio, Relation, SetOperation, Text, Unread, Value, show
from .literals import exact
from .real_sets import TURNED, same_set
from .rules import Verdict, equal


_OF_AN_ANGLE = ("sin", "cos", "tan", "cot", "sec", "csc")


def _is_of_an_angle(expr: Expr) -> bool:
    """Whether this is like sin A, whose value a problem may ask for."""
    return expr.op == "call" and expr.name in _OF_AN_ANGLE and len(expr.args) == 1 and bool(variables(expr))


def _is_named_in_reference(side: Answer) -> bool:
    """Whether a reference may have this as the left side of its value: a length, f(2) + f(3), or a limit."""
    if isinstance(side, Unread):
        return bool(side.tokens) and side.tokens[0].kind == "big"
    expr = side.expr if isinstance(side, Value) else Expr("num")
    applied = expr.op == "add" and all(term.op == "apply" for term in expr.args)
    return applied or (expr.op == "abs" and is_name(Value(expr.args[0])))


def _is_impossible(side: Answer, value: Answer) -> bool:
    """Whether this states a sine or cosine above 1."""
    number = exact(value.expr) if isinstance(value, Value) else None
    of = side.expr.name if isinstance(side, Value) else ""
    return of in ("sin", "cos") and number is not None and abs(number) > 1


def _is_variable(expr: Expr) -> bool:
    return expr.op == "sym" and expr.name not in CONSTANTS


def is_name(side: Answer) -> bool:
    """Whether a side only names what the other side is the value of: x, f(x), AB, Area, P(X=2)."""
    if isinstance(side, Value):
        expr = side.expr
        letters = expr.op == "mul" and all(arg.op == "sym" and arg.name not in CONSTANTS for arg in expr.args)
        length = (
            expr.op == "abs"
            and (expr.args[0].op == "mul" or expr.args[0].name[:1].isupper())
            and is_name(Value(expr.args[0]))
        )
        quotient = expr.op == "div" and all(is_name(Value(arg)) for arg in expr.args)
        constant = expr.op == "sym" and expr.name in ("e", "i")  # eccentricity, an index
        return expr.op == "apply" or letters or length or quotient or constant or _is_variable(expr)
    if isinstance(side, Unread):
        return bool(side.tokens) and side.tokens[0].kind in ("letters", "symbol", "op") and side.tokens[0].text != "|"
    if isinstance(side, SetOperation):
        return all(map(is_name, side.parts))
    if isinstance(side, Ratio):
        return all(is_name(Value(part)) or _is_of_an_angle(part) for part in side.parts)
    if isinstance(side, Text):
        return not side.words.startswith("not")
    return isinstance(side, Items) and bool(side.left) and all(map(is_name, side.items))


def _says(relation: Relation, compound: bool) -> Answer | None:
    """
    The value that a chain of equations ends in. With `compound`, the side that it belongs to may also be a sum of
    different variables, as in a + b = 10.
    """
    sides, signs = relation.sides, relation.signs
    if "≈" in signs:
        at = signs.index("≈")
        if at == 0 and not is_name(sides[0]):
            return sides[0]
        sides, signs = (sides[: at + 1], signs[:at]) if at else (sides[: at + 2], ("=",))
        if not signs:
            return sides[0]
    if set(signs) != {"="}:
        return None
    if len(sides) == 2 and not is_name(sides[0]) and (is_name(sides[1]) or (compound and _is_sum_of_names(sides[1]))):
        sides = sides[::-1]
    plain = [side for side in sides[:-1] if isinstance(side, Value) and not is_name(side)]
    known = [side for side in plain if all(node.op != "apply" for node in side.expr.walk())]
    numbers = [side for side in known if not variables(side.expr)]
    if not all(equal(sides[-1], number) for number in numbers):
        return None
    trigonometric = isinstance(sides[0], Value) and _is_of_an_angle(sides[0].expr)
    named = (
        is_name(sides[0])
        or (trigonometric and not _is_impossible(sides[0], sides[-1]))
        or (not compound and _is_named_in_reference(sides[0]))
        or len(numbers) == len(sides) - 1
        or (compound and _is_sum_of_names(sides[0]))
    )
    return sides[-1] if named else None


def _is_sum_of_names(side: Answer) -> bool:
    """Whether this is like a + b, a - b or m + n + p, or an expression that only math-verify could read."""
    if isinstance(side, Unread):
        return True
    if not isinstance(side, Value) or side.expr.op != "add":
        return False
    terms = [term.args[0] if term.op == "neg" else term for term in side.expr.args]
    names = [term.name for term in terms if term.op == "sym" and term.name not in CONSTANTS]
    return len(names) == len(terms) == len(set(names))


def relation_and_other(relation: Relation, other: Answer, swapped: bool) -> Verdict:
    if set(relation.signs) & INEQUALITIES:
        return bool(same_set(relation, other))
    value = _says(relation, compound=swapped)
    if value is None or isinstance(value, Relation):
        return False
    if isinstance(value, Value) and relation.condition:
        value = replace(value, condition=relation.condition)
    return equal(other, value) if swapped else equal(value, other)


def same_relations(reference: Relation, answer: Relation) -> Verdict:
    if reference.condition and answer.condition and reference.condition != answer.condition:
        return False
    if any(set(one.signs) & INEQUALITIES for one in (reference, answer)):
        same = same_set(reference, answer)
        if same is not None:
            return same
    if len(reference.sides) == len(answer.sides) and reference.signs == answer.signs:
        if all(_same_side(*pair) for pair in zip(reference.sides, answer.sides, strict=True)):
            return True
        if reference.signs == ("=",) and reference.sides == answer.sides[::-1]:
            return True
    value, other = _says(reference, compound=False), _says(answer, compound=False)
    names = [[show(side) for side in (one.sides[0], one.sides[-1]) if is_name(side)] for one in (reference, answer)]
    approximate = "≈" in reference.signs and "≈" in answer.signs
    comparable = approximate or (all(names) and names[0][:1] == names[1][:1])
    if comparable and value is not None and other is not None:
        return equal(value, other)
    if not all(len(one.sides) == len(_expressions(one)) == 2 for one in (reference, answer)):
        return False
    return _proportional(reference, answer) or _solved(reference, answer) or _solved(answer, reference)


def _same_side(one: Answer, other: Answer) -> bool:
    """Mathematics is compared by form here, because the two sides of any true equation have equal values."""
    return one == other or (not isinstance(one, Value | Unread) and equal(one, other))


def _proportional(reference: Relation, answer: Relation) -> bool:
    """Whether one equation or inequality is a multiple of the other."""
    (sign,), (other_sign,) = reference.signs, answer.signs
    one, other = _difference(reference), _difference(answer)
    zero, names = Expr("num"), variables(one, other)
    if not names or variables(one) != variables(other):
        return False
    if any(same_expressions(difference, zero) is not False for difference in (one, other)):
        return False
    primed = {name: Expr("sym", name=f"{name} again") for name in names}
    crossed = [Expr("mul", (one, _substituted(other, primed))), Expr("mul", (other, _substituted(one, primed)))]
    if not same_expressions(*crossed):
        return False
    if sign == other_sign and sign in ("=", "!=", "≡"):
        return True
    if sign not in TURNED or other_sign not in (sign, TURNED[sign]):
        return False
    return _same_sign(one, other, names) == (sign == other_sign)


def _solved(explicit: Relation, other: Relation) -> bool:
    """Whether one equation is y = f(x) and the other is linear in y and has this solution, as x y = 1 for y = 1/x."""
    left, right = _expressions(explicit)
    if {explicit.signs, other.signs} != {("=",)} or not _is_variable(left) or left.name in variables(right):
        return False
    difference = _difference(other)
    if variables(difference) != variables(left, right):
        return False
    above = [Expr("add", (right, Expr("num", value=Fraction(n)))) for n in range(3)]
    at = [_substituted(difference, {left.name: y}) for y in above]
    zero, slope = Expr("num"), Expr("add", (at[2], Expr("neg", (at[1],))))
    holds = same_expressions(at[0], zero) and same_expressions(at[1], zero) is False
    return bool(holds and same_expressions(slope, at[1]))


def _expressions(relation: Relation) -> list[Expr]:
    """The sides that are expressions."""
    return [side.expr for side in relation.sides if isinstance(side, Value)]


def _difference(relation: Relation) -> Expr:
    """The left side minus the right one."""
    left, right = _expressions(relation)
    return Expr("add", (left, Expr("neg", (right,))))


def _substituted(tree: Expr, by: dict[str, Expr]) -> Expr:
    if tree.op == "sym":
        return by.get(tree.name, tree)
    return replace(tree, args=tuple(_substituted(arg, by) for arg in tree.args))


def _same_sign(one: Expr, other: Expr, names: tuple[str, ...]) -> bool | None:
    for point in sample_points(len(names))[0]:
        try:
            values = [Evaluation(dict(zip(names, point, strict=True)))(tree) for tree in (one, other)]
        except (Undefined, TooLarge):
            continue
        signs = [v > 0 if isinstance(v, fmpq) else v.real > 0 for v in values]
        return signs[0] == signs[1]
    return None
