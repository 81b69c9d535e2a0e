r"""
The kinds of answers, and the text of an answer read as one of them.

A text may have two readings, such as `12,345`: a number, or two numbers. Then two answers are equal if one reading of
each is equal to one of the other ([`equality`](equality.py)).
"""

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache

from .expressions import Expr, contents, function_prefix, parse, render, split
from .tokens import NAMES, Token, Unreadable, tokenize
from .units import COUNTS, MULTIPLES, PERCENT_WORDS, Unit, lookup, read_unit, singular


@dataclass(frozen=True)
class Value:
    r"""A number or another expression; `percent` where it says so, `unit` where it has one."""

    expr: Expr
    percent: bool = False
    unit: Unit | None = None


@dataclass(frozen=True)
class Text:
    """Words, in lower case and without spaces or punctuation."""

    words: str
    original: str = field(default="", compare=False)


@dataclass(frozen=True)
class Relation:
    """An equation, an inequality, or a chain of them: n sides and n - 1 signs."""

    sides: tuple["Answer", ...]
    signs: tuple[str, ...]


@dataclass(frozen=True)
class Items:
    r"""
    Several answers. `left` and `right` are `"("`, `"["`, `"<"` for a tuple (or an interval, if they are two), `"\{"` for a
    set, and empty for a list.
    """

    items: tuple["Answer", ...]
    left: str = ""
    right: str = ""


@dataclass(frozen=True)
class SetOperation:
    """A union, intersection or difference (`cup`, `cap`, `setminus`) of sets."""

    sign: str
    parts: tuple["Answer", ...]


@dataclass(frozen=True)
class Named:
    r"""A set with a name: `R`, `Z`, `Q`, `N`, `C`, or `empty`."""

    name: str


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: int


@dataclass(frozen=True)
class Clock:
    """A time of day; `half` is `"am"`, `"pm"` or empty."""

    hour: int
    minute: int
    second: int = 0
    half: str = ""


@dataclass(frozen=True)
class Ratio:
    """a : b, or more of them."""

    parts: tuple[Expr, ...]


@dataclass(frozen=True)
class Unread:
    """What is none of these. `tokens` is empty where the text must not reach a computer algebra system."""

    text: str
    tokens: tuple[Token, ...] = field(default=(), compare=False)


Answer = Value | Text | Relation | Items | SetOperation | Named | Based | Clock | Ratio | Unread

RELATIONS = ("=", "<", ">", "<=", ">=", "!=", "≈", "≡", "in")
_LEAD_IN = frozenset(
    ["the", "final", "answer", "answers", "is", "are", "approximately", "approx", "about", "around", "roughly", "nearly"]
    + ["exactly", "therefore", "thus", "so", "hence", "we", "get", "have", "value", "result", "equals", "equal", "to"]
    + ["of", "it", "correct", "a", "an", "total"]
)  # fmt: skip
_CONDITIONS = frozenset(
    ["for", "if", "when", "where", "with", "since", "because", "as", "provided", "such", "whenever", "assuming"]
)
_NO_SOLUTION = frozenset(
    ["nosolution", "nosolutions", "nosolutionexists", "therearenosolutions", "emptyset", "theemptyset"]
    + ["norealsolution", "norealsolutions", "thereisnosolution", "theemptyset", "nosuchnumber"]
)  # fmt: skip
_ALL_REALS = frozenset(["allrealnumbers", "allreals", "allreal", "anyrealnumber", "therealnumbers", "allrealx"])
_SHORT_WORDS = frozenset(
    ["no", "yes", "odd", "one", "two", "six", "ten", "red", "may", "up", "all", "sun", "mon", "tue"]
)
_BASE_WORDS = {
    word: base
    for base, word in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=2
    )
} | {"sixteen": 16}  # fmt: skip
_GROUP = re.compile(r"\d{3}(?:\.\d*)?", re.ASCII)
_ARTICLES = re.compile(r"^(?:an?|the)\s+(?=\S)")


