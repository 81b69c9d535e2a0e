"""Which prompts come next: the order of the training set, and what a selection makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from ..checks import check_integer, check_not_negative, check_positive, check_share
from .history import PromptHistory


@dataclass(frozen=True, eq=False)
class PromptChoice:
    """
    What a selection chooses from.

    Args:
        upcoming (`np.ndarray` of shape `(R,)`): rows of the training set, each once, in the order in which they come
            next; without those that are in the batch already.
        num_prompts (`int`): how many are wanted, at most R.
        places (`np.ndarray` of shape `(R,)`): where the prompt of each of these rows is in the history.
        history ([`PromptHistory`]): what is known of them.
        seed (`int`): for random choices: the same on every process, another one for every choice.
        progress (`float`): share of the training done, in [0, 1].
    """

    upcoming: np.ndarray
    num_prompts: int
    places: np.ndarray
    history: PromptHistory
    seed: int
    progress: float


class PromptSelection(Protocol):
    """
    Says which prompts come next. A user's own class with this member works as well.

    The first process asks it, for all. One that remembers something has `state_dict()` and `load_state_dict(state)`
    as well: then a checkpoint holds what it remembers.
    """

    def __call__(self, choice: PromptChoice) -> tuple[np.ndarray, int]:
        """
        Returns:
            `tuple[np.ndarray, int]`: `num_prompts` indices into `upcoming`, and how many of the first of `upcoming`
            are done with: the next choice begins after them.
        """
        ...


def state_of_selection(selection: Any) -> dict[str, Any] | None:
    """What a checkpoint must hold of a selection; None of one that remembers nothing."""
    return selection.state_dict() if hasattr(selection, "state_dict") else None


def restore_selection(selection: Any, state: dict[str, Any] | None) -> None:
    """Gives a selection back what [`state_of_selection`] returned."""
    if state is not None and hasattr(selection, "load_state_dict"):
        selection.load_state_dict(state)


class PromptSource:
    """
    The rows of a training set in the order in which they are trained on. The same on every process.

    Without a selection the order is TRL's own: that of the set, or of one permutation for each epoch. Other than
    there, a batch that the end of an epoch cuts short goes on with the next one; a row of that one that is in the
    batch already is passed over and so has one visit less.

    Args:
        num_rows (`int`): of the training set.
        shuffle (`bool`): whether each epoch has an order of its own.
        seed (`int`): of these orders.
    """

    def __init__(self, num_rows: int, *, shuffle: bool, seed: int):
        self.num_rows, self.shuffle, self.seed = num_rows, shuffle, seed
        self.epoch = self.position = self.choices = 0
        self._orders: dict[int, np.ndarray] = {}
        self._generator, self._drawn = torch.Generator().manual_seed(seed), 0

    def take(
        self,
        num_prompts: int,
        selection: PromptSelection | None = None,
        *,
        history: PromptHistory | None = None,
        places: np.ndarray | None = None,
        without: Sequence[int] = (),
        progress: float = 0.0,
    ) -> np.ndarray:
        """
        The next rows, `(num_prompts,)`, or fewer if the training set has no more.

        Args:
            selection ([`PromptSelection`], *optional*): what chooses them; by default they come in order.
            history ([`PromptHistory`], *optional*), places (`np.ndarray` of shape `(num_rows,)`, *optional*): what it
                knows, and where the prompt of each row is in it.
            without (`Sequence[int]`): rows that are in the batch already.
            progress (`float`): share of the training done.

        Raises:
            `ValueError`: The selection returned anything but as many different indices, and how many are done with.
        """
        used = np.zeros(self.num_rows, bool)
        used[list(without)] = True
        rest, following = self._order(self.epoch)[self.position :], self._order(self.epoch + 1)
        of_rest = np.flatnonzero(~used[rest])
        used[rest] = True
        of_next = np.flatnonzero(~used[following])
        upcoming = np.concatenate([rest[of_rest], following[of_next]])
        steps = np.concatenate([of_rest, len(rest) + of_next]) + 1  # to be after each of them
        num_prompts = min(num_prompts, len(upcoming))
        if selection is None:
            chosen, done = np.arange(num_prompts), num_prompts
        else:
            assert history is not None and places is not None
            seed = self.seed * 2**32 + self.choices
            answer = selection(PromptChoice(upcoming, num_prompts, places[upcoming], history, seed, progress))
            chosen, done = self._check(selection, answer, num_prompts, len(upcoming))
        self.choices += 1
        self.position += int(steps[done - 1]) if done else 0
        while self.position >= self.num_rows:
            self._orders.pop(self.epoch, None)
            self.epoch, self.position = self.epoch + 1, self.position - self.num_rows
        return upcoming[chosen]

    def _check(self, selection: Any, answer: Any, wanted: int, num_upcoming: int) -> tuple[np.ndarray, int]:
        must = f"The selection {selection!r} must return {wanted} different indices from 0 to {num_upcoming - 1}, and"
        must += f" how many of {num_upcoming} rows are done with"
        try:
            chosen, done = answer
            chosen, done = np.asarray(chosen), int(done)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{must}, got {answer!r}.") from error
        alike = chosen.shape == (wanted,) and np.issubdtype(chosen.dtype, np.integer) and 0 <= done <= num_upcoming
        if not alike or not ((chosen >= 0) & (chosen < num_upcoming)).all() or len(np.unique(chosen)) < wanted:
            raise ValueError(f"{must}, got {answer!r}.")
        return chosen, done

    def _order(self, epoch: int) -> np.ndarray:
        if not self.shuffle:
            return np.arange(self.num_rows)
        if epoch < self._drawn and epoch not in self._orders:  # of the past
            self._generator, self._drawn = torch.Generator().manual_seed(self.seed), 0
        for drawn in range(self._drawn, epoch + 1):
            order = torch.randperm(self.num_rows, generator=self._generator)
            if drawn >= self.epoch:
                self._orders[drawn] = order.numpy()
            self._drawn = drawn + 1
        return self._orders[epoch]

    def state_dict(self) -> dict[str, int]:
        """Where the training is in the order, for a checkpoint."""
        return {
            "num_rows": self.num_rows,
            "epoch": self.epoch,
            "position": self.position,
            "choices": self.choices,
        }

    def load_state_dict(self, state: dict[str, int]) -> None:
        """
        Restores what `state_dict` returned.

        Raises:
            `ValueError`: It is of a training set of another size.
        """
        if state["num_rows"] != self.num_rows:
            raise ValueError(
                f"The checkpoint was in the middle of a training set of {state['num_rows']} rows, and this one has "
                f"{self.num_rows}."
            )
        self.epoch, self.position, self.choices = state["epoch"], state["position"], state["choices"]


@dataclass(frozen=True)
class SkipSolved:
    """
    Passes over prompts that are solved, all but a share of them (the no-resampling rate of open-instruct).

    The training set is gone through in its order. A prompt that was seen at least `min_samples` times with a
    predicted accuracy of at least `threshold` is passed over with the probability `skip_rate`, drawn anew each time:
    what is solved comes back, and is taken up again if the model has lost it. Where the whole set does not hold as
    many prompts as are wanted, those that were passed over follow, in their order.

    Args:
        threshold (`float`, *optional*, defaults to `0.9`): predicted accuracy above 0, at most 1.
        skip_rate (`float`, *optional*, defaults to `0.9`): share of the solved prompts that are passed over.
        min_samples (`int`, *optional*, defaults to `1`): judged completions without which a prompt is not solved.

    Raises:
        `ValueError`: A setting is out of its range.
    """

    threshold: float = 0.9
    skip_rate: float = 0.9
    min_samples: int = 1

    def __post_init__(self):
        for name in ("threshold", "skip_rate"):
            check_share(name, getattr(self, name), above_zero=True)
        check_integer("min_samples", self.min_samples, at_least=1)

    def __call__(self, choice: PromptChoice) -> tuple[np.ndarray, int]:
        history = choice.history
        solved = history.samples[choice.places] >= self.min_samples
        solved &= history.accuracy(choice.places) >= self.threshold
        skipped = solved & (np.random.default_rng(choice.seed).random(len(solved)) < self.skip_rate)
        # those that are wanted, then those that were passed over, each in their order
        chosen = np.argsort(skipped, kind="stable")[: choice.num_prompts]
        return chosen, int(chosen.max(initial=-1)) + 1


@dataclass(frozen=True)
class TargetAccuracy:
    """
    Prompts that are neither too easy nor too hard, by Thompson sampling (MoPPS, arXiv 2507.04632).

    An accuracy is drawn from the Beta posterior of each candidate, and the candidates whose draw is nearest to
    `target` are taken: those that are known to be right, and those of which little is known. Candidates are the next
    `candidates` times as many prompts as are wanted, in the order of the training set; those that are not taken are
    passed over until they come again.

    Args:
        target (`float`, *optional*, defaults to `0.5`): accuracy in [0, 1]; at 1/2 the rewards vary most.
        candidates (`float`, *optional*, defaults to `4.0`): candidates for each prompt that is wanted, at least 1.

    Raises:
        `ValueError`: A setting is out of its range.
    """

    target: float = 0.5
    candidates: float = 4.0

    def __post_init__(self):
        check_share("target", self.target)
        check_positive("candidates", self.candidates)
        if self.candidates < 1:
            raise ValueError(f"`candidates` must be at least 1, got {self.candidates!r}.")

    def __call__(self, choice: PromptChoice) -> tuple[np.ndarray, int]:
        count = min(int(self.candidates * choice.num_prompts), len(choice.upcoming))
        alpha, beta = choice.history.posterior(choice.places[:count])
        drawn = np.random.default_rng(choice.seed).beta(alpha, beta)
        nearest = np.argsort(np.abs(drawn - self.target), kind="stable")[: choice.num_prompts]
        return np.sort(nearest), count


@dataclass(frozen=True)
class DifficultyPool:
    """
    Hard, normal and easy prompts, each drawn with the weight of its pool (the difficulty pools of prime-rl).

        accuracy  ≤ hard          hard      what seems hopeless
                  ≤ easy          normal
                  > easy          easy      what is solved
        never judged              weight 1

    The whole training set is drawn from, for each prompt of a batch in turn, without those that are in it already: a
    prompt of a pool of weight 0.2 comes a fifth as often as one of weight 1. There are no epochs; what moves to
    another pool is drawn at that pool's rate from then on. Prompts of weight 0 come only where there are too few
    others to fill a batch.

    The accuracy is the share of the discounted completions in the history that are correct, without the prior. With
    `discount` 0 of the history it is that of the last group, by which prime-rl sorts; it takes the mean reward.

    Args:
        hard (`float`, *optional*, defaults to `0.25`): accuracy up to which a prompt is hard, in [0, 1].
        easy (`float`, *optional*, defaults to `0.75`): accuracy above which it is easy, at least `hard`.
        hard_weight (`float`, *optional*, defaults to `0.2`): at least 0, as are the other two.
        normal_weight (`float`, *optional*, defaults to `1.0`): of what is between.
        easy_weight (`float`, *optional*, defaults to `0.2`): of easy prompts.

    Raises:
        `ValueError`: A setting is out of its range, or all three weights are 0.
    """

    hard: float = 0.25
    easy: float = 0.75
    hard_weight: float = 0.2
    normal_weight: float = 1.0
    easy_weight: float = 0.2

    def __post_init__(self):
        check_share("hard", self.hard)
        check_share("easy", self.easy)
        if self.easy < self.hard:
            raise ValueError(f"`easy` must be at least `hard`={self.hard}, got {self.easy!r}.")
        for name in ("hard_weight", "normal_weight", "easy_weight"):
            check_not_negative(name, getattr(self, name))
        if not self.hard_weight + self.normal_weight + self.easy_weight > 0:
            raise ValueError(
                "`hard_weight`, `normal_weight` and `easy_weight` are all 0: no prompt would be drawn twice."
            )

    def __call__(self, choice: PromptChoice) -> tuple[np.ndarray, int]:
        right, wrong = (of[choice.places] for of in (choice.history.recent_correct, choice.history.recent_wrong))
        seen = choice.history.samples[choice.places] > 0
        accuracy = right / np.maximum(right + wrong, np.finfo(np.float32).tiny)
        pools = [accuracy <= self.hard, accuracy <= self.easy]
        weights = np.select([~seen, *pools], [1.0, self.hard_weight, self.normal_weight], self.easy_weight)
        # the first of clocks that ring at these rates; those that never ring follow in any order
        drawn = np.random.default_rng(choice.seed).exponential(size=len(weights))
        rings = np.divide(drawn, weights, out=np.full(len(weights), np.inf), where=weights > 0)
        return np.lexsort((drawn, rings))[: choice.num_prompts], 0
