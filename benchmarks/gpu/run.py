"""Everything that this project wants to know from a GPU, in one command of at most nine minutes.

    python3 benchmarks/gpu/run.py --output results.json                    # all parts
    python3 benchmarks/gpu/run.py --parts 4 --budget 500 --output mazes.json
    python3 benchmarks/gpu/run.py --parts tests,attention --budget 80 --output some.json
    python benchmarks/gpu/run.py --size toy --output toy.json              # the rehearsal, on a CPU

Needs the wheels of `pack.py` on a bare machine, and no installation of this package: the tree is enough.

Parts: 1 the tests that need a GPU, and the gradient against its definition; 2 `optimizer_phase.py` with a model of
half a billion parameters; 3 the estimators; 4 training on 9x9 mazes from end to end; 5 generation; 6 which
attention kernels return NaN gradients, and what new shapes cost.

Every step of a part runs in a process of its own. One that fails, crashes, runs out of memory or hangs costs its own
budget and is recorded with its error; what a step does not need goes to those after it. The results are written again
whenever a step has something new. `report.py` makes a page of them.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path


sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:2], os.environ.get("PYTHONPATH", "")])  # of pytest
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # to look for a GPU without touching it before a fork

from gpu import attention, estimators, generation, gradients, mazes, optimizer, report, tests


ROOT = Path(__file__).resolve().parents[2]
STOP = 5.0  # seconds before the end of its budget at which a step should be done by itself


@dataclass(frozen=True)
class Step:
    """One process. `weight` is its share of the budget: seconds, if all steps run with the default budget."""

    part: int
    name: str
    weight: float
    run: Callable  # (size, device, seconds, save)


def without_seconds(run: Callable, *arguments) -> Callable:
    """The `run` of a step that takes what it takes."""
    return partial(_drop_seconds, run, arguments)


def _drop_seconds(run: Callable, arguments: tuple, size: str, device: str, seconds: float, save: Callable) -> None:
    run(size, *arguments, device, save)


STEPS = (
    Step(1, "tests", 45, tests.run),
    Step(6, "attention", 50, without_seconds(attention.run)),
    Step(1, "gradients_float32", 12, without_seconds(gradients.run, "float32")),
    Step(1, "gradients_bfloat16", 18, without_seconds(gradients.run, "bfloat16")),
    Step(2, "optimizer", 80, without_seconds(optimizer.run, False)),
    Step(2, "optimizer_checkpointing", 55, without_seconds(optimizer.run, True)),
    Step(3, "estimators", 8, without_seconds(estimators.run)),
    Step(4, "mazes", 170, mazes.run),
    Step(5, "generation", 55, without_seconds(generation.run)),
    Step(5, "continuous_batching", 30, without_seconds(generation.run_continuous)),
)


# --- in the process of a step ---


def work(call: Callable, partial_results: Path, log: Path) -> None:
    """Runs a step in a session of its own, with its output in the log and its results in a file."""
    os.setsid()
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    saved: dict = {}

    def save(name: str, value) -> None:
        saved[name] = value
        write(partial_results, saved)

    try:
        call(save)
    except BaseException as error:
        traceback.print_exc()
        save("error", f"{type(error).__name__}: {error}"[:2000])
        raise SystemExit(1) from None


def look_at_card(save: Callable) -> None:
    """The card's name and memory; fails where a forked process cannot use it."""
    import torch

    if not torch.cuda.is_available():
        return save("card", None)
    properties = torch.cuda.get_device_properties(0)
    torch.ones(8, device="cuda").sum().item()
    save("card", {"name": properties.name, "memory_gib": round(properties.total_memory / 2**30, 1)})


# --- in the process that starts them ---


