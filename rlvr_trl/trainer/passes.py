"""Which rows of a generation batch go through the model together, and how much the loss of each pass counts.

TRL splits a batch into equal micro-batches, each as wide as the longest prompt and completion of the whole batch. Here
a forward pass takes a few rows of similar length and only as many columns as they need:

        prompt (B, P)   completion (B, C)                    sorted          passes, trimmed
      [ . . p p p ][ c c . . . . ]  2nd                 [p p p p c c c c c c]   ┐ pass 0: 10 columns
      [ . p p p p ][ c c c c c c ]  longest    ->       [. p p p c c . . . .]   ┘
      [ . . . p p ][ c . . . . . ]  shortest            [p p c]                   pass 1:  3 columns

All processes make the same number of passes with the same numbers of rows, as metrics are gathered inside the loss.

TRL's `_compute_loss` normalizes by what a micro-batch holds and by the number of gradient accumulation steps g, which
is right when all micro-batches are alike. Here they are not. Its loss is left as it is and multiplied by a weight that
turns its normalizer into one of the whole batch, and never of a group:

| loss_type                   | TRL divides the sum by     | here by                      | weight      |
|-----------------------------|----------------------------|------------------------------|-------------|
| grpo, sapo, luspo, dr_grpo  | rows of the pass · g       | rows of the batch            | b · W·S / R |
| bnpo, and the entropy bonus | tokens of the pass · g     | tokens of the optimizer step | m · W·U / M |
| dapo, cispo, vespo          | tokens of the batch · g/S  | tokens of the batch          | 1           |

with b rows and m tokens in the pass, R rows in the batch and M tokens in the optimizer step over all W processes,
`steps_per_generation` S, and U of these S calls in one optimizer step. W is there because processes average their
gradients. If a batch is split over N optimizer steps, each divides by R / N or by the tokens of the batch / N, as in
TRL: its loss is N times its share of the loss of the batch, whatever rows it holds. By definition bnpo normalizes by
the tokens at hand; here these are the tokens of the optimizer step, which depend on neither the micro-batch size nor
the number of processes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from ..distributed import sum_over_processes
from .batch_layout import loss_mask, row_lengths, take


BY_ROWS, BY_TOKENS_OF_UPDATE = ("grpo", "sapo", "luspo", "dr_grpo"), ("bnpo",)
BY_TOKENS_OF_BATCH = ("dapo", "cispo", "vespo")
LOSS_TYPES = BY_ROWS + BY_TOKENS_OF_UPDATE + BY_TOKENS_OF_BATCH


@dataclass(frozen=True)
class ForwardPass:
    """
    Rows that go through the model together.

    Args:
        rows (`Tensor` of shape `(b,)`): indices into the batch, on the CPU.
        num_real (`int`): number of real rows, which come first. The rest is filler that gives this process as many
            rows as the others have: its completions are masked out, so that loss, gradient and metrics ignore them.
        prompt_width (`int`): columns kept of the prompts, the last ones.
        completion_width (`int`): columns kept of the completions, the first ones.
    """

    rows: Tensor
    num_real: int
    prompt_width: int
    completion_width: int

    @property
    def num_computed(self) -> int:
        """Tokens that the model computes, padding included."""
        return len(self.rows) * (self.prompt_width + self.completion_width)

    def take(self, batch: dict) -> dict:
        """The rows and columns of the pass as a batch of the same form, with the completions of filler masked out."""
        taken = take(batch, self.rows, self.prompt_width, self.completion_width)
        taken["completion_mask"][self.num_real :] = 0  # a copy: rows were taken by index
        return taken


@dataclass(frozen=True)
class LossTotals:
    """
    The totals that the weights of the passes of one optimizer step are computed from.

    Args:
        rows (`int`): completions in the loss of the generation batch, all processes.
        tokens (`int`): completion tokens in the loss of the optimizer step, all processes.
        num_processes (`int`): W.
        calls_per_batch (`int`): S, how often TRL calls `training_step` on one generation batch.
        calls_per_update (`int`): U, how many of these calls one optimizer step takes.
    """

    rows: int
    tokens: int
    num_processes: int
    calls_per_batch: int
    calls_per_update: int


@dataclass(frozen=True)
class PassWeights:
    """Factors of the three terms of a pass's loss: policy (with KL), entropy bonus, and auxiliary loss of experts."""

    policy: float
    entropy: float
    aux: float


