"""What stands between TRL and the reward functions: errors that name the function, columns that do not collide.

A reward function that raises on one process would leave the others waiting for its rewards. So its rewards are zeros
there, TRL gathers them, and then all processes raise the error that was caught.

If several functions log under one name, such as `extracted_answer`, TRL appends all their values to one column, which
is then too long for the table of completions. Here every function after the first has its name added to the column's.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from ..digests import answer_id
from ..distributed import raise_together
from ..trl_compat import is_async_callable


class RewardGuard:
    """
    The reward functions of a trainer, and what they raised since the last [`~RewardGuard.raise_together`].

    Args:
        answers_of (*optional*): the reward function whose column `extracted_answer` is kept for
            [`~RewardGuard.answer_ids`].
    """

    def __init__(self, answers_of: Any = None):
        self._answers_of, self._answers = answers_of, []
        self._caught = []
        self._owners = {}  # column of the log of completions -> the function that logged it first

    def wrap(self, reward_func: Any, name: str) -> Any:
        """`reward_func`, whose errors are kept, with its name, and zeros returned instead. Models stay as they are."""
        if isinstance(reward_func, nn.Module):
            return reward_func

        if is_async_callable(reward_func):

            @functools.wraps(reward_func, updated=())
            async def named(*args, **kwargs):
                expected = len(kwargs["completions"])
                kwargs["log_extra"] = self._log_extra(reward_func, name, kwargs["log_extra"])
                try:
                    return _checked(await reward_func(*args, **kwargs), name, expected)
                except Exception as error:
                    return self._keep(error, name, expected)
        else:

            @functools.wraps(reward_func, updated=())
            def named(*args, **kwargs):
                expected = len(kwargs["completions"])
                kwargs["log_extra"] = self._log_extra(reward_func, name, kwargs["log_extra"])
                try:
                    return _checked(reward_func(*args, **kwargs), name, expected)
                except Exception as error:
                    return self._keep(error, name, expected)

        return named

    def _log_extra(self, reward_func: Callable, name: str, log_extra: Callable) -> Callable:
        def log(column: str, values: list) -> None:
            if reward_func is self._answers_of and column == "extracted_answer":
                self._answers += values
            is_first = self._owners.setdefault(column, reward_func) is reward_func
            log_extra(column if is_first else f"{column} ({name})", values)

        return log

    def _keep(self, error: Exception, name: str, expected: int) -> list[float]:
        named = error
        if not isinstance(error, _WrongOutputError):
            named = RuntimeError(f"The reward function '{name}' raised {type(error).__name__}: {error}")
            named.__cause__ = error
        self._caught.append(named)
        return [0.0] * expected

    def raise_together(self, accelerator) -> None:
        """
        All processes must call it after the rewards are gathered.

        Raises:
            `RuntimeError`: On every process: a reward function raised something on one of them.
            `ValueError`: On every process: one returned anything other than one number or None per completion.
        """
        first, self._caught = next(iter(self._caught), None), []
        raise_together(accelerator, first)

    def forget_answers(self) -> None:
        """Before completions are scored."""
        self._answers = []

    def answer_ids(self, accelerator, expected: int) -> list[int]:
        """
        Ids of the answers that the reward function of correctness has extracted from this process's `expected`
        completions. All processes must call it.

        Raises:
            `ValueError`: On every process: it did not log one answer for each, or one that is no text or number.
        """
        answers, ids, error = self._answers, [], None
        try:
            ids = [answer_id(answer) for answer in answers]
        except (TypeError, ValueError) as raised:
            error = ValueError(f"An `extracted_answer` has no id: {raised}")
            error.__cause__ = raised
        if error is None and len(answers) != expected:
            name = getattr(self._answers_of, "__name__", type(self._answers_of).__name__)
            error = ValueError(
                f"The advantage estimator reads answers, but the reward function '{name}' logged {len(answers)} of "
                f"them by `log_extra('extracted_answer', …)`, and {expected} are needed, one per completion."
            )
        raise_together(accelerator, error)
        return ids


class _WrongOutputError(ValueError):
    pass


def _checked(output, name: str, expected: int) -> list[float | None]:
    if isinstance(output, str) or not isinstance(output, Iterable):
        raise _WrongOutputError(
            f"The reward function '{name}' returned {type(output).__name__}; a list with one reward per completion is "
            f"needed."
        )
    output = list(output)
    if len(output) != expected:
        raise _WrongOutputError(
            f"The reward function '{name}' returned {len(output)} rewards, but {expected} were expected, one per "
            f"completion."
        )
    try:  # as TRL will
        torch.tensor([torch.nan if reward is None else reward for reward in output], dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _WrongOutputError(
            f"The reward function '{name}' returned something that is neither a number nor None: {error}."
        ) from error
    return output