def write(path: Path, value: dict) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def supervise(context, call: Callable, seconds: float, log: Path, show: Callable[[dict], None]) -> dict:
    """Runs a call in a process for at most so many seconds. Returns its status, its seconds and what it has saved."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        path, seen = Path(folder) / "partial.json", {}
        process = context.Process(target=work, args=(call, path, log))
        process.start()
        try:
            while process.is_alive() and time.monotonic() - began < seconds:
                process.join(0.2)
                if (found := read(path)) != seen:
                    seen = found
                    show(seen)
            status = "out of time" if process.is_alive() else "done" if process.exitcode == 0 else "failed"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
            process.kill()
            process.join()
        results = read(path)
    row = {"status": status, "seconds": round(time.monotonic() - began, 1), "budget": round(seconds, 1)}
    if status == "failed" and "error" not in results:
        row["error"] = f"ended with exit code {process.exitcode}: {log_tail(log)}"
    if "error" in results:
        row["error"] = results.pop("error")
    return row | {"results": results}


def log_tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " | ".join(lines[-5:])[-1000:]


def find_card(log: Path) -> tuple:
    """The way to start processes that can use the card, and the card, if there is one."""
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        found = supervise(context, look_at_card, 120, log, lambda results: None)
        if found["status"] == "done":
            return context, found["results"]["card"]
    raise RuntimeError(f"The card could not be used: {found['error']}")


def about(argv: list[str]) -> dict:
    from importlib.metadata import PackageNotFoundError, version

    versions = {"python": platform.python_version()}
    for name in ("torch", "triton", "transformers", "trl", "accelerate", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {
        "command": " ".join(["python3 benchmarks/gpu/run.py", *argv]),
        "date": datetime.now(UTC).date().isoformat(),
        "commit": git.stdout.strip() or None,
        "versions": versions,
        "cores": os.cpu_count(),
    }


def run_steps(steps: list[Step], options: argparse.Namespace, results: dict, log: Path, began: float) -> None:
    context, card = find_card(log)
    results["card"] = card
    if card is None and options.size == "card":
        raise SystemExit("No GPU was found. `--size toy` rehearses on a CPU.")
    device = "cpu" if card is None else "cuda"
    for index, step in enumerate(steps):
        left = options.budget - (time.monotonic() - began)
        budget = left * step.weight / sum(other.weight for other in steps[index:])
        print(f"part {step.part}, {step.name}: at most {budget:.0f} s", flush=True)

        def show(found: dict, name: str = step.name, part: int = step.part) -> None:
            results["steps"][name] = {"part": part, "status": "running", "results": found}
            write(options.output, results)

        call = partial(step.run, options.size, device, max(budget - STOP, 1.0))
        row = supervise(context, call, budget, log, show)
        results["steps"][step.name] = {"part": step.part, **row}
        results["seconds"] = round(time.monotonic() - began, 1)
        write(options.output, results)
        print(f"  {row['status']} after {row['seconds']:.0f} s  {row.get('error', '')[:300]}", flush=True)


def main() -> int:
    began = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the step that runs ends as well
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="1,2,3,4,5,6", help="numbers, or names of steps, with commas [all]")
    parser.add_argument(
        "--budget", type=float, default=525, help="seconds in all, from the start of this process [525]"
    )
    parser.add_argument("--size", choices=("card", "toy"), default="card")
    parser.add_argument("--output", type=Path, required=True, help="JSON file; the log is beside it")
    options = parser.parse_args()
    parts = set(options.parts.split(","))
    steps = [step for step in STEPS if parts & {str(step.part), step.name}]
    known = {name for step in STEPS for name in (str(step.part), step.name)}
    if unknown := parts - known:
        parser.error(f"--parts must be some of {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}")
    options.output.parent.mkdir(parents=True, exist_ok=True)
    log = options.output.with_suffix(".log")
    log.unlink(missing_ok=True)
    results = about(sys.argv[1:]) | {"size": options.size, "budget": options.budget, "card": None, "steps": {}}
    run_steps(steps, options, results, log, began)
    print(report.tables(results))
    return 0 if all(row["status"] == "done" for row in results["steps"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
