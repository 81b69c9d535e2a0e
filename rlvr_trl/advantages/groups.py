"""The batch of groups that every advantage estimator reads.

A *group* is all completions of one prompt. Groups may be ragged (of different size), and their rows may come in any
order. Estimators work on a padded view with one group per row:

    group_ids   7  3  7  7  3                 pad(rewards, fill)   position 0  1  2
    rewards     a  b  c  d  e        <->      group 3                       b  e  fill
                                              group 7                       a  c  d
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PromptRecord:
    """
    What the batches before this one have shown of its prompts: tensors of shape `(P,)`, in the order of the groups.

    A copy of what a [`~rlvr_trl.rollouts.PromptHistory`] knew before the batch.

    Args:
        prompt_ids (`Tensor`): id of each prompt, the same in every batch: its place in the arrays of the history.
        seen (`Tensor`): batches that each was in.
        samples (`Tensor`): its judged completions in these batches.
        correct (`Tensor`): those that were correct.
        alpha, beta (`Tensor`): the Beta distribution of its accuracy, in float64.

    Raises:
        `ValueError`: A tensor is not of the shape of `prompt_ids`.
    """

    prompt_ids: Tensor
    seen: Tensor
    samples: Tensor
    correct: Tensor
    alpha: Tensor
    beta: Tensor

    def __post_init__(self):
        for name in ("seen", "samples", "correct", "alpha", "beta"):
            value = getattr(self, name)
            if self.prompt_ids.dim() != 1 or value.shape != self.prompt_ids.shape:
                raise ValueError(
                    f"`{name}` and `prompt_ids` must have one entry for each prompt, got the shapes "
                    f"{tuple(value.shape)} and {tuple(self.prompt_ids.shape)}."
                )

    def __len__(self) -> int:
        return len(self.prompt_ids)


@dataclass(frozen=True, eq=False)
class RolloutGroups:
    """
    Rewards of a batch of completions, and the prompt that each belongs to.

    A completion whose reward is NaN (no reward function could score it) is outside the statistics of its group: it
    counts neither in `num_scored` nor in `accuracy`, and its advantage is 0.

    Args:
        rewards (`Tensor` of shape `(T,)`):
            Floating point reward of each completion. NaN means unscored; infinite rewards are an error.
        group_ids (`Tensor` of shape `(T,)`):
            Integer id of each completion's prompt. Any integers in any order.
        correct (`Tensor` of shape `(T,)`, *optional*):
            Whether each completion is correct, boolean. By default those with a reward above 0.5.
        judged (`Tensor` of shape `(T,)`, *optional*):
            Whether `correct` is known, boolean. Only these count in `accuracy`. By default the scored completions.
        entropies (`Tensor` of shape `(T,)`, *optional*):
            Mean token entropy of each completion, in nats.
        lengths (`Tensor` of shape `(T,)`, *optional*):
            Length of each completion, in tokens.
        seed (`int`, *optional*, defaults to `0`):
            For estimators that draw random numbers: the same on every process, a different one for every batch.
        progress (`float`, *optional*, defaults to `0.0`):
            Share of the training done, in [0, 1], for estimators that change with it.
        truncated (`Tensor` of shape `(T,)`, *optional*):
            Whether each completion was cut off before it ended, boolean.
        log_probs (`Tensor` of shape `(T,)`, *optional*):
            Mean log-probability of the tokens of each completion under the policy that is trained, in nats. NaN for a
            completion without a token in the loss.
        answer_ids (`Tensor` of shape `(T,)`, *optional*):
            Integer id of the answer that was extracted from each completion: equal for equal answers, and of any value
            else. "No answer" is an answer.
        rewards_per_func (`Tensor` of shape `(T, F)`, *optional*):
            Reward of each completion by each reward function, as the functions gave them. NaN where one gave none.
        reward_names (`tuple[str, ...]`, *optional*):
            Names of the F functions.
        history ([`PromptRecord`], *optional*):
            What earlier batches have shown of the prompts.

    A trainer always gives lengths, truncation and the rewards by function, which cost nothing. What costs something it
    gives to estimators that say that they read it: see [`AdvantageEstimator`].

    Raises:
        `ValueError`: A shape or dtype is wrong, there is no row, or a reward is infinite.
    """

    rewards: Tensor
    group_ids: Tensor
    correct: Tensor = None  # pyrefly: ignore[bad-assignment]  # None is replaced in `__post_init__`
    judged: Tensor = None  # pyrefly: ignore[bad-assignment]
    entropies: Tensor | None = None
    lengths: Tensor | None = None
    seed: int = 0
    progress: float = 0.0
    truncated: Tensor | None = None
    log_probs: Tensor | None = None
    answer_ids: Tensor | None = None
    rewards_per_func: Tensor | None = None
    reward_names: tuple[str, ...] = ()
    history: PromptRecord | None = None

    if TYPE_CHECKING:  # the constructor takes None where the attributes never are

        def __init__(
            self,
            rewards: Tensor,
            group_ids: Tensor,
            correct: Tensor | None = None,
            judged: Tensor | None = None,
            entropies: Tensor | None = None,
            lengths: Tensor | None = None,
            seed: int = 0,
            progress: float = 0.0,
            truncated: Tensor | None = None,
            log_probs: Tensor | None = None,
            answer_ids: Tensor | None = None,
            rewards_per_func: Tensor | None = None,
            reward_names: tuple[str, ...] = (),
            history: PromptRecord | None = None,
        ): ...

    def __post_init__(self):
        if self.rewards.dim() != 1 or self.rewards.numel() == 0 or not self.rewards.is_floating_point():
            raise ValueError(
                f"`rewards` must be a floating point tensor of shape (T,) with T >= 1, got shape "
                f"{tuple(self.rewards.shape)} and dtype {self.rewards.dtype}."
            )
        of_completions = (
            "group_ids",
            "correct",
            "judged",
            "entropies",
            "lengths",
            "truncated",
            "log_probs",
            "answer_ids",
        )
        for name in of_completions:
            value = getattr(self, name)
            if value is not None and value.shape != self.rewards.shape:
                raise ValueError(
                    f"`{name}` must have the shape of `rewards`, {tuple(self.rewards.shape)}, got "
                    f"{tuple(value.shape)}."
                )
        for name in ("group_ids", "answer_ids"):
            value = getattr(self, name)
            if value is not None and (value.is_floating_point() or value.dtype == torch.bool):
                raise ValueError(f"`{name}` must hold integers, got dtype {value.dtype}.")
        if self.rewards_per_func is not None and self.rewards_per_func.shape[:-1] != self.rewards.shape:
            raise ValueError(
                f"`rewards_per_func` must have the shape ({len(self.rewards)}, functions), got "
                f"{tuple(self.rewards_per_func.shape)}."
            )
        if self.reward_names and (
            self.rewards_per_func is None or self.rewards_per_func.shape[1] != len(self.reward_names)
        ):
            columns = None if self.rewards_per_func is None else self.rewards_per_func.shape[1]
            raise ValueError(f"`reward_names` has {len(self.reward_names)} names for {columns} reward functions.")
        if self.history is not None and len(self.history) != self.num_groups:
            raise ValueError(f"`history` is of {len(self.history)} prompts, and there are {self.num_groups} groups.")
        if torch.isinf(self.rewards).any():
            raise ValueError("`rewards` holds an infinite value. Use NaN for a completion that could not be scored.")
        if self.correct is None:
            object.__setattr__(self, "correct", self.rewards > 0.5)
        if self.judged is None:
            object.__setattr__(self, "judged", self.scored)
        for name in ("correct", "judged", "truncated"):
            if getattr(self, name) is not None and getattr(self, name).dtype != torch.bool:
                raise ValueError(f"`{name}` must be boolean, got dtype {getattr(self, name).dtype}.")

    def __repr__(self) -> str:  # tensors of any length
        low, high = int(self.sizes.min()), self.largest
        each = f"{low} each" if low == high else f"{low} to {high} each"
        correct, unscored = int(self.num_correct.sum()), int((~self.scored).sum())
        return (
            f"RolloutGroups({len(self.rewards)} completions of {self.num_groups} prompts, {each}; {correct} correct, "
            f"{unscored} unscored)"
        )

    @cached_property
    def _layout(self) -> tuple[Tensor, Tensor, Tensor]:
        # group of each row (T,), position of each row within its group (T,), rows per group (P,)
        ids, order = torch.sort(self.group_ids, stable=True)
        _, group, sizes = torch.unique_consecutive(ids, return_inverse=True, return_counts=True)
        first = sizes.cumsum(0) - sizes
        place = torch.arange(len(order), device=order.device) - first[group]
        index = torch.empty_like(order).scatter_(0, order, group)
        position = torch.empty_like(order).scatter_(0, order, place)
        return index, position, sizes

    @cached_property
    def largest(self) -> int:
        """Completions of the largest group: the width of the padded view."""
        return int(self.sizes.max())

    @cached_property
    def _cells(self) -> Tensor:
        # place of each row in the flattened padded view (T,)
        index, position, _ = self._layout
        return index * self.largest + position

    @property
    def index(self) -> Tensor:
        """Group of each completion as 0…P−1, in the order of sorted `group_ids`. Shape `(T,)`."""
        return self._layout[0]

    @property
    def sizes(self) -> Tensor:
        """Completions per group, unscored ones included. Shape `(P,)`."""
        return self._layout[2]

    @property
    def num_groups(self) -> int:
        return len(self.sizes)

    @cached_property
    def scored(self) -> Tensor:
        """Whether each completion has a reward. Boolean, shape `(T,)`."""
        return ~self.rewards.isnan()

    @cached_property
    def num_scored(self) -> Tensor:
        """Completions with a reward per group. Integer, shape `(P,)`."""
        return self.sum(self.scored.long())

    @cached_property
    def num_judged(self) -> Tensor:
        """Completions per group whose correctness is known. Integer, shape `(P,)`."""
        return self.sum(self.judged.long())

    @cached_property
    def num_correct(self) -> Tensor:
        """Correct completions per group. Integer, shape `(P,)`."""
        return self.sum((self.judged & self.correct).long())

    @cached_property
    def accuracy(self) -> Tensor:
        """Share of correct completions per group; NaN where none could be judged. At least float32, shape `(P,)`."""
        return self.num_correct.to(torch.promote_types(self.rewards.dtype, torch.float32)) / self.num_judged

    @cached_property
    def ranking(self) -> tuple[Tensor, Tensor]:
        """
        Rewards of each group from best to worst in float64, −inf where unscored or padding, and the positions within
        the group that they come from. Two tensors of shape `(P, largest group)`.
        """
        rewards = self.rewards.double().nan_to_num(nan=-torch.inf)
        return self.pad(rewards, -torch.inf).sort(dim=1, descending=True)

    @cached_property
    def same_answer(self) -> Tensor:
        """
        Scored completions of its group that have the answer of each completion, itself among them; 1 for an unscored
        one. Integer, shape `(T,)`.

        Raises:
            `ValueError`: The groups hold no `answer_ids`.
        """
        if self.answer_ids is None:
            raise ValueError("`same_answer` counts completions by `answer_ids`, but the groups have none.")
        answers, dense = torch.unique(self.answer_ids, return_inverse=True)
        _, cluster = torch.unique(self.index * len(answers) + dense, return_inverse=True)  # (T,)
        counts = torch.zeros_like(cluster).index_add_(0, cluster, self.scored.long())
        return counts[cluster].masked_fill(~self.scored, 1)

    def with_rewards(self, rewards: Tensor) -> "RolloutGroups":
        """
        The same completions with other rewards, `(T,)`, for an estimator that hands them on to its base. What is
        correct stays; the layout is not computed again.
        """
        other = replace(self, rewards=rewards)
        vars(other).update({name: vars(self)[name] for name in ("_layout", "largest", "_cells") if name in vars(self)})
        return other

    def sum(self, values: Tensor) -> Tensor:
        """Sum of `values`, shape `(T,)`, over each group. Shape `(P,)`."""
        return torch.zeros(self.num_groups, dtype=values.dtype, device=values.device).index_add_(0, self.index, values)

    def pad(self, values: Tensor, fill: float) -> Tensor:
        """`values`, shape `(T,)`, with one group per row. Shape `(P, largest group)`."""
        padded = values.new_full((self.num_groups * self.largest,), fill)
        return padded.scatter_(0, self._cells, values).view(-1, self.largest)

    def unpad(self, padded: Tensor) -> Tensor:
        """The inverse of `pad`: shape `(P, largest group)` to `(T,)`."""
        return padded.flatten()[self._cells]


@dataclass(frozen=True, eq=False)
class CompletionTokens:
    """
    The tokens of some completions: what an estimator sees that gives each of them an advantage of its own.

    Args:
        log_probs (`Tensor` of shape `(B, C)`):
            Log-probability of each token under the policy that sampled it, in nats, at the temperature of sampling.
        entropies (`Tensor` of shape `(B, C)`):
            Entropy of the distribution that each token was drawn from, in nats.
        mask (`Tensor` of shape `(B, C)`):
            Whether each token is in the loss, boolean: neither padding nor written by a tool.
        progress (`float`, *optional*, defaults to `0.0`):
            Share of the training done, in [0, 1].

    Raises:
        `ValueError`: The shapes differ, or `mask` is not boolean.
    """

    log_probs: Tensor
    entropies: Tensor
    mask: Tensor
    progress: float = 0.0

    def __post_init__(self):
        shapes = [tuple(value.shape) for value in (self.log_probs, self.entropies, self.mask)]
        if len(set(shapes)) > 1 or self.mask.dim() != 2:
            raise ValueError(f"`log_probs`, `entropies` and `mask` must have one shape (B, C), got {shapes}.")
        if self.mask.dtype != torch.bool:
            raise ValueError(f"`mask` must be boolean, got dtype {self.mask.dtype}.")

    @property
    def positions(self) -> Tensor:
        """Place of each token in its completion, from 0; tokens of tools have one as well. Shape `(B, C)`."""
        return torch.arange(self.mask.shape[1], device=self.mask.device).expand(self.mask.shape)

    @property
    def lengths(self) -> Tensor:
        """Tokens of each completion that are in the loss. Shape `(B,)`."""
        return self.mask.sum(dim=1)

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values`, `(B, C)`, over the tokens in the loss; NaN without one. Shape `(B,)`."""
        return torch.where(self.mask, values, 0).sum(dim=1) / self.lengths


