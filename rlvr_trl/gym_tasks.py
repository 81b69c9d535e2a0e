"""
The tasks of reasoning-gym: which of them can be trained on, and how an item is drawn and scored.

reasoning-gym (Apache-2.0, arXiv 2505.24760; looked at: 0.1.25) is the optional extra `puzzles`. Its scorers are used
as they are. Three things need care: some scorers evaluate text as Python, some pay for nonsense, and some tasks are
not the same in two processes.
"""

import json
import re
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

from .checks import check_installed
from .registry import did_you_mean


# An answer that nothing says about the problem is paid in full, or the right one is not
_WRONG = {
    "arc_agi": "the right answer scores 0.05 once its item has been through JSON, as in a dataset",
    "boxnet": "its scorer raises errors on answers, and no item has a right answer to check it with",
    "coin_flip": "the answer 0 scores 1.0, as it is a prefix of every probability",
    "complex_arithmetic": "the answer nan scores 1.0",
    "game_of_life_halting": "any text scores 1.0 where the answer is True",
    "intermediate_integration": "the question, written as an integral that is left to do, counts as its answer",
    "puzzle24": "any four numbers will do, not only those of the question",
    "rearc": "the right answer scores 0.05 once its item has been through JSON, as in a dataset",
}
_OTHER_ITEMS = "the same seed draws other questions in another process or another time"
_UNREPEATABLE = {
    "codeio": _OTHER_ITEMS,
    "isomorphic_strings": _OTHER_ITEMS,
    "knight_swap": _OTHER_ITEMS,
    "list_functions": _OTHER_ITEMS,
    "polynomial_multiplication": _OTHER_ITEMS,
    "ransom_note": _OTHER_ITEMS,
}
REFUSED = {
    **_WRONG,
    **_UNREPEATABLE,
    "pool_matrix": "it seeds the random numbers of NumPy for the whole process",
    "composite": "it mixes other tasks: load each of them and join them with datasets.concatenate_datasets",
}

# Tasks whose scorer evaluates text as Python: that of the answer, by `eval` or by SymPy's parser
RUNS_ANSWER = ("binary_matrix", "countdown", "n_queens", "simple_integration", "spiral_matrix", "string_insertion")
# or that of the item
RUNS_ITEM = ("bitwise_arithmetic", "number_sorting")

# Settings of a task that its scorer reads, and that an item therefore has to keep
SCORER_SETTINGS = {
    "decimal_arithmetic": ("max_num_decimal_places",),
    "time_intervals": ("max_date_difference_days", "max_time_difference_seconds"),
}

# Right answers of tasks whose items have none, because many are right
_EXAMPLES: dict[str, Callable[[dict], str]] = {
    "graph_color": lambda metadata: json.dumps(metadata["possible_answer"]),
    "propositional_logic": lambda metadata: metadata["example_answer"],
    "rubiks_cube": lambda metadata: metadata["example_correct_answer"],
}

# What an answer may look like where the scorer allows more than the question: SymPy also knows 5!, Max(1, 2) and 2**3
_FORMS = {"countdown": re.compile(r"(?:[\d\s+\-()]|\*(?!\*)|/(?!/))*+")}


def check_task(task: str, run_text: bool) -> None:
    """
    Refuses a task that is not there or that cannot be trained on.

    Args:
        task (`str`): name of a task of reasoning-gym.
        run_text (`bool`): whether scorers may evaluate text, in their workers.

    Raises:
        `ImportError`: reasoning-gym is not installed.
        `ValueError`: The task is unknown, is refused, or needs `run_text`; says why.
    """
    check_installed("A task of reasoning-gym", "reasoning_gym")
    from reasoning_gym.factory import DATASETS  # pyrefly: ignore[missing-import]  # an extra

    if task not in DATASETS:
        raise ValueError(
            f"task={task!r} is no task of reasoning-gym.{did_you_mean(str(task), DATASETS)} "
            f"It has {', '.join(sorted(DATASETS.keys() - REFUSED.keys()))}."
        )
    if task in REFUSED:
        raise ValueError(f"task={task!r} of reasoning-gym cannot be trained on: {REFUSED[task]}. Choose another task.")
    if task in RUNS_ANSWER + RUNS_ITEM and not run_text:
        whose = "an answer" if task in RUNS_ANSWER else "its items"
        raise ValueError(
            f"task={task!r} needs `run_text=True`, for the dataset and for the reward: its scorer evaluates the text "
            f"of {whose} as Python. It then does so in locked workers, and what is not arithmetic or a literal scores "
            f"0. In YAML: {{name: reasoning_gym_reward, run_text: true}}."
        )


def scorer_settings(task: str, config: Mapping[str, Any]) -> dict[str, float]:
    """
    Those settings of a task that its scorer reads.

    Raises:
        `ValueError`: One of them is not a number.
    """
    settings = {name: config[name] for name in SCORER_SETTINGS.get(task, ()) if name in config}
    for name, value in settings.items():
        if not isinstance(value, Real):
            raise ValueError(f"`{name}` of the task {task!r} must be a number, got {value!r:.100}.")
    return settings


def make_task(task: str, seed: int, size: int, config: Mapping[str, Any]):
    """
    A dataset of reasoning-gym, whose item i is drawn with `random.Random(seed + i)`.

    Raises:
        `ValueError`: The task has no such setting, or refuses its value.
    """
    from reasoning_gym.factory import create_dataset  # pyrefly: ignore[missing-import]  # an extra

    try:
        return create_dataset(task, seed=seed, size=size, **config)
    except (AssertionError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"The settings {dict(config)} of the task {task!r} cannot be used: {error}") from error


def right_answer(task: str, entry: dict) -> str | None:
    """A right answer to an item as a completion would give it, without spaces around it; `None` if none is known."""
    answer = entry["answer"]
    if answer is None and task in _EXAMPLES:
        answer = _EXAMPLES[task](entry["metadata"])
    return None if answer is None else str(answer).strip()


def has_form(task: str, answer: str) -> bool:
    """Whether an answer has the form that the question asks for, where the scorer does not look."""
    form = _FORMS.get(task)
    return form is None or form.fullmatch(answer) is not None
