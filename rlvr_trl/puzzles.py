"""
The rules of three small puzzles, which have many right answers each and can be checked without a model, and grids of
colours as text.

- A *sudoku* is a 4x4 grid with some digits given, as 16 characters row by row: 1 to 4, and `.` for an empty cell. An
  answer is the 16 digits of a grid that agrees with them, in which each row, each column and each 2x2 box has all four
  digits. Several grids may agree.
- *Sums* are the four row sums and, in a second line, the four column sums of a 4x4 grid of bits. An answer is the 16
  bits of any grid that has these sums.
- A *countdown* is four digits from 1 to 9 in ascending order, `=`, and a target from 1 to 99. An answer is an
  expression over +, - and *, without brackets, that uses each of the digits once and has the value of the target.
"""

import random
import re
from collections import defaultdict
from collections.abc import Sequence
from functools import cache
from itertools import combinations_with_replacement, permutations, product


LARGEST_TARGET = 99

_SUDOKU = re.compile(r"[1-4.]{16}")
_SUMS = re.compile(r"[0-4]{4}\n[0-4]{4}")
_COUNTDOWN = re.compile(r"([1-9]{4})=([1-9][0-9]?)")


# --- sudoku ---


@cache
def sudoku_grids() -> tuple[str, ...]:
    """All 288 complete 4x4 grids, each as 16 digits."""
    rows = ["".join(row) for row in permutations("1234")]
    bands = [a + b for a in rows for b in rows if not {*a[:2]} & {*b[:2]}]  # two rows whose boxes have all four digits
    grids = [top + bottom for top in bands for bottom in bands]
    return tuple(grid for grid in grids if all(len({*grid[column::4]}) == 4 for column in range(4)))


def draw_sudoku(rng: random.Random) -> str:
    """A sudoku of which 4 to 6 digits are given: their number, their places and the grid are drawn uniformly."""
    grid = rng.choice(sudoku_grids())
    given = rng.sample(range(16), rng.randint(4, 6))
    return "".join(digit if cell in given else "." for cell, digit in enumerate(grid))


def sudoku_solutions(sudoku: str) -> list[str]:
    """All grids that agree with the digits given, in ascending order."""
    given = _given(sudoku)
    return [grid for grid in sudoku_grids() if all(grid[cell] == digit for cell, digit in given)]


def solves_sudoku(sudoku: str, grid: str) -> bool:
    """
    Whether the grid is complete, valid, and has the digits given.

    Raises:
        ValueError: If `sudoku` is not a sudoku.
    """
    given = _given(sudoku)
    return grid in _sudoku_grid_set() and all(grid[cell] == digit for cell, digit in given)


@cache
def _sudoku_grid_set() -> frozenset[str]:
    return frozenset(sudoku_grids())


def _given(sudoku: str) -> list[tuple[int, str]]:
    """The cells that are not empty and their digits."""
    if not isinstance(sudoku, str) or not _SUDOKU.fullmatch(sudoku):
        raise ValueError(f"a sudoku is 16 characters over 1, 2, 3, 4 and `.`, found {sudoku!r}")
    return [(cell, digit) for cell, digit in enumerate(sudoku) if digit != "."]


# --- sums ---


@cache
def grids_by_sums() -> dict[str, list[str]]:
    """All 65,536 grids of bits by their sums, of which there are 16,145."""
    grids = defaultdict(list)
    for bits in product("01", repeat=16):
        grid = "".join(bits)
        grids[sums_of(grid)].append(grid)
    return dict(grids)


def sums_of(grid: str) -> str:
    """The sums of a grid of 16 bits."""
    rows = "".join(str(grid.count("1", 4 * row, 4 * row + 4)) for row in range(4))
    columns = "".join(str(grid[column::4].count("1")) for column in range(4))
    return f"{rows}\n{columns}"


def draw_sums(rng: random.Random) -> str:
    """Sums that some grid has, drawn uniformly."""
    return rng.choice(_all_sums())


