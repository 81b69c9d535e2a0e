"""What asynchronous training can gain, by a simulation of events whose assumptions are arguments. Not a measurement.

A GPU that generates takes `--step-ms` + `--step-us` × active sequences for one token of each of them, and has at most
`--slots` of them. Lengths are log-normal, cut at `--max-length`. A prompt is right with a probability of its own,
drawn from a Beta distribution; DARS (hardness weighted) gives it further completions after its first `--generations`.
A GPU that trains takes `--train-tokens` tokens a second. Four ways to use the same GPUs are compared:

    synchronous     all generate the first stage, then all the second, then all train
    per prompt      the same, but a prompt has its second stage as soon as its first is there
    one round       the counts are known before (from a history of prompts), so there is one stage; then all train
    asynchronous    some GPUs generate and the others train. As in the trainer, no more is begun than can be trained
                    on before it is older than `--staleness` steps; what takes longer than these is thrown away and
                    sampled again. Every split of the GPUs is tried

python benchmarks/async_simulation.py --prompts 128
"""

import argparse
import heapq
import json
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from rlvr_trl.rollouts import hardness_weighted


@dataclass
class Prompt:
    """One visit of a prompt: lengths of its completions, drawn when they begin."""

    extra: int  # completions of the second stage
    version: int = 0
    open: int = 0  # completions that are not there yet
    stage: int = 1
    tokens: int = 0
    count: int = 0


@dataclass
class Gpu:
    """Sequences that all get their next token in the same step, whose time depends on how many they are."""

    base: float  # seconds of a step
    each: float  # seconds of a step for each active sequence
    slots: int
    time: float = 0.0
    clock: float = 0.0  # steps
    busy: float = 0.0  # slots × seconds
    active: list = field(default_factory=list)  # heap of (clock at the end, number, prompt)

    def seconds_of_step(self) -> float:
        return self.base + self.each * len(self.active)

    def advance(self, time: float) -> None:
        if self.active:
            self.clock += (time - self.time) / self.seconds_of_step()
            self.busy += (time - self.time) * len(self.active)
        self.time = time

    def next_end(self) -> float:
        if not self.active:
            return float("inf")
        return self.time + max(0.0, self.active[0][0] - self.clock) * self.seconds_of_step()


class Engine:
    """GPUs that take completions from one queue, in which those of prompts in work come first."""

    def __init__(self, args, gpus: int, rng: np.random.Generator):
        self.args, self.rng, self.time, self.number = args, rng, 0.0, 0
        self.gpus = [Gpu(args.step_ms / 1e3, args.step_us / 1e6, args.slots) for _ in range(gpus)]
        self.further: deque[Prompt] = deque()

    def length(self) -> int:
        args = self.args
        drawn = self.rng.lognormal(np.log(args.mean_length) - args.sigma**2 / 2, args.sigma)
        return int(np.clip(round(drawn), 1, args.max_length))

    def fill(self, next_prompt=None) -> None:
        """Gives every free slot something to do: further completions, then those of new prompts."""
        for gpu in self.gpus:
            gpu.advance(self.time)
        while len((gpu := min(self.gpus, key=lambda gpu: len(gpu.active))).active) < gpu.slots:
            if not self.further and (prompt := next_prompt() if next_prompt else None) is not None:
                self.further.extend([prompt] * prompt.open)
            if not self.further:
                break
            prompt, length = self.further.popleft(), self.length()
            prompt.tokens += length
            prompt.count += 1
            self.number += 1
            heapq.heappush(gpu.active, (gpu.clock + length, self.number, prompt))

    def next_time(self) -> float:
        return min(gpu.next_end() for gpu in self.gpus)

    def step(self) -> Prompt:
        """Goes on to the next completion that ends."""
        gpu = min(self.gpus, key=Gpu.next_end)
        self.time = gpu.next_end()
        gpu.advance(self.time)
        _, _, prompt = heapq.heappop(gpu.active)
        prompt.open -= 1
        return prompt

    def wait_until(self, time: float) -> None:
        self.time = time
        for gpu in self.gpus:
            gpu.advance(time)

    @property
    def use(self) -> float:
        """Share of the slots that were busy while it ran."""
        return sum(gpu.busy for gpu in self.gpus) / (len(self.gpus) * self.args.slots * max(self.time, 1e-9))


