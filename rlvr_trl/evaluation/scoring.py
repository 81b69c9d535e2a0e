"""Calls the reward function on sampled completions, as TRL calls it."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .problems import Problem
from .samples import Completions


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
    Calls the reward function once with all completions, those of one problem next to each other.

    Raises:
        ValueError: the number of rewards or extracted answers is wrong, or there is no reward at all.
    """
    rows = [problem.row for problem in problems for _ in range(num_samples)]
    replies = completions.texts
    if not isinstance(rows[0]["prompt"], str):
        replies = [[{"role": "assistant", "content": text}] for text in replies]
    # TRL does not pass on columns with names that it uses itself
    names = rows[0].keys() - {"prompt", "completion", "completion_ids"}
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
    if np.isnan(rewards).all():
        raise ValueError(f"The reward function '{name_of(reward_func)}' gave no reward to any completion.")
    means = {name: float(np.mean(values)) for name, values in metrics.items()}
    return Scores(rewards.reshape(len(problems), num_samples), extra_columns, means)


def _check_length(reward_func: Callable, what: str, values, needed: int) -> None:
    if len(values) != needed:
        raise ValueError(
            f"The reward function '{name_of(reward_func)}' returned {len(values)} {what}, but {needed} are needed: "
            "one per completion."
        )


def name_of(reward_func: Callable) -> str:
    """The name of a reward function, or of the class of a callable object."""
    return getattr(reward_func, "__name__", type(reward_func).__name__)
