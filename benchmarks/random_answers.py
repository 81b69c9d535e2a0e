"""Random pairs of a reference and an answer whose truth is known: half of them equal, half of them not.

    python benchmarks/random_answers.py --pairs 40

prints some. An equal pair comes from a rewriting, an unequal one from one change. Both are confirmed by values
computed here (fractions, or mpmath with at least 50 digits at random points), never by the graders that they measure.
Debatable pairs are left out: converted units, percentages without their sign, repeated members of a set, roots of
products of unknown sign, and decimals of six or more places that are not quite right.
"""

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from expression_trees import PI, Tree, Writer, compare, has_two_readings, num, root
from random_equations import equation, function
from random_expressions import EXPRESSIONS, rewrite
from random_numbers import NUMBERS


@dataclass(frozen=True)
class Pair:
    kind: str
    reference: str
    answer: str
    equal: bool


# --- members ---------------------------------------------------------------------------------------------------------


def member(rng: random.Random, large: bool = False) -> Tree:
    """A random number, as a member of a list or a matrix."""
    whole = rng.randint(100, 999) if large and rng.random() < 0.4 else rng.randint(-12, 20)
    q = Fraction(rng.randint(-9, 9), rng.randint(2, 7))
    return rng.choice([num(whole)] * 5 + [num(q), num(q), root(rng.choice([2, 3, 5])), PI / rng.randint(2, 6)])


def members(rng: random.Random, count: int, large: bool = False) -> list[Tree]:
    """Members that all differ."""
    found: list[Tree] = []
    while len(found) < count:
        new = member(rng, large)
        if all(compare(new, old) is False for old in found):
            found.append(new)
    return found


def same_sequence(first: list[Tree], second: list[Tree]) -> bool:
    return len(first) == len(second) and all(compare(a, b) is True for a, b in zip(first, second, strict=True))


def same_set(first: list[Tree], second: list[Tree]) -> bool:
    return all(any(compare(a, b) is True for b in y) for x, y in ((first, second), (second, first)) for a in x)


def another(rng: random.Random, items: list[Tree]) -> list[Tree]:
    """The same members but for one that is changed."""
    items, i = list(items), rng.randrange(len(items))
    items[i] = rng.choice([items[i] + 1, -items[i], items[i] * 2]) if items[i].op != "num" else num(items[i].leaf + 1)
    return items


def written(rng: random.Random, items: list[Tree], plain: bool = False) -> list[str]:
    write = Writer(rng, plain)
    return [write(t if plain else rewrite(t, rng, 0.1)) for t in items]


def brackets(rng: random.Random, opening: str, text: str, closing: str) -> str:
    left, right = rng.choice([("", ""), ("", ""), (r"\left", r"\right")])
    return f"{left}{opening}{text}{right}{closing}"


INFINITE = Fraction(10**9)

# --- collections -----------------------------------------------------------------------------------------------------


def ordered_tuple(rng, equal):
    first = members(rng, rng.choice([2, 2, 3, 4]))
    second = list(first)
    if not equal:
        second = rng.choice(
            [another(rng, first), first[::-1], first[1:] + first[:1], first[:-1] if len(first) > 2 else first * 2]
        )
    comma = rng.choice([",", ", ", r",\,", " , "])
    texts = (
        "(" + ", ".join(written(rng, first, plain=True)) + ")",
        brackets(rng, "(", comma.join(written(rng, second)), ")"),
    )
    return texts if same_sequence(first, second) is equal else None


def listed(rng, equal):
    """Lists and sets: another order is equal; a changed or missing member is not."""
    first = members(rng, rng.choice([2, 2, 3, 4]), large=True)
    second = rng.sample(first, len(first))
    if not equal:
        second = rng.choice([another(rng, second), second[:-1] if len(second) > 2 else another(rng, second)])
    texts = []
    for plain, items in ((True, first), (False, second)):
        parts = written(rng, items, plain)
        joined = ", ".join(parts)
        last = ", ".join(parts[:-1])
        options = [joined, rf"\{{{joined}\}}", rf"\left\{{ {joined} \right\}}", rf"\{{{','.join(parts)}\}}"]
        options += [rf"{last} \text{{ and }} {parts[-1]}", rf"{last} \text{{ or }} {parts[-1]}"]
        options += (
            [] if plain else [f"x = {joined}", rf"{last}, \text{{ and }} {parts[-1]}" if len(parts) > 2 else joined]
        )
        texts.append(rng.choice(options))
    return tuple(texts) if same_set(first, second) is equal else None


