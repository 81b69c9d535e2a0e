"""
The value of an expression: an exact number if it is rational, else a ball that is certain to hold the value.

A ball is a number of Arb (python-flint) with its error bound, so two values are told apart by proof. They are called
equal if they agree to more digits than the numbers in the expressions could hide, see [`Evaluation`].
"""

import hashlib
import math
from collections.abc import Callable
from fractions import Fraction

from flint import acb, arb, ctx, fmpq, fmpz

from .expressions import Expr


MAX_EXACT_BITS = 4_000_000  # of an exact number
MAX_BITS = 200_000  # of a ball
MAX_FACTORIAL = 100_000
_LARGE = 2**40  # exponents beyond which nothing is evaluated

Scalar = fmpq | acb


class Undefined(ArithmeticError):
    """There is no value here: a division by zero, a name without a value."""


class TooLarge(ArithmeticError):
    """A value that would take too much time or memory."""


class Evaluation:
    """
    The value of an expression, given the values of its names.

    Args:
        names (`dict[str, fmpq]`): Values of the variables.
        precision (`int`): Bits of the balls.
        log_base (`int`): Base of a `\\log` that has none: 10, or 0 for the natural logarithm.
        real (`bool`): Whether even roots and logarithms of negative numbers are undefined.

    Attributes:
        spread (`int`): Bits of all numbers met so far, side by side. With a lower precision a term could be lost.
    """

    def __init__(self, names: dict[str, fmpq], precision: int = 256, log_base: int = 10, real: bool = False):
        self.names, self.precision, self.log_base, self.real, self.spread = names, precision, log_base, real, 0

    def __call__(self, tree: Expr) -> Scalar:
        before = ctx.prec
        ctx.prec = self.precision
        try:
            return self.value(tree)
        finally:
            ctx.prec = before

    def value(self, tree: Expr) -> Scalar:
        value = getattr(self, f"_{tree.op}", self._unknown)(tree)
        if isinstance(value, acb):
            if not value.is_finite():
                raise Undefined(tree.op)
            self.spread += abs(_binary_exponent(value))
        else:
            self.spread += _size(value)
        if self.spread > (MAX_EXACT_BITS if isinstance(value, fmpq) else MAX_BITS):
            raise TooLarge(tree.op)
        return value

    def _unknown(self, tree):
        raise Undefined(tree.op)

    def _num(self, tree):
        return fmpq(tree.value.numerator, tree.value.denominator)

    def _sym(self, tree):
        if tree.name in self.names:
            return self.names[tree.name]
        if tree.name == "pi":
            return acb(arb.pi())
        if tree.name == "e":
            return acb(arb.const_e())
        if tree.name == "i":
            return acb(0, 1)
        raise Undefined(tree.name)

    def _add(self, tree):
        value = self.value(tree.args[0])
        for arg in tree.args[1:]:
            value = value + self.value(arg)
        return value

    def _mul(self, tree):
        value = self.value(tree.args[0])
        for arg in tree.args[1:]:
            value = value * self.value(arg)
        return value

    def _neg(self, tree):
        return -self.value(tree.args[0])

    def _div(self, tree):
        top, bottom = (self.value(arg) for arg in tree.args)
        if bottom == 0 or (isinstance(bottom, acb) and bottom.contains(0)):
            raise Undefined("division by zero")
        return top / bottom

    def _pct(self, tree):
        return self.value(tree.args[0]) / fmpq(100)

    def _deg(self, tree):
        return acb(self.value(tree.args[0])) * arb.pi() / 180

    def _abs(self, tree):
        value = self.value(tree.args[0])
        return abs(value) if isinstance(value, fmpq) else acb(abs(value))

    def _fact(self, tree):
        value = self.value(tree.args[0])
        if isinstance(value, fmpq) and value.q == 1:
            if value < 0:
                raise Undefined("factorial")
            if value <= MAX_FACTORIAL:
                # pyrefly: ignore[bad-argument-type]  # a static method, which the stubs of python-flint do not say
                return fmpq(fmpz.fac_ui(int(value.p)))
        return self._gamma(acb(value) + 1)

    def _gamma(self, value: acb) -> acb:
        if _binary_exponent(value) > 60:
            raise TooLarge("factorial")
        return value.gamma()

    def _pow(self, tree):
        exponent = self.value(tree.args[1])
        if tree.args[0] == Expr("sym", name="e"):
            return self._exp(exponent)
        return self._power(self.value(tree.args[0]), exponent)

    def _power(self, base: Scalar, exponent: Scalar) -> Scalar:
        if self.real and _negative(base) and (not isinstance(exponent, fmpq) or exponent.q % 2 == 0):
            raise Undefined("the root of a negative number")
        return power(base, exponent)

    def _log(self, value: Scalar) -> acb:
        if value == 0 or (isinstance(value, acb) and value.contains(0)):
            raise Undefined("the logarithm of 0")
        if self.real and _negative(value):
            raise Undefined("the logarithm of a negative number")
        return acb(value).log()

    def _exp(self, exponent: Scalar) -> acb:
        self._saturates(acb(exponent), "exp")
        return acb(exponent).exp()

    def _saturates(self, value: acb, name: str):
        """Count the bits that it takes to tell a function such as tanh from its limit."""
        if _binary_exponent(value) > 40:
            raise TooLarge(name)
        self.spread += 3 * 2 ** _binary_exponent(value) if _binary_exponent(value) > 5 else 0

    def _apply(self, tree):
        """An unknown function: some transcendental function that depends on its name."""
        total = acb(0)
        for i, arg in enumerate(tree.args):
            value = self.value(arg)
            digest = hashlib.sha256(f"{tree.name} {i} {len(tree.args)}".encode()).digest()
            a, b, c = (fmpq(1 + int.from_bytes(digest[j : j + 2]), 65_537) for j in (0, 2, 4))
            total += (acb(value) * a + b).sin() + acb(value) * c + b
        return total

    def _call(self, tree):
        values = [self.value(arg) for arg in tree.args]
        if tree.name == "sqrt":
            degree = values[1] if len(values) > 1 else fmpq(2)
            if not isinstance(degree, fmpq) or degree.q != 1 or not 0 < degree < 1000:
                raise Undefined("root")
            return self._power(values[0], 1 / degree)
        if tree.name == "cbrt":
            return power(values[0], fmpq(1, 3))
        if tree.name == "binom" and len(values) == 2:
            return self._binomial(*values)
        if tree.name in ("floor", "ceil") and len(values) == 1:
            return _floor_or_ceil(values[0], tree.name)
        if tree.name in ("gcd", "lcm"):
            return _of_integers({"gcd": math.gcd, "lcm": math.lcm}[tree.name], values)
        if tree.name in ("max", "min"):
            numbers = [value for value in values if isinstance(value, fmpq)]
            if len(numbers) == len(values):
                return max(numbers) if tree.name == "max" else min(numbers)
        if tree.name == "log" and len(values) == 2:
            return self._log(values[0]) / self._log(values[1])
        if len(values) != 1:
            raise Undefined(tree.name)
        if tree.name == "exp":
            return self._exp(values[0])
        if tree.name == "log":
            return self._log(values[0]) / (self._log(fmpq(self.log_base)) if self.log_base else 1)
        if tree.name == "ln":
            return self._log(values[0])
        if tree.name not in _FUNCTIONS:
            raise Undefined(tree.name)
        value = acb(values[0])
        if tree.name.endswith("h"):
            self._saturates(value, tree.name)
        if _binary_exponent(value) > 40:
            raise TooLarge(tree.name)
        return _FUNCTIONS[tree.name](value)

    def _binomial(self, n: Scalar, k: Scalar) -> Scalar:
        if isinstance(k, fmpq) and k.q == 1 and 0 <= k <= 500:
            value = fmpq(1) if isinstance(n, fmpq) else acb(1)
            for i in range(int(k.p)):
                value = value * (n - i) / fmpq(i + 1)
                if isinstance(value, fmpq) and _size(value) > MAX_EXACT_BITS:
                    raise TooLarge("binomial")
            return value
        n, k = acb(n), acb(k)
        return self._gamma(n + 1) / (self._gamma(k + 1) * self._gamma(n - k + 1))


