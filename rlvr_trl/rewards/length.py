"""The length reward of GRPO-LEAD (arXiv 2504.09696): of the correct completions of a prompt, the shorter ones."""

from collections import defaultdict
from collections.abc import Callable
from math import exp
from numbers import Real
from statistics import fmean, stdev

from .wrapper import RewardWrapper, content_digest


class LengthReward(RewardWrapper):
    r"""
    Another reward function, with correct completions rewarded by how short they are among those of their prompt.

    A correct completion (reward above 0.5) gets `exp(−decay · z)`, z its length in tokens minus the mean of the
    correct completions of the prompt, divided by their standard deviation (ddof 1); a wrong one gets −1. z is 0, and
    the reward 1, where there is nothing to gain or to compare: the three shortest correct ones (or as many as there
    are) have at most `min_tokens` on average, there is one correct one, or all have the same length.

    Completions are of one prompt when their prompts are equal *and in the same call*. TRL calls reward functions on
    every process with the rows of that process, so a group should not be spread over processes: let
    `num_generations` divide the rows of a process. Extra completions, sampled in a later stage for hard prompts, are
    compared with one another, and duplicates of a prompt in a batch are one group.

    Args:
        reward_func (`callable`):
            Function with TRL's signature, plain or async, that says which completions are correct. Logged as its name
            and `_length`. Where it returns None, so does this, and the completion is not compared with the others.
        min_tokens (`int`, *optional*, defaults to `4000`):
            Length that is not worth shortening.
        decay (`float`, *optional*, defaults to `0.05`):
            How much a standard deviation of length matters.

    Raises:
        `ValueError`: `min_tokens` or `decay` is negative, or `reward_func` cannot be called.
    """

    def __init__(self, reward_func: Callable, min_tokens: int = 4000, decay: float = 0.05):
        super().__init__(reward_func, "length")
        for name, value in {"min_tokens": min_tokens, "decay": decay}.items():
            if not isinstance(value, Real) or not value >= 0:
                raise ValueError(f"`{name}` must be a number of at least 0, got {value!r}.")
        self.min_tokens, self.decay = min_tokens, decay

    def change(self, rewards, *, prompts, completion_ids, **kwargs):
        changed = [None if reward is None else -1.0 for reward in rewards]
        groups = defaultdict(list)  # correct completions of each prompt
        for i, (prompt, reward) in enumerate(zip(prompts, rewards, strict=True)):
            if reward is not None and reward > 0.5:
                groups[content_digest(prompt)].append(i)
        for rows in groups.values():
            for i, reward in zip(rows, self._of_correct([len(completion_ids[i]) for i in rows]), strict=True):
                changed[i] = reward
        return changed

    def _of_correct(self, lengths: list[int]) -> list[float]:
        std = stdev(lengths) if len(lengths) > 1 else 0.0
        if std == 0 or fmean(sorted(lengths)[:3]) <= self.min_tokens:
            return [1.0] * len(lengths)
        mean = fmean(lengths)
        return [exp(-self.decay * (length - mean) / std) for length in lengths]
