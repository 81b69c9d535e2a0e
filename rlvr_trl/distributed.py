"""Several processes: how they share work, and how a failure of one ends all of them with its cause.

A process that waits in a collective for one that has failed waits as long as its backend allows: half an hour by
default, forever with gloo under accelerate. Two kinds of errors are handled in two ways:

- If every process can be asked at the same place whether it has an error, all of them raise it ([`raise_together`]).
- Any other error is left in the store that the process group was made with, before its process ends. A thread in every
  other process looks there every second, and ends its process with that error ([`end_together`]). A process that is
  killed, or whose machine is gone, leaves none: another thread sees its connection break (`lifelines.py`).
"""

import contextlib
import itertools
import os
import pickle
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from typing import Any

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from .lifelines import wait_for_loss


POLL = 1.0  # seconds between two looks into the store
OWN_END = 3.0  # seconds that a process has to end with an error of its own, once another has failed
FAREWELL = 10.0  # seconds that a failed process waits for the others to read its error, before a launcher kills them

_runs = itertools.count()  # the same on every process: all enter `end_together` equally often
_ending = threading.Lock()
_store = None  # the store of the current `end_together`; None outside it, or with a single process


# How many processes were started, as launchers tell each of them. SLURM's is that of `srun`: in the script of a job,
# which is one process, only the number of the whole job is set
PROCESSES_STARTED = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def warn_of_lone_process(num_processes: int) -> None:
    """
    Warns if several processes were asked for, and this one is alone.

    Args:
        num_processes (`int`): processes that take part in this run.
    """
    if num_processes > 1:
        return
    started = {name: os.environ[name] for name in PROCESSES_STARTED if os.environ.get(name, "").isdecimal()}
    several = [f"{name}={value}" for name, value in started.items() if int(value) > 1]
    if several:
        found = (
            f"{several[0]} says that several processes were started, but each of them trains alone, a run of its own"
        )
    elif "WORLD_SIZE" not in os.environ and _launched_as_one_of_several():
        found = "`accelerate launch` was told to start several processes, but it started this one alone"
    else:
        return
    warnings.warn(
        f"{found}: there is 1 process in this run. On GPUs, start it with `accelerate launch --multi_gpu "
        f"--num_processes N` or `torchrun --nproc_per_node N`; on CPUs with one of these and `use_cpu=True` in the "
        f"training arguments as well. Runs that are meant to be separate need an `output_dir` each.",
        stacklevel=3,
    )


def _launched_as_one_of_several() -> bool:
    """Whether the parent has set an address to meet at, which `accelerate launch` does if there are to be several."""
    if not {"MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"} <= {*os.environ}:
        return False
    try:
        parent = psutil.Process().parent()
        return parent is not None and "MASTER_ADDR" not in parent.environ()  # there it would be the user's own
    except (psutil.Error, OSError):
        return False  # it cannot be looked at


def sum_over_processes(accelerator, values: list[int]) -> list[int]:
    """The sum over all processes of each of `values`. Every process must call it, with the same number of values."""
    total = accelerator.reduce(torch.tensor(values, device=accelerator.device), reduction="sum")
    return total.tolist()


def raise_together(accelerator, error: Exception | None) -> None:
    """
    Raises `error` if this process has one, otherwise the first error of another process.

    All processes must call it. Without an error anywhere it costs one sum over the processes.

    Raises:
        `Exception`: The error of the first process that has one: its class, its text and the processes that failed.
    """
    if accelerator.num_processes == 1:
        if error is not None:
            raise error
        return
    failed = accelerator.reduce(torch.tensor(float(error is not None), device=accelerator.device), reduction="sum")
    if failed == 0:
        return
    own = [] if error is None else [(accelerator.process_index, type(error), str(error))]
    failures = sorted(gather_object(own), key=lambda failure: failure[0])
    processes = ", ".join(str(index) for index, _, _ in failures)
    _, kind, text = failures[0]
    together = kind(f"{text} (on process {processes} of {accelerator.num_processes})")
    together.raised_by_all = True
    _say(accelerator.process_index, f"process {processes} failed with {kind.__name__}: {text}")
    accelerator.wait_for_everyone()  # when the first one ends, a launcher may kill those that have not printed it
    raise together from (None if error is None else error.__cause__ or error)


@contextlib.contextmanager
def end_together(accelerator):
    """
    Ends all processes when one of them fails in here, with its error as the cause.

    The process that fails raises its error. The others, which may be stuck in a collective, print it and exit with
    code 1, at most `POLL` + `OWN_END` seconds later. All processes leave the context together, because one that has
    left no longer looks for errors.
    """
    global _store
    from .trl_compat import _get_default_store  # which torch has only where it was built for several processes

    if accelerator.num_processes == 1:
        yield
        return
    _store = store = torch.distributed.PrefixStore(f"rlvr_trl/failures/{next(_runs)}", _get_default_store())
    ended, index = threading.Event(), accelerator.process_index
    watchers = [
        threading.Thread(target=watch, args=(store, ended, index), daemon=True) for watch in (_watch, _watch_lifelines)
    ]
    for watcher in watchers:
        watcher.start()
    try:
        yield
        accelerator.wait_for_everyone()
    except BaseException as error:
        ended.set()
        if not getattr(error, "raised_by_all", False):
            _leave_cause(store, error, accelerator)
        raise
    finally:
        _store = None
        ended.set()
        for watcher in watchers:
            watcher.join()


