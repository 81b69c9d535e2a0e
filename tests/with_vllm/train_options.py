"""Trains with TRL's options on what a colocated vLLM samples, one run an option. Run by test_vllm_options.py."""

import argparse
import contextlib
import io

import torch
from bounded import answer_with_stacks
from cpu_engine import use_cpu_engine
from peft import LoraConfig
from train import TOP_K, Planned, a_third_is_right, log_probs
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback

from rlvr_trl import DARSConfig, DARSTrainer, PassAtKCallback, RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.trainer import generation_progress


PLAN = [(0, 5, 2), (3, 0, 1)]  # extra completions of three prompts, a batch each
LORA = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"}
TEMPLATE = "{{ first }}{% for message in messages %}{{ message['content'] }}{% endfor %}*"
FIRST = "."  # what `chat_template_kwargs` puts at the start of a prompt
NUM_SAMPLES = 2  # of PassAtKCallback, all greedy
MAX_LENGTH = 8

# What each run of two batches sets
OPTIONS = {
    "beta": {"beta": 0.1},
    "mask_truncated_completions": {"mask_truncated_completions": True, "max_completion_length": 12},
    "num_iterations": {"num_iterations": 2, "max_steps": 4},
    "importance_sampling_level": {"importance_sampling_level": "sequence"},
    "chat_template_kwargs": {"chat_template_kwargs": {"first": FIRST}},
}


class Recording:
    """Keeps every batch before it trains on it, and what a second route says about its rows."""

    def _generate_and_score_completions(self, inputs):
        output, logged = super()._generate_and_score_completions(inputs), self.logged_completions
        model = self.accelerator.unwrap_model(self.model)
        with_adapter = hasattr(model, "disable_adapter")
        masks = output["prompt_mask"].bool()
        prompts = [ids[mask].tolist() for ids, mask in zip(output["prompt_ids"], masks, strict=True)]
        distinct = [list(prompt) for prompt in dict.fromkeys(map(tuple, prompts))]
        ends = self._tokenizer.eos_token_id, self._tokenizer.pad_token_id  # as TRL decides what is truncated
        rows = []
        for row, prompt in enumerate(prompts):
            mask = output["completion_mask"][row].bool()
            in_loss = mask.any().item()  # a truncated completion that is masked has all tokens there are
            completion = output["completion_ids"][row][mask if in_loss else ...].tolist()
            other = distinct[distinct.index(prompt) - 1]
            with model.disable_adapter() if with_adapter else contextlib.nullcontext():
                without_adapter = log_probs(model, prompt, completion)[1]
            full, sampled = log_probs(model, prompt, completion)
            width = len(completion)
            rows.append(
                {
                    "prompt": self._tokenizer.decode(prompt),
                    "of_reward": logged["prompt"][row],
                    "truncated": completion[-1] not in ends,
                    "in_loss": in_loss,
                    "tokens": width,
                    "sampling_per_token_logps": output["sampling_per_token_logps"][row][:width].clone(),
                    "expected_old": full,
                    "expected_sampling": sampled,
                    "without_adapter": without_adapter,
                    "sampling_of_other_prompt": log_probs(model, other, completion)[1],
                    "at_start": log_probs(self.at_start, prompt, completion)[0],
                    "sampling_before": self.before(prompt, completion),
                    "reference": output["ref_per_token_logps"][row][:width].clone() if self.args.beta else None,
                }
            )
        self.before = log_probs_of_now(model)
        self.batches.append(
            {
                "rows": rows,
                "step": self.state.global_step,
                "prompt": [row["prompt"] for row in rows],
                "advantages": output["advantages"].tolist(),
                "rewards/a_third_is_right": logged["rewards"]["a_third_is_right"],
            }
        )
        return output


def log_probs_of_now(model):
    """Says with which log-probs a completion would have been sampled from the weights as they are now."""
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def of_then(prompt, completion):
        now = {name: value.clone() for name, value in model.state_dict().items()}
        model.load_state_dict(state)
        sampled = log_probs(model, prompt, completion)[1]
        model.load_state_dict(now)
        return sampled

    return of_then


class Greedy(TrainerCallback):
    """Keeps what PassAtKCallback sampled, and what the weights of that moment say when asked for the likeliest."""

    def __init__(self, trainer, measured):
        self.trainer, self.measured, self.kept = trainer, measured, []

    def on_train_begin(self, args, state, control, **kwargs):
        self._keep()

    def on_step_end(self, args, state, control, **kwargs):
        self._keep()

    def _keep(self):
        result, tokenizer = self.measured.latest, self.trainer._tokenizer
        expected = [likeliest(self.trainer.model, tokenizer, problem.row["prompt"]) for problem in result.problems]
        step, texts = result.settings["step"], result.completions.texts
        self.kept.append({"step": step, "texts": texts, "expected": expected})