_FUNCTIONS: dict[str, Callable[[acb], acb]] = {
    name: getattr(acb, name) for name in ("sin", "cos", "tan", "cot", "sec", "csc", "sinh", "cosh", "tanh", "coth")
} | {
    "arcsin": acb.asin, "arccos": acb.acos, "arctan": acb.atan, "arcsinh": acb.asinh, "arccosh": acb.acosh,
    "arctanh": acb.atanh, "sech": acb.sech, "csch": acb.csch, "arccot": lambda x: acb(arb.pi()) / 2 - x.atan(),
    "arcsec": lambda x: (1 / x).acos(), "arccsc": lambda x: (1 / x).asin(), "Re": lambda x: acb(x.real),
    "Im": lambda x: acb(x.imag), "arg": lambda x: acb(x.arg()),
}  # fmt: skip


def power(base: Scalar, exponent: Scalar) -> Scalar:
    """
    A power. For a negative real base and an exponent with an odd denominator it is the real one, as in ∛(-8) = -2.

    Raises:
        `Undefined`: 0 to a power that is not positive.
        `TooLarge`: The result would be too large.
    """
    if isinstance(exponent, fmpq):
        if base == 0:
            if exponent <= 0:
                raise Undefined("a power of 0")
            return base
        if isinstance(base, fmpq):
            exact = _exact_power(base, exponent)
            if exact is not None:
                return exact
        if exponent.q == 1 and abs(exponent) < _LARGE:
            if _binary_exponent(acb(base)) * exponent > _LARGE:
                raise TooLarge("a power")
            return acb(base) ** int(exponent.p)
        real = acb(base)
        if exponent.q % 2 == 1 and real.imag == 0 and real.real < 0:
            value = power(-real, exponent)
            return -value if exponent.p % 2 else value
        if exponent == fmpq(1, 2):
            return real.sqrt()
    base, exponent = acb(base), acb(exponent)
    if base.contains(0):
        raise Undefined("a power of 0")
    size, times = _binary_exponent(base), _binary_exponent(exponent)
    if times > 40 or max(abs(size), 1) * 2 ** max(times, 0) > _LARGE:
        raise TooLarge("a power")
    return base**exponent


