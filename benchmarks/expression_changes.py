"""Rewrites an expression into an equal one, or changes it into an unequal one."""

import random
from fractions import Fraction

from expression_trees import EULER, Tree, flat, fn, log, num, product, root, total, var, variables


# --- equal rewritings ------------------------------------------------------------------------------------------------


def rewrite(t: Tree, rng: random.Random, probability: float = 0.35) -> Tree:
    """An equal tree: some nodes are rewritten by one of the rules below that applies to them."""
    t = Tree(t.op, tuple(rewrite(a, rng, probability) for a in t.args), t.leaf)
    if rng.random() < probability:
        options = [new for rule in RULES if (new := rule(t, rng)) is not None]
        t = rng.choice(options) if options else t
    return t


def split_fraction(t, rng):
    if t.op == "frac" and t.args[0].op == "sum":
        return total(term / t.args[1] for term in flat(t.args[0], "sum"))


def invert(t, rng):
    if t.op == "frac" and t.args[1].op in ("var", "sum"):
        return t.args[0] * t.args[1] ** -1


def widen(t, rng):
    if t.op == "frac":
        k = rng.randint(2, 5)
        return (k * t.args[0]) / (k * t.args[1])


def coefficient_in_front(t, rng):
    if t.op == "frac" and t.args[1].op == "num" and t.args[1].leaf and t.args[0].op != "num":
        return num(1 / t.args[1].leaf) * t.args[0]


def into_fraction(t, rng):
    if t.op == "prod" and t.args[0].op == "num" and t.args[0].leaf.denominator > 1:
        q = t.args[0].leaf
        return (q.numerator * product(t.args[1:])) / q.denominator


def distribute(t, rng):
    if t.op == "prod" and len(t.args) == 2 and t.args[1].op == "sum":
        return total(t.args[0] * term for term in flat(t.args[1], "sum"))


def repeat(t, rng):
    if t.op == "pow" and t.args[1].op == "num" and t.args[1].leaf in (2, 3):
        return t.args[0] * t.args[0] ** (t.args[1].leaf - 1) if t.args[1].leaf == 3 else t.args[0] * t.args[0]


def radical(t, rng):
    if t.op == "root":
        return t.args[0] ** Fraction(1, t.leaf)


def into_root(t, rng):
    if t.op == "prod" and len(t.args) == 2 and t.args[0].op == "num" and t.args[0].leaf > 0 and t.args[1].op == "root":
        inner = t.args[1]
        if inner.args[0].op == "num":
            return root(num(t.args[0].leaf ** inner.leaf * inner.args[0].leaf), inner.leaf)


def split_exponent(t, rng):
    if t.op == "pow" and t.args[0] == EULER and t.args[1].op == "sum":
        return product(EULER**term for term in t.args[1].args)


def quotient_of_functions(t, rng):
    if t.op == "fn" and t.leaf == "tan":
        return fn("sin", t.args[0]) / fn("cos", t.args[0])


def change_base(t, rng):
    if t.op == "log":
        return fn("ln", t.args[1]) / fn("ln", t.args[0])


def factor_number(t, rng):
    if t.op == "num" and t.leaf.denominator == 1 and t.leaf in (6, 10, 15, 14, 21):
        divisor = next(d for d in (2, 3) if t.leaf % d == 0)
        return num(divisor) * num(t.leaf / divisor)


def unroll_factorial(t, rng):
    if t.op == "fact" and t.args[0].op == "num" and t.args[0].leaf > 3:
        return t.args[0] * Tree("fact", (num(t.args[0].leaf - 1),))


def turn_difference(t, rng):
    if t.op == "sum" and len(t.args) == 2:
        return -(-t.args[0] - t.args[1])


RULES = [
    *(split_fraction, invert, widen, coefficient_in_front, into_fraction, distribute, repeat, radical, into_root),
    *(split_exponent, quotient_of_functions, change_base, factor_number, unroll_factorial, turn_difference),
]


# --- changes ---------------------------------------------------------------------------------------------------------


def paths(t: Tree, prefix: tuple = ()):
    yield prefix, t
    for i, a in enumerate(t.args):
        yield from paths(a, (*prefix, i))


def replaced(t: Tree, path: tuple, new: Tree) -> Tree:
    if not path:
        return new
    args = list(t.args)
    args[path[0]] = replaced(args[path[0]], path[1:], new)
    return Tree(t.op, tuple(args), t.leaf)


def renamed(t: Tree, mapping: dict[str, str]) -> Tree:
    if t.op == "var":
        return var(mapping.get(t.leaf, t.leaf))
    return Tree(t.op, tuple(renamed(a, mapping) for a in t.args), t.leaf)


FUNCTION_PAIRS = {"sin": "cos", "cos": "sin", "tan": "sin", "ln": "exp", "exp": "sin", "arctan": "tan", "sec": "cos"}


def change(t: Tree, rng: random.Random) -> Tree:
    """Makes one change: a number by one, a sign, a function, a name, two names exchanged, a term or factor dropped."""
    kinds = list(CHANGES)
    rng.shuffle(kinds)
    for kind in ["number"] * rng.randrange(2) + kinds:
        new = change_names(t, rng, kind) if kind in ("name", "exchange") else change_node(t, rng, CHANGES[kind])
        if new is not None:
            return new
    return t + 1


def change_names(t: Tree, rng: random.Random, kind: str) -> Tree | None:
    used = sorted(variables(t))
    if kind == "name" and used:
        return renamed(t, {rng.choice(used): rng.choice([n for n in ["x", "y", "t", r"\alpha"] if n not in used])})
    if kind == "exchange" and len(used) > 1:
        a, b = rng.sample(used, 2)
        return renamed(t, {a: b, b: a})
    return None


def change_node(t: Tree, rng: random.Random, changed) -> Tree | None:
    places = list(paths(t))
    rng.shuffle(places)
    for path, node in places:
        new = changed(node, rng)
        if new is not None:
            return replaced(t, path, new)
    return None


def other_number(t, rng):
    if t.op == "num":
        return num(t.leaf + rng.choice([-1, 1]))


def other_sign(t, rng):
    if t.op == "sum":
        i = rng.randrange(len(t.args))
        return total(-a if i == j else a for j, a in enumerate(t.args))


def without_last(t, rng):
    if t.op in ("sum", "prod"):
        return Tree(t.op, t.args[:-1]) if len(t.args) > 2 else t.args[0]


def other_function(t, rng):
    if t.op == "fn":
        return fn(OTHER_FUNCTION[t.leaf], t.args[0])
    if t.op == "log":
        return log(t.args[1], t.args[0])


def upside_down(t, rng):
    if t.op == "frac":
        return t.args[1] / t.args[0]


OTHER_FUNCTION = {"sin": "cos", "cos": "sin", "tan": "sin", "ln": "exp", "exp": "sin", "arctan": "tan", "sec": "cos"}
CHANGES = {
    "number": other_number,
    "sign": other_sign,
    "name": None,
    "exchange": None,
    "drop": without_last,
    "function": other_function,
    "inverse": upside_down,
}
