"""Whether two answers are equal: the rule for their kinds, and math-verify where it cannot tell."""

from collections.abc import Callable

from .expressions import render
from .kinds import Answer, Based, Clock, Items, Named, Relation, Text, Unread, Value
from .sympy_judge import latex, verify


Verdict = bool | None
ALGEBRA = True  # whether math-verify may be asked in this process


class NeedsAlgebra(Exception):
    """Two answers are left to math-verify, which must not be asked here."""


# (kind of the reference, kind of the answer) -> rule; filled in equality.py
RULES: dict[tuple[type, type], Callable[[Answer, Answer], Verdict]] = {}


def equal(reference: Answer, answer: Answer) -> bool:
    """Whether two answers are equal."""
    if reference == answer:
        return True
    rule = RULES.get((type(reference), type(answer)))
    known = rule(reference, answer) if rule is not None else None
    if known is None and _may_ask(reference, answer):
        texts = [_latex(one) for one in (reference, answer)]
        if None in texts:
            return False
        if not ALGEBRA:
            raise NeedsAlgebra
        known = verify(*texts)
    return bool(known)


def _may_ask(reference: Answer, answer: Answer) -> bool:
    """Not of words, and of a tuple only where the other has an operator that makes one, as a sum or a limit may."""
    kinds = {type(reference), type(answer)}
    if kinds == {Items, Unread}:
        unread = reference if isinstance(reference, Unread) else answer
        return any(token.kind in ("big", "begin") or token.text in ("cap", "setminus") for token in unread.tokens)
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
