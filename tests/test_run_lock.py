"""One run a folder: a second training is refused by the name of the first, and locks left behind are taken over."""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
import warnings

import psutil
import pytest
from launching import Forked, on_processes, ranks
from train_dars import make_trainer
from transformers import TrainerCallback

from rlvr_trl.trainer import run_lock
from rlvr_trl.trainer.checkpoint import is_complete
from rlvr_trl.trainer.run_lock import LOCK, RunLock


pytestmark = pytest.mark.slow


def wait_for(path, seconds=600):
    deadline = time.monotonic() + seconds
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)
    return int(path.read_text())


@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_training_is_refused_by_the_name_of_the_first(tmp_path, processes):
    folder = tmp_path / "run"
    built_before = make_trainer(str(folder), max_steps=2)
    environments = ranks(processes, 1) if processes > 1 else [{}]
    runs = [Forked("waits_in_training.py", str(folder), env=env) for env in environments]
    pid = [wait_for(tmp_path / f"waits-{index}") for index in range(processes)][0]
    named = rf"`output_dir`='{folder}' is in use. Process {pid} on \S+ has been training there since 2"
    with pytest.raises(ValueError, match=named):
        built_before.train()
    with pytest.raises(ValueError, match=named):
        make_trainer(str(folder))  # before a model is loaded
    second = on_processes("train_dars.py", str(folder), processes=2)
    assert all(each.returncode == 1 and f"is in use. Process {pid} on" in each.stderr for each in second)
    (tmp_path / "go").touch()
    assert [run.wait(600).returncode for run in runs] == [0] * processes
    assert all(is_complete(folder / f"checkpoint-{step}") for step in (1, 2, 3))
    assert not (folder / LOCK).exists()
    make_trainer(str(folder), max_steps=1).train()


def test_the_lock_of_a_killed_run_is_taken_over(tmp_path):
    folder = tmp_path / "run"
    run = Forked("waits_in_training.py", str(folder))
    pid = wait_for(tmp_path / "waits-0")
    os.kill(pid, signal.SIGKILL)
    assert run.wait(600).returncode == -9
    with pytest.warns(UserWarning, match=f"has ended without giving it back: Process {pid} on .* It is taken over"):
        make_trainer(str(folder), max_steps=3).train(resume_from_checkpoint=True)
    assert not (folder / LOCK).exists()


def test_a_second_trainer_in_a_training(tmp_path):
    class TrainsToo(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            with pytest.raises(ValueError, match="is in use. Another trainer of this process has been training there"):
                make_trainer(str(tmp_path))
            make_trainer(str(tmp_path), save_strategy="no", max_steps=1).train()  # which writes nothing

    trainer = make_trainer(str(tmp_path), max_steps=1)
    trainer.add_callback(TrainsToo())
    trainer.train()
    assert (tmp_path / "checkpoint-1").exists()


def test_a_failed_training_gives_the_folder_back(tmp_path):
    class Fails(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise KeyError("something")

    trainer = make_trainer(str(tmp_path), max_steps=1)
    trainer.add_callback(Fails())
    with pytest.raises(KeyError):
        trainer.train()
    assert not (tmp_path / LOCK).exists()


def elsewhere(tmp_path, **changes):
    owner = {"host": "node7", "pid": os.getpid(), "started": psutil.Process().create_time(), "machine": "another"}
    (tmp_path / LOCK).write_text(json.dumps(owner | {"since": "2026-01-01T00:00:00+00:00"} | changes))


def test_of_another_machine_only_the_renewals_are_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_lock, "POLL_LOCK", 0.1)
    elsewhere(tmp_path)
    ended = threading.Event()

    def renew():
        while not ended.wait(0.3):
            os.utime(tmp_path / LOCK)

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(
        ValueError, match=r"is in use. Process \d+ on node7 has been training there since 2026-01-01T0"
    ):
        RunLock(tmp_path).take()
    ended.set()
    thread.join()
    waits = f"on another machine. Waiting {run_lock.SILENT:.0f} seconds to see whether it still runs"
    assert waits in capsys.readouterr().out
    monkeypatch.setattr(run_lock, "SILENT", 1.5)
    lock = RunLock(tmp_path)
    with pytest.warns(UserWarning, match="node7, .*taken over; whether that process has really ended cannot be seen"):
        lock.take()
    lock.check()
    lock.release()
    assert not (tmp_path / LOCK).exists()


def test_a_run_whose_lock_was_taken_writes_no_checkpoint(tmp_path):
    class IsSuspended(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                elsewhere(tmp_path)

    trainer = make_trainer(str(tmp_path), max_steps=3)
    trainer.add_callback(IsSuspended())
    with pytest.raises(RuntimeError, match=r"Process \d+ on node7 has taken over"):
        trainer.train()
    assert [path.name for path in tmp_path.glob("*checkpoint*")] == ["checkpoint-1"]
    assert "node7" in (tmp_path / LOCK).read_text()  # not given back: it is the other's


def test_the_start_of_a_process_tells_it_from_a_later_one_of_its_number(tmp_path):
    elsewhere(tmp_path, machine=run_lock.machine_id(), started=1.0)
    with pytest.warns(UserWarning, match="has ended without giving it back"):
        RunLock(tmp_path).take()


def test_the_lock_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(run_lock, "BEAT", 0.05)
    lock = RunLock(tmp_path)
    lock.take()
    before, deadline = (tmp_path / LOCK).stat().st_mtime_ns, time.monotonic() + 60
    while (tmp_path / LOCK).stat().st_mtime_ns == before:
        assert time.monotonic() < deadline, "it is not renewed"
        time.sleep(0.05)
    lock.release()


@pytest.mark.parametrize("content", ["{", "[]", '{"host": 1}', "[" * 9999, "x"])
def test_a_lock_that_is_none(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(ValueError, match=f"{LOCK} is no lock of a run, or a broken one"):
        RunLock(tmp_path).take()


def take_and_hold(folder, barrier, taken):
    barrier.wait()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            RunLock(folder).take()
        taken.put(os.getpid())
    except ValueError:
        taken.put(None)
    barrier.wait()


@pytest.mark.parametrize("is_stale", [False, True])
def test_of_many_at_once_one_gets_it(tmp_path, is_stale):
    context, many = multiprocessing.get_context("fork"), 8
    barrier, taken = context.Barrier(many), context.Queue()
    for _ in range(5):
        (tmp_path / LOCK).unlink(missing_ok=True)
        if is_stale:
            elsewhere(tmp_path, machine=run_lock.machine_id(), pid=2**22 - 1)
        processes = [context.Process(target=take_and_hold, args=(tmp_path, barrier, taken)) for _ in range(many)]
        for process in processes:
            process.start()
        answers = [taken.get(timeout=30) for _ in processes]
        for process in processes:
            process.join()
        winners = [pid for pid in answers if pid is not None]
        assert len(winners) == 1 and json.loads((tmp_path / LOCK).read_text())["pid"] == winners[0]


def test_a_process_that_had_this_number_before_does_not_hold_the_lock(tmp_path):
    own = {"host": socket.gethostname(), "pid": os.getpid(), "started": psutil.Process().create_time() - 20}
    own |= {"since": "then", "machine": run_lock.machine_id()}
    (tmp_path / LOCK).write_text(json.dumps(own))
    with pytest.warns(UserWarning, match="has ended without giving it back"):
        RunLock(tmp_path).take()
    with pytest.raises(ValueError, match="Another trainer of this process"):
        RunLock(tmp_path).take()
