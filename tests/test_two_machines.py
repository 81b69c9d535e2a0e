"""
Two machines, rehearsed on this one: a launcher each, which know of each other what the command line says.

That they train as one process does is in test_distributed_strategies.py. Here one of them fails, or they do not share
a folder. One test gives each machine a network of its own, which needs root.
"""

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from launching import free_port, launch_with, on_processes

from rlvr_trl import lifelines
from rlvr_trl.distributed import _watch_lifelines
from rlvr_trl.trainer.checkpoint import last_complete_checkpoint


CONFIG = Path(__file__).parents[1] / "accelerate_configs/multi_node.yaml"
SECONDS = 30  # docs/distributed.md says so: from the failure to the end of every process
SILENCE = 4  # seconds, in place of a minute


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The file for two machines, on CPUs."""
    file = tmp_path_factory.mktemp("config") / "multi_node.yaml"
    file.write_text(CONFIG.read_text(encoding="utf-8").replace("mixed_precision: bf16", "mixed_precision: 'no'"))
    return file


def fail(folder, config, *arguments, **kwargs) -> tuple[str, float]:
    """Output of tests/scripts/fails.py on two machines, and the seconds from the failure to the end of both."""
    output = launch_with(
        *("fails.py", str(folder), *arguments), processes=2, machines=2, config=config, fails=True, **kwargs
    )
    seconds = time.time() - float((folder / "failed_at").read_text())
    print(f"{arguments}: all processes and launchers ended after {seconds:.1f} s")
    assert last_complete_checkpoint(folder).endswith("checkpoint-2")
    return output, seconds


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_a_machine_that_dies(tmp_path, config, dead):
    """Its launcher is killed with it, and nobody closes anything but the kernel."""
    output, seconds = fail(tmp_path, config, "machine", "--on", str(dead))
    assert seconds < SECONDS
    lost = "|".join(["[Cc]onnection", "peer", f"process {dead} .* ended without saying why"])
    assert re.search(rf"^Process {1 - dead} ends, because .*({lost})", output, re.MULTILINE), output


@pytest.fixture
def two_networks(request):
    """The commands that run something on either of two machines, with one cable between them."""
    names = [f"rlvr-{machine}-{time.time_ns()}" for machine in range(2)]
    card = "cable0"
    orders = [["netns", "add", name] for name in names]
    orders.append(["link", "add", card, "netns", names[0], "type", "veth", "peer", card, "netns", names[1]])
    for machine, name in enumerate(names):
        orders.append(["-n", name, "address", "add", f"10.77.0.{machine + 1}/24", "dev", card])
        orders += [["-n", name, "link", "set", device, "up"] for device in (card, "lo")]

    @request.addfinalizer
    def remove():
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)

    for order in orders:
        if shutil.which("ip") is None or subprocess.run(["ip", *order], capture_output=True).returncode != 0:
            pytest.skip("two networks on one machine need Linux, root and iproute2")
    return [["ip", "netns", "exec", name] for name in names], "10.77.0.1", card


@pytest.mark.slow
def test_a_machine_that_is_taken_from_the_network(tmp_path, config, two_networks):
    """A stop of that machine, before it, is no failure: its kernel answers for it."""
    prefixes, address, card = two_networks
    arguments = ["cut", "--on", "1", "--stops", str(2 * SILENCE), "--silence", str(SILENCE)]
    env = {"GLOO_SOCKET_IFNAME": card}
    output, seconds = fail(tmp_path, config, *arguments, prefixes=prefixes, address=address, env=env)
    assert seconds < SILENCE + SECONDS
    for process in range(2):
        gone = rf"^Process {process} ends, because process {1 - process} .*unreachable for {SILENCE} seconds"
        assert re.search(gone, output, re.MULTILINE), output


@pytest.mark.slow
def test_machines_that_do_not_share_the_output_dir(tmp_path):
    ended = on_processes("unshared.py", str(tmp_path), processes=2, machines=2)
    output = "".join(process.stdout + process.stderr for process in ended)
    assert all(process.returncode == 1 for process in ended), output
    assert re.search(r"^shared {}: \[None, None\]$", output, re.MULTILINE), output
    assert re.search(r"^0 {'save_strategy': 'no'}: \[None, None\]$", output, re.MULTILINE), output
    assert re.search(
        r"^0 {}: .*not one folder for all: .*not seen within 1 seconds by process 1 \(", output, re.MULTILINE
    )
    file = r"^file {}: .*`output_dir`=.*/file' must be a folder that can be written to, or created: FileExistsError"
    assert re.search(file, output, re.MULTILINE), output
    if os.getuid() == 0:
        read_only = r"^read-only: .*/shared' cannot be written to by process 1 \(.*: .*/shared\)\."
        assert re.search(read_only, output, re.MULTILINE), output
    assert re.search(r"^shared {'save_on_each_node': True}: .*Set it to False", output, re.MULTILINE), output
    assert not list(tmp_path.rglob("_shared_*"))
    said = re.findall(r"^Process (\d) ends, because process \1 failed with ValueError: (.*)$", output, re.MULTILINE)
    # the first one's lacks its weights, the second one's is not there
    lacks = {rank: f"The checkpoint {tmp_path}/{rank}/checkpoint-1 is missing or not whole" for rank in "01"}
    assert {process: lacks[process] in text for process, text in said} == {"0": True, "1": True}, said


# --- the connections alone ---


class Peers:
    """Threads that wait for a loss, as processes do."""

    def __init__(self, count: int):
        self.store, self.said = torch.distributed.HashStore(), {}
        self.ended = [threading.Event() for _ in range(count)]
        self.threads = [threading.Thread(target=self._wait, args=(index,)) for index in range(count)]

    def _wait(self, index: int) -> None:
        self.said[index] = lifelines.wait_for_loss(self.store, index, self.ended[index], poll=0.01)

    def end(self, *indices: int) -> None:
        for index in indices:
            self.ended[index].set()
        for index in indices:
            self.threads[index].join(timeout=10)


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    peers = Peers(3)
    for thread in peers.threads:
        thread.start()
    yield peers
    peers.end(0, 1, 2)


def say(store, text: str) -> socket.socket:
    store.wait(["door"])
    line = socket.create_connection(("localhost", int(store.get("door").split()[1])))
    line.sendall(text.encode())
    return line


def test_processes_that_leave_one_after_the_other_are_not_lost(peers):
    time.sleep(0.5)
    peers.end(1)
    time.sleep(0.2)
    peers.end(0)
    time.sleep(0.2)
    peers.end(2)
    assert peers.said == {0: None, 1: None, 2: None}


def test_processes_that_leave_at_any_time_are_not_lost(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    for run in range(50):
        peers = Peers(3)
        for thread in peers.threads:
            thread.start()
        time.sleep(0.002 * (run % 25))
        for index in random.Random(run).sample(range(3), 3):
            peers.ended[index].set()
            time.sleep(0.001 * (run % 3))
        peers.end(0, 1, 2)
        assert peers.said == {0: None, 1: None, 2: None}, run


def test_a_process_that_is_gone_is_named(peers):
    peers.store.wait(["door"])
    line = say(peers.store, f"{peers.store.get('door').decode().split()[2]} 7 node17\n")
    assert line.recv(1) == lifelines.WELCOME
    line.close()
    peers.threads[0].join(timeout=10)
    assert peers.said[0].startswith("process 7 (node17) ended without saying why")
    peers.end(1, 2)


@pytest.mark.parametrize("hello", ["", "pässword 1 node1\n", f"{'0' * 32} 1 node1\n", "1" * 2000])
def test_another_program_at_the_door_is_turned_away(peers, hello):
    line = say(peers.store, hello)
    if not hello:
        line.shutdown(socket.SHUT_WR)
    with contextlib.suppress(ConnectionResetError):
        assert line.recv(1) == b""
    line.close()
    time.sleep(0.3)
    peers.end(0, 1, 2)
    assert peers.said == {0: None, 1: None, 2: None}


def test_silent_strangers_hold_up_nobody(peers, monkeypatch):
    """More of them than may stand at the door, some in the middle of a hello."""
    monkeypatch.setattr(lifelines, "PATIENCE", 1.0)
    monkeypatch.setattr(lifelines, "STRANGERS", 20)
    peers.store.wait(["door"])
    password = peers.store.get("door").decode().split()[2]
    strangers = [say(peers.store, password * (number % 2)) for number in range(60)]
    late = say(peers.store, password[:7])
    late.sendall(f"{password[7:]} 7 node17\n".encode())
    late.settimeout(20)
    assert late.recv(1) == lifelines.WELCOME
    late.close()
    peers.threads[0].join(timeout=30)  # one stranger after the other would take twice as long
    assert peers.said[0].startswith("process 7 (node17) ended without saying why")
    for line in strangers:
        line.close()
    peers.end(1, 2)
    assert peers.said[1] is None and peers.said[2] is None


def test_a_process_that_cannot_connect_says_so_and_goes_on(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(lifelines, "PATIENCE", 0.1)
    store = torch.distributed.HashStore()
    store.set("door", f"localhost {free_port()} password")
    with pytest.warns(UserWarning, match="Process 1 has no connection to the first process.*refused"):
        _watch_lifelines(store, threading.Event(), 1)
