"""The maze generator against brute force, and the maze reward against hand-made cases and noise."""

import itertools
import random

import numpy as np
import pytest

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.mazes import format_maze, is_solution, parse_maze, shortest_path, shortest_paths, step
from rlvr_trl.rewards import lenient_maze_reward, maze_reward
from rlvr_trl.rewards.maze import completion_text, extract_moves, extract_tagged_answer


# S . *
# * . .
# * * E
MAZE = "S.*\n*..\n**E"


@pytest.fixture(scope="module")
def mazes():
    return make_maze_dataset(2_000, size=4, prompt_style="bare", seed=0)


def floyd_warshall(maze):
    """Distances between all cells that are not walls, found without a breadth-first search."""
    rows = maze.split("\n")
    cells = [(i, j) for i, row in enumerate(rows) for j, symbol in enumerate(row) if symbol != "*"]
    gaps = np.abs(np.array(cells)[:, None] - np.array(cells)[None]).sum(-1)
    distance = np.where(gaps <= 1, gaps, np.inf)
    for k in range(len(cells)):
        distance = np.minimum(distance, distance[:, k, None] + distance[None, k])
    return cells, distance


def test_columns_and_text(mazes):
    assert mazes.column_names == ["prompt", "maze", "size", "shortest_path", "path_length"]
    for row in mazes.select(range(200)):
        assert row["prompt"] == row["maze"] + "\n" and len(row["prompt"]) == 20
        assert row["size"] == 4 and row["path_length"] == len(row["shortest_path"])
        assert sorted(set(row["maze"]) - set("*.\n")) == ["E", "S"]
        grid, start, end = parse_maze(row["maze"])
        assert format_maze(grid) == row["maze"] and grid[start[0]][start[1]] == "S" and grid[end[0]][end[1]] == "E"


def test_instruct_prompt_explains_the_task():
    row = make_maze_dataset(1, size=5)[0]
    (message,) = row["prompt"]
    assert message["role"] == "user"
    for needed in (row["maze"], "<answer>", "</answer>", "5 rows", "`S`", "`E`", "`*`", "U (up)"):
        assert needed in message["content"]


def test_border_and_several_sizes():
    sizes = [5, 7, 9]
    dataset = make_maze_dataset(300, size=sizes, border=True, max_path_length=4, seed=3)
    counts = np.bincount(dataset["size"], minlength=10)[sizes]
    assert counts.sum() == 300 and counts.min() > 60  # 100 expected, standard deviation 8
    for row in dataset:
        grid = np.array([list(line) for line in row["maze"].split("\n")])
        assert grid.shape == (row["size"], row["size"])
        inner = grid[1:-1, 1:-1]
        assert (grid == "*").sum() - (inner == "*").sum() == 4 * (row["size"] - 1)


def test_share_of_walls():
    grids = "".join(make_maze_dataset(100, size=20, wall_probability=0.3, seed=5)["maze"]).replace("\n", "")
    assert abs(grids.count("*") / len(grids) - 0.3) < 0.02
    assert "*" not in "".join(make_maze_dataset(20, size=5, wall_probability=0)["maze"])


def test_path_lengths_are_uniform(mazes):
    counts = np.bincount(mazes["path_length"])
    assert counts[:2].sum() == 0 and len(counts) == 7
    expected = len(mazes) / 5
    assert ((counts[2:] - expected) ** 2 / expected).sum() < 23.5  # chi square, 4 degrees of freedom, p = 1e-4


def test_shortest_paths_agree_with_floyd_warshall(mazes):
    for row in mazes.select(range(300)):
        grid, start, end = parse_maze(row["maze"])
        cells, distance = floyd_warshall(row["maze"])
        from_start = dict(zip(cells, distance[cells.index(start)], strict=True))
        found = shortest_paths(grid, start)
        assert {cell: len(path) for cell, path in found.items()} == {
            cell: length for cell, length in from_start.items() if np.isfinite(length)
        }
        assert row["path_length"] == from_start[end] == len(shortest_path(row["maze"]))
        near = shortest_paths(grid, start, max_length=3)
        assert near == {cell: path for cell, path in found.items() if len(path) <= 3}


def test_is_solution_agrees_with_enumeration():
    for maze in (MAZE, "S..\n.*.\n..E"):
        grid, start, end = parse_maze(maze)
        for moves in itertools.chain.from_iterable(itertools.product("UDLR", repeat=n) for n in range(6)):
            cell = start
            for move in moves:
                cell = cell and step(grid, cell, move)
            assert is_solution(maze, "".join(moves)) == (cell == end)


