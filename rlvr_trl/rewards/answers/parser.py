"""
The parser of expressions: tokens become a tree by recursive descent.

An operand that is not understood raises [`Unreadable`]. Nothing is guessed and nothing is left out.
"""

from collections.abc import Sequence

from .commands import NAMES
from .expressions import CONSTANTS, Expr, number
from .tokens import Token, Unreadable, contents, split


# Names that may begin a run of letters: sinx needs no brackets, gcd(a, b) does.
_RUN_TOGETHER = frozenset(
    ["sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "asin", "acos", "atan", "sinh"]
    + ["cosh", "tanh", "log", "ln", "exp", "sqrt", "pi", "theta", "infinity", "inf"]
)
_FUNCTION_LETTERS = frozenset("fgFGP")  # f(x+1) is not a product, a(x+1) is


def parse(tokens: Sequence[Token]) -> Expr:
    """
    The expression that the tokens stand for.

    Raises:
        `Unreadable`: They stand for no expression.
    """
    parser = _ExpressionParser(tokens)
    tree = parser.whole()
    if parser.i < len(parser.tokens):
        raise Unreadable(f"{parser.tokens[parser.i].text!r} after an expression")
    return tree


class _ExpressionParser:
    def __init__(self, tokens: Sequence[Token]):
        self.tokens, self.i, self.bars = list(tokens), 0, 0

    # What comes next
    @property
    def token(self) -> Token | None:
        return self.tokens[self.i] if self.i < len(self.tokens) else None

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these operators or brackets."""
        token = self.token
        return token is not None and token.kind in ("op", "open", "close") and token.text in texts

    def take(self) -> Token:
        if self.token is None:
            raise Unreadable("an expression that ends too early")
        self.i += 1
        return self.tokens[self.i - 1]

    def expect(self, *texts: str):
        if not self.at(*texts):
            raise Unreadable(f"{texts[0]!r} is missing")
        self.i += 1

    def starts_operand(self) -> bool:
        token = self.token
        if token is None:
            return False
        if token.kind == "op":
            return token.text in ("|", "‖") and not self.bars
        return token.kind in ("number", "letters", "symbol", "name", "command", "open", "begin")

    # From sums to atoms
    def whole(self) -> Expr:
        r"""The content of a group, such as `a \over b`."""
        value = self.sum()
        if self.at("over"):
            self.i += 1
            return Expr("div", (value, self.sum()))
        if self.at("choose"):
            self.i += 1
            return Expr("call", (value, self.sum()), name="binom")
        return value

    def sum(self) -> Expr:
        terms = []
        while True:
            sign = self.take().text if self.at("+", "-", "±", "∓") else "+"
            while sign in ("+", "-") and self.at("+", "-"):  # 14 + -1
                sign = "+" if (self.take().text == "-") == (sign == "-") else "-"
            terms.append(_apply_sign(sign, self.product()))
            if not self.at("+", "-", "±", "∓"):
                return terms[0] if len(terms) == 1 else Expr("add", tuple(terms))

    def product(self) -> Expr:
        value, literal = self.factor(), self.is_number(self.i - 1)
        while True:
            if self.at("×") and self.between_vectors():
                self.i += 1
                value = Expr("apply", (value, self.factor()), name="cross product")
            elif self.at("*", "×"):
                self.i += 1
                value = _product(value, self.factor())
            elif self.at("/"):
                self.i += 1
                value = Expr("div", (value, self.factor()))
            elif self.starts_operand():
                if literal and self.is_number(self.i):
                    raise Unreadable("two numbers side by side")
                value = _product(value, self.factor())
            else:
                return value
            literal = self.is_number(self.i - 1)

    def between_vectors(self) -> bool:
        return 0 < self.i < len(self.tokens) - 1 and all(
            token.font == "bf" for token in (self.tokens[self.i - 1], self.tokens[self.i + 1])
        )

    def is_number(self, at: int) -> bool:
        """Whether the token at a place is a number, without braces around it."""
        return at >= 0 and self.tokens[at].kind == "number"

    def factor(self) -> Expr:
        if self.at("-", "+"):
            sign = self.take().text
            return _apply_sign(sign, self.factor())
        mixed = self.mixed()
        if mixed is not None:
            return mixed
        if self.token is not None and self.token.kind == "name":
            return self.call()
        return self.power(self.postfix(self.atom()))

    def power(self, base: Expr) -> Expr:
        if not self.at("^"):
            return base
        if self.at_degrees():
            self.i += 2 if self.tokens[self.i + 1].text == "°" else 4
            return self.power(self.postfix(Expr("deg", (base,))))
        self.i += 1
        if self.at("'"):
            raise Unreadable("a prime on an expression")
        return self.postfix(Expr("pow", (base, self.exponent())))

    def at_degrees(self) -> bool:
        r"""Whether `^\circ` or `^{\circ}` comes next."""
        texts = [token.text for token in self.tokens[self.i : self.i + 4]]
        return texts[:2] == ["^", "°"] or texts == ["^", "{", "°", "}"]

    def exponent(self) -> Expr:
        if self.at("-", "+"):
            sign = self.take().text
            return _apply_sign(sign, self.exponent())
        if self.at("{", "("):
            return self.group()
        if self.token is not None and self.token.kind in ("number", "letters", "symbol", "command"):
            value = self.letter() if self.token.kind == "letters" else self.atom()
            return self.postfix(value) if self.at("!") else value
        raise Unreadable("an exponent that cannot be read")

    def postfix(self, value: Expr) -> Expr:
        while self.at("!", "°", "%"):
            text = self.take().text
            if text == "!" and self.at("!"):
                raise Unreadable("a double factorial")
            if text == "°" and value.op != "num" and self.starts_operand():
                raise Unreadable("functions one after the other")
            value = Expr({"!": "fact", "°": "deg", "%": "pct"}[text], (value,))
        return value

    def mixed(self) -> Expr | None:
        r"""A mixed number, as in `3\frac{1}{2}` and `3 1/2`."""
        rest = self.tokens[self.i : self.i + 8]
        if not rest or rest[0].kind != "number" or not rest[0].text.isdigit() or len(rest) < 2:
            return None
        if self.i and self.tokens[self.i - 1].text in ("*", "×", "/", "^"):
            return None
        start, tokens = self.i, list(self.tokens)  # a copy, because arguments may be split off
        self.i += 1
        if rest[1][:2] == ("command", "frac"):
            fraction = self.atom()
        elif [t.kind for t in rest[1:4]] == ["number", "op", "number"] and rest[2].text == "/" and rest[1].spaced:
            fraction = Expr("div", (number(rest[1].text), number(rest[3].text)))
            self.i += 3
        else:
            self.i = start
            return None
        parts = fraction.args
        if fraction.op == "div" and all(p.op == "num" and p.value.denominator == 1 for p in parts):
            if 0 < parts[0].value < parts[1].value and (not self.at("^", "!") or self.at_degrees()):
                return self.power(self.postfix(Expr("add", (number(rest[0].text), fraction), name="mixed")))
            if rest[1].kind == "number":
                raise Unreadable("two numbers side by side")
        self.i, self.tokens = start, tokens
        return None

    def group(self) -> Expr:
        """An expression in brackets."""
        opening = self.take().text
        bars, self.bars = self.bars, 0
        value = self.whole()
        self.bars = bars
        if self.token is None or self.token.kind != "close":
            raise Unreadable(f"{opening!r} is not closed")
        closing = self.take().text
        if (opening, closing) in (("⌊", "⌋"), ("⌈", "⌉")):
            return Expr("call", (value,), name="floor" if opening == "⌊" else "ceil")
        if (opening, closing) not in (("(", ")"), ("[", "]"), ("{", "}"), ("\\{", "\\}")):
            raise Unreadable(f"{opening!r} is closed by {closing!r}")
        return value

    def argument(self) -> Expr:
        r"""The argument of a command: a group, or one digit, letter or command, as in `\frac12`."""
        token = self.token
        if token is not None and token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens[self.i] = token._replace(text=token.text[1:], spaced="")
            return number(token.text[0])
        if token is not None and token.kind == "letters":
            return self.letter()
        if self.at("-"):
            self.i += 1
            return _apply_sign("-", self.argument())
        return self.group() if self.at("{") else self.atom()

    def atom(self) -> Expr:
        token = self.token
        if token is None:
            raise Unreadable("an expression that ends too early")
        if token.kind == "number":
            self.i += 1
            if self.at("_"):
                raise Unreadable("a number with a base inside an expression")
            return number(token.text)
        if token.kind == "letters":
            return self.letters(token)
        if token.kind == "symbol":
            self.i += 1
            return self.named(token.text)
        if token.kind == "command":
            return self.command()
        if token.kind == "open":
            return self.group()
        if token.kind == "begin":
            return self.matrix()
        if token.kind == "op" and token.text in ("|", "‖"):
            return self.absolute(token.text)
        if token.kind == "name":
            return self.call()
        raise Unreadable(f"{token.text!r} in an expression")

    def absolute(self, bar: str) -> Expr:
        self.i += 1
        self.bars += 1
        value = self.sum()
        self.bars -= 1
        self.expect(bar)
        return Expr("abs", (value,))

    def command(self) -> Expr:
        name = self.take().text
        if name == "sqrt":
            degree = self.bracketed() if self.at("[") else None
            token = self.token
            if token is not None and token.kind == "number":  # `\sqrt17` means the root of 17
                self.i += 1
                value = number(token.text)
            else:
                value = self.argument()
            return Expr("call", (value,) if degree is None else (value, degree), name="sqrt")
        if name in ("frac", "binom"):
            top, bottom = self.argument(), self.argument()
            if name == "frac" and _is_differential(top) and _is_differential(bottom):
                return Expr("apply", (top, bottom), name="derivative")
            return Expr("div", (top, bottom)) if name == "frac" else Expr("call", (top, bottom), name="binom")
        raise Unreadable(f"\\{name} in an expression")

    def bracketed(self) -> Expr:
        self.expect("[")
        value = self.sum()
        self.expect("]")
        return value

    # Names
    def letter(self) -> Expr:
        """The first letter of a run, with its subscript, primes and arguments."""
        token = self.take()
        if token.font == "text" and len(token.text) > 1:
            raise Unreadable(f"the word {token.text!r} in an expression")
        if len(token.text) > 1:
            self.i -= 1
            self.tokens[self.i] = token._replace(text=token.text[1:], spaced="")
        name = token.text[0]
        if token.font == "bf" and name in "eijk":
            return self.named(f"vec_{name}")
        return self.named(name)

    def letters(self, token: Token) -> Expr:
        """The first factor of a run of letters: a function, a name of several letters, or one letter."""
        if token.font == "text" and len(token.text) > 1:
            raise Unreadable(f"the word {token.text!r} in an expression")
        if token.font == "rm" and len(token.text) > 1 and token.text not in NAMES:
            self.i += 1
            return self.named(token.text)
        following = self.tokens[self.i + 1].text if self.i + 1 < len(self.tokens) else ""
        name = (
            token.text
            if token.text in NAMES and (following == "(" or token.font == "rm")
            else function_prefix(token.text)
        )
        if name is None:
            return self.letter()
        rest = token.text[len(name) :]
        if rest:
            self.tokens[self.i] = token._replace(text=rest, spaced="")
            self.tokens.insert(self.i, token)
        if name in ("pi", "theta", "infinity", "inf"):
            self.i += 1
            return self.named({"infinity": "infty", "inf": "infty"}.get(name, name))
        self.tokens[self.i] = Token("name", NAMES[name], token.spaced)
        return self.call()

    def named(self, name: str) -> Expr:
        """A name with its subscript and primes, and with its arguments if it is a function."""
        if name == "imath":
            name = "i"
        if self.at("_"):
            self.i += 1
            name = f"{name}_{self.subscript()}"
        while self.at("'") or (self.at("^") and self.primes()):
            if self.at("'"):
                self.i += 1
                name += "'"
            else:
                count = self.primes()
                self.i += 1 if count == -1 else count + 3
                name += "'" * max(count, 1)
        if self.at("_") and "_" not in name:
            self.i += 1
            name = f"{name}_{self.subscript()}"
        texts = [token.text for token in self.tokens[self.i : self.i + 6]]
        if texts == ["^", "{", "-", "1", "}", "("] and name[0] in _FUNCTION_LETTERS:
            self.i += 5
            name = f"inverse {name}"
        arguments = self.arguments(name)
        if arguments is not None:
            return Expr("apply", arguments, name=name)
        return Expr("sym", name=name)

    def primes(self) -> int:
        r"""The number of primes in `^{\prime\prime}`; -1 for a single one without braces, 0 for none."""
        i = self.i + 1
        texts = [token.text for token in self.tokens[i : i + 5]]
        if texts[:1] == ["'"]:
            return -1
        count = 0
        while texts[:1] == ["{"] and texts[1 + count : 2 + count] == ["'"]:
            count += 1
        return count if count and texts[1 + count : 2 + count] == ["}"] else 0

    def subscript(self) -> str:
        if not self.at("{"):
            token = self.take()
            if token.kind not in ("number", "letters", "symbol") and token.text != "*":
                raise Unreadable("a subscript that is not plain")
            if token.kind == "letters" and len(token.text) > 1 and token.font != "rm":
                self.i -= 1  # x_ab means x_a b
                self.tokens[self.i] = token._replace(text=token.text[1:], spaced="")
                return token.text[0]
            return token.text
        end = contents(self.tokens, self.i)
        inside = [token for token in self.tokens[self.i + 1 : end] if token.text not in ("{", "}")]
        self.i = end + 1
        name = "".join(token.text for token in inside)
        if not inside or len(name) > 30 or any(not _may_be_in_subscript(token) for token in inside):
            raise Unreadable("a subscript that is not plain")
        return name

    def arguments(self, name: str) -> tuple[Expr, ...] | None:
        """The arguments of a name that is applied: f(x+1), I(0), x(t), but not x(t+1), which is a product."""
        if not self.at("(") or name in CONSTANTS:
            return None
        end = contents(self.tokens, self.i)
        inside = self.tokens[self.i + 1 : end]
        single = len(inside) == 1 and (inside[0].kind in ("number", "symbol") or len(inside[0].text) == 1)
        parts = split(inside, lambda token: token.text == ",")
        applied = single or len(parts) > 1 or name[0] in _FUNCTION_LETTERS or name.endswith("'")
        if self.tokens[self.i].spaced or not applied:
            return None
        if self.tokens[end].text != ")":
            return None
        self.i = end + 1
        return tuple(parse(part) for part in parts)

    def call(self) -> Expr:
        """A known function with its arguments, with or without brackets."""
        name = self.take().text
        power = base = None
        for _ in range(2):
            if self.at("^") and power is None:
                self.i += 1
                power = self.exponent()
            elif self.at("_") and base is None and name == "log":
                self.i += 1
                base = self.group() if self.at("{") else self.argument()
        if name == "sqrt" and self.at("["):
            base = self.bracketed()
        values, closed = self.call_arguments()
        inverse = power is not None and power == _apply_sign("-", number("1"))
        if inverse and name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh"):
            return Expr("call", values, name=f"arc{name}")
        if name == "lg":
            name, base = "log", number("10")
        value = Expr("call", values if base is None else (*values, base), name=name)
        if name == "abs":
            value = Expr("abs", values)
        if power is not None:
            return Expr("pow", (value, power))
        return self.power(self.postfix(value)) if closed else value

    def call_arguments(self) -> tuple[tuple[Expr, ...], bool]:
        """The arguments, and whether they are in brackets, so that what follows applies to the value."""
        if self.at("(", "[", "{", "\\{"):
            start, opening = self.i, self.tokens[self.i].text
            end = contents(self.tokens, self.i)
            inside = self.tokens[start + 1 : end]
            if inside and inside[0].text == "\\{" and contents(inside, 0) == len(inside) - 1:
                inside = inside[1:-1]
            parts = split(inside, lambda token: token.text == ",")
            if len(parts) > 1:
                self.i = end + 1
                return tuple(parse(part) for part in parts), opening != "{"
            return (self.group(),), True
        factors = []
        sign = self.take().text if self.at("-", "+") else "+"
        while self.starts_operand() and (not factors or not self.at_function()):
            mixed = self.mixed() if not factors else None
            factors.append(self.power(self.postfix(self.atom())) if mixed is None else mixed)
            if self.at("/") and all(factor.op in ("num", "sym") for factor in factors):
                following = self.tokens[self.i + 1] if self.i + 1 < len(self.tokens) else None
                if following is not None and following.kind == "number":  # sin pi/4
                    self.i += 1
                    factors.append(Expr("pow", (self.power(self.atom()), _apply_sign("-", number("1")))))
                    break
        if not factors:
            raise Unreadable("a function without an argument")
        value = factors[0]
        for factor in factors[1:]:
            value = _product(value, factor)
        return (_apply_sign(sign, value),), False

    def at_function(self) -> bool:
        token = self.token
        return token is not None and (
            token.kind == "name"
            or (token.kind == "letters" and function_prefix(token.text) in NAMES and token.font != "text")
        )

    def matrix(self) -> Expr:
        start = self.i
        end = contents(self.tokens, start)
        if self.tokens[start].text in ("vmatrix", "Vmatrix", "cases"):
            raise Unreadable("a determinant, or cases")
        self.i = end + 1
        rows = split(self.tokens[start + 1 : end], lambda token: token.text == "\\\\")
        if len(rows) > 1 and not rows[-1]:  # the end of the last row
            rows.pop()
        cells = [split(row, lambda token: token.text == "&") for row in rows]
        if len({len(row) for row in cells}) != 1:
            raise Unreadable("rows of different lengths")
        return Expr("matrix", tuple(Expr("row", tuple(parse(cell) for cell in row)) for row in cells))


def _is_differential(tree: Expr) -> bool:
    """Whether this is dy, d^2 y or a partial differential, whose d cannot be cancelled."""
    first = tree.args[0] if tree.op == "mul" else tree
    first = first.args[0] if first.op == "pow" else first
    return first.op == "sym" and (first.name == "partial" or (first.name == "d" and tree != first))


def _apply_sign(sign: str, value: Expr) -> Expr:
    if sign == "+":
        return value
    if sign == "-":
        return Expr("neg", (value,))
    return Expr("pm", (value,), name=sign)


def _product(left: Expr, right: Expr) -> Expr:
    return Expr("mul", (*left.args, right) if left.op == "mul" else (left, right))


def function_prefix(text: str) -> str | None:
    """The longest name of a function or constant that a run of letters may begin with, as sin in sinx."""
    return next((text[:n] for n in range(min(len(text), 8), 1, -1) if text[:n] in _RUN_TOGETHER), None)


def _may_be_in_subscript(token: Token) -> bool:
    return token.kind in ("number", "letters", "symbol", "name") or token.text in ("+", "-", ",", "'", "*", "=", "/")
