"""
The rules of text mazes, a task with exactly one kind of right answer, which can be checked without a model.

A maze is a square of symbols whose rows are joined by newlines: `*` a wall, `.` a free cell, `S` the start and `E` the
end. An answer is a string over U, D, L and R (up, down, left, right) that walks from S to E. This is the maze task of
arXiv 2508.10751. Cells are `(row, column)` pairs counted from the upper left corner.
"""

import random
from collections import deque
from collections.abc import Sequence

from .checks import check_share


WALL, FREE, START, END = "*.SE"
MOVES = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}

Cell = tuple[int, int]


def parse_maze(maze: str) -> tuple[list[str], Cell, Cell]:
    """
    Turns the text of a maze into a grid.

    Returns:
        `tuple[list[str], Cell, Cell]`: the rows, and the cells of S and E.

    Raises:
        ValueError: If the text is not a square of the four symbols with exactly one S and one E.
    """
    rows = maze.split("\n") if isinstance(maze, str) else []
    if not rows or any(len(row) != len(rows) for row in rows):
        raise ValueError(f"a maze is n rows of n symbols joined by newlines, found {_shorten(maze)}")
    if set(maze) - {WALL, FREE, START, END, "\n"} or maze.count(START) != 1 or maze.count(END) != 1:
        raise ValueError(f"a maze holds one S, one E, and otherwise only `*` and `.`, found {_shorten(maze)}")
    return rows, _find(rows, START), _find(rows, END)


def format_maze(rows: Sequence[Sequence[str]]) -> str:
    """Turns a grid into the text of a maze. The inverse of [`parse_maze`]."""
    return "\n".join("".join(row) for row in rows)


def step(rows: Sequence[Sequence[str]], cell: Cell, move: str) -> Cell | None:
    """The cell that one move leads to, or `None` if that is a wall or outside the grid."""
    row, column = cell[0] + MOVES[move][0], cell[1] + MOVES[move][1]
    if not (0 <= row < len(rows) and 0 <= column < len(rows[row])) or rows[row][column] == WALL:
        return None
    return row, column


def shortest_paths(rows: Sequence[Sequence[str]], start: Cell, max_length: int | None = None) -> dict[Cell, str]:
    """
    Breadth-first search: one shortest path to every cell that can be reached from `start`, nearest cells first.

    Args:
        rows (`Sequence[Sequence[str]]`):
            The grid. Only walls matter.
        start (`Cell`):
            The cell from which the paths begin; its own path is the empty string.
        max_length (`int`, *optional*):
            Cells farther away than this many moves are left out.

    Returns:
        `dict[Cell, str]`: moves by cell. Among equally short paths, which one is kept depends on the grid alone.
    """
    paths = {start: ""}
    queue = deque([start])
    while queue:
        cell = queue.popleft()
        if max_length is not None and len(paths[cell]) == max_length:
            break  # cells come out of the queue in order of distance: all others are at least as far
        for move in MOVES:
            neighbour = step(rows, cell, move)
            if neighbour is not None and neighbour not in paths:
                paths[neighbour] = paths[cell] + move
                queue.append(neighbour)
    return paths


def shortest_path(maze: str) -> str | None:
    """
    One shortest path from S to E as a string over UDLR, or `None` if E cannot be reached. It is that of
    [`shortest_paths`], found in memory that is linear in the maze.
    """
    rows, start, end = parse_maze(maze)
    arrived: dict[Cell, tuple[str, Cell]] = {start: ("", start)}  # the last move, and from where
    queue = deque([start])
    while queue and end not in arrived:
        cell = queue.popleft()
        for move in MOVES:
            neighbour = step(rows, cell, move)
            if neighbour is not None and neighbour not in arrived:
                arrived[neighbour] = move, cell
                queue.append(neighbour)
    if end not in arrived:
        return None
    moves, cell = [], end
    while cell != start:
        move, cell = arrived[cell]
        moves.append(move)
    return "".join(reversed(moves))


def is_solution(maze: str, moves: str) -> bool:
    """
    Whether the moves lead from S to E without leaving the grid or entering a wall.

    Only the last cell has to be E: a path may cross E and come back.

    Raises:
        ValueError: If `maze` is not a maze (see [`parse_maze`]).
        KeyError: If `moves` holds anything but U, D, L and R.
    """
    rows, cell, end = parse_maze(maze)
    for move in moves:
        cell = step(rows, cell, move)
        if cell is None:
            return False
    return cell == end


class RandomWalks:
    """
    Walks from S to E that are right but not all short: `RandomWalks(maze)(rng)` is the moves of one.

    With probability `random_move_probability` a step is drawn uniformly from the legal moves, otherwise from those
    that begin a shortest path to E. The walk stops on E. A walk of more than `max_moves` moves is drawn again.

    Raises:
        ValueError: If the text is not a maze or has no path of at most `max_moves` moves, or if the probability is
            outside [0, 1].
    """

    def __init__(self, maze: str, random_move_probability: float = 0.25, max_moves: int = 9):
        check_share("random_move_probability", random_move_probability)
        self.random_move_probability, self.max_moves = random_move_probability, max_moves
        rows, self.start, end = parse_maze(maze)
        distance = {cell: len(path) for cell, path in shortest_paths(rows, end).items()}
        if distance.get(self.start, max_moves + 1) > max_moves:
            found = distance.get(self.start, "no")
            raise ValueError(f"a walk has at most {max_moves} moves, found {found} moves from S to E in {maze!r}")
        self.choices = {}  # for each cell but E: the legal moves and those that shorten the way, each with its target
        for cell in distance.keys() - {end}:
            legal = [(move, target) for move in MOVES if (target := step(rows, cell, move)) is not None]
            shortest = [(move, target) for move, target in legal if distance[target] < distance[cell]]
            self.choices[cell] = legal, shortest

    def __call__(self, rng: random.Random) -> str:
        while len(moves := self._walk(rng)) > self.max_moves:
            pass
        return moves

    def _walk(self, rng: random.Random) -> str:
        """One walk to E, cut off once it is too long."""
        cell, moves = self.start, ""
        while cell in self.choices and len(moves) <= self.max_moves:
            legal, shortest = self.choices[cell]
            move, cell = rng.choice(legal if rng.random() < self.random_move_probability else shortest)
            moves += move
        return moves


def _find(rows: list[str], symbol: str) -> Cell:
    return next((i, row.index(symbol)) for i, row in enumerate(rows) if symbol in row)


def _shorten(value, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
