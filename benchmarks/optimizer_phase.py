"""The optimizer phase of one batch, stock TRL against RLVRTrainer: time, peak memory, and the same gradient.

    python benchmarks/optimizer_phase.py --threads 1 --output benchmarks/results/optimizer_phase.json

Both trainers get the same random batch in place of a generated one, and run all forward and backward passes of one
optimizer step (`training_step`, as often as the training loop calls it), without the step of the optimizer itself.
Stock TRL pads every pass to the longest completion of the batch; RLVRTrainer sorts by length and trims each pass. No
advantage is zero: skipping completions without a gradient would be a further gain, which is not measured here.

Three scenarios:
    log-normal   lengths with a mean of a quarter of the maximum, which one completion reaches
    equal        every completion has the mean length: there is nothing to gain, so this shows what planning costs
    breadth      peak memory of RLVRTrainer alone while the number of prompts grows sixteenfold

Peak memory is the highest resident set of a fresh process during the phase, less its resident set at the beginning of
the phase, when it already holds the batch. glibc is told to return freed blocks of 256 KiB and more at once:
otherwise it keeps them, and the peak depends on their order. Times are wall clock; the processor time of the process,
which other programs disturb less, is reported too.

With `--device cuda` a round that is not timed comes first, times include the end of the last kernel, and peak memory
is that of torch's allocator in that round. Gradients in bfloat16 differ by their rounding; `benchmarks/gpu` compares
them with a reference.

The exit code is 1 if a gradient differs from stock TRL by more than 1e-5 of its norm (in bfloat16, 0.1).
Speed is never asserted.
"""

import argparse
import contextlib
import gc
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median


os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before transformers is imported: nothing here comes from the Hub
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
import transformers
import trl
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, PreTrainedModel, Qwen2Config
from trl import GRPOConfig, GRPOTrainer

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.attention import without_cudnn_attention
from rlvr_trl.testbed import build_tokenizer


GENERATIONS = 8
SIGMA = 0.8  # standard deviation of the logarithm of the length
LOSS_TYPE = "dapo"
GRADIENT_TOLERANCE = {"float32": 1e-5, "bfloat16": 0.1}
# Passes of equal cost instead of equal rows: two of the longest rows in a pass, still eight of the short ones
BUDGET = 2
VARIANTS = {
    "stock": "stock TRL",
    "trim_padding": "trim_padding=True",
    "prompts_per_batch": "prompts_per_batch",
    "token_budget": "  + token budget",
}
QUICK = {"rows": 32, "hidden": 128, "layers": 2, "max_length": 256, "repeats": 2}
MIB = 2**20


# --- the batch ---


def log_normal_lengths(num_rows: int, max_length: int, mean_length: float) -> torch.Tensor:
    """
    Lengths at evenly spaced quantiles of a log-normal distribution cut off at `max_length`. `(num_rows,)`

    Its location is chosen so that the mean is `mean_length`; one completion has the maximum length.
    """
    normal = torch.special.ndtri((torch.arange(num_rows, dtype=torch.float64) + 0.5) / num_rows)
    low, high = -10.0, 20.0
    for _ in range(60):
        location = (low + high) / 2
        lengths = (location + SIGMA * normal).exp().round().clamp(1, max_length)
        lengths[-1] = max_length
        low, high = (location, high) if lengths.mean() < mean_length else (low, location)
    return lengths.long()


