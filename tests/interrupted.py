"""An evaluation that a test kills: run as a process of its own by a server that has imported everything before."""

import time

import torch

from rlvr_trl.data import make_maze_dataset
from rlvr_trl.evaluation import evaluate
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import build_model, build_tokenizer


def evaluate_mazes(folder, most=None):
    """3 mazes of 100 samples, about 2 to a batch. It stands still once it was to sample more than `most`."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, seed=0)
    if most is not None:
        model.generate = stands_still_after(most, model.generate)
    return evaluate(
        model,
        tokenizer,
        make_maze_dataset(3, prompt_style="bare", seed=5),
        maze_reward,
        num_samples=100,
        max_new_tokens=6,
        token_budget=120,
        output_dir=folder,
        progress=False,
    )


def stands_still_after(most, generate):
    asked = 0

    def limited(*args, **kwargs):
        nonlocal asked
        asked += len(kwargs["input_ids"])
        if asked > most:
            time.sleep(3600)
        return generate(*args, **kwargs)

    return limited


def evaluate_to_be_killed(folder, most):
    """The same in a process of its own, on one thread: beside other tests, more would mostly wait for each other."""
    torch.set_num_threads(1)
    evaluate_mazes(folder, most)
