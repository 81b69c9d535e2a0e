"""Random pairs of expressions: equal by a rewriting, unequal by one change, both compared at random points.

A kind is a function of (rng, equal) that returns the trees of a pair, or None where the comparison of their values
does not confirm what was meant (a change may give an equal expression by chance).
"""

import math
import random
from collections.abc import Callable
from fractions import Fraction

from expression_changes import change, rewrite
from expression_trees import EULER, IMAGINARY, PI, Tree, compare, fn, log, num, root, tree, var


LETTERS = list("xyztsrhmlgdconkabpquvw")
GREEK = [r"\alpha", r"\beta", r"\theta", r"\omega", r"\lambda", r"\mu", r"\tau", r"\rho", r"\gamma"]
BOLD = [r"\mathbf{a}", r"\mathbf{b}", r"\mathbf{i}", r"\mathbf{j}", r"\mathbf{u}"]
INDEXED = ["x_1", "x_2", "C_1", "C_2", "v_0", "x_{12}", "a_n", "m_1"]
HALF = num(Fraction(1, 2))


def names(rng: random.Random, count: int) -> list[Tree]:
    if rng.random() < 0.3:
        return [var(v) for v in ["x", "y", "z"][:count]]
    pool = rng.sample(LETTERS, 4) + rng.sample(GREEK, 1) + rng.sample(INDEXED, 1)
    return [var(v) for v in rng.sample(pool, count)]


def small(rng: random.Random, lowest: int = 1, highest: int = 9) -> int:
    """A small integer other than zero."""
    return rng.choice([n for n in range(lowest, highest + 1) if n])


def pair_of(make: Callable, digits: int = 50) -> Callable:
    """Makes a kind from a maker of trees: rng -> a tree, or a tuple of trees that are equal by an identity."""

    def kind(rng: random.Random, equal: bool) -> tuple[Tree, Tree] | None:
        made = make(rng)
        forms = list(made) if isinstance(made, tuple) else [made]
        first, second = rng.choice(forms), rng.choice(forms)
        second = rewrite(second, rng) if equal else change(second, rng)
        if not equal and rng.random() < 0.4:
            second = rewrite(second, rng)
        return (first, second) if compare(first, second, digits) is equal else None

    kind.__name__ = make.__name__
    return kind


# --- makers ----------------------------------------------------------------------------------------------------------


def surd(rng):
    a, b, c = small(rng, -9), small(rng, 2), rng.choice([2, 3, 5, 6, 7, 10, 11, 13])
    k = small(rng, 2, 5)
    return rng.choice(
        [
            (b * root(c), root(b * b * c)),
            (num(a) / root(c), num(a) * root(c) / c),
            (num(a) + b * root(c)) / k,
            (num(1) / (root(c) - 1), (root(c) + 1) / (c - 1)),
            (root(num(1 + c) + 2 * root(c)), 1 + root(c)),
            root(num(a * a) + root(c)),
            (root(k**3 * c, 3), k * root(c, 3)),
            (root(c) + root(k * k * c), (k + 1) * root(c)),
            ((a + root(c)) ** 2, num(a * a + c) + 2 * a * root(c)) if a > 0 else root(c) - root(c + 1),
        ]
    )


