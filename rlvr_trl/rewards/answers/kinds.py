"""The kinds of answers, and how each of them is written."""

from dataclasses import dataclass, field

from .expressions import Expr, render
from .tokens import Token
from .units import Unit


INEQUALITIES = frozenset(["<", ">", "<=", ">=", "!="])
RELATIONS = INEQUALITIES | {"=", "≈", "≡", "in"}


@dataclass(frozen=True)
class Value:
    r"""A number or another expression, perhaps with a percent sign or a unit."""

    expr: Expr
    percent: bool = False
    unit: Unit | None = None
    condition: str = ""  # on the variables, as in x + 1 for x > 0


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
    condition: str = ""


@dataclass(frozen=True)
class Items:
    r"""
    Several answers. `left` and `right` are brackets such as `"("` or `"["` for a tuple (or for an interval, if there
    are two items), `"\{"` for a set, and empty for a list.
    """

    items: tuple["Answer", ...]
    left: str = ""
    right: str = ""
    joined: str = ","  # or "and" or "or", if that stands before the last item of a list
    doubtful: bool = False  # whether it may be a single number with a thousands separator, as 12,345


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
    """Anything else. `tokens` is empty if the text must not reach a computer algebra system."""

    text: str
    tokens: tuple[Token, ...] = field(default=(), compare=False)


ANY = "any"  # the name of the variable of an inequality without a left side
Answer = Value | Text | Relation | Items | SetOperation | Named | Based | Clock | Ratio | Unread


# How each kind is written
def show(answer: Answer) -> str:
    """The answer in normal form, as text: it is logged, and equal texts are counted as one answer."""
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
