r"""
The reader of answers: from the outside in, a text becomes an answer of one of the kinds.

A text may have two readings: `12,345` is a number, or two numbers. Two answers are equal if any reading of one is
equal to any reading of the other.
"""

from dataclasses import replace
from functools import lru_cache

from .expressions import CONSTANTS
from .kinds import (
    ANY,
    INEQUALITIES,
    RELATIONS,
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
)
from .parser import function_prefix, parse
from .quantities import compound_quantity, read_value
from .surroundings import (
    closes_all,
    condition_start,
    is_separator,
    is_word,
    with_joined_digits,
    with_thousands,
    without_surroundings,
)
from .tokens import Token, Unreadable, contents, split, tokenize
from .words import is_wordy, read_words, text_of, unread


_BASE_WORDS = {
    word: base
    for base, word in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=2
    )
} | {"sixteen": 16}  # fmt: skip
_JOINING = {"and": "and", "or": "or", "lor": "or", "land": "and"}
# Words of a condition that add nothing to its inequality: for all real numbers x > 0
_QUANTIFIERS = frozenset(
    ["all", "any", "every", "each", "real", "positive", "integer", "integers", "numbers", "number", "values"]
    + ["of", "that"]
)
_OPERATIONS = ("cup", "cap", "setminus")


@lru_cache(maxsize=20_000)
def read(text: str) -> tuple[Answer, ...]:
    """
    The readings of the text of an answer, the likeliest first; empty if there is nothing in the text. This function
    never raises an error: what cannot be read is [`Unread`], which is equal only to the same text.
    """
    squeezed = " ".join(text.split())
    try:
        return readings(squeezed)
    except Exception:  # even for a fault of this package: no text that a model writes may end its training
        return (Unread(squeezed),) if any(c.isalnum() for c in squeezed) else ()


def readings(text: str) -> tuple[Answer, ...]:
    """
    Like `read`, for a text without line breaks.

    Raises:
        `Unreadable`: The text is not an answer.
    """
    tokens = with_joined_digits(without_surroundings(list(tokenize(text.strip('`" ')))))
    if not tokens:
        return ()
    merged = with_thousands(tokens)
    found = [_read_tokens(merged)]
    if len(merged) != len(tokens):
        found += _as_list(tokens)
    found += _others(tokens, found[0])
    if any(token.kind == "begin" for token in tokens):
        found.append(_without_row_ends(tokens))
    return tuple(dict.fromkeys(found))


def _as_list(tokens: list[Token]) -> list[Answer]:
    """Read 12,345 and the like as two numbers, unless one of them would begin with 0."""
    groups = [
        t.text for before, t in zip(tokens, tokens[1:], strict=False) if before.text == "," and t.kind == "number"
    ]
    if any(group.startswith("0") for group in groups):
        return []
    answer = _read_tokens(tokens)
    return [replace(answer, doubtful=True)] if isinstance(answer, Items) else []


def _others(tokens: list[Token], first: Answer) -> list[Answer]:
    """Other readings: of a word as a product, as xyz or \\pi r, and of a unit as a variable, as in 3 m."""
    found = []
    if isinstance(first, Text) and len(tokens) == 1 and tokens[0].font != "text":
        word = tokens[0].text
        if (len(word) <= 3 and word.islower()) or function_prefix(word) is not None:
            found = [tokens]
    elif isinstance(first, Value) and first.unit is not None:
        words = [token for token in tokens if token.kind == "letters"]
        if words and all(token.font != "text" and len(token.text) <= 3 for token in words):
            found = [tokens]
    try:
        return [Value(parse(reading)) for reading in found]
    except (Unreadable, RecursionError):
        return []


def _without_row_ends(tokens: list[Token]) -> Unread:
    r"""A matrix without the row ends before commands, which answers of MATH lack: `\\\frac` has become `\frac`."""
    kept = [
        token
        for token, following in zip(tokens, [*tokens[1:], None], strict=True)
        if not (token.text == "\\\\" and following is not None and following.kind in ("command", "end"))
    ]
    return Unread("matrix " + " ".join(token.text for token in kept if token.text not in ("{", "}")))


