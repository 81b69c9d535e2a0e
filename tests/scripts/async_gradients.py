"""Gradients of made-up steps and a short training, asynchronously on each process. Run by test_async_trainer.py."""

import sys

import torch
from packed_steps import put_into, random_groups
from scripted_sampler import build_async, right_by_chance, without_gpu
from tiny_training import flat_gradient, flat_weights

from rlvr_trl.advantages import GroupRelative
from rlvr_trl.data import make_maze_dataset


STEPS = ([4, 9, 2], [1, 1], [1])  # the last have fewer rows than two processes


def main():
    folder, model = sys.argv[1:]
    without_gpu()
    mazes = make_maze_dataset(24, prompt_style="bare", seed=5)
    gradients = []
    for sizes in STEPS:
        trainer = build_async(
            *(model, right_by_chance, mazes, f"{folder}/run"),
            arguments={"advantages": lambda groups: groups.rewards - 0.3},
            prompts_per_update=len(sizes),
        )
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = 1
        trainer.get_train_dataloader()
        wrapped = trainer.accelerator.prepare_model(trainer.model)
        if trainer.accelerator.is_main_process:
            put_into(trainer, random_groups(len(sizes), sizes))
        batch = trainer._next_step()
        trainer.training_step(wrapped, batch)
        gradients.append(flat_gradient(trainer.model))
        if trainer._feed is not None:
            trainer._feed.close()
    trainer = build_async(model, right_by_chance, mazes, f"{folder}/run", arguments={"advantages": GroupRelative()})
    trainer.train()
    saved = {"gradients": gradients, "weights": flat_weights(trainer.model), "steps": trainer.state.global_step}
    torch.save(saved, f"{folder}/{trainer.accelerator.num_processes}-{trainer.accelerator.process_index}.pt")


if __name__ == "__main__":
    main()
