"""Reward functions made of others: wrong now and then, with a bonus for short completions, or a weighted sum."""

import inspect
import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import exp
from numbers import Real
from statistics import fmean, stdev
from typing import Any

from ..checks import check_installed, check_not_negative, check_share
from ..digests import content_digest


class RewardWrapper:
    """
    A reward function that changes what another one returns; subclasses define how in `change`.

    Plain and async functions, partials and callable objects can be wrapped; async ones stay async. Everything that the
    trainer passes is handed on. The trainer logs the reward under the name of the wrapped function and a suffix.

    Args:
        reward_func (`callable`):
            Function with TRL's signature.
        suffix (`str`):
            Added to the name: `maze_reward` becomes `maze_reward_noisy`.

    Raises:
        `ValueError`: `reward_func` cannot be called, such as the name of a reward model.
    """

    def __init__(self, reward_func: Callable, suffix: str):
        if not callable(reward_func):
            raise ValueError(f"`reward_func` must be a function, got {reward_func!r}.")
        named = _unwrapped(reward_func)
        self.reward_func = reward_func
        self.__name__ = f"{function_name(reward_func)}_{suffix}"
        self._is_async = any(map(inspect.iscoroutinefunction, (reward_func, named, named.__call__)))

    @property
    def packages(self) -> tuple[str, ...]:
        """Modules that the wrapped function needs, see [`packages_of`]."""
        return packages_of(self.reward_func)

    @property
    def needs_whole_groups(self) -> bool:
        """Whether a call must hold all completions of a prompt, see [`check_whole_groups`]."""
        return needs_whole_groups(self.reward_func)

    # A property, because TRL looks at `__call__` to tell whether the rewards must be awaited.
    @property
    def __call__(self) -> Callable:
        return self._call_async if self._is_async else self._call

    def _call(self, **kwargs) -> list[float | None]:
        return self._changed(self.reward_func(**kwargs), **kwargs)

    async def _call_async(self, **kwargs) -> list[float | None]:
        return self._changed(await self.reward_func(**kwargs), **kwargs)

    def _changed(self, rewards: Sequence[float | None], **kwargs) -> list[float | None]:
        numbers = [None if reward is None else float(reward) for reward in rewards]
        return self.change([None if reward != reward else reward for reward in numbers], **kwargs)  # NaN is None too

    def change(self, rewards: list[float | None], *args: Any, **kwargs: Any) -> list[float | None]:
        """The rewards to return for those of the wrapped function; None stays None."""
        raise NotImplementedError


class NoisyReward(RewardWrapper):
    """
    Another reward function, with a share of its negative rewards flipped to 1: the control experiment with noise.

    A reward of at most 0.5 is negative. The seed, the prompt and the completion alone decide which ones are flipped:
    all processes decide alike, and so does a run that was resumed. The same completion of the same prompt is therefore
    flipped always or never, and the share holds on average over different ones.

    Args:
        reward_func (`callable`):
            Function with TRL's signature, plain or async. Logged under its name and `_noisy`.
        share (`float`):
            Share of the negative rewards to flip, in [0, 1].
        seed (`int`, *optional*, defaults to `0`):
            Another seed flips others.

    Raises:
        `ValueError`: `share` is outside [0, 1], or `reward_func` cannot be called.

    Example:
    ```python
    trainer = GRPOTrainer(..., reward_funcs=NoisyReward(maze_reward, share=0.3))
    ```
    """

    def __init__(self, reward_func: Callable, share: float, seed: int = 0):
        super().__init__(reward_func, "noisy")
        check_share("share", share)
        self.share, self.seed = share, seed

    def change(
        self, rewards: list[float | None], *, prompts: Sequence, completions: Sequence, **kwargs
    ) -> list[float | None]:
        return [
            1.0 if reward is not None and reward <= 0.5 and self._flips(prompt, completion) else reward
            for reward, prompt, completion in zip(rewards, prompts, completions, strict=True)
        ]

    def _flips(self, prompt, completion) -> bool:
        digest = content_digest(self.seed, prompt, completion)
        return int.from_bytes(digest[:8], "big") < self.share * 2**64


