"""
What staleness costs: asynchronous training on a real vLLM server against synchronous training at equal samples.

    python tests/with_vllm/staleness.py             # everything; stop and restart it as you like
    python tests/with_vllm/staleness.py --report    # the table of docs/asynchronous.md, from the runs that are there

One base model for mazes, warmed up to a pass@1 of 0.15. From it, on the same new mazes, with the same rate, loss,
optimizer and number of completions: `RLVRTrainer`, and `AsyncRLVRTrainer` with the server that it samples from. A seed
is another sequence of training problems and other samples.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np


sys.path.append(str(Path(__file__).parents[1]))  # where bounded.py finds launching.py

from bounded import run
from cpu_engine import save_model
from test_server_failures import Server


RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "staleness.jsonl"
WORK = Path("runs/staleness")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "asynchronous.md"
BEGIN, END = "<!-- staleness: begin -->", "<!-- staleness: end -->"
WAYS = {"synchronous": None, "staleness up to 2": 2, "staleness up to 8": 8}
RATE, SEEDS, STEPS = 3e-4, (0, 1, 2, 3, 4, 5), 100
PROMPTS, GENERATIONS = 16, 16


def make_base_model(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from rlvr_trl.testbed import build_tokenizer
    from rlvr_trl.testbed.cells import FULL_SIZE, problems_of
    from rlvr_trl.testbed.tasks import MAZE
    from rlvr_trl.testbed.warmup import warm_up_to

    save_model(str(folder))  # of a shape that vLLM runs on a CPU; its weights are to be others
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    problems = problems_of("maze", 0, FULL_SIZE)
    options = {"task": MAZE, "target": 0.15, "validation": problems.validation, "steps": 2000, "disable_tqdm": True}
    done = warm_up_to(model, build_tokenizer(), problems.warmup["maze"], output_dir=folder, **options)
    print(f"base model: pass@1 {done.pass_at_1:.3f} after {done.steps} steps", flush=True)


def tested(model, tokenizer) -> list[int]:
    """Right answers of each problem of the test."""
    from rlvr_trl.evaluation import evaluate
    from rlvr_trl.testbed.cells import FULL_SIZE, problems_of
    from rlvr_trl.testbed.tasks import MAZE

    options = {
        "num_samples": FULL_SIZE.samples,
        "max_new_tokens": MAZE.max_completion_length,
        "seed": 0,
        "progress": False,
    }
    return evaluate(
        model, tokenizer, problems_of("maze", 0, FULL_SIZE).test, MAZE.reward, **options
    ).num_correct.tolist()


def train(folder: str, base: str, url: str, way: str, seed: int) -> None:
    """One run, in a process of its own. Writes what is saved of it."""
    import torch
    from cpu_engine import use_cpu_engine
    from scripted_sampler import without_gpu
    from train_async import CheckpointTransfer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from rlvr_trl import AsyncRLVRConfig, AsyncRLVRTrainer, RLVRConfig, RLVRTrainer
    from rlvr_trl.testbed.cells import FULL_SIZE, Cell, log_columns, training_problems
    from rlvr_trl.testbed.tasks import MAZE

    tokenizer, begin = AutoTokenizer.from_pretrained(base), time.monotonic()
    settings = {
        **{"learning_rate": RATE, "lr_scheduler_type": "constant_with_warmup", "warmup_steps": 20, "seed": seed},
        **{"adam_beta2": 0.99, "epsilon_high": 0.28, "num_generations": GENERATIONS, "max_steps": STEPS},
        **{"max_completion_length": MAZE.max_completion_length, "logging_steps": 1, "save_strategy": "no"},
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"},
        **{"disable_tqdm": True, "output_dir": f"{folder}/run"},
    }
    ages: Counter[int] = Counter()

    class Recording(AsyncRLVRTrainer):
        def _estimate_step(self, groups):
            ages.update(self.model_version - group.model_version for group in groups)
            return super()._estimate_step(groups)

    staleness = WAYS[way]
    examples = training_problems(Cell("maze", way, RATE, base=0, seed=seed), STEPS * PROMPTS, FULL_SIZE)
    if staleness is None:
        settings |= {"prompts_per_batch": PROMPTS, "per_device_train_batch_size": PROMPTS * GENERATIONS}
        settings |= {"loss_type": "dapo", "share_prompt_prefill": True, "share_prompt_scoring": True}
        untrained = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        trainer = RLVRTrainer(untrained, MAZE.reward, RLVRConfig(**settings), examples, processing_class=tokenizer)
    else:
        use_cpu_engine()
        without_gpu()
        settings |= {"prompts_per_update": PROMPTS, "max_staleness": staleness, "token_budget": 8192}
        settings |= {"max_attempts": 100, "max_inflight_tasks": 128}
        settings |= {"vllm_server_base_url": url}
        trainer = Recording(
            *(base, MAZE.reward, AsyncRLVRConfig(**settings), examples),
            processing_class=tokenizer,
            weight_transfer=CheckpointTransfer(url),
        )
    trainer.train()
    seconds = time.monotonic() - begin
    # TRL's asynchronous trainer leaves the model with an attention for packed rows alone
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.load_state_dict(trainer.model.state_dict())
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(log) == STEPS
    saved = {
        **{"way": way, "seed": seed, "seconds": round(seconds)},
        "rewards": log_columns(log, ("reward",), points=10)["reward"],
        "groups_by_staleness": {str(age): ages[age] for age in sorted(ages)},
        "groups_dropped": round(sum(entry.get("stale/groups_total", 0) for entry in log)),
        "num_correct": tested(model, tokenizer),
    }
    Path(folder, "saved.json").write_text(json.dumps(saved), encoding="utf-8")


def run_all(results: Path, ways: list[str]) -> None:
    saved = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()] if results.exists() else []
    done = {(one["way"], one["seed"]) for one in saved}
    base = WORK / "base"
    if not (base / "model.safetensors").exists():
        make_base_model(base)
    if ("base", 0) not in done:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        counts = tested(AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base))
        append(results, {"way": "base", "seed": 0, "num_correct": counts})
    for seed, way in product(SEEDS, ways):
        if (way, seed) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            server = Server(base)
            try:
                if WAYS[way] is not None:
                    server.start()
                arguments = (str(base), server.url, way, str(seed))
                run("staleness.py", Path(folder), *arguments, processes=1, timeout=3600)
            finally:
                server.end()
            one = json.loads(Path(folder, "saved.json").read_text(encoding="utf-8"))
        append(results, one)
        print(way, seed, f"{one['seconds']} s", one["rewards"][-1], one["groups_by_staleness"], flush=True)


def append(results: Path, one: dict) -> None:
    with results.open("a", encoding="utf-8", newline="\n") as file:
        file.write(json.dumps(one) + "\n")


def report(results: Path, page: Path) -> None:
    """Writes the table into the page."""
    from rlvr_trl.evaluation import pass_at_k
    from rlvr_trl.testbed.cells import FULL_SIZE
    from rlvr_trl.testbed.intervals import estimate, shown

    runs = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]

    def curve(way: str, k: int, like: str | None = None) -> np.ndarray:
        """pass@k of each run and problem, `(seeds, problems)`; of the seeds that another way has too."""
        of = {name: {one["seed"]: one["num_correct"] for one in runs if one["way"] == name} for name in (way, like)}
        seeds = [seed for seed in sorted(of[way]) if like is None or seed in of[like]]
        return pass_at_k(FULL_SIZE.samples, np.array([of[way][seed] for seed in seeds]), k)

    lines = [
        "| | groups trained on, sampled again | mean staleness | pass@1 | − synchronous | pass@32 | − synchronous |",
        "|---|---|---|---|---|---|---|",
        "| base model | | | {} | | {} | |".format(*(shown(curve("base", k).mean(), ".3f") for k in (1, 32))),
    ]
    for way, most in WAYS.items():
        chosen, ages = [one for one in runs if one["way"] == way], Counter()
        for one in chosen:
            ages.update({int(age): count for age, count in one["groups_by_staleness"].items()})
        again = sum(one["groups_dropped"] for one in chosen)
        columns = [f"{len(chosen) * STEPS * PROMPTS:,}, {again:,}"]
        columns.append(shown(sum(age * count for age, count in ages.items()) / max(ages.total(), 1), ".1f"))
        for k in (1, 32):
            columns.append(shown(curve(way, k).mean(), ".3f"))
            pair = curve(way, k, "synchronous"), curve("synchronous", k, way)
            columns.append("" if most is None else estimate(pair[0] - pair[1]).text())
        lines.append(f"| {way} | " + " | ".join(columns) + " |")
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    page.write_text(before + "\n".join([BEGIN, *lines, END]) + rest.split(END)[1], encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="a file of JSON lines, to which runs are added")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--report", action="store_true", help="write the table of the page, and train nothing")
    args = parser.parse_args()
    if args.report:
        report(args.results, PAGE)
    else:
        run_all(args.results, args.ways)


if __name__ == "__main__":
    if sys.argv[3:] and sys.argv[3].startswith("http"):
        train(*sys.argv[1:5], int(sys.argv[5]))
    else:
        main()
