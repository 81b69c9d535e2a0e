"""A DARS run of 10 steps over 2.5 epochs, 2 optimizer steps a batch. It can be killed while it saves, and resumed."""

import argparse
import os
import signal
import time
from pathlib import Path

import torch
from tiny_training import ON_CPU, build

from rlvr_trl import DARSTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer


class Killed(DARSTrainer):
    """
    Dies by SIGKILL before it writes a checkpoint, or in it: before the optimizer's state, or the trainer's.

    Its main process writes for some time, under a temporary name as safetensors does, while others have written all.
    """

    kill_step, kill_before = None, None

    def _save_checkpoint(self, model, trial):
        self._die("checkpoint")
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir):
        self._die("optimizer")
        super()._save_optimizer_and_scheduler(output_dir)

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        self._die("trainer_state")

    def _save(self, output_dir, state_dict=None):
        temporary = Path(output_dir, ".tmpQ1w2E3")
        if self.args.should_save:
            temporary.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
            time.sleep(0.2)
        super()._save(output_dir, state_dict)
        if self.args.should_save:
            temporary.unlink()

    def _die(self, moment):
        if (self.state.global_step, moment) == (self.kill_step, self.kill_before):
            os.kill(os.getpid(), signal.SIGKILL)


def make_trainer(output_dir, trainer_class=DARSTrainer, **settings):
    sizes = {"per_device_train_batch_size": 4, "num_generations": 4, "steps_per_generation": 2, "max_generations": 8}
    world = int(os.environ.get("WORLD_SIZE", 1))
    sizes["per_device_train_batch_size"] //= world
    anneal = {"max_generations_end": 5, "zero_accuracy": "cap"}
    saving = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1, "max_completion_length": 4}
    defaults = {"output_dir": output_dir, "max_steps": 10, "learning_rate": 1e-3, **ON_CPU}
    mazes = make_maze_dataset(4, prompt_style="bare", seed=5)
    return build(trainer_class, defaults | sizes | anneal | saving | settings, mazes, build_tokenizer())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--resume", help="a checkpoint, or 'last'")
    parser.add_argument("--kill-step", type=int)
    parser.add_argument("--kill-before", choices=["checkpoint", "optimizer", "trainer_state"])
    args = parser.parse_args()
    Killed.kill_step, Killed.kill_before = args.kill_step, args.kill_before
    trainer = make_trainer(args.output_dir, Killed)
    assert trainer.accelerator.num_processes == int(os.environ.get("WORLD_SIZE", 1))
    trainer.train(resume_from_checkpoint=True if args.resume == "last" else args.resume)
    if trainer.accelerator.is_main_process:
        weights = trainer.accelerator.unwrap_model(trainer.model).state_dict()
        torch.save({"weights": weights, "history": trainer.state.log_history}, f"{args.output_dir}/final.pt")


if __name__ == "__main__":
    main()