def exit_for_all(error: Exception, accelerator) -> None:
    """
    For a thread: ends this process, whose main thread is stuck in a call, and all others in `end_together`.

    The stacks of its threads are printed, as far as somebody reads what it prints: at most `FAREWELL` seconds are
    waited for that.
    """
    _set_cause(_store, _cause_of(error, accelerator))
    # the watchers of this process find the cause too, and would end it before the others have read it
    _ending.acquire()

    def leave():  # in a thread: a write to a pipe that nobody empties does not return
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        for ident, frame in sys._current_frames().items():
            stack = "".join(traceback.format_stack(frame))
            sys.stderr.write(f"Stack of the thread {names.get(ident, ident)}:\n{stack}")
        _leave_cause(_store, error, accelerator)

    leaving = threading.Thread(target=leave, daemon=True)
    leaving.start()
    leaving.join(FAREWELL)
    os._exit(1)


def _cause_of(error: BaseException, accelerator) -> str:
    return f"process {accelerator.process_index} failed with {type(error).__name__}: {error}"


def _set_cause(store, cause: str) -> None:
    """Tells the other processes, unless one of them has told before."""
    with contextlib.suppress(RuntimeError):  # the store may have gone with the process that held it
        if store is not None and not store.check(["cause"]):
            store.set("cause", cause)


def _say(process_index: int, cause: str) -> None:
    # one write, as several processes may share an unbuffered stderr, and `print` would make two
    sys.stderr.write(f"Process {process_index} ends, because {cause}\n")
    sys.stderr.flush()


def _leave_cause(store, error: BaseException, accelerator) -> None:
    """Tells the other processes why this one fails, and waits until they have seen it."""
    cause = _cause_of(error, accelerator)
    # printed first: a launcher that saw another process die may kill this one before its traceback
    _say(accelerator.process_index, cause)
    if store is None:
        return
    _set_cause(store, cause)
    with contextlib.suppress(RuntimeError):
        seen, deadline = store.add("seen", 1), time.monotonic() + FAREWELL
        while seen < accelerator.num_processes and time.monotonic() < deadline:
            time.sleep(0.1)
            seen = store.add("seen", 0)


def _watch(store, ended: threading.Event, process_index: int) -> None:
    while not ended.wait(POLL):
        patience = OWN_END
        try:
            cause = store.get("cause").decode() if store.check(["cause"]) else None
        except RuntimeError as error:
            cause = f"the store of the process group, which the first process or its launcher holds, is gone: {error}"
            patience = FAREWELL  # the first process may have left as it should, and this one be about to
        if cause is None:
            continue
        if ended.wait(patience):
            return  # this process ends with an error of its own
        _end(process_index, cause, store)


def _watch_lifelines(store, ended: threading.Event, process_index: int) -> None:
    try:
        lost = wait_for_loss(store, process_index, ended, POLL)
    except RuntimeError:
        return  # the store is gone, which `_watch` tells
    except OSError as error:
        warnings.warn(
            f"Process {process_index} has no connection to the first process beside those of torch: {error}. If a "
            f"machine fails, this process may wait for it as long as `ddp_timeout` says.",
            stacklevel=1,
        )
        return
    if lost is None:
        return
    if process_index == 0:  # to which all are connected: it tells the others
        _set_cause(store, lost)
    elif not ended.wait(OWN_END):
        # without the store, which may be on the machine that is gone, and then does not answer
        _end(process_index, lost, None)


def _end(process_index: int, cause: str, store) -> None:
    """Ends this process from a thread. Only the first call says why."""
    _ending.acquire()
    _say(process_index, cause)
    with contextlib.suppress(RuntimeError):
        if store is not None:
            store.add("seen", 1)
    os._exit(1)


class Processes:
    """
    The processes of a state, or this one alone.

    All communication of an evaluation goes through this class. If one process fails in a phase, all of them raise, so
    that none waits for a process that has gone.

    Args:
        state ([`~accelerate.PartialState`], *optional*): the processes; `None` means this process alone, even if
            others are running.
    """

    def __init__(self, state: PartialState | None):
        self.count = 1 if state is None else state.num_processes
        self.index = 0 if state is None else state.process_index
        self.is_main = self.index == 0

    def share_of(self, items: list) -> list:
        """This process's share: every `count`-th item, which spreads the samples of a problem over the processes."""
        return items[self.index :: self.count]

    def gather(self, values: list) -> list:
        """The values of all processes in one list, on each of them."""
        return gather_object(values) if self.count > 1 else values

    def broadcast(self, value: Any) -> Any:
        """The first process's value, on each of them."""
        if self.count == 1:
            return value
        # Pickled before the others wait for it, so that a value that cannot be pickled is an error on all of them
        with self.agreed("sending a result"):
            payload = pickle.dumps(value) if self.is_main else None
        return pickle.loads(broadcast_object_list([payload])[0])

    @contextlib.contextmanager
    def agreed(self, what: str) -> Iterator[None]:
        """
        A phase of the work, which ends when all processes have finished it.

        Raises:
            ValueError or RuntimeError: another process failed; the message names the process and its error. A process
                that failed itself raises its own error.
        """
        error = None
        try:
            yield
        except Exception as raised:
            error = raised
        told = None if error is None else (isinstance(error, ValueError), type(error).__name__, str(error))
        failures = self.gather([told])
        if error is not None:
            raise error
        for index, failure in enumerate(failures):
            if failure is not None:
                is_value_error, name, message = failure
                error_class = ValueError if is_value_error else RuntimeError
                raise error_class(f"Process {index} failed at {what} with {name}: {message}")
