"""A pool of worker processes that can be killed, for functions that may hang, crash or eat the memory."""

import atexit
import contextlib
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from numbers import Real
from typing import Any, Literal


START_METHODS = ("spawn", "fork")
STARTUP_LIMIT = 120.0  # seconds that a worker may take to import what it needs, on a machine that is busy
PARENT_CHECK = 1.0  # seconds between two looks of an idle worker at whether its parent lives
GRACE = 1.0  # seconds after the time limit when a worker ends itself, should nobody be left to kill it

# Of a new interpreter. The file is run by its path: the package, and `__main__`, are not imported.
_BOOTSTRAP = """
import runpy, sys
file, fd, parent, time_limit, memory_limit_mb = sys.argv[1:]
sys.path[:] = {path!r}
serve = runpy.run_path(file)["serve"]
from multiprocessing.connection import Connection
serve(Connection(int(fd)), int(parent), float(time_limit), None if memory_limit_mb == "None" else int(memory_limit_mb))
"""


@dataclass(frozen=True)
class Outcome:
    """What became of a job: `"done"` with its value, `"failed"` (it raised), `"timed_out"` or `"died"`."""

    status: Literal["done", "failed", "timed_out", "died"]
    value: Any = None


class WorkerPool:
    """
    Calls a function in worker processes, each call within limits of time and memory.

    A worker that exceeds the time limit is killed; so is one that runs out of memory, for what is left of it is not to
    be trusted. Another takes its place. Workers are started when there is something to do, are reused, and end with
    the process that started them, however that ends. `run` can be called from any thread; a forked child of the
    process starts workers of its own.

    Args:
        function (`callable`):
            Function to call, importable by its module and name: those of `__main__` cannot be sent to a worker.
        num_workers (`int`):
            Most workers at a time.
        time_limit (`float`):
            Seconds of wall-clock time for one call. Starting a worker does not count.
        memory_limit_mb (`int` or `None`):
            Megabytes of address space that a worker may allocate on top of what it has when it starts. `None`, or a
            system without such limits (they are set on Linux only), is no limit.
        start_method (`str`, *optional*, defaults to `"spawn"`):
            `"spawn"` starts a new interpreter, which does not import the main module: safe with threads and
            accelerators, a second per worker. `"fork"` copies the process: fast, and as unsafe as forking is there.

    Attributes:
        counts (`dict[str, int]`): Calls since the pool was made, by how they ended, and workers `started`.

    Raises:
        `ValueError`: A limit is not positive, or the start method or function cannot be used.
    """

    # Not `multiprocessing.Process` with "spawn" or "forkserver": both import the script of the user again in each
    # worker, with torch and all, and refuse to run in daemonic processes. And not PR_SET_PDEATHSIG: it fires when the
    # *thread* that started the worker ends. An idle worker watches its parent instead, and a busy one has an alarm.
    def __init__(
        self,
        function: Callable,
        num_workers: int,
        time_limit: float,
        memory_limit_mb: int | None = None,
        start_method: str = "spawn",
    ):
        for name, value in {"num_workers": num_workers, "time_limit": time_limit}.items():
            if not isinstance(value, Real) or not 0 < value < float("inf"):
                raise ValueError(f"`{name}` must be a positive number, got {value!r}.")
        if memory_limit_mb is not None and (not isinstance(memory_limit_mb, int) or memory_limit_mb <= 0):
            raise ValueError(f"`memory_limit_mb` must be a positive integer or None, got {memory_limit_mb!r}.")
        if start_method not in START_METHODS:
            raise ValueError(f"`start_method` must be one of {', '.join(START_METHODS)}, got {start_method!r}.")
        if function.__module__ == "__main__":
            raise ValueError(f"`function` must be importable, {function!r} is defined in `__main__`.")
        self.function, self.num_workers, self.start_method = function, int(num_workers), start_method
        self.time_limit, self.memory_limit_mb = time_limit, memory_limit_mb
        self.counts = dict.fromkeys(("done", "failed", "timed_out", "died", "started"), 0)
        self._adopt()
        atexit.register(self.close)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers there are."""
        return [worker.pid for worker in self._workers] if self._owner == os.getpid() else []

    def run(self, jobs: Sequence[tuple]) -> list[Outcome]:
        """
        Outcome of the function for each tuple of arguments, in their order.

        Raises:
            `RuntimeError`: A worker ended before it was ready, such as for a module that cannot be imported.
        """
        if self._owner != os.getpid():  # forked since: the workers, and a lock that may be held, are the parent's
            self._adopt()
        with self._lock:
            try:
                return self._run(jobs)
            except BaseException:  # a keyboard interrupt too: no half-done call may answer the next one
                self._close()
                raise

    def close(self):
        """Kill the workers. The next `run` starts new ones."""
        if self._owner == os.getpid():
            with self._lock:
                self._close()

    def _adopt(self):
        self._owner, self._lock, self._workers = os.getpid(), threading.RLock(), []

    def _close(self):
        for worker in self._workers:
            worker.kill()
        self._workers = []

    def _run(self, jobs):
        outcomes, pending = [None] * len(jobs), deque(range(len(jobs)))

        def finish(worker, outcome):
            self.counts[outcome.status] += 1
            outcomes[worker.job], worker.job = outcome, None
            if outcome.status in ("timed_out", "died"):
                worker.kill()
                self._workers.remove(worker)

        while pending or any(worker.job is not None for worker in self._workers):
            while len(self._workers) < min(self.num_workers, len(pending) + sum(w.busy for w in self._workers)):
                self._workers.append(self._start())
            for worker in list(self._workers):
                if pending and worker.ready and worker.job is None:
                    worker.give(pending.popleft(), jobs, self.time_limit)
            waiting = [worker for worker in self._workers if worker.busy]
            until = min(worker.deadline for worker in waiting)
            heard = wait([w.connection for w in waiting], timeout=max(0.0, until - time.monotonic()))
            for worker in waiting:
                if worker.connection in heard:
                    message = worker.receive()
                    if not worker.ready:
                        if message != "ready":
                            raise RuntimeError(f"A worker for {self.function!r} ended while it started: {message!r}.")
                        worker.ready = True
                    else:
                        finish(worker, message if isinstance(message, Outcome) else Outcome("died"))
                elif time.monotonic() > worker.deadline:
                    if not worker.ready:
                        raise RuntimeError(f"A worker for {self.function!r} did not start in {STARTUP_LIMIT} seconds.")
                    finish(worker, Outcome("timed_out"))
        return outcomes

    def _start(self) -> "_Worker":
        self.counts["started"] += 1
        here, there = multiprocessing.Pipe()
        settings = (os.getpid(), self.time_limit, self.memory_limit_mb)
        if self.start_method == "fork":
            process = multiprocessing.get_context("fork").Process(
                target=serve, args=(there, *settings), kwargs={"end_with": here}, daemon=True
            )
            process.start()
        else:
            command = [sys.executable, "-c", _BOOTSTRAP.format(path=sys.path), __file__, str(there.fileno())]
            process = subprocess.Popen(
                [*command, *map(str, settings)], stdin=subprocess.DEVNULL, pass_fds=[there.fileno()]
            )
        there.close()
        worker = _Worker(process, here)
        worker.send(self.function)
        return worker


class _Worker:
    """The parent's end of a worker."""

    def __init__(self, process: "subprocess.Popen | multiprocessing.Process", connection: Connection):
        self.process, self.pid, self.connection = process, process.pid, connection
        self.ready, self.job, self.deadline = False, None, time.monotonic() + STARTUP_LIMIT

    @property
    def busy(self) -> bool:
        return not self.ready or self.job is not None

    def give(self, job: int, jobs: Sequence[tuple], time_limit: float):
        self.job = job
        self.send(jobs[job])
        self.deadline = time.monotonic() + time_limit

    def send(self, message):
        with contextlib.suppress(OSError):  # one that is gone is found out when its answer is read
            self.connection.send(message)

    def receive(self):
        try:
            status, value = self.connection.recv()
        except (EOFError, OSError):
            return None
        return Outcome(status, value) if self.ready else (status if status == "ready" else value)

    def kill(self):
        with contextlib.suppress(OSError):
            self.process.kill()
        (self.process.wait if isinstance(self.process, subprocess.Popen) else self.process.join)()
        self.connection.close()


