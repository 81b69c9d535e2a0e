"""A failure of one of two processes ends both within a bounded time, with its cause; the last checkpoint stays."""

import os
import re
import shutil
import subprocess
import time

import pytest
from launching import launch_with, on_processes, run_script

from rlvr_trl.trainer.checkpoint import is_complete, last_complete_checkpoint


pytestmark = pytest.mark.slow


SECONDS = 30  # docs/distributed.md says so: from the failure to the end of every process


@pytest.fixture
def fail(tmp_path):
    """Runs tests/scripts/fails.py on two processes. Returns what each of them says when it ends, and all output."""

    def run(how: str, *arguments: str, launcher: bool = False) -> tuple[list[str], str]:
        if launcher:
            output = launch_with("fails.py", str(tmp_path), how, *arguments, processes=2, fails=True)
        else:
            ended = on_processes("fails.py", str(tmp_path), how, *arguments, processes=2)
            output = "".join(process.stdout + process.stderr for process in ended)
            assert all(process.returncode == 1 for process in ended), output
        seconds = time.time() - float((tmp_path / "failed_at").read_text())
        print(f"{how}: all processes and the launcher ended after {seconds:.1f} s")
        assert seconds < SECONDS, output
        checkpoints = sorted(path.name for path in tmp_path.glob("*checkpoint*"))
        assert checkpoints == ["checkpoint-1", "checkpoint-2"] and all(is_complete(tmp_path / c) for c in checkpoints)
        said = dict(re.findall(r"^Process (\d) ends, because (.*)$", output, re.MULTILINE))
        return [said.get("0", ""), said.get("1", "")], output

    return run


def test_a_reward_function_that_raises_on_one_process(fail):
    said, _ = fail("reward", "--on", "1", launcher=True)
    cause = (
        "process 1 failed with RuntimeError: The reward function 'moves' raised ZeroDivisionError: division by zero"
    )
    assert said == [cause, cause]


def test_a_loss_that_is_not_finite(fail):
    said, _ = fail("loss", "--on", "1")
    cause = "process 1 failed with FloatingPointError: The loss of optimizer step 3 is nan. Weights and batch"
    assert all(text.startswith(cause) for text in said), said


def test_a_gradient_that_is_not_finite(fail):
    said, _ = fail("gradient", "--on", "1")
    cause = (
        r"process 1 failed with FloatingPointError: The gradient of \S+ is not finite before optimizer step 3, though"
    )
    assert all(re.match(cause, text) for text in said), said


def test_a_batch_that_is_not_finite(fail):
    said, _ = fail("batch", "--on", "0", "--trim")
    cause = "process 0 failed with FloatingPointError: The loss of optimizer step 3 is nan. `old_per_token_logps` of"
    assert all(text.startswith(cause) for text in said), said


def test_weights_that_are_not_finite_are_not_saved(fail):
    said, _ = fail("weight", "--on", "1")
    cause = r"process 1 failed with FloatingPointError: The weight \S+ is not finite after optimizer step 3"
    assert all(re.match(cause, text) for text in said), said


def test_any_other_error_on_one_process(fail):
    said, _ = fail("elsewhere", "--on", "1")
    cause = "process 1 failed with KeyError: 'something on one process only'"
    assert said == [cause, cause]


def test_a_killed_process(fail):
    said, output = fail("kill", "--on", "1", launcher=True)
    assert re.search(r"rank +: 1 .*\n.*exitcode +: -9 .*SIGKILL", output)  # the launcher
    lost = "process 0 failed with .*([Cc]onnection|peer)|process 1 .* ended without saying why"
    assert re.match(lost, said[0]), output


def test_a_full_disk(fail, tmp_path):
    said, _ = fail("disk", "--on", "0")
    cause = rf"process 0 failed with RuntimeError: checkpoint-3 could not be written to {tmp_path}: .*MiB were free"
    assert all(re.match(rf"{cause}.* is {tmp_path}/checkpoint-2\.$", text) for text in said), said


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MB: two of the three checkpoints fit."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root; the test with a limit on file sizes has run")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_really_full(small_disk, tmp_path):
    done = run_script("train_dars.py", str(small_disk))
    assert done.returncode == 1
    (missing,) = re.findall(r"RuntimeError: (checkpoint-\d+) could not be written.* [01] MiB were free", done.stderr)
    assert not (small_disk / missing).exists() and not (small_disk / "_incomplete").exists()
    last = last_complete_checkpoint(small_disk)
    copy = shutil.copytree(last, tmp_path / "run" / os.path.basename(last))
    resumed = run_script("train_dars.py", str(tmp_path / "run"), "--resume", str(copy))
    assert resumed.returncode == 0, resumed.stderr[-2000:]