@lru_cache(maxsize=20_000)
def read(text: str) -> tuple[Answer, ...]:
    """
    The readings of the text of an answer, the likeliest first; none where there is nothing in it. It never raises: what
    cannot be read is [`Unread`], equal only to the same text.
    """
    squeezed = " ".join(text.split())
    try:
        tokens = _joined(_stripped(list(tokenize(squeezed.strip('`" ')))))
        if not tokens:
            return ()
        merged = _thousands(tokens)
        readings = [_answer(merged)]
        if len(merged) != len(tokens):
            readings.append(_answer(tokens))
        readings += _others(tokens, readings[0])
        if any(token.kind == "begin" for token in tokens):
            readings.append(_without_row_ends(tokens))
        return tuple(dict.fromkeys(readings))
    except (Unreadable, RecursionError):
        return (Unread(squeezed),) if any(c.isalnum() for c in squeezed) else ()


def _others(tokens: list[Token], first: Answer) -> list[Answer]:
    """A word that may be a product, as xyz or \\pi r, and a quantity whose unit may be a variable, as 3 m."""
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
    r"""A matrix in which the row ends before commands are lost, as they are in the answers of MATH: `\\\frac` as `\frac`."""
    kept = [
        token
        for token, following in zip(tokens, [*tokens[1:], None], strict=True)
        if not (token.text == "\\\\" and following is not None and following.kind in ("command", "end"))
    ]
    return Unread("matrix " + " ".join(token.text for token in kept if token.text not in ("{", "}")))


# What is around an answer and no part of it
def _stripped(tokens: list[Token]) -> list[Token]:
    while tokens:
        first, last = tokens[0], tokens[-1]
        if first.kind == "op" and first.text in ("*", ",", ";", ":", ".", "≈", "sim", "to", "\\\\", "=", "|?"):
            tokens = tokens[1:]
        elif last.kind == "op" and last.text in ("*", ",", ";", ":", ".", "\\\\", "=", "?", "^", "_"):
            tokens = tokens[:-1]
        elif first.text == "{" and _closes_all(tokens):
            tokens = tokens[1:-1]
        elif last.kind == "number" and last.text.endswith("."):
            tokens = [*tokens[:-1], last._replace(text=last.text[:-1])]
        else:
            led = _without_lead_in(tokens)
            if len(led) == len(tokens):
                return _without_condition(tokens)
            tokens = led
    return tokens


def _closes_all(tokens: list[Token]) -> bool:
    try:
        return tokens[0].kind == "open" and contents(tokens, 0) == len(tokens) - 1
    except Unreadable:
        return False


def _without_lead_in(tokens: list[Token]) -> list[Token]:
    """`The answer is 42` and `approximately 42` as 42."""
    count = 0
    while count < len(tokens) and tokens[count].kind == "letters" and tokens[count].text.lower() in _LEAD_IN:
        count += 1
    words = [token.text.lower() for token in tokens[:count]]
    if not count or count == len(tokens) or tokens[count].text == "_":
        return tokens
    if count == 1 and (len(words[0]) < 3 or tokens[count].kind not in ("number", "command", "currency", "op")):
        return tokens
    if words in (["a"], ["an"], ["the"]) or tokens[count].text in ("=", "^", "'"):
        return tokens
    return tokens[count:]


