"""Trees of mathematical expressions: their value at a point, and LaTeX for them in many spellings.

`Writer` draws a spelling at random: order of terms and factors, signs of products, fractions, roots as powers,
brackets, spaces. What it writes has one ordinary reading: a multiplication sign stands between a number and a
fraction (which together would be a mixed number), a function whose argument has no brackets ends its product, and a
letter that often names a function does not stand directly before a bracket. `has_two_readings` finds the other cases.
"""

import random
import re
from dataclasses import dataclass
from fractions import Fraction

import mpmath


FUNCTION_LIKE = frozenset(["d", "f", "g", "h", "u", "v", "y", "s", "p", "q", "o", "l", "w"])  # not before a bracket


@dataclass(frozen=True)
class Tree:
    """`op` is num, var, const, sum, prod, frac, pow, root, fn, log, fact or binom. `leaf` is the value of a leaf, the
    degree of a root or the name of a function."""

    op: str
    args: tuple["Tree", ...] = ()
    leaf: Fraction | str | int | None = None

    def __add__(self, other):
        return Tree("sum", (self, tree(other)))

    def __radd__(self, other):
        return tree(other) + self

    def __sub__(self, other):
        return Tree("sum", (self, -tree(other)))

    def __rsub__(self, other):
        return tree(other) - self

    def __mul__(self, other):
        return Tree("prod", (self, tree(other)))

    def __rmul__(self, other):
        return tree(other) * self

    def __truediv__(self, other):
        return Tree("frac", (self, tree(other)))

    def __pow__(self, other):
        return Tree("pow", (self, tree(other)))

    def __neg__(self):
        return num(-self.leaf) if self.op == "num" else Tree("prod", (num(-1), self))


def tree(value) -> Tree:
    return value if isinstance(value, Tree) else num(value)


def num(value) -> Tree:
    return Tree("num", leaf=Fraction(value))


def var(name: str) -> Tree:
    return Tree("var", leaf=name)


def total(terms) -> Tree:
    terms = tuple(terms)
    return terms[0] if len(terms) == 1 else Tree("sum", terms)


def product(factors) -> Tree:
    factors = tuple(factors)
    return factors[0] if len(factors) == 1 else Tree("prod", factors)


def fn(name: str, argument) -> Tree:
    return Tree("fn", (tree(argument),), name)


def root(argument, degree: int = 2) -> Tree:
    return Tree("root", (tree(argument),), degree)


def log(base, argument) -> Tree:
    return Tree("log", (tree(base), tree(argument)))


PI, EULER, IMAGINARY = (Tree("const", leaf=name) for name in (r"\pi", "e", "i"))


def variables(t: Tree) -> set[str]:
    return {t.leaf} if t.op == "var" else set().union(*map(variables, t.args))


# --- value -----------------------------------------------------------------------------------------------------------


def value(t: Tree, point: dict[str, mpmath.mpf]) -> mpmath.mpc:
    """Raises ZeroDivisionError or ValueError where the expression has no value."""
    args = [value(a, point) for a in t.args]
    match t.op:
        case "num":
            return mpmath.mpf(t.leaf.numerator) / t.leaf.denominator
        case "var":
            return point[t.leaf]
        case "const":
            return {r"\pi": +mpmath.pi, "e": +mpmath.e, "i": mpmath.mpc(0, 1)}[t.leaf]
        case "sum":
            return mpmath.fsum(args)
        case "prod":
            return mpmath.fprod(args)
        case "frac":
            return args[0] / args[1]
        case "pow":
            return args[0] ** args[1]
        case "root":
            return mpmath.root(args[0], t.leaf)
        case "fn":
            return getattr(mpmath, {"arctan": "atan"}.get(t.leaf, t.leaf))(args[0])
        case "log":
            return mpmath.log(args[1]) / mpmath.log(args[0])
        case "fact":
            return mpmath.factorial(args[0])
        case "binom":
            return mpmath.binomial(*args)
    raise ValueError(t.op)


def compare(first: Tree, second: Tree, digits: int = 50) -> bool | None:
    """Whether two trees are equal at random points. None where this is unclear: they are equal at some points only,
    differ by less than a millionth (unless more than 50 `digits` are asked for), or have no value."""
    names = sorted(variables(first) | variables(second))
    rng = random.Random(repr((names, digits)))
    verdicts = []
    with mpmath.workdps(digits):
        for negative in (False, False, False, True) if names else (False,):
            scale = -3 if negative else 3
            point = {name: mpmath.mpf(rng.randint(10**8, 10**9)) / 10**9 * scale for name in names}
            try:
                a, b = value(first, point), value(second, point)
            except (ZeroDivisionError, ValueError, OverflowError):
                if negative:
                    continue
                return None
            if negative and (mpmath.im(a) != 0 or mpmath.im(b) != 0):
                continue
            if not (mpmath.isfinite(a) and mpmath.isfinite(b)):
                return None
            gap = abs(a - b) / max(abs(a), abs(b), mpmath.mpf(10) ** -30)
            equal = gap < mpmath.mpf(10) ** (8 - digits)
            if not equal and digits <= 50 and gap < 1e-6:
                return None
            verdicts.append(equal)
    return verdicts[0] if len(set(verdicts)) == 1 else None


