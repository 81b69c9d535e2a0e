"""What stands between TRL and the reward functions: errors that name them, time limits, columns that do not collide.

A reward function that raises on one process would leave the others waiting for its rewards. So its rewards are zeros
there, TRL gathers them, and then all processes raise the error that was caught. One that has not returned within the
time limit cannot be ended by itself: its process is, and all others with it, with the stacks of its threads.

If several functions log under one name, such as `extracted_answer`, every one after the first has its own name added.
"""

import contextlib
import faulthandler
import functools
import itertools
import math
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Set, Sized
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import nn

from ..digests import answer_id
from ..distributed import exit_for_all, raise_together
from ..rewards.wrappers import log_apart
from ..trl_compat import is_async_callable


_running = 0  # reward functions, of which several may be awaited at once, or run in threads
_counting = threading.Lock()
LATE = 30.0  # seconds beyond the limit, after which a function that lets no other thread run is ended as well


class RewardGuard:
    """
    The reward functions of a trainer, and what they raised since the last [`~RewardGuard.raise_together`].

    Args:
        accelerator (`Accelerator`): the trainer's.
        limit (`float`): seconds that a reward function may take for the completions of a batch.
        answers_of (*optional*): the reward function whose column `extracted_answer` is kept for
            [`~RewardGuard.answer_ids`].
    """

    def __init__(self, accelerator, limit: float, answers_of: Any = None):
        self._accelerator, self._limit = accelerator, limit
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
                    with self._time_limit(name), _ends_without_other_threads(self._limit + LATE):
                        return _checked(await reward_func(*args, **kwargs), name, expected)
                except (Exception, SystemExit) as error:
                    return self._keep(error, name, expected)
        else:

            @functools.wraps(reward_func, updated=())
            def named(*args, **kwargs):
                expected = len(kwargs["completions"])
                kwargs["log_extra"] = self._log_extra(reward_func, name, kwargs["log_extra"])
                try:
                    with self._time_limit(name), _ends_without_other_threads(self._limit + LATE):
                        return _checked(reward_func(*args, **kwargs), name, expected)
                except (Exception, SystemExit) as error:
                    return self._keep(error, name, expected)

        named.unguarded = reward_func  # pyrefly: ignore[missing-attribute]
        return named

    def _log_extra(self, reward_func: Callable, name: str, log_extra: Callable) -> Callable:
        apart = log_apart(log_extra, reward_func, name, self._owners)

        def log(column: str, values: list) -> None:
            if reward_func is self._answers_of and column == "extracted_answer":
                self._answers += values
            apart(column, values)

        return log

    @contextlib.contextmanager
    def _time_limit(self, name: str) -> Iterator[None]:
        timer = threading.Timer(self._limit, self._end, [name])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _end(self, name: str) -> None:
        error = TimeoutError(
            f"The reward function '{name}' has not returned within {self._limit:g} seconds. Its stack is above. Raise "
            f"`reward_timeout` if it may take longer, or give it a time limit of its own."
        )
        exit_for_all(error, self._accelerator)

    def _keep(self, error: BaseException, name: str, expected: int) -> list[float]:
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


@contextlib.contextmanager
def _ends_without_other_threads(seconds: float) -> Iterator[None]:
    """Ends this process from a thread of C, where a function keeps those of Python waiting, as `re` may."""
    global _running
    with _counting:
        try:
            faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or 2)
            _running += 1
            has_timer = True
        except (AttributeError, OSError, ValueError, RuntimeError):  # no file to write to
            has_timer = False
    try:
        yield
    finally:
        with _counting:
            _running -= has_timer
            if has_timer and _running == 0:  # several share the one timer that there is
                faulthandler.cancel_dump_traceback_later()


def _checked(output, name: str, expected: int) -> list[float | None]:
    if isinstance(output, (str, bytes, Mapping, Set)) or not isinstance(output, Iterable):
        raise _WrongOutputError(
            f"The reward function '{name}' returned {type(output).__name__}; a list with one reward per completion is "
            f"needed."
        )
    output = list(output) if isinstance(output, Sized) else list(itertools.islice(output, expected + 1))
    if len(output) != expected:
        raise _WrongOutputError(
            f"The reward function '{name}' returned {len(output)} rewards, but {expected} were expected, one per "
            f"completion."
        )
    rewards = []
    for i, reward in enumerate(output):
        try:
            rewards.append(None if reward is None else _as_number(reward))
        except (TypeError, ValueError, OverflowError):
            raise _WrongOutputError(
                f"The reward function '{name}' returned something that is neither a number nor None for completion "
                f"{i}: {type(reward).__name__} {reward!r:.80}."
            ) from None
    return rewards


def _as_number(reward: Any) -> float:
    """
    A reward as TRL takes it.

    Raises:
        `TypeError`, `ValueError` or `OverflowError`: It is none, or infinite in the precision that TRL has for it.
    """
    value = reward
    if isinstance(reward, (torch.Tensor, np.ndarray, np.generic)):
        if reward.ndim != 0:
            raise TypeError
        value = reward.item()
    if not isinstance(value, Real | np.floating):
        raise TypeError
    number = float(value)
    if not math.isnan(number) and abs(number) > torch.finfo(torch.float32).max:
        raise ValueError
    return number
