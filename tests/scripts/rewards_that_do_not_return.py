"""A run whose reward function does not come back on one process, in the second step, in the way that is named."""

import argparse
import os
import re
import sys
import threading
import time
from pathlib import Path

from tiny_training import ON_CPU, build

from rlvr_trl import RLVRTrainer, distributed
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer
from rlvr_trl.trainer import reward_guard


RANK = int(os.environ.get("RANK", 0))


def flood():
    while True:
        sys.stdout.write("x" * 10_000)
        sys.stdout.flush()


def flood_a_full_pipe():
    """Nobody reads what this process says: its output is a pipe that nobody empties."""
    reading, writing = os.pipe()
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    flood()


def exit_in_a_thread():
    threading.Thread(target=os._exit, args=(0,)).start()
    time.sleep(600)


HOW = {
    "sleeps": lambda: time.sleep(600),
    "matches": lambda: re.match(r"(a+)+$", "a" * 64 + "b"),  # which lets no other thread run
    "floods": flood,
    "floods a full pipe": flood_a_full_pipe,
    "exits": lambda: sys.exit(0),
    "exits in a thread": exit_in_a_thread,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("how", choices=HOW)
    parser.add_argument("--hasty", action="store_true", help="the process that fails looks long before the others")
    args = parser.parse_args()
    if args.hasty and RANK:
        distributed.POLL, distributed.OWN_END = 0.05, 0.05
    reward_guard.LATE = 12.0  # more than what a process takes to leave

    def strange(completions, trainer_state, **kwargs):
        if trainer_state.global_step == 1 and int(os.environ.get("WORLD_SIZE", 1)) - 1 == RANK:
            Path(args.folder, "begun_at").write_text(str(time.time()))
            HOW[args.how]()
        return [len(completion) / 4 for completion in completions]

    settings = {"output_dir": args.folder, "per_device_train_batch_size": 4, "num_generations": 4, "max_steps": 3}
    settings |= {"max_completion_length": 6, "save_strategy": "no", "reward_timeout": 3, **ON_CPU}
    build(RLVRTrainer, settings, make_maze_dataset(8, prompt_style="bare", seed=5), build_tokenizer(), strange).train()


if __name__ == "__main__":
    main()
