"""
Tiny trainers for the tests, their rewards, and ways to look into a trainer.

The log of completions and the plan of passes are private attributes of a trainer. Tests read them only through this
file, so that a change to these attributes changes nothing else in the tests.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from trl import GRPOConfig

from rlvr_trl import RLVRTrainer
from rlvr_trl.testbed import build_model


# For any GRPOConfig: on the CPU, in single precision, without reports
ON_CPU = {"use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": "none", "disable_tqdm": True}


# --- rewards ---


def right_moves(completions, **kwargs):
    """1 for a completion with a move to the right, 0 without."""
    return [float("R" in completion) for completion in completions]


def share_of_right_moves(completions, **kwargs):
    """A graded reward, for tests that need more than two values."""
    return [completion.count("R") / 4 for completion in completions]


def short(completions, **kwargs):
    """Higher for shorter completions, so that rewards in a group vary. Takes texts and chats."""
    texts = [said if isinstance(said, str) else said[0]["content"] for said in completions]
    return [1 / (1 + len(text)) for text in texts]


# --- trainers ---


def build(trainer_class, settings, dataset, processor, rewards=right_moves, model=None, **kwargs):
    """A trainer of TRL or of this package, with its own kind of config and, by default, an untrained maze model."""
    config_class = getattr(trainer_class, "_config_class", GRPOConfig)
    if model is None:
        model = build_model(processor, seed=0)
    return trainer_class(model, rewards, config_class(**settings), dataset, processing_class=processor, **kwargs)


def trained(*arguments, **kwargs):
    """A trainer as `build` makes it, after its training."""
    trainer = build(*arguments, **kwargs)
    trainer.train()
    return trainer


def flat_weights(model) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def flat_gradient(model) -> torch.Tensor:
    """The gradient of all parameters that have one, in float64."""
    grads = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    return torch.cat(grads).double()


# --- into a trainer ---


def sample(trainer, dataset, num_prompts: int) -> dict:
    """A generation batch of the first prompts of a dataset, with the usual number of completions each."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1  # Hugging Face sets this in its training loop
    # as from a data loader, each row is a new dict, into which TRL may write
    rows = [dict(row) for row in dataset.select(range(num_prompts)) for _ in range(trainer.num_generations)]
    return trainer._generate_and_score_completions(rows)


def logged_by_trl(trainer) -> dict[str, Any]:
    """The same as `RLVRTrainer.logged_completions`, for stock trainers too."""
    return RLVRTrainer.logged_completions.fget(trainer)


class PlannedStep(NamedTuple):
    """The forward passes of one optimizer step on this process: those for metrics alone, and those with a gradient."""

    without_gradient: list
    with_gradient: list

    @property
    def passes(self) -> list:
        return self.without_gradient + self.with_gradient


def planned_steps(trainer) -> list[PlannedStep]:
    """The passes over the batch that is being trained on, by optimizer step."""
    return [PlannedStep(update.without_gradient, update.with_gradient) for update in trainer._plan.updates]


def planned_batch(trainer) -> dict | None:
    """The whole batch that is being trained on, and `None` where there is none yet."""
    return None if trainer._plan is None else trainer._plan.batch


def train_on(trainer, batch: dict) -> Iterator[torch.Tensor]:
    """Plans the passes over a batch and runs them. Yields the loss of each optimizer step after its gradient."""
    trainer._plan_batch(batch)
    for update in trainer._plan.updates:
        trainer.model.zero_grad()
        yield trainer._train_update(trainer.model, batch, update, None)


class WatchesSteps:
    """A mixin for trainers: calls `see_step` before each optimizer step, with its model, loss and passes."""

    def _train_update(self, model, batch, update, num_items_in_batch):
        loss = super()._train_update(model, batch, update, num_items_in_batch)
        self.see_step(model, loss, update.passes)
        return loss
