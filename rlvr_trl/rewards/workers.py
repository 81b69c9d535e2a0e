"""
A pool of worker processes that can be killed, for functions that may hang, crash, or do what they should not.

`pebble.ProcessPool` (as of 5.2.3) cannot take its place: its parent unpickles what workers send, so that a
worker which an answer has taken over runs code in the trainer; its timeout is wall-clock time, which a busy machine
uses up; and it starts workers by `multiprocessing`, with the environment and the main script of the user.
"""

import atexit
import contextlib
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from numbers import Real
from typing import Any, Literal

from .sandbox import bare_environment
from .serving import GRACE, MAX_ANSWER_BYTES, serve


START_METHODS = ("spawn", "fork")
STARTUP_LIMIT = 120.0  # seconds that a worker may take to import what it needs on a busy machine
STARTS = 3  # workers in a row that may be killed while they start before the pool gives up

# Signals that a worker brings on itself. Any other signal comes from outside.
_OUT_OF_TIME = ("SIGPROF", "SIGXCPU")
_CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGTRAP", "SIGSYS", "SIGXFSZ")
_INNOCENCE = ("lost", "timed_out", "died")  # of two tries that both ended early, the first of these is reported

# What a new interpreter runs. It does not import `__main__`.
_BOOTSTRAP = """
import sys
sys.path[:] = {path!r}
from {module} import serve
serve(*{arguments!r})
"""


Status = Literal["done", "failed", "timed_out", "died", "lost"]


@dataclass(frozen=True)
class Outcome:
    """
    What became of a job.

    Attributes:
        status (`str`):
            `"done"`, `"failed"` (it raised an error, or was refused something), `"timed_out"` (it used up its
            processor time), `"died"` (it crashed or ran out of memory) or `"lost"` (it was ended from outside, which
            says nothing about the job).
        value:
            What the function returned if the job is done, else what happened, in words.
    """

    status: Status
    value: Any = None


