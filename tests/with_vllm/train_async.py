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
from rlvr_trl.evaluation import evaluate
from rlvr_trl.rewards import maze_reward
from rlvr_trl.rollouts import DARS


STEPS, PROMPTS = 60, 16
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
    """Says of each completion what it is worth, and how far its log-probabilities are from those of the model that
    sampled it: of each token the nearest of the weights from the begin of its group to now."""

    def _estimate_step(self, groups):
        advantages, in_loss = super()._estimate_step(groups)
        own = self.model.state_dict()
        self.weights[self.model_version] = {name: own[name].clone() for name in self.reference.state_dict()}
        self.weights.pop(self.model_version - self.args.max_staleness - 2, None)
        errors = [self.errors_of(group) for group in groups[:2]]
        self.steps.append(
            {
                "sizes": [len(group) for group in groups],
                "tickets": [group.order.ticket for group in groups],
                "rewards": [group.rewards_per_func[:, 0].tolist() for group in groups],
                "staleness": [self.model_version - group.model_version for group in groups],
                "advantages": advantages.tolist(),
                "log_prob_errors": [max(float(nearest.max()) for nearest, _ in each) for each in errors],
                "of_weights_before": [float(oldest.max()) for each in errors for _, oldest in each],
            }
        )
        return advantages, in_loss

    @torch.no_grad()
    def errors_of(self, group) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each completion, by token: the error under the nearest weights, and under those before its group."""
        versions = [version for version in self.weights if version >= group.model_version]
        found = []
        for (row,) in group.sequences:
            tokens, mask = torch.tensor([row.input_ids]), torch.tensor(row.completion_mask[1:]) > 0
            errors = []
            for version in [max(group.model_version - 1, min(self.weights)), *versions]:
                self.reference.load_state_dict(self.weights[version])
                logits = self.reference(input_ids=tokens).logits[0, :-1]
                own = logits.log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
                errors.append((own - torch.tensor(row.old_log_probs[1:]))[mask].abs())
            found.append((torch.stack(errors[1:]).min(0).values, errors[0]))
        return found


def pass_at_1(model, tokenizer, trained_on) -> float:
    """On mazes that are not trained on; the same mazes and seed for every model."""
    options = {"num_samples": 64, "max_new_tokens": 14, "seed": 0, "progress": False}
    mazes = make_maze_dataset(200, prompt_style="bare", seed=77, exclude=trained_on)
    return evaluate(model, tokenizer, mazes, maze_reward, **options).pass_at_k[1]


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
    parser.add_argument("--long-prompt", action="store_true", help="one that the server refuses, among the others")
    parser.add_argument("--strike", choices=["child", "server", "server hangs"])
    arguments = parser.parse_args()
    answer_with_stacks(arguments.folder)
    use_cpu_engine()
    without_gpu()
    dataset = make_maze_dataset(400, prompt_style="bare", seed=5)
    if arguments.long_prompt:
        dataset = dataset.select(range(20)).map(
            lambda row, place: {"prompt": row["prompt"] + "." * 500 * (place == 7)}, with_indices=True
        )
    trainer = Recording(
        arguments.model,
        maze_reward,
        AsyncRLVRConfig(
            str(arguments.folder / "run"),
            **{"num_generations": 8, "prompts_per_update": PROMPTS, "max_completion_length": 14, "token_budget": 2048},
            **{"max_steps": arguments.steps, "max_staleness": 2, "learning_rate": 3e-4, "max_inflight_tasks": 64},
            **{"vllm_server_base_url": arguments.server, "vllm_server_timeout": 10, "request_timeout": 30},
            **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none"},
            **{"disable_tqdm": True, "logging_steps": 1, "save_strategy": "steps", "save_steps": 5},
        ),
        dataset,
        processing_class=AutoTokenizer.from_pretrained(arguments.model),
        weight_transfer=CheckpointTransfer(arguments.server),
        **METHODS[arguments.method],
    )
    trainer.steps, trainer.weights = [], {}
    trainer.reference = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    strikes = {
        "child": lambda: os.kill(trainer.rollout_worker._process.pid, signal.SIGKILL),
        "server": lambda: send(arguments.pid, signal.SIGKILL),
        "server hangs": lambda: send(arguments.pid, signal.SIGSTOP),
    }
    if arguments.strike:
        trainer.add_callback(Strikes(6, strikes[arguments.strike], arguments.folder / "failed_at"))
    before = pass_at_1(trainer.reference, trainer.processing_class, dataset)
    trainer.train()
    trainer.reference.load_state_dict(trainer.model.state_dict())
    after = pass_at_1(trainer.reference, trainer.processing_class, dataset)
    saved = {"steps": trainer.steps, "pass_at_1": [before, after]}
    (arguments.folder / "async.json").write_text(json.dumps(saved), encoding="utf-8")


if __name__ == "__main__":
    main()
