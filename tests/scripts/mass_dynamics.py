"""MassDynamicsCallback on any number of processes. Writes what the first logged, and the answers it followed."""

import sys

import torch
from tiny_training import ON_CPU, build

from rlvr_trl import MassDynamicsCallback, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rewards import maze_reward
from rlvr_trl.testbed import build_tokenizer


def first_move(completions, **kwargs):
    return [float(completion[:1] in ("U", "D")) for completion in completions]


def make_trainer(output_dir: str, **settings):
    mazes = make_maze_dataset(17, prompt_style="bare", seed=5)
    known = mazes.select(range(12, 17)).map(lambda row: {"paths": [row["shortest_path"], "UDUD"]})
    sizes = {"per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "num_generations": 4, "max_steps": 4}
    training = {"output_dir": output_dir, "learning_rate": 1e-2, "max_completion_length": 3, **ON_CPU}
    training |= {"logging_steps": 1, "temperature": 0.7, "save_steps": 2} | settings
    trainer = build(RLVRTrainer, training | sizes, mazes.select(range(12)), build_tokenizer(), first_move)
    return trainer, known


def follow(output_dir: str, resume: str | None = None, **settings):
    trainer, known = make_trainer(output_dir, **settings)
    callback = MassDynamicsCallback(trainer, known, num_samples=24, every=2, known="paths")
    trainer.add_callback(callback)
    trainer.train(resume_from_checkpoint=resume)
    return trainer, callback


if __name__ == "__main__":
    folder, processes = sys.argv[1:]
    # as many completions in a batch as one process has
    trainer, callback = follow(f"{folder}/run", per_device_train_batch_size=4 // int(processes))
    assert trainer.accelerator.num_processes == int(processes) and maze_reward is not None
    if trainer.accelerator.is_main_process:
        torch.save({"history": callback.history, "answers": callback.answers}, f"{folder}/{processes}.pt")
