"""Sampling a batch in stages: first every prompt, then extra completions for those that an allocator names.

Extra completions go through TRL's own generation, with one generation per row, spread evenly over the processes:

    extra = [0, 3, 0, 2]  ->  prompts 1 1 1 3 3  ->  process 0: 1 1 1    process 1: 3 3 (3)

Every process generates the same number of rows, as vLLM's server mode and tensor parallelism need. The last process
may need filler for that, which is generated, scored and dropped.
"""

import math
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from ..advantages import RolloutGroups
from ..rollouts import RolloutAllocator, within_budget
from ..trl_compat import split_pixel_values_by_grid
from .batch_layout import first_rows, loss_mask, merge
from .metrics import Captured
from .rollout import GenerationRecord


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
    """

    record: GenerationRecord
    prompts: Tensor
    start: int
    captured: Captured
    seconds: float


def without_filler(
    record: GenerationRecord, prompts: Tensor, captured: Captured, seconds: float, process_index: int
) -> Stage:
    """The record as a stage, cut to its first `len(prompts)` completions over the processes; the rest is filler."""
    total, per_process = len(prompts), record.num_local
    start = min(process_index * per_process, total)
    num_real = min(per_process, total - start)
    real = replace(
        record,
        batch=first_rows(split_pixel_values_by_grid(record.batch), num_real),  # images as one entry per row
        rewards_per_func=record.rewards_per_func[:total],
        lengths=record.lengths[:total],
        truncated=record.truncated[:total],
        entropies=None if record.entropies is None else record.entropies[:total],
    )
    return Stage(real, prompts, start, captured, seconds)


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
    """The rows of this process from all stages as one batch of TRL's form."""
    output = merge([stage.record.batch for stage in stages], pad_token_id)
    output["num_items_in_batch"] = accelerator.gather(loss_mask(output).sum()).sum()
    return output


def local_rows(stages: list[Stage]) -> Tensor:
    """Indices of this process's rows of the merged batch among those of all processes. Shape `(B,)`."""
    offsets = accumulate((len(stage.prompts) for stage in stages), initial=0)
    return torch.cat(
        [
            torch.arange(offset + stage.start, offset + stage.start + stage.record.num_local)
            for offset, stage in zip(offsets, stages, strict=False)
        ]
    )
