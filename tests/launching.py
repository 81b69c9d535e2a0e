"""Starts a script on several gloo processes, for tests of what only several processes can show."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
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
    machines: int = 1,
    config: Path | None = None,
    env: dict[str, str] | None = None,
    prefixes: Sequence[Sequence[str]] | None = None,
    address: str = "127.0.0.1",
    fails: bool = False,
    timeout: float = 180,
) -> str:
    """
    Runs `tests/scripts/<script>` on the CPU, under torchrun or with `config` under `accelerate launch`. Returns what
    it printed.

    Each script checks the number of processes it runs on: some ways to launch start one and say nothing. A run that
    hangs is ended, and the test fails with the stacks of all its processes.

    Args:
        processes (`int`): of all machines.
        machines (`int`): launchers that know nothing of each other, as on so many machines.
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
        launcher = ["torch.distributed.run", f"--nproc_per_node={processes // machines}", f"--master_port={port}"]
        if machines > 1:
            launcher += [f"--nnodes={machines}", f"--node_rank={machine}", f"--master_addr={address}"]
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