def power(rng):
    n, k, b = rng.randint(20, 300), small(rng, 2, 7), small(rng, 2, 9)
    factorial = Tree("fact", (num(rng.randint(5, 60)),))
    huge = num(1) / (2 * tree(3) ** rng.randint(300, 2005))
    return rng.choice(
        [
            tree(b) ** n,
            tree(b) ** n - k,
            (tree(b) ** (n // 4), num(b ** (n // 4))),
            (factorial, num(math.factorial(int(factorial.args[0].leaf)))),
            num(1) / tree(b) ** n,
            HALF + huge,
            HALF - huge,
            (tree(2) ** n + 1) / (3 * tree(2) ** (n + 1)),
            factorial,
            num(1) / factorial,
            factorial / (Tree("fact", (num(k),)) * tree(2) ** k),
            Tree("binom", (num(rng.randint(8, 90)), num(k))),
            k * tree(10) ** n + 1,
            (tree(b) ** k * tree(b + 1) ** n, tree(b) ** k * tree(b + 1) ** n),
            (tree(b) ** (2 * n), tree(b * b) ** n),
        ]
    )


def constant(rng):
    a, b, c = small(rng), small(rng, 2), small(rng, 2)
    q = num(Fraction(a, b))
    return rng.choice(
        [
            (q * PI, PI * a / b),
            (1 - num(1) / EULER**b, 1 - EULER**-b),
            (log(2, a + 2), fn("ln", a + 2) / fn("ln", 2)),
            (fn("ln", a * b + a), fn("ln", a) + fn("ln", b + 1)) if a > 1 else fn("ln", b),
            (b * fn("ln", c), fn("ln", c**b)),
            (fn("sin", PI / 3), root(3) / 2),
            (fn("cos", PI / 5), (1 + root(5)) / 4),
            (fn("tan", PI / 8), root(2) - 1),
            (fn("arctan", 1) + a, PI / 4 + a),
            PI**2 / (6 * b) + a,
            EULER**PI - PI,
            fn("ln", b) + q * PI,
            num(a) * fn("cos", num(b)) + fn("sin", num(c)),
        ]
    )


def complex_number(rng):
    a, b, c, d = (small(rng, -9) for _ in range(4))
    z, w = num(a) + num(b) * IMAGINARY, num(c) + num(d) * IMAGINARY
    re, im, norm = a * c - b * d, a * d + b * c, c * c + d * d
    return rng.choice(
        [
            z,
            (num(a) + num(b) * root(3) * IMAGINARY, num(a) + num(b) * IMAGINARY * root(3)),
            (z * w, num(re) + num(im) * IMAGINARY),
            (z**2, num(a * a - b * b) + num(2 * a * b) * IMAGINARY),
            (z / w, num(Fraction(a * c + b * d, norm)) + num(Fraction(b * c - a * d, norm)) * IMAGINARY),
            (num(a) + num(b) * IMAGINARY) / abs(d or 1),
        ]
    )


def polynomial(rng):
    vs = names(rng, rng.choice([1, 1, 2, 2, 3]))
    x, y = vs[0], vs[-1]
    a, b, c, k = (small(rng, -7) for _ in range(4))
    q = num(Fraction(small(rng), small(rng, 2, 8)))
    if len(vs) == 1:
        return rng.choice(
            [
                ((x - a) * (x - b), x**2 - (a + b) * x + a * b),
                (a * x**3 + b * x**2 + c * x + k, x * (x * (a * x + b) + c) + k),
                ((x + a) ** 2 + k, x**2 + 2 * a * x + (a * a + k)),
                (q * x**2 + b * x + c, x * (q * x + b) + c),
                ((x - a) ** 3, x**3 - 3 * a * x**2 + 3 * a * a * x - a**3),
                (x**4 - a**4, (x**2 + a * a) * (x - a) * (x + a)),
            ]
        )
    z = vs[1] if len(vs) == 3 else x
    v, w = map(var, rng.sample(BOLD, 2))
    return rng.choice(
        [
            (a * x + b * y, b * y + a * x),
            (a * v + q * w, q * w + a * v),
            ((a * x + b * y) ** 2, a * a * x**2 + 2 * a * b * x * y + b * b * y**2),
            ((x - y) * (x + y) + c * z, x**2 - y**2 + c * z),
            (a * x * y + b * x + k, x * (a * y + b) + k),
            (q * x**2 * y - c * z, x * y * q * x - z * c),
            ((x + a) * (y + b), x * y + b * x + a * y + a * b),
        ]
    )


def rational(rng):
    x, y = names(rng, 2)
    a, b, c = (small(rng) for _ in range(3))
    b += a == b
    return rng.choice(
        [
            (num(1) / (x - a) + num(1) / (x - b), (2 * x - (a + b)) / ((x - a) * (x - b))),
            ((x + a) / c, x / c + num(Fraction(a, c))),
            ((x**2 - a * a) / (x * (x - a)), 1 + num(a) / x),
            (x / (x + y) + c, (x * (c + 1) + c * y) / (x + y)),
            (num(a) / (x * (x + a)), num(1) / x - num(1) / (x + a)),
            (a * x * y / (x + b * y), num(a) / (num(1) / y + num(b) / x)),
            num(1) / (a * x**2 + b * y * x + c),
        ]
    )


def roots_and_exponentials(rng):
    x, y, z = names(rng, 3)
    a, b = small(rng), small(rng, 2)
    q = num(Fraction(a, b))
    return rng.choice(
        [
            (b * root(x + a), root(b * b * x + b * b * a)),
            (x / root(x**2 + a), x * root(x**2 + a) / (x**2 + a)),
            (EULER ** (a * x + y), EULER ** (a * x) * EULER**y),
            (a * EULER ** (-b * x) + y, y + num(a) / EULER ** (b * x)),
            z * (1 - EULER ** (-x / y)),
            (q * PI * x**2 * y, x * y * PI * x * a / b),
            (2 * PI * root(x / y) + z, z + PI * root(4 * x / y)),
            (x + a) ** 2 * EULER**-x + root(y),
            (fn("ln", (x**2 + 1) ** b), b * fn("ln", x**2 + 1)),
            x ** num(Fraction(a, 2)) * y - root(z),
            (x**-2 * y + z, y / x**2 + z),
            root(x**2 + b * y**2),
        ]
    )


def trigonometric(rng):
    x, y, z = names(rng, 3)
    a, b = small(rng), small(rng, 2)
    sin, cos, tan = (lambda t, f=f: fn(f, t) for f in ("sin", "cos", "tan"))
    return rng.choice(
        [
            (sin(x) ** 2 + a, a + 1 - cos(x) ** 2),
            (tan(y) ** 2 + 1, fn("sec", y) ** 2),
            (sin(2 * x), 2 * sin(x) * cos(x)),
            (cos(2 * x) + y, 1 - 2 * sin(x) ** 2 + y),
            (sin(x + y), sin(x) * cos(y) + cos(x) * sin(y)),
            (z * cos(a * x + PI / 2), -z * sin(a * x)),
            (x * cos(b * y) + z, z + cos(b * y) * x),
            (root(2) * cos(x - PI / 4), sin(x) + cos(x)),
            (y * sin(x) * cos(x) + a, y * sin(2 * x) / 2 + a),
            x * cos(a * y) + z * y,
            fn("arctan", x / a) + b * y,
            EULER ** (-a * x) * (y * cos(b * x) + z * sin(b * x)),
        ]
    )


EXPRESSIONS = {
    "surd": pair_of(surd),
    "power or factorial": pair_of(power, digits=6000),
    "constant": pair_of(constant),
    "complex": pair_of(complex_number),
    "polynomial": pair_of(polynomial),
    "rational function": pair_of(rational),
    "root or exponential": pair_of(roots_and_exponentials),
    "trigonometric": pair_of(trigonometric),
}