def _without_condition(tokens: list[Token]) -> list[Token]:
    r"""`x+1 \text{ for } x>0` as x+1."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if depth == 0 and i and token.kind == "letters" and token.text.lower() in _CONDITIONS and _is_word(token):
            before = tokens[:i]
            if any(t.kind in ("number", "command", "symbol", "name", "close") for t in before):
                while before and before[-1].text in (",", ";", "("):
                    before = before[:-1]
                return before
    return tokens


def _is_word(token: Token) -> bool:
    return token.kind == "letters" and (token.font in ("text", "rm") or bool(token.spaced)) and len(token.text) > 1


def _joined(tokens: list[Token]) -> list[Token]:
    r"""Digits parted by thin spaces or by `{,}` and `,\!` as one number, `6.02x10^23` and `x**2` as they are meant."""
    found: list[Token] = []
    i = 0
    while i < len(tokens):
        token = tokens[i]
        previous = found[-1] if found else None
        number = previous is not None and previous.kind == "number" and previous.text.isdigit()
        texts = [t.text for t in tokens[i : i + 4]]
        if number and texts[:3] == ["{", ",", "}"] and _is_group(texts[3:]):
            found[-1] = previous._replace(text=previous.text + texts[3])
            i += 4
            continue
        if (
            number
            and texts[:1] == [","]
            and _is_group(texts[1:2])
            and "negative" in (token.spaced, tokens[i + 1].spaced)
        ):
            found[-1] = previous._replace(text=previous.text + texts[1])
            i += 2
            continue
        if texts[:3] == ["{", ",", "}"]:
            found.append(tokens[i + 1])
            i += 3
            continue
        if texts[:2] == ["{", "}"] or (texts[1:2] == ["."] and texts[0] in ("np", "numpy", "math", "sympy", "sp")):
            i += 2  # nothing, or where Python has the function from
            continue
        if texts[:1] == ["{"] and texts[1:2] in (["or"], ["and"]) and texts[2:3] == ["}"]:
            found.append(Token("op", ","))
            i += 3
            continue
        if number and token.kind == "number" and token.spaced == "thin" and _is_group([token.text]):
            found[-1] = previous._replace(text=previous.text + token.text)
            i += 1
            continue
        if texts[:2] == ["*", "*"] and found and len(texts) > 2:
            found.append(Token("op", "^"))
            i += 2
            continue
        after_number = previous is not None and previous.kind == "number"
        if after_number and token.text in ("x", "X") and texts[1:3] == ["10", "^"] and token.kind == "letters":
            token = Token("op", "*")
        if token.text == "‖" and token.kind == "op" and not found:
            token = token._replace(text="|")
        found.append(token)
        i += 1
    return found


def _is_group(texts: list[str]) -> bool:
    return len(texts) > 0 and _GROUP.fullmatch(texts[0]) is not None


def _thousands(tokens: list[Token]) -> list[Token]:
    r"""`12,345` as one number, where no bracket but braces is around it, as in `\frac{1}{12,345}`."""
    found, depth, i = [], 0, 0
    while i < len(tokens):
        token = tokens[i]
        if token.text not in ("{", "}"):
            depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        first = token.kind == "number" and token.text.isdigit() and len(token.text) <= 3 and token.text[0] != "0"
        if depth == 0 and first and not (found and found[-1].text in (",", "_", ".") and not token.spaced):
            j = i + 1
            text = token.text
            while j + 1 < len(tokens) and tokens[j].text == "," and not tokens[j].spaced and not tokens[j + 1].spaced:
                if tokens[j + 1].kind != "number" or not _is_group([tokens[j + 1].text]):
                    break
                text += tokens[j + 1].text
                j += 2
                if not text.isdigit():
                    break
            if j < len(tokens) and tokens[j].text == "," and not tokens[j].spaced and j + 1 < len(tokens):
                following = tokens[j + 1]
                if following.kind == "number" and not following.spaced:  # 1,234,5 is a list
                    text, j = token.text, i + 1
            found.append(token._replace(text=text))
            i = j
            continue
        found.append(token)
        i += 1
    return found


# The kinds, from the outside in
def _answer(tokens: list[Token]) -> Answer:
    tokens = _stripped(tokens)
    if not tokens:
        raise Unreadable("nothing")
    for reader in (_word, _clock, _based, _list, _relation, _set_operation, _bracketed, _ratio, _value):
        answer = reader(tokens)
        if answer is not None:
            return answer
    if any(_is_word(token) and token.font == "text" for token in tokens) or _wordy(tokens):
        return _text(tokens)
    return _unread(tokens)


def _text(tokens: list[Token]) -> Answer:
    pieces = [(" " if token.spaced else "") + token.text for token in tokens]
    original = "".join(pieces).strip()
    words = _ARTICLES.sub("", original.casefold())
    squeezed = "".join(c for c in words if c.isalnum())
    if not squeezed:
        return _unread(tokens)
    if squeezed in _NO_SOLUTION:
        return Named("empty")
    if squeezed in _ALL_REALS:
        return Named("R")
    if 1 < len(original) <= 3 and original.isupper() and squeezed not in _SHORT_WORDS:
        return Text(original, original)  # AB is no other way to write ab
    return Text(squeezed, original)


def _unread(tokens: list[Token]) -> Unread:
    text = "".join((" " if token.spaced == " " else "") + token.text for token in tokens).strip()
    return Unread(text, tuple(tokens))


def _wordy(tokens: list[Token]) -> bool:
    """Whether there is more than letters and punctuation to a text: several words, or one of four letters."""
    words = [token.text for token in tokens if token.kind == "letters"]
    longest = max(map(len, words), default=0)
    return longest > 3 or (len(words) > 1 and longest > 2)


def _word(tokens: list[Token]) -> Answer | None:
    """Words and nothing else, or a word and numbers, as in October 30."""
    first = tokens[0]
    if first.kind == "letters" and len(first.text) > 3 and function_prefix(first.text) is None and len(tokens) > 1:
        if {token.kind for token in tokens} == {"letters", "number"}:
            return _text(tokens)
    words = [token for i, token in enumerate(tokens) if token.kind == "letters" and (token.spaced == " " or i == 0)]
    if sum(len(token.text) > 1 and token.text not in NAMES and _has_vowel(token.text) for token in words) > 1:
        if not any(_is_separator(token) for token in tokens) and _unit_start(tokens) is None:
            return _text(tokens)  # it may be 11
    if any(
        token.kind not in ("letters", "op") or token.text in ("+", "/", "=", "^", "_", "<", ">") for token in tokens
    ):
        return None
    if any(token.kind == "op" and token.text not in ("-", ".", "'", "!", "?") for token in tokens):
        return None
    words = [token for token in tokens if token.kind == "letters"]
    text = "".join(token.text for token in words)
    if any(token.text.lower() in ("and", "or") and token.spaced for token in words[1:-1]):
        return None
    if len(words) == 1 and len(tokens) == 1:
        if text in ("infinity", "inf", "infty"):
            return Value(Expr("sym", name="infty"))
        if len(text) == 1 or (text in NAMES or text in ("pi", "theta")):
            return None if len(text) > 1 or words[0].font == "bf" or text.islower() else Text(text, text)
        return _text(tokens)
    if any(token.text == "-" for token in tokens) and all(len(token.text) < 3 for token in words):
        return None
    if any(token.text == "'" for token in tokens) and len(words) == 1:
        return None
    if all(len(token.text) == 1 and token.font != "text" for token in words):
        return None
    if any(token.font in ("rm", "bf") for token in words) and any(len(token.text) == 1 for token in words):
        return None
    plain = [token for token in words if token.font != "text"]
    if plain and all(len(token.text) < 3 for token in plain) and len(plain) == len(words):
        return None
    return _text(tokens)


def _has_vowel(word: str) -> bool:
    return any(vowel in word.lower() for vowel in "aeiou")


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
    at = next((i for i, token in enumerate(tokens) if token.text == "_" and token.kind == "op"), 0)
    if not at:
        return None
    sign = "-" if tokens[0].text == "-" else ""
    digits, base = (
        tokens[len(sign) : at],
        [token for token in tokens[at + 1 :] if token.text not in ("{", "}", "(", ")")],
    )
    if not digits:
        return None
    if digits[0].text in ("(", "{") and _closes_all(digits):
        digits = digits[1:-1]
    text = "".join(token.text for token in digits)
    text = text.upper() if any(c.isdigit() for c in text) else text
    if (
        len(base) != 1
        or any(token.kind not in ("number", "letters") for token in digits)
        or not (text.isascii() and text.isalnum())
    ):
        return None
    number = int(base[0].text) if base[0].text.isdigit() else _BASE_WORDS.get(base[0].text.lower(), 0)
    letters = len(text) > 1 and number > 10  # AB_{16} is a number and A_{16} is a name
    if not 2 <= number <= 36 or not (letters or any(c.isdigit() for c in text)):
        return None
    if any(int(c, 36) >= number for c in text):
        return None
    return Based(sign + (text.lstrip("0") or "0"), number)


def _is_separator(token: Token) -> bool:
    if token.kind == "op":
        return token.text in (",", ";")
    return token.kind == "letters" and token.text.lower() in ("and", "or") and (token.font != "" or bool(token.spaced))


def _list(tokens: list[Token]) -> Answer | None:
    parts = split(tokens, _is_separator)
    if len(parts) == 1:
        return None
    parts = [part for part in parts if _stripped(part)]
    if len(parts) < 2:
        return _answer(parts[0]) if parts else None
    if any(token.text == "..." for token in tokens):
        return _unread(tokens)
    return Items(tuple(_answer(part) for part in parts))


def _relation(tokens: list[Token]) -> Answer | None:
    is_sign = lambda token: token.kind in ("op", "open", "close") and token.text in RELATIONS  # noqa: E731
    if not any(is_sign(token) for token in tokens) or any(
        token.text in ("forall", "exists", "to") for token in tokens
    ):
        return None
    signs, sides, depth = [], [[]], 0
    for token in tokens:
        if depth == 0 and token.kind == "op" and token.text in RELATIONS:
            signs.append(token.text)
            sides.append([])
            continue
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        sides[-1].append(token)
    if not signs or not all(sides):
        return None
    answers = tuple(_side(side) for side in sides)
    if signs == ["in"]:
        return answers[1]
    return Relation(answers, tuple(signs))


def _side(tokens: list[Token]) -> Answer:
    answer = _answer(_thousands(tokens))
    if isinstance(answer, Text) and len(answer.original) == 1:
        return Value(Expr("sym", name=answer.original))
    return answer


_OPERATIONS = ("cup", "cap", "setminus")


def _set_operation(tokens: list[Token]) -> Answer | None:
    depth, last = 0, None
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        if depth == 0 and token.kind == "op" and token.text in _OPERATIONS:
            last = i
        elif depth == 0 and i and token.text == "-" and tokens[i - 1].text == "mathbb_R":
            last = i
    if last is None or last == len(tokens) - 1 or last == 0:
        return None
    sign = tokens[last].text if tokens[last].text != "-" else "setminus"
    left, right = _answer(tokens[:last]), _answer(tokens[last + 1 :])
    left = left.parts if isinstance(left, SetOperation) and left.sign == sign == "cup" else (left,)
    return SetOperation(sign, (*left, right))


def _bracketed(tokens: list[Token]) -> Answer | None:
    first, last = tokens[0], tokens[-1]
    if first.kind != "open" or last.kind != "close" or not _closes_all(tokens):
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
            return _answer(inside[bar + 1 :])  # {x : x > 3}
        parts = split(inside, _is_separator)
        if any(token.text == "..." for token in inside):
            return None
        return Items(tuple(_answer(part) for part in parts), left, right)
    if not inside:
        return None
    parts = split(inside, lambda token: token.text in (",", ";") and token.kind == "op")
    if any(token.text == "..." for token in inside):
        return None
    if len(parts) > 1:
        left, right = ("(", ")") if left == "<" else (left, right)
        return Items(tuple(_answer(part) for part in parts), left, right)
    if left == "(" and right == ")":
        return _answer(inside)
    if left == "[" and right == "]":
        return _value(tokens) or _answer(inside)
    return None


def _ratio(tokens: list[Token]) -> Ratio | None:
    parts = split(tokens, lambda token: token.kind == "op" and token.text == ":")
    if len(parts) == 1:
        return None
    try:
        return Ratio(tuple(parse(part) for part in parts))
    except Unreadable:
        return None


# Numbers, expressions and what stands around them
def _value(tokens: list[Token]) -> Answer | None:
    if len(tokens) == 1 and tokens[0].kind == "symbol":
        name = tokens[0].text
        if name == "emptyset":
            return Named("empty")
        if name.startswith("mathbb_") and name[-1] in "RZQNC":
            return Named(name[-1])
    for reader in (_money, _percentage, _angle, _plain, _quantity):
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


def _plain(tokens: list[Token]) -> Value | None:
    """An expression without a unit, unless what ends it looks like one."""
    if _unit_start(tokens) is not None:
        return None
    expr = _try(tokens)
    return None if expr is None else Value(expr)


def _money(tokens: list[Token]) -> Answer | None:
    i = next((i for i, token in enumerate(tokens) if token.kind == "currency"), None)
    if i is None and len(tokens) > 1 and tokens[0].kind == "letters":
        i = 0 if tokens[0].text in ("USD", "EUR", "GBP", "RMB", "CNY", "JPY", "INR", "Rs", "US") else None
    if i is None or i > 1:
        if i is not None and i == len(tokens) - 1:
            i = len(tokens) - 1
        else:
            return None
    unit = lookup(tokens[i].text) or lookup("USD")
    rest = tokens[:i] + tokens[i + 1 :]
    if rest and rest[0].text == "$":
        rest = rest[1:]
    inner = _value(rest) if rest else None
    if not isinstance(inner, Value) or inner.percent:
        return None
    return replace(inner, unit=unit) if inner.unit in (None, unit) or inner.unit.noun else None


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
        cut = next(i for i, token in enumerate(tokens) if token.text == "°")
        while cut and tokens[cut - 1].text in ("^", "{"):
            cut -= 1
        expr = _try(tokens[:cut])
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
    while end and tokens[end - 1].text in ("^", "{"):
        end -= 1
    expr = _try(tokens[:end])
    return None if expr is None else Value(expr, unit=lookup("degree"))


def _unit_start(tokens: list[Token]) -> int | None:
    """Where the words after a number begin."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += (token.kind in ("open", "begin")) - (token.kind in ("close", "end"))
        before = tokens[i - 1] if i else None
        if depth or before is None or token.kind not in ("letters", "symbol"):
            continue
        if before.kind == "op" and before.text in ("_", "+", "-", "^", "/", "=", "*"):
            continue
        if _may_be_unit(token, tokens[:i]) and _is_unit(tokens[i:]):
            return i
    return None


