"""
What survives a kill at any moment, and what grows in a long run.

python benchmarks/endurance.py trainings --kills 40                 # one process
python benchmarks/endurance.py trainings --kills 10 --processes 2   # a random one of two is killed
python benchmarks/endurance.py evaluations --kills 20
python benchmarks/endurance.py dars --steps 300
python benchmarks/endurance.py judgements --count 50000

`trainings`: each run is killed by SIGKILL at a random moment between the start of its process and the end, and goes on
from the newest whole checkpoint. Its weights and its log must be those of a run that nothing interrupted, to the last
bit. The runs are, in turn, DARS, dynamic sampling with a selection and a memory of prompts, and Pass@k with two
iterations over each batch. `evaluations`: the same of an evaluation: no sample may be lost, doubled or another one.
`dars` and `judgements`: resident memory, open files, threads and child processes of a long run, and of the workers of
`math_reward`, of which every judgement counted is one that a worker made. `--output` takes up the figures of each.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch
from random_answers import random_pairs
from transformers import TrainerCallback

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import evaluate
from rlvr_trl.manifest import checkpoints_in
from rlvr_trl.rewards import MathReward, maze_reward
from rlvr_trl.testbed import build_model, build_tokenizer


ON_CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}
SMALL = {"num_generations": 4, "prompts_per_batch": 8, "prompts_per_update": 4, "max_completion_length": 4}
KINDS = {
    "dars": {"rollouts": {"name": "dars", "schedule": "hardness_weighted", "max_generations": 12}},
    "refilled": {"rollouts": "dynamic_sampling", "selection": "skip_solved", "prompt_history": {"pools": "number"}},
    "pass_at_k": {"advantages": {"name": "pass_at_k", "k": 2}, "num_iterations": 2},
}
STEPS = 16
PATIENCE = 120.0  # seconds for a process to end by itself
FORKS = multiprocessing.get_context("forkserver")
WATCHED = ("resident MiB", "open files", "threads", "processes")


def right_by_number(completions, number, **kwargs):
    """One prompt in three is all right or all wrong."""
    return [float("R" in text) if n % 3 else float(n % 2) for text, n in zip(completions, number, strict=True)]


def make_trainer(folder: Path, kind: str, **settings) -> RLVRTrainer:
    mazes = make_maze_dataset(24, prompt_style="bare", seed=5)
    mazes = mazes.add_column("number", list(range(len(mazes))))
    defaults = {"per_device_train_batch_size": 8, "learning_rate": 1e-3, "max_steps": STEPS, "logging_steps": 1}
    saved = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 3}
    args = RLVRConfig(str(folder), **ON_CPU, **SMALL, **defaults | saved | KINDS[kind] | settings)
    tokenizer = build_tokenizer()
    return RLVRTrainer(build_model(tokenizer, seed=0), right_by_number, args, mazes, processing_class=tokenizer)


def of_a_log(history: list[dict]) -> list[dict]:
    """A log without what the clock decides, and without transformers' mean loss of the steps since a resume."""
    clock = ("runtime", "per_second", "step_time", "seconds", "time/", "train_loss")
    return [{k: v for k, v in row.items() if not any(word in k for word in clock)} for row in history]


def train(folder: Path, kind: str, environment: dict[str, str]) -> None:
    """What each process of a run does: goes on from what is there, and saves what it ends with."""
    os.environ |= environment
    with open(folder / f"output-{os.environ['RANK']}.txt", "a", encoding="utf-8") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
        torch.set_num_threads(1)
        trainer = make_trainer(folder, kind)
        trainer.train(resume_from_checkpoint=True if checkpoints_in(folder) else None)
        if trainer.accelerator.is_main_process:
            weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
            log = of_a_log(trainer.state.log_history)
            torch.save({"weights": weights, "log": json.dumps(log, sort_keys=True)}, folder / "final.pt")


def started(function: Callable, *arguments) -> multiprocessing.Process:
    process = FORKS.Process(target=function, args=arguments)
    process.start()
    return process


