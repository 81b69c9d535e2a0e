"""Puzzles by others: the generated tasks of reasoning-gym, and the published data of Enigmata and of ARC-AGI."""

import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, List, Value

from ..checks import check_integer
from ..gym_tasks import check_task, make_task, right_answer, scorer_settings
from ..puzzles import as_grid
from .filters import deduplicate
from .maze import excluded_texts
from .reading import as_dataset, check_columns, read_rows
from .templates import Template, fill_template, find_template


STRIDE = 2**32  # between the random seeds of two seeds
MAX_REPEATS = 1_000  # items in a row that are no new question before there are taken to be no more


def load_reasoning_gym(
    task: str,
    size: int,
    seed: int = 0,
    *,
    template: str | Template = "tags",
    exclude: Iterable[str] | Dataset | None = None,
    run_text: bool = False,
    **config: Any,
) -> Dataset:
    r"""
    Draws distinct questions of a task of reasoning-gym, for [`reasoning_gym_reward`].

    reasoning-gym draws item i with `random.Random(seed + i)`, so that its own seeds 1 and 2 share nearly all items.
    Here question i of a seed is drawn with `Random(seed · 2³² + i)`: no two seeds share a draw. Two draws may still
    give the same question, in tasks that have few; equal ones are left out, and `exclude` keeps a training set
    disjoint from a test set.

    Args:
        task (`str`):
            Name of a task, such as `"leg_counting"`. Some are refused, see `rlvr_trl.gym_tasks.REFUSED`.
        size (`int`):
            Number of questions, all different.
        seed (`int`, *optional*, defaults to `0`):
            The same arguments give the same questions, with the same version of reasoning-gym.
        template (`str`, `list` or `callable`, *optional*, defaults to `"tags"`):
            How a question becomes a prompt, as in [`load_source`]. The default asks for the answer inside
            `<answer>…</answer>`, where the reward reads it; so must another one.
        exclude (iterable of `str` or [`~datasets.Dataset`], *optional*):
            Questions that must not be drawn, as texts or as a dataset with a column `question`.
        run_text (`bool`, *optional*, defaults to `False`):
            Whether to take a task whose scorer evaluates text as Python, see [`ReasoningGymReward`].
        config:
            Settings of the task, such as `min_animals=2`.

    Returns:
        [`~datasets.Dataset`]: `size` rows with the columns `prompt`, `task`, `question`, `solution` (a right answer,
        or `None` where the task gives none) and `item` (JSON of what the scorer needs).

    Raises:
        `ImportError`: reasoning-gym is not installed.
        `ValueError`: The task is unknown, is refused or needs `run_text`; a setting is wrong; or there are fewer than
            `size` questions.

    Example:
    ```python
    >>> test = load_reasoning_gym("leg_counting", 100, seed=1, max_animals=3)
    >>> train = load_reasoning_gym("leg_counting", 2_000, seed=0, exclude=test, max_animals=3)
    ```
    """
    check_integer("size", size, at_least=1)
    check_integer("seed", seed, at_least=0)
    check_task(task, run_text)
    used = find_template(template)
    taken = excluded_texts("question", exclude, _check_question)
    settings = scorer_settings(task, config)

    rows, drawn, repeats = [], 0, 0
    while len(rows) < size:
        chunk = make_task(task, seed * STRIDE + drawn, size, config)
        for index in range(size):
            if len(rows) == size:
                break
            entry = chunk[index]
            drawn += 1
            question = entry["question"]
            repeats = repeats + 1 if question in taken else 0
            if repeats == MAX_REPEATS:
                raise ValueError(
                    f"found {len(rows)} of size={size} questions of the task {task!r}: {MAX_REPEATS} draws in a row "
                    f"gave no new one. Lower size, exclude fewer, or change the settings, {config}."
                )
            if repeats:
                continue
            taken.add(question)
            item = {name: entry[name] for name in ("question", "answer", "metadata")} | {"config": settings}
            row = {"task": task, "question": question, "solution": right_answer(task, entry)}
            prompt = fill_template(used, question, row)
            rows.append({"prompt": prompt, **row, "item": json.dumps(item, default=str)})
    text = Value("string")
    prompts = text if isinstance(rows[0]["prompt"], str) else List({"role": text, "content": text})
    features = dict.fromkeys(("task", "question", "solution", "item"), text)
    return Dataset.from_list(rows, features=Features({"prompt": prompts, **features}))