class MicroBatch(dict):
    """The batch of one pass, in TRL's form, and the weights of its loss."""

    def __init__(self, fields: dict, weights: PassWeights):
        super().__init__(fields)
        self.weights = weights


@dataclass(frozen=True)
class UpdatePlan:
    """
    The passes of one optimizer step on this process. Every process has the same number of them, of the same sizes.

    Args:
        without_gradient (`list[ForwardPass]`): passes over rows that cannot move the model, for the metrics alone.
        with_gradient (`list[ForwardPass]`): the others; at least one.
        totals ([`LossTotals`]): what their weights are computed from.
        tokens (`list[int]`): tokens in the loss of each pass, all processes, in this order.
        rows (`list[int]`): real rows of each pass, all processes.
    """

    without_gradient: list[ForwardPass]
    with_gradient: list[ForwardPass]
    totals: LossTotals
    tokens: list[int]
    rows: list[int]

    @property
    def passes(self) -> list[ForwardPass]:
        return self.without_gradient + self.with_gradient

    def micro_batch(self, batch: dict, forward_pass: ForwardPass, loss_type: str) -> MicroBatch:
        """What one of these passes takes from the batch, with the weights of its loss."""
        fields = forward_pass.take(batch)
        num_tokens = int(loss_mask(fields).sum())
        return MicroBatch(fields, pass_weights(loss_type, forward_pass, num_tokens, self.totals))


@dataclass(frozen=True)
class BatchPlan:
    """A generation batch and the optimizer steps on it. `padding_share` is the share of computed tokens that pad."""

    batch: dict
    updates: list[UpdatePlan]
    padding_share: float


def pass_weights(loss_type: str, forward_pass: ForwardPass, num_tokens: int, totals: LossTotals) -> PassWeights:
    """
    The weights of a pass that has `num_tokens` tokens (m) in the loss, by the table above.

    Raises:
        `ValueError`: The loss is not in the table.
    """
    per_row = totals.num_processes * totals.calls_per_batch / max(totals.rows, 1)
    by_tokens = num_tokens * totals.num_processes * totals.calls_per_update / max(totals.tokens, 1)
    if loss_type in BY_ROWS:
        policy = len(forward_pass.rows) * per_row  # filler included: TRL divides by all rows
    elif loss_type in BY_TOKENS_OF_UPDATE:
        policy = by_tokens
    elif loss_type in BY_TOKENS_OF_BATCH:
        policy = 1.0
    else:
        raise ValueError(f"`loss_type` must be one of {', '.join(LOSS_TYPES)}, got {loss_type!r}.")
    return PassWeights(policy=policy, entropy=by_tokens, aux=forward_pass.num_real * per_row)


