"""Combines the rewards of several functions into one batch of groups, as TRL does."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .groups import PromptRecord, RolloutGroups
from .grpo import GroupRelative


def correctness_column(names: Sequence[str], correctness_reward: str | None) -> int:
    """
    Index of the reward function that says which completions are correct: the named one, or the first.

    Raises:
        `ValueError`: No function has that name; lists the names there are.
    """
    if correctness_reward is None:
        return 0
    if correctness_reward not in names:
        raise ValueError(
            f"`correctness_reward` is {correctness_reward!r}, but the reward functions are: {', '.join(names)}."
        )
    return list(names).index(correctness_reward)


def combine_rewards(
    rewards_per_func: Tensor,
    group_ids: Tensor,
    weights: Tensor,
    *,
    correctness_column: int = 0,
    correctness_threshold: float = 0.5,
    normalize: bool = False,
    entropies: Tensor | None = None,
    lengths: Tensor | None = None,
    seed: int = 0,
    progress: float = 0.0,
    truncated: Tensor | None = None,
    log_probs: Tensor | None = None,
    answer_ids: Tensor | None = None,
    reward_names: tuple[str, ...] = (),
    history: PromptRecord | None = None,
) -> RolloutGroups:
    """
    The groups of a batch from the rewards of every function.

    Correctness is read from one function, never from the combination, so that a format reward cannot change which
    prompts count as hard.

    Args:
        rewards_per_func (`Tensor` of shape `(T, F)`):
            Reward of each completion by each function, NaN where a function returned None. The combined reward is the
            weighted sum of the other rewards; a completion with none is unscored.
        group_ids (`Tensor` of shape `(T,)`):
            Integer id of each completion's prompt.
        weights (`Tensor` of shape `(F,)`):
            Weight of each function.
        correctness_column (`int`, *optional*, defaults to `0`):
            The function that says which completions are correct. Where it returned None, a completion is not judged.
        correctness_threshold (`float`, *optional*, defaults to `0.5`):
            A completion is correct when that function's reward is above it.
        normalize (`bool`, *optional*, defaults to `False`):
            Standardize each function's rewards within the group before they are summed, TRL's
            `multi_objective_aggregation="normalize_then_sum"` (GDPO, arXiv 2601.05242).
        entropies, lengths, seed, progress, truncated, log_probs, answer_ids, reward_names, history:
            As in [`RolloutGroups`], which also gets `rewards_per_func` as it is given here.
    """
    given = rewards_per_func
    unscored = rewards_per_func.isnan().all(dim=1)  # (T,)
    correctness = rewards_per_func[:, correctness_column]  # (T,)
    if normalize:
        standardize = GroupRelative()
        columns = [standardize(RolloutGroups(column, group_ids)) for column in rewards_per_func.unbind(1)]
        rewards_per_func = torch.stack(columns, dim=1)
    rewards = (rewards_per_func * weights.to(rewards_per_func.device).unsqueeze(0)).nansum(dim=1)  # (T,)
    rewards[unscored] = torch.nan
    return RolloutGroups(
        rewards=rewards,
        group_ids=group_ids,
        correct=correctness > correctness_threshold,
        judged=~correctness.isnan(),
        entropies=entropies,
        lengths=lengths,
        seed=seed,
        progress=progress,
        truncated=truncated,
        log_probs=log_probs,
        answer_ids=answer_ids,
        rewards_per_func=given,
        reward_names=reward_names,
        history=history,
    )
