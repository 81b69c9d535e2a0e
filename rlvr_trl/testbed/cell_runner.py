"""
Runs cells side by side in processes of one thread, several in each, and keeps what they find in one file a task.

A line of `<task>.jsonl` is a finished or failed cell. A line is written as a whole when its cell ends, so a run can be
stopped at any moment and goes on where it was. A process that dies takes its cell with it, and no other.
"""

import contextlib
import functools
import gc
import importlib.metadata
import json
import multiprocessing
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, astuple
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from transformers.utils import logging

from ..evaluation import pass_at_k
from .cells import BASE, FULL_SIZE, Cell, Size, run_cell
from .methods import Method


# One thread; and glibc keeps freed memory, which saves a tenth of the time on a CPU
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_MMAP_THRESHOLD_": str(2**32 - 1),
    "MALLOC_TRIM_THRESHOLD_": str(2**34),
    "MALLOC_TOP_PAD_": str(2**28),
}


def read_cells(path: Path) -> dict[Cell, dict]:
    """
    The finished and failed cells of a file. A last line without an end, of a cell that is being written, does not
    count.

    Raises:
        ValueError: Another line is not a cell.
    """
    cells = {}
    whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            saved = json.loads(line)
            cell = Cell(**saved["cell"])
            _check_cell(cell, saved)
            cells[cell] = saved
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(f"line {number} of '{path}' is not a cell of a comparison: {error!r}") from None
    return cells


def read_folder(folder: Path) -> dict[Cell, dict]:
    """The cells of all files of a folder, which another process may be writing: nothing is changed."""
    return {cell: saved for path in sorted(folder.glob("*.jsonl")) for cell, saved in read_cells(path).items()}


def _check_cell(cell: Cell, saved: dict) -> None:
    """Raises unless a cell has an error, or the numbers that it is compared by."""
    types = [type(value) for value in astuple(cell)]
    if types != [str, str, float, int, int]:
        raise ValueError(f"a cell is two words, a float and two integers, got {cell}")
    if "error" in saved:
        if not isinstance(saved["error"], str):
            raise ValueError(f"an error is text, got {saved['error']!r}")
        return
    for name in ("seconds",) if cell.method == BASE else ("seconds", "completions"):
        if type(saved[name]) not in (int, float):
            raise ValueError(f"{name} must be a number, got {saved[name]!r}")
    for tested in (saved, *([saved["equal"]] if "equal" in saved else [])):
        for test in ("validation", "test"):
            samples, counts = tested[test]["num_samples"], tested[test]["num_correct"]
            numbers = [samples, *counts]
            if not counts or {type(one) for one in numbers} != {int} or not 0 <= min(counts) <= max(counts) <= samples:
                raise ValueError(f"num_correct of {test} must hold a number from 0 to num_samples for every problem")


class Store:
    """
    The finished and failed cells of a folder, one file a task.

    A last line without an end does not count: another runner is writing it, or it is what a full disk or a power cut
    left of a cell, and goes with the next cell that is added.

    Raises:
        ValueError: Another line is not a cell.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.cells: dict[Cell, dict] = {}
        self.read()

    def read(self) -> None:
        """Adds what the files hold, where another runner may have written since."""
        self.cells |= read_folder(self.folder)  # in place, as others look at them

    def add(self, cell: Cell, saved: dict) -> None:
        """Adds a cell; one that is there already, as one that had failed, is replaced."""
        self.folder.mkdir(parents=True, exist_ok=True)
        again = cell in self.cells
        self.cells[cell] = saved
        path = self.folder / f"{cell.task}.jsonl"
        if not again:
            whole, end, rest = path.read_text(encoding="utf-8").rpartition("\n") if path.exists() else ("", "", "")
            if rest:
                _write(path, whole + end)
            with open(path, "a", encoding="utf-8") as file:
                file.write(_line(saved))
            return
        _write(path, "".join(_line(value) for other, value in self.cells.items() if other.task == cell.task))

    def is_done(self, cell: Cell, retry: bool = False) -> bool:
        return cell in self.cells and not (retry and "error" in self.cells[cell])


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _line(saved: dict) -> str:
    return json.dumps(saved, allow_nan=False) + "\n"


class Job(NamedTuple):
    """What a process is told to do."""

    cell: Cell
    method: Method | None


def _work(pipe: Connection, bases: Path, work: Path, size: Size) -> None:
    """A process: runs the cells that it is sent, and ends when the process that started it does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    # accelerate parses the metadata of packages whenever it unwraps a model, and training ends with a full collection
    importlib.metadata.metadata = functools.cache(importlib.metadata.metadata)
    gc.freeze()
    while (job := pipe.recv()) is not None:
        try:
            saved = run_cell(job.cell, job.method, bases, work, size)
        except Exception as error:
            traceback.print_exc()
            saved = {"cell": asdict(job.cell), "error": f"{type(error).__name__}: {error}"}
        pipe.send(saved)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class CellProcess:
    """A process and its pipe."""

    def __init__(self, *arguments):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["rlvr_trl.testbed.cells"])
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()
        self.cell: Cell | None = None  # which it is at work on

    def give(self, job: Job) -> None:
        self.cell = job.cell
        with contextlib.suppress(OSError):  # it has died, which shows when its answer is read
            self.pipe.send(job)

    def end(self) -> None:
        """Ends the process, in the middle of a cell if need be."""
        if self.cell is None:
            with contextlib.suppress(OSError):  # it has died
                self.pipe.send(None)
            self.process.join(10)
        self.process.terminate()
        self.process.join()

    def take(self, cell: Cell) -> dict:
        """What its cell came to; an error if the process has died."""
        self.cell = None
        try:
            return self.pipe.recv()
        except (EOFError, OSError):  # a reset, if it died before it had read what to do
            self.process.join()
            return {"cell": asdict(cell), "error": f"The process ended with code {self.process.exitcode}."}


