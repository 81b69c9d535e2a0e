"""Sampling a batch in stages: first every prompt, then extra completions for those that an allocator names.

Extra completions go through TRL's own generation, with one generation per row, spread evenly over the processes:

    extra = [0, 3, 0, 2]  ->  prompts 1 1 1 3 3  ->  process 0: 1 1 1    process 1: 3 3 (3)

Every process generates the same number of rows, as vLLM's server mode and tensor parallelism need; the rows that make
the last process even are generated, scored and dropped.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl.trainer.utils import split_pixel_values_by_grid

from ..advantages import RolloutGroups
from ..rollouts import RolloutAllocator, within_budget
from .metrics import Captured, capture
from .microbatch import loss_mask, merge


@dataclass
class Stage:
    """
    The completions of one stage.

    Args:
        output (`dict`): what TRL returned for the rows of this process, without those that are dropped.
        prompts (`Tensor` of shape `(T,)`): prompt of each completion of all processes, as an index into the batch.
        rewards_per_func (`Tensor` of shape `(T, F)`): their rewards.
        lengths (`Tensor` of shape `(T,)`): their lengths in tokens.
        truncated (`Tensor` of shape `(T,)`): whether they were cut off.
        entropies (`Tensor` of shape `(T,)`, *optional*): their mean token entropies, if the estimator reads them.
        start (`int`): where the rows of this process begin among them.
        captured ([`Captured`]): metrics and logs that TRL wrote.
        seconds (`float`): how long it took.
    """

    output: dict
    prompts: Tensor
    rewards_per_func: Tensor
    lengths: Tensor
    truncated: Tensor
    entropies: Tensor | None
    start: int
    captured: Captured
    seconds: float

    @property
    def num_local(self) -> int:
        return len(self.output["prompt_ids"])


def sample_in_stages(
    trainer,
    inputs: list[dict],
    sample: Callable[[list[dict], int], dict],
    make_groups: Callable[[list[Stage]], RolloutGroups],
    allocator: RolloutAllocator,
    budget: int | None,
) -> tuple[list[Stage], list[RolloutGroups]]:
    """
    Samples all stages of a batch. Returns them, and the groups as they were after each.

    Args:
        trainer ([`RLVRTrainer`]): the trainer; nothing of it is changed but what TRL counts.
        inputs (`list[dict]`): this process's rows of the dataset, each prompt `num_generations` times.
        sample (`Callable`): TRL's generation, from rows and generations per prompt to its dict.
        make_groups (`Callable`): the groups of the stages so far.
        allocator ([`RolloutAllocator`]): says how many extra completions each prompt gets.
        budget (`int`, *optional*): extra completions of the batch at most.

    Raises:
        `ValueError`: The allocator asks for something impossible.
    """
    rows = [dict(row) for row in inputs]  # sampling may write into its rows
    num_generations = trainer.num_generations
    num_rows = len(inputs) * trainer.accelerator.num_processes
    prompts = torch.arange(num_rows, device=trainer.accelerator.device) // num_generations
    stages, history = [_sample(trainer, 1, inputs, prompts, num_generations, sample)], []
    allocator.start_batch(trainer._progress)
    spent = 0
    while True:
        groups = make_groups(stages)
        history.append(groups)
        extra = allocator(len(stages), groups.sizes, groups.num_correct, groups.num_judged)
        _check_extra(extra, groups, allocator)
        left = None if budget is None else budget - spent
        extra = within_budget(extra, groups.num_correct, groups.num_judged, left)
        if not extra.any():
            return stages, history
        spent += int(extra.sum())
        prompts = torch.arange(len(extra), device=extra.device).repeat_interleave(extra)  # (E,)
        extra_rows = _extra_rows(trainer, rows, prompts)
        stages.append(_sample(trainer, len(stages) + 1, extra_rows, prompts, 1, sample))


def merge_stages(trainer, stages: list[Stage]) -> dict:
    """The rows of this process from all stages as one batch of TRL's form."""
    output = merge([stage.output for stage in stages], trainer._tokenizer.pad_token_id)
    output["num_items_in_batch"] = trainer.accelerator.gather(loss_mask(output).sum()).sum()
    return output


def local_rows(stages: list[Stage]) -> Tensor:
    """Where the rows of the merged batch of this process stand among those of all processes. Shape `(B,)`."""
    offsets = accumulate((len(stage.prompts) for stage in stages), initial=0)
    return torch.cat(
        [
            torch.arange(offset + stage.start, offset + stage.start + stage.num_local)
            for offset, stage in zip(offsets, stages, strict=False)
        ]
    )


def _sample(
    trainer, number: int, inputs: list[dict], prompts: Tensor, num_generations: int, sample: Callable
) -> Stage:
    begin = time.perf_counter()
    with capture(trainer) as captured, trainer._generation_progress.of_stage(number):
        # images as one entry per row, so that rows can be dropped and joined
        output = split_pixel_values_by_grid(sample(inputs, num_generations))
        entropies = trainer._gathered_entropies(output)
    total, per_process = len(prompts), len(inputs)
    start = min(trainer.accelerator.process_index * per_process, total)
    kept = min(per_process, total - start)  # the rest only made the processes even
    lengths, truncated = trainer._gathered_lengths()
    return Stage(
        output={
            name: value[:kept] if isinstance(value, list) or (value is not None and value.dim() > 0) else value
            for name, value in output.items()
        },
        prompts=prompts,
        rewards_per_func=trainer._rewards_per_func[:total],
        lengths=lengths[:total],
        truncated=truncated[:total],
        entropies=None if entropies is None else entropies[:total],
        start=start,
        captured=captured,
        seconds=time.perf_counter() - begin,
    )


def _extra_rows(trainer, rows: list[dict], prompts: Tensor) -> list[dict]:
    """This process's share of one dataset row per entry of `prompts`, which may live on other processes."""
    accelerator, num_generations = trainer.accelerator, trainer.num_generations
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


def _check_extra(extra: Tensor, groups: RolloutGroups, allocator: RolloutAllocator) -> None:
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
