"""A reward that is wrong now and then: the control experiment with noise rewards."""

from collections.abc import Callable
from numbers import Real

from .wrapper import RewardWrapper, content_digest


class NoisyReward(RewardWrapper):
    """
    Another reward function, with a share of its negative rewards flipped to 1.

    A reward of at most 0.5 is negative. Which ones are flipped follows from the seed, the prompt and the completion
    alone: every process decides alike, and so does a run that was resumed. The same completion of the same prompt is
    therefore always flipped or never, and the share holds on average over different ones.

    Args:
        reward_func (`callable`):
            Function with TRL's signature, plain or async. Logged as its name and `_noisy`.
        share (`float`):
            Share of the negative rewards to flip, in [0, 1].
        seed (`int`, *optional*, defaults to `0`):
            Another seed flips others.

    Raises:
        `ValueError`: `share` is outside [0, 1], or `reward_func` cannot be called.

    Example:
    ```python
    trainer = GRPOTrainer(model, reward_funcs=NoisyReward(maze_reward, share=0.3), ...)
    ```
    """

    def __init__(self, reward_func: Callable, share: float, seed: int = 0):
        super().__init__(reward_func, "noisy")
        if not isinstance(share, Real) or not 0 <= share <= 1:
            raise ValueError(f"`share` must be in [0, 1], got {share!r}.")
        self.share, self.seed = share, seed

    def change(self, rewards, *, prompts, completions, **kwargs):
        return [
            1.0 if reward is not None and reward <= 0.5 and self._flips(prompt, completion) else reward
            for reward, prompt, completion in zip(rewards, prompts, completions, strict=True)
        ]

    def _flips(self, prompt, completion) -> bool:
        digest = content_digest(self.seed, prompt, completion)
        return int.from_bytes(digest[:8], "big") < self.share * 2**64