def serve(
    connection: Connection,
    parent: int,
    time_limit: float,
    memory_limit_mb: int | None,
    end_with: Connection | None = None,
):
    """The life of a worker: receives the function, then arguments, and sends (status, value) for each."""
    if end_with is not None:  # the parent's end, which a forked worker has inherited
        end_with.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then ends its workers
    for name in ("SIGTERM", "SIGALRM"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    logging.disable(logging.ERROR)  # libraries complain of every answer that they cannot read
    try:
        function = connection.recv()
        _limit_memory(memory_limit_mb)
        connection.send(("ready", None))
    except Exception as error:
        with contextlib.suppress(OSError):
            connection.send(("failed", repr(error)))
        return
    with contextlib.suppress(EOFError, OSError):
        while True:
            while not connection.poll(PARENT_CHECK):
                if os.getppid() != parent:
                    return
            arguments = connection.recv()
            # The alarm ends the worker even when the parent is gone, and in C code that never comes back to Python.
            _alarm(time_limit + GRACE)
            try:
                answer = ("done", function(*arguments))
            except MemoryError:
                answer = ("died", None)
            except Exception as error:
                answer = ("failed", repr(error)[:1000])
            _alarm(0)
            connection.send(answer)


def _alarm(seconds: float):
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _limit_memory(memory_limit_mb: int | None):
    if memory_limit_mb is None or not sys.platform.startswith("linux"):
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with open("/proc/self/statm") as file:
        in_use = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = in_use + memory_limit_mb * 2**20
    if hard == resource.RLIM_INFINITY or limit < hard:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
