"""What DARS costs in rollouts and what it gains on mazes: against 32 rollouts for every prompt, and at equal rollouts.

All runs start from one warmed-up base model, see the same mazes and use Dr. GRPO advantages and the same loss:

    fixed 32          32 rollouts for every prompt (Depth-Naive)
    DARS-ET, DARS-HW  8 for every prompt, up to 32 for hard ones
    equal to ET, HW   for every prompt the average number that DARS used, rounded

python benchmarks/dars_cost.py --seeds 0 1 --output benchmarks/results/dars_cost.json
"""

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from rlvr_trl import DARSConfig, DARSTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import compare
from rlvr_trl.testbed import build_model, build_tokenizer, warm_up
from rlvr_trl.testbed.demo import evaluate_checkpoint
from rlvr_trl.testbed.methods import PROMPTS_PER_STEP, Method, rollouts_per_prompt, train


FIRST_STAGE, CAP = 8, 32
DR_GRPO = {"prompts_per_batch": PROMPTS_PER_STEP, "scale_rewards": "none", "loss_type": "dr_grpo"}


def dars(schedule: str) -> Method:
    sizes = {"num_generations": FIRST_STAGE, "max_generations": CAP, "schedule": schedule}
    return Method(f"DARS {schedule} {FIRST_STAGE}-{CAP}", DARSTrainer, DARSConfig, DR_GRPO | sizes)


def fixed(rollouts: int) -> Method:
    settings = DR_GRPO | {"num_generations": rollouts}
    return Method(f"Dr. GRPO, {rollouts} each", RLVRTrainer, RLVRConfig, settings)


def run_seed(seed: int, args: argparse.Namespace, folder: Path) -> dict:
    """Trains and evaluates all five from one base model, and compares each DARS run with its two references."""
    test = make_maze_dataset(args.test_mazes, prompt_style="bare", seed=seed)
    num_train = args.warmup_mazes + args.steps * PROMPTS_PER_STEP
    pool = make_maze_dataset(num_train, prompt_style="bare", seed=seed + 1, exclude=test)
    tokenizer, base = build_tokenizer(), folder / f"base-{seed}"
    warmup_mazes = pool.select(range(args.warmup_mazes))["maze"]
    model = build_model(tokenizer, seed=seed)
    warm_up(model, tokenizer, warmup_mazes, steps=args.warmup_steps, seed=seed, output_dir=base)
    mazes = pool.select(range(args.warmup_mazes, num_train))

    results, rows = {}, {}

    def run(name: str, method: Method) -> float:
        log = train(method, base, folder / f"{name}-{seed}", mazes, seed=seed)
        rollouts = rollouts_per_prompt(method, log)
        result = evaluate_checkpoint(folder / f"{name}-{seed}", test, args.samples, seed, progress=True)
        results[name] = result
        rows[name] = {
            "label": method.label,
            "rollouts_per_prompt": rollouts,
            "tokens": max((entry["num_tokens"] for entry in log if "num_tokens" in entry), default=None),
            "pass_at_k": result.pass_at_k,
            "token_entropy": result.token_entropy,
        }
        return rollouts

    run("fixed_32", fixed(CAP))
    comparisons = []
    for short, schedule in (("et", "equal_treatment"), ("hw", "hardness_weighted")):
        rollouts = run(f"dars_{short}", dars(schedule))
        run(f"equal_to_{short}", fixed(round(rollouts)))
        for other in ("fixed_32", f"equal_to_{short}"):
            for k in (1, 8, 32):
                difference = compare(results[f"dars_{short}"], results[other], k)
                comparisons.append({"method": f"dars_{short}", "against": other, "k": k, **difference._asdict()})
    return {"seed": seed, "methods": rows, "comparisons": comparisons}


def show(runs: list[dict]) -> None:
    console = Console()
    for run in runs:
        table = Table(title=f"seed {run['seed']}")
        for column in ("", "rollouts/prompt", "pass@1", "pass@8", "pass@32", "pass@64", "entropy"):
            table.add_column(column)
        for row in run["methods"].values():
            scores = [f"{row['pass_at_k'][k]:.3f}" for k in (1, 8, 32, 64) if k in row["pass_at_k"]]
            table.add_row(row["label"], f"{row['rollouts_per_prompt']:.1f}", *scores, f"{row['token_entropy']:.2f}")
        console.print(table)
        for c in run["comparisons"]:
            interval = f"{c['difference']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]"
            console.print(f"{c['method']} - {c['against']} at pass@{c['k']}: {interval}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--warmup-steps", type=int, default=400)
    parser.add_argument("--warmup-mazes", type=int, default=6000)
    parser.add_argument("--test-mazes", type=int, default=200)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_seed(seed, args, Path(folder)) for seed in args.seeds]
    show(runs)
    if args.output:
        machine = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
        settings = {name: value for name, value in vars(args).items() if name != "output"}
        args.output.write_text(
            json.dumps({"settings": settings, "machine": machine, "runs": runs}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
