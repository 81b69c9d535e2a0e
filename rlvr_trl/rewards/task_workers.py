"""What the rewards of puzzles by others share: their scorers run in workers that can be killed, never elsewhere."""

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Real
from typing import Any

from .workers import Outcome, WorkerPool


MAX_ANSWER_CHARS = 20_000  # a longer answer scores 0 unread


class TaskWorkers:
    """
    Workers that have loaded the scorers of some tasks. A job of another task starts new ones, which have that too: a
    locked worker can load nothing more.

    Args:
        score (`callable`):
            Scores one answer: a number, or a text that says what is wrong with the item. It must be importable, and
            must not let an error through that the answer has caused: what it raises is taken for an error of ours.
        load (`callable`):
            Called in a worker with a tuple of tasks before the worker is locked. It must be importable, or be a
            partial of what is.
        num_workers, time_limit, memory_limit_mb, start_method, arithmetic:
            As in [`WorkerPool`].
    """

    def __init__(
        self,
        score: Callable,
        load: Callable,
        num_workers: int,
        time_limit: float,
        memory_limit_mb: int | None,
        start_method: str,
        arithmetic: bool,
    ):
        self._lock = threading.Lock()
        self._load, self._tasks = load, frozenset()
        self._make = partial(WorkerPool, score, num_workers, time_limit, memory_limit_mb, start_method)
        self._arithmetic = arithmetic
        self.pool = self._make(arithmetic=arithmetic)  # so that a wrong limit is an error now; no worker starts

    def run(self, tasks: Iterable[Any], jobs: Sequence[tuple]) -> list[Outcome]:
        """
        The outcomes of jobs, in their order.

        Raises:
            `RuntimeError`: A worker could not load the tasks.
        """
        with self._lock:
            if not self._tasks.issuperset(tasks):
                self.pool.close()
                self._tasks = self._tasks.union(tasks)
                load = partial(self._load, tuple(sorted(self._tasks)))
                self.pool = self._make(warm_up=load, arithmetic=self._arithmetic)
            try:
                return self.pool.run(jobs)
            except RuntimeError:
                self._tasks = frozenset()  # a task that cannot be loaded does not stand in the way of the next call
                raise

    def close(self):
        """End the workers. The next call starts new ones."""
        self.pool.close()


def check_threshold(threshold: float | None) -> None:
    """Raises a `ValueError` unless `threshold` is a score that is not 0, or `None`."""
    if threshold is not None and (not isinstance(threshold, Real) or not 0 < threshold <= 1):
        raise ValueError(f"`threshold` must be in (0, 1], or None for the score itself, got {threshold!r}.")


def check_lengths(completions: list, **columns: list) -> None:
    """Raises a `ValueError` unless each column is a list with one entry for each completion."""
    for name, column in columns.items():
        if isinstance(column, str) or len(column) != len(completions):
            found = repr(column) if isinstance(column, str) else len(column)
            raise ValueError(f"`{name}` must have one entry for each of {len(completions)} completions, got {found}.")


def score_of(outcome: Outcome, row: int, what: str) -> float | None:
    """
    The score of an answer: 0.0 if its scoring was ended for its time, its memory or what it tried to do; `None` if the
    outcome says nothing about the answer: an outside cause, or an error of ours.

    Raises:
        `ValueError`: The item is broken, a mistake in the dataset that must not look like a wrong answer.
    """
    if outcome.status == "done" and isinstance(outcome.value, str):
        raise ValueError(f"Row {row} of the batch has a broken {what}: {outcome.value}")
    failed = outcome.status == "failed" and not str(outcome.value).startswith("refused")
    if failed or outcome.status == "lost":
        return None
    return float(outcome.value) if outcome.status == "done" else 0.0


def judgement(score: float | None, threshold: float | None) -> float | None:
    """The reward for a score: the score itself without a threshold, else 1.0 from the threshold on and 0.0 below."""
    return score if score is None or threshold is None else float(score >= threshold)


def log_ends(name: str, outcomes: list[Outcome], log_metric: Callable[[str, float], None] | None) -> None:
    """Log how many scorings of a call ended early, as `name/timed_out` and so on."""
    if log_metric is not None:
        for status in ("timed_out", "died", "lost", "failed"):
            log_metric(f"{name}/{status}", float(sum(outcome.status == status for outcome in outcomes)))
