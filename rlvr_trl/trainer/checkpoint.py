"""Checkpoints that are either whole or absent, and runs that go on from them.

    _incomplete/checkpoint-<step>/      while it is written; then renamed to
    checkpoint-<step>/
      model, optimizer, scheduler, random states     by transformers
      rlvr_state_<process>.pt                        what TRL leaves out, see `resumable_state.py`
      prompt_history.pt                              if there is one, the same for all processes
      trainer_state.json                             by transformers
      manifest.json                                  written last: all files with their digests, see `../manifest.py`

A checkpoint that lacks a file of its manifest, or has one with another content, is not resumed from. The manifest also
says what decides the run (`fingerprint.py`): a run that is resumed with other settings must say so.

The output directory must be on a file system that all processes share, which [`check_output_dir`] makes sure of.
"""

import contextlib
import functools
import os
import shutil
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch.optim.lr_scheduler import LambdaLR
from transformers import PreTrainedModel, Trainer, TrainerState

from ..distributed import Processes, end_together
from ..manifest import (
    MANIFEST,
    TRAINER_STATE,
    checkpoints_in,
    files_of,
    find_fault,
    lacking_to_go_on,
    read_manifest,
    write_manifest,
)
from ..trl_compat import PREFIX_CHECKPOINT_DIR, borrow, rotate_checkpoints
from .fingerprint import OF_THE_OPTIMIZER, SCHEDULE, changes_of_run, in_lines
from .nonfinite import check_weights
from .rlvr_config import RLVRConfig
from .run_lock import RunLock, check_not_in_use


SEEN_WITHIN = 10  # seconds, after which a file is on every machine that shares its file system
INCOMPLETE = "_incomplete"  # transformers uploads nothing that begins with an underscore


def is_complete(checkpoint: str | os.PathLike) -> bool:
    """Whether every file that a checkpoint was written with is there, with its content."""
    return find_fault(checkpoint) is None


def last_complete_checkpoint(
    output_dir: str | os.PathLike, look: Callable[[str | os.PathLike], str | None] = find_fault
) -> str:
    """
    The newest whole checkpoint of a run; newer ones that are not whole are named in a warning.

    Args:
        output_dir (`str` or `os.PathLike`): the folder of the run.
        look (`Callable`, *optional*): what says why a checkpoint is not whole, by default [`find_fault`].

    Raises:
        `ValueError`: There is none.
    """
    faults = []
    for checkpoint in checkpoints_in(output_dir):
        fault = look(checkpoint)
        if fault is None:
            return str(checkpoint)
        faults.append(f"{checkpoint.name}: {fault}")
        warnings.warn(f"{checkpoint} is not whole and is skipped: {fault}.", stacklevel=3)
    found = f" What is there: {'; '.join(faults)}." if faults else ""
    raise ValueError(f"`resume_from_checkpoint` is set, but {output_dir} holds no complete checkpoint.{found}")