class LengthReward(RewardWrapper):
    r"""
    The length reward of GRPO-LEAD (arXiv 2504.09696): of the correct completions of a prompt, short ones get more.

    A correct completion (reward above 0.5) gets `exp(−decay · z)`. Here z is its length in tokens minus the mean
    length of the correct completions of its prompt, divided by their standard deviation (ddof 1). A wrong completion
    gets −1. Where there is nothing to gain or to compare, z is 0 and the reward 1: the three shortest completions of
    the prompt, right or wrong (or all, if there are fewer), have at most `min_tokens` on average, only one is correct,
    or all correct ones are equally long.

    Completions belong together when their prompts are equal *and they are in the same call*. TRL calls reward
    functions on every process with the rows of that process, so a group must not be spread over processes: trainers of
    this package refuse a batch in which `num_generations` does not divide the rows of a process. Extra completions,
    sampled in a later stage for hard prompts, are compared with one another, and duplicates of a prompt in a batch
    form one group.

    Args:
        reward_func (`callable`):
            Function with TRL's signature, plain or async, that tells which completions are correct. Logged under
            its name and `_length`. Where it returns None, so does this, and that completion is left out of the mean.
        min_tokens (`int`, *optional*, defaults to `4000`):
            Length that is not worth shortening, in tokens.
        decay (`float`, *optional*, defaults to `0.05`):
            How much one standard deviation of length matters.

    Raises:
        `ValueError`: `min_tokens` or `decay` is negative, or `reward_func` cannot be called.
    """

    def __init__(self, reward_func: Callable, min_tokens: int = 4000, decay: float = 0.05):
        super().__init__(reward_func, "length")
        for name, value in {"min_tokens": min_tokens, "decay": decay}.items():
            check_not_negative(name, value)
        self.min_tokens, self.decay = min_tokens, decay

    @property
    def needs_whole_groups(self) -> bool:
        return True

    def change(
        self, rewards: list[float | None], *, prompts: Sequence, completion_ids: Sequence, **kwargs
    ) -> list[float | None]:
        changed = [None if reward is None else -1.0 for reward in rewards]
        groups = defaultdict(list)  # rows of the scored completions of each prompt
        for i, (prompt, reward) in enumerate(zip(prompts, rewards, strict=True)):
            if reward is not None:
                groups[content_digest(prompt)].append((i, len(completion_ids[i]), reward > 0.5))
        for rows in groups.values():
            is_short = fmean(sorted(length for _, length, _ in rows)[:3]) <= self.min_tokens
            right = {i: length for i, length, is_right in rows if is_right}
            new = [1.0] * len(right) if is_short else self._of_correct(list(right.values()))
            for i, reward in zip(right, new, strict=True):
                changed[i] = reward
        return changed

    def _of_correct(self, lengths: list[int]) -> list[float]:
        """The rewards of the correct completions of one prompt, some of which are long."""
        std = stdev(lengths) if len(lengths) > 1 else 0.0
        if std == 0:
            return [1.0] * len(lengths)
        mean = fmean(lengths)
        return [exp(-self.decay * (length - mean) / std) for length in lengths]


class WeightedReward:
    """
    The weighted sum of several reward functions as one function, such as 0.9 of accuracy and 0.1 of format.

    TRL logs and weights several functions one by one; some methods need a single number instead. Where any of the
    functions returns None, the sum is None. All get everything that the trainer passes. Of several that log a column,
    such as `extracted_answer`, the first keeps its name, and the others' have the name of the function added.

    Args:
        weights (mapping of `callable` to `float`):
            Weight of each reward function. The functions have TRL's signature and are not async.
        name (`str`, *optional*):
            Name that the trainer logs. Defaults to the names of the functions, joined by `_and_`.

    Raises:
        `ValueError`: There are no functions, one is async or not callable, or a weight is not a number.

    Example:
    ```python
    trainer = GRPOTrainer(..., reward_funcs=WeightedReward({math_reward: 0.9, boxed_format_reward: 0.1}))
    ```
    """

    def __init__(self, weights: Mapping[Callable, float], name: str | None = None):
        if not weights:
            raise ValueError("`weights` must have at least one reward function, got none.")
        for function, weight in weights.items():
            if not callable(function) or any(map(inspect.iscoroutinefunction, (function, function.__call__))):
                raise ValueError(f"The keys of `weights` must be functions that are not async, got {function!r}.")
            if not isinstance(weight, Real) or weight != weight:
                raise ValueError(f"The weight of {function!r} must be a number, got {weight!r}.")
        self.weights = dict(weights)
        self.packages = tuple(package for function in weights for package in packages_of(function))
        self.needs_whole_groups = any(map(needs_whole_groups, weights))
        self.__name__ = name or "_and_".join(map(function_name, weights))
        self._owners: dict[str, Callable] = {}  # column of the log of completions -> the function that logged it first

    def __call__(self, **kwargs) -> list[float | None]:
        columns = [function(**self._given_to(function, kwargs)) for function in self.weights]
        return [
            None if None in rewards else sum(w * r for w, r in zip(self.weights.values(), rewards, strict=True))
            for rewards in zip(*columns, strict=True)
        ]

    def _given_to(self, function: Callable, kwargs: dict[str, Any]) -> dict[str, Any]:
        if "log_extra" not in kwargs:
            return kwargs
        return kwargs | {"log_extra": log_apart(kwargs["log_extra"], function, function_name(function), self._owners)}


