"""DARS against GRPO from end to end on 9x9 mazes: one base model, warmed up on the card, and equal seconds a method.

All methods have 64 prompts a batch and the same learning rate, which falls linearly to 0 over their seconds. Matrix
products of float32 may use TF32 here: this part measures training, not gradients.
"""

import gc
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, TrainerCallback

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import compare, evaluate
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import build_model, build_tokenizer, demonstrations
from rlvr_trl.testbed.comparison_methods import METHODS as COMPARED
from rlvr_trl.testbed.methods import make_method_trainer, rollouts_per_prompt
from rlvr_trl.testbed.progress_bar import show_figures_in_bar
from rlvr_trl.testbed.tasks import MAZE
from rlvr_trl.testbed.warmup import imitate, tokenize_demonstrations


METHODS = ("grpo", "pass_at_8", "dars_hw")
SIZES = {
    "card": {
        "size": 9,
        "max_path": 8,
        "model": {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 6}
        | {"num_attention_heads": 6, "num_key_value_heads": 6},
        "warmup": {"steps": 1200, "batch_size": 256, "learning_rate": 1e-3},
        "warmup_mazes": 40_000,
        "training_mazes": 24_000,
        "test_mazes": 300,
        "samples": 64,
        "prompts": 64,
        "learning_rate": 1e-4,
        "token_budget": 2**19,
        "most_seconds": None,
    },
    "toy": {
        "size": 4,
        "max_path": 6,
        "model": {},
        "warmup": {"steps": 40, "batch_size": 32, "learning_rate": 2e-3},
        "warmup_mazes": 200,
        "training_mazes": 32,
        "test_mazes": 8,
        "samples": 8,
        "prompts": 4,
        "learning_rate": 1e-4,
        "token_budget": 2**14,
        "most_seconds": 2.0,
    },
}
LEAST_SECONDS = 2.0  # of the training of a method


class Walks(torch.utils.data.Dataset):
    """Rows of tokens for the warm-up."""

    def __init__(self, rows: list[dict]):
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        return self.rows[index]


def draw(count: int, scale: dict, seed: int, exclude: list[str] | None = None) -> Dataset:
    settings = {"size": scale["size"], "max_path_length": scale["max_path"], "prompt_style": "bare"}
    return make_maze_dataset(count, seed=seed, exclude=exclude, **settings)


def build(sizes: dict, tokenizer) -> Qwen2ForCausalLM:
    """The model of the testbed, with some of its sizes overridden."""
    small = build_model(tokenizer).config.to_dict()
    config = Qwen2Config(**{name: value for name, value in small.items() if name != "layer_types"} | sizes)
    torch.manual_seed(0)
    return Qwen2ForCausalLM(config)


def some_walks(mazes: list[str], count: int, seed: int) -> list[dict]:
    return tokenize_demonstrations(demonstrations(mazes, count, seed=seed), build_tokenizer()).to_list()


