"""Trains on what a real vLLM engine samples, and writes what every rank trained on. Run by test_training.py."""

import argparse
from dataclasses import dataclass

import torch
from bounded import answer_with_stacks
from cpu_engine import use_cpu_engine
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback

from rlvr_trl import DARSConfig, DARSTrainer, PassAtKConfig, PassAtKTrainer, RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.rollouts import DynamicSampling


TOP_K, MAZES = 2, 24
FIELDS = ("old_per_token_logps", "sampling_per_token_logps", "importance_sampling_ratio")

# Extra completions of three prompts, a batch each. 12 rows come first, 6 for each of two ranks
PLAN = [
    (0, 0, 0),  # no rank has any: no rank may ask
    (1, 0, 0),  # the second rank has nothing but what fills it up
    (0, 5, 2),  # uneven, and odd
    (5, 5, 5),  # everything at the cap
]
MODES = {
    "token_truncate": {"clip_min": 0.4, "clip_max": 0.5},
    "token_mask": {"clip_min": 0.4, "clip_max": 0.5},
    "sequence_truncate": {"clip_min": 0.005, "clip_max": 0.01},
    "sequence_mask": {"clip_min": 0.005, "clip_max": 0.01},
}


@dataclass
class Planned:
    """Asks for counts that are written down, in one stage."""

    plan: list[tuple[int, ...]]
    max_generations: int = 9
    batch: int = -1

    def start_batch(self, progress):
        self.batch += 1

    def __call__(self, stage, num_samples, num_correct, num_judged):
        return torch.tensor(self.plan[self.batch]) if stage == 1 else torch.zeros_like(num_samples)

    def state_dict(self):
        return {"batch": self.batch}

    def load_state_dict(self, state):
        self.batch = state["batch"]


def a_third_is_right(completion_ids, **kwargs):
    return [float(sum(ids) % 3 == 0) for ids in completion_ids]


class BelongsToPrompt:
    """
    1 for a completion that the policy could have sampled after its prompt, 0 for one of another prompt.

    Only the `TOP_K` likeliest tokens are sampled; a token is allowed to be as likely as the last of them but for
    rounding. The weight of this reward is 0: it is for the log.
    """

    __name__ = "belongs"
    trainer = None

    def __call__(self, prompts, completion_ids, **kwargs):
        model, tokenizer = self.trainer.accelerator.unwrap_model(self.trainer.model), self.trainer._tokenizer
        return [
            float(worst_rank(model, tokenizer(prompt)["input_ids"], ids) < TOP_K)
            for prompt, ids in zip(prompts, completion_ids, strict=True)
        ]


@torch.no_grad()
def next_logits(model, prompt: list[int], completion: list[int]):
    """Logits `(C, V)` of every token of a completion after its prompt, computed alone and without padding."""
    logits = model(input_ids=torch.tensor([prompt + completion])).logits[0]
    return logits[len(prompt) - 1 : -1]


def worst_rank(model, prompt, completion) -> int:
    """How many tokens are likelier than the least likely one of the completion, at its place."""
    logits = next_logits(model, prompt, completion)
    chosen = logits.gather(1, torch.tensor(completion).unsqueeze(1))
    return int((logits > chosen + 1e-5).sum(dim=1).max())


def log_probs(model, prompt: list[int], completion: list[int]):
    """
    Log-probs of a completion, and those it was sampled with: of the `TOP_K` likeliest. Two of shape `(C,)`.

    Where the last of these and the next one are as likely but for rounding, either may have been kept.
    """
    logits, tokens = next_logits(model, prompt, completion), torch.tensor(completion).unsqueeze(1)
    chosen, kept = logits.gather(1, tokens).squeeze(1), logits.topk(TOP_K).values  # (C,), (C, TOP_K)
    sampled = torch.where(chosen > kept[:, -1] - 1e-5, chosen - kept.logsumexp(dim=1), -torch.inf)
    return chosen - logits.logsumexp(dim=1), sampled