def test_no_upper_limit_takes_every_cell_far_enough():
    dataset = make_maze_dataset(300, size=6, min_path_length=4, max_path_length=None, seed=2)
    assert min(dataset["path_length"]) == 4 and max(dataset["path_length"]) > 8
    assert all(len(shortest_path(row["maze"])) == row["path_length"] for row in dataset)


def test_unreachable_end():
    assert shortest_path("S*\n*E") is None
    assert not is_solution("S*\n*E", "RD")


def test_mazes_are_distinct_and_seeded(mazes):
    assert len(set(mazes["maze"])) == len(mazes)
    assert make_maze_dataset(50, seed=7)[:] == make_maze_dataset(50, seed=7)[:]
    assert make_maze_dataset(50, seed=7)["maze"][:] != make_maze_dataset(50, seed=8)["maze"][:]


@pytest.mark.parametrize("as_dataset", [True, False])
def test_exclude_keeps_two_sets_disjoint(as_dataset):
    # Of a 3x3 maze without walls there are 28 with two moves from S to E: half of them leave exactly the other half.
    settings = {"size": 3, "wall_probability": 0, "max_path_length": 2}
    test = make_maze_dataset(14, seed=0, **settings)
    assert set(make_maze_dataset(14, seed=1, **settings)["maze"]) & set(test["maze"])
    train = make_maze_dataset(14, seed=1, exclude=test if as_dataset else test["maze"], **settings)
    assert not set(train["maze"]) & set(test["maze"])
    with pytest.raises(ValueError, match="found 14 of num_mazes=15"):
        make_maze_dataset(15, seed=1, exclude=test, **settings)


def test_all_mazes_of_a_small_kind_are_found_and_not_one_more():
    # Two rows and columns without walls: E is one of the two neighbours of S, in one of four places.
    settings = {"size": 2, "wall_probability": 0, "min_path_length": 1, "max_path_length": 1}
    assert len(make_maze_dataset(8, **settings)) == 8
    with pytest.raises(ValueError, match=r"found 8 of num_mazes=9 .*size=2 .*wall_probability=0"):
        make_maze_dataset(9, **settings)


def regions(grid: list[str], symbols: str) -> int:
    """Number of connected parts of the cells with these symbols."""
    left = {(i, j) for i, row in enumerate(grid) for j, symbol in enumerate(row) if symbol in symbols}
    count = 0
    while left:
        count, border = count + 1, [left.pop()]
        while border:
            i, j = border.pop()
            near = {(i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)} & left
            left -= near
            border += near
    return count


@pytest.mark.parametrize("wall_probability", [None, 0, 0.6, 1])
def test_lattice(wall_probability):
    """Rooms, pillars and a border where Fig. 14 has them; whatever walls there are, all rooms can be reached."""
    settings = {"walls": "lattice", "border": True, "max_path_length": None, "wall_probability": wall_probability}
    mazes = make_maze_dataset(200, size=[9, 13, 15], prompt_style="paper", seed=4, **settings)
    share = []
    for row in mazes:
        grid, start, end = parse_maze(row["maze"])
        cells = np.array([list(line) for line in grid])
        assert (cells[::2, ::2] == "*").all() and not (cells[1::2, 1::2] == "*").any()
        assert "*" * len(grid) == grid[0] == grid[-1] and (cells[:, [0, -1]] == "*").all()
        assert start[0] % 2 == start[1] % 2 == end[0] % 2 == end[1] % 2 == 1 and row["path_length"] % 2 == 0
        assert regions(grid, ".SE") == 1
        rooms = len(grid) // 2  # in a row
        walls, places = (cells[1:-1, 1:-1] == "*").sum() - (rooms - 1) ** 2, 2 * rooms * (rooms - 1)
        share.append(walls / places)
        assert wall_probability != 0 or walls == 0
        # With all walls a maze is a tree: as many passages as rooms but one
        assert wall_probability != 1 or places - walls == rooms**2 - 1
        assert f"## Maze\n{row['maze']}\n```" in row["prompt"][0]["content"]
    if wall_probability is None:
        assert 0.15 < np.mean(share) < 0.2  # .2 without those that would close a ring


