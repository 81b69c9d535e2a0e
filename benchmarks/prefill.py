"""Prompts that are read once for all their completions, against reading every row: time, and how many tokens differ.

    python benchmarks/prefill.py --output benchmarks/results/prefill.json

Alternating rounds on one machine and one model each:
    generate     one batch of transformers' `generate`, at the size of the maze testbed and with prompts of 512 tokens
    scoring      log-probabilities of a batch and their gradient, of the testbed and with prompts of 512 tokens
    training     steps of the testbed's recipe: stock TRL, RLVRTrainer, with `share_prompt_prefill`, and with
                 `share_prompt_scoring` too
    evaluation   200 mazes x 64 samples

The weights are random, so completions run to their full length. Both ways draw with the same seed. In float64 the
tokens must be the same, which is checked; in other precisions it is counted how many completions differ. The exit code
is 1 if a token differs in float64. Speed is never asserted.
"""

import argparse
import contextlib
import copy
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import patch

import torch
from optimizer_phase import machine, speed
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from trl.trainer.utils import add_fused_lm_head

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import evaluate
from rlvr_trl.rewards import maze_reward
from rlvr_trl.shared_prefill import shared_prefill, shared_scoring
from rlvr_trl.testbed import build_model, build_tokenizer
from rlvr_trl.testbed.methods import METHODS, Method, make_method_trainer
from rlvr_trl.testbed.tasks import MAZE


PROMPTS = GENERATIONS = 16
LONG_PROMPT, LONG_COMPLETION = 512, 64
PREFILL = {"share_prompt_prefill": True, "share_prompt_scoring": False}
BOTH = {"share_prompt_prefill": True, "share_prompt_scoring": True}
ENGINE = "rlvr_trl.evaluation.engines.transformers.why_prefill_is_not_shared"


def alternate(ways: dict[str, Callable[[int], object]], repeats: int) -> tuple[dict, dict]:
    """Calls every way with each round's number. Returns how the others compare with the first, and all results."""
    pairs, results = {name: [] for name in ways}, {name: [] for name in ways}
    names = list(ways)
    for repeat in range(repeats):
        first = repeat % len(names)  # another way begins each round
        for name in names[first:] + names[:first]:
            begin, begin_processor = time.perf_counter(), time.process_time()
            results[name].append(ways[name](repeat))
            pairs[name].append((time.perf_counter() - begin, time.process_time() - begin_processor))
    return {name: speed(pairs[name], pairs[names[0]]) for name in names}, results


# --- one batch ---


def long_model() -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = Qwen2Config(**sizes, num_key_value_heads=2, vocab_size=2048, pad_token_id=0)
    return Qwen2ForCausalLM(config).eval()


def long_rows() -> torch.Tensor:
    prompts = torch.randint(1, 2048, (PROMPTS, LONG_PROMPT), generator=torch.Generator().manual_seed(1))
    return prompts.repeat_interleave(GENERATIONS, dim=0)  # (B, P)


def maze_rows() -> torch.Tensor:
    mazes = make_maze_dataset(PROMPTS, prompt_style="bare", seed=0)["prompt"]
    prompts = torch.tensor(build_tokenizer()(list(mazes))["input_ids"])  # all of a length
    return prompts.repeat_interleave(GENERATIONS, dim=0)  # (B, P)


def measure_generation(model, rows: torch.Tensor, new_tokens: int, repeats: int, dtype: torch.dtype) -> dict:
    """Times one batch, and counts completions that differ from those sampled with every row read."""
    model = model.to(dtype)
    config = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=True, pad_token_id=0, eos_token_id=None, disable_compile=True, top_k=0
    )

    def generate(seed: int, context) -> torch.Tensor:
        torch.manual_seed(seed)
        with torch.no_grad(), context:
            output = model.generate(
                input_ids=rows, attention_mask=torch.ones_like(rows), generation_config=config
            )  # (B, P + T)
        return output[:, rows.shape[1] :]

    times, tokens = alternate(
        {
            "every row": lambda seed: generate(seed, nullcontext()),
            "once": lambda seed: generate(seed, shared_prefill(model)),
        },
        repeats,
    )
    different = [(a != b).any(dim=1) for a, b in zip(tokens["every row"], tokens["once"], strict=True)]
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "prompt_tokens": rows.shape[1],
        "new_tokens": new_tokens,
        "times": times,
        "completions": sum(len(rows) for rows in different),
        "completions_that_differ": int(sum(rows.sum() for rows in different)),
    }


