"""
Recipes, scaled down, on any number of processes: of some the gradient of each optimizer step of two batches, and the
logs; of every one the weights after two batches.

What is sampled depends on the prompt, how often it was sampled before, and the batch, but on no process.
"""

import json
import random
import sys
from dataclasses import fields
from pathlib import Path

import torch
import yaml
from accelerate.utils import gather_object
from tiny_training import ON_CPU, WatchesSteps
from transformers import AutoModelForCausalLM

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.data import make_maze_dataset
from rlvr_trl.testbed import build_tokenizer


RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
PASS_AT_2 = {"name": "pass_at_k", "k": 2}
UNEVEN = {"prompts_per_batch": 7, "prompts_per_update": 3}  # updates of 3, 2 and 2 prompts
FEW = {"prompts_per_batch": 2, "prompts_per_update": 1}  # on three processes the last has nothing but filler
DARS = {"name": "dars", "max_generations": 9, "schedule": "hardness_weighted"}
REFILLED = {"name": "dynamic_sampling", "base": DARS}
PREDICTED = {"rollouts": {"name": "predicted_dars", "max_generations": 9, "easy": 0.6, "easy_generations": 2}}
PACKED = {"rollouts": {"name": "knapsack", "max_generations": 9}, "selection": "target_accuracy"}
PACKED |= {"num_train_epochs": 3}
LEAST_VARIANCE = {"rollouts": {"name": "variance_optimal", "max_generations": 9}, "advantages": "per_prompt_mean"}
LEAST_VARIANCE |= {"selection": "difficulty_pool", "num_train_epochs": 3}
BY_PASS_RATE = {"rollouts": {"name": "reinforce_ada", "max_generations": 9, "round_size": 2}}
BY_PASS_RATE |= {"advantages": {"name": "training_group", "size": 3, "base": "pass_rate_objective"}}
PREDICTED |= {"selection": {"name": "skip_solved", "threshold": 0.6}, "num_train_epochs": 3}
CASES = [
    ("dars/1.5b_rlvr_baseline", {"prompts_per_batch": 5, "prompts_per_update": 3}),
    ("dars/1.5b_dars_hw", UNEVEN | {"rollouts": DARS}),
    ("dars/1.5b_dars_hw", FEW | {"rollouts": DARS}),
    ("dars/1.5b_dars_hw_breadth", {"prompts_per_batch": 8, "rollouts": DARS}),
    ("pass_at_k/pass_at_8", UNEVEN | {"advantages": PASS_AT_2}),
    ("pass_at_k/without_easy", UNEVEN),  # rows dropped from the loss
    ("a_grae/7b_grpo_a_grae", UNEVEN),
    ("a_grae/7b_grpo", FEW | {"loss_type": "bnpo"}),
    ("two_stage/qwen_7b_grpo_n", UNEVEN),  # a reference model and an entropy bonus
    ("two_stage/qwen_7b_gspo", FEW | {"num_iterations": 2}),
    ("a_grae/7b_dr_grpo", UNEVEN | {"max_steps": 6}),  # from a stream, which needs a number of steps
    ("a_grae/7b_grpo", UNEVEN | {"rollouts": "dynamic_sampling", "num_generations": 2}),
    ("dars/1.5b_dars_hw", FEW | {"rollouts": REFILLED, "num_train_epochs": 3}),
    ("dars/1.5b_rlvr_baseline", UNEVEN | PREDICTED),
    ("dars/1.5b_rlvr_baseline", UNEVEN | PACKED),
    ("dars/1.5b_rlvr_baseline", UNEVEN | LEAST_VARIANCE),
    ("dars/1.5b_rlvr_baseline", FEW | BY_PASS_RATE | {"loss_type": "dapo"}),
]
EVERY = range(len(CASES))
# Where a third process changes most: it has nothing but filler, or no share in an update
CASES_ON = {3: [case for case in EVERY if CASES[case][1].items() >= FEW.items() or case in (1, 5, 13)]}
# A row of each has its own number of completions, so that its estimator and its allocator can work as they are
EVERY_RECIPE = sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
LOGGED = ("prompt", "completion", "advantages", "rewards")


def settings_of(recipe: str, output_dir: str, changed: dict) -> dict:
    """The settings of a recipe that decide how it trains, and `changed` ones; small, on a CPU."""
    known = {field.name for field in fields(RLVRConfig)}
    settings = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    settings = {name: value for name, value in settings.items() if name in known and "vllm" not in name}
    settings |= {"output_dir": output_dir, "num_generations": 4, "per_device_train_batch_size": 3, "warmup_steps": 0}
    settings |= {"max_completion_length": 6, "learning_rate": 0.02, "optim": "sgd", "max_grad_norm": 0.0}
    settings |= {"num_train_epochs": 1, "max_steps": -1, "logging_steps": 1, "save_strategy": "no"}
    return settings | ON_CPU | changed


