r"""
A normal form for mathematical answers in LaTeX, and whether two of them are equal.

Most answers of a training run are settled by their normal form or as numbers. For the rest there is `judge`, which
asks math-verify and so SymPy, and which may hang: call it where it can be killed.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import pi


_CHARACTERS = str.maketrans(
    {"−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt ", "°": ""}
    | {"≤": r"\le ", "≥": r"\ge ", "∪": r"\cup ", "½": r"\frac{1}{2}", "\u00a0": " ", "$": "", "\0": "", "€": ""}
    | {"£": "", "％": "%"}
)
_WORDS = r"text|textbf|textit|textrm|textnormal|textsf|texttt|mbox|hbox|mathrm|mathbf|mathit|mathsf|operatorname"
# A word after a number that is not a unit
_KEPT = r"(?i:million|billion|trillion|thousand|hundred|dozen|and|or|if|for|i|e|[ap]\.?m\.?)\b"
_UNIT = (
    r"(?:square|cubic|sq|cu)?\s*(?:units?|cm|mm|km|kg|mph|ft|feet|foot|inch(?:es)?|in|miles?|yards?|yds?|(?:kilo|centi|"
    r"milli)?(?:meters?|metres?|grams?|lit(?:er|re)s?)|degrees?|radians?|dollars?|cents?|seconds?|secs?|minutes?|mins?|"
    r"hours?|hrs?|days?|weeks?|months?|years?|pounds?|lbs?|ounces?|percent|gallons?|people|students?|ways|points?)"
    r"(?:\s*(?:per|/|\\cdot)\s*(?:hour|hr|minute|min|second|sec|day|mile|h|s))?(?:\s*\^\s*\{?\d\}?)?"
)
_GROUP = r"\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"

_RULES = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r",\s*\\!\s*(?=\d)|\{,\}(?=\d{3}(?!\d))", ""),  # 1,\!000 and 1{,}000
        (r"\{,\}", ","),
        (r"(?<![}_^\\])\{\}", ""),
        (r"(?<![a-zA-Z])\{\s*(?:and|or)\s*\}", ","),
        (r"(?<!\\)\\[()\[\]]", ""),  # delimiters of mathematics
        (r"\\(?:left|right)\s*\.", ""),
        (r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])", ""),
        (r"\\(?:displaystyle|textstyle|limits|qquad|quad|boldsymbol|phantom)(?![a-zA-Z])|(?<!\\)\\[!,;: ]|~", " "),
        (r"\\lbrace(?![a-z])", r"\{"),
        (r"\\rbrace(?![a-z])", r"\}"),
        (r"\\[lr]vert(?![a-z])", "|"),
        (r"\\leq(?![a-z])|\\leqslant(?![a-z])", r"\\le "),
        (r"\\geq(?![a-z])|\\geqslant(?![a-z])", r"\\ge "),
        (r"\\neq(?![a-z])", r"\\ne "),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-z]))|\\degree(?![a-z])", ""),
        (r"\\?%|\\(?:text|mbox|mathrm)\s*\{\s*percent\s*\}|(?<=\d)\s*percent\b", "%"),
        (r"\\\\\[\d+pt\]", r"\\\\"),
        (r"\\begin\{[bp]matrix\}", r"\\begin{pmatrix}"),
        (r"\\end\{[bp]matrix\}", r"\\end{pmatrix}"),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\frac\s*(\w)\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\frac\s*(\w)\s*\{", r"\\frac{\1}{"),
        (rf"\\frac\s*{_GROUP}\s*(\w)", r"\\frac{\1}{\2}"),
        (r"\\sqrt\s*(\w)", r"\\sqrt{\1}"),
        (
            rf"(?:(?<=[\d}})])|(?<=\\pi))\s*\\(?:{_WORDS})\s*\{{(?!\s*{_KEPT})(?![\s(]*[A-Z]\s*\)?\s*\}})[^{{}}]*\}}"
            r"(?:\s*\^\s*\{?\d\}?)?\s*\.?\s*$",
            "",
        ),  # 5 \text{ cm}^2
        (rf"\\(?:{_WORDS})\s*\{{([^{{}}]*)\}}", r" \1 "),
        (rf"(?<=[\d}}])\s*{_UNIT}\s*\.?\s*$", ""),
        (r"(?<=\d)\s+[mgsh]\s*$", ""),
        (r"\s*,?\s*(?<![a-zA-Z\\])(?:and|or)(?![a-zA-Z])\s*,?\s*", ","),
        (r"\s+", " "),
    )
]
_SQUEEZE = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\s+", ""),
        (r"([\^_])\{(\w)\}", r"\1\2"),
        (r"(?<![\d.])\.(?=\d)", "0."),
        (r"[.,;:]+$", ""),
    )
]
_THOUSANDS = re.compile(r"(?<![\d,.(\[])(-?\d{1,3}(?:,\d{3})+)(?![\d,])")
_ASSIGNED = re.compile(r"^(?:[a-zA-Z](?:_\w)?|[a-zA-Z]\([a-zA-Z]\)|\\[a-z]+)(?:=|\\in(?![a-z]))(?=.)(?!.*=)")
_LETTER_ASSIGNED = re.compile(r"^([a-zA-Z](?:_\w)?)(?:=|\\in(?![a-z]))(?!.*=)")
_DECIMAL = re.compile(r"[+-]?\d+(?:\.\d*)?")
_FRACTION = re.compile(r"([+-]?)(?:(\d+)/(\d+)|(\d*)\\frac\{(-?\d+)\}\{(\d+)\})")
_TOKEN = re.compile(r"\d+(?:\.\d+)?|\\(?:frac|sqrt|pi|cdot|times)(?![a-zA-Z])|[-+*/^(){}\[\]]|[a-df-hj-zA-DF-HJ-Z]")
_MIXED = re.compile(r"\d+\\frac\{\d+\}\{\d+\}")
_BASED = re.compile(r"\{?([\dA-Z]+)\}?_\{?(\d+)\}?")
_OPEN, _CLOSE = "([{", ")]}"


@lru_cache(maxsize=20_000)
def normalize(answer: str) -> str:
    r"""
    The normal form of an answer; empty where there is nothing in it.

    Spaces, `\left`, `\right`, `$`, units, degrees and thousands separators go; `\dfrac12` becomes `\frac{1}{2}`, "and"
    a comma, text what is in it. A percent sign stays. What stands for a number keeps its form: 1/2 is not 0.5 here.
    """
    answer = answer.replace(r"\$", "").translate(_CHARACTERS).strip()
    for pattern, replacement in _RULES:
        answer = pattern.sub(replacement, answer)
    # The space of `\pi r` must stay, or be read as a command `\pir`
    answer = re.sub(r"(\\[a-zA-Z]+) (?=[a-zA-Z])", "\\1\0", answer)
    for pattern, replacement in _SQUEEZE:
        answer = pattern.sub(replacement, answer)
    answer = answer.replace("\0", " ")
    while len(answer) > 1 and answer[0] == "{" and _closes(answer) == len(answer) - 1:
        answer = answer[1:-1]
    if len(answer) == 3 and answer[0] == "(" and answer[1].isupper() and answer[2] == ")":
        return answer[1]  # (C), an option
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), answer) if "," in answer else answer


def equal_by_form(gold: str, answer: str) -> bool | None:
    """
    Whether two answers in normal form are equal, or `None` where that takes a computer algebra system.

    Integers, fractions and decimals are compared exactly; a decimal of six or more places is also equal to what it
    rounds. 50% equals 50 as well as 0.5, but not where both say %.
    """
    if not gold or not answer:
        return False
    if gold.endswith("%") and answer.endswith("%"):
        gold, answer = gold[:-1], answer[:-1]
    if _key(gold) == _key(answer):
        return True
    if _is_text(gold) or _is_text(answer):
        return False
    if len({_assigned_to(gold), _assigned_to(answer), None}) == 3:  # x = 5 and y = 5
        return False
    based = [_BASED.fullmatch(text) for text in (gold, answer)]
    if any(based):  # 1204_9, which may be said as 1204
        digits = [match[1] if match else text for match, text in zip(based, (gold, answer), strict=True)]
        return digits[0] == digits[1] and len({match[2] for match in based if match}) == 1
    numbers = [number(_unassigned(text.rstrip("%"))) for text in (gold, answer)]
    if None in numbers:
        x, y = _value(gold), _value(answer)
        if x is not None and y is not None and abs(x - y) > 1e-5 * max(abs(x), abs(y)):
            return False
        if (x is None) != (y is None) and _has_parts(gold if x is None else answer):  # a number and a tuple
            return False
        if gold.endswith("%") or answer.endswith("%"):
            return equal_by_form(gold.rstrip("%"), answer.rstrip("%"))
        known = _equal_unassigned(gold, answer)
        return _equal_tuples(gold, answer) if known is None else known
    (x, places_x), (y, places_y) = numbers
    percents = [text.endswith("%") for text in (gold, answer)]
    scales = (
        [(1, 1)] + ([(Fraction(1, 100), 1)] if percents[0] else []) + ([(1, Fraction(1, 100))] if percents[1] else [])
    )
    rounding = max(places_x, places_y)
    tolerance = Fraction(1, 10**rounding) if rounding >= 6 and min(places_x, places_y) != rounding else 0
    return any(abs(x * a - y * b) <= tolerance for a, b in scales)


def number(text: str) -> tuple[Fraction, int] | None:
    """The value of an integer, decimal, fraction or mixed number in normal form, and its decimal places."""
    if len(text) > 300:
        return None
    if _DECIMAL.fullmatch(text):
        return Fraction(text.rstrip(".")), len(text.rstrip(".").partition(".")[2])
    match = _FRACTION.fullmatch(text)
    if match is None:
        return None
    sign, a, b, whole, c, d = match.groups()
    top, bottom = int(a or c), int(b or d)
    if bottom == 0 or (whole and not 0 <= top < bottom):
        return None
    return (Fraction(top, bottom) + int(whole or 0)) * (-1 if sign == "-" else 1), 0


def _has_parts(text: str) -> bool:
    return "matrix" in text or (not _signs(text) and "=" not in text and len(split_parts(text)[1]) > 1)


@lru_cache(maxsize=20_000)
def _value(text: str) -> float | None:
    r"""
    About what a number such as `2\sqrt{3}-\frac{\pi}{2}` comes to, `None` for all that is not as simple.

    A variable has a value of its own, so that what has two values is not one expression. e and i are not variables.
    """
    tokens = _TOKEN.findall(text) if len(text) <= 200 else []
    if "".join(tokens) != text.replace(" ", "") or not tokens or _MIXED.search(text):
        return None
    try:
        value, rest = _sum([*tokens, ""], 0)
        return float(value) if rest == len(tokens) and abs(value) < 1e200 else None
    except (ArithmeticError, ValueError, TypeError, IndexError, RecursionError):
        return None


# Each takes the tokens and where to begin, and gives a value and where it ended. Anything odd raises.
def _sum(tokens, i):
    total, sign = 0.0, 1
    if tokens[i] in ("+", "-"):
        sign, i = (-1 if tokens[i] == "-" else 1), i + 1
    while True:
        term, i = _product(tokens, i)
        total += sign * term
        if tokens[i] not in ("+", "-"):
            return total, i
        sign, i = (-1 if tokens[i] == "-" else 1), i + 1


def _product(tokens, i):
    value, i = _power(tokens, i)
    while tokens[i] not in ("", "+", "-", ")", "}", "]"):
        if tokens[i] == "/":
            divisor, i = _power(tokens, i + 1)
            value /= divisor
        else:
            factor, i = _power(tokens, i + (tokens[i] in ("*", "\\cdot", "\\times")))
            value *= factor
    return value, i


def _power(tokens, i):
    value, i = _atom(tokens, i)
    if tokens[i] == "^":
        braced = tokens[i + 1] == "{"
        if not braced and not tokens[i + 1].isdigit() or not braced and len(tokens[i + 1]) > 1:
            raise ValueError
        exponent, i = _enclosed(tokens, i + 1, "}") if braced else (float(tokens[i + 1]), i + 2)
        value = value**exponent
    return value, i


def _atom(tokens, i):
    token = tokens[i]
    if token[:1].isdigit():
        return float(token), i + 1
    if token == "\\pi":
        return pi, i + 1
    if token.isalpha():
        return 1 + (ord(token.lower()) - 96) ** 1.5 / 97, i + 1
    if token in ("(", "{"):
        return _enclosed(tokens, i, ")" if token == "(" else "}")
    if token == "\\frac":
        top, i = _enclosed(tokens, i + 1, "}")
        bottom, i = _enclosed(tokens, i, "}")
        return top / bottom, i
    if token == "\\sqrt":
        root = 2.0
        if tokens[i + 1] == "[":
            root, i = _enclosed(tokens, i + 1, "]")
            i -= 1
        value, i = _enclosed(tokens, i + 1, "}")
        if value < 0:
            raise ValueError
        return value ** (1 / root), i
    raise ValueError


def _enclosed(tokens, i, closing):
    if tokens[i] != {")": "(", "}": "{", "]": "["}[closing]:
        raise ValueError
    value, i = _sum(tokens, i + 1)
    if tokens[i] != closing:
        raise ValueError
    return value, i + 1


def judge(gold: str, answer: str) -> bool:
    """
    Whether two answers in normal form are equal, by their form, part by part, or by math-verify.

    It may take forever, or all memory.
    """
    known = equal_by_form(gold, answer)
    if known is not None:
        return known
    if _assigned_to(gold) and _assigned_to(answer):  # to the same letter
        return judge(_unassigned(gold), _unassigned(answer))
    parts = [split_parts(_unassigned(text)) for text in (gold, answer)]
    (left, golds, right), (other_left, answers, other_right) = parts
    if len(golds) > 1 and len(answers) > 1:
        if (left, right) == (other_left, other_right):
            return len(golds) == len(answers) and _match(golds, answers, ordered=left in ("(", "["))
        if r"\{" in (left, other_left) and {left, other_left} & {"(", "["}:  # a set and a tuple
            return False
        if {left, other_left} <= {"", r"\{"}:  # a list, or a set
            return len(golds) == len(answers) and _match(golds, answers, ordered=False)
    if len(golds) != len(answers) and left == other_left == "" and not (_signs(gold) or _signs(answer)):
        return False
    return _verify(gold, answer)


def split_parts(text: str) -> tuple[str, list[str], str]:
    r"""`(1,2)` as its brackets and parts: `"("`, `["1", "2"]`, `")"`; a list without brackets has empty ones."""
    left = right = ""
    for opening, closings in ((r"\{", (r"\}",)), ("(", (")", "]")), ("[", (")", "]"))):
        if text.startswith(opening) and text.endswith(closings) and _closes(text, len(opening) - 1) == len(text) - 1:
            left, right = opening, r"\}" if opening == r"\{" else text[-1]
            text = text[len(left) : len(text) - len(right)]
            break
    parts, depth, start = [], 0, 0
    for i, character in enumerate(text):
        depth += (character in _OPEN) - (character in _CLOSE)
        if character == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    return left, [*parts, text[start:]], right


def _match(golds: list[str], answers: list[str], ordered: bool) -> bool:
    """Whether the parts are equal, each to another one if they are in no order."""
    if ordered:
        return all(judge(*pair) for pair in zip(golds, answers, strict=True))
    left = list(answers)
    for gold in golds:
        found = next((a for a in left if _key(a) == _key(gold)), None) or next(
            (a for a in left if judge(gold, a)), None
        )
        if found is None:
            return False
        left.remove(found)
    return True


def _verify(gold: str, answer: str) -> bool:
    from math_verify import verify

    golds, answers = _parse(gold), _parse(answer)
    return bool(golds and answers) and bool(verify(list(golds), list(answers), timeout_seconds=None))


@lru_cache(maxsize=1_000)
def _parse(answer: str) -> tuple:
    from math_verify import LatexExtractionConfig, parse

    if "matrix" in answer:  # rows that end in one backslash, as the answers of MATH do
        answer = re.sub(r"(?<!\\)\\(?![a-zA-Z\\{}])", r"\\\\", answer)
    answer = re.sub(r"(?<=\d)(?=\\frac\{\d+\}\{\d+\})", "+", answer) if _MIXED.fullmatch(answer) else answer
    return tuple(
        parse(
            f"$\\boxed{{{answer.replace('%', '')}}}$",
            extraction_config=[LatexExtractionConfig(boxed_match_priority=0)],
            fallback_mode="no_fallback",
            parsing_timeout=None,
        )
    )


@lru_cache(maxsize=20_000)
def _key(text: str) -> str:
    """What two equal normal forms have in common: neither case of words, nor how many backslashes end a row."""
    text = re.sub(r"\\+", r"\\", text).replace("%", "") if "\\" in text or "%" in text else text
    return text.casefold() if _is_text(text) else text


def _is_text(text: str) -> bool:
    letters = text.replace("'", "").replace("-", "").replace(",", "")
    return len(letters) > 2 and letters.isalpha()


def _signs(text: str) -> bool:
    return any(sign in text for sign in (r"\pm", r"\mp", "<", ">", r"\le", r"\ge", r"\in", r"\cup", r"\ne"))


def _unassigned(text: str) -> str:
    return _ASSIGNED.sub("", text)


def _assigned_to(text: str) -> str | None:
    match = _LETTER_ASSIGNED.match(text)
    return match[1] if match else None


def _equal_unassigned(gold: str, answer: str) -> bool | None:
    """As `equal_by_form` where one of the two, and only one, is `x = …`."""
    plain = _unassigned(gold), _unassigned(answer)
    if (plain[0] == gold) == (plain[1] == answer):
        return None
    return equal_by_form(*plain)


def _equal_tuples(gold: str, answer: str) -> bool | None:
    """As `equal_by_form` for two tuples, or intervals, with the same brackets."""
    (left, golds, right), (other_left, answers, other_right) = split_parts(gold), split_parts(answer)
    if left not in ("(", "[") or (left, right) != (other_left, other_right) or min(len(golds), len(answers)) < 2:
        return None
    if len(golds) != len(answers):
        return False
    known = {equal_by_form(*pair) for pair in zip(golds, answers, strict=True)}
    return False if False in known else None if None in known else True


def _closes(text: str, start: int = 0) -> int:
    """Where the bracket at `start` is closed, or -1. Brackets of any kind close any other, as in [1, 2)."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] in _OPEN) - (text[i] in _CLOSE)
        if depth == 0:
            return i
    return -1