def start(folder: Path, kind: str, count: int) -> list[multiprocessing.Process]:
    port = str(random.SystemRandom().randrange(20_000, 32_000))
    everywhere = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(count)}
    processes = []
    for rank in map(str, range(count)):
        of_rank = everywhere | {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": str(count)}
        processes.append(started(train, folder, kind, of_rank))
    return processes


def join(processes: list[multiprocessing.Process], folder: Path) -> list[int | None]:
    """Waits until all have ended. One that does not is an error."""
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            raise SystemExit(f"Process {process.pid} of {folder} had to be ended after {PATIENCE:.0f} s.")
    return [process.exitcode for process in processes]


def whole_run(folder: Path, kind: str, count: int) -> tuple[dict, float]:
    """What a run ends with, and the seconds that it took."""
    begin = time.monotonic()
    codes = join(start(folder, kind, count), folder)
    if any(codes):
        text = (folder / "output-0.txt").read_text(encoding="utf-8", errors="replace")
        raise SystemExit(f"A run of {kind} ended with {codes}:\n{text[-3000:]}")
    return torch.load(folder / "final.pt", weights_only=True), time.monotonic() - begin


def same(a: dict, b: dict) -> bool:
    return a["log"] == b["log"] and all(torch.equal(a["weights"][name], b["weights"][name]) for name in b["weights"])


def kill_trainings(args: argparse.Namespace, work: Path) -> dict:
    rng = random.Random(args.seed)
    expected, seconds = {}, {}
    for kind in list(KINDS)[: args.kills]:
        (work / kind).mkdir()
        expected[kind], seconds[kind] = whole_run(work / kind, kind, args.processes)
    killed_at, kept = [], 0
    while len(killed_at) < args.kills:
        kind, folder = list(KINDS)[len(killed_at) % len(KINDS)], Path(tempfile.mkdtemp(dir=work))
        processes = start(folder, kind, args.processes)
        time.sleep(rng.uniform(0.0, seconds[kind]))
        rng.choice(processes).kill()
        if -signal.SIGKILL not in join(processes, folder):
            continue  # it had ended before
        killed_at.append(max((int(path.name.partition("-")[2]) for path in checkpoints_in(folder)), default=0))
        ended, _ = whole_run(folder, kind, args.processes)
        kept += same(ended, expected[kind])
        print(f"{len(killed_at)}: {kind}, killed after checkpoint {killed_at[-1]}; {kept} end the same.", flush=True)
    return {"kills": args.kills, "the same": kept, "last checkpoints": sorted(killed_at)}


def samples_of(folder: Path) -> list[str]:
    return sorted((folder / "samples-0.jsonl").read_text(encoding="utf-8").splitlines())


def evaluate_mazes(folder: Path) -> None:
    torch.set_num_threads(1)
    tokenizer = build_tokenizer()
    mazes = make_maze_dataset(8, prompt_style="bare", seed=5)
    sampling = {"num_samples": 100, "max_new_tokens": 6, "token_budget": 120}
    model = build_model(tokenizer, seed=0)
    evaluate(model, tokenizer, mazes, maze_reward, **sampling, output_dir=folder, progress=False)


def kill_evaluations(args: argparse.Namespace, work: Path) -> dict:
    rng, expected = random.Random(args.seed), work / "whole"
    begin = time.monotonic()
    join([started(evaluate_mazes, expected)], expected)
    seconds = time.monotonic() - begin
    kept, lines = 0, []
    while len(lines) < args.kills:
        folder = Path(tempfile.mkdtemp(dir=work)) / "run"
        process = started(evaluate_mazes, folder)
        time.sleep(rng.uniform(0.0, seconds))
        process.kill()
        if join([process], folder) != [-signal.SIGKILL]:
            continue  # it had ended before
        path = folder / "samples-0.jsonl"
        lines.append(path.read_bytes().count(b"\n") if path.exists() else 0)
        codes = join([started(evaluate_mazes, folder)], folder)
        kept += codes == [0] and samples_of(folder) == samples_of(expected)
        print(f"{len(lines)}: killed after {lines[-1]} samples; {kept} have the same samples.", flush=True)
    return {"kills": args.kills, "the same": kept, "samples at the kill": sorted(lines)}


def state_of(process: psutil.Process) -> dict[str, float]:
    """Of a process and all its children."""
    sums = dict.fromkeys(WATCHED, 0.0)
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            figures = (each.memory_info().rss / 2**20, each.num_fds(), each.num_threads(), 1)
            for name, figure in zip(WATCHED, figures, strict=True):
                sums[name] += figure
    return {name: round(figure, 1) for name, figure in sums.items()}


class Watch:
    """The state of this process after so and so much, printed and kept."""

    def __init__(self):
        self.process, self.states = psutil.Process(), []

    def __call__(self, done: int, what: str) -> None:
        self.states.append({what: done} | state_of(self.process))
        print(", ".join(f"{name} {figure:,}" for name, figure in self.states[-1].items()))


def watch_dars(args: argparse.Namespace, work: Path) -> dict:
    watch = Watch()

    class Looks(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % (state.max_steps // 6) == 0:
                watch(state.global_step, "steps")

    trainer = make_trainer(work, "dars", max_steps=args.steps, save_steps=10, learning_rate=1e-5)
    trainer.add_callback(Looks())
    trainer.train()
    return {"states": watch.states}


def asked(seed: int) -> Iterator[tuple[list[str], list[str]]]:
    """Batches of answers in boxes, each with a reference that has to be compared as an expression."""
    while True:
        pairs = list(random_pairs(4096, seed))
        seed += 1
        for i in range(0, len(pairs), 128):
            batch = pairs[i : i + 128]
            yield [rf"\boxed{{{pair.answer}}}" for pair in batch], [pair.reference for pair in batch]


def watch_judgements(args: argparse.Namespace, work: Path) -> dict:
    reward, watch, step = MathReward(num_workers=2), Watch(), args.count // 10
    begin, completions, due = time.monotonic(), 0, step
    for answers, references in asked(args.seed):
        reward(answers, answer=references)
        completions += len(answers)
        judged = reward.pool.counts["done"]
        if judged >= due:
            watch(judged, "judgements")
            due += step
        if judged >= args.count:
            break
    seconds = round(time.monotonic() - begin)
    return {"states": watch.states, "completions": completions, "seconds": seconds, "workers": reward.pool.counts}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=RUNS)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--processes", type=int, default=1, help="of each training")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--count", type=int, default=50_000, help="judgements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file that takes up the figures under this name")
    args = parser.parse_args()
    FORKS.set_forkserver_preload(["endurance"])
    with tempfile.TemporaryDirectory() as folder:
        figures = RUNS[args.what](args, Path(folder))
    name = args.what if args.processes == 1 else f"{args.what} on {args.processes} processes"
    print(f"{name}: {json.dumps(figures)}")
    if args.output:
        known = json.loads(args.output.read_text(encoding="utf-8")) if args.output.exists() else {}
        known[name] = {"python": platform.python_version(), "torch": torch.__version__, "seed": args.seed} | figures
        args.output.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    if "kills" in figures and figures["the same"] < figures["kills"]:
        raise SystemExit(1)


RUNS = {
    "trainings": kill_trainings,
    "evaluations": kill_evaluations,
    "dars": watch_dars,
    "judgements": watch_judgements,
}


if __name__ == "__main__":
    main()
