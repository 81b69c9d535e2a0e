"""Exact resume: what TRL's trainer leaves out of a checkpoint.

TRL saves neither the batch that is being trained on nor the position in it, and it shuffles a run that is resumed
after the first epoch as if it had just begun. Here this state is saved with the rest (`checkpoint.py`), in one file
per process.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from trl import GRPOTrainer

from ..rollouts import BatchAllocator, PromptHistory, PromptSelection, PromptSource, RolloutAllocator
from ..rollouts.source import restore_selection, state_of_selection
from .batch_watch import BatchWatch
from .checkpoint import WholeCheckpoints, state_file, strategy_of
from .fingerprint import OF_A_BATCH, describe_run
from .passes import BatchPlan
from .rlvr_config import RLVRConfig
from .validation import prompts_per_batch


PROMPT_HISTORY = "prompt_history.pt"
REFERENCE = "reference.pt"  # weights of a reference model that follows the policy


class ResumableState(WholeCheckpoints, GRPOTrainer):
    """The part of RLVRTrainer that saves and restores this state."""

    # needed, from RLVRTrainer and its other parts
    args: RLVRConfig
    rollouts: RolloutAllocator | BatchAllocator | None
    selection: PromptSelection | None
    history: PromptHistory | None
    _source: PromptSource | None
    _batch_watch: BatchWatch
    _plan: BatchPlan | None
    _plan_batch: Callable[[dict], BatchPlan]
    _train_sampler: Any

    def _describe_run(self) -> dict[str, Any]:
        args = self.args
        accumulated = args.gradient_accumulation_steps // args._calls_per_batch
        return describe_run(
            self,
            self._compared_config,
            reward_funcs=[getattr(each, "unguarded", each) for each in self.reward_funcs],
            train_dataset=self.train_dataset,
            tools=[*(self.tools or ()), self.rollout_func],
            of_batches={
                "prompts_per_batch": prompts_per_batch(args),
                "updates_per_batch": args._updates_per_batch,
                "batches_per_update": 1 if args.prompts_per_batch is not None else max(1, accumulated),
            },
        )

    def _save_rng_state(self, output_dir):
        super()._save_rng_state(output_dir)
        position = self._step % (self.args._calls_per_batch * self.num_iterations)
        state = {
            "manifest": True,  # so a checkpoint without one has lost it
            "calls_per_batch": self.args._calls_per_batch,
            "strategy": strategy_of(self.accelerator),
            "step": self._step,
            "mid_batch": position != 0,
            "rollouts": None if self.rollouts is None else self.rollouts.state_dict(),
            "source": None if self._source is None else self._source.state_dict(),
            "selection": state_of_selection(self.selection),
            "batch_watch": self._batch_watch.state_dict(),
            # at the end of a batch the next step samples a new one
            "buffered_inputs": self._buffered_inputs if position else None,
            "batch": self._plan.batch if position and self._plan is not None else None,
        }
        torch.save(state, state_file(output_dir, self.accelerator.process_index))
        if self.history is not None and self.accelerator.is_main_process:
            save_history(self.history, output_dir)
        is_whole_here = strategy_of(self.accelerator) == "one process or DDP"  # otherwise in parts
        if self.args.sync_ref_model and is_whole_here and self.accelerator.is_main_process:
            reference: Any = self.accelerator.unwrap_model(self.ref_model)
            torch.save(reference.state_dict(), Path(output_dir) / REFERENCE)

    def _load_optimizer_and_scheduler(self, checkpoint):
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self._skip_epochs(int(self.state.epoch or 0))
            self._load_rlvr_state(checkpoint)

    def _skip_epochs(self, epochs: int) -> None:
        """Advances the shuffling to this epoch: the sampler draws one permutation per epoch from its own generator."""
        sampler = self._train_sampler
        if sampler is None and epochs > 0:
            warnings.warn(
                f"The training set is a stream, resumed after {epochs} of its passes. If it shuffles itself, it now "
                f"does so as in its first pass: the rows are not those that the run would have had.",
                stacklevel=2,
            )
        if sampler is not None and sampler.shuffle:
            for _ in range(epochs):
                torch.randperm(sampler.num_samples, generator=sampler.generator)

    def _load_rlvr_state(self, checkpoint: str) -> None:
        own = state_file(checkpoint, self.accelerator.process_index)
        saved_by = len(list(Path(checkpoint).glob("rlvr_state_*.pt")))
        path = own if own.exists() else state_file(checkpoint, 0)
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
        cycle = self.args._calls_per_batch * self.num_iterations
        if state["mid_batch"]:
            of_batch = [name for name in OF_A_BATCH if name in self._changed]
            if state.get("calls_per_batch", self.args._calls_per_batch) != self.args._calls_per_batch:
                of_batch.append("steps_per_generation")
            if of_batch:
                raise ValueError(
                    f"{checkpoint} was saved in the middle of a batch, which was made with another value of "
                    f"{', '.join(of_batch)}. Resume from a checkpoint at the end of a batch."
                )
        elif saved_by != self.accelerator.num_processes and self.accelerator.is_main_process:
            warnings.warn(
                f"{checkpoint} was saved by {saved_by} process(es), and there are now "
                f"{self.accelerator.num_processes}. The random states are those of processes, so from here on the "
                f"completions are other ones than the run would have had.",
                stacklevel=2,
            )
        self._step = state["step"] if state["mid_batch"] else -(-state["step"] // cycle) * cycle
        self._buffered_inputs = send_to_device(state["buffered_inputs"], self.accelerator.device)
        if self.rollouts is not None and state["rollouts"] is not None and "rollouts" not in self._changed:
            self.rollouts.load_state_dict(state["rollouts"])
        if self._source is not None:
            self._load_source(state.get("source"), checkpoint)
        if "selection" not in self._changed:
            restore_selection(self.selection, state.get("selection"))
        if self.args.sync_ref_model:
            self._load_reference(checkpoint)
        if "batch_watch" in state:  # not in a checkpoint of an earlier version
            self._batch_watch.load_state_dict(state["batch_watch"])
        if state["batch"] is not None:
            self._plan_batch(dict(send_to_device(state["batch"], self.accelerator.device)))

    def _load_reference(self, checkpoint: str) -> None:
        path = Path(checkpoint, REFERENCE)
        if not path.exists():
            raise ValueError(
                f"{checkpoint} has no {REFERENCE}: where the reference model has followed the policy "
                f"(`sync_ref_model`), a run cannot go on without it. It is kept on one process and with DDP."
            )
        reference: Any = self.accelerator.unwrap_model(self.ref_model)
        reference.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))

    def _load_source(self, state: dict | None, checkpoint: str) -> None:
        if state is None or (self.history is not None and not (Path(checkpoint) / PROMPT_HISTORY).exists()):
            raise ValueError(
                f"{checkpoint} was saved by a training that chose no prompts and kept no history of them, and this "
                f"one does: it cannot go on where that one was. Resume without `selection`, `prompt_history` and an "
                f"allocator that needs them, or start a new run from its weights: model={str(checkpoint)!r}."
            )
        assert self._source is not None
        self._source.load_state_dict(state)
        if self.history is not None:
            load_history(self.history, checkpoint)


def save_history(history: PromptHistory, checkpoint: str | os.PathLike) -> None:
    """Arrays as tensors, which can be read without running anything."""
    state = {
        name: torch.from_numpy(value.view(np.int64) if value.dtype == np.uint64 else value)
        if isinstance(value, np.ndarray)
        else value
        for name, value in history.state_dict().items()
    }
    torch.save(state, Path(checkpoint) / PROMPT_HISTORY)


def load_history(history: PromptHistory, checkpoint: str | os.PathLike) -> None:
    saved = torch.load(Path(checkpoint) / PROMPT_HISTORY, map_location="cpu", weights_only=True)
    history.load_state_dict(
        {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in saved.items()}
    )