# --- LaTeX -----------------------------------------------------------------------------------------------------------

# How tightly the surroundings bind: a piece that binds less tightly gets brackets
SUM, PRODUCT, FACTOR, BASE = range(4)


class Writer:
    """Writes trees in a spelling drawn from `rng`, or with `plain` in the usual one."""

    def __init__(self, rng: random.Random, plain: bool = False):
        self.rng, self.plain = rng, plain
        self.fraction = self.draw([r"\frac"], [r"\frac", r"\dfrac", r"\tfrac"])
        self.sign = self.draw([""], ["", "", " ", r"\cdot ", r" \cdot ", r"\times ", r"\,", "*"])
        self.space = self.draw([""], ["", "", " ", r"\,", "  "])
        self.minus = self.draw(["-"], ["-", "-", "-", "−"])
        self.large_brackets = self.chance(0.3)
        self.braces = self.chance(0.5)

    def draw(self, plain: list, options: list):
        return self.rng.choice(plain if self.plain else options)

    def chance(self, probability: float) -> bool:
        return not self.plain and self.rng.random() < probability

    def shuffled(self, items) -> list:
        items = list(items)
        if self.chance(0.6):
            self.rng.shuffle(items)
        return items

    def __call__(self, t: Tree) -> str:
        return self.write(t, SUM)

    def brackets(self, text: str) -> str:
        return rf"\left({text}\right)" if self.large_brackets or self.chance(0.1) else f"({text})"

    def write(self, t: Tree, binding: int, last: bool = True) -> str:
        text, own = getattr(self, f"write_{t.op}")(t, binding, last)
        return self.brackets(text) if own < binding else text

    def write_num(self, t, binding, last):
        if t.leaf < 0:
            return self.minus + self.write(num(-t.leaf), PRODUCT), SUM
        if t.leaf.denominator == 1:
            return str(t.leaf), BASE
        if self.chance(0.15) and 1000 % t.leaf.denominator == 0:
            return str(float(t.leaf)), BASE
        return self.write_frac(num(t.leaf.numerator) / num(t.leaf.denominator), binding, last)

    def write_var(self, t, binding, last):
        name, _, index = t.leaf.partition("_")
        if index:
            bare = len(index) == 1 and not self.braces
            return f"{name}_{index}" if bare else f"{name}_{{{index.strip('{}')}}}", BASE
        if t.leaf.startswith(r"\mathbf{") and self.chance(0.3):
            return t.leaf.replace("{", " ").replace("}", ""), BASE
        return t.leaf, BASE

    def write_const(self, t, binding, last):
        return t.leaf, BASE

    def write_sum(self, t, binding, last):
        text = ""
        for term in self.shuffled(flat(t, "sum")):
            negative, size = split_sign(term)
            written = self.write(size, PRODUCT)
            if text or negative:
                space = self.space if text else ""
                text += space + (self.minus if negative else "+") + space
            text = join(text, written)
        return text, SUM

    def write_prod(self, t, binding, last):
        negative, size = split_sign(t)
        if negative:
            return self.minus + self.write(size, PRODUCT, last), SUM
        if size.op != "prod":
            return getattr(self, f"write_{size.op}")(size, binding, last)
        factors = self.shuffled(flat(size, "prod"))
        factors.sort(key=lambda f: (f.op in ("fn", "log")) - (f.op in ("num", "frac")) * 2 - (f.op == "num"))
        text, before = "", None
        for i, factor in enumerate(factors):
            written = self.write(factor, FACTOR, last and i == len(factors) - 1)
            text = join(text, self.sign_between(before, written) + written)
            before = factor
        return text, PRODUCT

    def sign_between(self, before: Tree | None, after: str) -> str:
        if before is None:
            return ""
        if (
            after[0].isdigit()
            or before.op == "num"
            and (after.startswith(("\\frac", "\\dfrac", "\\tfrac", "e")) or before.leaf.denominator != 1)
            or before.op == "var"
            and after.startswith(("(", r"\left("))
            and (before.leaf in FUNCTION_LIKE or len(before.leaf) > 1)
            or before.op == "var"
            and before.leaf == "d"
        ):
            return self.sign if "cdot" in self.sign or "times" in self.sign else r"\cdot "
        return self.sign

    def write_frac(self, t, binding, last):
        top, bottom = t.args
        negative, top = split_sign(top)
        if negative:
            return self.minus + self.write(top / bottom, PRODUCT), SUM
        if binding <= PRODUCT and top.op != "frac" and self.chance(0.15):
            over, under = self.write(top, PRODUCT, last=False), self.write(bottom, BASE)
            if "/" not in over and (bottom.op != "num" or bottom.leaf.denominator == 1):
                return f"{over}/{under}", PRODUCT
        over, under = self.write(top, SUM), self.write(bottom, SUM)
        if over.isdigit() and len(over + under) == 2 and under.isdigit() and self.chance(0.4):
            return f"{self.fraction}{over}{under}", FACTOR
        return f"{self.fraction}{{{over}}}{{{under}}}", FACTOR

    def write_pow(self, t, binding, last):
        base, exponent = t.args
        if exponent == num(Fraction(1, 2)) and self.chance(0.5):
            return self.write_root(root(base), binding, last)
        if base == EULER and self.chance(0.2):
            return self.write_fn(fn("exp", exponent), binding, last)
        power = self.write(exponent, SUM)
        power = power if re.fullmatch(r"[0-9a-z]", power) and not self.braces else f"{{{power}}}"
        if base.op == "fn" and base.leaf != "exp" and power.strip("{}").isdigit() and self.chance(0.7):
            name, argument = rf"\{base.leaf}^{power}", base.args[0]
            if last and binding <= FACTOR and argument.op == "var" and self.chance(0.5):
                return f"{name} {self.write(argument, BASE)}", FACTOR
            return name + self.brackets(self.write(argument, SUM)), FACTOR
        plain = base.op in ("var", "const") or base.op == "num" and base.leaf.denominator == 1 and base.leaf >= 0
        under = self.write(base, BASE) if plain else self.brackets(self.write(base, SUM))
        return f"{under}^{power}", FACTOR

    def write_root(self, t, binding, last):
        inside = self.write(t.args[0], SUM)
        if t.leaf != 2:
            return rf"\sqrt[{t.leaf}]{{{inside}}}", FACTOR
        if len(inside) == 1 and inside.isdigit() and last and self.chance(0.4):
            return rf"\sqrt{inside}", FACTOR
        return rf"\sqrt{{{inside}}}", FACTOR

    def write_fn(self, t, binding, last):
        argument = t.args[0]
        bare = argument.op in ("var", "const") or argument.op == "num" and argument.leaf.denominator == 1
        if bare and last and binding <= FACTOR and t.leaf != "exp" and self.chance(0.5):
            return rf"\{t.leaf} {self.write(argument, FACTOR)}", FACTOR
        return rf"\{t.leaf}" + self.brackets(self.write(argument, SUM)), FACTOR

    def write_log(self, t, binding, last):
        base, argument = t.args
        under = self.write(base, SUM)
        under = under if len(under) == 1 and not self.braces else f"{{{under}}}"
        if argument.op in ("num", "var") and last and binding <= FACTOR and self.chance(0.5):
            return rf"\log_{under} {self.write(argument, FACTOR)}", FACTOR
        return rf"\log_{under}" + self.brackets(self.write(argument, SUM)), FACTOR

    def write_fact(self, t, binding, last):
        return self.write(t.args[0], BASE) + "!", FACTOR

    def write_binom(self, t, binding, last):
        command = self.draw([r"\binom"], [r"\binom", r"\dbinom"])
        return f"{command}{{{self.write(t.args[0], SUM)}}}{{{self.write(t.args[1], SUM)}}}", FACTOR


