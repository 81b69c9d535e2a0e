"""Finds the reward function of an evaluation, and calls it on sampled completions, as TRL calls it."""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from ..registry import did_you_mean, import_by_path
from ..rewards.wrappers import GIVEN, required_columns
from .problems import Problem
from .samples import Completions


RESERVED = {"prompt", "completion", "completion_ids"}  # columns that TRL does not pass on
NEED_REFERENCES = ("math_reward", "choice_reward")


class Scores(NamedTuple):
    """
    What a reward function returned and logged for all completions.

    Attributes:
        rewards (`np.ndarray` of shape `(problems, num_samples)`): rewards, NaN where one is missing.
        extra_columns (`dict[str, list]`): what it passed to `log_extra`.
        metrics (`dict[str, float]`): means of what it passed to `log_metric`.
    """

    rewards: np.ndarray
    extra_columns: dict[str, list]
    metrics: dict[str, float]


def score(reward_func: Callable, problems: list[Problem], completions: Completions, num_samples: int) -> Scores:
    """
    Calls the reward function once with all completions, those of one problem next to each other. One that the engine
    refused is an empty text there, and has no reward whatever the function returns.

    Raises:
        ValueError: the number of rewards or extracted answers is wrong, or there is no reward at all.
    """
    rows = [problem.row for problem in problems for _ in range(num_samples)]
    replies = completions.texts
    if not isinstance(rows[0]["prompt"], str):
        replies = [[{"role": "assistant", "content": text}] for text in replies]
    names = rows[0].keys() - RESERVED
    extra_columns, metrics = {}, {}
    returned = reward_func(
        prompts=[row["prompt"] for row in rows],
        completions=replies,
        completion_ids=completions.token_ids,
        **{name: [row[name] for row in rows] for name in names},
        log_extra=lambda column, values: extra_columns.setdefault(column, []).extend(values),
        log_metric=lambda name, value: metrics.setdefault(name, []).append(value),
        trainer_state=None,
    )
    rewards = np.array([math.nan if reward is None else float(reward) for reward in returned])
    _check_length(reward_func, "rewards", rewards, len(rows))
    if "extracted_answer" in extra_columns:
        _check_length(reward_func, "extracted answers", extra_columns["extracted_answer"], len(rows))
    rewards[list(completions.refused)] = math.nan
    if len(completions.refused) == len(rows):
        raise ValueError(
            f"The engine refused all {len(rows)} completions (a filter of the server), so none is scored."
        )
    if np.isnan(rewards).all():
        raise ValueError(f"The reward function '{name_of(reward_func)}' gave no reward to any completion.")
    means = {name: float(np.mean(values)) for name, values in metrics.items()}
    return Scores(rewards.reshape(len(problems), num_samples), extra_columns, means)


def find_reward(name: str) -> Callable:
    """
    A reward function of `rlvr_trl.rewards`, or one of the user's own by its dotted path, whose module is imported.

    Raises:
        ValueError: there is no such function, or a class is there instead.
    """
    from .. import rewards

    names = [known for known in rewards.__all__ if known.islower()]  # classes must be made into functions first
    if name in names:
        return getattr(rewards, name)
    if "." not in name:
        raise ValueError(
            f"Unknown reward {name!r}.{did_you_mean(name, names)} Valid rewards: {', '.join(names)}; or the dotted "
            "path of your own, my_module.my_reward."
        )
    found = import_by_path(name, "reward function")
    if inspect.isclass(found):
        raise ValueError(f"The reward {name!r} is a class: name a function, or an object that can be called.")
    return found


def check_reward(reward_func: Callable, columns: Iterable[str]) -> None:
    """
    Checks, before anything is sampled, that a reward function can be called on rows with these columns.

    Raises:
        ValueError: it needs a column that is not there, does not take all columns, or must be awaited.
    """
    name, columns = name_of(reward_func), list(columns)
    if any(map(inspect.iscoroutinefunction, (reward_func, type(reward_func).__call__))):
        raise ValueError(f"The reward function '{name}' is asynchronous, but an evaluation needs one that is not.")
    if name in NEED_REFERENCES and not {"answer", "solution"} & set(columns):
        raise ValueError(f"{name} needs a column `answer` or `solution` in the dataset, found {columns}.")
    try:
        parameters = list(inspect.signature(reward_func).parameters.values())
    except (TypeError, ValueError):  # of a function in C
        return
    given = [*GIVEN, *(column for column in columns if column not in RESERVED)]
    missing = [column for column in required_columns(reward_func) if column not in given]
    if missing:
        raise ValueError(f"The reward function '{name}' needs the column {missing[0]!r}, found {columns}.")
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
        taken = {one.name for one in parameters}
        others = ", ".join(one for one in given if one not in taken)
        raise ValueError(
            f"The reward function '{name}' must take **kwargs: it is called as by TRL, also with {others}."
        )


def _check_length(reward_func: Callable, what: str, values, needed: int) -> None:
    if len(values) != needed:
        raise ValueError(
            f"The reward function '{name_of(reward_func)}' returned {len(values)} {what}, but {needed} are needed: "
            "one per completion."
        )


def name_of(reward_func: Callable) -> str:
    """The name of a reward function, or of the class of a callable object."""
    return getattr(reward_func, "__name__", type(reward_func).__name__)
