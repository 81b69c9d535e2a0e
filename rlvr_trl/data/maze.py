"""
Text mazes: generated, with sizes, walls and path lengths that are drawn, or read from a published set.

The rules are those of `rlvr_trl.mazes`.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from datasets import Dataset

from ..checks import check_share
from ..mazes import END, FREE, START, WALL, format_maze, parse_maze, shortest_path, shortest_paths
from .reading import check_columns, read_rows


PUBLISHED_MAZES = "RUC-AIBOX/Passk_Training_Maze"
PROMPT_STYLES = ("instruct", "paper", "bare")
# What becomes a wall, and with which probability unless another is given
WALL_STYLES = {"independent": 0.3, "lattice": 0.2}
# Draws that may fail in a row for one maze before the settings are taken to leave too few mazes.
MAX_ATTEMPTS = 20_000

INSTRUCTIONS = """\
Below is a maze of {size} rows and {size} columns. `S` marks the start, `E` the end, `.` a free cell and `*` a wall.

{maze}

Find a path from `S` to `E`. A move goes to a neighbouring cell: U (up), D (down), L (left) or R (right). The path must
stay inside the maze and must not enter a wall. You may think first; then write the moves as a string of these letters
inside <answer> and </answer>, for example <answer>RRDL</answer>."""
# As printed in Fig. 14 of Pass@k Training (arXiv 2508.10751)
PAPER_INSTRUCTIONS = """\
You need to solve the following maze.

'*' denotes the wall that you cannot walk through, '.' denotes available area that you can walk through. 'S' denotes \
the starting point, 'E' denotes the destination.

You need to start from the starting point and cross through the available area to reach the destination. There are \
four movement actions, including Left, Right, Up, Down.

You need to use L to denote Left movement, R to denote Right movement, U to denote Up movement, and D to denote Down \
movement.

You can analysis the maze to find the correct path, and you should write the final path in the <answer> </answer>, \
e.g., <answer> LLRRDUL </answer>.

```
## Maze
{maze}
```