WORD = re.compile(r"(?<![a-zA-Z])[a-zA-Z]*(ln|lg|or|log|cot|max|arg|sup|gcd|mod|cm|km|mm|kg|mg|ml)")
AFTER_A_NUMBER = re.compile(r"\d\s*(am|pm|st|nd|rd|th)(?![a-zA-Z])")
DIFFERENTIAL = re.compile(r"frac\{\s*d[^}]")


def has_two_readings(text: str) -> bool:
    """Whether adjacent letters spell a function, a unit, "or", "2nd" or "3pm", or a fraction looks like d/dx."""
    letters = re.sub(r"\\[a-zA-Z]+", " ", text)
    return bool(WORD.search(letters) or AFTER_A_NUMBER.search(letters) or DIFFERENTIAL.search(text))


def join(before: str, after: str) -> str:
    """Joins two pieces: a command that ends in a letter needs a space before another letter."""
    return f"{before} {after}" if re.search(r"\\[a-zA-Z]+$", before) and after[:1].isalpha() else before + after


def flat(t: Tree, op: str) -> list[Tree]:
    """The terms of nested sums, or the factors of nested products."""
    return [leaf for a in t.args for leaf in flat(a, op)] if t.op == op else [t]


def split_sign(t: Tree) -> tuple[bool, Tree]:
    """Whether a minus stands before the term, and the term without it."""
    if t.op == "num":
        return t.leaf < 0, num(abs(t.leaf))
    if t.op != "prod":
        return False, t
    factors = flat(t, "prod")
    negative = sum(f.op == "num" and f.leaf < 0 for f in factors) % 2 == 1
    factors = [num(abs(f.leaf)) if f.op == "num" else f for f in factors]
    return negative, product([f for f in factors if f != num(1)] or [num(1)])
