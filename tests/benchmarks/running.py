"""Runs a script of benchmarks/ as its page does: in a process of its own, on one thread, with this tree's package."""

import os
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]


def run_benchmark(script: str, *arguments: str, timeout: float) -> str:
    """What it printed. One that fails, or takes longer than `timeout` seconds, fails its test."""
    done = subprocess.run(
        [sys.executable, f"benchmarks/{script}", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
