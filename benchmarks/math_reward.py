"""How many completions a second `math_reward` and TRL's accuracy_reward judge, on the same groups of completions.

    python benchmarks/math_reward.py math_train.parquet --output benchmarks/results/math_reward.json

500 problems × 8 completions, each the reference solution with an answer put into its box. Answers repeat, as those of
a trained model do: a group has the right one, as it stands or in another form, and one or two wrong ones, which are
near (another sign, off by one) or those of another problem. The share of right ones is drawn for each problem. Both
rewards see the same batches in the same order; the time to start the workers is included unless `--warm` is given.
"""

import argparse
import json
import logging
import os
import platform
import random
import time
from collections.abc import Callable
from pathlib import Path

from datasets import Dataset
from trl.rewards import accuracy_reward

from rlvr_trl.answer_text import boxes
from rlvr_trl.rewards import MathReward


def make_batches(data: Dataset, problems: int, group: int, batch: int, seed: int) -> list[tuple[list, list]]:
    """Batches of (completions, reference solutions), with the completions of a group next to each other."""
    rng = random.Random(seed)
    rows = [(s, found[0]) for s in data["solution"] if (found := boxes(s, braced=True))]
    others = [box[2] for _, box in rows]
    completions, solutions = [], []
    for solution, (start, end, right) in rng.sample(rows, problems):
        share = rng.random()
        forms = [right, right, right, right.replace("\\frac", "\\dfrac"), f" {right} "]
        wrong = [rng.choice(others), f"-{right}", f"{right}+1", rng.choice(others)][: rng.randint(1, 4)]
        for _ in range(group):
            answer = rng.choice(forms if rng.random() < share else wrong)
            completions.append(f"{solution[:start]}\\boxed{{{answer}}}{solution[end:]}")
            solutions.append(solution)
    slices = [slice(i, i + batch) for i in range(0, len(completions), batch)]
    return [(completions[s], solutions[s]) for s in slices]


def verifications_per_second(reward: Callable, batches: list[tuple[list, list]]) -> tuple[float, list]:
    start, rewards = time.perf_counter(), []
    for completions, solutions in batches:
        messages = [[{"role": "assistant", "content": completion}] for completion in completions]
        rewards += reward(completions=messages, solution=solutions)
    return len(rewards) / (time.perf_counter() - start), rewards


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="Parquet file with the column `solution`")
    parser.add_argument("--problems", type=int, default=500)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--batch", type=int, default=128, help="completions in a call")
    parser.add_argument("--num-workers", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm", action="store_true", help="start the workers before the clock")
    parser.add_argument("--output", type=Path)
    args = parser.parse_args()
    for name in ("math_verify.parser", "math_verify.grader"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    data = Dataset.from_parquet(str(args.data))
    batches = make_batches(data, args.problems, args.group, args.batch, args.seed)
    reward = MathReward(num_workers=args.num_workers)
    if args.warm:
        reward(["\\boxed{\\sqrt{8}}"], answer=["2\\sqrt{2}"])
    ours, our_rewards = verifications_per_second(reward, batches)
    trl, trl_rewards = verifications_per_second(accuracy_reward, batches)
    report = {
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "settings": {k: v for k, v in vars(args).items() if k not in ("data", "output")},
        "completions": len(our_rewards),
        "math_reward_per_second": ours,
        "accuracy_reward_per_second": trl,
        "ratio": ours / trl,
        "asked_of_workers": reward.pool.counts,
        "asked_of_math_verify": reward.algebra_pool.counts,
        "agreement": sum(a == b for a, b in zip(our_rewards, trl_rewards, strict=True)) / len(our_rewards),
        "only_ours_right": sum(a == 1 and b == 0 for a, b in zip(our_rewards, trl_rewards, strict=True)),
        "only_trl_right": sum(a == 0 and b == 1 for a, b in zip(our_rewards, trl_rewards, strict=True)),
    }
    print(json.dumps(report, indent=2))
    if args.output:
        args.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