Now try to analyze the maze and put the final path in the <answer> </answer>."""


def make_maze_dataset(
    num_mazes: int,
    size: int | Sequence[int] = 4,
    *,
    border: bool = False,
    walls: str = "independent",
    wall_probability: float | None = None,
    min_path_length: int = 2,
    max_path_length: int | None = 6,
    prompt_style: str = "instruct",
    seed: int = 0,
    exclude: Iterable[str] | Dataset | None = None,
) -> Dataset:
    """
    Generates distinct mazes, each with a shortest path of a drawn length.

    The size and the path length of every maze are drawn uniformly *before* its walls, and kept until a maze of that
    size and length is found. Walls that allow no such path are drawn again, so that independent walls are a little
    rarer than `wall_probability`.

    A `"lattice"` is like the maze in Fig. 14 of Pass@k Training (arXiv 2508.10751): rooms in every second row and
    column, pillars between them, and a wall or a passage between two neighbouring pillars. Walls never close a ring,
    so that every room can be reached, and with `wall_probability=1` there is one path. S and E are rooms, hence all
    path lengths are even. The paper does not say how its walls were drawn; 4 of the 24 places for a wall in Fig. 14
    have one (and one of its nine pillars is missing, here none).

    Args:
        num_mazes (`int`):
            Number of mazes, all different.
        size (`int` or sequence of `int`, *optional*, defaults to `4`):
            Rows (and columns) of a maze, border included. From a sequence, each maze draws its size uniformly.
        border (`bool`, *optional*, defaults to `False`):
            Whether the outermost ring of cells is wall.
        walls (`str`, *optional*, defaults to `"independent"`):
            `"independent"`: each cell is a wall or not, whatever the others are. `"lattice"`: see above; it needs
            odd sizes from 5 on and a border.
        wall_probability (`float`, *optional*):
            Probability that a cell inside the border is drawn as a wall, in [0, 1), by default 0.3. Of a lattice, that
            two neighbouring pillars have a wall between them, unless it closed a ring, in [0, 1], by default 0.2.
        min_path_length (`int`, *optional*, defaults to `2`):
            Smallest length of the shortest path from S to E, in moves.
        max_path_length (`int` or `None`, *optional*, defaults to `6`):
            Largest length of the shortest path. With `None` there is no limit: E is drawn uniformly among the cells
            that are at least `min_path_length` moves away from S, and the lengths are not uniform.
        prompt_style (`str`, *optional*, defaults to `"instruct"`):
            `"instruct"` gives a conversational prompt that explains the task, `"paper"` the one that Pass@k Training
            prints, `"bare"` the maze alone with a newline after every row.
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
    if walls not in WALL_STYLES:
        raise ValueError(f"walls={walls!r} is unknown; use one of {tuple(WALL_STYLES)}")
    wall_probability = WALL_STYLES[walls] if wall_probability is None else wall_probability
    if num_mazes < 1:
        raise ValueError(f"num_mazes must be at least 1, found {num_mazes}")
    if prompt_style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style={prompt_style!r} is unknown; use one of {PROMPT_STYLES}")
    _check_sizes(sizes, border, walls, wall_probability)
    _check_path_lengths(sizes, border, walls, wall_probability, min_path_length, max_path_length)
    rng = np.random.default_rng(seed)
    draw_walls = partial(_draw_lattice, rng) if walls == "lattice" else partial(_draw_independent, rng, border)
    draw = partial(_draw_maze, rng, partial(draw_walls, wall_probability))
    taken = excluded_texts("maze", exclude, parse_maze)

    rows = []
    for _ in range(num_mazes):
        n = int(rng.choice(sizes))
        shortest, longest = min_path_length, max_path_length
        if max_path_length is not None:
            step = 2 if walls == "lattice" else 1
            first = -(-min_path_length // step)
            shortest = longest = step * int(rng.integers(first, max_path_length // step + 1))
        drawn = _draw_untaken(partial(draw, n, shortest, longest), taken)
        if drawn is None:
            raise ValueError(
                f"found {len(rows)} of num_mazes={num_mazes} mazes: {MAX_ATTEMPTS} draws in a row gave no new maze of "
                f"size={n} with a shortest path of {_describe_lengths(shortest, longest)} moves "
                f"(walls={walls!r}, wall_probability={wall_probability}, border={border}). Lower num_mazes or the "
                "path lengths, raise size, or change wall_probability."
            )
        maze, path = drawn
        taken.add(maze)
        rows.append(_row(make_prompt(maze, prompt_style), maze, path))
    return Dataset.from_list(rows)


def _row(prompt: str | list[dict[str, str]], maze: str, path: str) -> dict:
    size = maze.count("\n") + 1
    return {"prompt": prompt, "maze": maze, "size": size, "shortest_path": path, "path_length": len(path)}


def load_mazes(path_or_id: str | Path = PUBLISHED_MAZES, split: str = "train", *, distinct: bool = True) -> Dataset:
    """
    Loads mazes in the form in which those of Pass@k Training (arXiv 2508.10751) are published, that of verl.

    Args:
        path_or_id (`str` or `Path`, *optional*, defaults to `"RUC-AIBOX/Passk_Training_Maze"`):
            A file, a folder or an id of the Hub with the columns `prompt`, of messages, and `reward_model`, whose
            `ground_truth` is the maze. Where it is not, the maze is looked for in the prompt.
        split (`str`, *optional*, defaults to `"train"`):
            Split of a folder or of a dataset of the Hub; a file has none.
        distinct (`bool`, *optional*, defaults to `True`):
            Whether only the first of equal mazes is kept.

    Returns:
        [`~datasets.Dataset`]: the columns of [`make_maze_dataset`], with the prompts of the set.

    Raises:
        ValueError: There is no such file or folder, it has not these columns, or a row has no maze or one without a
            path.
    """
    rows = read_rows(path_or_id, (), split, has_configs=True)
    check_columns(rows, ("prompt", "reward_model"), "A set of mazes", path_or_id)
    found: dict[str | int, dict] = {}
    for index, row in enumerate(map(dict, rows)):
        try:
            maze = _maze_of(row)
            path = shortest_path(maze)
            if path is None:
                raise ValueError("its maze has no path from S to E")
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            what = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"Row {index} of {path_or_id} is not as expected: {what}") from error
        found.setdefault(maze if distinct else index, _row(row["prompt"], maze, path))
    return Dataset.from_list(list(found.values()))


def _maze_of(row: dict) -> str:
    """The maze of a row of a published set."""
    text = row["reward_model"]["ground_truth"]
    if isinstance(text, str) and re.search("[SE]", text):
        maze = "\n".join(text.split())
    else:  # the last block of lines of symbols
        prompt = row["prompt"] if isinstance(row["prompt"], str) else row["prompt"][-1]["content"]
        lines = [line.strip() for line in prompt.split("\n")]
        symbols = {WALL, FREE, START, END}
        grouped = groupby(lines, lambda line: len(line) > 1 and set(line) <= symbols)
        blocks = ["\n".join(block) for is_maze, block in grouped if is_maze]
        maze = blocks[-1] if blocks else ""
    parse_maze(maze)
    return maze


def make_prompt(maze: str, prompt_style: str = "instruct") -> str | list[dict[str, str]]:
    """
    The prompt of a maze: a list with one user message for `"instruct"`, the rows of the maze for `"bare"`.
    """
    if prompt_style not in PROMPT_STYLES:
        raise ValueError(f"prompt_style={prompt_style!r} is unknown; use one of {PROMPT_STYLES}")
    if prompt_style == "bare":
        return maze + "\n"
    text = INSTRUCTIONS if prompt_style == "instruct" else PAPER_INSTRUCTIONS
    return [{"role": "user", "content": text.format(size=maze.count("\n") + 1, maze=maze)}]


def _draw_untaken(draw: Callable[[], tuple[str, str] | None], taken: set[str]) -> tuple[str, str] | None:
    """Calls `draw` until it gives a maze that is not taken, or `None` after too many attempts."""
    for _ in range(MAX_ATTEMPTS):
        drawn = draw()
        if drawn is not None and drawn[0] not in taken:
            return drawn
    return None


def _draw_maze(
    rng: np.random.Generator, draw_walls: Callable, size: int, shortest: int, longest: int | None
) -> tuple[str, str] | None:
    """One maze and its shortest path, or `None` if no cell lies at the wanted distance from the drawn S."""
    rows, start, is_room = draw_walls(size)
    rows[start[0]][start[1]] = START

    paths = shortest_paths(rows, start, max_length=longest)
    ends = [cell for cell, path in paths.items() if len(path) >= shortest and is_room(cell)]
    if not ends:
        return None
    end = ends[rng.integers(len(ends))]
    rows[end[0]][end[1]] = END
    return format_maze(rows), paths[end]


def _draw_independent(rng: np.random.Generator, border: bool, wall_probability: float, size: int):
    """Walls, a start, which may be drawn on a wall, and which cells may be ends: all."""
    inner = size - 2 * border
    symbols = np.full((size, size), WALL)
    ring = slice(int(border), size - int(border))
    symbols[ring, ring] = np.where(rng.random((inner, inner)) < wall_probability, WALL, FREE)
    start = tuple((rng.integers(inner, size=2) + border).tolist())
    return symbols.tolist(), start, lambda cell: True


def _draw_lattice(rng: np.random.Generator, wall_probability: float, size: int):
    """Walls, a start, and which cells may be ends: the rooms, in odd rows and columns."""
    rows = [[FREE] * size for _ in range(size)]
    for i in range(size):
        rows[i][0] = rows[i][-1] = rows[0][i] = rows[-1][i] = WALL
    pillars = [(i, j) for i in range(2, size - 1, 2) for j in range(2, size - 1, 2)]
    group = {(i, j): (i, j) for i, j in pillars}  # union-find; the border is the group of all other even cells

    def root(cell: tuple[int, int]) -> tuple[int, int]:
        while (above := group.get(cell, (0, 0))) != cell and cell != (0, 0):
            cell = above
        return cell

    for i, j in pillars:
        rows[i][j] = WALL
    places = [(i, j) for i in range(1, size - 1) for j in range(1, size - 1) if (i + j) % 2]
    for place, is_wall in zip(rng.permutation(len(places)), rng.random(len(places)) < wall_probability, strict=True):
        i, j = places[place]
        ends = [(i, j - 1), (i, j + 1)] if i % 2 == 0 else [(i - 1, j), (i + 1, j)]
        first, second = map(root, ends)
        if is_wall and first != second:
            rows[i][j] = WALL
            group[max(first, second)] = min(first, second)
    start = tuple((2 * rng.integers(size // 2, size=2) + 1).tolist())
    return rows, start, lambda cell: cell[0] % 2 == cell[1] % 2 == 1


def _check_sizes(sizes: list[int], border: bool, walls: str, wall_probability: float) -> None:
    if walls == "lattice":
        if not border:
            raise ValueError("walls='lattice' has a border: border must be True, found False")
        if not sizes or any(size < 5 or size % 2 == 0 for size in sizes):
            raise ValueError(f"size must be odd and at least 5 with walls='lattice', found {sizes}")
        check_share("wall_probability", wall_probability)
        return
    smallest_allowed = 4 if border else 2
    if not sizes or min(sizes) < smallest_allowed:
        raise ValueError(f"size must be at least {smallest_allowed} with border={border}, found {sizes}")
    if not 0 <= wall_probability < 1:
        raise ValueError(f"wall_probability must be in [0, 1), found {wall_probability}")


def _check_path_lengths(
    sizes: list[int], border: bool, walls: str, wall_probability: float, shortest: int, longest: int | None
) -> None:
    if shortest < 1:
        raise ValueError(f"min_path_length must be at least 1, found {shortest}")
    if longest is not None and longest < shortest:
        raise ValueError(f"max_path_length must be at least min_path_length={shortest}, found {longest}")
    if walls == "lattice" and longest is not None and longest // 2 * 2 < shortest:
        raise ValueError(f"path lengths are even with walls='lattice', but min and max_path_length are both {longest}")
    # The smallest size counts, because every drawn length must exist in every drawn size.
    if walls == "lattice":
        limit = 2 * ((min(sizes) // 2) ** 2 - 1)  # through every room
    else:
        limit = _longest_conceivable_path(min(sizes) - 2 * border, wall_probability)
    name, farthest = ("min", shortest) if longest is None else ("max", longest)
    if farthest > limit:
        raise ValueError(
            f"{name}_path_length must be at most {limit} with size={min(sizes)}, border={border}, walls={walls!r} and "
            f"wall_probability={wall_probability}, found {farthest}"
        )


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
