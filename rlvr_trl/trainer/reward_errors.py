"""Errors of reward functions that say which function it was."""

import functools
from collections.abc import Callable, Iterable

from torch import nn
from trl.trainer.utils import is_async_callable


def _error(name: str, error: Exception) -> RuntimeError:
    return RuntimeError(f"The reward function '{name}' raised {type(error).__name__}: {error}")


def _check_output(output, name: str) -> list:
    if isinstance(output, str) or not isinstance(output, Iterable):
        raise ValueError(
            f"The reward function '{name}' returned {type(output).__name__}; a list with one reward per completion is "
            f"needed."
        )
    return list(output)


def name_errors(reward_func: Callable | nn.Module, name: str) -> Callable | nn.Module:
    """`reward_func`, such that an exception it raises is a RuntimeError that holds `name`. Models are left alone."""
    if isinstance(reward_func, nn.Module):
        return reward_func

    if is_async_callable(reward_func):

        @functools.wraps(reward_func, updated=())
        async def named(*args, **kwargs):
            try:
                output = await reward_func(*args, **kwargs)
            except Exception as error:
                raise _error(name, error) from error
            return _check_output(output, name)
    else:

        @functools.wraps(reward_func, updated=())
        def named(*args, **kwargs):
            try:
                output = reward_func(*args, **kwargs)
            except Exception as error:
                raise _error(name, error) from error
            return _check_output(output, name)

    return named