class WorkerPool:
    """
    Calls a function in worker processes that can be killed and that have given up what a judgement does not need.

    Workers start when there is something to do and are reused. They end with the process that started them, however
    that ends: idle ones within seconds, busy ones by the limits of their job. Before its first job a worker calls
    `warm_up` and then gives up its environment, files, sockets, processes and the running of text as Python, see
    [`rewards.sandbox`]. What the function needs must be imported by then. A job that asks for any of these things
    ends its worker and counts as "failed", with a value that begins with "refused".

    A try of a job ends early when it has used its processor time, runs out of memory or crashes, when its worker is
    killed from outside, or at the wall limit. It reaches that limit only if it does not run: its process is stopped,
    or the machine has no time for it. Whatever the cause, its worker is killed and the job is tried once more, on a
    fresh worker and after all other jobs. The second try decides, unless it ends early too: then the job is "lost" if
    either try was ended from outside, else "timed_out" if either ran out of time, else "died".

    `run` can be called from any thread. A forked child of the process starts workers of its own.

    Args:
        function (`callable`):
            Function to call. It must be importable by its module and name, so it cannot come from `__main__`. It must
            return plain values (None, booleans, numbers, strings, and lists and dicts of them), because a worker is
            trusted with no more than JSON.
        num_workers (`int`):
            Largest number of workers at a time.
        time_limit (`float`):
            Seconds of processor time for one call. Waiting does not count, nor does starting a worker.
        memory_limit_mb (`int` or `None`):
            Megabytes of address space that a worker may allocate on top of what it has when it starts. There is no
            limit with `None`, or outside Linux.
        start_method (`str`, *optional*, defaults to `"spawn"`):
            `"spawn"` starts a new interpreter, which does not import the main module: safe with threads and
            accelerators, and possible in a daemonic process. `"fork"` copies the process, with all that is unsafe
            about forking it, and saves only the imports that it has already made.
        wall_limit (`float`, *optional*):
            Seconds of wall-clock time for one call. Defaults to ten times `time_limit`, and at least 60.
        warm_up (`callable`, *optional*):
            Function without arguments that a worker calls before it is locked. It must be importable, as `function`,
            or a partial of one that is.
        arithmetic (`bool`, *optional*, defaults to `False`):
            Whether arithmetic that stands in a text may be evaluated, see [`rewards.sandbox`].

    Attributes:
        counts (`dict[str, int]`):
            Calls since the pool was made, by how they ended; how many of them were `retried`, and how many were
            `refused` something; and how many workers were `started`.

    Raises:
        `ValueError`: A limit is not positive, or the start method or a function cannot be used.
    """

    # Not `multiprocessing.Process` with "spawn" or "forkserver": both import the script of the user again in each
    # worker, with torch and all, and refuse to run in daemonic processes. PR_SET_PDEATHSIG does not help either: it
    # fires when the *thread* that started the worker ends. So an idle worker watches its parent, and a busy one has an
    # alarm.
    def __init__(
        self,
        function: Callable,
        num_workers: int,
        time_limit: float,
        memory_limit_mb: int | None = None,
        start_method: str = "spawn",
        wall_limit: float | None = None,
        warm_up: Callable[[], object] | None = None,
        arithmetic: bool = False,
    ):
        if wall_limit is None:
            wall_limit = max(60.0, 10 * time_limit) if isinstance(time_limit, Real) else 60.0
        for name, value in {"time_limit": time_limit, "wall_limit": wall_limit}.items():
            if not isinstance(value, Real) or not 0 < value < float("inf"):
                raise ValueError(f"`{name}` must be a positive number, got {value!r}.")
        if wall_limit < time_limit:
            raise ValueError(f"`wall_limit` must be at least `time_limit`, {time_limit}, got {wall_limit}.")
        if not isinstance(num_workers, int) or num_workers < 1:
            raise ValueError(f"`num_workers` must be a positive integer, got {num_workers!r}.")
        if memory_limit_mb is not None and (not isinstance(memory_limit_mb, int) or memory_limit_mb <= 0):
            raise ValueError(f"`memory_limit_mb` must be a positive integer or None, got {memory_limit_mb!r}.")
        if start_method not in START_METHODS:
            raise ValueError(f"`start_method` must be one of {', '.join(START_METHODS)}, got {start_method!r}.")
        for name, value in {"function": function, "warm_up": warm_up}.items():
            if value is not None and value.__module__ == "__main__":
                raise ValueError(f"`{name}` must be importable, {value!r} is defined in `__main__`.")
        self.function, self.warm_up = function, warm_up
        self.num_workers, self.start_method = num_workers, start_method
        self.time_limit, self.wall_limit, self.memory_limit_mb = time_limit, wall_limit, memory_limit_mb
        self.arithmetic = arithmetic
        names = ("done", "failed", "timed_out", "died", "lost", "retried", "refused", "started")
        self.counts = dict.fromkeys(names, 0)
        self._adopt()
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """Process ids of the current workers."""
        return [worker.pid for worker in self._workers] if self._owner == os.getpid() else []

    def run(self, jobs: Sequence[tuple]) -> list[Outcome]:
        """
        The outcomes of calling the function with each tuple of arguments, in the same order.

        Raises:
            `RuntimeError`: A worker ended before it was ready, for instance because a module cannot be imported.
        """
        if self._owner != os.getpid():  # a fork: the workers, and a lock that may be held, belong to the parent
            self._adopt()
        with self._lock:
            try:
                return self._run(jobs)
            except BaseException:  # also a keyboard interrupt: answers to this call must not reach the next one
                self._close()
                raise

    def close(self):
        """Kill the workers. The next `run` starts new ones."""
        if self._owner == os.getpid():
            with self._lock:
                self._close()

    def _adopt(self):
        self._owner, self._lock, self._workers, self._lost_starts = os.getpid(), threading.RLock(), [], 0

    def _close(self):
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _dismiss(self, worker: "_Worker") -> int | None:
        self._workers.remove(worker)
        return worker.kill()

    def _run(self, jobs):
        outcomes: dict[int, Outcome] = {}
        first_tries: dict[int, Outcome] = {}  # of jobs whose first try ended early
        pending, again = deque(range(len(jobs))), deque()
        while len(outcomes) < len(jobs):
            self._hire(len(pending), len(again))
            for worker in self._workers:
                if not worker.busy and (pending or (again and worker.fresh)):
                    job = (pending or again).popleft()
                    worker.give(job, jobs[job], self.wall_limit)
            for worker in self._wait():
                if not worker.ready:
                    self._welcome(worker)
                    continue
                job, outcome = worker.job, self._outcome(worker)
                assert job is not None  # a worker that is ready is waited for only if it has a job
                if outcome.status in _INNOCENCE:
                    if job not in first_tries:
                        first_tries[job] = outcome
                        again.append(job)
                        self.counts["retried"] += 1
                        continue
                    outcome = min(first_tries[job], outcome, key=lambda o: _INNOCENCE.index(o.status))
                self.counts[outcome.status] += 1
                outcomes[job] = outcome
        return [outcomes[job] for job in range(len(jobs))]

    def _hire(self, pending: int, again: int):
        """Start workers for new jobs, and fresh ones for second tries, in place of used ones if the pool is full."""
        while len(self._workers) < min(self.num_workers, pending + sum(w.job is not None for w in self._workers)):
            self._workers.append(self._start())
        if pending:
            return
        used = [worker for worker in self._workers if not worker.busy and not worker.fresh]
        for _ in range(again - sum(worker.fresh for worker in self._workers)):
            if len(self._workers) == self.num_workers:
                if not used:
                    return
                self._dismiss(used.pop())
            self._workers.append(self._start())

    def _wait(self) -> list["_Worker"]:
        """Wait for workers that have sent something, have ended, or have reached their deadline."""
        waiting = [worker for worker in self._workers if worker.busy]
        until = min(worker.deadline for worker in waiting)
        heard = wait([worker.socket for worker in waiting], timeout=max(0.0, until - time.monotonic()))
        for worker in waiting:
            if worker.socket in heard:
                worker.listen()
        return [worker for worker in waiting if worker.message is not None or time.monotonic() > worker.deadline]

    def _welcome(self, worker: "_Worker"):
        """Handle a starting worker: it is ready now, or it has failed to start."""
        if worker.message is None:
            self._dismiss(worker)
            status, value = "lost", f"it was not ready in {STARTUP_LIMIT} seconds"
        elif worker.message == b"":
            status, value = _how_it_ended(self._dismiss(worker))
        else:
            status, value = worker.read()
            if status == "ready":
                worker.ready, worker.deadline, self._lost_starts = True, float("inf"), 0
                return
            self._dismiss(worker)
        self._lost_starts += 1
        if status != "lost" or self._lost_starts == STARTS:
            raise RuntimeError(f"A worker for {self.function!r} ended while it started: {value}.")

    def _outcome(self, worker: "_Worker") -> Outcome:
        """How the job of a worker ended. The worker is kept only if it answered and was refused nothing."""
        if worker.message is None:
            self._dismiss(worker)
            return Outcome("lost", f"it did not get its processor time within {self.wall_limit} seconds")
        if worker.message == b"":
            return Outcome(*_how_it_ended(self._dismiss(worker)))
        status, value = worker.read()
        if status in ("done", "failed"):
            worker.job, worker.deadline = None, float("inf")
            return Outcome(status, value)
        self._dismiss(worker)
        if status == "refused":
            self.counts["refused"] += 1
            return Outcome("failed", f"refused: {value}")
        return Outcome("died", value)

    def _start(self) -> "_Worker":
        self.counts["started"] += 1
        here, there = socket.socketpair()
        fd = there.fileno()
        arguments = (fd, os.getpid(), self.time_limit, self.wall_limit, self.memory_limit_mb, self.arithmetic)
        if self.start_method == "fork":
            if multiprocessing.current_process().daemon:
                raise RuntimeError('A daemonic process cannot fork workers: use start_method="spawn" there.')
            process = multiprocessing.get_context("fork").Process(target=serve, args=arguments, daemon=True)
            process.start()
        else:
            path = [absolute for entry in sys.path if (absolute := _absolute(entry))]
            code = _BOOTSTRAP.format(path=path, module=serve.__module__, arguments=arguments)
            process = subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.DEVNULL, pass_fds=[fd], env=bare_environment()
            )
        there.close()
        worker = _Worker(process, here)
        worker.send((self.function, self.warm_up))
        return worker


