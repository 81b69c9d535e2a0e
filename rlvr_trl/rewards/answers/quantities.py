"""Numbers and other expressions with what may stand beside them: units, currencies, percent and degree signs."""

import re
from dataclasses import replace
from fractions import Fraction

from .commands import NAMES
from .expressions import Expr
from .kinds import Answer, Named, Value
from .parser import parse
from .tokens import Token, Unreadable
from .units import COUNTS, MULTIPLES, PERCENT_WORDS, lookup, read_unit, singular


def read_value(tokens: list[Token]) -> Answer | None:
    if len(tokens) == 1 and tokens[0].kind == "symbol":
        name = tokens[0].text
        if name == "emptyset":
            return Named("empty")
        if name.startswith("mathbb_") and name[-1] in "RZQNC":
            return Named(name[-1])
    for reader in (_money, _percentage, _angle, _bare_expression, _quantity):
        answer = reader(tokens)
        if answer is not None:
            return answer
    expr = _try(tokens)
    return None if expr is None else Value(expr)


def _try(tokens: list[Token]) -> Expr | None:
    try:
        return parse(tokens) if tokens else None
    except Unreadable:
        return None


def _bare_expression(tokens: list[Token]) -> Value | None:
    """An expression without a unit; `None` if its end looks like a unit."""
    if unit_start(tokens) is not None:
        return None
    expr = _try(tokens)
    return None if expr is None else Value(expr)


def _money(tokens: list[Token]) -> Answer | None:
    i = next((i for i, token in enumerate(tokens) if token.kind == "currency"), None)
    if i is None and len(tokens) > 1 and tokens[0].kind == "letters":
        i = 0 if tokens[0].text in ("USD", "EUR", "GBP", "RMB", "CNY", "JPY", "INR", "Rs", "US") else None
    if i is None or 1 < i < len(tokens) - 1:
        return None
    unit = lookup(tokens[i].text) or lookup("USD")
    rest = tokens[:i] + tokens[i + 1 :]
    if rest and rest[0].text == "$":
        rest = rest[1:]
    inner = read_value(rest) if rest else None
    if not isinstance(inner, Value) or inner.percent:
        return None
    fits = inner.unit is None or inner.unit == unit or inner.unit.noun
    return replace(inner, unit=unit) if fits else None


def _percentage(tokens: list[Token]) -> Value | None:
    end = len(tokens)
    if tokens[-1].text == "%":
        end -= 1
    else:
        while end and tokens[end - 1].kind == "letters" and tokens[end - 1].text.lower() in (*PERCENT_WORDS, "points"):
            end -= 1
        if end == len(tokens) or tokens[end].text.lower() not in PERCENT_WORDS:
            return None
    expr = _try(tokens[:end])
    return None if expr is None else Value(expr, percent=True)


def _angle(tokens: list[Token]) -> Value | None:
    """Degrees, minutes and seconds."""
    if not any(token.text == "°" for token in tokens):
        return None
    flat = [token for token in tokens if token.text not in ("^", "{", "}")]
    if len(flat) >= 2 and flat[-1].text in ("C", "F") and flat[-2].text == "°":
        expr = _before_degrees(tokens)
        return None if expr is None else Value(expr, unit=lookup("°" + flat[-1].text))
    texts = [token.text for token in flat]
    if len(texts) >= 4 and texts[1] == "°" and texts[3] == "'" and flat[0].kind == flat[2].kind == "number":
        parts = [flat[0].text, flat[2].text]
        rest = texts[4:]
        if rest and not (len(rest) == 3 and rest[1:] == ["'", "'"] and rest[0].isdigit()):
            return None
        parts += rest[:1]
        if not all(re.fullmatch(r"\d{1,4}(?:\.\d{1,9})?", part) for part in parts):
            return None
        value = sum((Fraction(part) / 60**i for i, part in enumerate(parts)), Fraction(0))
        return Value(Expr("num", value=value), unit=lookup("degree"))
    end = next(i for i, token in enumerate(tokens) if token.text == "°")
    if len(tokens) - end > (2 if tokens[-1].text == "}" else 1) or any(token.kind == "name" for token in tokens):
        return None  # sin 30°
    expr = _before_degrees(tokens)
    return None if expr is None else Value(expr, unit=lookup("degree"))