# The kinds, from the outside in
def _read_tokens(tokens: list[Token]) -> Answer:
    tokens = without_surroundings(tokens)
    if not tokens:
        raise Unreadable("nothing")
    start = condition_start(tokens)
    if start is not None:
        return _conditional(tokens, start)
    bracket = _bracketed_condition(tokens)
    if bracket is not None:
        found = _under(_read_tokens(tokens[:bracket]), unread(tokens[bracket + 1 : -1]).text)
        if found is not None:
            return found
    for reader in (
        _system,
        compound_quantity,
        read_words,
        _clock,
        _based,
        _list,
        _relation,
        _set_operation,
        _bracketed,
        _ratio,
        read_value,
    ):
        answer = reader(tokens)
        if answer is not None:
            return answer
    if any(is_word(token) and token.font == "text" for token in tokens) or is_wordy(tokens):
        return text_of(tokens)
    return unread(tokens)


def _conditional(tokens: list[Token], start: int) -> Answer:
    """An answer with a reason after it, or with an inequality for its variables. Anything else is words."""
    before, after = tokens[:start], tokens[start + 1 :]
    while before and before[-1].text in (",", ";", "("):
        before = before[:-1]
    if tokens[start].text.lower() in ("because", "since"):
        return _read_tokens(before)
    after = [token for token in after if token.text.lower() not in _QUANTIFIERS or token.kind != "letters"]
    try:
        condition = _read_tokens(after[:-1] if after and after[-1].text == ")" else after)
        answer = _read_tokens(before)
    except Unreadable:
        return text_of(tokens)
    if not _is_condition(condition) and not (isinstance(condition, Value) and _has_variables(condition)):
        return text_of(tokens)
    return _under(answer, unread(after).text) or text_of(tokens)


def _bracketed_condition(tokens: list[Token]) -> int | None:
    r"""Where a condition such as `(n \ge 1)` or `(k \in \mathbb{Z})` begins after an answer."""
    start = next((i for i in range(len(tokens) - 1, 0, -1) if tokens[i].text == "("), 0)
    if not start or tokens[-1].text != ")" or not tokens[start].spaced or not closes_all(tokens[start:]):
        return None
    inside = [token.text for token in tokens[start + 1 : -1] if token.kind == "op"]
    return start if {*inside} & {"in", *INEQUALITIES} and "," not in inside else None


def _is_condition(answer: Answer) -> bool:
    inequality = isinstance(answer, Relation) and set(answer.signs) <= INEQUALITIES
    return inequality and all(isinstance(side, Value) for side in answer.sides)


def _under(answer: Answer, condition: str) -> Answer | None:
    """An answer with the condition on its variables; `None` for an answer without variables."""
    if isinstance(answer, Relation) or (isinstance(answer, Value) and _has_variables(answer)):
        return replace(answer, condition=condition)
    return None


def _system(tokens: list[Token]) -> Answer | None:
    """Equations below each other, perhaps after a brace."""
    if tokens[0].text == "\\{" and len(tokens) > 2 and tokens[1].kind == "begin":
        tokens = tokens[1:]
    elif tokens[0][:2] != ("begin", "cases"):
        return None
    if tokens[-1].kind != "end" or contents(tokens, 0) != len(tokens) - 1:
        return None
    rows = [row for row in split(tokens[1:-1], lambda token: token.text == "\\\\") if row]
    if not all(any(token.text in RELATIONS for token in row) for row in rows):
        return None
    plain = [[token for token in row if token.text != "&"] for row in rows]
    return Items(tuple(_read_tokens(row) for row in plain)) if len(rows) > 1 else None