def check_output_dir(args: RLVRConfig) -> None:
    """
    Refuses an `output_dir` in which another run trains, and one that machines do not share, if checkpoints are to be
    written. All processes must call it.

    Raises:
        `ValueError`: A process of this machine trains there; the first process cannot write there, another one cannot
            or does not see what the first one writes, or several would write the same files.
    """
    processes = Processes(PartialState())
    with processes.agreed("looking whether another run uses `output_dir`"):
        if processes.is_main and writes_into_output_dir(args):
            check_not_in_use(str(args.output_dir))
    if processes.count == 1 or args.save_strategy == "no":
        return
    if sum(processes.gather([args.should_save])) > 1:
        raise ValueError(
            f"`save_on_each_node` is True, and with it several processes would write the same files into the folder "
            f"that all share, {args.output_dir}. Set it to False: one checkpoint holds what all processes need."
        )
    folder, mark = Path(str(args.output_dir)), ""
    with contextlib.ExitStack() as until_seen:
        with processes.agreed("writing into `output_dir`"):
            try:
                if processes.is_main:
                    folder.mkdir(parents=True, exist_ok=True)
                    file = until_seen.enter_context(tempfile.NamedTemporaryFile(prefix="_shared_", dir=folder))
                    mark = os.path.basename(file.name)
            except OSError as error:
                raise ValueError(
                    f"`output_dir`={args.output_dir!r} must be a folder that can be written to, or created: "
                    f"{type(error).__name__}: {error}."
                ) from error
        own = folder / processes.broadcast(mark)
        deadline = time.monotonic() + SEEN_WITHIN
        while not own.exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        name = f"{processes.index} ({socket.gethostname()}: {folder.absolute()})"
        blind = processes.gather([] if own.exists() else [name])
        read_only = processes.gather([] if os.access(folder, os.W_OK) else [name])
    if blind:
        raise ValueError(
            f"`output_dir`={args.output_dir!r} is not one folder for all: a file that process 0 has written there is "
            f"not seen within {SEEN_WITHIN} seconds by process {', '.join(blind)}. All processes write into the same "
            f"checkpoint, so use a folder on a file system that all machines share, or `save_strategy='no'`."
        )
    if read_only:
        raise ValueError(
            f"`output_dir`={args.output_dir!r} cannot be written to by process {', '.join(read_only)}. All processes "
            f"write into the same checkpoint, so all need a folder that they can write to, or `save_strategy='no'`."
        )


def writes_into_output_dir(args: Any) -> bool:
    """Whether a training with these settings writes what another run in the folder would mix with its own."""
    return args.save_strategy != "no" or args.log_completions


