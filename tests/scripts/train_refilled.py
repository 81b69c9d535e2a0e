"""
A run of 3 batches that dynamic sampling refills, 2 optimizer steps each, with a selection and a history of prompts.

Whatever happens in it has a number, in the order of happening: `--kill-at` ends it there by SIGKILL. `events.json` in
the folder of the run says what happened at which optimizer step.
"""

import argparse
import json
import os
import signal
from pathlib import Path

import numpy as np
import torch
from tiny_training import ON_CPU, build
from transformers import TrainerCallback

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import GroupRelative
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rollouts import SkipSolved
from rlvr_trl.testbed import build_tokenizer


class Events:
    """What has happened, in order."""

    kill_at: int | None = None  # of the class: what an object holds is compared when a run is resumed

    def __init__(self):
        self.happened, self.step = [], 0

    def __call__(self, name: str) -> None:
        if len(self.happened) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.happened.append((self.step, name))


class Watched(RLVRTrainer):
    """Tells of its backward passes and of the files of its checkpoints."""

    event = None

    def training_step(self, *args, **kwargs):
        self.event("backward")
        return super().training_step(*args, **kwargs)

    def _save_checkpoint(self, model, trial):
        self.event("checkpoint")
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self.event("most of the checkpoint written")


class Steps(TrainerCallback):
    def __init__(self, event: Events):
        self.event = event

    def on_step_begin(self, args, state, control, **kwargs):
        self.event.step = state.global_step
        self.event("step")

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.event("gradient")

    def on_optimizer_step(self, args, state, control, **kwargs):
        self.event("optimizer")


def telling(name, event, function):
    def told(*args, **kwargs):
        event(name)
        return function(*args, **kwargs)

    return told


def right_by_number(completions, number, **kwargs):
    """Nothing to learn from two in three prompts: all right or all wrong."""
    return [float(n % 2) if n % 3 else float("R" in text) for text, n in zip(completions, number, strict=True)]


def make_trainer(output_dir: str, event: Events):
    sizes = {"per_device_train_batch_size": 4, "prompts_per_batch": 4, "num_generations": 4, "prompts_per_update": 2}
    saving = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "max_completion_length": 4}
    chosen = {"rollouts": "dynamic_sampling", "prompt_history": {"pools": "number"}, "max_steps": 6}
    settings = {"output_dir": output_dir, "learning_rate": 1e-3, **ON_CPU, **sizes, **saving, **chosen}
    mazes = make_maze_dataset(24, prompt_style="bare", seed=5)
    mazes = mazes.add_column("number", list(range(len(mazes))))
    Watched.event = event
    return build(
        *(Watched, settings, mazes, build_tokenizer(), telling("reward", event, right_by_number)),
        advantages=telling("advantages", event, GroupRelative()),
        selection=telling("selection", event, SkipSolved(threshold=0.8)),
        callbacks=[Steps(event)],
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--kill-at", type=int)
    args = parser.parse_args()
    Events.kill_at, event = args.kill_at, Events()
    trainer = make_trainer(str(args.output_dir), event)
    trainer.train(resume_from_checkpoint=True if args.resume else None)
    state = trainer.history.state_dict()
    history = {name: torch.from_numpy(value) for name, value in state.items() if isinstance(value, np.ndarray)}
    torch.save({"weights": trainer.model.state_dict(), "history": history}, args.output_dir / "final.pt")
    (args.output_dir / "events.json").write_text(json.dumps(event.happened), encoding="utf-8")


if __name__ == "__main__":
    main()