def _clock(tokens: list[Token]) -> Clock | None:
    half = ""
    letters = [token.text.lower() for token in tokens if token.kind == "letters"]
    if letters and "".join(letters) in ("am", "pm"):
        half = "".join(letters)
        cut = next(i for i, token in enumerate(tokens) if token.kind == "letters")
        if any(token.kind not in ("letters", "op") or token.text == ":" for token in tokens[cut:]):
            return None
        tokens = tokens[:cut]
    texts = [token.text for token in tokens]
    numbers = texts[::2]
    if not texts or any(text != ":" for text in texts[1::2]) or len(texts) not in (1, 3, 5):
        return None
    if any(not text.isdigit() or len(text) > 2 for text in numbers) or (len(numbers) == 1 and not half):
        return None
    if any(len(text) != 2 or int(text) > 59 for text in numbers[1:]) or int(numbers[0]) > 24:
        return None
    hour, minute, second = (*map(int, numbers), 0, 0)[:3]
    return Clock(hour, minute, second, half)


def _based(tokens: list[Token]) -> Based | None:
    word = next((i for i, token in enumerate(tokens) if token.text.lower() == "base"), 0)
    if word and len(tokens) > word + 1 and not any(token.text == "_" for token in tokens):  # 43 (base 5)
        tokens = [*(t for t in tokens[:word] if t.text != "("), Token("op", "_"), *tokens[word + 1 :]]
    at = next((i for i, token in enumerate(tokens) if token.text == "_" and token.kind == "op"), 0)
    if not at:
        return None
    sign = "-" if tokens[0].text == "-" else ""
    digits = tokens[len(sign) : at]
    base = [token for token in tokens[at + 1 :] if token.text.lower() not in ("{", "}", "(", ")", "base")]
    if digits and digits[0].text in ("(", "{") and closes_all(digits):
        digits = digits[1:-1]
    text = "".join(token.text for token in digits)
    text = text.upper() if any(c.isdigit() for c in text) else text
    plain = all(token.kind in ("number", "letters") for token in digits) and text.isascii() and text.isalnum()
    if len(base) != 1 or not plain:
        return None
    number = int(base[0].text) if base[0].text.isdigit() else _BASE_WORDS.get(base[0].text.lower(), 0)
    letters = len(text) > 1 and number > 10  # AB_{16} is a number and A_{16} is a name
    if not 2 <= number <= 36 or not (letters or any(c.isdigit() for c in text)):
        return None
    if any(int(c, 36) >= number for c in text):
        return None
    return Based(sign + (text.lstrip("0") or "0"), number)


def _list(tokens: list[Token]) -> Answer | None:
    parts = split(tokens, is_separator)
    if len(parts) == 1:
        return None
    parts = [part for part in parts if without_surroundings(part)]
    if len(parts) < 2:
        return _read_tokens(parts[0]) if parts else None
    texts = {token.text for token in tokens if token.kind == "op"}
    if "..." in texts:
        return unread([token for token in tokens if token.text != ","])
    if texts & {"lor", "land"} and not texts & {*RELATIONS}:
        return unread(tokens)
    words = {_JOINING.get(token.text.lower(), "") for token in tokens if is_separator(token)} - {""}
    answers = tuple(_read_tokens(part) for part in parts)
    conditions = [
        _is_condition(one) or any(token.kind == "op" and token.text == "in" for token in part)
        for one, part in zip(answers, parts, strict=True)
    ]
    if not words and not conditions[0] and all(conditions[1:]):  # a/b, b > 0
        found = _under(answers[0], ", ".join(unread(part).text for part in parts[1:]))
        if found is not None:
            return found
    if isinstance(answers[0], Relation) and answers[0].signs == ("!=",) and not any(conditions[1:]):
        others = tuple(Relation((answers[0].sides[0], one), ("!=",)) for one in answers[1:])
        return Items((answers[0], *others), joined="and")  # x is neither 1 nor 2
    return Items(answers, joined=words.pop() if len(words) == 1 else ",")


def _has_variables(value: Value) -> bool:
    return any(node.op == "sym" and node.name not in CONSTANTS for node in value.expr.walk())