def interval(rng, equal):
    """Intervals and unions, also written as inequalities."""
    points = sorted(rng.sample([Fraction(n, rng.choice([1, 1, 1, 2])) for n in range(-20, 20)], 4))
    if len(set(points)) < 4:
        return None
    pieces = [(points[0], points[1], rng.choice([(0, 0), (0, 1), (1, 0), (1, 1)]))]
    if rng.random() < 0.4:
        pieces.append((points[2], points[3], rng.choice([(0, 0), (0, 1), (1, 0), (1, 1)])))
    if rng.random() < 0.3:
        pieces[0] = (-INFINITE, points[1], (0, pieces[0][2][1]))
    elif rng.random() < 0.3:
        pieces[-1] = (pieces[-1][0], INFINITE, (pieces[-1][2][0], 0))
    other = list(pieces)
    if not equal:
        i = rng.randrange(len(pieces))
        low, high, (left, right) = pieces[i]
        changes = [(low - 1, high, (left, right))] if low != -INFINITE else []
        changes += [(low, high + Fraction(1, 3), (left, right))] if high != INFINITE else []
        changes += [(low, high, (1 - left, right))] if low != -INFINITE else []
        changes += [(low, high, (left, 1 - right))] if high != INFINITE else []
        other[i] = rng.choice(changes)
        if len(pieces) == 2 and rng.random() < 0.2:
            other = pieces[:1]
    if equal or rng.random() < 0.5:
        rng.shuffle(other)
    texts = write_union(rng, pieces, plain=True), write_union(rng, other)
    tests = [p + d for p in (*points, *(p + Fraction(1, 3) for p in points)) for d in (-1, 0, Fraction(1, 9), 1)]
    return (
        texts
        if all(contains(pieces, x) == contains(other, x) for x in [*tests, INFINITE - 1, 1 - INFINITE]) is equal
        else None
    )


def contains(pieces, x: Fraction) -> bool:
    return any(low < x < high or x == low and ends[0] or x == high and ends[1] for low, high, ends in pieces)


def write_union(rng, pieces, plain: bool = False) -> str:
    number = Writer(rng, plain)
    style = "interval" if plain else rng.choice(["interval", "interval", "inequality", "membership"])
    texts = []
    for low, high, ends in pieces:
        low_text = r"-\infty" if low == -INFINITE else number(num(low))
        high_text = r"\infty" if high == INFINITE else number(num(high))
        if style == "inequality":
            below, above = (rng.choice([r"\le ", r"\leq "]) if end else "<" for end in ends)
            left = "" if low == -INFINITE else low_text + below
            right = "" if high == INFINITE else above + high_text
            texts.append(f"{left}x{right}")
        else:
            body = f"{low_text},{rng.choice(['', ' '])}{high_text}"
            texts.append(brackets(rng, "[" if ends[0] else "(", body, "]" if ends[1] else ")"))
    if style == "inequality":
        return r" \text{ or } ".join(texts)
    cup = r"\cup" if plain else rng.choice([r"\cup", r" \cup ", "∪"])
    return (r"x \in " if style == "membership" else "") + cup.join(texts)


def matrix(rng, equal):
    rows, columns = rng.choice([(2, 2), (3, 3), (2, 3), (2, 1), (3, 1), (1, 3)])
    first = [[member(rng) for _ in range(columns)] for _ in range(rows)]
    second = [list(row) for row in first]
    if not equal:
        i = rng.randrange(rows)
        changed = [another(rng, row) if j == i else row for j, row in enumerate(first)]
        others = [changed] + (
            [[list(row) for row in zip(*first, strict=True)], first[::-1]] if columns > 1 and rows > 1 else []
        )
        others += [first[:-1]] if rows > 2 else []
        second = rng.choice(others)
    same = len(first) == len(second) and all(same_sequence(a, b) for a, b in zip(first, second, strict=False))
    return (write_matrix(rng, first, plain=True), write_matrix(rng, second)) if same is equal else None


