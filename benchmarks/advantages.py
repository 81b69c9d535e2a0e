"""How many milliseconds each advantage estimator takes for one batch, and for some of them a loop over its groups.

Every repeat gets a batch of new groups, so that sorting the rows by group is part of the figure. Rewards are 0 or 1,
and group sizes are drawn uniformly.

python benchmarks/advantages.py --output benchmarks/results/advantages.json
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from math import comb, sqrt
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from rlvr_trl.advantages import (
    AGRAE,
    FGRPO,
    PKPO,
    RSGRPO,
    AdaptivePassAtK,
    CombinedPassAtK,
    DifficultyFocused,
    DominantSide,
    ExceedingPassAtK,
    GroupRelative,
    GRPOLead,
    LeaveOneOut,
    MaxAtK,
    MaxRL,
    NegativeOnly,
    PassAtK,
    PositiveNegativeReinforce,
    ReinforcePlusPlus,
    RolloutGroups,
    Scheduled,
    UniquenessAware,
    Unlikeliness,
    WithoutEasy,
)


K = 8


def group_relative_loop(rewards: Tensor) -> Tensor:
    return (rewards - rewards.mean()) / (rewards.std() + 1e-4)


def pass_at_k_loop(rewards: Tensor) -> Tensor:
    """The closed form of the paper, for rewards of 0 and 1."""
    n, c = len(rewards), int(rewards.sum())
    fail = comb(n - c, K) / comb(n, K)  # 1 − ρ
    sigma = sqrt(fail * (1 - fail)) + 1e-6
    wrong = fail - comb(n - c - 1, K - 1) / comb(n - 1, K - 1) if c < n else 0.0
    return torch.where(rewards > 0.5, fail / sigma, wrong / sigma)


def full_sampling_loop(rewards: Tensor) -> Tensor:
    chunks = rewards[: len(rewards) // K * K].view(-1, K)
    best = chunks.amax(1)
    scores = (best - best.mean()) / (best.std(correction=0) + 1e-6)
    return torch.cat([scores.repeat_interleave(K), torch.zeros(len(rewards) % K)])


def bootstrap_loop(rewards: Tensor) -> Tensor:
    """Draws other subsets than the estimator does, so it is timed and not compared."""
    subsets = torch.stack([torch.randperm(len(rewards))[:K] for _ in range(len(rewards))])
    best = rewards[subsets].amax(1)
    scores = (best - best.mean()) / (best.std(correction=0) + 1e-6)
    return torch.zeros_like(rewards).index_add_(0, subsets.flatten(), scores.repeat_interleave(K))


def max_rl_loop(rewards: Tensor) -> Tensor:
    mean = rewards.mean()
    return (rewards - mean) / mean if mean > 0 else torch.zeros_like(rewards)


def rs_grpo_loop(rewards: Tensor) -> Tensor:
    utility = (2.0 * rewards).exp()
    return (utility / utility.mean() - 1) / 2.0


def pkpo_loop(rewards: Tensor) -> Tensor:
    """The closed form for rewards of 0 and 1."""
    n, c = len(rewards), int(rewards.sum())
    return rewards * (K * comb(n - c, K - 1) / comb(n - 1, K - 1))


def leave_one_out_loop(rewards: Tensor) -> Tensor:
    n = len(rewards)
    return rewards - (rewards.sum() - rewards) / (n - 1)


# name: the estimator, the same for one group, and whether the two must agree
ESTIMATORS: dict[str, tuple[Callable, Callable | None, bool]] = {
    "GRPO": (GroupRelative(), group_relative_loop, True),
    "Dr. GRPO": (GroupRelative("none"), None, False),
    "Pass@k, analytical": (PassAtK(K), pass_at_k_loop, True),
    "Pass@k, bootstrap": (PassAtK(K, "bootstrap"), bootstrap_loop, False),
    "Pass@k, full sampling": (PassAtK(K, "full_sampling"), full_sampling_loop, True),
    "exceeding Pass@k": (ExceedingPassAtK(K), None, False),
    "combined Pass@k": (CombinedPassAtK(K), None, False),
    "adaptive Pass@k": (AdaptivePassAtK(K), None, False),
    "Pass@k without easy": (WithoutEasy(PassAtK(K)), None, False),
    "Pass@k, then Pass@1": (Scheduled([(0, PassAtK(K)), (0.7, PassAtK(1))]), None, False),
    "A-GRAE": (AGRAE(), None, False),
    "A-GRAE on Pass@k": (AGRAE(PassAtK(K)), None, False),
    "positive-dominant": (DominantSide(), None, False),
    "hard-focused": (DifficultyFocused(), None, False),
    "GRPO-N": (NegativeOnly(), None, False),
    "PSR": (PositiveNegativeReinforce.psr(), None, False),
    "NSR": (PositiveNegativeReinforce.nsr(), None, False),
    "W-REINFORCE": (PositiveNegativeReinforce.w_reinforce(), None, False),
    "GRPO-LEAD": (GRPOLead(), None, False),
    "MaxRL": (MaxRL(), max_rl_loop, True),
    "RS-GRPO": (RSGRPO(), rs_grpo_loop, True),
    "F-GRPO": (FGRPO(), None, False),
    "F-GRPO on Pass@k": (FGRPO(PassAtK(K)), None, False),
    "PKPO": (PKPO(K), pkpo_loop, True),
    "max@k": (MaxAtK(K), None, False),
    "RLOO": (LeaveOneOut(), leave_one_out_loop, True),
    "REINFORCE++": (ReinforcePlusPlus(), None, False),
    "REINFORCE++ with baseline": (ReinforcePlusPlus(group_baseline=True), None, False),
    "Unlikeliness": (Unlikeliness(), None, False),
    "Uniqueness-aware": (UniquenessAware(), None, False),
}


def draw_batch(args: argparse.Namespace) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(args.seed)
    sizes = torch.randint(args.smallest, args.largest + 1, (args.groups,), generator=generator)
    ids = torch.arange(args.groups).repeat_interleave(sizes)
    difficulty = torch.rand(args.groups, generator=generator)
    order = torch.randperm(len(ids), generator=generator)
    return {
        "rewards": (torch.rand(len(ids), generator=generator) < difficulty[ids]).float()[order],
        "group_ids": ids[order],
        "entropies": torch.rand(len(ids), generator=generator),
        "log_probs": -torch.rand(len(ids), generator=generator),
        "answer_ids": torch.randint(-1, 4, (len(ids),), generator=generator) * 2**40,
    }


def loop(one_group: Callable[[Tensor], Tensor], batch: dict[str, Tensor]) -> Tensor:
    """The groups of a batch one after the other."""
    rewards, ids = batch["rewards"], batch["group_ids"]
    ids, order = ids.sort(stable=True)
    advantages = torch.empty_like(rewards)
    for rows in order.split(ids.unique_consecutive(return_counts=True)[1].tolist()):
        advantages[rows] = one_group(rewards[rows])
    return advantages


def milliseconds(call: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    """Medians over the repeats. On a GPU, whose calls return early, the time ends when the result is there."""
    wait = torch.cuda.synchronize if call().is_cuda else lambda: None
    wait()
    wall, cpu = [], []
    for _ in range(repeats):
        started, processor = time.perf_counter(), time.process_time()
        call()
        wait()
        wall.append(1e3 * (time.perf_counter() - started))
        cpu.append(1e3 * (time.process_time() - processor))
    return {"wall_ms": round(statistics.median(wall), 2), "cpu_ms": round(statistics.median(cpu), 2)}


def on_device(estimator: Callable, args: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of an estimator on `args.device`, and the largest difference of its advantages from the CPU's."""
    batch = draw_batch(args)
    moved = {name: value.to(args.device) for name, value in batch.items()}
    row = milliseconds(lambda: estimator(RolloutGroups(**moved)), args.repeats)
    found = estimator(RolloutGroups(**moved)).cpu()
    return row | {"difference": (found - estimator(RolloutGroups(**batch))).abs().max().item()}


