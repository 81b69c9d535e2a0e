"""Whether two answers are equal: by the rule for their kinds, or by math-verify if that cannot tell."""

from collections.abc import Callable

from .expressions import render
from .kinds import Answer, Based, Clock, Items, Named, Relation, Text, Unread, Value
from .sympy_judge import latex, verify


Verdict = bool | None
ALGEBRA: bool = True  # whether math-verify may be asked in this process


class NeedsAlgebra(Exception):
    """Only math-verify could compare two answers, and this process must not ask it."""


# (kind of the reference, kind of the answer) -> rule; filled in equality.py
RULES: dict[tuple[type, type], Callable[[Answer, Answer], Verdict]] = {}


def equal(reference: Answer, answer: Answer) -> bool:
    """Whether two answers are equal."""
    if reference == answer:
        return True
    rule = RULES.get((type(reference), type(answer)))
    known = rule(reference, answer) if rule is not None else None
    if known is None and _may_ask(reference, answer):
        one, other = _latex(reference), _latex(answer)
        if one is None or other is None:
            return False
        if not ALGEBRA:
            raise NeedsAlgebra
        known = verify(one, other)
    return bool(known)


def _may_ask(reference: Answer, answer: Answer) -> bool:
    """
    Whether math-verify may compare two answers. It may not compare words, and a tuple only with something that has a
    large operator, a matrix or a set operation.
    """
    kinds = {type(reference), type(answer)}
    if kinds == {Items, Unread}:
        tokens = [token for one in (reference, answer) if isinstance(one, Unread) for token in one.tokens]
        return any(token.kind in ("big", "begin") or token.text in ("cap", "setminus") for token in tokens)
    return bool(kinds & {Unread, Value, Relation}) and not kinds & {Text, Clock, Based, Named}


def _latex(answer: Answer) -> str | None:
    if isinstance(answer, Unread):
        return latex(answer.tokens) if answer.tokens else None
    if isinstance(answer, Relation):
        return _joined("=", answer.sides) if set(answer.signs) == {"="} else None
    if isinstance(answer, Value):
        plain = all(
            node.op != "apply" and (node.op != "sym" or node.name.replace("_", "").isalnum())
            for node in answer.expr.walk()
        )
        return render(answer.expr) if plain else None
    if isinstance(answer, Items):
        inside = _joined(",", answer.items)
        return None if inside is None else answer.left + inside + answer.right
    return None


def _joined(sign: str, answers: tuple[Answer, ...]) -> str | None:
    texts = [text for text in map(_latex, answers) if text is not None]
    return sign.join(texts) if len(texts) == len(answers) else None
