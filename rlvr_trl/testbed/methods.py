"""Training on the testbed: one recipe, and what each method changes in it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer
from trl import GRPOConfig, GRPOTrainer

from ..trainer import (
    AGRAEConfig,
    AGRAETrainer,
    DARSConfig,
    DARSTrainer,
    NegativeGRPOConfig,
    NegativeGRPOTrainer,
    PassAtKConfig,
    PassAtKTrainer,
    RLVRConfig,
    RLVRTrainer,
)
from .progress_bar import show_figures_in_bar
from .tasks import MAZE, Task


NUM_GENERATIONS = 16
PROMPTS_PER_STEP = 16

# The loss and the higher upper clip are those of DAPO (arXiv 2503.14476). The learning rate falls to 0: otherwise the
# tiny model oscillates.
RECIPE = {
    "per_device_train_batch_size": PROMPTS_PER_STEP * NUM_GENERATIONS,
    "num_generations": NUM_GENERATIONS,
    "learning_rate": 2e-4,
    "lr_scheduler_type": "linear",
    "adam_beta2": 0.99,
    "loss_type": "dapo",
    "epsilon_high": 0.28,
    "beta": 0.0,
    "temperature": 1.0,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "logging_steps": 5,
}


@dataclass(frozen=True)
class Method:
    """A trainer, its configuration class, the settings it adds to the recipe, and its rewards; None: the task's."""

    label: str
    trainer: Callable
    config: Callable
    settings: dict[str, Any]
    rewards: tuple[Callable, ...] | None = None

    @property
    def recipe(self) -> dict[str, Any]:
        """All settings it is trained with."""
        return RECIPE | self.settings

    def rewards_on(self, task: Task) -> tuple[Callable, ...]:
        return (task.reward,) if self.rewards is None else self.rewards

    @property
    def prompts_per_batch(self) -> int:
        return self.settings.get("prompts_per_batch", PROMPTS_PER_STEP)

    @property
    def updates_per_batch(self) -> int:
        """Optimizer steps of a batch."""
        mini_batches = -(-self.prompts_per_batch // self.settings.get("prompts_per_update", self.prompts_per_batch))
        return mini_batches * self.settings.get("num_iterations", 1)

    def completions_of(self, logs: dict) -> float:
        """Completions sampled for a batch, those of prompts that were given up too, from what was logged of it."""
        return logs.get("rollouts/completions_sampled", self.prompts_per_batch * self.recipe["num_generations"])

    def tokens_of(self, logs: dict) -> float:
        """The same in tokens."""
        usual = self.prompts_per_batch * self.recipe["num_generations"]
        return logs.get("rollouts/tokens_sampled", usual * logs["completions/mean_length"])


DEFAULT_METHODS = ("grpo", "pass_at_k", "dars")

METHODS = {
    "grpo": Method("GRPO", GRPOTrainer, GRPOConfig, {}),
    "pass_at_k": Method("Pass@k (k=8)", PassAtKTrainer, PassAtKConfig, {"k": 8}),
    "dars": Method(
        "DARS-HW (8 to 32)",
        DARSTrainer,
        DARSConfig,
        {"prompts_per_batch": PROMPTS_PER_STEP, "num_generations": 8, "max_generations": 32, "loss_type": "dr_grpo"},
    ),
    "a_grae": Method("A-GRAE", AGRAETrainer, AGRAEConfig, {}),
    "grpo_n": Method("GRPO-N", NegativeGRPOTrainer, NegativeGRPOConfig, {}),
    "nsr": Method("NSR", RLVRTrainer, RLVRConfig, {"advantages": "nsr"}),
}


def rollouts_per_prompt(method: Method, log: list[dict]) -> float:
    """Mean number of completions sampled for each prompt of a batch over a run, from the trainer's log."""
    batches = [entry for entry in log if "completions/mean_length" in entry]
    return sum(map(method.completions_of, batches)) / len(batches) / method.prompts_per_batch


def make_method_trainer(
    method: Method,
    base: Path,
    output_dir: Path,
    problems: Dataset,
    *,
    seed: int,
    task: Task = MAZE,
    batches: int | None = None,
    **settings,
) -> Trainer:
    """
    The trainer of a method for the model in folder `base`.

    Args:
        batches (`int`, *optional*): how long it trains. Until it has seen every problem once by default.
        settings: settings of the configuration that replace those of the recipe, the task and the method.
    """
    recipe: dict[str, Any] = {"max_completion_length": task.max_completion_length} | method.recipe
    if method.config is not GRPOConfig:  # TRL's own configuration has no such settings
        recipe |= {"share_prompt_prefill": True, "share_prompt_scoring": True}
    recipe |= settings
    batches = len(problems) // method.prompts_per_batch if batches is None else batches
    return method.trainer(
        AutoModelForCausalLM.from_pretrained(base),
        list(method.rewards_on(task)),
        method.config(
            str(output_dir),
            **recipe,
            max_steps=batches * method.updates_per_batch,
            seed=seed,
            use_cpu=not torch.cuda.is_available(),
        ),
        problems,
        processing_class=AutoTokenizer.from_pretrained(base),
    )


def train(
    method: Method,
    base: Path,
    output_dir: Path,
    problems: Dataset,
    *,
    seed: int,
    task: Task = MAZE,
    disable_tqdm: bool = False,
) -> list[dict]:
    """
    Trains the model in folder `base` on every problem once and saves it, with its tokenizer, in `output_dir`.

    Returns:
        `list[dict]`: the trainer's log.

    Raises:
        `ValueError`: There are fewer problems than one step needs.
    """
    trainer = make_method_trainer(method, base, output_dir, problems, seed=seed, task=task, disable_tqdm=disable_tqdm)
    show_figures_in_bar(trainer, method.label, {"reward": "reward", "entropy": "entropy"})
    trainer.train()
    trainer.save_model()
    return trainer.state.log_history
