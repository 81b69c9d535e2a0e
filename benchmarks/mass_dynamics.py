"""
Where the probability goes in a real model: answers of a base model followed while GRPO and GRPO-N train it on mazes.

python benchmarks/mass_dynamics.py            # some five minutes on one core
python benchmarks/mass_dynamics.py --quick

Writes `docs/images/mass_dynamics.png`, and its numbers beside the other results. Unexplored right answers are all ways
through a maze without a cell twice that the base model did not sample.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from comparison import RESULTS
from datasets import Dataset
from transformers import PrinterCallback

from rlvr_trl import MassDynamicsCallback
from rlvr_trl.analysis import plot_mass
from rlvr_trl.mazes import MOVES, parse_maze, step
from rlvr_trl.testbed import TASKS
from rlvr_trl.testbed.cells import FULL_SIZE, Cell, problems_of, training_problems, unpacked_base
from rlvr_trl.testbed.comparison_methods import METHODS
from rlvr_trl.testbed.methods import make_method_trainer
from rlvr_trl.testbed.model import TAGS


ROOT = Path(__file__).resolve().parents[1]
RUNS = {"GRPO": "grpo_kl", "GRPO-N": "grpo_n"}


def all_paths(maze: str, longest: int) -> list[str]:
    """Every way from S to E of at most so many moves that visits no cell twice."""
    rows, start, end = parse_maze(maze)
    found, open_ends = [], [(start, "", {start})]
    while open_ends:
        cell, moves, visited = open_ends.pop()
        if cell == end:
            found.append(moves)
        elif len(moves) < longest:
            nexts = [(step(rows, cell, move), move) for move in MOVES]
            open_ends += [(to, moves + move, visited | {to}) for to, move in nexts if to and to not in visited]
    return found


def follow(method: str, base: Path, batches: int, watched: Dataset, rate: float, every: int) -> list[dict]:
    examples = training_problems(Cell("maze", method, rate, 0), 16 * batches, FULL_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_method_trainer(
            *(METHODS[method], base, Path(folder), examples),
            **{"seed": 0, "task": TASKS["maze"], "learning_rate": rate, "disable_tqdm": True},
        )
        trainer.remove_callback(PrinterCallback)
        callback = MassDynamicsCallback(trainer, watched, num_samples=64, every=every, known="paths", batch_size=512)
        trainer.add_callback(callback)
        trainer.train()
        return callback.history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="8 batches, in place of 200, and no files")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate (default: 1e-4)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    batches, mazes = (8, 4) if args.quick else (200, 24)
    with tempfile.TemporaryDirectory() as work:
        base = unpacked_base(TASKS["maze"], 0, FULL_SIZE, RESULTS / "bases", Path(work))
        watched = problems_of("maze", 0, FULL_SIZE).test.select(range(mazes))
        longest = TASKS["maze"].max_completion_length - 3  # without the tags and the end
        opening, closing = TAGS
        watched = watched.map(
            lambda row: {"paths": [f"{opening}{path}{closing}" for path in all_paths(row["maze"], longest)]}
        )
        histories = {
            label: follow(name, base, batches, watched, args.rate, every=max(1, batches // 10))
            for label, name in RUNS.items()
        }
    for label, history in histories.items():
        for entry in (history[0], history[-1]):
            shown = ", ".join(f"{name[5:]} {entry[name]:.3f}" for name in entry if name.startswith("mass_"))
            print(f"{label}, step {entry['step']}: {shown}")
    if not args.quick:
        picture = ROOT / "docs" / "images" / "mass_dynamics.png"
        plot_mass(histories, picture, "Answers of a base model while it trains, 4×4 mazes")
        picture.with_suffix(".csv").rename(ROOT / "benchmarks" / "results" / "mass_dynamics.csv")


if __name__ == "__main__":
    main()