class WholeCheckpoints(Trainer):
    """The part of a trainer that finds, writes and loads checkpoints, which are either whole or absent."""

    args: Any
    model: PreTrainedModel

    _writing_to: Path | None = None  # the folder that a checkpoint is written into, while one is
    _loading_from: str | None = None
    _lock: RunLock | None = None  # while this run holds `output_dir`
    _changed: tuple[str, ...] = ()  # settings that a resumed run has changed on purpose
    _run: dict[str, Any] | None = None  # what decides it, on the first process
    _compared_config: type = RLVRConfig  # whose fields do

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        """
        As in transformers, from the start or exactly where a checkpoint was saved.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): a checkpoint, or True for the last complete one.

        Raises:
            `ValueError`: The checkpoint is missing or not whole, was saved by another strategy, or amid a batch by
            another number of processes, or by a run with other settings than `resume_with_changes` admits.
            `RuntimeError`: A checkpoint could not be written. An error of any process is raised on all.
            `FloatingPointError`: A loss or a weight is not finite.
        """
        with end_together(self.accelerator), self.alone_in_output_dir():
            processes = Processes(PartialState())
            is_needed = resume_from_checkpoint or self.args.save_strategy != "no"
            with processes.agreed("describing the run"):
                if processes.is_main and is_needed:
                    self._run = self._describe_run()
            checkpoint = self._find_checkpoint(resume_from_checkpoint)
            with processes.agreed("comparing the run with that of the checkpoint"):
                self._changed = self._check_checkpoint(str(checkpoint)) if checkpoint else ()
            self._changed = processes.broadcast(self._changed)
            if checkpoint:
                self._prepare_resuming(str(checkpoint))
            return super().train(checkpoint, *args, **kwargs)

    def _describe_run(self) -> dict[str, Any]:
        """What decides the run, to be compared with that of a checkpoint."""
        raise NotImplementedError

    def _prepare_resuming(self, checkpoint: str) -> None:
        """What is to be done with a checkpoint that was found to be fit, before transformers loads it. On all."""

    @contextlib.contextmanager
    def alone_in_output_dir(self) -> Iterator[None]:
        """
        Keeps other runs out of `output_dir`, if this one writes there. Training does so itself; all processes must
        enter it together. May be nested.

        Raises:
            `ValueError`: Another run is there. Names its process.
        """
        if self._lock is not None or not writes_into_output_dir(self.args):
            yield
            return
        processes, lock = Processes(PartialState()), RunLock(str(self.args.output_dir))
        with processes.agreed("taking `output_dir` for this run"):
            if processes.is_main:
                lock.take()
        try:
            with borrow(self, _lock=lock):
                yield
        finally:
            if processes.is_main:
                lock.release()

    def _find_checkpoint(self, wanted: str | bool | None) -> str | bool | None:
        """The checkpoint that is meant, if all processes find it whole; False or None if none is meant."""
        if not wanted:
            return wanted
        if wanted is True:
            return last_complete_checkpoint(self._get_output_dir(None), _find_fault_together)
        fault = _find_fault_together(wanted)
        if fault is not None:
            raise ValueError(
                f"The checkpoint {wanted} is missing or not whole: {fault}. Name another one, or pass True for the "
                f"last complete one."
            )
        return wanted

    def _check_checkpoint(self, checkpoint: str) -> tuple[str, ...]:
        """
        Refuses a checkpoint that this run cannot go on from. Returns which settings were changed on purpose; only the
        first process knows.

        Raises:
            `ValueError`: It lacks a state, or is of another strategy or of a run with other settings.
        """
        lacking = lacking_to_go_on(checkpoint)
        if lacking is not None:
            raise ValueError(
                f"{checkpoint} has no {lacking}, for instance because it was saved with `save_only_model`, so a run "
                f"cannot go on from it. Start a new run from its weights: model={str(checkpoint)!r}."
            )
        self._check_strategy(checkpoint)
        if self._run is None:
            return ()
        manifest = read_manifest(checkpoint)
        if manifest is None:
            warnings.warn(
                f"{checkpoint} has no {MANIFEST}: it was saved by an earlier version or by stock TRL. Whether its "
                f"files are those that were written, and whether its run had these settings, is not known.",
                stacklevel=4,
            )
            return ()
        if not manifest["run"]:
            warnings.warn(
                f"{checkpoint} does not say what its run was: it was saved by an earlier version. Whether that had "
                f"these settings is not known.",
                stacklevel=4,
            )
            return ()
        changes = changes_of_run(manifest["run"], self._run, self._compared_config)
        admitted = self.args.resume_with_changes or []
        unmeant = [name for name in changes if name not in admitted]
        if unmeant:
            raise ValueError(
                f"{checkpoint} was saved by a run with other settings than this one. Saved -> now:\n"
                f"{in_lines(changes, unmeant)}\nSet them as they were; or, to go on with those of now, "
                f"`resume_with_changes`={unmeant!r}, on the command line --resume_with_changes {' '.join(unmeant)}."
            )
        without_effect = {"optim", "optim_args", "optim_target_modules"}.intersection(changes)
        if self.is_deepspeed_enabled:
            without_effect |= {*SCHEDULE, *OF_THE_OPTIMIZER}.intersection(changes)
        if without_effect:
            raise ValueError(
                f"{', '.join(sorted(without_effect))} cannot be changed in a run that is resumed from {checkpoint}: "
                f"the states of the optimizer are those of the saved run. Start a new run from its weights: "
                f"model={str(checkpoint)!r}."
            )
        if changes:
            print(f"Resumed from {checkpoint} with changes. Saved -> now:\n{in_lines(changes, list(changes))}")
        return tuple(changes)

    def _check_strategy(self, checkpoint: str) -> None:
        """Refuses a checkpoint of another strategy, whose optimizer states transformers would silently skip."""
        path, now = state_file(checkpoint, 0), strategy_of(self.accelerator)
        saved = torch.load(path, weights_only=True, mmap=True).get("strategy", now) if path.exists() else now
        if saved != now:
            raise ValueError(
                f"{checkpoint} was saved with {saved}, and this is {now}, which cannot read its optimizer states. "
                f"Resume with {saved}, or start a new run from its weights: model={str(checkpoint)!r}."
            )

    def _run_epoch(self, *args, **kwargs):
        if self.state.global_step < self.state.max_steps:
            return super()._run_epoch(*args, **kwargs)
        # transformers trains a run that was saved at its last step, amid an epoch, for one step more
        self.control.should_training_stop = True
        return None

    def _get_output_dir(self, trial):
        return super()._get_output_dir(trial) if self._writing_to is None else str(self._writing_to)

    def _save_checkpoint(self, model, trial):
        check_weights(self.accelerator, self.model, self.state.global_step)
        run, name = Path(self._get_output_dir(trial)), f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        incomplete = run / INCOMPLETE
        if self._lock is not None and self.accelerator.is_main_process:
            self._lock.check()
        if self.args.should_save:
            shutil.rmtree(incomplete, ignore_errors=True)  # of a run that was killed
        self.accelerator.wait_for_everyone()
        try:
            self._write_checkpoint(model, trial, incomplete / name, run / name)
        except Exception as error:
            problem = _cannot_write(run, name, error)
            shutil.rmtree(incomplete, ignore_errors=True)
            raise RuntimeError(problem) from error
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run / name))
        if self.args.should_save:
            rotate_checkpoints(str(run), self.args.save_total_limit, self.state.best_model_checkpoint, use_mtime=True)

    def _write_checkpoint(self, model, trial, written: Path, final: Path) -> None:
        with borrow(self, _writing_to=written.parent):
            super()._save_checkpoint(model, trial)
        best = final.with_name(f"{PREFIX_CHECKPOINT_DIR}-{self.state.best_global_step}")
        if self.state.best_global_step and (best == final or best.is_dir()):  # also where the run was moved
            self.state.best_model_checkpoint = str(best)
        self.accelerator.wait_for_everyone()  # what is still being written has temporary names
        names = sorted({*Processes(PartialState()).gather(files_of(written))})
        if self.args.should_save:
            # again, now with the final path of the best checkpoint
            self.state.save_to_json(str(written / TRAINER_STATE))
            _wait_for_files(written, names)
            write_manifest(written, self.state.global_step, self._run or {})
            _rename(written, final)
            shutil.rmtree(written.parent)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        self._loading_from = resume_from_checkpoint
        dtypes = {name: parameter.dtype for name, parameter in self.model.named_parameters()}
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        for name, parameter in self.model.named_parameters():
            # PEFT loads adapters in float32, and TRL trains those of quantized models in bfloat16
            if parameter.dtype != dtypes.get(name, parameter.dtype):
                parameter.data = parameter.data.to(dtypes[name])

    def _load_best_model(self):
        best = self._loading_from = str(self.state.best_model_checkpoint)
        fault = _find_fault_together(best)
        if fault is not None:
            raise ValueError(
                f"The best checkpoint, {best}, is not whole: {fault}. The model is that of the last step."
            )
        super()._load_best_model()

    def _issue_warnings_after_load(self, load_result):
        # Many vision-language models are saved under the names that the Hub uses, which only `from_pretrained`
        # translates. transformers would go on with the weights that the model had before, and log a line.
        missing = set(load_result.missing_keys) - set(getattr(self.model, "all_tied_weights_keys", ()))
        if not missing or self.is_fsdp_enabled:
            return super()._issue_warnings_after_load(load_result)
        loaded_again: Any = type(self.model).from_pretrained(
            self._loading_from, dtype=self.model.dtype, output_loading_info=True
        )
        saved, found = loaded_again  # with that option it is a pair, which its annotation does not say
        loaded = self.model.load_state_dict(saved.state_dict(), strict=False)
        missing = missing.intersection(loaded.missing_keys).union(found["missing_keys"])
        if missing:
            raise ValueError(f"{self._loading_from} lacks weights of {type(self.model).__name__}: {sorted(missing)}.")

    def _load_optimizer_and_scheduler(self, checkpoint):
        optimizer: Any = self.optimizer
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        of_optimizer = {key for name, key in OF_THE_OPTIMIZER.items() if name in self._changed}
        of_schedule = [name for name in SCHEDULE if name in self._changed]
        if checkpoint is not None and self._changed and not of_schedule and not self.is_deepspeed_enabled:
            # of the same epochs, other batches make other steps
            saved = TrainerState.load_from_json(os.path.join(checkpoint, TRAINER_STATE))
            of_schedule = list(self._changed) if saved.max_steps != self.state.max_steps else []
        before = [dict(group) for group in optimizer.param_groups] if of_optimizer or of_schedule else []
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        # what was loaded has the settings of the saved run
        for group, own in zip(optimizer.param_groups, before, strict=False):
            group.update({key: own[key] for key in of_optimizer})
        if of_schedule:
            _set_schedule(optimizer, schedule, [group.get("initial_lr") for group in before], of_schedule)


