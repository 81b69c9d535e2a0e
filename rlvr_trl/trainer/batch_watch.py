"""What no setting shows before the first batch, and would otherwise go unsaid: batches that train nothing, prompts
that do not fit.

Each of these is a warning, on the main process, once a run: what has been said, or can no longer happen, is in the
checkpoints. The rewards of a batch are the same on every process, so nothing here waits for another one.
"""

import warnings

import torch
from torch import Tensor

from ..advantages import RolloutGroups
from ..evaluation.engines.prompts import beyond_context_message, context_of, two_bos_message


# What is looked at before anything is said: a single batch may hold one prompt
BATCHES, PROMPTS = 5, 50

NO_CORRECT, NO_ADVANTAGE = "no completion is correct", "no completion has an advantage"
BEYOND_CONTEXT, TWO_BOS = "prompts beyond the context", "two BOS tokens"


class BatchWatch:
    """
    Warns of batches that train nothing, and of prompts that the model was not made for.

    Args:
        correctness_reward (`str`): name of the function that says which completions are correct.
        correctness_threshold (`float`): a completion is correct above it.
        advantages (`AdvantageEstimator`): the estimator, for its name.
        context (`int`, *optional*): tokens of prompt and completion that the model takes; None without a limit.
        max_completion_length (`int`, *optional*): longest completion; None without a limit.
        bos_token_id (`int`, *optional*): the token that begins a text; None without one.
        is_main (`bool`): whether this process warns.
    """

    def __init__(
        self,
        *,
        correctness_reward: str,
        correctness_threshold: float,
        advantages,
        context: int | None,
        max_completion_length: int | None,
        bos_token_id: int | None,
        is_main: bool,
    ):
        self.correctness_reward, self.correctness_threshold = correctness_reward, correctness_threshold
        self.advantages, self.context, self.longest_completion = advantages, context, max_completion_length
        self.bos_token_id, self.is_main = bos_token_id, is_main
        self.open = {NO_CORRECT, NO_ADVANTAGE}  # what can still be warned of
        self.open |= {BEYOND_CONTEXT} if context is not None else set()
        self.open |= {TWO_BOS} if bos_token_id is not None else set()
        self._first = _Seen()  # the first batches
        self._idle = _Seen()  # the last batches, all without an advantage

    def state_dict(self) -> list[str]:
        return sorted(self.open)

    def load_state_dict(self, state: list[str]) -> None:
        self.open &= set(state)

    def see_batch(self, groups: RolloutGroups, advantages: Tensor, correctness: Tensor) -> None:
        """
        Args:
            groups ([`RolloutGroups`]): the groups of a batch, all processes.
            advantages (`Tensor` of shape `(T,)`): their advantages.
            correctness (`Tensor` of shape `(T,)`): rewards of the function that says what is correct; NaN for none.
        """
        if NO_CORRECT in self.open:
            self._first.add(groups, correctness)
            if self._first.highest > self.correctness_threshold:
                self.open.remove(NO_CORRECT)
            elif self._first.is_enough and self._first.lowest < self._first.highest:
                self._warn(NO_CORRECT, self._no_correct())
        if NO_ADVANTAGE in self.open:
            if advantages.any():
                self._idle = _Seen()
                return
            self._idle.add(groups, correctness)
            if self._idle.is_enough:
                self._warn(NO_ADVANTAGE, self._no_advantage())

    def see_prompts(self, lengths: Tensor, two_bos: Tensor) -> None:
        """
        Args:
            lengths (`Tensor` of shape `(T,)`): tokens of the prompt of each completion.
            two_bos (`Tensor` of shape `(T,)`): whether it begins with two BOS tokens.
        """
        if BEYOND_CONTEXT in self.open:
            assert self.context is not None
            beyond = int((lengths + (self.longest_completion or 0) > self.context).sum())
            if beyond:
                self._warn(
                    BEYOND_CONTEXT,
                    beyond_context_message(
                        f"The prompts of {beyond} of {len(lengths)} completions",
                        int(lengths.max()),
                        self.context,
                        f"`max_completion_length`={self.longest_completion}",
                    ),
                )
        if TWO_BOS in self.open and two_bos.any():
            which = f"The prompts of {int(two_bos.sum())} of {len(two_bos)} completions"
            self._warn(TWO_BOS, two_bos_message(which))

    def _warn(self, what: str, message: str) -> None:
        self.open.remove(what)
        if self.is_main:
            warnings.warn(message, stacklevel=3)

    def _no_correct(self) -> str:
        seen = self._first
        return (
            f"The rewards of '{self.correctness_reward}' were between {seen.lowest:g} and {seen.highest:g} in the "
            f"first {seen}: never above `correctness_threshold`={self.correctness_threshold:g}, so no completion "
            f"counts as correct. Rollout allocators, estimators that read accuracy, `groups/*` and pass@k take every "
            f"prompt for an unsolved one. If some of these completions are right, set `correctness_threshold` below "
            f"the reward of a right one, or `correctness_reward` to the function that tells."
        )

    def _no_advantage(self) -> str:
        seen = self._idle
        mixed = seen.prompts - seen.all_wrong - seen.all_right - seen.unjudged
        counts = (seen.all_wrong, seen.all_right, mixed, seen.unjudged)
        wrong, right, both, unjudged = (f"{count / seen.prompts:.0%}" for count in counts)
        causes = {
            "all wrong: look at completions (`log_completions=True`), then try easier prompts, a larger "
            "`num_generations` or `max_completion_length`": seen.all_wrong,
            "all right: leave out easy prompts (`filter_by_pass_rate`)": seen.all_right,
            "without a reward: the functions returned None": seen.unjudged,
            f"mixed, but {self.advantages!r} gave them no advantage: check its settings, and the reward": mixed,
        }
        advice = max(causes, key=lambda cause: causes[cause])
        return (
            f"Every completion of the last {seen} had the advantage 0, so their rewards trained nothing: the "
            f"completions of {wrong} of the prompts were all wrong, of {right} all right, of {both} mixed; {unjudged} "
            f"of the prompts had no completion that could be judged. Most are {advice}."
        )


def context_of_trainer(trainer) -> int | None:
    """Tokens of prompt and completion that the model, or a vLLM in this process, takes; None without a limit."""
    limits = [context_of(trainer.model.config)]
    if trainer.use_vllm and trainer.vllm_mode == "colocate":
        limits.append(trainer.args.vllm_max_model_length)
    return min((limit for limit in limits if limit is not None), default=None)


class _Seen:
    """What some batches held."""

    def __init__(self):
        self.batches = self.prompts = self.all_wrong = self.all_right = self.unjudged = 0
        self.lowest, self.highest = float("inf"), -float("inf")

    def __str__(self) -> str:
        return f"{self.batches} batches, {self.prompts} prompts"

    @property
    def is_enough(self) -> bool:
        return self.batches >= BATCHES and self.prompts >= PROMPTS

    def add(self, groups: RolloutGroups, correctness: Tensor) -> None:
        judged = groups.num_judged > 0  # (P,)
        self.batches += 1
        self.prompts += groups.num_groups
        self.all_wrong += int((judged & (groups.num_correct == 0)).sum())
        self.all_right += int((judged & (groups.num_correct == groups.num_judged)).sum())
        self.unjudged += int((~judged).sum())
        known = correctness[~correctness.isnan()]
        if len(known):
            lowest, highest = torch.aminmax(known)
            self.lowest, self.highest = min(self.lowest, lowest.item()), max(self.highest, highest.item())