class AdvantageEstimator(Protocol):
    """
    Turns the rewards of a batch of groups into one advantage per completion, in the same order.

    Any callable with this signature works. It may have more members, which trainers look for:

        min_group_size: int                            it cannot work on smaller groups: refused before a model loads
        min_group_size_with_signal: int                in smaller groups every advantage is 0: warned of
        needs_entropies: bool                          it reads `groups.entropies`
        needs_log_probs: bool                          it reads `groups.log_probs`
        needs_answers: bool                            it reads `groups.answer_ids`
        needs_history: bool                            it reads `groups.history`
        rows_in_loss(groups) -> Tensor of bool (T,)    the others are left out of the loss and its normalizer
        drops_rows: bool                               whether `rows_in_loss`, if there is one, ever leaves any out
        shape_tokens(advantages, tokens) -> Tensor     from `(B,)` or `(B, C)` and the tokens of these completions to
                                                       an advantage for each token, `(B, C)`
        shapes_tokens: bool                            whether `shape_tokens`, if there is one, ever does that

    What each costs: entropies, log-probabilities and the tokens together one forward pass over the batch, or nothing
    where TRL needs the old log-probabilities anyway (several optimizer steps on a batch, or vLLM with its importance
    sampling correction). Answers cost a digest of each, in time linear in its length, and need a correctness reward
    that logs `extracted_answer`. The history costs 48 bytes for each prompt of the training set, which must be a
    `Dataset`; the trainer then reads its rows in the order of its own.

    Tokens are shaped last, row by row: by the process that holds a completion, after all that an estimator and those
    around it do to its advantage.
    """

    def __call__(self, groups: RolloutGroups, /) -> Tensor: ...  # (T,)


def estimate_advantages(estimator: AdvantageEstimator, groups: RolloutGroups) -> Tensor:
    """
    What each completion is worth, 0 without a reward. Shape `(T,)`.

    Raises:
        `ValueError`: The estimator returned anything other than one finite number per completion.
    """
    advantages = estimator(groups)
    if not isinstance(advantages, Tensor) or advantages.shape != groups.rewards.shape:
        found = tuple(advantages.shape) if isinstance(advantages, Tensor) else type(advantages).__name__
        raise ValueError(
            f"The advantage estimator {estimator!r} must return a tensor of shape {tuple(groups.rewards.shape)}, one "
            f"advantage per completion, got {found}."
        )
    advantages = advantages.detach().to(groups.rewards.device)
    advantages = torch.where(groups.scored, advantages, 0.0).to(groups.rewards.dtype)
    if not advantages.isfinite().all():
        raise ValueError(
            f"The advantage estimator {estimator!r} returned {int((~advantages.isfinite()).sum())} advantages that "
            f"are NaN or infinite, for completions that have a reward."
        )
    return advantages