def measure(args: argparse.Namespace) -> tuple[list[dict], bool]:
    batch, rows, agree = draw_batch(args), [], True
    for name, (estimator, one_group, comparable) in ESTIMATORS.items():
        row = {"name": name, **milliseconds(lambda e=estimator: e(RolloutGroups(**batch)), args.repeats)}
        if one_group is not None:
            row["loop"] = milliseconds(lambda f=one_group: loop(f, batch), args.loop_repeats)
            row["times_faster"] = round(row["loop"]["wall_ms"] / row["wall_ms"], 1)
        if comparable:
            row["difference"] = (estimator(RolloutGroups(**batch)) - loop(one_group, batch)).abs().max().item()
            agree = agree and row["difference"] < 1e-4
        rows.append(row)
    return rows, agree


def print_table(rows: list[dict], goal: float) -> None:
    table = Table("estimator", "ms", "CPU ms", "loop, ms", "times faster", "largest difference")
    for row in rows:
        extra = [f"{row['loop']['wall_ms']:.0f}", f"{row['times_faster']:.0f}"] if "loop" in row else ["", ""]
        difference = f"{row['difference']:.0e}" if "difference" in row else ""
        table.add_row(row["name"], f"{row['wall_ms']:.1f}", f"{row['cpu_ms']:.1f}", *extra, difference)
    Console(width=100).print(table)
    slowest = max(rows, key=lambda row: row["wall_ms"])
    print(f"slowest: {slowest['name']}, {slowest['wall_ms']:.1f} ms (goal: {goal:.0f} ms)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=3072, help="prompts in the batch")
    parser.add_argument("--smallest", type=int, default=K, help=f"completions of a group, at least {K}")
    parser.add_argument("--largest", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=31, help="repeats of an estimator; their median counts")
    parser.add_argument("--loop-repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rows, agree = measure(args)
    print_table(rows, goal=20.0)
    print(f"loops agree: {'yes' if agree else 'NO'}")
    if args.output:
        settings = {key: value for key, value in vars(args).items() if key != "output"}
        machine = {"torch": torch.__version__, "machine": platform.machine(), "python": platform.python_version()}
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(
            json.dumps({**settings, **machine, "estimators": rows}, indent=2) + "\n", encoding="utf-8"
        )
    sys.exit(0 if agree else 1)


if __name__ == "__main__":
    main()
