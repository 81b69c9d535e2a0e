"""What fails while an asynchronous training runs ends it, with its cause and a whole checkpoint."""

import os
import re
import signal
import threading
import time
from pathlib import Path

import pytest
from launching import run_script
from scripted_sampler import ChildTrainer, FailsLater, build_async, loop_worker, right_by_chance
from transformers import AutoModelForCausalLM, TrainerCallback

from rlvr_trl.async_trainer.exchange import Sampling
from rlvr_trl.trainer.checkpoint import last_complete_checkpoint
from rlvr_trl.trainer.vllm_watchdog import POLL as POLL_OF_SERVER


EARLIEST = 2  # the step in which something fails


def test_a_reward_that_raises_while_training(cpu, tmp_path, saved_model, mazes):
    trainer = build_async(
        *(saved_model, FailsLater(tmp_path / "fail"), mazes, tmp_path),
        **{"max_steps": 50, "save_strategy": "steps", "save_steps": 1},
        arguments={},
    )
    trainer.add_callback(At(EARLIEST, (tmp_path / "fail").touch))
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="child has failed") as caught:
        trainer.train()
    assert "The reward function 'FailsLater' raised ZeroDivisionError: of the user's" in str(caught.value.__cause__)
    assert time.monotonic() - begin < 60
    assert int(last_complete_checkpoint(tmp_path).rpartition("-")[2]) >= EARLIEST


class At(TrainerCallback):
    """Does something once after a step, and says when."""

    def __init__(self, step, action):
        self.step, self.action, self.time = step, action, None

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.action()
            self.time = time.monotonic()


def build_with_child(saved_model, rewards, mazes, folder, **changes):
    settings = {"max_steps": 200, "save_strategy": "steps", "save_steps": 1, "save_total_limit": 2, **changes}
    return build_async(saved_model, rewards, mazes, folder, ChildTrainer, **settings)


@pytest.mark.slow
def test_a_process_that_samples_and_is_killed(cpu, tmp_path, saved_model, mazes):
    trainer = build_with_child(
        saved_model, right_by_chance, mazes, tmp_path, rollouts={"name": "dars", "max_generations": 8}
    )
    killed = At(EARLIEST, lambda: os.kill(trainer.rollout_worker._process.pid, signal.SIGKILL))
    trainer.add_callback(killed)
    with pytest.raises(RuntimeError, match="samples has died with exit code -9.*resume_from_checkpoint=True"):
        trainer.train()
    seconds = time.monotonic() - killed.time
    print(f"ended {seconds:.1f} s after the kill")
    assert seconds < 20 and trainer.rollout_worker._process is None
    weights = AutoModelForCausalLM.from_pretrained(last_complete_checkpoint(tmp_path)).state_dict()
    assert all(value.isfinite().all() for value in weights.values())
    steps = trainer.state.global_step + 1
    resumed = build_async(
        *(saved_model, right_by_chance, mazes, tmp_path),
        max_steps=steps,
        rollouts={"name": "dars", "max_generations": 8},
        resume_with_changes=["max_steps"],
    )
    resumed.train(resume_from_checkpoint=True)
    assert len(resumed._trained_groups) == 3 * steps == resumed._feed.num_trained


def test_the_reason_of_a_failure_may_come_after_it(cpu, mazes):
    """A queue between processes sends what is put into it in a thread of its own."""
    worker = loop_worker(mazes, Sampling(4, None, 0, 0.5, reward_timeout=60.0, orders_ahead=0), right_by_chance)
    worker._failed_event.set()
    late = threading.Timer(0.5, worker._exception_info_queue.put, [("ValueError", "too late", "its trace")])
    late.start()
    with pytest.raises(RuntimeError, match="child has failed") as caught:
        worker.check_health(60.0)
    assert str(caught.value.__cause__) == "ValueError: too late\nits trace"
    late.join()


@pytest.mark.slow
def test_a_process_that_samples_and_fails(cpu, tmp_path, saved_model, mazes):
    trainer = build_with_child(saved_model, FailsLater(tmp_path / "fail"), mazes, tmp_path)
    failed = At(EARLIEST, (tmp_path / "fail").touch)
    trainer.add_callback(failed)
    with pytest.raises(RuntimeError, match="child has failed") as caught:
        trainer.train()
    assert "FailsLater' raised ZeroDivisionError" in str(caught.value.__cause__)
    seconds = time.monotonic() - failed.time
    print(f"ended {seconds:.1f} s after the failure")
    assert seconds < 40


@pytest.mark.slow
def test_a_reward_that_does_not_return(cpu, tmp_path, saved_model, mazes):
    hangs = FailsLater(tmp_path / "fail", hangs=True)
    trainer = build_with_child(saved_model, hangs, mazes, tmp_path, reward_timeout=10.0)
    stuck = At(EARLIEST, (tmp_path / "fail").touch)
    trainer.add_callback(stuck)
    with pytest.raises(RuntimeError, match="samples has died with exit code 1"):
        trainer.train()
    seconds = time.monotonic() - stuck.time
    print(f"ended {seconds:.1f} s after a reward did not return")
    assert seconds < 10 + 40


@pytest.mark.slow
def test_a_process_that_samples_and_hangs(cpu, tmp_path, saved_model, mazes):
    trainer = build_with_child(saved_model, right_by_chance, mazes, tmp_path)

    def stop():
        os.kill(trainer.rollout_worker._process.pid, signal.SIGSTOP)
        trainer.args.heartbeat_stale_after_s = 5  # not before: a busy machine may pause it too

    stopped = At(EARLIEST, stop)
    trainer.add_callback(stopped)
    with pytest.raises(RuntimeError, match="heartbeat stale"):
        trainer.train()
    seconds = time.monotonic() - stopped.time
    print(f"ended {seconds:.1f} s after it was stopped")
    assert seconds < 5 + 40  # TRL waits 15 s for its end, then 5 s more, and kills it


@pytest.mark.slow
def test_a_whole_training_with_a_process_that_samples(cpu, tmp_path, saved_model, mazes):
    trainer = build_with_child(
        saved_model, right_by_chance, mazes, tmp_path, max_steps=4, rollouts={"name": "dars", "max_generations": 8}
    )
    trainer.train()
    assert trainer.state.global_step == 4 and trainer.rollout_worker._process is None
    assert len(trainer._trained_groups) == 12


@pytest.mark.slow
def test_a_server_that_goes_away(tmp_path, saved_model):
    """In a process of its own, which the watch ends where it is too busy to raise the error in time."""
    ended = run_script("async_server_goes.py", str(tmp_path), saved_model)
    url, gone = re.match(r"(\S+)\n(?:.*\n)*?gone at (\S+)\n", ended.stdout).groups()
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert re.search(f"{url} has not answered for .* `vllm_server_timeout`=10", ended.stderr), ended.stderr[-2000:]
    seconds = time.time() - float(gone)
    print(f"ended {seconds:.1f} s after the server had gone")
    assert seconds < 10 + 2 * POLL_OF_SERVER + 30
    assert Path(last_complete_checkpoint(tmp_path)).exists()
