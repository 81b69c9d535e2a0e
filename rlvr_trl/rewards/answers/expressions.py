"""Expressions as trees of numbers, names and a closed set of operations, and how a tree is written as LaTeX."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from .tokens import Unreadable


MAX_EXPONENT = 10_000  # of a number in scientific notation
CONSTANTS = ("e", "i", "pi", "infty")
_REPEATING = re.compile(r"(\d*)\.?(\d*)\((\d+)\)")
_COMMAND_NAMES = frozenset(
    ["pi", "infty", "alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "lambda", "mu", "nu", "xi"]
    + ["rho", "sigma", "tau", "phi", "chi", "psi", "omega", "Gamma", "Delta", "Theta", "Lambda", "Sigma", "Phi", "Psi"]
    + ["Omega", "ell", "emptyset"]
)


@dataclass(frozen=True, slots=True)
class Expr:
    """
    A node of an expression.

    `op` is `num` (with `value`), `sym` (with `name`), `add`, `mul`, `div`, `pow`, `neg`, `pm` (its `name` is ± or ∓),
    `call` (a known function), `apply` (an unknown one), `fact`, `abs`, `deg` (degrees), `pct`, or `matrix` (its `args`
    are rows, each a `row`). `digits` is the number of significant digits that a decimal was written with, -1 for
    anything but a decimal, and `places` is the number of its decimal places (negative for 4.5e33).
    """

    op: str
    args: tuple["Expr", ...] = ()
    name: str = ""
    value: Fraction = Fraction(0)
    places: int = -1
    digits: int = -1

    def walk(self) -> Iterator["Expr"]:
        """The node and all below it."""
        yield self
        for arg in self.args:
            yield from arg.walk()


def number(text: str) -> Expr:
    """The exact number that the text of a token stands for."""
    if "(" in text:
        match = _REPEATING.fullmatch(text)
        if match is None:
            raise Unreadable(f"{text} is not a number")
        whole, fixed, repeated = match.groups()
        scale = 10 ** len(fixed)
        value = Fraction(int(whole or 0)) + Fraction(int(fixed or 0), scale)
        return Expr("num", value=value + Fraction(int(repeated), scale * (10 ** len(repeated) - 1)))
    mantissa, _, exponent = text.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        raise Unreadable(f"an exponent above {MAX_EXPONENT}")
    whole, point, decimals = mantissa.partition(".")
    value = Fraction(f"{whole or 0}.{decimals or 0}") * Fraction(10) ** int(exponent or 0)
    if not decimals and not exponent:
        return Expr("num", value=value)
    return Expr(
        "num", value=value, places=len(decimals) - int(exponent or 0), digits=len((whole + decimals).lstrip("0"))
    )


def render(tree: Expr) -> str:
    """The expression as LaTeX; equal trees give equal text."""
    args = tree.args
    if tree.op == "num":
        return _decimal(tree)
    if tree.op == "sym":
        return rf"\{tree.name}" if tree.name in _COMMAND_NAMES else _name(tree.name)
    if tree.op == "add":
        parts = [render(arg) for arg in args]
        if tree.name == "mixed":
            return "".join(parts)
        return parts[0] + "".join(part if part[0] in "-±∓" else f"+{part}" for part in parts[1:])
    if tree.op in ("neg", "pm"):
        sign = {"": "-", "±": r"\pm ", "∓": r"\mp "}[tree.name]
        return sign + _wrapped(args[0], "add", "neg", "pm")
    if tree.op == "mul":
        parts = [_wrapped(arg, "add", "neg", "pm") for arg in args]
        text = parts[0]
        for part in parts[1:]:
            if part[0].isdigit():
                text += rf"\cdot {part}"
            else:
                text += f" {part}" if part[0].isalpha() and re.search(r"\\[A-Za-z]+$", text) else part
        return text
    if tree.op == "div":
        return rf"\frac{{{render(args[0])}}}{{{render(args[1])}}}"
    if tree.op == "pow":
        exponent = render(args[1])
        base = _wrapped(args[0], "add", "neg", "pm", "mul", "div", "pow", "call", "deg")
        return f"{base}^{exponent}" if len(exponent) == 1 else f"{base}^{{{exponent}}}"
    if tree.op in ("fact", "deg", "pct"):
        text = _wrapped(args[0], "add", "neg", "pm", "mul", "div", "pow", "fact")
        return text + {"fact": "!", "deg": r"^\circ", "pct": r"\%"}[tree.op]
    if tree.op == "abs":
        return f"|{render(args[0])}|"
    if tree.op == "matrix":
        rows = r"\\".join("&".join(render(cell) for cell in row.args) for row in args)
        return rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}"
    if tree.op == "call" and tree.name == "sqrt":
        return (rf"\sqrt[{render(args[1])}]" if len(args) > 1 else r"\sqrt") + f"{{{render(args[0])}}}"
    inside = ",".join(render(arg) for arg in args)
    if tree.op == "call":
        if tree.name == "log" and len(args) > 1:
            return rf"\log_{{{render(args[1])}}}({render(args[0])})"
        return (
            rf"\binom{{{render(args[0])}}}{{{render(args[1])}}}"
            if tree.name == "binom"
            else rf"\{tree.name}({inside})"
        )
    return f"{_name(tree.name)}({inside})"


def _name(name: str) -> str:
    base, underscore, sub = name.partition("_")
    if base in ("vec", "bar", "hat", "tilde", "dot", "ddot", "cal", "mathbb"):
        return rf"\{base}{{{sub}}}"
    base = rf"\{base}" if base in _COMMAND_NAMES else base
    return f"{base}_{sub}" if len(sub) == 1 else f"{base}_{{{sub}}}" if underscore else base


def _wrapped(tree: Expr, *ops: str) -> str:
    text = render(tree)
    return f"({text})" if tree.op in ops else text


def _decimal(tree: Expr) -> str:
    value = tree.value
    if max(abs(value.numerator), value.denominator) > 10**300:  # Python refuses to write thousands of digits
        return f"{value.numerator:#x}" if value.denominator == 1 else f"{value.numerator:#x}/{value.denominator:#x}"
    if value.denominator == 1 and tree.places <= 0:
        return str(value.numerator)
    if tree.digits < 0 or not 0 < tree.places <= 300:
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
    sign = "-" if value < 0 else ""
    scaled = abs(value.numerator) * 10**tree.places // value.denominator
    digits = str(scaled).rjust(tree.places + 1, "0")
    return f"{sign}{digits[: -tree.places]}.{digits[-tree.places :]}"
