"""The maze table: every method from several base models with several seeds, as one JSON file a run.

python benchmarks/maze_table.py --jobs 2                 # everything; stop and restart it as you like
python benchmarks/maze_table.py --only dapo pass_at_8    # two methods
python benchmarks/maze_table.py --smoke                  # the whole chain at a tiny size, report included
python benchmarks/maze_table.py --check 3                # reruns three finished cells: do they agree with their files?
python benchmarks/maze_table.py --sizes 9x9 --jobs 1     # on a large GPU

A cell is a process of one thread. Finished cells are skipped, and so are failed ones unless --retry is given; a cell
that was killed begins again. All methods run with the first base model and seed before the next. `maze_report.py`
makes the table from the cells that there are.
"""

import argparse
import ctypes
import fcntl
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
from maze_methods import SMOKE, TABLE
from maze_plan import BASE, BASES_OF, METHODS_OF, RESULTS, SCALES, SEEDS_OF, Cell, needed, plan, read, write
from maze_report import make_report

from rlvr_trl.evaluation import bootstrap_interval, pass_at_k
from rlvr_trl.testbed import cell_runner


HERE = Path(__file__).resolve().parent
ENVIRONMENT = cell_runner.ENVIRONMENT | {"HF_HUB_OFFLINE": "1"}


class Runner:
    """
    Runs cells in processes of their own, which end when it ends.

    Args:
        cells (`list[Cell]`): the cells in order. One that needs others (the search; for equal rollouts the full run)
            waits for those of them that are in the list.
        results, work (`Path`): the folders of results and of base models.
        jobs (`int`): number of processes side by side.
        minutes (`float`, *optional*): no cell is started after this time.
        retry (`bool`): whether failed cells are run again.
    """

    def __init__(self, cells: list[Cell], results: Path, work: Path, jobs: int, minutes: float | None, retry: bool):
        self.results, self.work, self.jobs = results, work, jobs
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes
        saved = {cell: read(cell.path(results)) for cell in cells}
        check_scales(saved)
        finished = [cell for cell, value in saved.items() if value and not (retry and "error" in value)]
        self.seconds = [saved[cell]["seconds"] for cell in finished if "seconds" in saved[cell]]
        self.total, self.num_done = len(cells), len(finished)
        self.waiting = [cell for cell in cells if cell not in set(finished)]
        self.running: dict[subprocess.Popen, Cell] = {}
        self.stopped = False

    def stop(self, *_) -> None:
        """Handles a signal. It only sets a flag, as an exception could come while a process is being started."""
        self.stopped = True

    def run(self) -> Counter:
        """Runs the cells. Returns how many finished and how many failed."""
        outcome = Counter()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        print(f"{self.total} cells, {self.num_done} of them finished before. {self._time_left()}", flush=True)
        try:
            while not self.stopped and (self.running or (self.waiting and not self._is_late())):
                self._start()
                time.sleep(0.2)
                for process in [process for process in self.running if process.poll() is not None]:
                    outcome[self._finish(process)] += 1
        finally:
            self._end_all()
        return outcome

    def _is_late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def _start(self) -> None:
        open_cells = {*self.waiting, *self.running.values()}
        for cell in list(self.waiting):
            if len(self.running) >= self.jobs or self.stopped or self._is_late():
                return
            if not open_cells & needed(cell):
                self.waiting.remove(cell)
                self.running[self._process(cell)] = cell

    def _process(self, cell: Cell) -> subprocess.Popen:
        log = self.work / "logs" / ("_".join(str(cell).split()) + ".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, str(HERE / "maze_cell.py"), cell.scale, cell.method, "--variant", cell.variant]
        command += ["--base", str(cell.base), "--seed", str(cell.seed)]
        command += ["--results", str(self.results), "--work", str(self.work)]
        path = os.pathsep.join([str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(log, "w", encoding="utf-8") as output:
            return subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
                preexec_fn=END_WITH_PARENT,
                start_new_session=True,  # ^C in a terminal reaches the runner alone
            )

    def _finish(self, process: subprocess.Popen) -> str:
        cell = self.running.pop(process)
        saved = read(cell.path(self.results))
        if saved is None or (process.returncode and "error" not in saved):
            saved = {"cell": asdict(cell), "scale": asdict(SCALES[cell.scale])}
            saved["error"] = f"The process ended with code {process.returncode}."
            write(cell.path(self.results), saved)
        self.num_done += 1
        if "seconds" in saved:
            self.seconds.append(saved["seconds"])
        print(f"[{self.num_done}/{self.total}] {cell}: {describe(saved)}. {self._time_left()}", flush=True)
        return "failed" if "error" in saved else "finished"

    def _time_left(self) -> str:
        left = self.total - self.num_done
        if not self.seconds or not left:
            return ""
        minutes = left * (np.mean(self.seconds) + 6) / self.jobs / 60  # 6 s to start a process
        return f"About {minutes / 60:.1f} h left." if minutes > 90 else f"About {minutes:.0f} min left."

    def _end_all(self) -> None:
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _end_with_parent():
    """Makes Linux end a cell when its runner is killed by a signal that it cannot handle. None on other systems."""
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)  # loaded here, because little is allowed between fork and exec
    return lambda: library.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


END_WITH_PARENT = _end_with_parent()


def check_scales(saved: dict[Cell, dict | None]) -> None:
    for cell, value in saved.items():
        now = SCALES[cell.scale]
        if value and value["scale"] != asdict(now):
            name = next(n for n, setting in asdict(now).items() if value["scale"].get(n) != setting)
            raise ValueError(
                f"{cell} was run with {name}={value['scale'].get(name)!r}, but now it is {asdict(now)[name]!r}. Use "
                f"another --results, or remove what is there."
            )


def describe(saved: dict) -> str:
    if "error" in saved:
        return f"FAILED, {saved['error'][:200]}"
    if "score" in saved:
        return f"score {saved['score']:.3f}, {saved['seconds']:.0f} s"
    counts, n = np.array(saved["test"]["num_correct"]), saved["test"]["num_samples"]
    shown = " ".join(f"@{k} {pass_at_k(n, counts, k).mean():.3f}" for k in (1, 8, 32) if k <= n)
    return f"{shown}, entropy {saved['test']['token_entropy']:.2f}, {saved['seconds']:.0f} s"


def check(cells: list[Cell], results: Path, work: Path, count: int, jobs: int) -> bool:
    """Runs some finished cells again. Returns whether all are within the intervals of their files."""
    saved = {cell: read(cell.path(results)) for cell in cells}
    finished = [cell for cell, value in saved.items() if value and "test" in value and cell.method != BASE]
    chosen = random.SystemRandom().sample(finished, min(count, len(finished)))
    agreed = len(chosen) > 0
    with tempfile.TemporaryDirectory() as folder:
        for other in {other for cell in chosen for other in needed(cell)}:
            if (value := read(other.path(results))) is not None:
                write(other.path(Path(folder)), value)
        again = [cell for cell in chosen if not cell.path(Path(folder)).exists()]
        Runner(again, Path(folder), work, jobs, None, False).run()
        for cell in again:
            old, new = (read(cell.path(root)) for root in (results, Path(folder)))
            agreed &= "error" not in new and compare_cells(cell, old["test"], new["test"])
    return agreed


def compare_cells(cell: Cell, old: dict, new: dict) -> bool:
    """Whether pass@k of the second run is within the interval over mazes of the first."""
    agreed = True
    for k in (k for k in (1, 8, 32) if k <= old["num_samples"]):
        first, again = (pass_at_k(run["num_samples"], np.array(run["num_correct"]), k) for run in (old, new))
        low, high = bootstrap_interval(first)
        agreed &= low <= again.mean() <= high
        print(f"{cell}: pass@{k} is {again.mean():.3f}, was {first.mean():.3f} [{low:.3f}, {high:.3f}]")
    return agreed


@contextmanager
def alone(work: Path) -> Iterator[None]:
    """
    Holds the lock of a folder, so that only one runner works in it.

    Raises:
        `ValueError`: Another runner is at work with the same folder.
    """
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"Another runner is at work with '{work}'. Wait for it, or use another --work.") from None
        yield


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=TABLE, metavar="METHOD", help=", ".join(TABLE))
    parser.add_argument("--sizes", nargs="+", choices=["4x4", "5x5", "9x9"], default=["4x4", "5x5"])
    parser.add_argument("--bases", nargs="+", type=int, help="base models; 3 by default, 1 for 9x9")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds; 2 by default for 4x4, otherwise 1")
    parser.add_argument("--jobs", type=int, default=2, help="cells side by side")
    parser.add_argument("--minutes", type=float, help="start no cell after this time")
    parser.add_argument("--no-search", dest="search", action="store_false", help="use the learning rate of the recipe")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path("runs/maze_table"), help="base models and logs")
    parser.add_argument("--smoke", action="store_true", help="the whole chain at a tiny size, in a temporary folder")
    parser.add_argument("--check", type=int, metavar="N", help="rerun N finished cells and compare")
    return parser.parse_args()


