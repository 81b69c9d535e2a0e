"""From the groups of an optimizer step to its passes: which rows go through the model together, on which process.

A pass has one row for each process, and a row holds completions whose common beginnings are read once, as TRL packs
them. A step takes as many passes as its completions fill; TRL's trainer takes a fixed number of passes instead, and
cuts groups where one ends.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..trl_compat import DataCollatorForRollout, TreeRow
from .exchange import PromptGroup


Sample = dict[str, Any]  # a row of a completion as TRL packs it
Pass = list[TreeRow]  # one for each process


def samples_of(groups: Sequence[PromptGroup], advantages: Sequence[float], in_loss: Sequence[bool]) -> list[Sample]:
    """
    The rows of all completions that are in the loss, in the order of the groups.

    Args:
        groups (`Sequence[PromptGroup]`): of a step, T completions.
        advantages (`Sequence[float]`), in_loss (`Sequence[bool]`): of each completion, of length T.
    """
    samples, place = [], 0
    for group in groups:
        for sequences, metrics in zip(group.sequences, group.metrics, strict=True):
            samples += [
                {
                    "input_ids": torch.tensor(each.input_ids),
                    "completion_mask": torch.tensor(each.completion_mask),
                    "old_log_probs": torch.tensor(each.old_log_probs),
                    "advantage": advantages[place],
                    "group_id": group.order.ticket,
                    "metrics": metrics,
                }
                for each in sequences
                if in_loss[place]
            ]
            place += 1
    return samples


def plan_packed_passes(samples: Sequence[Sample], num_rows: int, *, max_tokens: int, max_samples: int) -> list[Pass]:
    """
    Spreads the samples of a step over passes of `num_rows` rows, none of which is empty.

    A sample goes into a row that holds its group, where there is room, else into the row with the least attention to
    compute. Where no row has room, the next pass begins. The last pass is evened out; where it has fewer samples than
    rows, others are copied with an advantage of 0.

    Args:
        samples (`Sequence[Sample]`): at least one.
        num_rows (`int`): processes.
        max_tokens (`int`): tokens of a row at most, common beginnings counted once, and tokens with a loss at most; 0
            or less for no limit on tokens, and `max_samples` instead.
        max_samples (`int`): samples of a row at most, where tokens have no limit.

    Raises:
        `ValueError`: A sample alone is longer than a row may be.
    """

    def has_room(row: TreeRow, sample: Sample) -> bool:
        return row.fits(sample, max_tokens) if max_tokens > 0 else len(row.samples) < max_samples

    passes = [_empty_rows(num_rows)]
    for sample in samples:
        if 0 < max_tokens < len(sample["input_ids"]):
            raise ValueError(
                f"A prompt and its completion have {len(sample['input_ids'])} tokens, and a row of a pass may have "
                f"`token_budget`={max_tokens}. Raise it, or lower `max_completion_length`."
            )
        rows = [row for row in passes[-1] if has_room(row, sample)]
        home = [row for row in rows if sample["group_id"] in row.groups]
        if not rows:
            passes.append(_empty_rows(num_rows))
            rows = passes[-1]
        min(home or rows, key=lambda row: row.load).add(sample)
    passes[-1] = _evened(passes[-1])
    return passes


def _empty_rows(count: int) -> Pass:
    return [TreeRow() for _ in range(count)]


def _evened(rows: Pass) -> Pass:
    """The same pass without an empty row: the row with most samples gives half of them, or a copy without a loss."""
    shares = [list(row.samples) for row in rows]
    while not all(shares):
        empty, largest = shares.index([]), max(shares, key=len)
        half = len(largest) // 2
        shares[empty] = [{**largest[0], "advantage": 0.0, "metrics": {}}] if half == 0 else largest[:half]
        del largest[:half]
    evened = _empty_rows(len(rows))
    for row, share in zip(evened, shares, strict=True):
        for sample in share:
            row.add(sample)
    return evened


def pack_passes(
    passes: Sequence[Pass], num_tokens: int, *, pad_token_id: int, max_tokens: int, metrics: dict[str, list]
) -> list[dict[str, Tensor]]:
    """
    Each pass as TRL's batch, whose tensors have one row for each process.

    Args:
        passes (`Sequence[Pass]`): of a step.
        num_tokens (`int`): tokens of the step that are in the loss. Each pass is divided by it, and not by its own.
        pad_token_id (`int`): fills rows up.
        max_tokens (`int`): as in [`plan_packed_passes`], for a metric.
        metrics (`dict`): where TRL writes its metrics of packing.
    """
    batches = []
    for rows in passes:
        collator = DataCollatorForRollout(pad_token_id, len(rows), metrics=metrics, token_budget=max(max_tokens, 0))
        batch = collator.torch_call([rows])
        batches.append(batch | {"global_n_tokens": torch.full((len(rows),), float(num_tokens))})
    return batches