def log_apart(log_extra: Callable, function: Any, name: str, owners: dict[str, Any]) -> Callable:
    """
    TRL's `log_extra` for one of several functions. TRL appends all values that come under one name to one column,
    which would be too long; so a column that another function logged first has the name of this one added, and a
    number where another function of that name has logged it as well.

    Args:
        log_extra (`Callable`): TRL's.
        function: whose it is to be.
        name (`str`): of the function.
        owners (`dict`): the function that logged a column first, by column; shared by all of them.
    """

    def log(column: str, values: list) -> None:
        of_one_name = (f"{column} ({name} {number})" for number in itertools.count(2))
        names = itertools.chain([column, f"{column} ({name})"], of_one_name)
        log_extra(next(each for each in names if owners.setdefault(each, function) is function), values)

    return log


def _unwrapped(function: Callable) -> Callable:
    """The function within partials."""
    while isinstance(function, partial):
        function = function.func
    return function


# What TRL gives to a reward function besides the columns of the dataset
GIVEN = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric")


def required_columns(function: Callable) -> list[str]:
    """
    The columns without which a reward function cannot be called: its parameters without a default, less [`GIVEN`].

    Raises:
        `TypeError` or `ValueError`: The function has no signature, as some in C.
    """
    return [
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL) and name not in GIVEN
    ]


def packages_of(function: Callable) -> tuple[str, ...]:
    """Modules that a reward function needs and that are not always installed: its attribute `packages`, or TRL's."""
    function = _unwrapped(function)
    if getattr(function, "__module__", None) == "trl.rewards.accuracy_rewards":
        return ("math_verify",)
    return tuple(getattr(function, "packages", ()))


def _functions_of(reward_funcs: Any) -> list[Callable]:
    given = reward_funcs if isinstance(reward_funcs, list | tuple) else [reward_funcs]
    return [one for one in given if callable(one)]


def check_reward_packages(reward_funcs: Any) -> None:
    """
    Refuses reward functions whose packages are not installed, before anything is sampled.

    Args:
        reward_funcs: a reward function or a list of them, as a trainer takes it; reward models are passed over.

    Raises:
        `ImportError`: names the function and what to install.
    """
    for function in _functions_of(reward_funcs):
        check_installed(function_name(function), *packages_of(function))


def needs_whole_groups(function: Callable) -> bool:
    """Whether a reward function compares the completions of a prompt: its attribute of this name, if it has one."""
    return getattr(_unwrapped(function), "needs_whole_groups", False)


def check_whole_groups(reward_funcs: Any, num_rows: int, num_generations: int) -> None:
    """
    Refuses reward functions that compare the completions of a prompt where these are on several processes.

    Args:
        reward_funcs: as in [`check_reward_packages`].
        num_rows (`int`): completions of a batch on each process.
        num_generations (`int`): completions of a prompt.

    Raises:
        `ValueError`: `num_generations` does not divide `num_rows`.
    """
    for function in _functions_of(reward_funcs):
        if needs_whole_groups(function) and num_rows % num_generations:
            raise ValueError(
                f"The reward function '{function_name(function)}' compares the completions of a prompt, but each "
                f"process has {num_rows} completions of a batch, which `num_generations`={num_generations} does not "
                f"divide: the completions of some prompts are on two processes. Take a multiple of it, by the size of "
                f"the batch or the number of processes."
            )


def function_name(function: Callable) -> str:
    """The name that a trainer logs for a reward function."""
    function = _unwrapped(function)
    return getattr(function, "__name__", type(function).__name__)
