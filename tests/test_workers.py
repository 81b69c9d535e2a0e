"""The pool of workers: limits, second tries, causes from outside, and what a worker may tell its parent."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import worker_functions as functions

from rlvr_trl.rewards import workers
from rlvr_trl.rewards.workers import Outcome, WorkerPool


pytestmark = pytest.mark.slow

SCRIPTS = Path(__file__).parent / "scripts"


@pytest.fixture
def make_pool():
    pools = []

    def make(function, num_workers=1, time_limit=20.0, **settings):
        pools.append(WorkerPool(function, num_workers, time_limit, **settings))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def statuses(outcomes):
    return [outcome.status for outcome in outcomes]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class FromOutside:
    """Sends a signal to the first workers of a pool that get a job, which lasts until then, however late that is."""

    def __init__(self, pool, number, most=1, after=0.1):
        self.pool, self.number, self.most, self.after, self.hit = pool, number, most, after, []
        self.give = workers._Worker.give

    def _give(self, worker, job, arguments, wall_limit):
        if len(self.hit) == self.most:
            return self.give(worker, job, arguments, wall_limit)
        self.hit.append(worker.pid)
        self.give(worker, job, (3600, *arguments[1:]), wall_limit)
        time.sleep(self.after)
        os.kill(worker.pid, self.number)

    def __enter__(self):
        workers._Worker.give = lambda worker, *arguments: self._give(worker, *arguments)
        return self

    def __exit__(self, *error):
        workers._Worker.give = self.give


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_slow_calls_are_killed_and_others_are_answered(make_pool, start_method):
    pool = make_pool(functions.work, num_workers=2, time_limit=0.5, start_method=start_method)
    start = time.monotonic()
    outcomes = pool.run([(0,), (60,), (0,), (60,), (0,), ("x",)])
    assert statuses(outcomes) == ["done", "timed_out", "done", "timed_out", "done", "failed"]
    assert outcomes[0] == Outcome("done", 0) and "TypeError" in outcomes[5].value
    assert time.monotonic() - start < 30
    expected = {"done": 3, "failed": 1, "timed_out": 2, "died": 0, "lost": 0, "retried": 2, "refused": 0}
    assert pool.counts == expected | {"started": pool.counts["started"]}
    pool.run([(0,)] * 4)
    pids = pool.pids
    assert pool.run([(0,)] * 4) == [Outcome("done", 0)] * 4 and set(pids) <= set(pool.pids)  # reused
    pool.close()
    assert pool.pids == [] and not any(map(alive, pids))


def test_waiting_is_not_processor_time(make_pool):
    pool = make_pool(functions.wait, time_limit=0.2)
    assert pool.run([(1.0, "here")]) == [Outcome("done", "here")] and pool.counts["retried"] == 0


def test_a_call_that_does_not_run_is_lost(make_pool):
    pool = make_pool(functions.wait, time_limit=0.5, wall_limit=3)
    assert statuses(pool.run([(60,), (0,)])) == ["lost", "done"]
    assert pool.counts["lost"] == pool.counts["retried"] == 1


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited on Linux only")
def test_memory_is_limited(make_pool, start_method):
    pool = make_pool(functions.eat, memory_limit_mb=200, start_method=start_method)
    assert statuses(pool.run([(1,), (400,), (1,)])) == ["done", "died", "done"]
    assert pool.counts["started"] == 3 and pool.counts["retried"] == 1


def test_a_crash_is_survived(make_pool):
    pool = make_pool(functions.end)
    outcomes = pool.run([(0,), (1,), ("abort",)])
    assert statuses(outcomes) == ["died"] * 3 and pool.counts["retried"] == 3
    assert outcomes[2].value.endswith("SIGABRT") and outcomes[1].value.endswith("exit code 1")


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSTOP", "SIGHUP"])
def test_a_worker_ended_from_outside_costs_no_answer(make_pool, name, start_method):
    if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN:
        pytest.skip(f"{name} is ignored here, as under nohup, and by every process that is started")
    wall_limit = 4 if name == "SIGSTOP" else 60  # a worker that was stopped is given up then
    pool = make_pool(functions.wait, num_workers=2, time_limit=1, wall_limit=wall_limit, start_method=start_method)
    with FromOutside(pool, getattr(signal, name)) as outside:
        assert pool.run([(0, i) for i in range(4)]) == [Outcome("done", i) for i in range(4)]
    assert len(outside.hit) == 1 and not alive(outside.hit[0])
    assert pool.counts["retried"] == 1 and pool.counts["done"] == 4


def test_what_is_ended_from_outside_twice_is_lost(make_pool):
    pool = make_pool(functions.wait)
    with FromOutside(pool, signal.SIGKILL, most=2):
        assert pool.run([(2, "x")]) == [Outcome("lost", "its worker was ended by SIGKILL")]
    assert pool.run([(0, "y")]) == [Outcome("done", "y")]


def test_the_more_innocent_of_two_ends_is_told(make_pool):
    pool = make_pool(functions.work, time_limit=0.8)
    with FromOutside(pool, signal.SIGKILL, after=0):  # the second try is out of time
        assert statuses(pool.run([(60,)])) == ["lost"]


def test_an_idle_worker_that_is_killed_costs_nothing(make_pool):
    pool = make_pool(functions.process_id)
    [first] = pool.run([()])
    os.kill(first.value, signal.SIGKILL)
    [second] = pool.run([()])
    assert second.status == "done" and second.value != first.value


def test_a_poisoned_job_does_not_hold_up_the_others(make_pool):
    pool = make_pool(functions.work, time_limit=0.3)
    assert statuses(pool.run([(60,), (0,), (60,), (0,), (0,)])) == ["timed_out", "done", "timed_out", "done", "done"]
    assert pool.counts["retried"] == 2 and pool.counts["started"] <= 5


def test_second_tries_are_made_by_fresh_workers(make_pool):
    pool = make_pool(functions.wait, num_workers=1, time_limit=1, wall_limit=60)
    with FromOutside(pool, signal.SIGKILL):
        pool.run([(0, "a"), (0, "b")])
    # One for "a", one for "b", and not that one for "a" again
    assert pool.counts["started"] == 3 and pool.counts["done"] == 2


def test_a_worker_that_was_refused_something_is_not_used_again(make_pool, tmp_path):
    file = tmp_path / "file"
    file.write_text("here")
    pool = make_pool(functions.attempt)
    for what, event in {
        "write": "open",
        "exec": "compile",
        "system": "os.system",
        "import": "import of 'this'",
    }.items():
        assert pool.run([(what, str(file))]) == [Outcome("failed", f"refused: {event}")]
        assert pool.pids == []
    assert pool.counts["refused"] == pool.counts["failed"] == pool.counts["started"] == 4
    assert pool.counts["retried"] == 0 and file.read_text() == "here"


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_what_a_worker_says_is_only_read(make_pool, tmp_path):
    bomb = pickle.dumps(Bomb(str(tmp_path / "ran")))
    texts = [b"\n", b"null\n", b"[1, 2]\n", b"[" * 5_000 + b"\n", b"9" * 5_000 + b"\n", b"\xff\n", bomb + b"\n"]
    pool = make_pool(functions.say, num_workers=2)
    assert statuses(pool.run([(text,) for text in [*texts, b"x" * 10**6]])) == ["died"] * 8
    assert list(tmp_path.iterdir()) == []
    pool = make_pool(functions.say, time_limit=1, wall_limit=1)
    assert statuses(pool.run([(b"half a line",)])) == ["lost"]


def test_values_must_be_plain(make_pool):
    pool = make_pool(functions.wait)
    values = [None, True, 1.5, "é\n", [1, {"a": []}]]
    assert [outcome.value for outcome in pool.run([(0, value) for value in values])] == values
    outcomes = pool.run([(0, b"bytes"), (0, "x" * 10**6)])
    assert statuses(outcomes) == ["failed"] * 2 and "not JSON serializable" in outcomes[0].value


@pytest.mark.parametrize("start_method", ["spawn", "fork"])
def test_a_worker_has_neither_environment_nor_files(make_pool, monkeypatch, tmp_path, start_method):
    monkeypatch.setenv("HF_TOKEN", "secret")
    with open(tmp_path / "open", "w") as file:
        os.set_inheritable(file.fileno(), True)
        [outcome] = make_pool(functions.surroundings, start_method=start_method).run([()])
    assert outcome.value["variables"] == {} and outcome.value["directory"] == "/"
    kinds = outcome.value["files"]
    assert [kinds.pop(standard) for standard in "012"] == ["null"] * 3 and list(kinds.values()) == ["socket"]
    assert os.environ["HF_TOKEN"] == "secret" and os.getcwd() != "/"


def test_a_start_that_is_ended_from_outside_is_repeated(make_pool, monkeypatch):
    pool, start, killed = make_pool(functions.process_id), WorkerPool._start, []

    def kill_at_first(self):
        worker = start(self)
        if len(killed) < most:
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(WorkerPool, "_start", kill_at_first)
    most = 2
    assert statuses(pool.run([()])) == ["done"] and len(killed) == 2
    pool.close()
    most = 10
    with pytest.raises(RuntimeError, match="ended by SIGKILL"):
        pool.run([()])
    assert len(killed) == 2 + workers.STARTS


def test_a_worker_that_cannot_start_is_an_error(make_pool):
    with pytest.raises(RuntimeError, match="no such luck"):
        make_pool(functions.wait, warm_up=functions.fail_to_warm_up).run([(0,)])
    assert make_pool(functions.wait, warm_up=functions.process_id).run([(0, 1)]) == [Outcome("done", 1)]


def test_settings_are_checked():
    def of_main():
        pass

    of_main.__module__ = "__main__"
    for settings, named in [
        ({"num_workers": 0}, "num_workers"),
        ({"num_workers": 1.5}, "num_workers"),
        ({"time_limit": 0}, "time_limit"),
        ({"time_limit": "1"}, "time_limit"),
        ({"wall_limit": 0.5}, "wall_limit"),
        ({"wall_limit": float("inf")}, "wall_limit"),
        ({"memory_limit_mb": 0.5}, "memory_limit_mb"),
        ({"start_method": "forkserver"}, "start_method"),
        ({"function": of_main}, "`function` must be importable"),
        ({"warm_up": of_main}, "`warm_up` must be importable"),
    ]:
        with pytest.raises(ValueError, match=named):
            WorkerPool(**{"function": functions.wait, "num_workers": 1, "time_limit": 1} | settings)
    assert WorkerPool(functions.wait, 1, 2).wall_limit == 60 and WorkerPool(functions.wait, 1, 9).wall_limit == 90


def test_from_threads(make_pool):
    pool, results = make_pool(functions.wait, num_workers=2), {}

    def call(i):
        results[i] = pool.run([(0.1, i)])

    for _ in range(2):  # the workers outlive the threads that started them
        threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        time.sleep(0.2)
    assert results == {i: [Outcome("done", i)] for i in range(4)}
    assert 0 < len(pool.pids) <= 2 and all(map(alive, pool.pids))


def _run_in_child(pool, connection):
    connection.send((pool.run([(0, "child")]), pool.pids))
    pool.close()


def test_in_a_forked_daemon(make_pool):
    pool = make_pool(functions.wait)
    pool.run([(0,)])
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_run_in_child, args=(pool, there), daemon=True)
    child.start()
    outcomes, pids = here.recv()
    child.join()
    assert outcomes == [Outcome("done", "child")] and not set(pids) & set(pool.pids)
    assert all(map(alive, pool.pids)) and pool.run([(0, "parent")]) == [Outcome("done", "parent")]


PARENT = """
import sys, time
sys.path.insert(0, {scripts!r})
import worker_functions
from rlvr_trl.rewards.workers import WorkerPool
pool = WorkerPool(worker_functions.wait, num_workers=2, time_limit=2, wall_limit=2, start_method={method!r})
pool.run([(0.3,), (0.3,)])
print(*pool.pids, flush=True)
pool.run([(0,)] + [(60,)] * {busy})
time.sleep(60)
"""


@pytest.mark.parametrize(("method", "busy"), [("spawn", 0), ("spawn", 1), ("fork", 0)])
def test_workers_die_with_their_parent(method, busy):
    script = PARENT.format(scripts=str(SCRIPTS), method=method, busy=busy)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(map(alive, pids))
    time.sleep(0.3)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 30
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, pids))
