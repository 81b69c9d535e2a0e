"""Benchmarks by name: which dataset, which split, which reward."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset, concatenate_datasets, get_dataset_split_names

from ..registry import did_you_mean
from .loaders import load_own, load_source
from .maze import load_mazes, make_maze_dataset
from .puzzle_sets import load_arc_agi
from .reading import FORMATS, as_dataset, found_on_hub
from .templates import Template


# What cannot be the folder of a benchmark: other files and parts of a run, and names that Windows keeps for itself
_TAKEN = r"overall|results\.json(\.tmp)?|pass_at_k\.(png|svg)|temperature-.*|(con|prn|aux|nul|com\d|lpt\d)(\..*)?"

MAZES_OF_SIZE = {7: 75, **dict.fromkeys(range(9, 22, 2), 100)}  # as in Table 4 of arXiv 2508.10751
MAZE_SEED = 2508_10751  # unlike the small seeds that training sets are made with
LIKE_THE_PAPER = {"walls": "lattice", "border": True, "max_path_length": None, "prompt_style": "paper"}


@dataclass(frozen=True)
class Benchmark:
    """
    A benchmark.

    Args:
        split (`str`, *optional*): split of the source of the same name in `SOURCES`; `None` if it has another loader.
        reward (`str`): name of its reward function in `rlvr_trl.rewards`.
        draws (`int`): disjoint samples drawn from it; with 0 all of it is used.
        draw_size (`int`): questions in one draw.
        by (`str`, *optional*): column by which an evaluation reports parts of it apart, unless it names another.
    """

    split: str | None
    reward: str = "math_reward"
    draws: int = 0
    draw_size: int = 0
    by: str | None = None


BENCHMARKS: dict[str, Benchmark] = {
    "math": Benchmark("test", by="level"),
    "math500": Benchmark("test"),
    "aime24": Benchmark("train"),
    "aime25": Benchmark("test"),
    "amc23": Benchmark("test"),
    "minerva": Benchmark("test"),
    "olympiadbench": Benchmark("train"),
    "olymmath": Benchmark("test", by="level"),
    "arc_challenge": Benchmark("test", "choice_reward", draws=3, draw_size=128, by="draw"),
    "mmlu_pro": Benchmark("test", "choice_reward", draws=3, draw_size=128, by="draw"),
    "mathvision": Benchmark("test"),
    "mathverse": Benchmark("testmini", by="version"),
    "mmmu": Benchmark("validation"),
    "geo3k": Benchmark("test"),
    "maze": Benchmark(None, "maze_reward", by="size"),
    "arc_agi": Benchmark(None, "grid_reward"),
}


def load_benchmark(
    name: str,
    path_or_id: str | Path | None = None,
    *,
    template: str | Template | None = None,
    seed: int = 0,
) -> Dataset:
    """
    Loads a benchmark: all of its rows, in their order, duplicates included.

    `BENCHMARKS[name].reward` is the name of the reward function that scores a published one.

    Args:
        name (`str`):
            One of `BENCHMARKS`, with dashes or underscores; or, with `path_or_id`, any other name for a benchmark of
            your own.
        path_or_id (`str` or `Path`, *optional*):
            A local file or folder, or another id of the Hub, of the same shape; see [`load_source`]. For `"maze"` a
            set as [`load_mazes`] reads it, such as `"RUC-AIBOX/Passk_Training_Maze"`, of which `test` counts. For
            `"arc_agi"` what [`load_arc_agi`] reads; it is needed.
            A benchmark of your own has the columns of [`load_own`], and its split is `test` or the only one.
        template (`str`, `list` or `callable`, *optional*):
            See [`load_source`] and [`load_own`]. Mazes and ARC-AGI have none.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the draws of ARC-c and MMLU-Pro. Mazes are always the same.

    Returns:
        [`~datasets.Dataset`]: the columns of [`load_source`]; for ARC-c and MMLU-Pro also `draw` (0, 1 or 2), with the
        rows of a draw together, as arXiv 2510.04028 evaluates them; for mazes those of [`make_maze_dataset`], lattices
        of every odd size from 7 to 21: 75 of 7, 100 of each other. Make training mazes with
        `exclude=load_benchmark("maze")`. For a benchmark of your own those of [`load_own`].

    Raises:
        ValueError: the benchmark is unknown and has no path, has several splits and none is `test`, or has fewer rows
            than its draws need; or as [`load_source`] and [`load_own`].
    """
    name = benchmark_name(name)
    if name not in BENCHMARKS:
        if path_or_id is None:
            raise ValueError(
                f"name={name!r} is not a benchmark.{did_you_mean(name, BENCHMARKS)} Use one of "
                f"{', '.join(BENCHMARKS)}, or name a file, folder or id of the Hub of your own as well."
            )
        return load_own(path_or_id, _test_split(path_or_id), template=template, distinct=False)
    benchmark = BENCHMARKS[name]
    if benchmark.split is None:
        if template is not None:
            raise ValueError(f"{name} has prompts of its own: template must be None, got {template}.")
        if name == "maze":
            return _mazes() if path_or_id is None else load_mazes(path_or_id, "test", distinct=False)
        if path_or_id is None:
            raise ValueError(f"{name} has no dataset of its own on the Hub: name a folder or an id, see load_arc_agi.")
        return load_arc_agi(path_or_id)
    dataset = load_source(name, path_or_id, benchmark.split, template=template, distinct=False)
    return _draw(dataset, benchmark, name, seed) if benchmark.draws else dataset


def benchmark_name(name: str) -> str:
    """
    The name of a benchmark: for a published one as in `BENCHMARKS`, also if it was written with dashes.

    Raises:
        ValueError: it cannot be the name of a folder on every system, is that of all benchmarks together, or of a file
            that a run writes.
    """
    if (published := name.replace("-", "_")) in BENCHMARKS:
        return published
    is_name = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name) and not name.endswith(".")
    if not is_name or re.fullmatch(_TAKEN, name, re.IGNORECASE):
        raise ValueError(
            f"A benchmark needs a name of letters, digits, '_', '-' and '.', other than 'overall', the files of a run "
            f"and what Windows keeps for itself, got {name!r}."
        )
    return name


def _test_split(path_or_id: str | Path) -> str:
    """`test`, or the only split of a folder or dataset of the Hub."""
    path = Path(path_or_id)
    if path.is_file() or path.suffix in FORMATS:
        return "train"  # a file has none
    with found_on_hub(path_or_id):
        splits = [
            str(split) for split in get_dataset_split_names(str(path.absolute() if path.is_dir() else path_or_id))
        ]
    if "test" in splits or len(splits) == 1:
        return "test" if "test" in splits else splits[0]
    raise ValueError(f"{path_or_id} has the splits {', '.join(splits)}, but `test` or only one is needed.")


def _draw(dataset: Dataset, benchmark: Benchmark, name: str, seed: int) -> Dataset:
    size = benchmark.draws * benchmark.draw_size
    if len(dataset) < size:
        raise ValueError(
            f"{name} needs at least {benchmark.draws} draws x {benchmark.draw_size} questions = {size} rows, found "
            f"{len(dataset)}. Take all of a smaller set with load_source({name!r}, ...)."
        )
    rows = np.random.default_rng(seed).permutation(len(dataset))[:size]
    sample = as_dataset(dataset.select(rows))
    draws = np.repeat(np.arange(benchmark.draws), benchmark.draw_size).tolist()
    return as_dataset(sample.add_column("draw", draws))


def _mazes() -> Dataset:
    # Path lengths are not limited: E is any cell that can be reached.
    return concatenate_datasets(
        [make_maze_dataset(count, size, **LIKE_THE_PAPER, seed=MAZE_SEED) for size, count in MAZES_OF_SIZE.items()]
    )
