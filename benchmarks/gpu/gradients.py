"""Is the gradient on the card the one of the definition, whatever the micro-batch?

The reference is the loss written out for one row at a time, without padding, on a model with the same weights in
another precision: float64 on the CPU for a tiny model, float32 on the card for a large one. The model's own code
computes norms and rotations in float32, also there. The loss, and the sum over rows, are in float32 at least: with
weights in bfloat16, "row by row" has the rounding of the model alone, and a trainer that of its sums as well.
"""

import tempfile
from argparse import Namespace
from collections.abc import Callable

import optimizer_phase
import torch
from transformers import AutoModelForCausalLM

from rlvr_trl.attention import without_cudnn_attention


EPSILON = 0.2  # TRL's default for both clips
MICRO_BATCHES = (1, 3, 8, 64)
SIZES = {
    "card": {"rows": 64, "hidden": 128, "layers": 4, "max_length": 192, "vocabulary": 2048},
    "toy": {"rows": 16, "hidden": 32, "layers": 2, "max_length": 24, "vocabulary": 64},
}


@without_cudnn_attention()  # every row has another shape
def row_by_row(model, batch: dict, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """
    The gradient of the loss "dapo" (arXiv 2503.14476, Eq. 8) of a batch, row by row, on a copy of the model.

    Args:
        model: a Qwen2 whose `forward` may have been replaced by TRL, so that only its weights are used.
        batch (`dict`): TRL's batch.
        dtype (`torch.dtype`), device (`str`): of the copy.

    Returns:
        `list[Tensor]`: one gradient for each parameter, on the device of the copy.
    """
    with torch.device(device):
        exact = AutoModelForCausalLM.from_config(model.config, dtype=dtype)
    exact.load_state_dict({name: value.to(device, dtype) for name, value in model.state_dict().items()})
    batch = {name: value.to(device) for name, value in batch.items()}
    total, precise = batch["completion_mask"].sum(), torch.promote_types(dtype, torch.float32)
    weights = list(exact.parameters())
    sums = [torch.zeros_like(weight, dtype=precise) for weight in weights]
    for row in range(len(batch["prompt_ids"])):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        kept = batch["completion_mask"][row].bool()
        completion, old = batch["completion_ids"][row][kept], batch["old_per_token_logps"][row][kept].to(precise)
        ids = torch.cat([prompt, completion])[None]
        logits = exact(input_ids=ids, logits_to_keep=len(completion) + 1).logits[0, :-1].to(precise)  # (T, V)
        logps = torch.log_softmax(logits, dim=-1).gather(1, completion[:, None]).squeeze(1)  # (T,)
        ratio, advantage = torch.exp(logps - old), batch["advantages"][row].to(precise)
        clipped = ratio.clamp(1 - EPSILON, 1 + EPSILON)
        loss = -torch.minimum(ratio * advantage, clipped * advantage).sum() / total
        for summed, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            summed += gradient
    return sums


def run(size: str, dtype: str, device: str, save: Callable) -> None:
    """Relative errors of stock TRL, and of RLVRTrainer with every micro-batch, in one precision of the weights."""
    torch.set_float32_matmul_precision("highest")
    settings = {"device": device, "dtype": dtype, "checkpointing": False, "kv_heads": None, "intermediate": None}
    settings |= SIZES[size] | {"prompt_length": 16, "micro_batch": 8}
    options = Namespace(**settings)
    save("settings", settings)
    lengths = optimizer_phase.log_normal_lengths(options.rows, options.max_length, options.max_length / 4)
    batch = optimizer_phase.make_batch(options, lengths, torch.Generator().manual_seed(1))
    variants = [("stock", 8), *(("prompts_per_batch", rows) for rows in MICRO_BATCHES), ("token_budget", 8)]
    errors, exact, own = [], None, None
    with tempfile.TemporaryDirectory() as folder:
        for name, rows in variants:
            options.micro_batch = min(rows, options.rows)
            trainer = optimizer_phase.build_trainer(name, options, options.rows, options.max_length, folder)
            if exact is None:
                exact = [grad.to(device) for grad in row_by_row(trainer.model, batch, torch.float64, "cpu")]
                own = row_by_row(trainer.model, batch, getattr(torch, dtype), device)
                rounding = optimizer_phase.relative_error(own, exact)
                errors.append({"variant": "row by row", "micro_batch": 1, "to_float64": rounding, "to_rows": 0.0})
            optimizer_phase.warm_up(trainer.model)
            optimizer_phase.optimizer_phase(trainer, [batch])
            found = optimizer_phase.gradient(trainer)
            to_exact, to_own = (optimizer_phase.relative_error(found, other) for other in (exact, own))
            row = {"variant": name, "micro_batch": options.micro_batch, "to_float64": to_exact, "to_rows": to_own}
            errors.append(row)
            save("errors", errors)
