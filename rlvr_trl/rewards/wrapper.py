"""Reward functions around reward functions."""

import hashlib
import inspect
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any


class RewardWrapper:
    """
    A reward function that changes what another returns; subclasses say how in `change`.

    Plain and async functions, partials and callable objects can be wrapped; async ones stay async. Everything the
    trainer passes is handed on. The name that the trainer logs is that of the wrapped function and a suffix.

    Args:
        reward_func (`callable`):
            Function with TRL's signature.
        suffix (`str`):
            What the name ends in: `maze_reward` becomes `maze_reward_noisy`.

    Raises:
        `ValueError`: `reward_func` cannot be called, such as the name of a reward model.
    """

    def __init__(self, reward_func: Callable, suffix: str):
        if not callable(reward_func):
            raise ValueError(f"`reward_func` must be a function, got {reward_func!r}.")
        named = unwrapped(reward_func)
        self.reward_func = reward_func
        self.__name__ = f"{function_name(reward_func)}_{suffix}"
        self._is_async = any(map(inspect.iscoroutinefunction, (reward_func, named, named.__call__)))

    # A property, for TRL looks at `__call__` to tell whether the rewards must be awaited.
    @property
    def __call__(self) -> Callable:
        return self._call_async if self._is_async else self._call

    def _call(self, **kwargs) -> list[float | None]:
        return self._changed(self.reward_func(**kwargs), **kwargs)

    async def _call_async(self, **kwargs) -> list[float | None]:
        return self._changed(await self.reward_func(**kwargs), **kwargs)

    def _changed(self, rewards: Sequence[float | None], **kwargs) -> list[float | None]:
        rewards = [None if reward is None else float(reward) for reward in rewards]
        return self.change([None if reward != reward else reward for reward in rewards], **kwargs)  # NaN is None too

    def change(self, rewards: list[float | None], **kwargs) -> list[float | None]:
        """The rewards to return for those of the wrapped function; None stays None."""
        raise NotImplementedError


def unwrapped(function: Callable) -> Callable:
    """The function within partials."""
    while isinstance(function, partial):
        function = function.func
    return function


def function_name(function: Callable) -> str:
    """The name that a trainer logs for a reward function."""
    function = unwrapped(function)
    return getattr(function, "__name__", type(function).__name__)


def content_digest(*parts: Any) -> bytes:
    """
    SHA-256 of text, numbers and messages by what they say, the same in every process. Images count by their pixels.

    Raises:
        `TypeError`: A part holds something else.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_pixels).encode()).digest()


def _pixels(value: Any) -> str:
    if not hasattr(value, "tobytes"):
        raise TypeError(f"A prompt or completion holds a {type(value).__name__}: text and images can be told apart.")
    return hashlib.sha256(value.tobytes()).hexdigest()