def run_cells(
    cells: Iterable[Cell],
    methods: dict[str, Method],
    store: Store,
    bases: Path,
    work: Path,
    size: Size = FULL_SIZE,
    jobs: int = 2,
    minutes: float | None = None,
    retry: bool = False,
    tell: Callable[[str], None] = print,
    may_begin: Callable[[Cell], bool] = lambda cell: True,
    apart: bool = False,
) -> int:
    """
    Runs the cells that `store` lacks, in their order, and adds each to it when it ends.

    Args:
        methods (`dict[str, Method]`): the methods that cells name.
        bases, work (`Path`): where base models are kept, and where they are unpacked.
        jobs (`int`): number of processes.
        minutes (`float`, *optional*): no cell is begun after this time.
        retry (`bool`): whether cells that failed are run again.
        tell (`Callable`): is called with a line about each finished cell.
        may_begin (`Callable`): is asked whenever a process is free for a cell. One that it refuses waits.
        apart (`bool`): whether each cell has a process of its own, for methods that may keep something from one cell
            to the next.

    Returns:
        `int`: how many of `cells` are not in the store at the end.

    Raises:
        ValueError: Another runner is at work with the same store.
    """
    cells = list(dict.fromkeys(cells))
    store.folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(store.folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"another runner is at work with '{store.folder}'; wait for it or stop it") from None
    begin, workers = time.monotonic(), []
    usual = dict(os.environ)
    os.environ.update(ENVIRONMENT)
    try:
        store.read()
        waiting = [cell for cell in cells if not store.is_done(cell, retry)]
        workers = [CellProcess(bases, work, size) for _ in range(min(jobs, len(waiting)))]
        finished = 0
        while True:
            late = minutes is not None and time.monotonic() - begin > 60 * minutes
            for worker in workers:
                job = None if worker.cell or late else _next_job(waiting, workers, methods, may_begin)
                if job:
                    worker.give(job)
            busy = {worker.pipe: (worker, worker.cell) for worker in workers if worker.cell is not None}
            if not busy:
                break
            ready = wait(list(busy))
            for worker, cell in [busy[pipe] for pipe in busy if pipe in ready]:
                saved = worker.take(cell)
                store.add(cell, saved)
                finished += 1
                left = len([other for other in cells if other not in store.cells])
                tell(f"[{finished}, {left} left] {cell}: {outcome_of(saved)}")
                if apart:
                    worker.end()
                if not worker.process.is_alive():
                    workers[workers.index(worker)] = CellProcess(bases, work, size)
    finally:
        for worker in workers:
            worker.end()
        lock.release()
        os.environ.clear()
        os.environ.update(usual)
    return len([cell for cell in cells if cell not in store.cells])


def _next_job(
    waiting: list[Cell],
    workers: list[CellProcess],
    methods: dict[str, Method],
    may_begin: Callable[[Cell], bool],
) -> Job | None:
    """Takes the first cell from the list that may begin and whose base model is not being made by another process."""
    made = {(worker.cell.task, worker.cell.base) for worker in workers if worker.cell and worker.cell.method == BASE}
    for cell in waiting:
        if (cell.task, cell.base) not in made and may_begin(cell):
            waiting.remove(cell)
            return Job(cell, None if cell.method == BASE else methods[cell.method])
    return None


def outcome_of(saved: dict) -> str:
    if "error" in saved:
        return f"FAILED, {saved['error'][:200]}"
    counts, samples = np.array(saved["test"]["num_correct"]), saved["test"]["num_samples"]
    shown = " ".join(f"@{k} {pass_at_k(samples, counts, k).mean():.3f}" for k in (1, 8, 32) if k <= samples)
    return f"{shown}, entropy {saved['test']['token_entropy']:.2f}, {saved['seconds']:.0f} s"
