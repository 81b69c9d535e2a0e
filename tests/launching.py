"""
Starts scripts in processes of their own, on one or on several gloo processes.

To import torch, transformers and TRL takes a process 5 s. So a script is run in a fork of a server that has imported
them, unless its test is about how it is started.
"""

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.forkserver
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import psutil


SCRIPTS = Path(__file__).parent / "scripts"
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["preloaded"])


def environment() -> dict[str, str]:
    """The environment of a script: one thread, and the package and the test modules of this tree."""
    tests = Path(__file__).parent
    folders = [tests.parent, tests, SCRIPTS / "start"]
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, folders))}


def free_port() -> int:
    """
    A free port below those that the system gives to connections, one of which could take it meanwhile. Each worker of
    pytest has a thousand of its own.
    """
    start = 20_000 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % 9 * 1000
    while True:
        port = random.SystemRandom().randrange(start, start + 1000)
        with socket.socket() as free, contextlib.suppress(OSError):
            free.bind(("127.0.0.1", port))
            return port


# --- forks ---


class Forked:
    """
    `python tests/scripts/<script> <arguments>` in a fork of a process that has imported what scripts import.

    Variables that are read on import, such as `HF_ENDPOINT`, are too late in `env`. Functions of `atexit` are not run.
    """

    def __init__(self, script: str | Path, *arguments: str, env: dict[str, str] | None = None):
        self._folder = tempfile.TemporaryDirectory()
        command = (str(SCRIPTS / script), *arguments)
        _start_server()
        whole_env = environment() | (env or {})
        self._process = FORKS.Process(target=_as_main, args=(command, whole_env, self._folder.name))
        self._process.start()

    def wait(self, timeout: float) -> SimpleNamespace:
        """Waits for the end. Returns `returncode`, `stdout` and `stderr`. One that hangs is ended: the test fails."""
        self._process.join(timeout)
        hangs = self._process.is_alive()
        if hangs:
            os.kill(self._process.pid, signal.SIGABRT)  # at which it prints its stacks
            self._process.join(10)
            self._process.kill()
            self._process.join()
        files = (Path(self._folder.name, name) for name in ("stdout", "stderr"))
        stdout, stderr = (file.read_text(encoding="utf-8", errors="replace") for file in files)
        self._folder.cleanup()
        assert not hangs, f"It did not end within {timeout} s. Its output:\n{stdout[-10_000:]}\n{stderr[-10_000:]}"
        return SimpleNamespace(returncode=self._process.exitcode, stdout=stdout, stderr=stderr)


def _start_server() -> None:
    """Starts the server if there is none yet. It finds what it imports on PYTHONPATH alone."""
    usual = dict(os.environ)
    os.environ.update(environment())
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(usual)


def _as_main(command: tuple[str, ...], env: dict[str, str], folder: str) -> None:
    for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
        os.dup2(os.open(f"{folder}/{name}", os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream.fileno())
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(command)
    runpy.run_path(command[0], run_name="__main__")


def ranks(processes: int, machines: int) -> list[dict[str, str]]:
    """The variables by which processes find each other, as torchrun sets them on each of `machines`."""
    on_machine = processes // machines
    shared = {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(on_machine)}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank % on_machine)} for rank in range(processes)]


def run_script(script: str | Path, *arguments: str, timeout: float = 900) -> SimpleNamespace:
    """Runs a script on one process. Returns `returncode`, `stdout` and `stderr`."""
    return Forked(script, *arguments).wait(timeout)


def on_processes(
    script: str, *arguments: str, processes: int, machines: int = 1, timeout: float = 900
) -> list[SimpleNamespace]:
    """Runs a script on several processes, without a launcher that would end all when one fails."""
    started = [Forked(script, *arguments, env=env) for env in ranks(processes, machines)]
    deadline = time.monotonic() + timeout
    return [process.wait(max(1, deadline - time.monotonic())) for process in started]


def launch(script: str, *arguments: str, processes: int, timeout: float = 900) -> str:
    """Runs a script that must succeed on several processes. Returns what they printed."""
    ended = on_processes(script, *arguments, processes=processes, timeout=timeout)
    outputs = "\n".join(process.stdout + process.stderr for process in ended)
    assert not any(process.returncode for process in ended), f"{script} failed:\n{outputs[-8000:]}"
    return outputs


# --- launchers ---


def launch_with(
    script: str,
    *arguments: str,
    processes: int,
    machines: int = 1,
    config: Path | None = None,
    env: dict[str, str] | None = None,
    prefixes: Sequence[Sequence[str]] | None = None,
    address: str = "127.0.0.1",
    fails: bool = False,
    timeout: float = 900,
) -> str:
    """
    Runs `tests/scripts/<script>` on the CPU, under torchrun or with `config` under `accelerate launch`. Returns what
    it printed.

    Each script checks the number of processes it runs on: some ways to launch start one and say nothing. A run that
    hangs is ended, and the test fails with the stacks of all its processes.

    Args:
        processes (`int`): of all machines.
        machines (`int`): launchers that know nothing of each other, as on so many machines. Needs `config`.
        prefixes (`Sequence[Sequence[str]]`, *optional*): what stands before the command on each machine.
        address (`str`): of the first machine.
        fails (`bool`): whether the run is meant to fail, on the machines that are left at least.
    """
    port = free_port()
    launchers = [
        subprocess.Popen(
            [
                *(prefixes[machine] if prefixes else ()),
                *launch_command(processes, machines, machine, config, address, port),
                *(str(SCRIPTS / script), *arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment() | {"PYTHONFAULTHANDLER": "1"} | (env or {}),
            start_new_session=True,
        )
        for machine in range(machines)
    ]
    with ThreadPoolExecutor() as threads:  # one each, or a full pipe would stop its process
        waiting = [threads.submit(launcher.communicate, timeout=timeout) for launcher in launchers]
    late = [done for done in waiting if isinstance(done.exception(), subprocess.TimeoutExpired)]
    if late:
        output = "".join(map(end_with_stacks, launchers))
        raise AssertionError(f"{script} did not end within {timeout} s. Its output:\n{output[-20_000:]}")
    output = "".join(done.result()[0] for done in waiting)
    ends = [launcher.returncode for launcher in launchers]
    assert all((end != 0) == fails for end in ends), f"{script} ended with {ends}:\n{output[-4000:]}"
    return output


def launch_command(
    processes: int, machines: int, machine: int, config: Path | None, address: str, port: int
) -> list[str]:
    """What is typed on one machine: torchrun, or `accelerate launch` with `config`."""
    if config is None:
        launcher = ["torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    else:
        launcher = ["accelerate.commands.launch", f"--config_file={config}", f"--num_processes={processes}"]
        launcher.append(f"--main_process_port={port}")
        if machines > 1:
            launcher += [f"--num_machines={machines}", f"--machine_rank={machine}", f"--main_process_ip={address}"]
    return [sys.executable, "-m", *launcher]


def end_with_stacks(process: subprocess.Popen) -> str:
    """Ends a launcher and the processes it started, which print their stacks. Returns all output."""
    children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for child in children:
        if child.is_running():
            child.send_signal(signal.SIGABRT)  # at which PYTHONFAULTHANDLER prints the stacks
    psutil.wait_procs(children, timeout=10)
    for child in children:
        if child.is_running():
            child.kill()
    process.kill()
    return process.communicate()[0]
