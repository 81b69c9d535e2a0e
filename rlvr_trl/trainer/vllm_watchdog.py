"""A vLLM server that cannot be reached or stops answering is an error that names it, not a run that hangs.

TRL's requests to the server have no timeout, because nobody knows how long a generation takes. vLLM answers `/health`
at any time, even while it generates. So that is requested before a model is loaded, and every `POLL` seconds while TRL
talks to the server.
"""

import contextlib
import signal
import threading
import time

from accelerate import PartialState

from ..distributed import OWN_END, exit_for_all


POLL = 5.0  # seconds between two requests
ANSWER = 30.0  # seconds within which a busy server must answer

AGAIN = "Start it again and resume from the last checkpoint: `resume_from_checkpoint=True`."


def wait_for_server(args) -> None:
    """
    Waits until the vLLM server answers, on the process that talks to it. Does nothing without a server.

    Raises:
        `ConnectionError`: It did not within `vllm_server_timeout` seconds.
    """
    if not _talks_to_server(args):
        return
    url = args.vllm_server_base_url or f"http://{args.vllm_server_host}:{args.vllm_server_port}"
    deadline = time.monotonic() + args.vllm_server_timeout
    while (problem := _problem(url, deadline)) is not None:
        if time.monotonic() >= deadline:
            raise ConnectionError(
                f"The vLLM server at {url} did not answer within `vllm_server_timeout`={args.vllm_server_timeout:g} "
                f"seconds: {problem}. Start it, or correct `vllm_server_base_url`, or `vllm_server_host` and "
                f"`vllm_server_port`. If it needs longer to load its model, set a larger `vllm_server_timeout`."
            )
        time.sleep(1)


@contextlib.contextmanager
def server_must_answer(trainer):
    """[`watch_server`] for the server of a GRPOTrainer, on the process that talks to it, if there is one."""
    if not _talks_to_server(trainer.args):
        yield
        return
    url, timeout = trainer.vllm_generation.vllm_client.base_url, trainer.args.vllm_server_timeout
    with watch_server(url, timeout, trainer.accelerator):
        yield


@contextlib.contextmanager
def watch_server(url: str, timeout: float, accelerator):
    """
    Interrupts the process that talks to a vLLM server when the server stops answering.

    A thread interrupts the main one, which raises the error. If the main thread has not done so `OWN_END` seconds
    later, because it is stuck in a call that cannot be interrupted, such as a transfer of weights by NCCL, or because
    the machine is that busy, all processes print the error and exit with code 1.

    Args:
        url (`str`): of the server.
        timeout (`float`): `vllm_server_timeout`, seconds.
        accelerator (`Accelerator`): the processes that end with this one.

    Raises:
        `ConnectionError`: The server has not answered for `timeout` seconds, or the code in this context failed and
        the server does not answer.
    """
    watchdog = _Watchdog(url, timeout, accelerator)
    watchdog.start()
    try:
        try:
            yield
        finally:
            watchdog.end()  # a pending interrupt is raised here at the latest
    except KeyboardInterrupt:
        if watchdog.error is None:
            raise  # the user's
        raise watchdog.error from None
    except Exception as error:
        problem = _problem(watchdog.url, time.monotonic() + POLL)
        if problem is None:
            raise
        raise ConnectionError(
            f"The vLLM server at {watchdog.url} stopped answering: {error} (now: {problem}). {AGAIN}"
        ) from error


class _Watchdog(threading.Thread):
    """Asks the server whether it is alive, until it is told to end."""

    def __init__(self, url: str, timeout: float, accelerator):
        super().__init__(daemon=True)
        self.url, self.timeout, self.accelerator = url, timeout, accelerator
        self.error: ConnectionError | None = None
        # Python gives signals to the main thread alone
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._ended, self._lock = threading.Event(), threading.Lock()

    def end(self) -> None:
        try:
            with self._lock:  # in which the interrupt of `_give_up` may be raised
                self._ended.set()
        finally:
            self._ended.set()

    def run(self) -> None:
        answered = time.monotonic()
        while not self._ended.wait(POLL):
            problem, now = _problem(self.url, answered + self.timeout), time.monotonic()
            if problem is None:
                answered = now
            elif now >= answered + self.timeout:
                return self._give_up(now - answered, problem)

    def _give_up(self, seconds: float, problem: str) -> None:
        with self._lock:
            if self._ended.is_set():
                return
            self.error = ConnectionError(
                f"The vLLM server at {self.url} has not answered for {seconds:.0f} seconds, "
                f"`vllm_server_timeout`={self.timeout:g}: {problem}. {AGAIN}"
            )
            if self._interrupts:
                main = threading.main_thread().ident
                assert main is not None
                signal.pthread_kill(main, signal.SIGINT)
        if not self._interrupts or not self._ended.wait(OWN_END):
            exit_for_all(self.error, self.accelerator)


def _talks_to_server(args) -> bool:
    return args.use_vllm and args.vllm_mode == "server" and PartialState().is_main_process


def _problem(url: str, deadline: float) -> str | None:
    """Asks once, for at least a second. Returns why the server does not answer, or None if it does."""
    seconds, found = min(max(deadline - time.monotonic(), 1.0), ANSWER), []
    # The time-out of requests is one for each piece that comes. One that never ends is left to its thread
    asking = threading.Thread(target=lambda: found.append(_ask_health(url, seconds)), daemon=True)
    asking.start()
    asking.join(seconds + 1)
    return found[0] if found else f"/health had no end after {seconds + 1:.0f} seconds"


def _ask_health(url: str, seconds: float) -> str | None:
    import requests  # as TRL does: with the same proxies and certificates

    try:
        with requests.get(
            f"{url.rstrip('/')}/health", timeout=seconds, stream=True
        ) as response:  # the status is enough
            return None if response.status_code == 200 else f"/health has status {response.status_code}"
    except Exception as error:  # of requests, or of what it is made of: each is why there is no answer
        return f"{type(error).__name__}: {error}"