def _is_unit(tokens: list[Token]) -> bool:
    try:
        read_unit(tokens)
    except Unreadable:
        return False
    return True


def _may_be_unit(token: Token, before: list[Token]) -> bool:
    """
    Whether a word after a number is a unit: one in a text font, one that is known, or a noun. Letters that could be
    variables must stand apart from a plain number.
    """
    word = token.text
    known = lookup(word) is not None
    if token.font == "text":
        return len(word) > 1 or known
    if token.font == "rm":
        return known and word not in ("e", "i", "d", *NAMES)
    plain = all(t.kind == "number" or t.text in ("-", "*", "^", "{", "}", "/", "frac") for t in before)
    if token.font or token.kind == "symbol" or not plain or word in NAMES:
        return False
    vowels = _has_vowel(word)
    if len(word) == 1:
        return known and token.spaced == " " and word not in "dlM" and all(t.kind != "command" for t in before)
    if known and word not in ("in", "mi", "pi", "deg", "cal", "bar", "cup"):
        return True
    return (len(word) > 3 and vowels) or (
        token.spaced == " " and (known or (len(word) == 3 and vowels) or word in COUNTS)
    )


def _quantity(tokens: list[Token]) -> Value | None:
    start = _unit_start(tokens)
    if start is None:
        return None
    expr = _try(tokens[:start])
    words = tokens[start:]
    factor = 1
    while words and words[0].kind == "letters" and singular(words[0].text.lower()) in MULTIPLES:
        factor *= MULTIPLES[singular(words[0].text.lower())]
        words = words[1:]
    if expr is None or len(words) > 12:
        return None
    if factor > 1:
        expr = Expr("mul", (expr, Expr("num", value=Fraction(factor))))
    if not words:
        return Value(expr)
    try:
        unit = read_unit(words)
    except Unreadable:
        return None
    return Value(expr, unit=unit)


