"""Starts a script on several gloo processes, for tests of what only several processes can show."""

import os
import socket
import subprocess
import sys
from pathlib import Path


SCRIPTS = Path(__file__).parent / "scripts"


def environment() -> dict[str, str]:
    """The environment of a script: one thread, and the package of this tree."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}


def launch(script: str, *arguments: str, processes: int, timeout: float = 180, with_accelerate: bool = False) -> None:
    """
    Runs `tests/scripts/<script>` on the CPU under torchrun, or under `accelerate launch`.

    Each script checks the number of processes it runs on: some ways to launch start one and say nothing. A run that
    hangs is killed with all its processes, and the test fails with its output.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={processes}", f"--master_port={port}"]
    if with_accelerate:  # not `--cpu`, which starts one process
        command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", f"--num_processes={processes}"]
        command += [f"--main_process_port={port}", "--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    process = subprocess.Popen(
        [*command, str(SCRIPTS / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        raise AssertionError(f"{script} did not end within {timeout} s. Its output:\n{output[-4000:]}") from None
    assert process.returncode == 0, f"{script} failed with {process.returncode}. Its output:\n{output[-4000:]}"