def smoke(jobs: int) -> None:
    """The whole chain with tiny settings: search, cells, equal rollouts, report. No part of it may fail."""
    with tempfile.TemporaryDirectory() as folder:
        results, work = Path(folder) / "results", Path(folder) / "work"
        cells = plan("smoke", SMOKE, [0], [0], True)
        outcome = Runner(cells, results, work, jobs, None, False).run()
        if outcome["failed"] or outcome["finished"] < len(cells):
            raise SystemExit(1)
        make_report(results, Path(folder) / "docs", ["smoke"])
        print((Path(folder) / "docs" / "results.md").read_text(encoding="utf-8"))


def main() -> None:
    args = parse()
    if args.smoke:
        return smoke(args.jobs)
    cells = []
    for scale in args.sizes:
        methods = tuple(args.only or METHODS_OF[scale])
        cells += plan(scale, methods, args.bases or BASES_OF[scale], args.seeds or SEEDS_OF[scale], args.search)
    cells = list(dict.fromkeys(cells))
    try:
        with alone(args.work):
            if args.check is not None:
                raise SystemExit(0 if check(cells, args.results, args.work, args.check, args.jobs) else 1)
            outcome = Runner(cells, args.results, args.work, args.jobs, args.minutes, args.retry).run()
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(f"{outcome['finished']} cells finished, {outcome['failed']} failed. Now: python benchmarks/maze_report.py")


if __name__ == "__main__":
    main()