def _find_fault_together(checkpoint: str | os.PathLike) -> str | None:
    """[`find_fault`] on all processes, with one answer: one process of each machine reads the digests."""
    state = PartialState()
    own = find_fault(checkpoint, digests=state.local_process_index == 0)
    return next((fault for fault in Processes(state).gather([own]) if fault is not None), None)


def _wait_for_files(folder: Path, names: list[str]) -> None:
    """Waits until this machine sees what others have written."""
    deadline = time.monotonic() + SEEN_WITHIN
    while missing := [name for name in names if not (folder / name).exists()]:
        if time.monotonic() > deadline:
            raise OSError(f"{missing[0]}, which another process has written, is not seen within {SEEN_WITHIN} seconds")
        time.sleep(0.1)


def _set_schedule(optimizer: Any, schedule: Any, rates: list[Any], changed: list[str]) -> None:
    """Puts a schedule that was loaded onto the learning rates and the course of now, at the step it has reached."""
    if not isinstance(schedule, LambdaLR):
        raise ValueError(
            f"{', '.join(changed)} cannot be changed in a resumed run whose schedule is a {type(schedule).__name__}: "
            f"it holds the course of the saved run. Start a new run from the weights of the checkpoint."
        )
    for group, rate, course in zip(optimizer.param_groups, rates, schedule.lr_lambdas, strict=True):
        group |= {"initial_lr": rate, "lr": rate * course(schedule.last_epoch)}
    last = [group["lr"] for group in optimizer.param_groups]
    schedule.load_state_dict(schedule.state_dict() | {"base_lrs": rates, "_last_lr": last})