def write_matrix(rng, rows: list[list[Tree]], plain: bool = False) -> str:
    lines = ["&".join(written(rng, row, plain)) for row in rows]
    body = rng.choice([r"\\", r" \\ "]).join(lines)
    if not plain:
        body = body.replace("&", rng.choice(["&", " & "])) + rng.choice(["", "", r"\\"])
        if rng.random() < 0.2:
            opening, closing = rng.choice([("(", ")"), ("[", "]")])
            columns = "c" * len(rows[0])
            return rf"\left{opening}\begin{{array}}{{{columns}}}{body}\end{{array}}\right{closing}"
    name = "pmatrix" if plain else rng.choice(["pmatrix", "bmatrix"])
    return rf"\begin{{{name}}}{body}\end{{{name}}}"


# --- words -----------------------------------------------------------------------------------------------------------

WORDS = ["even", "odd", "Monday", "Friday", "ellipse", "hyperbola", "circle", "red", "blue", "Alice", "Robert", "yes"]
WORDS += ["right triangle", "no real roots", "north", "southwest", "isosceles", "Evelyn", "neither", "always", "never"]


def text(rng, equal):
    word = rng.choice(WORDS)
    other = word if equal else rng.choice([w for w in WORDS if w != word])
    forms = [r"\text{%s}", r"\text{%s}", "%s", r"\text{ %s }", "%s.", r"\textbf{%s}", r"\mathrm{%s}"]
    forms = forms[:-1] if " " in other else forms
    other = rng.choice([other, other, other.capitalize()])
    return rng.choice(forms[:2] + ["%s"]) % word, rng.choice(forms) % other


def choice(rng, equal):
    letter = rng.choice("ABCDE")
    other = letter if equal else rng.choice([c for c in "ABCDE" if c != letter])
    forms = ["%s", "(%s)", r"\text{%s}", r"\text{(%s)}", r"\textbf{(%s)}", r"\mathrm{(%s)}", r"\textbf{%s}", "%s."]
    return rng.choice(["%s", "(%s)", r"\text{(%s)}", r"\textbf{(%s)}"]) % letter, rng.choice(forms) % other


# --- all kinds -------------------------------------------------------------------------------------------------------


def in_latex(kind: Callable) -> Callable:
    """Turns a kind of trees into a kind of texts."""

    def texts(rng: random.Random, equal: bool) -> tuple[str, str] | None:
        trees = kind(rng, equal)
        if trees is None:
            return None
        written = Writer(rng, plain=True)(trees[0]), Writer(rng)(trees[1])
        return None if any(map(has_two_readings, written)) else written

    return texts


KINDS: dict[str, Callable[[random.Random, bool], tuple[str, str] | None]] = {
    **NUMBERS,
    **{name: in_latex(kind) for name, kind in EXPRESSIONS.items()},
    "equation": equation,
    "function": function,
    "tuple": ordered_tuple,
    "list": listed,
    "interval": interval,
    "matrix": matrix,
    "text": text,
    "choice": choice,
}


def random_pairs(n: int, seed: int) -> Iterator[Pair]:
    """Yields `n` pairs of all kinds in turn, with as many equal as unequal ones of each."""
    rng, kinds = random.Random(seed), list(KINDS)
    for i in range(n):
        kind, equal = kinds[i // 2 % len(kinds)], i % 2 == 0
        texts = None
        while texts is None:
            texts = KINDS[kind](rng, equal)
        yield Pair(kind, *texts, equal)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=2 * len(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for pair in random_pairs(args.pairs, args.seed):
        print(f"{pair.kind:20} {'=' if pair.equal else '≠'}  {pair.reference}   {pair.answer}")


if __name__ == "__main__":
    main()
