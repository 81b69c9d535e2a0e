"""Several reward functions as one, such as 0.9 of accuracy and 0.1 of format."""

import inspect
from collections.abc import Callable, Mapping
from numbers import Real

from .wrapper import function_name


class WeightedReward:
    """
    The weighted sum of reward functions, where one number is wanted for what TRL would log and weight one by one.

    None from any of them is None for the completion. All get everything that the trainer passes.

    Args:
        weights (mapping of `callable` to `float`):
            Weight of each reward function. Their signature is TRL's, and they are not async.
        name (`str`, *optional*):
            Name that the trainer logs. Defaults to the names of the functions, joined by `_and_`.

    Raises:
        `ValueError`: There are no functions, one is async or not callable, or a weight is not a number.

    Example:
    ```python
    trainer = GRPOTrainer(model, reward_funcs=WeightedReward({math_reward: 0.9, boxed_format_reward: 0.1}), ...)
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
        self.__name__ = name or "_and_".join(map(function_name, weights))

    def __call__(self, **kwargs) -> list[float | None]:
        columns = [function(**kwargs) for function in self.weights]
        return [
            None if None in rewards else sum(w * r for w, r in zip(self.weights.values(), rewards, strict=True))
            for rewards in zip(*columns, strict=True)
        ]