class Samples:
    """A `rollout_func` that samples the same on any number of processes."""

    def __init__(self, tokenizer):
        self.tokenizer, self.calls = tokenizer, 0

    def __call__(self, prompts, trainer) -> dict:
        everywhere = gather_object(prompts)
        start = trainer.accelerator.process_index * len(prompts)
        sampled = []
        for row, prompt in enumerate(prompts, start):
            draw = random.Random(f"{self.calls} {everywhere[:row].count(prompt)} {prompt}")
            sampled.append([draw.randrange(3, 14) for _ in range(draw.randint(1, 6))])
        self.calls += 1
        ids = [self.tokenizer(prompt)["input_ids"] for prompt in prompts]
        return {"prompt_ids": ids, "completion_ids": sampled, "logprobs": None}


class Watched(WatchesSteps, RLVRTrainer):
    def see_step(self, model, loss, passes):
        model = self.accelerator.unwrap_model(model)
        self.gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).clone())


def even_ids_are_right(completion_ids, **kwargs):
    return [float(sum(ids) % 2 == 0) for ids in completion_ids]


def every_eighth_sum_is_right(completion_ids, **kwargs):
    """Rare enough that 8 completions, or 16, often have none that is right."""
    return [float(sum(ids) % 8 == 0) for ids in completion_ids]


def train(recipe: str, changed: dict, model: str, output_dir: str, processes: int, reward=even_ids_are_right) -> dict:
    """Trains two batches and a part of a third, whose prompts are left out."""
    tokenizer = build_tokenizer()
    args = RLVRConfig(**settings_of(recipe, output_dir, changed))
    mazes = make_maze_dataset(2 * args.prompts_per_batch + 1, prompt_style="bare", seed=5)
    if args.max_steps > 0:
        mazes = mazes.to_iterable_dataset()
    trainer = Watched(
        AutoModelForCausalLM.from_pretrained(model),
        reward,
        args,
        mazes,
        processing_class=tokenizer,
        rollout_func=Samples(tokenizer),
    )
    assert trainer.accelerator.num_processes == processes
    trainer.gradients = []
    trainer.train()
    logged = trainer.logged_completions
    weights = trainer.accelerator.unwrap_model(trainer.model).parameters()
    return {
        "gradients": torch.stack(trainer.gradients),
        "weights": torch.cat([parameter.detach().flatten() for parameter in weights]),
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        "logged": {name: logged[name] for name in LOGGED},
    }


def changes_of(recipe: str) -> dict:
    """What makes a recipe small: the prompts of a batch, each update of which keeps one; two batches."""
    settings = yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())
    per_update = settings.get("prompts_per_update")
    updates = settings["prompts_per_batch"] // per_update if per_update else 1
    small = {"prompts_per_batch": max(updates, 2), "num_generations": settings["num_generations"]}
    small |= {"prompts_per_update": 1} if per_update else {}
    # of several rewards the first is taken
    return small | {"reward_weights": None, "correctness_reward": None, "per_device_train_batch_size": 16}


def train_every_recipe(folder: str, model: str, processes: int) -> dict[str, torch.Tensor]:
    """
    The weights that each recipe ends with, by its name, with those that all begin with as `"start"`. Recipes that
    differ in their models, data and lengths alone are one training.
    """
    begin = AutoModelForCausalLM.from_pretrained(model)
    weights = {"start": torch.cat([parameter.detach().flatten() for parameter in begin.parameters()])}
    trained = {}
    for recipe in EVERY_RECIPE:
        changes = changes_of(recipe)
        settings = json.dumps(settings_of(recipe, "", changes), sort_keys=True)
        if settings not in trained:
            found = train(recipe, changes, model, f"{folder}/run", processes, every_eighth_sum_is_right)
            trained[settings] = found["weights"]
        weights[recipe] = trained[settings]
    return weights


def train_cases(folder: str, model: str, processes: int) -> dict[int, dict]:
    return {case: train(*CASES[case], model, f"{folder}/run", processes) for case in CASES_ON.get(processes, EVERY)}


if __name__ == "__main__":
    folder, model, processes, what = sys.argv[1:]
    results = (train_every_recipe if what == "every" else train_cases)(folder, model, int(processes))
    if torch.distributed.get_rank() == 0:
        torch.save(results, f"{folder}/{processes}.pt")