def _rename(written: Path, final: Path) -> None:
    """Moves a complete checkpoint to its place, where there may be one of an earlier run."""
    if final.exists():
        earlier = written.with_name(f"{written.name}-earlier")
        final.rename(earlier)
        written.rename(final)
        shutil.rmtree(earlier)
    else:
        written.rename(final)


def _cannot_write(run: Path, name: str, error: Exception) -> str:
    """Explains why a checkpoint could not be written: torch.save does not say that a disk is full."""
    free = shutil.disk_usage(run).free / 2**20
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            last = last_complete_checkpoint(run, functools.partial(find_fault, digests=False))
    except ValueError:
        last = "none"
    return (
        f"{name} could not be written to {run}: {type(error).__name__}: {error}. {free:.0f} MiB were free there. "
        f"The partial files are removed. The last complete checkpoint is {last}."
    )


def strategy_of(accelerator) -> str:
    """What decides the form in which optimizer states are saved."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return f"DeepSpeed ZeRO-{accelerator.state.deepspeed_plugin.zero_stage}"
    return "FSDP" if accelerator.distributed_type == DistributedType.FSDP else "one process or DDP"


def state_file(checkpoint: str | os.PathLike, process_index: int) -> Path:
    return Path(checkpoint) / f"rlvr_state_{process_index}.pt"
