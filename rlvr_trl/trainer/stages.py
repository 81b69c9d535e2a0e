"""Sampling a batch in stages: first every prompt, then extra completions for those that an allocator names.

Extra completions go through TRL's own generation, with one generation per row, spread evenly over the processes:

    extra = [0, 3, 0, 2]  ->  prompts 1 1 1 3 3  ->  process 0: 1 1 1    process 1: 3 3 (3)

So go the completions of prompts that join the batch later, and those of a first stage that gives prompts different
numbers of them. Prompts that are given up leave the batch at the end, with all their completions.

Every process generates the same number of rows, as vLLM's server mode and tensor parallelism need. The last process
may need filler for that, which is generated, scored and dropped. In the first stage, whose groups TRL wants whole,
filler is the first prompts of the batch again, as the data loader has added them (`WithFiller`): rewards that compare
the completions of a prompt see those of one process, and there no prompt meets its filler. A process that has nothing
else keeps one row of it, masked out, to make the same passes as the others.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, cycle, islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor
from torch.utils.data import Sampler

from ..advantages import AdvantageEstimator, RolloutGroups
from ..checks import check_integer
from ..distributed import Processes
from ..rollouts import PromptSource, within_budget
from ..rollouts.allocator import Allocation, BatchAllocator, RolloutBatch, check_counts_of
from ..trl_compat import split_pixel_values_by_grid
from .batch_layout import loss_mask, merge, some_rows
from .metrics import Captured
from .rollout import GenerationRecord


class WithFiller(Sampler[int]):
    """
    What `sampler` yields, and after every `num_rows`, which are a batch, the first `num_filler` of these rows again.

    TRL's sampler and accelerate would take the filler of a batch from the next one, or from the first.
    """

    def __init__(self, sampler: Sampler[int], num_rows: int, num_filler: int):
        self.sampler, self.num_rows, self.num_filler = sampler, num_rows, num_filler

    def __iter__(self) -> Iterator[int]:
        batch = []
        for row in self.sampler:
            yield row
            batch.append(row)
            if len(batch) == self.num_rows:
                yield from islice(cycle(batch), self.num_filler)
                batch = []

    def __len__(self) -> int:
        num_rows = len(self.sampler)  # pyrefly: ignore[bad-argument-type]  # torch does not say that samplers have one
        return num_rows // self.num_rows * (self.num_rows + self.num_filler)


def stream_with_filler(prompts: IterableDataset, num_prompts: int, num_filler: int) -> IterableDataset:
    """The same for a stream of prompts, before TRL repeats each of them; an incomplete last batch is left out."""

    def fill(batch: dict[str, list]) -> dict[str, list]:
        return {name: values + list(islice(cycle(values), num_filler)) for name, values in batch.items()}

    return prompts.map(fill, batched=True, batch_size=num_prompts, drop_last_batch=True)


@dataclass(frozen=True)
class Stage:
    """
    The completions of one stage, without filler.

    Args:
        record ([`GenerationRecord`]): what was made.
        prompts (`Tensor` of shape `(T,)`): prompt of each completion of all processes, as an index into the batch.
        start (`int`): where the rows of this process begin among them.
        captured ([`Captured`]): metrics and logs that TRL wrote.
        seconds (`float`): how long it took.
        spare (`dict`): one row that this process made, as a batch, with its completion masked out.
        rows (`Tensor` of shape `(T,)`, *optional*): which of all completions that were made these are.
    """

    record: GenerationRecord
    prompts: Tensor
    start: int
    captured: Captured
    seconds: float
    spare: dict
    rows: Tensor | None = None


def without_filler(
    record: GenerationRecord, prompts: Tensor, captured: Captured, seconds: float, process_index: int
) -> Stage:
    """The record as a stage, cut to its first `len(prompts)` completions over the processes; the rest is filler."""
    batch = split_pixel_values_by_grid(record.batch)  # images as one entry per row
    spare = some_rows(batch, torch.arange(1))
    spare["completion_mask"] = torch.zeros_like(spare["completion_mask"])
    whole = Stage(replace(record, batch=batch), prompts, process_index * record.num_local, captured, seconds, spare)
    return only(whole, torch.arange(len(prompts)))


def only(stage: Stage, rows: Tensor) -> Stage:
    """Some completions of a stage, `rows` of shape `(T,)` among those of all processes, ascending. On the CPU."""
    own = (rows >= stage.start) & (rows < stage.start + stage.record.num_local)
    kept = rows.to(stage.prompts.device)
    return replace(
        stage,
        record=replace(
            some_completions(stage.record, kept), batch=some_rows(stage.record.batch, rows[own] - stage.start)
        ),
        prompts=stage.prompts[kept],
        start=int((rows < stage.start).sum()),
        rows=rows if stage.rows is None else stage.rows[rows],
    )


def some_completions(record: GenerationRecord, rows: Tensor) -> GenerationRecord:
    """What is known of some completions of a record, `rows` of shape `(T,)`; its batch stays as it is."""
    names = ("rewards_per_func", "lengths", "truncated", "entropies", "log_probs", "answer_ids")
    known = {name: values for name in names if (values := getattr(record, name)) is not None}
    return replace(record, **{name: values[rows] for name, values in known.items()})


def without_prompts(stages: list[Stage], dropped: Tensor) -> tuple[list[Stage], Tensor]:
    """
    The stages without the completions of dropped prompts, `dropped` of shape `(P,)`, and the others numbered anew; and
    which prompts stay, boolean, `(P,)`.

    If no completion is left all stay: then none of the prompts has a signal.
    """
    if all(dropped[stage.prompts.cpu()].all() for stage in stages):
        dropped = torch.zeros_like(dropped)
    number = (~dropped).cumsum(0) - 1  # (P,)
    kept = [only(stage, (~dropped)[stage.prompts.cpu()].nonzero().flatten()) for stage in stages]
    return [replace(stage, prompts=number.to(stage.prompts.device)[stage.prompts]) for stage in kept], ~dropped


def first_stages(stages: list[Stage]) -> list[Stage]:
    """The completions that every prompt got in the first stage that gave it any."""
    seen, first = torch.empty(0, dtype=torch.long), []
    for stage in stages:
        prompts = stage.prompts.cpu()
        first.append(only(stage, (~torch.isin(prompts, seen)).nonzero().flatten()))
        seen = torch.cat([seen, prompts])
    return first


class BatchRows:
    """
    The rows of the training set that a batch is made of, one for each of its prompts.

    Without a source they are those that the data loader gave, of which each process has a part. With one, its rows
    take their place: the data loader then only says that a batch is due.

    Args:
        accelerator (`Accelerator`): the trainer's.
        inputs (`list[dict]`): this process's rows of the first stage, each prompt `num_generations` times.
        num_prompts (`int`), num_generations (`int`): of the batch, without filler.
        dataset (`Dataset`, *optional*), source ([`PromptSource`], *optional*): where the prompts come from.
        choose (`dict`): further arguments of [`~PromptSource.take`].
    """

    def __init__(
        self,
        accelerator: Accelerator,
        inputs: list[dict],
        num_prompts: int,
        num_generations: int,
        *,
        dataset: Dataset | None = None,
        source: PromptSource | None = None,
        choose: dict[str, Any] | None = None,
    ):
        self._accelerator, self._num_generations = accelerator, num_generations
        self._inputs = [dict(row) for row in inputs]  # scoring may write into its rows
        self._dataset, self._source, self._choose = dataset, source, choose or {}
        self.rows: list[int] = []  # of the training set, if there is a source
        self.count = num_prompts
        if source is not None:
            self.count = 0
            self.more(num_prompts)

    def more(self, count: int) -> int:
        """
        Adds prompts to the batch. Returns how many there were left, at most `count`.

        The first process chooses for all: what is drawn at random need not be the same on every machine.
        """
        assert self._source is not None
        processes = Processes(PartialState())
        rows = np.empty(0, np.int64)
        with processes.agreed("choosing prompts"):
            if processes.is_main:
                rows = self._source.take(count, without=self.rows, **self._choose)
        rows, state = processes.broadcast((rows.tolist(), self._source.state_dict()))
        self._source.load_state_dict(state)
        self.rows += rows
        self.count = len(self.rows)
        return len(rows)

    def whole_groups(self) -> list[dict]:
        """This process's share of the first stage, each prompt `num_generations` times, and filler at the end."""
        if self._source is None:
            return [dict(row) for row in self._inputs]
        per_process = len(self._inputs)
        first = self._accelerator.process_index * per_process
        rows = range(first, first + per_process)
        return self._read([row // self._num_generations % self.count for row in rows])

    def share(self, prompts: Tensor) -> list[dict]:
        """
        This process's share of one row per entry of `prompts`, filler included.

        Args:
            prompts (`Tensor` of shape `(E,)`): prompts that get a completion, in ascending order.
        """
        per_process = math.ceil(len(prompts) / self._accelerator.num_processes)
        begin = self._accelerator.process_index * per_process
        share = prompts.tolist()[begin : begin + per_process]
        share += [int(prompts[-1])] * (per_process - len(share))
        return self._read(share) if self._source is not None else self._from_others(prompts, share)

    def _read(self, prompts: list[int]) -> list[dict]:
        assert self._dataset is not None
        return [dict(self._dataset[self.rows[prompt]]) for prompt in prompts]

    def _from_others(self, prompts: Tensor, share: list[int]) -> list[dict]:
        first = self._accelerator.process_index * len(self._inputs)
        owned = [
            (prompt, self._inputs[prompt * self._num_generations - first])
            for prompt in torch.unique(prompts).tolist()
            if 0 <= prompt * self._num_generations - first < len(self._inputs)
        ]
        row_of = dict(gather_object(owned))
        return [dict(row_of[prompt]) for prompt in share]


def view_of_batch(batch: RolloutBatch, groups: RolloutGroups, estimator: AdvantageEstimator) -> RolloutBatch:
    """
    What an allocator sees of a batch of which something was sampled.

    Args:
        batch ([`RolloutBatch`]): the same before.
        groups ([`RolloutGroups`]): what was sampled, whose `group_ids` are the prompts.
        estimator (`AdvantageEstimator`): decides which prompts have a signal.
    """
    sampled = torch.unique(groups.group_ids).cpu()  # (S,), the prompts that the groups are of
    rewards = torch.where(groups.scored, groups.rewards, 0).double()
    mean = groups.sum(rewards) / groups.num_scored
    deviation = torch.where(groups.scored, groups.rewards.double() - mean[groups.index], 0)
    assert groups.lengths is not None
    columns = {
        "num_samples": groups.sizes,
        "num_correct": groups.num_correct,
        "num_judged": groups.num_judged,
        "reward_mean": mean,
        "reward_variance": groups.sum(deviation**2) / groups.num_scored,
        "num_tokens": groups.sum(groups.lengths.long()),
    }

    def signal() -> Tensor:
        return torch.zeros_like(batch.dropped).scatter(0, sampled, has_signal(estimator, groups).cpu())

    return replace(
        batch,
        **{name: getattr(batch, name).scatter(0, sampled, values.cpu()) for name, values in columns.items()},
        find_signal=signal,
    )


def has_signal(estimator: AdvantageEstimator, groups: RolloutGroups) -> Tensor:
    """
    Whether the estimator gives any completion of a group an advantage other than 0. Boolean, `(P,)`.

    Where all rewards of a group are alike, they are rounded to 12 bits first: then their mean is exactly what each of
    them is, and what is left is what the estimator means and not an error of rounding.
    """
    padded = groups.pad(groups.rewards, torch.nan)
    lowest, highest = padded.nan_to_num(torch.inf).amin(dim=1), padded.nan_to_num(-torch.inf).amax(dim=1)
    alike = torch.isclose(lowest, highest)[groups.index]
    mantissa, exponent = torch.frexp(lowest[groups.index])
    rounded = torch.ldexp((mantissa * 2**12).round() / 2**12, exponent)
    rewards = torch.where(alike & groups.scored, rounded, groups.rewards)
    advantages = torch.where(groups.scored, estimator(replace(groups, rewards=rewards)), 0)
    return groups.sum((advantages != 0).long()) > 0


def ask_first_stage(allocator: BatchAllocator, batch: RolloutBatch, room: int | None) -> Tensor:
    """
    Completions of each prompt in its first stage, `(P,)`, at most `room` in all.

    Each prompt may have `num_generations` of them, which fit; where those above do not, the prompts that are
    predicted to be the hardest are served first.

    Raises:
        `ValueError`: The allocator returned anything but one non-negative integer per prompt, or exceeds its cap.
    """
    counts = check_counts_of(allocator, allocator.first_stage(batch), batch)
    usual = counts.clamp(max=batch.num_generations)
    if room is None or batch.history is None:
        correct, judged = batch.num_correct, batch.num_judged
    else:
        alpha, beta = batch.posterior()
        judged = torch.full_like(counts, 2**20)
        correct = (alpha / (alpha + beta) * 2**20).long()
    return usual + within_budget(counts - usual, correct, judged, None if room is None else room - int(usual.sum()))


def ask_next_stage(allocator: BatchAllocator, batch: RolloutBatch, room: int | None) -> Allocation:
    """
    What happens next, with at most `room` further completions, of which a new prompt takes `num_generations`.

    Raises:
        `ValueError`: The allocator returned anything but non-negative integers, drops what is not there or asks for
            prompts though it has said that it never does.
    """
    batch = replace(batch, room=room)
    asked = allocator(batch)
    if not isinstance(asked, Allocation):
        raise ValueError(f"The rollout allocator {allocator!r} must return an Allocation, got {asked!r}.")
    extra = check_counts_of(allocator, asked.extra, batch)
    drop = asked.drop
    if not isinstance(drop, Tensor) or drop.shape != batch.dropped.shape or drop.dtype != torch.bool:
        raise ValueError(
            f"The rollout allocator {allocator!r} must say of each of {len(batch)} prompts whether it is dropped, got "
            f"{drop!r}."
        )
    if (extra > 0)[batch.dropped | drop.cpu()].any():
        raise ValueError(f"The rollout allocator {allocator!r} asks for completions of a prompt that it drops.")
    check_integer("new_prompts", asked.new_prompts, at_least=0)
    if asked.new_prompts and not allocator.needs_new_prompts:
        raise ValueError(
            f"The rollout allocator {allocator!r} asks for {asked.new_prompts} new prompts, but its "
            f"`needs_new_prompts` is False."
        )
    extra = within_budget(extra, batch.num_correct, batch.num_judged, room)
    new_prompts = asked.new_prompts
    if room is not None:
        new_prompts = min(new_prompts, (room - int(extra.sum())) // batch.num_generations)
    return Allocation(extra, drop.cpu(), new_prompts)


def merge_stages(accelerator: Accelerator, stages: list[Stage], pad_token_id: int) -> dict:
    """The rows of this process from all stages as one batch of TRL's form; where there is none, one row of filler."""
    output = merge([stage.record.batch for stage in stages], pad_token_id)
    if len(output["prompt_ids"]) == 0:
        output = stages[0].spare
    output["num_items_in_batch"] = accelerator.gather(loss_mask(output).sum()).sum()
    return output


def local_rows(stages: list[Stage]) -> Tensor:
    """Indices of this process's rows of the merged batch among those of all processes, -1 for filler. `(B,)`."""
    offsets = accumulate((len(stage.prompts) for stage in stages), initial=0)
    rows = torch.cat(
        [
            torch.arange(offset + stage.start, offset + stage.start + stage.record.num_local)
            for offset, stage in zip(offsets, stages, strict=False)
        ]
    )
    return rows if len(rows) else torch.tensor([-1])
