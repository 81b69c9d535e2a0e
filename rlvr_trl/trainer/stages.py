"""Sampling a batch in stages: first every prompt, then extra completions for those that an allocator names.

Extra completions go through TRL's own generation, with one generation per row, spread evenly over the processes:

    extra = [0, 3, 0, 2]  ->  prompts 1 1 1 3 3  ->  process 0: 1 1 1    process 1: 3 3 (3)

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

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from datasets import IterableDataset
from torch import Tensor
from torch.utils.data import Sampler

from ..advantages import RolloutGroups
from ..rollouts import RolloutAllocator, within_budget
from ..trl_compat import split_pixel_values_by_grid
from .batch_layout import first_rows, loss_mask, merge
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
    """

    record: GenerationRecord
    prompts: Tensor
    start: int
    captured: Captured
    seconds: float
    spare: dict


def without_filler(
    record: GenerationRecord, prompts: Tensor, captured: Captured, seconds: float, process_index: int
) -> Stage:
    """The record as a stage, cut to its first `len(prompts)` completions over the processes; the rest is filler."""
    total, per_process = len(prompts), record.num_local
    start = min(process_index * per_process, total)
    num_real = min(per_process, total - start)
    batch = split_pixel_values_by_grid(record.batch)  # images as one entry per row
    spare = first_rows(batch, 1)
    spare["completion_mask"] = torch.zeros_like(spare["completion_mask"])
    real = replace(
        record,
        batch=first_rows(batch, num_real),
        rewards_per_func=record.rewards_per_func[:total],
        lengths=record.lengths[:total],
        truncated=record.truncated[:total],
        entropies=None if record.entropies is None else record.entropies[:total],
    )
    return Stage(real, prompts, start, captured, seconds, spare)


def ask_allocator(allocator: RolloutAllocator, stage: int, groups: RolloutGroups, budget: int | None) -> Tensor:
    """
    How many more completions each prompt gets after a stage, at most `budget` in all. Shape `(P,)`.

    Raises:
        `ValueError`: The allocator returned anything but one non-negative integer per prompt, or exceeds its cap.
    """
    extra = allocator(stage, groups.sizes, groups.num_correct, groups.num_judged).to(groups.sizes.device)
    if extra.shape != groups.sizes.shape or extra.is_floating_point() or (extra < 0).any():
        raise ValueError(
            f"The rollout allocator {allocator!r} must return one non-negative integer per prompt, shape "
            f"{tuple(groups.sizes.shape)}, got {extra!r}."
        )
    most = int((groups.sizes + extra).max())
    if most > allocator.max_generations and extra.any():
        raise ValueError(
            f"The rollout allocator {allocator!r} asks for {most} completions of one prompt, above its "
            f"`max_generations` of {allocator.max_generations}."
        )
    return within_budget(extra, groups.num_correct, groups.num_judged, budget)


def extra_rows(accelerator: Accelerator, rows: list[dict], num_generations: int, prompts: Tensor) -> list[dict]:
    """
    This process's share of one dataset row per entry of `prompts`, filler included.

    Args:
        rows (`list[dict]`): this process's rows of the first stage, each prompt `num_generations` times. The rows of
            the other prompts are on other processes.
        prompts (`Tensor` of shape `(E,)`): prompts that get an extra completion, in ascending order.
    """
    needed = torch.unique(prompts).tolist()
    first = accelerator.process_index * len(rows)
    owned = [
        (prompt, rows[prompt * num_generations - first])
        for prompt in needed
        if 0 <= prompt * num_generations - first < len(rows)
    ]
    row_of = dict(gather_object(owned))
    per_process = math.ceil(len(prompts) / accelerator.num_processes)
    begin = accelerator.process_index * per_process
    share = prompts.tolist()[begin : begin + per_process]
    share += [needed[-1]] * (per_process - len(share))
    return [dict(row_of[prompt]) for prompt in share]


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