def test_path_lengths_of_a_lattice_are_uniform_and_even():
    settings = {"walls": "lattice", "border": True, "min_path_length": 3, "max_path_length": 9}
    counts = np.bincount(make_maze_dataset(900, size=9, seed=1, **settings)["path_length"])
    assert counts[[4, 6, 8]].sum() == 900 and counts[[4, 6, 8]].min() > 240  # 300 expected, standard deviation 14
    with pytest.raises(ValueError, match="path lengths are even with walls='lattice'.*both 5"):
        make_maze_dataset(1, size=9, walls="lattice", border=True, min_path_length=5, max_path_length=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"walls": "hedges"}, r"walls='hedges' is unknown; use one of \('independent', 'lattice'\)"),
        ({"walls": "lattice", "size": 9}, "walls='lattice' has a border: border must be True, found False"),
        (
            {"walls": "lattice", "border": True, "size": [9, 8]},
            r"odd and at least 5 with walls='lattice', found \[9, ",
        ),
        ({"walls": "lattice", "border": True, "size": 5, "max_path_length": 8}, "must be at most 6 with size=5"),
        (
            {"walls": "lattice", "border": True, "size": 5, "wall_probability": 1.1},
            "`wall_probability` must be a number from 0 to 1, got 1.1",
        ),
        ({"num_mazes": 0}, "num_mazes must be at least 1, found 0"),
        ({"size": 1}, r"size must be at least 2 with border=False, found \[1\]"),
        ({"size": []}, "size must be at least 2"),
        ({"size": 3, "border": True}, "size must be at least 4 with border=True"),
        ({"size": [9, 3], "border": True}, r"found \[9, 3\]"),
        ({"wall_probability": 1.0}, r"wall_probability must be in \[0, 1\), found 1.0"),
        ({"wall_probability": -0.1}, "wall_probability must be in"),
        ({"min_path_length": 0}, "min_path_length must be at least 1, found 0"),
        ({"min_path_length": 5, "max_path_length": 4}, "max_path_length must be at least min_path_length=5, found 4"),
        ({"max_path_length": 12}, "max_path_length must be at most 11 with size=4"),
        ({"wall_probability": 0, "max_path_length": 7}, "max_path_length must be at most 6"),
        ({"min_path_length": 12, "max_path_length": None}, "min_path_length must be at most 11"),
        ({"prompt_style": "chat"}, "prompt_style='chat' is unknown"),
        ({"exclude": MAZE}, "found a single string"),
        ({"exclude": [MAZE + "\n"]}, "a maze is n rows of n symbols"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        make_maze_dataset(**{"num_mazes": 1, **settings})


def test_exclude_needs_a_maze_column(mazes):
    with pytest.raises(ValueError, match="exclude must have a `maze` column"):
        make_maze_dataset(1, exclude=mazes.remove_columns("maze"))


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<answer>RDRD</answer>", 1.0),
        ("I think so.\n<answer> R, D R\n,D </answer> Done.", 1.0),
        ("<answer>RDRLRD</answer>", 1.0),  # a detour
        ("<answer>RDRDUD</answer>", 1.0),  # over E and back to it
        ("<answer>RDRDU</answer>", 0.0),  # over E and away
        ("<answer>RDR</answer>", 0.0),  # short of E
        ("<answer>DRRD</answer>", 0.0),  # into a wall
        ("<answer>RRDD</answer>", 0.0),  # into a wall, and out again where a path would be
        ("<answer>LRRDRD</answer>", 0.0),  # off the grid and back
        ("<answer>URDRD</answer>", 0.0),
        ("<answer>rdrd</answer>", 0.0),
        ("<answer>RDRD.</answer>", 0.0),
        ("<answer>right, down</answer>", 0.0),
        ("<answer></answer>", 0.0),
        ("RDRD", 0.0),
        ("<answer>RDRD", 0.0),
        ("RDRD</answer>", 0.0),
        ("</answer>RDRD<answer>", 0.0),
        ("<answer>RDRD</answer><answer>U</answer>", 0.0),  # the last one counts
        ("<answer>U</answer><answer>RDRD</answer>", 1.0),
        ("<answer>U<answer>RDRD</answer>", 1.0),
        ("<answer>RDRD</answer><answer>U", 1.0),  # the last complete one
        ("<answer>RDRD</answer>U</answer>", 1.0),
        ("", 0.0),
    ],
)
def test_reward_by_hand(text, reward):
    assert maze_reward(completions=[text], maze=[MAZE]) == [reward]
    assert maze_reward(completions=[[{"role": "assistant", "content": text}]], maze=[MAZE]) == [reward]


