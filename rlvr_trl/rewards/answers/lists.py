"""Several answers: lists, sets, tuples, and signs such as ± that stand for two answers."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from .expressions import Expr
from .identity import matrix_of, same_values
from .kinds import Answer, Items, Relation, Text, Value, show
from .real_sets import same_set
from .relations import is_name
from .rules import Verdict, equal


MAX_ITEMS = 100  # of a list whose order does not matter
MAX_SIGNS = 4  # ± in an expression


def expanded(answer: Answer) -> Items:
    r"""The answer as a list in which `\pm 2` is two answers, and "x = 1 or x = 2" is 1 and 2."""
    items = answer.items if isinstance(answer, Items) and answer.left in ("", "\\{") else (answer,)
    found: list[Answer] = []
    for item in items:
        if isinstance(item, Items) and item.left == "":
            found += expanded(item).items
        elif isinstance(item, Value) and any(node.op == "pm" for node in item.expr.walk()):
            found += [Value(expr, item.percent, item.unit) for expr in _signs(item.expr)]
        elif isinstance(item, Items) and any(node.op == "pm" for node in _nodes(item)):
            several = [expanded(one).items for one in item.items]
            found += [Items(one, item.left, item.right) for one in product(*several)]
        elif isinstance(item, Relation) and isinstance(item.sides[-1], Value) and item.signs == ("=",):
            if any(node.op == "pm" for node in item.sides[-1].expr.walk()):
                found += [Relation((item.sides[0], Value(expr)), ("=",)) for expr in _signs(item.sides[-1].expr)]
            else:
                found.append(item)
        else:
            found.append(item)
    pairs = [assigned(item) for item in found]
    names = {pair[0] for pair in pairs if pair is not None}
    if len(names) == 1 and pairs[0] is not None:  # x = 7, 100, and x = 7 or x = 100
        found = [item if pair is None else pair[1] for item, pair in zip(found, pairs, strict=True)]
    left, right = (answer.left, answer.right) if isinstance(answer, Items) else ("", "")
    return Items(tuple(found), left, right)


def _nodes(items: Items) -> Iterator[Expr]:
    """The nodes of all expressions that are items."""
    for item in items.items:
        if isinstance(item, Value):
            yield from item.expr.walk()


def _signs(expr: Expr) -> list[Expr]:
    nodes = [node for node in expr.walk() if node.op == "pm"]
    free = 1 if any(node.name == "∓" for node in nodes) else len(nodes)  # ± and ∓ go together
    if free > MAX_SIGNS:
        return [expr]
    found = []
    for signs in product((1, -1), repeat=free):
        order = iter(signs * (1 if free > 1 else len(nodes)))
        found.append(_with_signs(expr, order))
    return found


def _with_signs(tree: Expr, order) -> Expr:
    if tree.op == "pm":
        sign = next(order) * (1 if tree.name == "±" else -1)
        inner = _with_signs(tree.args[0], order)
        return inner if sign > 0 else Expr("neg", (inner,))
    args = tuple(_with_signs(arg, order) for arg in tree.args)
    return replace(tree, args=args)


def assigned(answer: Answer) -> tuple[str, Answer] | None:
    if isinstance(answer, Relation) and answer.signs == ("=",) and is_name(answer.sides[0]):
        return show(answer.sides[0]), answer.sides[1]
    return None


def same_lists(reference: Items, answer: Items) -> Verdict:
    """Lists and sets: equal in any order if each item occurs equally often in both. A set ignores repetitions."""
    if len(reference.items) > MAX_ITEMS or len(answer.items) > MAX_ITEMS:
        return False
    golds, answers = list(reference.items), list(answer.items)
    if reference.left == answer.left == "\\{":
        golds, answers = _distinct(golds), _distinct(answers)
    if len(golds) != len(answers):
        return False
    for gold in golds:
        same = next((one for one in answers if one == gold), None)
        found = same if same is not None else next((one for one in answers if equal(gold, one)), None)
        if found is None:
            return False
        answers.remove(found)
    return True


def signed_values(reference: Value, answer: Value) -> Verdict:
    r"""Two values, each of which may be two because of a `\pm`."""
    if any(node.op == "pm" for value in (reference, answer) for node in value.expr.walk()):
        return same_lists(expanded(reference), expanded(answer))
    return same_values(reference, answer)


def _distinct(items: list[Answer]) -> list[Answer]:
    kept: list[Answer] = []
    for item in items:
        if not any(equal(item, one) for one in kept):
            kept.append(item)
    return kept


def same_items(reference: Items, answer: Items) -> Verdict:
    inequalities = any(
        isinstance(item, Relation) and item.signs != ("=",) for x in (reference, answer) for item in x.items
    )
    same = same_set(reference, answer) if inequalities else None
    if same is not None:
        return same
    if inequalities and {reference.joined, answer.joined} == {"and", "or"}:
        return False
    if any(one.doubtful for one in (reference, answer)) and any(one.left for one in (reference, answer)):
        return False
    if any(node.op == "pm" for one in (reference, answer) for node in _nodes(one)):
        return same_lists(expanded(reference), expanded(answer))
    if any(one.left not in ("", "\\{") for one in (reference, answer)):
        left, right = _coordinates(reference), _coordinates(answer)
        return left is not None and right is not None and _tuples(left, right)
    several, others = expanded(reference), expanded(answer)
    golds, found = _by_name(several), _by_name(others)
    if golds is None or found is None:
        return same_lists(several, others)
    return golds.keys() == found.keys() and all(equal(value, found[name]) for name, value in golds.items())


def _by_name(items: Items) -> dict[str, Answer] | None:
    """The values of x = 2, y = 3; `None` unless all items are such equations, each for a name of its own."""
    pairs = [pair for pair in map(assigned, items.items) if pair is not None]
    values = dict(pairs)
    return values if len(values) == len(items.items) else None


def _coordinates(items: Items) -> Items | None:
    """(2, 3) for x = 2, y = 3; a tuple as it is; `None` for any other list."""
    if items.left not in ("", "\\{"):
        return items
    values = None if items.left else _by_name(items)
    return None if values is None else Items(tuple(values[name] for name in sorted(values)), "(", ")")


def _tuples(x: Items, y: Items) -> Verdict:
    vectors = len(x.items) > 2 and {x.left + x.right, y.left + y.right} <= {"()", "[]"}
    if len(x.items) != len(y.items) or ((x.left, x.right) != (y.left, y.right) and not vectors):
        return False
    return all(equal(*pair) for pair in zip(x.items, y.items, strict=True))


def items_and_value(items: Items, value: Value, swapped: bool) -> Verdict:
    matrix = matrix_of(value.expr)
    if items.left not in ("", "\\{"):
        if matrix is None or not (len(matrix.args) == 1 or all(len(row.args) == 1 for row in matrix.args)):
            return False
        cells = [Value(cell) for row in matrix.args for cell in row.args]
        return len(cells) == len(items.items) and all(equal(*p) for p in zip(items.items, cells, strict=True))
    if any(node.op == "pm" for node in value.expr.walk()):
        return same_lists(expanded(items), expanded(value))
    if swapped and items.left == "":
        return all_say(value, items)
    several = expanded(items).items
    return len(several) == 1 and equal(several[0], value)


def all_say(reference: Answer, items: Items) -> bool:
    """A single reference, and a list whose items are all equal to it: 1/2, or 0.5."""
    several = expanded(items).items
    return items.left == "" and len(several) <= MAX_ITEMS and all(equal(reference, item) for item in several)


def text_and_items(text: Text, items: Items) -> bool:
    """AC may stand for the options A, C."""
    letters = [item.original for item in items.items if isinstance(item, Text)]
    word = text.original
    return (
        len(letters) == len(items.items) == len(word) > 1
        and word.isupper()
        and set(word) <= set("ABCDEFGHIJ")
        and sorted(word) == sorted(letters)
    )