# The other way round
def show(answer: Answer) -> str:
    """The answer in normal form, as text: what is logged, and what answers are counted by."""
    if isinstance(answer, Value):
        return render(answer.expr) + (r"\%" if answer.percent else "")
    if isinstance(answer, Text):
        return answer.original if len(answer.original) == 1 else answer.words
    if isinstance(answer, Relation):
        signs = {"<=": r"\le ", ">=": r"\ge ", "!=": r"\ne ", "≈": r"\approx ", "≡": r"\equiv "}
        parts = [show(side) for side in answer.sides]
        return parts[0] + "".join(signs.get(s, s) + part for s, part in zip(answer.signs, parts[1:], strict=True))
    if isinstance(answer, Items):
        return answer.left + ",".join(map(show, answer.items)) + answer.right
    if isinstance(answer, SetOperation):
        return rf"\{answer.sign} ".join(map(show, answer.parts))
    if isinstance(answer, Named):
        return r"\emptyset" if answer.name == "empty" else rf"\mathbb{{{answer.name}}}"
    if isinstance(answer, Based):
        return f"{answer.digits}_{{{answer.base}}}"
    if isinstance(answer, Clock):
        seconds = f":{answer.second:02}" if answer.second else ""
        return f"{answer.hour}:{answer.minute:02}{seconds}{answer.half}"
    if isinstance(answer, Ratio):
        return ":".join(map(render, answer.parts))
    return answer.text