def walks_in_processes(pool, mazes: list[str], count: int, processes: int):
    """`count` tokenized walks, to be had from the pool when they are needed: each process takes some of the mazes."""
    share = -(-count // processes)
    return pool.starmap_async(some_walks, [(mazes[index::processes], share, index) for index in range(processes)])


class EndsInTime(TrainerCallback):
    """Ends training after some seconds; until then the learning rate falls linearly to 0."""

    def __init__(self, seconds: float):
        self.seconds = seconds

    def on_train_begin(self, args, state, control, **kwargs):
        self.begin = time.monotonic()

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        left = max(0.0, 1 - (time.monotonic() - self.begin) / self.seconds)
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * left

    def on_step_end(self, args, state, control, **kwargs):
        if time.monotonic() - self.begin >= self.seconds:
            control.should_training_stop = True


def run(size: str, device: str, seconds: float, save: Callable) -> None:
    """Warms up, trains and tests each method for its share of the seconds, and saves after each."""
    scale, end = SIZES[size], time.monotonic() + seconds
    save("settings", scale)
    processes = min(16, os.cpu_count() or 1)
    test = draw(scale["test_mazes"], scale, 90_001)
    with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("fork").Pool(processes) as pool:
        warmup = draw(scale["warmup_mazes"], scale, 1000, test["maze"])
        steps, rows = scale["warmup"]["steps"], scale["warmup"]["batch_size"]
        walks = walks_in_processes(pool, list(warmup["maze"]), steps * rows, processes)
        known = [*test["maze"], *warmup["maze"]]
        mazes = draw(scale["training_mazes"], scale, 100, known)
        examples = [row for some in walks.get() for row in some]
        pool.close()
        save("seconds_of_data", round(time.monotonic() - end + seconds, 1))
        torch.set_float32_matmul_precision("high")  # only now: the processes of the pool are forks
        base, began = Path(folder) / "base", time.monotonic()
        tokenizer = build_tokenizer()
        model = build(scale["model"], tokenizer)
        losses = imitate(
            model, tokenizer, Walks(examples), output_dir=base, seed=0, disable_tqdm=True, **scale["warmup"]
        )
        about = {"parameters": sum(weight.numel() for weight in model.parameters()), "losses": losses[::4]}
        save("warm_up", about | {"seconds": round(time.monotonic() - began, 1)})
        del model, examples
        began = time.monotonic()
        base_model = AutoModelForCausalLM.from_pretrained(base).to(device)
        results = {"base": tested(base_model, tokenizer, test, scale)}
        took = time.monotonic() - began
        measured = {"base": shown(results["base"]) | {"label": "base model", "test_seconds": round(took, 1)}}
        save("methods", measured)
        for index, name in enumerate(METHODS):
            share = (end - time.monotonic()) / (len(METHODS) - index)
            limit = max(LEAST_SECONDS, share - 1.5 * took - 3)  # testing again, loading and saving
            limit = min(limit, scale["most_seconds"] or limit)
            model, trained = train(name, base, Path(folder) / name, mazes, scale, limit)
            results[name] = tested(model, tokenizer, test, scale)
            measured[name] = trained | shown(results[name]) | differences(results, name)
            save("methods", measured)
            del model
            gc.collect()


def train(name: str, base: Path, folder: Path, mazes, scale: dict, seconds: float) -> tuple:
    method = COMPARED[name]
    generations = method.recipe["num_generations"]
    in_one_update = {"prompts_per_batch": scale["prompts"], "prompts_per_update": scale["prompts"]}
    method = replace(method, settings=method.settings | in_one_update)
    settings = {
        "per_device_train_batch_size": scale["prompts"] * 16,
        "learning_rate": scale["learning_rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "logging_steps": 1,
        "disable_tqdm": True,
    }
    trainer = make_method_trainer(method, base, folder, mazes, seed=0, **settings)
    show_figures_in_bar(trainer, method.label, {})  # in place of a line for each step
    trainer.add_callback(EndsInTime(seconds))
    began = time.monotonic()
    trainer.train()
    took = time.monotonic() - began
    log = [entry for entry in trainer.state.log_history if "reward" in entry and "loss" in entry]
    per_prompt = rollouts_per_prompt(method, log)
    return trainer.accelerator.unwrap_model(trainer.model), {
        "label": method.label,
        "learning_rate": scale["learning_rate"],
        "num_generations": generations,
        "steps": trainer.state.global_step,
        "train_seconds": round(took, 1),
        "completions": round(trainer.state.global_step * scale["prompts"] * per_prompt),
        "rollouts_per_prompt": round(per_prompt, 2),
        "tokens": round(log[-1]["num_tokens"]),
        "reward": [round(entry["reward"], 4) for entry in log],
        "entropy": [round(entry["entropy"], 4) for entry in log],
    }


def tested(model, tokenizer: AutoTokenizer, test, scale: dict):
    options = {"max_new_tokens": MAZE.max_completion_length, "seed": 0, "progress": False}
    options |= {"num_samples": scale["samples"], "token_budget": scale["token_budget"]}
    return evaluate(model, tokenizer, test, maze_reward, **options)


def shown(result) -> dict:
    return {
        "pass_at_k": {str(k): round(value, 4) for k, value in result.pass_at_k.items()},
        "intervals": {str(k): [round(end, 4) for end in ends] for k, ends in result.intervals().items()},
        "token_entropy": round(result.token_entropy, 4),
        "num_correct": result.num_correct.tolist(),
    }


def differences(results: dict, name: str) -> dict:
    """pass@k minus that of the base model and of GRPO on the same mazes, with 95 % intervals."""
    found = {}
    for other in ("base", "grpo"):
        if other in results and other != name:
            pairs = {str(k): compare(results[name], results[other], k) for k in results[name].ks}
            found[f"minus_{other}"] = {k: [round(float(value), 4) for value in pair] for k, pair in pairs.items()}
    return found