@pytest.mark.parametrize(
    ("text", "moves"),
    [
        ("<answer>RDRD</answer>", "RDRD"),
        ("<answer> r -> D -> r -> d </answer>", "RDRD"),
        ("<answer>**RDRD**</answer>", "RDRD"),
        (r"<answer>\boxed{RDRD}</answer> U", "RDRD"),
        (r"Walls at U and D. \boxed{\text{RD}RD}U", "RDRD"),  # of the command, t, e, x and t are no moves
        (r"The path is $\boxed RDRD$ D", "RDRD"),
        ("RDRD", "RDRD"),
        ("<answer>U</answer> <answer>RDRD</answer> L", "RDRD"),
        ("<answer>RDRD", "RDRD"),  # of the tag, r is a move: without its end it is text
        ("<think>RDRD</think>", "RDRD"),
        ("Right, Down", "RD"),  # as a letter is a move wherever it stands
        ("", ""),
        (r"\boxed", ""),
        (r"\boxed{RDRD", "RDRD"),
        (r"\boxed{U} \boxed{RDRD}", "RDRD"),
    ],
)
def test_lenient_reward_by_hand(text, moves):
    """Against the moves that a reader of the published verifier's rules writes down."""
    if text == "<answer>RDRD":
        moves = "R" + moves
    assert lenient_maze_reward([text], maze=[MAZE]) == [float(is_solution(MAZE, moves))]
    logged = {}
    lenient_maze_reward([text], maze=[MAZE], log_extra=logged.__setitem__)
    assert logged["extracted_answer"] == [moves or None]


def test_what_is_read_strictly_is_read_leniently(mazes):
    completions = [f"I go.\n<answer>{', '.join(path)}</answer>" for path in mazes["shortest_path"]]
    wrong_mazes = [*mazes["maze"][1:], mazes["maze"][0]]
    for grids in (mazes["maze"][:], wrong_mazes):
        assert lenient_maze_reward(completions, grids) == maze_reward(completions, grids)


def test_shortest_paths_are_rewarded(mazes):
    completions = [f"<answer>{path}</answer>" for path in mazes["shortest_path"]]
    rewards = maze_reward(prompts=mazes["prompt"], completions=completions, completion_ids=None, maze=mazes["maze"])
    assert rewards == [1.0] * len(mazes)
    wrong_mazes = [*mazes["maze"][1:], mazes["maze"][0]]
    assert np.mean(maze_reward(completions=completions, maze=wrong_mazes)) < 0.2


def test_extracted_answers_are_logged():
    logged = {}
    completions = ["<answer>R, D</answer>", "no tags", "<answer>R</answer> <answer> </answer>", "<answer>x</answer>"]
    maze_reward(completions=completions, maze=[MAZE] * 4, log_extra=logged.__setitem__)
    assert logged == {"extracted_answer": ["RD", None, None, None]}


def test_malformed_completions_score_zero():
    malformed = [
        None,
        3,
        [],
        [None],
        [{}],
        ["RDRD"],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "content": 3}],
        [{"role": "assistant", "content": [{"type": "image"}, {"type": "text", "text": None}, None]}],
        "<answer>" * 100_000,
        "</answer>" * 100_000,
        "<answer>" + "R" * 1_000_000 + "</answer>",
        "<answer>" + "\ud800\x00𝔘ＵＲ" + "</answer>",
    ]
    assert maze_reward(completions=malformed, maze=[MAZE] * len(malformed)) == [0.0] * len(malformed)


def test_content_parts_are_joined_and_the_last_message_counts():
    parts = [{"type": "text", "text": "<answer>RD"}, {"type": "text", "text": "RD</answer>"}]
    messages = [{"role": "assistant", "content": "<answer>U</answer>"}, {"role": "assistant", "content": parts}]
    assert completion_text(messages) == "<answer>RDRD</answer>"
    assert maze_reward(completions=[messages], maze=[MAZE]) == [1.0]


def test_random_strings_never_raise_and_score_as_a_second_reading_does():
    rng = random.Random(0)
    pieces = ["<answer>", "</answer>", "<answer", "R", "D", "RDRD", " ", ",", "\n", "x", "<", "é"]
    for _ in range(3_000):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        before_tag = text.split("</answer>")[:-1]  # every piece that a closing tag follows
        inside = [piece.rsplit("<answer>", 1)[1] for piece in before_tag if "<answer>" in piece]
        assert extract_tagged_answer(text) == (inside[-1] if inside else None)
        moves = extract_moves(text)
        expected = moves is not None and set(moves) <= set("UDLR") and is_solution(MAZE, moves)
        assert maze_reward(completions=[text], maze=[MAZE]) == [float(expected)]


@pytest.mark.parametrize("broken", ["S.\n.", "SE", "", "S.\n..", "SS\n.E", "S#\n.E", None, "S.\n.E\n"])
def test_a_broken_maze_is_a_mistake_in_the_dataset(broken):
    with pytest.raises(ValueError, match="a maze"):
        maze_reward(completions=["no answer"], maze=[broken])


def test_one_maze_for_each_completion():
    with pytest.raises(ValueError, match="each of the 2 completions, found 1"):
        maze_reward(completions=["", ""], maze=[MAZE])
