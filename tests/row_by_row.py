"""The second route for ragged batches: one row at a time, without padding, merging, sorting or passes."""

from dataclasses import dataclass

import pytest
import torch
from tiny_training import flat_gradient, train_on
from trl import GRPOTrainer
from trl.trainer.utils import unsplit_pixel_values_by_grid


TOKENS_OF_BATCH = ("dapo", "cispo", "vespo")


@dataclass
class Uneven:
    """An allocator that asks for the same given counts in every batch."""

    extra: tuple[int, ...]
    max_generations: int

    def start_batch(self, progress):
        pass

    def __call__(self, stage, num_samples, num_correct, num_judged):
        return torch.tensor(self.extra) if stage == 1 else torch.zeros_like(num_samples)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


# No extra completion for the first prompt, all up to the cap for the second
UNEVEN = Uneven((0, 8, 3, 2), max_generations=12)
ROLLOUTS = pytest.mark.parametrize("rollouts", [None, UNEVEN], ids=["equal", "ragged"])


def prompts_of(extra, num_generations: int = 4) -> list[int]:
    """The prompt of each row of a merged batch on one process."""
    first = [prompt for prompt in range(len(extra)) for _ in range(num_generations)]
    return first + [prompt for prompt, count in enumerate(extra) for _ in range(count)]


def single(batch: dict, row: int) -> dict:
    """One row of a batch as a batch of its own, with nothing but its own columns."""
    prompt, completion = batch["prompt_mask"][row].bool(), batch["completion_mask"][row].bool()
    if not completion.any():  # masked because it was truncated
        completion = torch.ones_like(completion)
    alone = {}
    for name, value in batch.items():
        if isinstance(value, list):
            alone[name] = [value[row]]
        elif value is None or value.dim() == 0:
            alone[name] = value
        elif value.dim() == 2 and value.shape[1] == len(prompt) + len(completion):
            alone[name] = value[row, torch.cat([prompt, completion])][None]
        elif name in ("prompt_ids", "prompt_mask"):
            alone[name] = value[row, prompt][None]
        elif value.dim() == 2 and value.shape[1] == len(completion):
            alone[name] = value[row, completion][None]
        else:
            alone[name] = value[row][None]
    return unsplit_pixel_values_by_grid(alone)


def loss_of_row(trainer, batch: dict, row: int) -> torch.Tensor:
    """TRL's loss of one row, with its weight in the loss of the batch."""
    loss = GRPOTrainer._compute_loss(trainer, trainer.model, single(batch, row))
    mask = batch["completion_mask"] * batch.get("tool_mask", 1)
    if trainer.loss_type in TOKENS_OF_BATCH:
        return loss  # TRL divides by the tokens of the batch
    share = mask[row].sum() / mask.sum() if trainer.loss_type == "bnpo" else 1 / len(mask)
    return loss * share


def gradient_row_by_row(trainer, batch: dict) -> torch.Tensor:
    trainer.model.zero_grad()
    for row in range(len(batch["prompt_ids"])):
        loss_of_row(trainer, batch, row).backward()
    return flat_gradient(trainer.model)


def gradient_in_passes(trainer, batch: dict) -> torch.Tensor:
    (_,) = train_on(trainer, batch)
    return flat_gradient(trainer.model)


def assert_same_gradient(trainer, batch: dict, tolerance: float = 1e-5) -> None:
    expected, found = gradient_row_by_row(trainer, batch), gradient_in_passes(trainer, batch)
    assert expected.norm() > 1e-6
    error = ((found - expected).norm() / expected.norm()).item()
    assert error <= tolerance, error