def draw_prompt(args, rng: np.random.Generator) -> Prompt:
    accuracy = rng.beta(args.accuracy[0], args.accuracy[1])
    correct = torch.tensor([int(rng.binomial(args.generations, accuracy))])
    total = torch.tensor([args.generations])
    return Prompt(int(hardness_weighted(correct, total, args.cap)) if args.cap > args.generations else 0)


def synchronous(args, kind: str, seed: int) -> tuple[float, float]:
    """Seconds of a step, and the share of the slots that were busy while it generated."""
    seconds, busy, generating = 0.0, 0.0, 0.0
    for step in range(args.steps):
        rng = np.random.default_rng((seed, step))
        engine = Engine(args, args.gpus, rng)
        prompts = [draw_prompt(args, rng) for _ in range(args.prompts)]
        for prompt in prompts:
            prompt.open = args.generations + (prompt.extra if kind == "one round" else 0)
            engine.further.extend([prompt] * prompt.open)
        run(engine, second_stage_at_once=kind == "per prompt")
        if kind == "synchronous":
            for prompt in prompts:
                prompt.open = prompt.extra
                engine.further.extend([prompt] * prompt.extra)
            run(engine, second_stage_at_once=False)
        tokens = sum(prompt.tokens for prompt in prompts)
        seconds += engine.time + tokens / (args.gpus * args.train_tokens)
        busy, generating = busy + engine.use * engine.time, generating + engine.time
    return seconds / args.steps, busy / generating


def run(engine: Engine, second_stage_at_once: bool) -> None:
    engine.fill()
    while engine.next_time() < float("inf"):
        prompt = engine.step()
        if second_stage_at_once and prompt.open == 0 and prompt.stage == 1:
            prompt.stage, prompt.open = 2, prompt.extra
            engine.further.extend([prompt] * prompt.extra)
        engine.fill()


