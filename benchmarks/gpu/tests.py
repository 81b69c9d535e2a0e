"""The tests that need a GPU, and two updates of many methods of the maze table, by pytest."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree


ROOT = Path(__file__).resolve().parents[2]
# One of each kind: an estimator, an allocator, two updates a batch, entropies, noise, schedules, breadth
METHODS = (
    *(
        "dapo",
        "grpo",
        "dr_grpo",
        "pass_at_8_bootstrap",
        "pass_at_8_full",
        "dars_hw",
        "dars_et_annealed",
        "a_grae_dapo",
    ),
    *("reinforce_ada", "combination_dars_breadth", "adaptive", "w_reinforce", "gspo_n", "noise_30", "entropy_0.003"),
    *("grpo_lead", "nsr_then_dapo", "hard_focused"),
)
EVERY_METHOD = "tests/benchmarks/test_maze_table.py::test_every_method_trains_two_updates"


def run(size: str, device: str, seconds: float, save: Callable) -> None:
    """Single pieces and whole methods at once, each in several processes; on a CPU the pieces are skipped."""
    end, processes = time.monotonic() + seconds, ["-n", "4", "--dist", "load"]
    pieces = ["tests/test_estimators.py", "tests/test_cuda.py", "-k", "cuda"]
    groups = {"pieces": [*(processes if size == "card" else ["-n", "0"]), *pieces]}
    if size == "card":  # on a CPU, `make test-benchmarks` runs them
        groups["methods"] = [*processes, *(f"{EVERY_METHOD}[{name}]" for name in METHODS)]
    with ThreadPoolExecutor(len(groups)) as pool:
        running = {name: pool.submit(by_pytest, arguments, end) for name, arguments in groups.items()}
        for name, future in running.items():
            save(name, future.result())


def by_pytest(arguments: list[str], end: float) -> dict:
    """Counts, and the failures with their messages."""
    with tempfile.TemporaryDirectory() as folder:
        xml = Path(folder) / "results.xml"
        options = ["-q", "-p", "no:cacheprovider", "--junitxml", str(xml)]
        command = [sys.executable, "-m", "pytest", *options, *arguments]
        began = time.monotonic()
        try:
            exit_code = subprocess.run(command, cwd=ROOT, timeout=max(end - began, 1)).returncode
        except subprocess.TimeoutExpired:
            exit_code = None
        cases = list(ElementTree.parse(xml).iter("testcase")) if xml.exists() else []
    failures = {}
    for case in cases:
        for kind in ("failure", "error"):
            if (found := case.find(kind)) is not None:
                failures[case.get("name")] = (found.get("message") or "")[:500]
    skipped = sum(case.find("skipped") is not None for case in cases)
    return {
        "passed": len(cases) - skipped - len(failures),
        "skipped": skipped,
        "failed": failures,
        "exit_code": exit_code,  # None: out of time
        "seconds": round(time.monotonic() - began, 1),
    }