def default_num_workers() -> int:
    """Cores divided by the training processes of this machine (`LOCAL_WORLD_SIZE`): at least 1 and at most 4."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(4, cores // max(1, int(os.environ.get("LOCAL_WORLD_SIZE") or 1))))


def _absolute(entry: str) -> str:
    """The path of an entry of `sys.path`; empty where the current directory is gone."""
    try:
        return os.path.abspath(entry)
    except FileNotFoundError:
        return ""


class _Worker:
    """The parent's end of a worker, which sends lines of JSON: a pickle could run anything in this process."""

    def __init__(self, process: subprocess.Popen | BaseProcess, here: socket.socket):
        self.process, self.pid, self.socket = process, process.pid, here
        self.ready, self.fresh, self.deadline = False, True, time.monotonic() + STARTUP_LIMIT
        self.job: int | None = None
        self.received = b""
        self.message: bytes | None = None  # a line; empty if the worker has ended or sends more than it may
        here.settimeout(GRACE)

    @property
    def busy(self) -> bool:
        return not self.ready or self.job is not None

    def give(self, job: int, arguments: tuple, wall_limit: float):
        self.job, self.fresh, self.deadline = job, False, time.monotonic() + wall_limit
        self.send(arguments)

    def send(self, message):
        try:
            self.socket.sendall(pickle.dumps(message))
        except TimeoutError:  # it is stopped, for an idle worker reads at once
            self.deadline = 0.0
        except OSError:  # it is gone, which shows when its answer is read
            pass

    def listen(self):
        try:
            chunk = self.socket.recv(2**16)
        except OSError:
            chunk = b""
        self.received += chunk
        if not chunk or len(self.received) > 2 * MAX_ANSWER_BYTES:
            self.message = b""
        elif chunk.endswith(b"\n"):
            self.message, self.received = self.received, b""

    def read(self) -> tuple[str, Any]:
        """Take the message: its status and value."""
        message, self.message = self.message or b"", None
        try:
            status, value = json.loads(message)
            return (status, value) if isinstance(status, str) else ("died", "it sent something other than an answer")
        except (ValueError, TypeError, RecursionError):
            return "died", "it sent something other than an answer"

    def kill(self) -> int | None:
        """Kill it. Returns its exit code, or minus the signal that ended it, or `None` if it was alive until now."""
        if self.message == b"":  # its socket closes a moment before there is an exit code
            self._join(GRACE)
        code = self._code()
        with contextlib.suppress(OSError):
            self.process.kill()
        self._join(None)
        self.socket.close()
        return code

    def _code(self) -> int | None:
        return self.process.poll() if isinstance(self.process, subprocess.Popen) else self.process.exitcode

    def _join(self, timeout: float | None):
        if isinstance(self.process, subprocess.Popen):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        else:
            self.process.join(timeout)


def _how_it_ended(code: int | None) -> tuple[Status, str]:
    """The status of a job and what happened, from what `_Worker.kill` returned for a worker that no longer answers."""
    if code is None:
        return "died", "its worker closed its socket, or sent more than it may"
    if code >= 0:
        return "died", f"its worker ended itself with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # a real-time signal
        name = f"signal {-code}"
    if name in _OUT_OF_TIME:
        return "timed_out", "it used all its processor time"
    return ("died" if name in _CRASHES else "lost"), f"its worker was ended by {name}"