def measure_scoring(model, rows: torch.Tensor, width: int, repeats: int) -> dict:
    """Times the log-probabilities of random completions and their gradient, and says how far gradients differ."""
    model = copy.deepcopy(model).float()
    add_fused_lm_head(model)
    completions = torch.randint(1, model.config.vocab_size, (len(rows), width), generator=torch.Generator())
    ids = torch.cat([rows, completions], dim=1)
    labels = ids.clone()
    labels[:, :-width] = -100

    def gradient(context) -> torch.Tensor:
        model.zero_grad()
        with context:
            mask = torch.ones_like(ids)
            model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).loss.backward()
        return torch.cat([weight.grad.flatten() for weight in model.parameters()])

    times, gradients = alternate(
        {"every row": lambda _: gradient(nullcontext()), "once": lambda _: gradient(shared_scoring(model, width))},
        repeats,
    )
    every_row, once = gradients["every row"][0], gradients["once"][0]
    distance = float((once - every_row).norm() / every_row.norm())
    return {"prompt_tokens": rows.shape[1], "new_tokens": width, "times": times, "gradient_distance": distance}


# --- training and evaluation of the testbed ---


def measure_training(steps: int, repeats: int) -> dict:
    mazes = make_maze_dataset(steps * PROMPTS, prompt_style="bare", seed=0)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base"
        build_model(build_tokenizer()).save_pretrained(base)
        build_tokenizer().save_pretrained(base)

        def train(method: Method, **settings) -> float:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = make_method_trainer(method, base, Path(folder), mazes, seed=0, disable_tqdm=True, **settings)
                return trainer.train().training_loss

        ours = Method("GRPO", RLVRTrainer, RLVRConfig, {})
        times, losses = alternate(
            {
                "stock TRL": lambda _: train(METHODS["grpo"]),
                "RLVRTrainer": lambda _: train(ours, **dict.fromkeys(BOTH, False)),
                "once in generation": lambda _: train(ours, **PREFILL),
                "once in generation and scoring": lambda _: train(ours, **BOTH),
            },
            repeats,
        )
    return {"steps": steps, "times": times, "losses": {name: values[0] for name, values in losses.items()}}


def measure_evaluation(num_mazes: int, repeats: int) -> dict:
    mazes = make_maze_dataset(num_mazes, prompt_style="bare", seed=1)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)

    def run(seed: int) -> list[list[int]]:
        options = {"num_samples": 64, "max_new_tokens": MAZE.max_completion_length, "seed": seed, "progress": False}
        return evaluate(model, tokenizer, mazes, maze_reward, **options).completions.token_ids

    def every_row(seed: int) -> list[list[int]]:
        with patch(ENGINE, return_value="for comparison"):
            return run(seed)

    times, tokens = alternate({"every row": every_row, "once": run}, repeats)
    pairs = [
        pair for both in zip(tokens["every row"], tokens["once"], strict=True) for pair in zip(*both, strict=True)
    ]
    return {
        "mazes": num_mazes,
        "times": times,
        "completions": len(pairs),
        "completions_that_differ": sum(a != b for a, b in pairs),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="alternating rounds [3]")
    parser.add_argument("--steps", type=int, default=50, help="of training [50]")
    parser.add_argument("--mazes", type=int, default=200, help="of the evaluation [200]")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch [1]")
    parser.add_argument("--quick", action="store_true", help="no long prompts, 1 round, 2 steps, 4 mazes")
    parser.add_argument("--output", type=Path, help="file for all figures, as JSON")
    options = parser.parse_args()
    if options.quick:
        options.repeats, options.steps, options.mazes = 1, 2, 4
    torch.set_num_threads(options.threads)
    repeats, maze = options.repeats, build_model(build_tokenizer())
    measured = {
        "maze, float64": measure_generation(maze, maze_rows(), MAZE.max_completion_length, repeats, torch.float64),
        "maze": measure_generation(maze, maze_rows(), MAZE.max_completion_length, 10 * repeats, torch.float32),
        "maze, bfloat16": measure_generation(maze, maze_rows(), MAZE.max_completion_length, repeats, torch.bfloat16),
    }
    measured["scoring"] = measure_scoring(maze, maze_rows(), MAZE.max_completion_length, 10 * repeats)
    if not options.quick:
        measured["long"] = measure_generation(long_model(), long_rows(), LONG_COMPLETION, repeats, torch.float32)
        measured["long scoring"] = measure_scoring(long_model(), long_rows()[:64], LONG_COMPLETION, repeats)
    measured["evaluation"] = measure_evaluation(options.mazes, repeats)
    measured["training"] = measure_training(options.steps, repeats)
    for name, figures in measured.items():
        for way, row in list(figures["times"].items())[1:]:
            print(
                f"ratio {name}, {way}: {row['times_faster']:.2f} times as fast "
                f"({row['processor_times_faster']:.2f} by processor time)"
            )
        if "gradient_distance" in figures:
            print(f"  the gradients are {figures['gradient_distance']:.0e} of their length apart")
        if "completions" in figures:
            print(f"  {figures['completions_that_differ']} of {figures['completions']} completions differ")
    if options.output:
        about = {"command": f"python benchmarks/prefill.py {' '.join(sys.argv[1:])}", "machine": machine(options)}
        options.output.write_text(json.dumps(about | measured, indent=1) + "\n", encoding="utf-8")
    differ = measured["maze, float64"]["completions_that_differ"]
    print(f"token check: {'FAILED' if differ else 'passed'}, {differ} completions differ in float64")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
