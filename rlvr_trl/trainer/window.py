"""The passes of every optimizer step of one generation batch, agreed on by all processes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .microbatch import Pass, longest_first, loss_mask, make_passes, row_lengths, split_sizes, take
from .weights import PassWeights, Totals, pass_weights


class MicroBatch(dict):
    """A batch of TRL's form that one pass takes, and what the terms of its loss count."""

    def __init__(self, fields: dict, weights: PassWeights):
        super().__init__(fields)
        self.weights = weights


@dataclass(frozen=True)
class Block:
    """
    The passes of one optimizer step on this process, as many and of the same sizes as on every other.

    Args:
        without_gradient (`list[Pass]`): passes over rows that cannot move the model, for the metrics alone.
        with_gradient (`list[Pass]`): the others; at least one.
        totals ([`Totals`]): what their weights relate to.
        tokens (`list[int]`): tokens in the loss of each pass, all processes, in this order.
        rows (`list[int]`): rows of each pass that count, all processes.
    """

    without_gradient: list[Pass]
    with_gradient: list[Pass]
    totals: Totals
    tokens: list[int]
    rows: list[int]

    @property
    def passes(self) -> list[Pass]:
        return self.without_gradient + self.with_gradient


@dataclass(frozen=True)
class Window:
    """A generation batch and the blocks that train on it. `padding_share` is the share of computed tokens that pad."""

    batch: dict
    blocks: list[Block]
    padding_share: float

    def micro_batch(self, block: Block, part: Pass, loss_type: str) -> MicroBatch:
        fields = take(self.batch, part)
        num_tokens = int(loss_mask(fields).sum())
        return MicroBatch(fields, pass_weights(loss_type, len(part.rows), part.size, num_tokens, block.totals))


def plan_passes(accelerator, lengths: Tensor, rows: Tensor, max_rows: int, max_tokens: int | None) -> list[Pass]:
    """
    Passes over `rows`, the longest first, of the same sizes on every process.

    Raises:
        `ValueError`: A single row has more than `max_tokens` tokens.
    """
    rows = longest_first(lengths, rows)
    everywhere = lengths[rows]
    longest = int(everywhere.sum(dim=1).max()) if len(rows) else 0
    if accelerator.num_processes > 1:
        own = torch.tensor([longest], device=accelerator.device)
        longest = int(accelerator.gather(own).max())  # an error must be one on every process
        if longest > 0:
            own = everywhere.to(accelerator.device)
            every = accelerator.gather(accelerator.pad_across_processes(own, dim=0).unsqueeze(0))  # (W, R, 2)
            everywhere = every.amax(dim=0).cpu()
    if max_tokens is not None and longest > max_tokens:
        raise ValueError(
            f"A completion and its prompt have {longest} tokens, more than `max_tokens_per_micro_batch`={max_tokens} "
            f"lets one pass hold. Raise it, or lower `max_completion_length`."
        )
    return make_passes(rows, split_sizes(everywhere, max_rows, max_tokens), lengths)


def plan_window(
    accelerator,
    batch: dict,
    *,
    max_rows: int,
    max_tokens: int | None,
    steps_per_generation: int,
    steps_per_block: int,
    skip_zero_advantages: bool,
) -> Window:
    """
    Plans the passes over a batch whose rows are in random order.

    The rows of each process are split evenly over `steps_per_generation / steps_per_block` blocks.

    Args:
        skip_zero_advantages (`bool`): whether a row with zero advantage has no gradient and may go without a backward.

    Rows that are not `in_loss`, a field of shape `(B,)` that the batch may have, have no gradient and are in none of
    the totals, but in the metrics.
    """
    lengths = row_lengths(batch["prompt_mask"], batch["completion_mask"])  # (B, 2)
    tokens = loss_mask(batch).sum(dim=1).cpu()  # (B,)
    in_loss = batch["in_loss"].cpu() if "in_loss" in batch else torch.ones(len(tokens), dtype=torch.bool)
    idle = ~in_loss | (batch["advantages"] == 0).cpu() & skip_zero_advantages
    num_rows = sum_over_processes(accelerator, [int(in_loss.sum())])[0]
    blocks = []
    for rows in torch.arange(len(tokens)).tensor_split(steps_per_generation // steps_per_block):
        without_gradient, with_gradient = (
            plan_passes(accelerator, lengths, some, max_rows, max_tokens)
            for some in (rows[idle[rows]], rows[~idle[rows]])
        )
        # at least one: the optimizer steps on a gradient of zero, as it does in TRL
        with_gradient = with_gradient or make_passes(rows[:0], [1], lengths)
        passes = without_gradient + with_gradient
        tokens_of_pass = [int(tokens[part.rows[: part.size]].sum()) for part in passes]
        in_step = int(tokens[rows][in_loss[rows]].sum())
        in_step, *everywhere = sum_over_processes(accelerator, [in_step, *tokens_of_pass, *(p.size for p in passes)])
        tokens_of_pass, rows_of_pass = everywhere[: len(passes)], everywhere[len(passes) :]
        totals = Totals(num_rows, in_step, accelerator.num_processes, steps_per_generation, steps_per_block)
        blocks.append(Block(without_gradient, with_gradient, totals, tokens_of_pass, rows_of_pass))
    computed = sum(part.num_computed for block in blocks for part in block.passes)
    used = int(batch["prompt_mask"].sum() + batch["completion_mask"].sum())
    used, computed = sum_over_processes(accelerator, [used, computed])
    return Window(batch, blocks, padding_share=1 - used / computed)


def sum_over_processes(accelerator, values: list[int]) -> list[int]:
    total = accelerator.reduce(torch.tensor(values, device=accelerator.device), reduction="sum")
    return total.tolist()
