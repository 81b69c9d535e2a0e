"""The worker's side of a `WorkerPool`: get ready, give up what is not needed, and answer until the parent is gone."""

import json
import logging
import os
import pickle
import select
import signal
import sys
import warnings
from collections.abc import Callable
from typing import Any, BinaryIO

from .sandbox import close_files, seal


PARENT_CHECK = 1.0  # seconds after which an idle worker looks again whether its parent is alive
GRACE = 1.0  # seconds after the wall limit until a worker ends itself, in case nobody is left to kill it
MAX_ANSWER_BYTES = 2**16  # of the value that a call returns, as JSON


def serve(
    fd: int, parent: int, time_limit: float, wall_limit: float, memory_limit_mb: int | None, arithmetic: bool = False
):
    """The life of a worker: it receives the functions, then arguments, and sends [status, value] for each of these."""
    try:
        close_files(fd)  # a forked worker has those of its parent, even the other end of its own socket
        _reset()
        with open(fd, "rb", closefd=False) as stream:
            function = _get_ready(fd, stream, memory_limit_mb, arithmetic)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            while True:
                while not poll.poll(PARENT_CHECK * 1000):
                    if os.getppid() != parent:
                        return
                arguments = pickle.load(stream)
                # Both timers end the worker by the default action of a signal, even in C code that never comes back
                # to Python. The first one is the limit; the second one is for a worker whose parent is gone.
                signal.setitimer(signal.ITIMER_PROF, time_limit)
                signal.setitimer(signal.ITIMER_REAL, wall_limit + GRACE)
                answer = _call(function, arguments)
                signal.setitimer(signal.ITIMER_PROF, 0)
                signal.setitimer(signal.ITIMER_REAL, 0)
                _send(fd, *answer)
    finally:
        os._exit(1)  # in any case: nothing is printed, and no exit handler of the parent runs here


def _get_ready(fd: int, stream: BinaryIO, memory_limit_mb: int | None, arithmetic: bool) -> Callable:
    try:
        function, warm_up = pickle.load(stream)
        if warm_up is not None:
            warm_up()
        seal(fd, memory_limit_mb, _ending(fd), arithmetic)
        _send(fd, "ready", None)
        return function
    except Exception as error:
        _send(fd, "failed", repr(error)[:1000])
        raise


def _reset():
    """Set signals to their defaults, whatever the parent has done to them, and silence libraries."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then kills its workers
    for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    # Both complain about every answer that cannot be read, and would open source files to do so
    logging.disable(logging.ERROR)
    warnings.simplefilter("ignore")
    sys.unraisablehook = lambda unraisable: None


def _ending(fd: int) -> Callable[[str], None]:
    """How a worker refuses something: it tells its parent and ends. A library could catch an exception and go on."""

    def refuse(what: str, send=_send, leave=os._exit):
        try:
            send(fd, "refused", what)
        finally:
            leave(1)

    return refuse


def _call(function: Callable, arguments: tuple) -> tuple[str, Any]:
    try:
        value = function(*arguments)
        size = len(json.dumps(value))
        if size > MAX_ANSWER_BYTES:
            return "failed", f"it returned {size} bytes of JSON, more than {MAX_ANSWER_BYTES}"
        return "done", value
    except MemoryError:
        return "out_of_memory", "it ran out of memory"
    except BaseException as error:
        return "failed", repr(error)[:1000]


def _send(fd: int, status: str, value: Any):
    message = memoryview(json.dumps([status, value]).encode() + b"\n")
    while message:
        message = message[os.write(fd, message) :]