def _exact_power(base: fmpq, exponent: fmpq) -> fmpq | None:
    if base == 1:
        return base
    if abs(exponent.p) * (abs(base.p).bit_length() + base.q.bit_length()) > MAX_EXACT_BITS or exponent.q > 100:
        return None
    degree = int(exponent.q)
    if degree > 1:
        negative = base < 0
        if negative and degree % 2 == 0:
            return None
        roots = [part.root(degree) for part in (abs(base.p), base.q)]
        if roots[0] ** degree != abs(base.p) or roots[1] ** degree != base.q:
            return None
        base = fmpq(*roots) * (-1 if negative else 1)
    return base ** int(exponent.p)


def _negative(value: Scalar) -> bool:
    return value < 0 if isinstance(value, fmpq) else value.imag == 0 and value.real < 0


def _floor_or_ceil(value: Scalar, how: str) -> Scalar:
    if isinstance(value, fmpq):
        return fmpq(value.floor() if how == "floor" else value.ceil())
    if value.imag != 0:
        raise Undefined(how)
    return acb(value.real.floor() if how == "floor" else value.real.ceil())


def _of_integers(function: Callable[..., int], values: list[Scalar]) -> fmpq:
    integers = [int(value.p) for value in values if isinstance(value, fmpq) and value.q == 1]
    if len(integers) != len(values):
        raise Undefined("integers")
    return fmpq(function(*integers))


def _size(value: fmpq) -> int:
    """Bits of an exact number; 0 for a small one."""
    bits = abs(value.p).bit_length() + value.q.bit_length()
    return bits if bits > 16 else 0


def _binary_exponent(value: acb) -> int:
    """Roughly the logarithm to base 2 of a value; 0 for 0."""
    upper = abs(value).abs_upper()
    if upper == 0 or not upper.is_finite():
        return 0
    mantissa, exponent = upper.mid().man_exp()
    return int(mantissa).bit_length() + int(exponent)


def fraction(value: fmpq) -> Fraction:
    """An exact number as a `Fraction`."""
    return Fraction(int(value.p), int(value.q))


def same_value(left: Expr, right: Expr, names: dict[str, fmpq], log_base: int, real: bool) -> bool | None:
    """
    Whether two expressions have the same value at one point. False is proven. True means that they agree to 100 bits
    more than the numbers in them take. `None` means that neither can be said, or that `real` is set and one of the
    values is not real.
    """
    precision = 256
    while precision <= MAX_BITS:
        evaluation = Evaluation(names, precision, log_base, real)
        x, y = evaluation(left), evaluation(right)
        if isinstance(x, fmpq) and isinstance(y, fmpq):
            return x == y
        ctx.prec = precision
        x, y = acb(x), acb(y)
        if real and not (x.imag.contains(0) and y.imag.contains(0)):
            return None
        difference = x - y
        ctx.prec = 53
        needed = 100 + evaluation.spread
        if not difference.contains(0):
            # This also tells real values apart that have an imaginary part from rounding.
            return False
        if abs(difference).abs_upper() < arb(2) ** -needed:
            return True
        precision = max(2 * precision, needed + 64)
    return None
