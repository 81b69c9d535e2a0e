"""Tokens a second of the evaluation's engine, of `generate` alone, and of continuous batching.

A Qwen2 of half a billion parameters with random weights and no end token, so that every completion has full length.
"""

import time
from argparse import Namespace
from collections.abc import Callable

import optimizer_phase
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig

from rlvr_trl.attention import without_cudnn_attention
from rlvr_trl.evaluation import SamplingSettings
from rlvr_trl.evaluation.engines import TransformersEngine
from rlvr_trl.testbed import build_tokenizer

from .optimizer import SIZES as MODELS


SIZES = {
    "card": {"batches": [32, 128, 512], "prompt": 128, "new": 64, "continuous": {}},
    "toy": {"batches": [4], "prompt": 8, "new": 4}
    | {
        "continuous": {"num_blocks": 16, "block_size": 32, "max_batch_tokens": 64}
    },  # on a CPU it would take all memory
}


class NoEnd:
    """The tokenizer of the testbed as one that has no end token, for prompts of one symbol each token."""

    pad_token_id, eos_token_id = 0, None

    def __init__(self):
        self.tokenizer = build_tokenizer()

    def __call__(self, text: list[str]) -> dict:
        return self.tokenizer(text)

    def batch_decode(self, token_ids, skip_special_tokens: bool) -> list[str]:
        known = [[token for token in row if token < len(self.tokenizer)] for row in token_ids]
        return self.tokenizer.batch_decode(known, skip_special_tokens=skip_special_tokens)


def build(size: str, device: str):
    options = Namespace(**MODELS[size], device=device, dtype="bfloat16" if size == "card" else "float32")
    model = optimizer_phase.build_model(options, max_positions=4096).eval()
    model.generation_config.eos_token_id = None
    return model


def prompts_of(settings: dict, count: int) -> list[str]:
    """Different prompts of the same length."""
    return ["".join("UDLR"[(row >> (2 * place)) % 4] for place in range(settings["prompt"])) for row in range(count)]


def run(size: str, device: str, save: Callable) -> None:
    """Tokens a second at several batch sizes: a first time, when shapes are new to the kernels, and again."""
    settings, model, tokenizer = SIZES[size], build(size, device), NoEnd()
    save("settings", settings)
    rows = []
    for batch in [2, *settings["batches"]]:  # the first is a warm-up
        ways, row = ways_to_generate(model, tokenizer, settings, batch, device), {"batch": batch}
        for name, way in ways.items():
            for time_of in ("first", "again"):
                seconds, made = timed(device, way)
                assert made == batch, made
                row[f"{name}_{time_of}"] = batch * settings["new"] / seconds
        if batch != 2:
            rows.append(row)
            save("tokens_per_second", rows)


def ways_to_generate(model, tokenizer, settings: dict, batch: int, device: str) -> dict[str, Callable]:
    """The evaluation's engine, and `generate` with its own sampling with and without cuDNN's attention."""
    prompts = prompts_of(settings, batch)
    engine = TransformersEngine(model, tokenizer, token_budget=batch * (settings["prompt"] + settings["new"]))
    requests, sampling = [(row, 0) for row in range(batch)], SamplingSettings(max_new_tokens=settings["new"])
    ids = torch.tensor(tokenizer(prompts)["input_ids"], device=device)
    config = GenerationConfig(
        max_new_tokens=settings["new"],
        do_sample=True,
        top_k=0,
        pad_token_id=0,
        eos_token_id=None,
        disable_compile=True,
    )

    @torch.no_grad()
    def plain() -> int:
        return len(model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config))

    return {
        "engine": lambda: sum(len(some) for some in engine.sample(prompts, requests, sampling)),
        "without_cudnn": without_cudnn_attention()(plain),
        "generate": plain,
    }


def run_continuous(size: str, device: str, save: Callable) -> None:
    """Tokens a second of continuous batching, its set-up included."""
    settings, model, tokenizer = SIZES[size], build(size, device), NoEnd()
    save("settings", settings)
    count = settings["batches"][-2:][0]  # one less than the largest
    config = GenerationConfig(max_new_tokens=settings["new"], do_sample=True, top_k=0, pad_token_id=0, eos_token_id=-1)
    ids = tokenizer(prompts_of(settings, count))["input_ids"]
    with torch.no_grad():
        for _ in range(2):  # once to warm up, which is all that is known if time ends
            seconds, made = timed(
                device,
                lambda: model.generate_batch(
                    ids,
                    generation_config=config,
                    continuous_batching_config=ContinuousBatchingConfig(**settings["continuous"]),
                ),
            )
            tokens = sum(len(output.generated_tokens) for output in made.values())
            save("tokens_per_second", {"batch": count, "tokens": tokens, "continuous": tokens / seconds})


def timed(device: str, call: Callable) -> tuple:
    """Seconds until the result is there, and the result."""
    optimizer_phase.synchronize(torch.device(device))
    began = time.perf_counter()
    result = call()
    optimizer_phase.synchronize(torch.device(device))
    return time.perf_counter() - began, result
