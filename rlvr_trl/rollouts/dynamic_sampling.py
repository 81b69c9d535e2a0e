"""Dynamic sampling (DAPO, arXiv 2503.14476, Eq. 11): prompts without a gradient are replaced by others."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_integer
from .allocator import Allocation, BatchAllocator, RolloutAllocator, RolloutBatch, as_batch_allocator, check_counts_of


@dataclass
class DynamicSampling:
    """
    Gives up the prompts whose whole group gets no advantage and asks for others, until the batch is full (DAPO).

    The paper keeps prompts with 0 < accuracy < 1, which for GRPO are those with an advantage. Here the estimator
    decides: Pass@k also gives nothing to a group with few wrong completions, and NSR something to one without a
    correct one. Prompts are asked for as many at a time as are missing, divided by the share of those so far that had
    a signal, and at least as many as are missing; what is then too many is given up, the last first. At a cap the
    batch is trained on as it is, with fewer prompts.

    Args:
        max_prompts (`int`, *optional*):
            Prompts sampled for one batch at most, not below those of the batch. 10 times as many by default, which is
            ours: the paper has no cap, and the released recipe of DAPO has one of 10 rounds of 3 times as many, at
            which it stops with an error.
        max_rollouts (`int`, *optional*): completions sampled for one batch, after which no more prompts come.
        max_tokens (`int`, *optional*): tokens sampled for one batch, after which no more prompts come.
        base (`RolloutAllocator`, *optional*):
            Another allocator, [`DARS`] for instance, which is asked first: prompts are given up when it asks for
            nothing more. One that itself asks for other prompts is refused.

    Raises:
        `ValueError`: A cap is no integer of at least 1, or `base` asks for other prompts.
    """

    max_prompts: int | None = None
    max_rollouts: int | None = None
    max_tokens: int | None = None
    base: RolloutAllocator | BatchAllocator | None = None

    def __post_init__(self):
        for name in ("max_prompts", "max_rollouts", "max_tokens"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), at_least=1)
        self._base = None if self.base is None else as_batch_allocator(self.base)
        if self._base is not None and self._base.needs_new_prompts:
            raise ValueError(f"`base` must not ask for other prompts itself, got {self.base!r}.")

    needs_new_prompts = True

    @property
    def parts(self) -> tuple:
        """What it holds, which has a paper of its own."""
        return () if self.base is None else (self.base,)

    @property
    def needs_history(self) -> bool:
        return self._base is not None and self._base.needs_history

    @property
    def max_generations(self) -> int | None:
        """That of `base`; without one there is no cap, since no prompt gets more than `num_generations`."""
        return None if self._base is None else self._base.max_generations

    def first_stage(self, batch: RolloutBatch) -> Tensor:
        if self._base is None:
            return torch.full((len(batch),), batch.num_generations)
        return self._base.first_stage(batch)

    def __call__(self, batch: RolloutBatch) -> Allocation:
        dropped = batch.dropped
        if self._base is not None:
            extra, dropped_now = self._asked_by_base(batch)
            if extra.any() and batch.room != 0:
                return Allocation(extra, dropped_now)
            dropped = dropped | dropped_now
        in_batch = batch.has_signal & ~dropped
        missing = batch.num_prompts - int(in_batch.sum())
        # of those with a signal the first ones stay
        keep = in_batch & (in_batch.cumsum(0) <= batch.num_prompts)
        return Allocation(torch.zeros_like(batch.num_samples), ~keep & ~batch.dropped, self._more(batch, missing))

    def _asked_by_base(self, batch: RolloutBatch) -> tuple[Tensor, Tensor]:
        """
        What `base` asks for and what it drops, `(P,)` each. It is told of every prompt how many stages that one has
        had.
        """
        assert self._base is not None
        extra, drop, left = torch.zeros_like(batch.num_samples), torch.zeros_like(batch.dropped), ~batch.dropped
        for stages in torch.unique(batch.num_stages[left]).tolist():
            prompts = (left & (batch.num_stages == stages)).nonzero().flatten()
            part = batch.part(prompts, max(stages, 1))
            asked = self._base(part)
            extra[prompts], drop[prompts] = check_counts_of(self.base, asked.extra, part), asked.drop
        return extra, drop

    def _more(self, batch: RolloutBatch, missing: int) -> int:
        """Prompts to ask for when `missing` are."""
        with_signal, sampled = int(batch.has_signal.sum()), len(batch)
        most = 10 * batch.num_prompts if self.max_prompts is None else self.max_prompts
        for used, cap in ((batch.num_samples.sum(), self.max_rollouts), (batch.num_tokens.sum(), self.max_tokens)):
            if cap is not None:  # as many as fit, if they take what those so far have taken
                most = min(most, sampled * cap // max(int(used), 1))
        wanted = -(-missing * sampled // with_signal) if with_signal else batch.num_prompts
        return max(0, min(wanted, most - sampled)) if missing > 0 else 0

    def state_dict(self) -> dict[str, Any]:
        return {} if self._base is None else {"base": self._base.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._base is not None:
            self._base.load_state_dict(state["base"])