def load_enigmata(
    path_or_id: str | Path = "BytedTsinghua-SIA/Enigmata-Data",
    split: str = "train",
    *,
    tasks: Iterable[str] | None = None,
    language: str | None = None,
    distinct: bool = True,
) -> Dataset:
    """
    Loads the puzzles of Enigmata (arXiv 2505.19914), for [`EnigmataReward`].

    Args:
        path_or_id (`str` or `Path`, *optional*, defaults to `"BytedTsinghua-SIA/Enigmata-Data"`):
            A file, a folder or an id of the Hub, such as `"BytedTsinghua-SIA/Enigmata-Eval"`, with the columns
            `prompt`, `answer`, `task_name` and `meta`.
        split (`str`, *optional*, defaults to `"train"`):
            Split of a folder or of a dataset of the Hub; a file has none.
        tasks (iterable of `str`, *optional*):
            Names of the tasks to keep, as in the column `task_name`. By default all.
        language (`str`, *optional*):
            Language to keep, as in the column `language`. By default all.
        distinct (`bool`, *optional*, defaults to `True`):
            Whether only the first of equal prompts is kept, see [`deduplicate`].

    Returns:
        [`~datasets.Dataset`]: the rows in the columns `prompt`, `task_name`, `answer` and `meta`. What is not text
        becomes JSON, apart from prompts of messages.

    Raises:
        `ValueError`: There is no such file or folder, a column is missing, or no row is of these tasks and this
            language.
    """
    rows = read_rows(path_or_id, (), split, has_configs=True)
    needed = ("prompt", "answer", "task_name", "meta") + (("language",) if language is not None else ())
    check_columns(rows, needed, "Enigmata", path_or_id)
    names = rows["task_name"][:]
    wanted = set(names) if tasks is None else set(tasks)
    if absent := sorted(wanted - set(names)):
        raise ValueError(f"{path_or_id} has no task {absent[0]!r}. It has {', '.join(sorted(set(names)))}.")
    spoken = [language] * len(rows) if language is None else rows["language"][:]
    kept = [i for i, name in enumerate(names) if name in wanted and spoken[i] == language]
    if not kept:
        raise ValueError(f"{path_or_id} has no rows of language={language!r} among its tasks {sorted(wanted)}.")
    rows = as_dataset(rows.select(kept)) if len(kept) < len(rows) else rows
    columns = {name: [_as_json_text(value) for value in rows[name]] for name in ("task_name", "answer", "meta")}
    dataset = as_dataset(rows.select_columns("prompt"))
    for name, values in columns.items():
        dataset = as_dataset(dataset.add_column(name, values))
    return deduplicate(dataset) if distinct else dataset


GRIDS = """\
The pairs below follow one rule, which turns an input grid into an output grid. Find it, and apply it to the last
input. A grid has one row on each line; its cells are colours from 0 to 9.

{examples}

{test}

You may think first; then write the output grid inside <answer> and </answer>, row by row as above."""


def load_arc_agi(path_or_id: str | Path, split: str = "evaluation") -> Dataset:
    """
    Loads the tasks of ARC-AGI-1 (arXiv 1911.01547), for [`grid_reward`].

    Args:
        path_or_id (`str` or `Path`):
            A folder with one JSON file for each task, such as `data/evaluation` of a clone of
            github.com/fchollet/ARC-AGI; or a file, a folder or an id of the Hub of rows with the columns `train` and
            `test`, lists of pairs of `input` and `output`.
        split (`str`, *optional*, defaults to `"evaluation"`):
            Split of a dataset of the Hub; files have none.

    Returns:
        [`~datasets.Dataset`]: one row for each test input, with the columns `prompt` (messages), `task` (the name of
        its file, or the number of its row), `test` (which of its inputs, from 0) and `grid` (the right output as
        text). The wording of the prompt is ours.

    Raises:
        `ValueError`: There is no such folder or file, or a task is not as expected; the message names it.
    """
    path, rows = Path(path_or_id), []
    if path.is_dir() and (files := sorted(file for file in path.glob("*.json") if file.is_file())):
        tasks = [(file.stem, partial(_read_task, file)) for file in files]
    else:
        found = read_rows(path_or_id, (), split, has_configs=True)
        check_columns(found, ("train", "test"), "ARC-AGI", path_or_id)
        tasks = [(str(number), partial(dict, row)) for number, row in enumerate(found)]
    for name, read in tasks:
        try:
            task = read()
            examples = [f"Input:\n{as_grid(p['input'])}\nOutput:\n{as_grid(p['output'])}" for p in task["train"]]
            tests = task["test"]
            if not examples or not tests:
                raise ValueError("it has no examples or no test.")
            for number, pair in enumerate(tests):
                test = f"Input:\n{as_grid(pair['input'])}"
                text = GRIDS.format(examples="\n\n".join(examples), test=test)
                prompt = [{"role": "user", "content": text}]
                rows.append({"prompt": prompt, "task": name, "test": number, "grid": as_grid(pair["output"])})
        except (AttributeError, KeyError, OSError, RecursionError, TypeError, ValueError) as error:
            what = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"The task {name} of {path_or_id} is not as expected: {what}") from error
    return Dataset.from_list(rows)


def _read_task(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def _check_question(question: Any) -> None:
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"exclude must have questions, which are texts, found {question!r:.100}")


def _as_json_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
