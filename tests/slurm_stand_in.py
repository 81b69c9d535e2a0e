"""
`srun`, `scontrol` and `vllm` for the scripts of examples/slurm, where there is no cluster: each node is this machine.

`install` writes an environment that the scripts activate. `srun` takes the options that they use, and refuses others.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from launching import environment


HERE = Path(__file__).parent
NODES = "127.0.0.[1-3]"  # all of them are this machine


def free_job() -> int:
    """A number of which the scripts make ports that are free."""
    while True:
        job = random.SystemRandom().randrange(1000)
        with contextlib.suppress(OSError), socket.socket() as server, socket.socket() as first:
            server.bind(("", 8000 + job))
            first.bind(("", 29500 + job))
            return job


def install(folder: Path, *, nodes: str = NODES, programs: tuple[str, ...] = ("srun", "scontrol", "vllm")) -> dict:
    """The environment of a job in `folder`, where the programs are."""
    (folder / "bin").mkdir()
    for name in programs:
        program = folder / "bin" / name
        program.write_text(f'#!/bin/bash\nexec "{sys.executable}" "{HERE / "slurm_stand_in.py"}" {name} "$@"\n')
        program.chmod(0o755)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}"
    (folder / "bin/activate").write_text(f'PATH="{path}:$PATH"\n')
    job = {"SLURM_JOB_ID": str(free_job()), "SLURM_JOB_NODELIST": nodes, "SLURM_CPUS_PER_TASK": "2"}
    return environment() | {"VENV": str(folder)} | job


def scontrol(arguments: list[str]) -> None:
    show, hostnames, nodes = arguments
    assert (show, hostnames) == ("show", "hostnames")
    if "[" not in nodes:
        print(nodes.replace(",", "\n"))
        return
    name, numbers = nodes.rstrip("]").split("[")
    first, last = map(int, numbers.split("-"))
    for number in range(first, last + 1):
        print(f"{name}{number}")


def srun(arguments: list[str]) -> int:
    """Starts the tasks of a step. When one fails, or this process is ended, all are."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("nodes", "ntasks"):
        parser.add_argument(f"--{name}", type=int, required=True)
    for name in ("nodelist", "output"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--kill-on-bad-exit", type=int, default=0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args(arguments)
    nodes = args.nodelist.split(",")
    assert len(nodes) == args.nodes == args.ntasks
    assert os.environ["SRUN_CPUS_PER_TASK"] == os.environ["SLURM_CPUS_PER_TASK"]
    passed_on = {} if os.environ.get("SLURM_EXPORT_ENV") == "NONE" else os.environ
    tasks = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for number, node in enumerate(nodes):
            own = {"SLURM_PROCID": str(number), "SLURMD_NODENAME": node, "SLURM_STEP_NUM_TASKS": str(args.ntasks)}
            with open(args.output.replace("%t", str(number)), "w", encoding="utf-8") as log:
                tasks.append(
                    subprocess.Popen(args.command, env=passed_on | own, stdout=log, stderr=log, start_new_session=True)
                )
        while any(task.poll() is None for task in tasks):
            time.sleep(0.1)
            if args.kill_on_bad_exit and any(task.poll() for task in tasks):
                break
        return max((abs(task.poll() or 0) for task in tasks), default=0)
    finally:
        for task in tasks:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(task.pid, signal.SIGTERM)  # SLURM signals all processes of a step


def vllm(arguments: list[str]) -> None:
    """Says in `vllm.json` how it was started, and answers that it is well."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()

    names = ("VLLM_SERVER_DEV_MODE", "CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME")
    started = {"pid": os.getpid(), "arguments": arguments} | {name: os.environ.get(name) for name in names}
    port = int(arguments[arguments.index("--port") + 1])
    with HTTPServer((arguments[arguments.index("--host") + 1], port), Answer) as server:
        Path("vllm.tmp").write_text(json.dumps(started), encoding="utf-8")
        os.replace("vllm.tmp", "vllm.json")
        server.serve_forever()


if __name__ == "__main__":
    sys.exit({"srun": srun, "scontrol": scontrol, "vllm": vllm}[sys.argv[1]](sys.argv[2:]))