def make_batch(options, lengths: torch.Tensor, generator: torch.Generator) -> dict:
    """A batch of random tokens in the form that TRL's generation returns, with completions of `lengths` `(B,)`."""
    num_rows, width, longest = len(lengths), int(lengths.max()), options.prompt_length
    lengths = lengths[torch.randperm(num_rows, generator=generator)]
    prompts = torch.randint(longest // 2, longest + 1, (num_rows,), generator=generator)
    prompt_mask = (torch.arange(longest) >= longest - prompts[:, None]).long()  # (B, P), padded left
    completion_mask = (torch.arange(width) < lengths[:, None]).long()  # (B, C), padded right
    # near those of an untrained model, so that ratios are near 1 and some of them are clipped
    old = 0.2 * torch.randn(num_rows, width, generator=generator) - torch.tensor(float(options.vocabulary)).log()
    batch = {
        "prompt_ids": torch.randint(1, options.vocabulary, prompt_mask.shape, generator=generator) * prompt_mask,
        "prompt_mask": prompt_mask,
        "completion_ids": torch.randint(1, options.vocabulary, completion_mask.shape, generator=generator)
        * completion_mask,
        "completion_mask": completion_mask,
        "advantages": torch.randn(num_rows, generator=generator),
        "num_items_in_batch": completion_mask.sum(),
        "old_per_token_logps": old * completion_mask,
    }
    return {name: value.to(options.device) for name, value in batch.items()}


def num_bytes(batch: dict) -> int:
    return sum(value.numel() * value.element_size() for value in batch.values())


# --- the trainers ---


class ReadyBatch:
    """A trainer that takes the batch in `ready` as what it has generated, and keeps no other reference to it."""

    ready: list[dict]

    def _generate_and_score_completions(self, inputs):
        return self.ready.pop()


class Stock(ReadyBatch, GRPOTrainer):
    pass


class StockWithoutCudnn(Stock):
    """With the attention kernels that RLVRTrainer uses in passes of its own."""

    @without_cudnn_attention()
    def training_step(self, *args, **kwargs):
        return super().training_step(*args, **kwargs)


class Ours(ReadyBatch, RLVRTrainer):
    pass


def no_reward(completions, **kwargs):
    return [0.0] * len(completions)


def build_trainer(variant: str, options, num_rows: int, max_length: int, output_dir: str):
    settings = {
        "per_device_train_batch_size": options.micro_batch,
        "num_generations": GENERATIONS,
        "max_completion_length": max_length,
        "loss_type": LOSS_TYPE,
        "beta": 0.0,
        "bf16": options.dtype == "bfloat16",
        "gradient_checkpointing": options.checkpointing,
        "use_cpu": options.device == "cpu",
        "report_to": "none",
        "disable_tqdm": True,
    }
    if variant in ("stock", "stock_without_cudnn", "trim_padding"):
        settings["gradient_accumulation_steps"] = num_rows // options.micro_batch
    else:
        settings["prompts_per_batch"] = num_rows // GENERATIONS
    if variant == "trim_padding":
        settings["trim_padding"] = True
    if variant == "token_budget":
        settings["max_tokens_per_micro_batch"] = BUDGET * (options.prompt_length + max_length)
    stock = {"stock": Stock, "stock_without_cudnn": StockWithoutCudnn}
    trainer_class, config_class = stock.get(variant, Ours), GRPOConfig if variant in stock else RLVRConfig
    with contextlib.redirect_stdout(io.StringIO()):  # our table says how the batch is made up
        trainer = trainer_class(
            model=build_model(options, options.prompt_length + max_length),
            reward_funcs=no_reward,
            args=config_class(output_dir, **settings),
            train_dataset=Dataset.from_dict({"prompt": ["S"] * (num_rows // GENERATIONS)}),
            processing_class=build_tokenizer(),
        )
    if options.checkpointing:
        enable_checkpointing(trainer.model)
    return trainer


def enable_checkpointing(model: PreTrainedModel) -> None:
    """As the training loop does at its beginning; here it never begins."""
    # transformers renamed it after 5.17
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})
    assert any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def build_model(options, max_positions: int) -> PreTrainedModel:
    heads = max(1, options.hidden // 64)
    config = Qwen2Config(
        vocab_size=options.vocabulary,
        hidden_size=options.hidden,
        num_hidden_layers=options.layers,
        num_attention_heads=heads,
        num_key_value_heads=options.kv_heads or heads,
        intermediate_size=options.intermediate or 2 * options.hidden,
        max_position_embeddings=max_positions,
        tie_word_embeddings=True,
        dtype=options.dtype,
    )
    torch.manual_seed(0)
    with torch.device(options.device):
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, options.dtype))


def warm_up(model) -> None:
    """Runs a small pass, so that what torch and its libraries set up once, and the gradients, are allocated."""
    model(input_ids=torch.ones(8, 16, dtype=torch.long, device=model.device)).logits.sum().backward()


def synchronize(device: torch.device) -> None:
    """Waits for what runs on a GPU, whose calls return before it has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def optimizer_phase(trainer, ready: list[dict]) -> tuple[float, float]:
    """Runs all passes of one optimizer step over the batch in `ready`, and empties it. Wall and processor seconds."""
    trainer.ready = ready
    trainer.model.zero_grad(set_to_none=False)
    steps = trainer.args.gradient_accumulation_steps
    trainer.current_gradient_accumulation_steps = steps  # as the training loop does
    torch.manual_seed(0)  # TRL shuffles the rows
    device = trainer.accelerator.device
    synchronize(device)
    begin, begin_processor = time.perf_counter(), time.process_time()
    for _ in range(steps):
        trainer.training_step(trainer.model, [], None)
    synchronize(device)
    return time.perf_counter() - begin, time.process_time() - begin_processor


def gradient(trainer) -> list[torch.Tensor]:
    return [weight.grad.clone() for weight in trainer.model.parameters()]


def relative_error(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """The norm of the difference of two gradients by the norm of the second, in float64."""
    difference = norm = 0.0
    for a, b in zip(found, expected, strict=True):
        exact = b.double()
        difference += float((a.double() - exact).square().sum())
        norm += float(exact.square().sum())
    return (difference / norm) ** 0.5


# --- time ---


def measure_time(options, lengths: torch.Tensor, variants: tuple[str, ...], output_dir: str, reference=None) -> dict:
    """
    Times every variant in `options.repeats` alternating rounds, and compares its gradient with stock TRL's.

    Args:
        reference (`Callable`, *optional*): makes another gradient to compare with, from the model and the batch.
    """
    batch = make_batch(options, lengths, torch.Generator().manual_seed(1))
    trainers = {name: build_trainer(name, options, len(lengths), int(lengths.max()), output_dir) for name in variants}
    for trainer in trainers.values():
        warm_up(trainer.model)
    on_gpu = options.device == "cuda"
    seconds, gradients, peaks = {name: [] for name in variants}, {}, {}
    # the first round on a GPU compiles kernels and measures memory, for which it empties torch's cache
    for repeat in range(-1 if on_gpu else 0, options.repeats):
        first = max(repeat, 0) % len(variants)
        for name in variants[first:] + variants[:first]:  # another variant begins each round
            before = begin_peak() if repeat < 0 else 0
            pair = optimizer_phase(trainers[name], [batch])
            if repeat < 0:
                peaks[name] = round((torch.cuda.max_memory_allocated() - before) / MIB, 1), round(pair[0], 3)
            else:
                seconds[name].append(pair)
            if name not in gradients:
                gradients[name] = gradient(trainers[name])
    exact = None if reference is None else reference(trainers["stock"].model, batch)
    measured = {"mean_length": float(lengths.double().mean()), "max_length": int(lengths.max()), "variants": {}}
    for name in variants:
        row = {"gradient_error": relative_error(gradients[name], gradients["stock"])}
        row |= speed(seconds[name], seconds["stock"])
        if on_gpu:
            row["peak_mib"], row["first_seconds"] = peaks[name]
        if exact is not None:
            row["error_to_reference"] = relative_error(gradients[name], exact)
        if name not in ("stock", "stock_without_cudnn"):
            row["padding_share"] = round(trainers[name]._plan.padding_share, 4)
        measured["variants"][name] = row
    return measured


def speed(own: list[tuple[float, float]], stock: list[tuple[float, float]]) -> dict:
    """Wall and processor seconds of each repeat, their medians, and how they compare with stock TRL's."""
    row = {}
    for clock, prefix in enumerate(("", "processor_")):
        theirs, mine = ([pair[clock] for pair in pairs] for pairs in (stock, own))
        row[f"{prefix}seconds"] = [round(value, 3) for value in mine]
        row[f"{prefix}median_seconds"] = round(median(mine), 3)
        row[f"{prefix}times_faster"] = round(median(theirs) / median(mine), 3)
        ratios = [stock_seconds / seconds for stock_seconds, seconds in zip(theirs, mine, strict=True)]
        row[f"{prefix}times_faster_per_repeat"] = [round(ratio, 3) for ratio in ratios]
    return row


def begin_peak() -> int:
    """Forgets the peak of the GPU's memory. Returns the bytes allocated now: models, gradients and the batch."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


# --- memory ---


def resident(field: str) -> int:
    """`VmRSS` now, or `VmHWM` since it was last reset, of this process in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def reset_peak() -> bool:
    """Resets the kernel's high-water mark. Returns False where that is not allowed."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def measure_memory_here(options, lengths: torch.Tensor) -> dict:
    """Peak memory of one optimizer phase in this process, which must be fresh."""
    max_length = int(lengths.max())
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = build_trainer(options.memory_of, options, len(lengths), max_length, output_dir)
        warm_up(trainer.model)
        ready = [make_batch(options, lengths, torch.Generator().manual_seed(1))]
        stored, was_reset = num_bytes(ready[0]), reset_peak()
        before = resident("VmRSS")
        seconds, _ = optimizer_phase(trainer, ready)
        peak = resident("VmHWM") if was_reset else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rows": len(lengths),
        "batch_mib": round(stored / MIB, 2),
        "peak_mib_beyond_batch": round((peak - before) / MIB, 2),
        "seconds": round(seconds, 2),
    }


def smaller(options, prompts: int):
    """The settings for a batch of `prompts` prompts: half the width and depth, and a twelfth of the length."""
    changed = {
        "rows": prompts * GENERATIONS,
        "hidden": max(options.hidden // 2, 32),
        "layers": max(options.layers // 2, 1),
        "max_length": options.max_length // 12,
        "mean_length": options.mean_length / 12,
    }
    return argparse.Namespace(**vars(options) | changed)


def measure_memory(options, variant: str) -> dict:
    """The same in a fresh process."""
    names = ("rows", "hidden", "layers", "max_length", "mean_length", "micro_batch", "threads", "vocabulary")
    names += ("intermediate", "kv_heads", "prompt_length", "dtype")
    given = {name: getattr(options, name) for name in names}
    settings = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if value is not None]
    settings += ["--checkpointing"] if options.checkpointing else []
    command = [sys.executable, __file__, f"--memory-of={variant}", *settings]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "262144", "MALLOC_TRIM_THRESHOLD_": "262144"}
    done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8")
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- report ---


def time_table(title: str, measured: dict, memory: dict) -> Table:
    table = Table(title=title)
    for column in (
        "",
        "seconds (median)",
        "times faster",
        "repeats",
        "by CPU",
        "gradient error",
        "padding",
        "peak MiB",
    ):
        table.add_column(column, justify="right" if column else "left")
    for name, row in measured["variants"].items():
        ratios = row["times_faster_per_repeat"]
        table.add_row(
            VARIANTS[name],
            f"{row['median_seconds']:.2f}",
            f"{row['times_faster']:.2f}",
            "" if name == "stock" else f"{min(ratios):.2f} – {max(ratios):.2f}",
            f"{row['processor_times_faster']:.2f}",
            "" if name == "stock" else f"{row['gradient_error']:.1e}",
            "" if name == "stock" else f"{row['padding_share']:.0%}",
            peak_cell(row, memory.get(name)),
        )
    return table


def peak_cell(row: dict, memory: dict | None) -> str:
    peak = row.get("peak_mib") if memory is None else memory["peak_mib_beyond_batch"]
    return "" if peak is None else f"{peak:.0f}"


def breadth_table(rows: list[dict]) -> Table:
    table = Table(title="Breadth: peak memory of prompts_per_batch")
    for column in ("prompts", "completions", "stored batch MiB", "peak MiB beyond it", "seconds"):
        table.add_column(column, justify="right")
    for row in rows:
        prompts, beyond = row["rows"] // GENERATIONS, row["peak_mib_beyond_batch"]
        table.add_row(f"{prompts}", f"{row['rows']}", f"{row['batch_mib']}", f"{beyond}", f"{row['seconds']:.1f}")
    return table


def machine(options) -> dict:
    return {
        "cores": os.cpu_count(),
        "threads": options.threads,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def parse_options(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, help=f"completions of the batch, a multiple of {GENERATIONS} [64]")
    parser.add_argument("--hidden", type=int, help="hidden size of the model [256]")
    parser.add_argument("--layers", type=int, help="layers of the model [4]")
    parser.add_argument("--max-length", type=int, help="longest completion, in tokens [768]")
    parser.add_argument("--mean-length", type=float, help="mean length of the completions [a quarter of --max-length]")
    parser.add_argument("--micro-batch", type=int, default=8, help="most rows in one pass [8]")
    parser.add_argument("--repeats", type=int, help="alternating repeats of the time [5]")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch [1]")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of weights [float32]")
    parser.add_argument("--checkpointing", action="store_true", help="gradient checkpointing")
    parser.add_argument("--vocabulary", type=int, default=2048, help="tokens of the model [2048]")
    parser.add_argument("--intermediate", type=int, help="width of the MLP [twice --hidden]")
    parser.add_argument("--kv-heads", type=int, help="heads of keys and values [those of queries: --hidden / 64]")
    parser.add_argument("--prompt-length", type=int, default=16, help="longest prompt; the shortest has half [16]")
    parser.add_argument("--no-memory", action="store_true", help="measure time and gradient only")
    parser.add_argument("--quick", action="store_true", help="a small model and batch, under 40 s")
    parser.add_argument("--output", type=Path, help="file for all figures, as JSON")
    parser.add_argument("--memory-of", choices=VARIANTS, help=argparse.SUPPRESS)  # for the processes started above
    options = parser.parse_args(argv)
    defaults = {"rows": 64, "hidden": 256, "layers": 4, "max_length": 768, "repeats": 5}
    options.breadth = (8, 64) if options.quick else (64, 256, 1024)  # prompts
    for name, default in (defaults | (QUICK if options.quick else {})).items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    if options.mean_length is None:
        options.mean_length = options.max_length / 4
    if options.rows % GENERATIONS or options.rows % options.micro_batch:
        parser.error(f"--rows {options.rows} must be divisible by {GENERATIONS} generations and by --micro-batch")
    return options


def main() -> int:
    options = parse_options()
    torch.set_num_threads(options.threads)
    lengths = log_normal_lengths(options.rows, options.max_length, options.mean_length)
    if options.memory_of:
        print(json.dumps(measure_memory_here(options, lengths)))
        return 0
    console, about = Console(width=119), machine(options)
    console.print(", ".join(f"{name} {value}" for name, value in about.items()))
    console.print(
        f"{options.rows} completions, loss {LOSS_TYPE}, micro-batch {options.micro_batch}, hidden {options.hidden}, "
        f"{options.layers} layers, at most {options.max_length} tokens, mean {options.mean_length:g}"
    )
    equal = torch.full((options.rows,), round(options.mean_length))
    with tempfile.TemporaryDirectory() as output_dir:
        times = {
            "log-normal": measure_time(options, lengths, tuple(VARIANTS), output_dir),
            "equal": measure_time(options, equal, ("stock", "trim_padding", "prompts_per_batch"), output_dir),
        }
    memory, breadth = {}, []
    if not options.no_memory and options.device == "cpu":
        memory = {name: measure_memory(options, name) for name in ("stock", "prompts_per_batch")}
        breadth = [measure_memory(smaller(options, prompts), "prompts_per_batch") for prompts in options.breadth]
    for name, measured in times.items():
        console.print(time_table(f"{name} lengths", measured, memory if name == "log-normal" else {}))
    if breadth:
        console.print(breadth_table(breadth))
    return report(options, about, times, memory, breadth)


def report(options, about: dict, times: dict, memory: dict, breadth: list[dict]) -> int:
    """Prints the lines at the end, writes the file, and returns the exit code."""
    errors = []
    for scenario, measured in times.items():
        for name, row in measured["variants"].items():
            if name != "stock":
                errors.append(row["gradient_error"])
                print(
                    f"ratio {scenario} {name}: {row['times_faster']:.2f} times as fast as stock TRL "
                    f"({row['processor_times_faster']:.2f} by processor time)"
                )
    if memory:
        stock, ours = (memory[name]["peak_mib_beyond_batch"] for name in ("stock", "prompts_per_batch"))
        print(f"ratio memory: peak {ours:.0f} MiB against {stock:.0f} MiB of stock TRL, {ours / stock:.2f} of it")
        first, last = (breadth[index]["peak_mib_beyond_batch"] for index in (0, -1))
        print(
            f"ratio breadth: {last / first:.2f} of the peak memory with {breadth[-1]['rows'] // GENERATIONS} prompts"
        )
    passed = max(errors) <= GRADIENT_TOLERANCE[options.dtype]  # False for NaN too
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        settings = {name: value for name, value in vars(options).items() if name not in ("output", "memory_of")}
        figures = {
            "command": " ".join(["python", "benchmarks/optimizer_phase.py", *sys.argv[1:]]),
            "machine": about,
            "settings": settings | {"loss_type": LOSS_TYPE},
            "time": times,
            "memory": memory,
            "breadth": breadth,
        }
        options.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(f"gradient check: {'passed' if passed else 'FAILED'}, largest relative error {max(errors):.1e}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
