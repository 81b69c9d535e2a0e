"""Asynchronous training on a real vLLM server, and what was trained on. Run by test_async_server.py."""

import argparse
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import requests
import torch
from bounded import answer_with_stacks
from cpu_engine import use_cpu_engine
from safetensors.torch import save_file
from scripted_sampler import without_gpu
from server_fails import send
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback

from rlvr_trl import AsyncRLVRConfig, AsyncRLVRTrainer
from rlvr_trl.advantages import AGRAE, PassAtK
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rewards import maze_reward
from rlvr_trl.rollouts import DARS


STEPS = 60
METHODS = {
    "dars": {"rollouts": DARS("hardness_weighted", max_generations=32)},
    "pass_at_k": {"advantages": PassAtK(k=4)},
    "a_grae": {"advantages": AGRAE()},
}


class CheckpointTransfer:
    """Weights go to the server through a checkpoint in memory, in place of NCCL."""

    def __init__(self, url: str):
        self.url, self.folder = url, Path(tempfile.mkdtemp(prefix="weights-", dir="/dev/shm"))

    def _post(self, path: str, **kwargs) -> None:
        requests.post(f"{self.url}{path}", timeout=60, **kwargs).raise_for_status()

    def init_weight_transfer(self):
        pass

    def pause(self):
        self._post("/pause", params={"mode": "keep"})

    def send_weights(self, iterator):
        weights = {name: value.detach().clone().contiguous() for name, value in iterator}
        save_file(weights, self.folder / "model.safetensors", metadata={"format": "pt"})
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}}
        self._post("/collective_rpc", json=body)

    def resume(self):
        self._post("/resume")

    def destroy(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Recording(AsyncRLVRTrainer):
    """Says of each completion what it is worth, and how far its log-probabilities are from the model's."""

    def _estimate_step(self, groups):
        advantages, in_loss = super()._estimate_step(groups)
        self.steps.append(
            {
                "sizes": [len(group) for group in groups],
                "tickets": [group.order.ticket for group in groups],
                "rewards": [group.rewards_per_func[:, 0].tolist() for group in groups],
                "staleness": [self.model_version - group.model_version for group in groups],
                "advantages": advantages.tolist(),
                "log_prob_error": max((self.error_of(group) for group in groups if self.is_fresh(group)), default=0.0),
            }
        )
        return advantages, in_loss

    def is_fresh(self, group) -> bool:
        return group.model_version == self.model_version

    @torch.no_grad()
    def error_of(self, group) -> float:
        worst = 0.0
        for (row,) in group.sequences:
            tokens = torch.tensor([row.input_ids])
            self.reference.load_state_dict(self.model.state_dict(), strict=False)
            logits = self.reference(input_ids=tokens).logits[0, :-1]
            own = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
            mask = torch.tensor(row.completion_mask[1:]) > 0
            worst = max(worst, float((own - torch.tensor(row.old_log_probs[1:]))[mask].abs().max()))
        return worst


class Strikes(TrainerCallback):
    """Sends a signal after a step, and writes when."""

    def __init__(self, step: int, act, note: Path):
        self.step, self.act, self.note = step, act, note

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            self.note.write_text(str(time.time()))
            self.act()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("model")
    parser.add_argument("server")
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--pid", type=int, help="process of the server")
    parser.add_argument("--strike", choices=["child", "server", "server hangs"])
    arguments = parser.parse_args()
    answer_with_stacks(arguments.folder)
    use_cpu_engine()
    without_gpu()
    trainer = Recording(
        arguments.model,
        maze_reward,
        AsyncRLVRConfig(
            str(arguments.folder / "run"),
            **{"num_generations": 8, "prompts_per_update": 8, "max_completion_length": 14, "token_budget": 2048},
            **{"max_steps": arguments.steps, "max_staleness": 2, "learning_rate": 1e-3, "max_inflight_tasks": 64},
            **{"vllm_server_base_url": arguments.server, "vllm_server_timeout": 10, "request_timeout": 30},
            **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"},
            **{"disable_tqdm": True, "logging_steps": 1, "save_strategy": "steps", "save_steps": 5},
        ),
        make_maze_dataset(400, prompt_style="bare", seed=5),
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
        weight_transfer=CheckpointTransfer(arguments.server),
        **METHODS[arguments.method],
    )
    trainer.steps = []
    trainer.reference = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    strikes = {
        "child": lambda: os.kill(trainer.rollout_worker._process.pid, signal.SIGKILL),
        "server": lambda: send(arguments.pid, signal.SIGKILL),
        "server hangs": lambda: send(arguments.pid, signal.SIGSTOP),
    }
    if arguments.strike:
        trainer.add_callback(Strikes(6, strikes[arguments.strike], arguments.folder / "failed_at"))
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    saved = {"steps": trainer.steps, "rewards": rewards}
    (arguments.folder / "async.json").write_text(json.dumps(saved), encoding="utf-8")


if __name__ == "__main__":
    main()
