"""
A run on several processes, one of which fails in its third step in the way named on the command line.

It writes the time of the failure into `failed_at`.
"""

import argparse
import os
import resource
import signal
import threading
import time
from pathlib import Path

import torch
from tiny_training import ON_CPU, build

from rlvr_trl import RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer


RANK = int(os.environ.get("RANK", 0))
STEP = 2  # optimizer steps done when it fails


class Fails(RLVRTrainer):
    how: str
    on: int  # the process that fails

    @property
    def _now(self) -> bool:
        return self.state.global_step == STEP and self.accelerator.process_index == self.on

    def _compute_loss(self, model, inputs):
        loss = super()._compute_loss(model, inputs)
        if self._now and self.how == "loss":
            begin(self)
            return loss * torch.nan
        return loss

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        if self._now and self.how == "gradient":
            begin(self)
            next(self.model.parameters()).grad[0, 0] = torch.nan
        return loss

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        if self._now and self.how == "batch":
            begin(self)
            output["old_per_token_logps"] = torch.full_like(output["completion_mask"], torch.nan, dtype=torch.float32)
        if self._now and self.how == "elsewhere":
            begin(self)
            raise KeyError("something on one process only")
        return output

    def _save_checkpoint(self, model, trial):
        if self.state.global_step == STEP + 1 and self.how == "weight" and self.accelerator.process_index == self.on:
            begin(self)
            with torch.no_grad():
                next(self.model.parameters())[0, 0] = torch.inf
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir):
        if self.state.global_step == STEP + 1 and self.how == "disk" and self.accelerator.process_index == self.on:
            begin(self)
            # no file may grow beyond this: the weights have been written, the optimizer's states are twice as large
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
        super()._save_optimizer_and_scheduler(output_dir)


def begin(trainer) -> None:
    Path(trainer.args.output_dir, "failed_at").write_text(str(time.time()))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("how", choices=["reward", "loss", "gradient", "batch", "weight", "kill", "disk", "elsewhere"])
    parser.add_argument("--on", type=int, default=1, help="the process that fails")
    parser.add_argument("--trim", action="store_true", help="trains in passes of its own, and not in TRL's")
    args = parser.parse_args()
    Fails.how, Fails.on = args.how, args.on
    if args.how == "kill":
        # the launcher's signal may come before the lost connection is noticed, so obey it a second later
        signal.signal(signal.SIGTERM, lambda *_: threading.Timer(1, os._exit, [1]).start())

    def moves(completions, trainer_state, **kwargs):
        if trainer_state.global_step == STEP and args.on == RANK:
            if args.how == "reward":
                begin(trainer)
                return 1 / 0
            if args.how == "kill":
                begin(trainer)
                os.kill(os.getpid(), signal.SIGKILL)
        return [len(set(completion) & set("UDLR")) / 4 for completion in completions]

    settings = {
        "output_dir": args.folder,
        "per_device_train_batch_size": 4,
        "num_generations": 4,
        "max_completion_length": 6,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 1,
        "trim_padding": args.trim,
        **ON_CPU,
    }
    trainer = build(Fails, settings, make_maze_dataset(8, prompt_style="bare", seed=5), build_tokenizer(), moves)
    assert trainer.accelerator.num_processes == 2
    trainer.train()
    print(f"process {RANK} trained to the end")


if __name__ == "__main__":
    main()
