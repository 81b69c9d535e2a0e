"""Runs a script on one or several processes. One that hangs tells where every rank stands, and is killed."""

import contextlib
import faulthandler
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
from cpu_engine import SETTINGS
from launching import free_port


HERE = Path(__file__).parent
TESTS = HERE.parent


def answer_with_stacks(folder: str) -> None:
    """To be called by every rank: on SIGUSR1 it prints the stacks of all its threads."""
    faulthandler.register(signal.SIGUSR1, file=sys.stderr, all_threads=True)
    rank = os.environ.get("RANK", "0")
    Path(folder, f"rank-{rank}.pid").write_text(str(os.getpid()))


def environment() -> dict[str, str]:
    return os.environ | SETTINGS | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}


def start(command: list[str], log: Path) -> subprocess.Popen:
    """A command that adds all its output to `log`."""
    with log.open("a") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment())


def kill(process: subprocess.Popen) -> None:
    """Ends a command and all that it started. One by one, as torchrun gives each rank a session of its own."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        family = [*parent.children(recursive=True), parent]
        process.terminate()  # lets a server give its shared memory back
    _, alive = psutil.wait_procs(family, timeout=10)
    for member in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(alive, timeout=10)
    process.wait()


def run(script: str, folder: Path, *arguments: str, processes: int, timeout: float) -> str:
    """
    Runs `tests/with_vllm/<script> <folder> <arguments>` on `processes` processes. Returns its output.

    Raises:
        `AssertionError`: It failed, or ran longer than `timeout` seconds: then with the stack of every rank.
    """
    command = [sys.executable, str(HERE / script), str(folder), *arguments]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={free_port()}"]
        command[1:1] = torchrun
    log = folder / f"{Path(script).stem}.log"
    process = start(command, log)
    try:
        process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        for pid in sorted(folder.glob("rank-*.pid")):
            with log.open("a") as output:
                output.write(f"\n--- {pid.stem} ---\n")
            os.kill(int(pid.read_text()), signal.SIGUSR1)
            time.sleep(1)  # for its stacks to be written before the next one's
        text = log.read_text()
        raise AssertionError(
            f"{script} did not end within {timeout} s. Where its ranks stand:\n{text[-8000:]}"
        ) from None
    finally:
        kill(process)
    text = log.read_text()
    assert process.returncode == 0, f"{script} failed with {process.returncode}. Its output:\n{text[-6000:]}"
    return text
