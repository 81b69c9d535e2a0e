"""
A run on several processes, one of which fails in its third step in the way named on the command line.

It writes the time of the failure into `failed_at`.
"""

import argparse
import os
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import torch
from tiny_training import ON_CPU, build

from rlvr_trl import RLVRTrainer, distributed, lifelines
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer


RANK = int(os.environ.get("RANK", 0))
STEP = 2  # optimizer steps done when it fails
HOW = (
    *("reward", "loss", "gradient", "batch", "weight", "disk", "elsewhere"),
    *("kill", "machine", "cut"),  # the process; with its launcher; its machine is taken from the network
)


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


def fail_in_reward(how: str) -> None:
    if how == "reward":
        raise ZeroDivisionError("division by zero")
    if how == "cut":
        time.sleep(3)  # the connections that tell of it are made in the first seconds
        subprocess.run(["ip", "link", "set", os.environ["GLOO_SOCKET_IFNAME"], "down"], check=True)
        return
    if how == "machine":
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def stop(seconds: float) -> None:
    """Stops this process and its launcher, as a machine that is suspended."""
    both = f"{os.getpid()} {os.getppid()}"
    subprocess.Popen(["sh", "-c", f"kill -STOP {both}; sleep {seconds}; kill -CONT {both}"])
    time.sleep(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("how", choices=HOW)
    parser.add_argument("--on", type=int, default=1, help="the process that fails")
    parser.add_argument("--trim", action="store_true", help="trains in passes of its own, and not in TRL's")
    parser.add_argument("--silence", type=int, default=lifelines.SILENCE, help="seconds until a machine is gone")
    parser.add_argument("--stops", type=int, help="seconds for which the process is stopped in its second step")
    args = parser.parse_args()
    lifelines.SILENCE = args.silence
    Fails.how, Fails.on = args.how, args.on
    if args.how == "kill":
        # the launcher's signal may come before the lost connection is noticed, so obey it once that was said
        said, say = threading.Event(), distributed._say

        def tell(*what):
            say(*what)
            said.set()

        def obey():
            said.wait(15)
            os._exit(1)

        distributed._say = tell
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=obey).start())

    def moves(completions, trainer_state, **kwargs):
        if args.stops and trainer_state.global_step == 1 and args.on == RANK:
            stop(args.stops)
        if args.how in ("reward", "kill", "machine", "cut") and trainer_state.global_step == STEP and args.on == RANK:
            begin(trainer)
            fail_in_reward(args.how)
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