def plan_batch(
    accelerator: Accelerator,
    batch: dict,
    *,
    max_rows: int,
    max_tokens: int | None,
    calls_per_batch: int,
    calls_per_update: int,
    skip_zero_advantages: bool,
) -> BatchPlan:
    """
    Plans the passes over a batch whose rows are in random order. Every process must call it.

    The rows of each process are split over `calls_per_batch / calls_per_update` optimizer steps as [`split_updates`]
    says. Rows that are not `in_loss`, a field of shape `(B,)` that the batch may have, have no gradient and are in
    none of the totals; only metrics see them.

    Args:
        batch (`dict`): TRL's batch of this process, B rows.
        max_rows (`int`): no pass holds more rows.
        max_tokens (`int`, *optional*): no pass of more than one row computes more tokens.
        calls_per_batch (`int`), calls_per_update (`int`): S and U of the table above.
        skip_zero_advantages (`bool`): whether a row with zero advantage has no gradient and needs no backward pass.

    Raises:
        `ValueError`: On every process: a single row has more than `max_tokens` tokens.
    """
    lengths = row_lengths(batch["prompt_mask"], batch["completion_mask"])  # (B, 2)
    tokens = loss_mask(batch).sum(dim=1).cpu()  # (B,)
    in_loss = batch["in_loss"].cpu() if "in_loss" in batch else torch.ones(len(tokens), dtype=torch.bool)
    without_advantage = (batch["advantages"] == 0).view(len(tokens), -1).all(dim=1)  # of tokens, or of completions
    idle = ~in_loss | without_advantage.cpu() & skip_zero_advantages
    split = split_updates(batch, calls_per_batch // calls_per_update)
    num_rows = sum_over_processes(accelerator, [sum(int(in_loss[rows].sum()) for rows in split)])[0]
    updates = []
    for rows in split:
        without_gradient, with_gradient = (
            plan_passes(accelerator, lengths, some, max_rows, max_tokens)
            for some in (rows[idle[rows]], rows[~idle[rows]])
        )
        # at least one: the optimizer steps on a gradient of zero, as it does in TRL
        with_gradient = with_gradient or make_passes(rows[:0], [1], lengths)
        passes = without_gradient + with_gradient
        tokens_of_pass = [int(tokens[each.rows[: each.num_real]].sum()) for each in passes]
        in_update = int(tokens[rows][in_loss[rows]].sum())
        in_update, *everywhere = sum_over_processes(
            accelerator, [in_update, *tokens_of_pass, *(each.num_real for each in passes)]
        )
        tokens_of_pass, rows_of_pass = everywhere[: len(passes)], everywhere[len(passes) :]
        totals = LossTotals(num_rows, in_update, accelerator.num_processes, calls_per_batch, calls_per_update)
        updates.append(UpdatePlan(without_gradient, with_gradient, totals, tokens_of_pass, rows_of_pass))
    computed = sum(each.num_computed for update in updates for each in update.passes)
    used = int(batch["prompt_mask"].sum() + batch["completion_mask"].sum())
    used, computed = sum_over_processes(accelerator, [used, computed])
    return BatchPlan(batch, updates, padding_share=1 - used / computed)


def update_of_prompts(prompts: Tensor, num_updates: int) -> Tensor:
    """
    The optimizer step that takes each prompt of a batch, with all its completions. Shape as `prompts`.

    It depends on the prompt's place in the batch alone, so that the number of processes does not matter, nor what is
    random. Neighbours, which are on one process, are in different steps.

    Args:
        prompts (`Tensor`): indices into the prompts of the batch. A negative one is filler, and in no step: -1.
        num_updates (`int`): steps of one pass over the batch.
    """
    return torch.where(prompts < 0, -1, prompts % num_updates)


def split_updates(batch: dict, num_updates: int) -> list[Tensor]:
    """
    The rows of this process in each optimizer step: by `update`, a field of shape `(B,)`, in which filler is -1.
    Without this field, neighbouring rows in equal parts, as in TRL.
    """
    if "update" not in batch:
        return list(torch.arange(len(batch["prompt_ids"])).tensor_split(num_updates))
    update = batch["update"].cpu()
    return [(update == each).nonzero().flatten() for each in range(num_updates)]


def plan_passes(
    accelerator: Accelerator, lengths: Tensor, rows: Tensor, max_rows: int, max_tokens: int | None
) -> list[ForwardPass]:
    """
    Passes over `rows`, the longest first, of the same sizes on every process. Every process must call it.

    Args:
        lengths (`Tensor` of shape `(B, 2)`): columns that each row of the batch needs for prompt and completion.
        rows (`Tensor` of shape `(R,)`): indices into the batch.
        max_rows (`int`), max_tokens (`int`, *optional*): as in [`plan_batch`].

    Raises:
        `ValueError`: A single row has more than `max_tokens` tokens.
    """
    rows = longest_first(lengths, rows)
    everywhere = lengths[rows]
    longest = int(everywhere.sum(dim=1).max()) if len(rows) else 0
    if accelerator.num_processes > 1:
        own = torch.tensor([longest], device=accelerator.device)
        longest = int(accelerator.gather(own).max())  # so that all processes raise the same error
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


def longest_first(lengths: Tensor, rows: Tensor) -> Tensor:
    """`rows` sorted so that rows of similar length are neighbours."""
    return rows[torch.argsort(lengths[rows].sum(dim=1), descending=True, stable=True)]


def split_sizes(lengths: Tensor, max_rows: int, max_tokens: int | None = None) -> list[int]:
    """
    How many neighbouring rows each pass takes.

    Args:
        lengths (`Tensor` of shape `(R, 2)`):
            Tokens of prompt and completion of each row, longest first. For several processes the elementwise maximum,
            so that all of them make passes of the same sizes.
        max_rows (`int`):
            No pass holds more rows.
        max_tokens (`int`, *optional*):
            No pass of more than one row computes more tokens, padding included.
    """
    sizes, widest = [], (0, 0)
    for prompt, completion in lengths.tolist():
        wider = (max(widest[0], prompt), max(widest[1], completion))
        fits = sizes and sizes[-1] < max_rows and (max_tokens is None or (sizes[-1] + 1) * sum(wider) <= max_tokens)
        if fits:
            sizes[-1] += 1
            widest = wider
        else:
            sizes.append(1)
            widest = (prompt, completion)
    return sizes


def make_passes(rows: Tensor, sizes: list[int], lengths: Tensor) -> list[ForwardPass]:
    """Passes of `sizes` over the sorted `rows`; where they run out, the row with the shortest prompt is filler."""
    filler = lengths[:, 0].argmin()
    smallest = torch.stack([lengths[filler, 0], lengths[:, 1].min().clamp(max=2)])
    passes, start = [], 0
    for size in sizes:
        mine = rows[start : start + size]
        widths = lengths[mine].amax(dim=0) if len(mine) else smallest
        fill = filler.repeat(size - len(mine))
        passes.append(ForwardPass(torch.cat([mine, fill]), len(mine), *widths.tolist()))
        start += size
    return passes


def score_in_passes(
    score: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]],
    accelerator: Accelerator,
    input_ids: Tensor,
    attention_mask: Tensor,
    logits_to_keep: int,
    *,
    max_rows: int,
    max_tokens: int | None,
) -> tuple[Tensor, Tensor | None]:
    """
    Log-probabilities and entropies of a whole batch, two of shape `(B, C)`, in trimmed passes.

    Args:
        score (`Callable`): TRL's, for one pass: `(ids, mask, columns of completions) -> (logps, entropies, aux_loss)`.
        input_ids (`Tensor` of shape `(B, P + C)`), attention_mask (`Tensor` of shape `(B, P + C)`): the batch.
        logits_to_keep (`int`): C.
        max_rows (`int`), max_tokens (`int`, *optional*): as in [`plan_batch`].
    """
    prompt_width = input_ids.shape[1] - logits_to_keep
    lengths = row_lengths(attention_mask[:, :prompt_width], attention_mask[:, prompt_width:])
    rows = torch.arange(len(input_ids))
    logps, entropies = (torch.zeros(len(input_ids), logits_to_keep, device=input_ids.device) for _ in range(2))
    has_entropies = True
    for each in plan_passes(accelerator, lengths, rows, max_rows, max_tokens):
        columns = slice(prompt_width - each.prompt_width, prompt_width + each.completion_width)
        chosen = each.rows.to(input_ids.device)
        some_logps, some_entropies, _ = score(
            input_ids[chosen, columns], attention_mask[chosen, columns], each.completion_width
        )
        real, width = chosen[: each.num_real], each.completion_width
        logps[real, :width] = some_logps[: each.num_real].to(logps.dtype)
        has_entropies = some_entropies is not None
        if some_entropies is not None:
            entropies[real, :width] = some_entropies[: each.num_real].to(entropies.dtype)
    return logps, entropies if has_entropies else None