def _before_degrees(tokens: list[Token]) -> Expr | None:
    """The expression before the first degree sign."""
    end = next(i for i, token in enumerate(tokens) if token.text == "°")
    while end and tokens[end - 1].text in ("^", "{"):
        end -= 1
    return _try(tokens[:end])


def unit_start(tokens: list[Token]) -> int | None:
    """Where the unit after a number begins; `None` if there is none."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        before = tokens[i - 1] if i else None
        if depth or before is None or token.kind not in ("letters", "symbol"):
            continue
        if before.kind == "op" and before.text in ("_", "+", "-", "^", "/", "=", "*", "×"):
            continue
        if _may_be_unit(tokens[i:], tokens[:i]) and _is_unit(tokens[i:]):
            return i
    return None


def _is_unit(tokens: list[Token]) -> bool:
    _, words = _multiple(tokens)
    try:
        read_unit(words)
    except Unreadable:
        return False
    return True


def _may_be_unit(tokens: list[Token], before: list[Token]) -> bool:
    """
    Whether a word after a number may be a unit: it is in a text font, it is known, or it is a noun. Letters that could
    be variables must be separated from a plain number by a space.
    """
    token = tokens[0]
    word = token.text
    known = lookup(word) is not None
    if token.font == "text":
        return len(word) > 1 or known or not word.isascii()
    if token.font == "rm":
        return known and word not in ("e", "i", "d", *NAMES)
    plain = all(t.kind == "number" or t.text in ("-", "*", "×", "^", "{", "}", "/", "frac") for t in before)
    if token.kind == "symbol":
        return plain and word in ("Omega", "mu") and token.spaced != ""
    if token.font or not plain or word in NAMES:
        return False
    vowels = has_vowel(word)
    if len(word) == 1:
        number = all(t.kind != "command" for t in before) or any(t.text == "/" for t in tokens)
        return known and token.spaced == " " and word not in "dlM" and number
    if known and word not in ("in", "mi", "pi", "deg", "cal", "bar", "cup"):
        return True
    return (len(word) > 3 and vowels) or (
        token.spaced == " " and (known or (len(word) == 3 and vowels) or word in COUNTS)
    )


def has_vowel(word: str) -> bool:
    return any(vowel in word.lower() for vowel in "aeiou")


def compound_quantity(tokens: list[Token]) -> Value | None:
    """1 hour 20 minutes, or 5 ft 3 in: numbers with smaller and smaller units of one measure."""
    plain = [token for token in tokens if token.text.lower() != "and" or token.kind != "letters"]
    numbers, words = plain[::2], plain[1::2]
    if len(numbers) != len(words) or len(numbers) < 2:
        return None
    if any(token.kind != "number" for token in numbers) or any(token.kind != "letters" for token in words):
        return None
    units = [unit for token in words if (unit := lookup(token.text)) is not None]
    if len(units) != len(words) or len({unit.dimensions for unit in units}) != 1:
        return None
    if any(small.factor >= large.factor for large, small in zip(units, units[1:], strict=False)):
        return None
    parts = (parse([token]).value * unit.factor for token, unit in zip(numbers, units, strict=True))
    return Value(Expr("num", value=sum(parts, Fraction(0)) / units[0].factor), unit=units[0])


def _multiple(words: list[Token]) -> tuple[int, list[Token]]:
    """The factor of a word such as million after a number, and the words after it."""
    factor = 1
    while words and words[0].kind == "letters" and singular(words[0].text.lower()) in MULTIPLES:
        factor *= MULTIPLES[singular(words[0].text.lower())]
        words = words[1:]
    return factor, words


def _quantity(tokens: list[Token]) -> Value | None:
    start = unit_start(tokens)
    if start is None or any(token.kind == "letters" and token.font == "text" for token in tokens[:start]):
        return None
    expr = _try(tokens[:start])
    factor, words = _multiple(tokens[start:])
    if expr is None or len(words) > 12:
        return None
    if factor > 1:
        expr = Expr("mul", (expr, Expr("num", value=Fraction(factor))))
    return Value(expr, unit=read_unit(words) if words else None)