def asynchronous(args, generating: int, seed: int) -> tuple[float, float, float]:
    """Seconds of a step, the share of the slots that were busy, and that of the tokens that were thrown away."""
    rng = np.random.default_rng((seed, 10**6))
    engine, training = Engine(args, generating, rng), args.gpus - generating
    in_work = 0
    ready: list[Prompt] = []
    version, done, ends, wasted, used = 0, 0, float("inf"), 0, 0
    begin, warm = 0.0, max(2, args.steps // 4)  # the first steps fill the pipeline

    def next_prompt() -> Prompt | None:
        nonlocal in_work
        in_training = 0 if ends == float("inf") else args.prompts
        if in_work + len(ready) + in_training >= (args.staleness + 1) * args.prompts:
            return None  # it would be stale before it is trained on
        in_work += 1
        prompt = draw_prompt(args, rng)
        prompt.version, prompt.open = version, args.generations
        return prompt

    while done < args.steps + warm:
        engine.fill(next_prompt)
        if ends == float("inf"):
            fresh = [prompt for prompt in ready if version - prompt.version <= args.staleness]
            wasted += sum(prompt.tokens for prompt in ready) - sum(prompt.tokens for prompt in fresh)
            ready = fresh
            if len(ready) >= args.prompts:
                ready.sort(key=lambda prompt: prompt.version)
                taken, ready = ready[: args.prompts], ready[args.prompts :]
                tokens = sum(prompt.tokens for prompt in taken)
                used += tokens
                ends = engine.time + tokens / (training * args.train_tokens) + args.sync_s
            engine.fill(next_prompt)
        if ends <= engine.next_time():
            engine.wait_until(ends)
            version, done, ends = version + 1, done + 1, float("inf")
            if done == warm:
                begin, wasted, used = engine.time, 0, 0
            continue
        prompt = engine.step()
        if prompt.open == 0 and prompt.stage == 1 and prompt.extra:
            prompt.stage, prompt.open = 2, prompt.extra
            engine.further.extend([prompt] * prompt.extra)
        elif prompt.open == 0:
            in_work -= 1
            ready.append(prompt)
    return (engine.time - begin) / args.steps, engine.use, wasted / max(wasted + used, 1)


def simulate(args) -> dict:
    """All ways, with the ratio of the seconds of a synchronous step to theirs."""
    if args.gpus < 2:
        raise SystemExit("--gpus must be at least 2: with one, nothing is left to train while it generates.")
    results = {}
    for kind in ("synchronous", "per prompt", "one round"):
        seconds, use = synchronous(args, kind, args.seed)
        results[kind] = {"seconds": seconds, "use": use}
    for generating in range(1, args.gpus):
        seconds, use, wasted = asynchronous(args, generating, args.seed)
        name = f"asynchronous, {generating} generate, {args.gpus - generating} train"
        results[name] = {"seconds": seconds, "use": use, "wasted": wasted}
    usual = results["synchronous"]["seconds"]
    return {name: {**row, "ratio": usual / row["seconds"]} for name, row in results.items()}


def show(results: dict) -> None:
    best = max((name for name in results if name.startswith("asynchronous")), key=lambda name: results[name]["ratio"])
    table = Table("", "s a step", "as fast", "slots busy", "tokens thrown away")
    for name, row in results.items():
        wasted = f"{row['wasted']:.0%}" if "wasted" in row else ""
        mark = " (best split)" if name == best else ""
        table.add_row(name + mark, f"{row['seconds']:.1f}", f"×{row['ratio']:.2f}", f"{row['use']:.0%}", wasted)
    Console().print(table)


def whole(least: int) -> Callable[[str], int]:
    """Reads an integer of at least `least`."""

    def read(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return read


def positive(text: str) -> float:
    """Reads a finite number above 0."""
    if (value := not_negative(text)) == 0:
        raise argparse.ArgumentTypeError(f"must be above 0, got {text}")
    return value


def not_negative(text: str) -> float:
    """Reads a finite number of at least 0."""
    if not 0 <= (value := float(text)) < math.inf:
        raise argparse.ArgumentTypeError(f"must be a finite number of at least 0, got {text}")
    return value


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=whole(1), default=8)
    parser.add_argument("--prompts", type=whole(1), default=128, help="of an optimizer step")
    parser.add_argument("--generations", type=whole(1), default=8, help="of a prompt in the first stage")
    parser.add_argument("--cap", type=whole(1), default=32, help="of DARS; equal to --generations for plain GRPO")
    parser.add_argument(
        "--accuracy", type=positive, nargs=2, default=(0.7, 1.0), help="Beta distribution of the prompts"
    )
    parser.add_argument("--mean-length", type=positive, default=900, help="tokens of a completion, before the cut")
    parser.add_argument("--max-length", type=whole(1), default=3072)
    parser.add_argument("--sigma", type=not_negative, default=0.6, help="of the logarithm of a length")
    parser.add_argument("--slots", type=whole(1), default=128, help="sequences that a GPU generates at once")
    parser.add_argument("--step-ms", type=positive, default=8.0, help="of a step of generation: reading the weights")
    parser.add_argument("--step-us", type=not_negative, default=60.0, help="of a step for each active sequence")
    parser.add_argument("--train-tokens", type=positive, default=9000, help="tokens that a GPU trains on in a second")
    parser.add_argument(
        "--sync-s", type=not_negative, default=1.0, help="seconds of a transfer of weights, asynchronous"
    )
    parser.add_argument("--staleness", type=whole(0), default=2)
    parser.add_argument("--steps", type=whole(1), default=12, help="that are averaged")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="file for the numbers, as JSON")
    return parser.parse_args(argv)


def main():
    args = parse_args()
    results = simulate(args)
    show(results)
    if args.output:
        settings = {name: value for name, value in vars(args).items() if name != "output"}
        text = json.dumps({"settings": settings, "results": results}, indent=1)
        args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