def sums_solutions(sums: str) -> list[str]:
    """All grids that have these sums, in ascending order."""
    _check_sums(sums)
    return grids_by_sums().get(sums, [])


def solves_sums(sums: str, grid: str) -> bool:
    """
    Whether a string of bits is a grid with these sums.

    Raises:
        ValueError: If `sums` are not the sums of a grid.
    """
    _check_sums(sums)
    return len(grid) == 16 and sums_of(grid) == sums


def _check_sums(sums: str) -> None:
    if not isinstance(sums, str) or not _SUMS.fullmatch(sums):
        raise ValueError(f"sums are four digits from 0 to 4, a newline and four more, found {sums!r}")


@cache
def _all_sums() -> tuple[str, ...]:
    return tuple(grids_by_sums())


# --- countdown ---


@cache
def expressions_by_countdown() -> dict[str, list[str]]:
    """All expressions by the countdown that they solve, of which there are 10,446."""
    expressions = defaultdict(list)
    for digits in combinations_with_replacement("123456789", 4):
        for a, b, c, d in dict.fromkeys(permutations(digits)):
            for x, y, z in product("+-*", repeat=3):
                expression = a + x + b + y + c + z + d
                value = value_of(expression)
                if 1 <= value <= LARGEST_TARGET:
                    expressions[f"{''.join(digits)}={value}"].append(expression)
    return dict(expressions)


def value_of(expression: str) -> int:
    """The value of digits joined by +, - and *, with the usual precedence."""
    total, term = 0, int(expression[0])
    for operator, digit in zip(expression[1::2], expression[2::2], strict=True):
        if operator == "*":
            term *= int(digit)
        else:
            total += term
            term = int(digit) if operator == "+" else -int(digit)
    return total + term


def draw_countdown(rng: random.Random) -> str:
    """A countdown that has a solution, drawn uniformly."""
    return rng.choice(_all_countdowns())


def countdown_solutions(countdown: str) -> list[str]:
    """All expressions that solve it; none if there is no way to the target."""
    _parse_countdown(countdown)
    return expressions_by_countdown().get(countdown, [])


def solves_countdown(countdown: str, expression: str) -> bool:
    """
    Whether an expression of digits joined by +, - and * uses each digit once and has the value of the target.

    Raises:
        ValueError: If `countdown` is not a countdown.
    """
    digits, target = _parse_countdown(countdown)
    return len(expression) == 7 and sorted(expression[::2]) == digits and value_of(expression) == target


def _parse_countdown(countdown: str) -> tuple[list[str], int]:
    """The digits and the target."""
    match = _COUNTDOWN.fullmatch(countdown) if isinstance(countdown, str) else None
    if match is None or sorted(match[1]) != list(match[1]):
        raise ValueError(
            f"a countdown is four digits from 1 to 9 in ascending order, `=`, and a target from 1 to "
            f"{LARGEST_TARGET}, found {countdown!r}"
        )
    return list(match[1]), int(match[2])


@cache
def _all_countdowns() -> tuple[str, ...]:
    return tuple(expressions_by_countdown())


# --- grids of colours, as in ARC-AGI ---


def as_grid(rows: Sequence[Sequence[int]]) -> str:
    """
    A grid of colours as text: a row on each line, its cells apart.

    Raises:
        ValueError: The rows are not equally long, or a cell is no integer from 0 to 9.
    """
    cells = [cell for row in rows for cell in row]
    if not cells or len({len(row) for row in rows}) > 1 or not all(type(c) is int and 0 <= c <= 9 for c in cells):
        raise ValueError(f"a grid has rows of equally many integers from 0 to 9, found {rows!r:.100}")
    return "\n".join(" ".join(map(str, row)) for row in rows)


def is_grid(text: str) -> bool:
    """Whether a text is a grid as [`as_grid`] writes it."""
    rows = text.split("\n")
    return all(re.fullmatch("[0-9](?: [0-9])*+", row) for row in rows) and len({len(row) for row in rows}) == 1
