"""Which of torch's attention kernels returns NaN gradients, where, and what a new shape costs.

The first table is of one call of attention: finite inputs, several widths, masks as transformers makes them for rows
padded on the left (a query that is padding has no key), and each kernel alone.

The second is of the passes of the optimizer phase under a token budget, one at a time, with the kernels that torch
prefers and without that of cuDNN. Each runs twice: the first time its shape is new. The first pass with a gradient
that is not finite is repeated with each kernel alone, without padding on the left, and one column wider.
"""

import tempfile
import time
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import optimizer_phase
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from rlvr_trl.attention import without_cudnn_attention

from .optimizer import SIZES as MODELS


KERNELS = {
    "cuDNN": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
SIZES = {
    "card": {"widths": [896, 944, 959, 960, 961, 1024, 1088], "heads": 14, "kernels": list(KERNELS)},
    "toy": {"widths": [24, 64], "heads": 2, "kernels": ["math"]},
}


def run(size: str, device: str, save: Callable) -> None:
    save("settings", SIZES[size] | {"rows": 2, "head": 64, "cudnn": torch.backends.cudnn.version()})
    save("calls", calls(SIZES[size], device))
    rows, suspect = passes(size, device, lambda rows: save("passes", rows))
    if suspect is not None:
        save("suspect", suspect())


def calls(settings: dict, device: str) -> list[dict]:
    """Values that are not finite in the gradients of one call, for each width, mask and kernel."""
    rows = []
    for width in settings["widths"]:
        causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
        padding = torch.arange(width, device=device) >= torch.tensor([[0], [width // 8]], device=device)  # (2, L)
        masks = {"none, causal": None, "causal": causal.expand(2, 1, -1, -1).contiguous()}
        masks["causal, left padding"] = causal & padding[:, None, None]
        for name, mask in masks.items():
            found = {kernel: call(kernel, mask, width, settings["heads"], device) for kernel in settings["kernels"]}
            rows.append({"width": width, "mask": name, "kernels": found})
    return rows


def call(kernel: str, mask: torch.Tensor | None, width: int, heads: int, device: str) -> dict:
    generator = torch.Generator(device).manual_seed(0)
    shape, options = (2, heads, width, 64), {"device": device, "dtype": torch.bfloat16, "generator": generator}
    inputs = [torch.randn(shape, **options).requires_grad_() for _ in "qkv"]
    upstream = torch.randn(shape, **options)
    if mask is not None:
        upstream = upstream * mask.any(dim=-1, keepdim=True)  # the loss does not look at padding
    try:
        with sdpa_kernel(KERNELS[kernel]):
            out = torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=mask, is_causal=mask is None)
            gradients = torch.autograd.grad(out, inputs, upstream)
    except RuntimeError as error:
        return {"error": str(error)[:200]}
    return {
        "output": int((~out.isfinite()).sum()),
        "gradients": [int((~gradient.isfinite()).sum()) for gradient in gradients],
    }


def passes(size: str, device: str, save: Callable) -> tuple[list[dict], Callable | None]:
    """One row for each pass, and what looks closer at the first whose gradient is not finite."""
    settings = MODELS[size] | {"device": device, "dtype": "bfloat16", "checkpointing": False}
    options = Namespace(**settings)
    lengths = optimizer_phase.log_normal_lengths(options.rows, options.max_length, options.max_length / 4)
    batch = optimizer_phase.make_batch(options, lengths, torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder:
        trainer = optimizer_phase.build_trainer("token_budget", options, options.rows, options.max_length, folder)
    optimizer_phase.warm_up(trainer.model)
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    trainer.model.train()
    trainer._plan_batch(batch)
    update, rows, suspect = trainer._plan.updates[0], [], None
    for each in update.with_gradient:
        one = update.micro_batch(batch, each, trainer.loss_type)
        row = {"rows": len(each.rows), "width": each.prompt_width + each.completion_width}
        row["padded"] = not (one["prompt_mask"].all() and one["completion_mask"].all())
        for name, context in (("without_cudnn", without_cudnn_attention), ("preferred", nullcontext)):
            with context():
                row[name] = [one_pass(trainer, one, device) for _ in range(2)]
        rows.append(row)
        save(rows)
        if suspect is None and row["preferred"][0]["parameters"]:
            wider = replace(each, prompt_width=each.prompt_width + 1)
            wider = update.micro_batch(batch, wider, trainer.loss_type)
            suspect = closer_look(trainer, one, wider, SIZES[size]["kernels"], device)
    return rows, suspect


def closer_look(trainer, one: dict, wider: dict, kernels: list[str], device: str) -> Callable:
    def look() -> dict:
        found = {name: one_pass(trainer, one, device, sdpa_kernel(KERNELS[name])) for name in kernels}
        found["one column wider"] = one_pass(trainer, wider, device)
        one["prompt_mask"] = torch.ones_like(one["prompt_mask"])
        return found | {"no left padding": one_pass(trainer, one, device)}

    return look


def one_pass(trainer, one: dict, device: str, context=None) -> dict:
    """Loss, seconds, and the parameters whose gradients are not finite."""
    trainer.model.zero_grad(set_to_none=False)
    optimizer_phase.synchronize(torch.device(device))
    began = time.perf_counter()
    try:
        with context or nullcontext():
            with trainer.compute_loss_context_manager():
                loss = trainer.compute_loss(trainer.model, one)
            loss.backward()
    except (RuntimeError, FloatingPointError) as error:
        return {"error": str(error)[:200]}
    optimizer_phase.synchronize(torch.device(device))
    seconds = time.perf_counter() - began
    weights = list(trainer.model.named_parameters())
    finite = torch.stack([weight.grad.isfinite().all() for _, weight in weights]).tolist()
    bad = [name for (name, _), is_finite in zip(weights, finite, strict=True) if not is_finite]
    return {"loss": loss.item(), "seconds": round(seconds, 4), "parameters": len(bad), "last": bad[-1:]}
