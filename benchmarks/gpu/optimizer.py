"""`optimizer_phase.py` on a Qwen2 of half a billion parameters: stock TRL against RLVRTrainer, in the same run.

Model FLOPs are those of real tokens alone, whatever is padded or computed twice. For a row of P tokens of the prompt
and C of the completion, L = P + C, a training pass takes

    6·N·L + 6·V·h·C + 6·layers·d·L²

with N parameters of the layers, V tokens of the vocabulary and hidden size h (logits are needed for completions only),
and d = heads · size of a head; causal attention has half of the L² pairs. Utilization is their sum by the seconds of
the phase and the card's dense bfloat16 peak.
"""

import gc
import json
import tempfile
from argparse import Namespace
from collections.abc import Callable

import optimizer_phase
import torch

from . import gradients


PEAK = 989e12  # FLOP/s of an H100 SXM or H200, dense bfloat16
QWEN2_05B = {"hidden": 896, "layers": 24, "kv_heads": 2, "intermediate": 4864, "vocabulary": 151_936}
SIZES = {
    "card": QWEN2_05B | {"rows": 64, "max_length": 3072, "prompt_length": 256, "micro_batch": 8, "repeats": 2},
    "toy": {"hidden": 32, "layers": 1, "kv_heads": None, "intermediate": None, "vocabulary": 64}
    | {"rows": 16, "max_length": 32, "prompt_length": 8, "micro_batch": 8, "repeats": 1},
}
VARIANTS = {
    "log-normal": ("stock", "stock_without_cudnn", "trim_padding", "prompts_per_batch", "token_budget"),
    "equal": ("stock", "stock_without_cudnn", "prompts_per_batch"),
}


def model_flops(model, batch: dict) -> float:
    """FLOPs of one forward and backward pass over the real tokens of a batch, by the formula above."""
    config = model.config
    layers = sum(weight.numel() for name, weight in model.named_parameters() if ".layers." in name)
    prompt, completion = (batch[name].sum(dim=1).double() for name in ("prompt_mask", "completion_mask"))  # (B,)
    length = prompt + completion
    attention = 6 * config.num_hidden_layers * config.hidden_size * length.square()
    head = 6 * config.vocab_size * config.hidden_size * completion
    return float((6 * layers * length + head + attention).sum())


def run(size: str, checkpointing: bool, device: str, save: Callable) -> None:
    """Equal and log-normal lengths, or the latter with gradient checkpointing; each is saved when it is done."""
    torch.set_float32_matmul_precision("highest")  # of the reference; nothing else is in float32
    settings = SIZES[size] | {"device": device, "dtype": "bfloat16" if size == "card" else "float32"}
    settings |= {"checkpointing": checkpointing}
    save("settings", settings | {"loss_type": optimizer_phase.LOSS_TYPE, "peak_flops": PEAK})
    options = Namespace(**settings)
    mean = options.max_length / 4
    all_lengths = {
        "equal": torch.full((options.rows,), round(mean)),
        "log-normal": optimizer_phase.log_normal_lengths(options.rows, options.max_length, mean),
    }
    if checkpointing:  # equal lengths say nothing new with it
        del all_lengths["equal"]
    for name, lengths in all_lengths.items():
        save(name, measure_in_memory(options, lengths, VARIANTS[name]))
        gc.collect()


def measure_in_memory(options: Namespace, lengths: torch.Tensor, variants: tuple[str, ...]) -> dict:
    """Measures with `options.micro_batch` rows in a pass, or with half as many as often as memory runs out."""
    options = Namespace(**vars(options))
    while True:
        try:
            return measure(options, lengths, variants) | {"micro_batch": options.micro_batch}
        except torch.OutOfMemoryError as error:
            if options.micro_batch == 1:
                raise
            print(f"micro-batch {options.micro_batch}: {error}", flush=True)
        options.micro_batch //= 2
        gc.collect()
        torch.cuda.empty_cache()


def measure(options: Namespace, lengths: torch.Tensor, variants: tuple[str, ...]) -> dict:
    counted = {}
    is_exact = not options.checkpointing and lengths.min() < lengths.max()  # else stock TRL is enough to compare with

    def reference(model, batch):
        counted["flops"] = model_flops(model, batch)
        counted["tokens"] = int(batch["prompt_mask"].sum() + batch["completion_mask"].sum())
        counted["parameters"] = sum(weight.numel() for weight in model.parameters())
        return gradients.row_by_row(model, batch, torch.float32, options.device) if is_exact else None

    with tempfile.TemporaryDirectory() as folder:
        measured = optimizer_phase.measure_time(options, lengths, variants, folder, reference)
    for row in measured["variants"].values():
        row["tokens_per_second"] = counted["tokens"] / row["median_seconds"]
        row["utilization"] = counted["flops"] / row["median_seconds"] / PEAK
    return json.loads(json.dumps(measured | counted))
