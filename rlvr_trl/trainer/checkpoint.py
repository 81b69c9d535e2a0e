"""Exact resume: what TRL's trainer leaves out of a checkpoint, and which checkpoints are whole.

TRL saves neither the batch that is being trained on nor its position in it, and after the first epoch it shuffles a
resumed run as if it had just begun. These are saved here, one file per process:

    checkpoint-<step>/
      model, optimizer, scheduler, random states     by transformers
      rlvr_state_<process>.pt                        written before …
      trainer_state.json                             … this, which therefore marks a checkpoint as whole
"""

import json
import os
import warnings
from pathlib import Path

import torch
from accelerate.utils import send_to_device
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR


TRAINER_STATE = "trainer_state.json"


def is_complete(checkpoint: str | os.PathLike) -> bool:
    """Whether a checkpoint was written to its end. A process that is killed while saving leaves an incomplete one."""
    try:
        state = json.loads((Path(checkpoint) / TRAINER_STATE).read_text())
    except (OSError, ValueError):
        return False
    return "global_step" in state


def last_complete_checkpoint(output_dir: str | os.PathLike) -> str:
    """
    The newest whole checkpoint of a run; newer incomplete ones are named in a warning.

    Raises:
        `ValueError`: There is none.
    """
    steps = {
        int(path.name.split("-")[1]): path
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.is_dir() and path.name.split("-")[1].isdigit()
    }
    for step in sorted(steps, reverse=True):
        if is_complete(steps[step]):
            return str(steps[step])
        warnings.warn(
            f"{steps[step]} is incomplete, as when a run is killed while saving, and is left out.", stacklevel=3
        )
    raise ValueError(f"`resume_from_checkpoint` is set, but {output_dir} holds no complete checkpoint.")


class ResumableState:
    """The part of RLVRTrainer that saves and restores the state named above."""

    _train_sampler = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir)
        elif resume_from_checkpoint and not is_complete(resume_from_checkpoint):
            raise ValueError(
                f"The checkpoint {resume_from_checkpoint} is missing or incomplete: it has no readable "
                f"{TRAINER_STATE}. Name another one, or pass True for the last complete one."
            )
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _get_train_sampler(self, dataset=None):
        self._train_sampler = super()._get_train_sampler(dataset)
        return self._train_sampler

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        position = self._step % (self.args.steps_per_generation * self.num_iterations)
        state = {
            "step": self._step,
            "mid_batch": position != 0,
            "rollouts": None if self.rollouts is None else self.rollouts.state_dict(),
            # at the end of a batch the next step samples a new one
            "buffered_inputs": self._buffered_inputs if position else None,
            "batch": self._window.batch if position and self._window is not None else None,
        }
        torch.save(state, _state_file(output_dir, self.accelerator.process_index))
        self.accelerator.wait_for_everyone()  # the main process writes trainer_state.json next

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._skip_epochs(int(self.state.epoch or 0))
            self._load_rlvr_state(checkpoint)

    def _skip_epochs(self, epochs: int) -> None:
        """Brings the shuffling to where it was: the sampler draws one permutation an epoch from its own generator."""
        sampler = self._train_sampler
        if sampler is not None and sampler.shuffle:
            for _ in range(epochs):
                torch.randperm(sampler.num_samples, generator=sampler.generator)

    def _load_rlvr_state(self, checkpoint: str) -> None:
        own = _state_file(checkpoint, self.accelerator.process_index)
        saved_by = len(list(Path(checkpoint).glob("rlvr_state_*.pt")))
        path = own if own.exists() else _state_file(checkpoint, 0)
        if not path.exists():
            warnings.warn(
                f"{checkpoint} has no rlvr_state files, so it was saved by another trainer: the batch it was training "
                f"on, if it was in the middle of one, is sampled anew.",
                stacklevel=2,
            )
            return
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["mid_batch"] and saved_by != self.accelerator.num_processes:
            raise ValueError(
                f"{checkpoint} was saved by {saved_by} process(es) in the middle of a batch, and there are now "
                f"{self.accelerator.num_processes}. Resume on {saved_by}, or from a checkpoint at the end of a batch: "
                f"make `save_steps` a multiple of the optimizer steps that each batch takes."
            )
        self._step = state["step"]
        self._buffered_inputs = send_to_device(state["buffered_inputs"], self.accelerator.device)
        if self.rollouts is not None and state["rollouts"] is not None:
            self.rollouts.load_state_dict(state["rollouts"])
        if state["batch"] is not None:
            self._start_window(send_to_device(state["batch"], self.accelerator.device))


def _state_file(checkpoint: str | os.PathLike, process_index: int) -> Path:
    return Path(checkpoint) / f"rlvr_state_{process_index}.pt"
