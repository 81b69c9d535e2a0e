"""Text mazes, generated: sizes, walls and path lengths are drawn. `rlvr_trl.mazes` has the rules."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
from datasets import Dataset

from ..mazes import END, FREE, START, WALL, format_maze, parse_maze, shortest_paths


PROMPT_STYLES = ("instruct", "bare")
# Draws that may fail in a row for one maze before the settings are taken to leave too few mazes.
MAX_ATTEMPTS = 20_000

INSTRUCTIONS = """\
Below is a maze of {size} rows and {size} columns. `S` marks the start, `E` the end, `.` a free cell and `*` a wall.

{maze}

Find a path from `S` to `E`. A move goes to a neighbouring cell: U (up), D (down), L (left) or R (right). The path must
stay inside the maze and must not enter a wall. You may think first; then write the moves as a string of these letters
inside <answer> and </answer>, for example <answer>RRDL</answer>."""


def make_maze_dataset(
    num_mazes: int,
    size: int | Sequence[int] = 4,
    *,
    border: bool = False,
    wall_probability: float = 0.3,
    min_path_length: int = 2,
    max_path_length: int | None = 6,
    prompt_style: str = "instruct",
    seed: int = 0,
    exclude: Iterable[str] | Dataset | None = None,
) -> Dataset:
    """
    Generates distinct mazes, each with a shortest path of a drawn length.

    The size and the path length of every maze are drawn uniformly *before* its walls, and kept until a maze of that
    size and length is found. Walls that allow no such path are drawn again, so the share of walls among the cells is a
    little below `wall_probability`.

    Args:
        num_mazes (`int`):
            Number of mazes, all different.
        size (`int` or sequence of `int`, *optional*, defaults to `4`):
            Rows (and columns) of a maze, border included. From a sequence, each maze draws its size uniformly.
        border (`bool`, *optional*, defaults to `False`):
            Whether the outermost ring of cells is wall.
        wall_probability (`float`, *optional*, defaults to `0.3`):
            Probability that a cell inside the border is drawn as a wall, in [0, 1).
        min_path_length (`int`, *optional*, defaults to `2`):
            Smallest length of the shortest path from S to E, in moves.
        max_path_length (`int` or `None`, *optional*, defaults to `6`):
            Largest length of the shortest path. With `None` there is no limit: E is drawn uniformly among the cells
            that are at least `min_path_length` moves away from S, and the lengths are not uniform.
        prompt_style (`str`, *optional*, defaults to `"instruct"`):
            `"instruct"` gives a conversational prompt that explains the task, `"bare"` the maze alone with a newline
            after every row.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the generator. The same arguments give the same mazes.
        exclude (iterable of `str` or [`~datasets.Dataset`], *optional*):
            Mazes that must not be generated, as texts or as a dataset with a `maze` column. This is how a training
            set is kept disjoint from a test set.

    Returns:
        [`~datasets.Dataset`]: `num_mazes` rows with the columns `prompt`, `maze` (text), `size`, `shortest_path` (a
        string over UDLR) and `path_length` (moves).

    Raises:
        ValueError: If an argument is impossible, or if fewer than `num_mazes` mazes were found.

    Example:
    ```python
    >>> test = make_maze_dataset(200, size=4, prompt_style="bare", seed=1)
    >>> train = make_maze_dataset(5_000, size=4, prompt_style="bare", seed=0, exclude=test)
    ```
    """
    sizes = [size] if isinstance(size, int | np.integer) else list(size)
    _check_maze_settings(num_mazes, sizes, border, wall_probability, min_path_length, max_path_length, prompt_style)
    rng = np.random.default_rng(seed)
    draw = partial(_draw_maze, rng, border=border, wall_probability=wall_probability)
    taken = excluded_texts("maze", exclude, parse_maze)

    rows = []
    for _ in range(num_mazes):
        n = int(rng.choice(sizes))
        shortest, longest = min_path_length, max_path_length
        if max_path_length is not None:
            shortest = longest = int(rng.integers(min_path_length, max_path_length + 1))
        drawn = _draw_untaken(partial(draw, n, shortest, longest), taken)
        if drawn is None:
            raise ValueError(
                f"found {len(rows)} of num_mazes={num_mazes} mazes: {MAX_ATTEMPTS} draws in a row gave no new maze of "
                f"size={n} with a shortest path of {_describe_lengths(shortest, longest)} moves "
                f"(wall_probability={wall_probability}, border={border}). Lower num_mazes or the path lengths, raise "
                "size, or change wall_probability."
            )
        maze, path = drawn
        taken.add(maze)
        prompt = make_prompt(maze, prompt_style)
        rows.append({"prompt": prompt, "maze": maze, "size": n, "shortest_path": path, "path_length": len(path)})
    return Dataset.from_list(rows)


def make_prompt(maze: str, prompt_style: str = "instruct") -> str | list[dict[str, str]]:
    """
    The prompt of a maze: a list with one user message for `"instruct"`, the rows of the maze for `"bare"`.
    """
    if prompt_style == "bare":
        return maze + "\n"
    if prompt_style == "instruct":
        return [{"role": "user", "content": INSTRUCTIONS.format(size=maze.count("\n") + 1, maze=maze)}]
    raise ValueError(f"prompt_style={prompt_style!r} is unknown; use one of {PROMPT_STYLES}")


def _draw_untaken(draw: Callable[[], tuple[str, str] | None], taken: set[str]) -> tuple[str, str] | None:
    """Calls `draw` until it gives a maze that is not taken, or `None` after too many attempts."""
    for _ in range(MAX_ATTEMPTS):
        drawn = draw()
        if drawn is not None and drawn[0] not in taken:
            return drawn
    return None


def _draw_maze(
    rng: np.random.Generator, size: int, shortest: int, longest: int | None, *, border: bool, wall_probability: float
) -> tuple[str, str] | None:
    """One maze and its shortest path, or `None` if no cell lies at the wanted distance from the drawn S."""
    inner = size - 2 * border
    symbols = np.full((size, size), WALL)
    ring = slice(int(border), size - int(border))
    symbols[ring, ring] = np.where(rng.random((inner, inner)) < wall_probability, WALL, FREE)
    start = tuple((rng.integers(inner, size=2) + border).tolist())
    rows = symbols.tolist()
    rows[start[0]][start[1]] = START

    paths = shortest_paths(rows, start, max_length=longest)
    ends = [cell for cell, path in paths.items() if len(path) >= shortest]
    if not ends:
        return None
    end = ends[rng.integers(len(ends))]
    rows[end[0]][end[1]] = END
    return format_maze(rows), paths[end]


def _check_maze_settings(num_mazes, sizes, border, wall_probability, min_path_length, max_path_length, prompt_style):
    if num_mazes < 1:
        raise ValueError(f"num_mazes must be at least 1, found {num_mazes}")
    smallest_allowed = 4 if border else 2
    if not sizes or min(sizes) < smallest_allowed:
        raise ValueError(f"size must be at least {smallest_allowed} with border={border}, found {sizes}")
    if not 0 <= wall_probability < 1:
        raise ValueError(f"wall_probability must be in [0, 1), found {wall_probability}")
    if min_path_length < 1:
        raise ValueError(f"min_path_length must be at least 1, found {min_path_length}")
    if max_path_length is not None and max_path_length < min_path_length:
        raise ValueError(
            f"max_path_length must be at least min_path_length={min_path_length}, found {max_path_length}"
        )
    # The smallest size counts, because every drawn length must exist in every drawn size.
    limit = _longest_conceivable_path(min(sizes) - 2 * border, wall_probability)
    name, longest = ("min", min_path_length) if max_path_length is None else ("max", max_path_length)
    if longest > limit:
        raise ValueError(
            f"{name}_path_length must be at most {limit} with size={min(sizes)}, border={border} and "
            f"wall_probability={wall_probability}, found {longest}"
        )
    if prompt_style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style={prompt_style!r} is unknown; use one of {PROMPT_STYLES}")


def _longest_conceivable_path(inner: int, wall_probability: float) -> int:
    """An upper bound on the length of a shortest path among `inner` x `inner` cells."""
    if wall_probability == 0:
        return 2 * (inner - 1)
    # A shortest path holds at most 3 cells of any 2x2 block: with all 4 it would have a shortcut.
    blocks = (inner // 2) ** 2
    return inner**2 - blocks - 1


def excluded_texts(column: str, exclude: Iterable[str] | Dataset | None, check: Callable[[str], object]) -> set[str]:
    """The problems to exclude. Each is checked: a prompt given by mistake would exclude nothing, in silence."""
    if exclude is None:
        return set()
    if isinstance(exclude, Dataset):
        if column not in exclude.column_names:
            raise ValueError(f"exclude must have a `{column}` column, found the columns {exclude.column_names}")
        exclude = exclude[column]
    if isinstance(exclude, str):
        raise ValueError(f"exclude must be an iterable of {column} texts or a Dataset, found a single string")
    texts = list(exclude)
    for text in texts:
        check(text)
    return set(texts)


def _describe_lengths(shortest: int, longest: int | None) -> str:
    return f"at least {shortest}" if longest is None else str(shortest)
