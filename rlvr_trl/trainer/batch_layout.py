"""How TRL's batch dict is laid out: which columns a field has, taking rows out of it, joining batches.

A batch is the dict that TRL's generation returns. Its rows are padded to the longest prompt and the longest completion
of the whole batch, prompts on the left and completions on the right.
"""

from typing import Any

import torch
from torch import Tensor


# How each field of TRL's batch is laid out. Every other tensor or list has one entry per row.
PROMPT_FIELDS = ("prompt_ids", "prompt_mask")  # (B, P), padded on the left
COMPLETION_FIELDS = (  # (B, C), padded on the right
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",  # (B, 1) with a sequence-level correction
)
TOKEN_FIELDS = ("token_log_probs", "token_entropies")  # (B, C), not TRL's: what an estimator sees that shapes tokens
IMAGE_FIELDS = (  # of a vision-language model, beside the tokens
    "pixel_values",
    "image_grid_thw",
    "num_images",
    "pixel_attention_mask",
    "spatial_shapes",
    "num_tiles",
    "image_sizes",
    "token_type_ids",
    "mm_token_type_ids",
    "image_position_ids",
)
SEQUENCE_FIELDS = ("token_type_ids", "mm_token_type_ids")  # (B, P + C)


def loss_mask(batch: dict) -> Tensor:
    """Which completion tokens are in the loss. Shape `(B, C)`."""
    mask = batch["completion_mask"]
    return mask * batch["tool_mask"] if "tool_mask" in batch else mask


def row_lengths(prompt_mask: Tensor, completion_mask: Tensor) -> Tensor:
    """
    Columns that each row needs for its prompt and its completion. Shape `(B, 2)`, on the CPU.

    A completion gets at least 2, if the batch is that wide: TRL would take a single column for one value per
    sequence, and count masked rows in its metrics.
    """
    completions = completion_mask.sum(dim=1).clamp(min=min(2, completion_mask.shape[1]))
    return torch.stack([prompt_mask.sum(dim=1), completions], dim=1).cpu()


def take(batch: dict, rows: Tensor, prompt_width: int, completion_width: int) -> dict:
    """
    Some rows and columns of a batch, as a batch of the same form.

    Args:
        rows (`Tensor` of shape `(b,)`): indices into the batch, on the CPU.
        prompt_width (`int`): columns kept of the prompts, the last ones.
        completion_width (`int`): columns kept of the completions, the first ones.
    """
    prompt_total = batch["prompt_ids"].shape[1]
    first_prompt, end = prompt_total - prompt_width, prompt_total + completion_width
    indices = rows.to(batch["prompt_ids"].device)
    taken: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, list):
            taken[name] = [value[row] for row in rows.tolist()]
        elif value is None or value.dim() == 0:
            taken[name] = value
        elif name in PROMPT_FIELDS:
            taken[name] = value[indices, first_prompt:]
        elif name in COMPLETION_FIELDS or (name == "advantages" and value.dim() == 2):  # (B, C) if of tokens
            taken[name] = value[indices, :completion_width]
        elif name in SEQUENCE_FIELDS:
            taken[name] = value[indices, first_prompt:end]
        else:
            taken[name] = value[indices]
    return taken


def some_rows(batch: dict, rows: Tensor) -> dict:
    """Rows of a batch whose images are one entry per row; `rows` of shape `(b,)`, on the CPU."""
    some: dict[str, Any] = {}
    for name, value in batch.items():
        if isinstance(value, list):
            some[name] = [value[row] for row in rows.tolist()]
        else:
            some[name] = value if value is None or value.dim() == 0 else value[rows.to(value.device)]
    return some


def merge(batches: list[dict], pad_token_id: int) -> dict:
    """
    Joins batches row by row, padding each to the widest.

    Scalars are taken from the first; the caller sets those that change.

    Raises:
        `ValueError`: The batches differ in their fields, or in the shape of a row of some field.
    """
    _check_alike(batches)
    prompt_width = max(batch["prompt_ids"].shape[1] for batch in batches)
    completion_width = max(batch["completion_ids"].shape[1] for batch in batches)
    # a ratio of 1 is no correction: VESPO sums its logarithm over padding too
    padding = {
        "prompt_ids": pad_token_id,
        "completion_ids": pad_token_id,
        "tool_mask": 1,
        "importance_sampling_ratio": 1,
    }
    merged: dict[str, Any] = {}
    for name, first in batches[0].items():
        values = [batch[name] for batch in batches]
        if isinstance(first, list):
            merged[name] = [entry for value in values for entry in value]
        elif first is None or first.dim() == 0:
            merged[name] = first
        else:
            columns = _padding_columns(name, batches, prompt_width, completion_width)
            fill = padding.get(name, 0)
            merged[name] = torch.cat(
                [
                    torch.nn.functional.pad(value, left_right, value=fill) if any(left_right) else value
                    for value, left_right in zip(values, columns, strict=True)
                ]
            )
    return merged


def _check_alike(batches: list[dict]) -> None:
    fields = [set(batch) for batch in batches]
    if differ := set.union(*fields) - set.intersection(*fields):
        raise ValueError(
            f"The stages of a batch cannot be joined: only some have {', '.join(sorted(differ))}. A tool that "
            f"returns images in only some of the stages causes this; it cannot be used with `rollouts`."
        )
    for name in fields[0].intersection(IMAGE_FIELDS).difference(SEQUENCE_FIELDS):
        values = [batch[name] for batch in batches if isinstance(batch[name], torch.Tensor)]
        if shapes := {tuple(value.shape[1:]) for value in values if value.shape[1:] != values[0].shape[1:]}:
            raise ValueError(
                f"The stages of a batch cannot be joined: a row of `{name}` has the shape "
                f"{tuple(values[0].shape[1:])} in one and {shapes.pop()} in another, because this model pads images "
                f"to the largest of a batch. With `rollouts`, all prompts need equally many images of one size."
            )


def _padding_columns(
    name: str, batches: list[dict], prompt_width: int, completion_width: int
) -> list[tuple[int, int]]:
    """Columns to add on the left and the right of a field of each batch."""
    left = [prompt_width - batch["prompt_ids"].shape[1] for batch in batches]
    right = [completion_width - batch["completion_ids"].shape[1] for batch in batches]
    if name in COMPLETION_FIELDS + TOKEN_FIELDS:
        # a sequence-level importance ratio has one column, whatever the completions have
        per_token = all(batch[name].shape[1] == batch["completion_ids"].shape[1] for batch in batches)
        return [(0, columns if per_token else 0) for columns in right]
    if name in PROMPT_FIELDS:
        return [(columns, 0) for columns in left]
    if name in SEQUENCE_FIELDS:
        return list(zip(left, right, strict=True))
    return [(0, 0)] * len(batches)