def _relation(tokens: list[Token]) -> Answer | None:
    if any(token.text in ("forall", "exists") for token in tokens):
        return None
    if len(split(tokens, lambda token: token.text == "to")) > 1:
        return None
    signs, sides, depth = [], [[]], 0
    for token in tokens:
        if depth == 0 and token.kind == "op" and token.text in RELATIONS:
            signs.append(token.text)
            sides.append([])
            continue
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        sides[-1].append(token)
    if signs and not sides[0] and signs[0] in INEQUALITIES:
        sides[0] = [Token("symbol", ANY)]
    if not signs or not all(sides):
        return None
    answers = (*(_without_unit(_side(side), side) for side in sides[:-1]), _side(sides[-1]))
    if signs == ["in"]:
        return answers[1]
    return Relation(answers, tuple(signs))


def _side(tokens: list[Token]) -> Answer:
    answer = _read_tokens(with_thousands(tokens))
    if isinstance(answer, Text) and len(tokens) == 1:
        word = answer.original
        if len(word) == 1 or (len(word) <= 3 and word.islower() and tokens[0].font != "text"):
            return Value(parse(tokens))
    return answer


def _without_unit(answer: Answer, tokens: list[Token]) -> Answer:
    """A left side such as 3 h in 3 h = 6 is a product: only the right side may be a quantity."""
    plain = all(token.font != "text" for token in tokens)
    expr = _others(tokens, answer) if plain and isinstance(answer, Value) and answer.unit is not None else []
    return expr[0] if expr else answer


def _set_operation(tokens: list[Token]) -> Answer | None:
    parts = split(tokens, lambda token: token.kind == "op" and token.text == "cup")
    if len(parts) > 1 and all(parts) and not any(token.text in _OPERATIONS[1:] for token in tokens):
        return SetOperation("cup", tuple(_read_tokens(part) for part in parts))
    depth, last = 0, None
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if (
            depth == 0
            and token.kind == "op"
            and token.text in _OPERATIONS
            or depth == 0
            and i
            and token.text == "-"
            and tokens[i - 1].text == "mathbb_R"
        ):
            last = i
    if last is None or last == len(tokens) - 1 or last == 0:
        return None
    sign = tokens[last].text if tokens[last].text != "-" else "setminus"
    left, right = _read_tokens(tokens[:last]), _read_tokens(tokens[last + 1 :])
    left = left.parts if isinstance(left, SetOperation) and left.sign == sign == "cup" else (left,)
    return SetOperation(sign, (*left, right))


def _bracketed(tokens: list[Token]) -> Answer | None:
    first, last = tokens[0], tokens[-1]
    if first.kind != "open" or last.kind != "close" or not closes_all(tokens):
        return None
    inside = tokens[1:-1]
    left, right = first.text, last.text
    if left in ("⌊", "⌈"):
        return None
    if left == "\\{":
        if not inside:
            return Named("empty")
        bar = next((i for i, token in enumerate(inside) if token.text in ("|", ":") and token.kind == "op"), 0)
        if bar and any(token.text in RELATIONS for token in inside[bar:]):
            plain = bar == 1 or [token.text for token in inside[1:bar]] == ["in", "mathbb_R"]
            condition = _read_tokens(inside[bar + 1 :]) if plain else None
            if isinstance(condition, Relation | Items) and inside[0].kind in ("letters", "symbol"):
                return condition  # {x : x > 3}, but not {2x : x > 3}
            return unread(tokens)
        parts = split(inside, is_separator)
        if any(token.text == "..." for token in inside):
            return None
        return Items(tuple(_read_tokens(part) for part in parts), left, right)
    if not inside:
        return None
    parts = split(inside, lambda token: token.text in (",", ";") and token.kind == "op")
    if any(token.text == "..." for token in inside):
        return None
    if len(parts) > 1:
        left, right = ("(", ")") if left == "<" else (left, right)
        return Items(tuple(_read_tokens(part) for part in parts), left, right)
    if left == "(" and right == ")":
        return _read_tokens(inside)
    if left == "[" and right == "]":
        return read_value(tokens) or _read_tokens(inside)
    return None


def _ratio(tokens: list[Token]) -> Ratio | None:
    parts = split(tokens, lambda token: token.kind == "op" and token.text == ":")
    if len(parts) == 1:
        return None
    try:
        return Ratio(tuple(parse(part) for part in parts))
    except Unreadable:
        return None
