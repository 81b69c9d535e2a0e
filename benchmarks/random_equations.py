"""Random pairs of equations and of functions, made of the trees of `random_expressions`."""

import random

import mpmath
from expression_changes import change
from expression_trees import Tree, Writer, has_two_readings, num, total, value, var, variables
from random_expressions import EXPRESSIONS, names, small


SINGLE_VARIABLE = ["polynomial", "rational function", "root or exponential", "trigonometric"]


def curve(rng: random.Random) -> tuple[Tree, Tree]:
    """Both sides of the equation of a line, plane, circle, ellipse or parabola, all of which have many points."""
    x, y, z = names(rng, 3)
    a, b, c, k = (small(rng, -9) for _ in range(4))
    return rng.choice(
        [
            (a * x + b * y, num(c)),
            (y, a * x + b),
            (a * x + b * y + c * z, num(k)),
            (x**2 + y**2, num(small(rng, 2) ** 2)),
            ((x - a) ** 2 + (y - b) ** 2, num(abs(k))),
            (x**2 / small(rng, 2) + y**2 / small(rng, 2), num(1)),
            (y, a * x**2 + b * x + c),
            (a * x**2 + b * y, c * z + k),
        ]
    )


def proportional(first: tuple[Tree, Tree], second: tuple[Tree, Tree]) -> bool:
    """Whether the difference of the sides of one equation is, at random points, a constant multiple of the other's."""
    used = sorted(set().union(*map(variables, (*first, *second))))
    rng, ratios = random.Random(repr(used)), []
    with mpmath.workdps(50):
        for _ in range(4):
            point = {name: mpmath.mpf(rng.randint(1, 10**9)) / 10**8 for name in used}
            a, b = (value(left, point) - value(right, point) for left, right in (first, second))
            ratios.append(a / b if b else mpmath.mpf(0))
        return ratios[0] != 0 and all(abs(r / ratios[0] - 1) < mpmath.mpf(10) ** -30 for r in ratios)


def equation(rng: random.Random, equal: bool) -> tuple[str, str] | None:
    """An equation scaled, with sides exchanged and terms moved; or with one coefficient, sign or name changed."""
    left, right = curve(rng)
    new = (left, right) if equal else (change(left - right, rng), num(0))
    style = rng.choice(["as it is", "exchanged", "scaled", "moved"])
    if style == "exchanged":
        new = new[::-1]
    elif style == "scaled":
        k = rng.choice([-3, -2, -1, 2, 3, 5])
        new = tuple(total(k * term for term in (side.args if side.op == "sum" else (side,))) for side in new)
    elif style == "moved":
        new = (new[0] - new[1], num(0))
    if proportional((left, right), new) is not equal:
        return None
    plain, free = Writer(rng, plain=True), Writer(rng)
    sign = rng.choice(["=", " = "])
    texts = f"{plain(left)}={plain(right)}", f"{free(new[0])}{sign}{free(new[1])}"
    return None if any(map(has_two_readings, texts)) else texts


def function(rng: random.Random, equal: bool) -> tuple[str, str] | None:
    """f(x) = … against another spelling of the right side, with or without the left side."""
    kind = EXPRESSIONS[rng.choice(SINGLE_VARIABLE)]
    pair = kind(rng, equal)
    if pair is None:
        return None
    arguments = sorted(variables(pair[0]))
    if arguments != sorted(variables(pair[1])) or len(arguments) not in (1, 2) or r"\mathbf" in arguments[0]:
        return None
    argument = ",".join(Writer(rng, plain=True)(var(name)) for name in arguments)
    name = rng.choice(["f", "F", "Q"])
    left = f"{name}({argument})="
    second = Writer(rng)(pair[1])
    first = Writer(rng, plain=True)(pair[0])
    if has_two_readings(first) or has_two_readings(second):
        return None
    return left + first, rng.choice([left, left, left.replace("=", " = "), ""]) + second