class Recording:
    """Keeps every batch before it trains on it, and what a second route says about its rows."""

    def _generate_and_score_completions(self, inputs):
        output = super()._generate_and_score_completions(inputs)
        model = self.accelerator.unwrap_model(self.model)
        logged = self.logged_completions
        prompts, rows = list(dict.fromkeys(logged["prompt"])), []
        for row in range(len(output["prompt_ids"])):
            prompt = output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
            completion = output["completion_ids"][row][output["completion_mask"][row].bool()].tolist()
            own = self._tokenizer.decode(prompt)
            other = self._tokenizer(prompts[prompts.index(own) - 1])["input_ids"]
            full, sampled = log_probs(model, prompt, completion)
            rows.append(
                {
                    "prompt": own,
                    "completion": self._tokenizer.decode(completion, skip_special_tokens=True),
                    "advantage": output["advantages"][row].item(),
                    "expected_old": full,
                    "expected_sampling": sampled,
                    "sampling_of_other_prompt": log_probs(model, other, completion)[1],
                    "sampling_before_last_step": log_probs(self.before, prompt, completion)[1],
                    **{name: output[name][row][: len(completion)].clone() for name in FIELDS},
                }
            )
        self.before.load_state_dict(model.state_dict())
        logs = {name: logged[name] for name in ("prompt", "completion", "advantages")}
        logs |= {f"rewards/{name}": rewards for name, rewards in logged["rewards"].items()}
        self.batches.append({"rows": rows, **logs})
        return output


def train(trainer_class, config_class, arguments, name, *, rollouts=None, **settings):
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    config = config_class(
        f"{arguments.folder}/{name}",
        num_generations=4,
        prompts_per_batch=3,  # of two ranks, the second group spans both
        per_device_train_batch_size=4,
        max_completion_length=6,
        top_k=TOP_K,
        loss_type="dapo",
        scale_rewards="none",
        learning_rate=2e-3,  # of Adam: a step changes every log-prob
        lr_scheduler_type="constant",
        reward_weights=[1.0, 0.0],
        **settings,
        **{"use_vllm": True, "vllm_mode": arguments.mode, "vllm_max_model_length": 128},
        **{"vllm_tensor_parallel_size": arguments.tensor_parallel, "vllm_server_base_url": arguments.server},
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": "none", "logging_steps": 1, "save_strategy": "no"},
        disable_tqdm=name != "dars",  # once with progress bars, of which vLLM makes some
    )
    recording = type("Recording", (Recording, trainer_class), {})
    belongs = BelongsToPrompt()
    trainer = recording(
        AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32),
        [a_third_is_right, belongs],
        config,
        make_maze_dataset(MAZES, prompt_style="bare", seed=5),
        processing_class=tokenizer,
        **{"rollouts": rollouts} if rollouts is not None else {},
    )
    trainer.remove_callback(PrinterCallback)
    assert trainer.accelerator.num_processes == arguments.processes
    belongs.trainer, trainer.batches = trainer, []
    trainer.before = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    trainer.train()
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    weights = {
        name: value.detach() for name, value in trainer.accelerator.unwrap_model(trainer.model).named_parameters()
    }
    saved = {"batches": trainer.batches, "history": history, "weights": weights}
    torch.save(saved, f"{arguments.folder}/{name}-{trainer.accelerator.process_index}.pt")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("model")
    parser.add_argument("mode", choices=["colocate", "server"])
    parser.add_argument("processes", type=int)
    parser.add_argument("--tensor-parallel", type=int, default=1)
    parser.add_argument("--server")
    arguments = parser.parse_args()
    answer_with_stacks(arguments.folder)
    use_cpu_engine()

    train(PassAtKTrainer, PassAtKConfig, arguments, "pass_at_k", k=2, max_steps=3)
    dars = {"schedule": "hardness_weighted", "zero_accuracy": "cap", "max_generations": 9}
    train(DARSTrainer, DARSConfig, arguments, "dars", **dars, max_steps=3)
    train(RLVRTrainer, RLVRConfig, arguments, "planned", rollouts=Planned(PLAN), max_steps=len(PLAN))
    train(RLVRTrainer, RLVRConfig, arguments, "refilled", rollouts=DynamicSampling(max_prompts=MAZES), max_steps=4)
    for mode, bounds in MODES.items():
        correction = {f"vllm_importance_sampling_{name}": value for name, value in bounds.items()}
        correction["vllm_importance_sampling_mode"] = mode
        train(RLVRTrainer, RLVRConfig, arguments, mode, rollouts=Planned([(0, 5, 2)]), max_steps=1, **correction)


if __name__ == "__main__":
    main()