@torch.no_grad()
def likeliest(model, tokenizer, prompt: str) -> str:
    """The greedy completion, computed without a cache and without padding."""
    ids = tokenizer(prompt)["input_ids"]
    completion = []
    while len(completion) < MAX_LENGTH and completion[-1:] != [tokenizer.eos_token_id]:
        logits = model(input_ids=torch.tensor([ids + completion])).logits[0, -1]
        completion.append(int(logits.argmax()))
    return tokenizer.decode(completion, skip_special_tokens=True)


def build(arguments, name, trainer_class=RLVRTrainer, config_class=RLVRConfig, *, chats=False, settings, **kwargs):
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    mazes = make_maze_dataset(24, prompt_style="bare", seed=5)
    if chats:
        tokenizer.chat_template = TEMPLATE
        mazes = mazes.map(lambda row: {"prompt": [{"role": "user", "content": row["prompt"]}]})
    base = {
        **{"num_generations": 4, "prompts_per_batch": 3, "per_device_train_batch_size": 4},
        **{"max_completion_length": MAX_LENGTH, "top_k": TOP_K, "loss_type": "dapo", "scale_rewards": "none"},
        **{"learning_rate": 2e-3, "lr_scheduler_type": "constant", "max_steps": len(PLAN)},
        **{"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 128},
        **{"use_cpu": True, "bf16": False, "gradient_checkpointing": False},
        **{"report_to": "none", "logging_steps": 1, "save_strategy": "no", "disable_tqdm": True},
    }
    trainer = trainer_class(
        AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32),
        a_third_is_right,
        config_class(f"{arguments.folder}/{name}", **base | settings),
        mazes,
        processing_class=tokenizer,
        **kwargs,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def recorded(trainer_class):
    return type("Recording", (Recording, trainer_class), {})


def train(arguments, name, *args, **kwargs):
    trainer = build(arguments, name, *args, **kwargs)
    trainer.batches, trainer.before = [], log_probs_of_now(trainer.accelerator.unwrap_model(trainer.model))
    trainer.at_start = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    trainer.train()
    model = trainer.accelerator.unwrap_model(trainer.model)
    return {
        "batches": trainer.batches,
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "weights": {name: value.detach() for name, value in model.named_parameters()},
        "at_start": dict(trainer.at_start.named_parameters()),
    }


def measure(arguments):
    """Greedy measurements during a training in which single completions have advantages: greedy groups are equal."""
    trainer = build(
        arguments,
        "callback",
        settings={"top_k": 1, "learning_rate": 2e-2},
        rollouts=Planned(PLAN),
        advantages=lambda groups: groups.rewards - 0.5,
    )
    measured = PassAtKCallback(
        trainer, make_maze_dataset(5, prompt_style="bare", seed=1), num_samples=NUM_SAMPLES, every=1, batch_size=4
    )
    greedy = Greedy(trainer, measured)
    trainer.add_callback(measured)
    trainer.add_callback(greedy)
    trainer.train()
    return greedy.kept


def show(arguments) -> str:
    """What a generation in two stages writes to stderr when bars appear at once."""
    generation_progress.DELAY = 0
    trainer = build(arguments, "bar", settings={"disable_tqdm": False, "max_steps": 1}, rollouts=Planned(PLAN))
    with contextlib.redirect_stderr(io.StringIO()) as written:
        trainer.train()
    return written.getvalue()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("model")
    arguments = parser.parse_args()
    answer_with_stacks(arguments.folder)
    use_cpu_engine()

    runs = {}
    dars = {"schedule": "hardness_weighted", "zero_accuracy": "cap", "max_generations": 9}
    runs["lora"] = train(
        *(arguments, "lora", recorded(DARSTrainer), DARSConfig),
        settings=dars | {"max_steps": 3, "learning_rate": 2e-2},
        peft_config=LoraConfig(**LORA),
    )
    for name, settings in OPTIONS.items():
        chats = name == "chat_template_kwargs"
        runs[name] = train(
            *(arguments, name, recorded(RLVRTrainer)), chats=chats, settings=settings, rollouts=Planned(PLAN)
        )
    runs["callback"] = measure(arguments)
    runs["bar"] = show(arguments)
    torch.save(runs, f"{arguments.folder}/runs.pt")


if __name__ == "__main__":
    main()
