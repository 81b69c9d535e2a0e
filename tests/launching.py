"""Starts a script on several gloo processes, for tests of what only several processes can show."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil


SCRIPTS = Path(__file__).parent / "scripts"


def environment() -> dict[str, str]:
    """The environment of a script: one thread, and the package and the test modules of this tree."""
    tests = Path(__file__).parent
    folders = [tests.parent, tests, SCRIPTS / "start"]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, folders))}


def free_port() -> int:
    """A free port below those that the system gives to connections, one of which could take it meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


def launch(
    script: str,
    *arguments: str,
    processes: int,
    config: Path | None = None,
    env: dict[str, str] | None = None,
    fails: bool = False,
    timeout: float = 180,
) -> str:
    """
    Runs `tests/scripts/<script>` on the CPU, under torchrun or with `config` under `accelerate launch`. Returns what
    it printed.

    Each script checks the number of processes it runs on: some ways to launch start one and say nothing. A run that
    hangs is ended, and the test fails with the stacks of all its processes.

    Args:
        fails (`bool`): whether the run is meant to fail.
    """
    port = free_port()
    launcher = ["torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    if config is not None:
        launcher = ["accelerate.commands.launch", f"--config_file={config}", f"--num_processes={processes}"]
        launcher.append(f"--main_process_port={port}")
    process = subprocess.Popen(
        [sys.executable, "-m", *launcher, str(SCRIPTS / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment() | {"PYTHONFAULTHANDLER": "1"} | (env or {}),
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        output = end_with_stacks(process)
        raise AssertionError(f"{script} did not end within {timeout} s. Its output:\n{output[-20_000:]}") from None
    assert (process.returncode != 0) == fails, f"{script} ended with {process.returncode}:\n{output[-4000:]}"
    return output


def end_with_stacks(process: subprocess.Popen) -> str:
    """Ends a launcher and the processes it started, which print their stacks. Returns all output."""
    children = psutil.Process(process.pid).children(recursive=True)
    for child in children:
        if child.is_running():
            child.send_signal(signal.SIGABRT)  # at which PYTHONFAULTHANDLER prints the stacks
    psutil.wait_procs(children, timeout=10)
    for child in children:
        if child.is_running():
            child.kill()
    process.kill()
    return process.communicate()[0]
