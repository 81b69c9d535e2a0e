"""On a GPU: the trainer's passes have the gradient of single rows, and stages and checkpoints work there."""

import pytest
import torch
from row_by_row import UNEVEN, gradient_in_passes, gradient_row_by_row
from tiny_training import build, flat_weights, planned_batch, sample, share_of_right_moves, trained

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import PassAtK
from rlvr_trl.rollouts import DARS


pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def settings(cpu_settings):
    return cpu_settings | {"use_cpu": False}


@pytest.fixture(autouse=True)
def no_tf32():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo", "bnpo"])
@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("rollouts", [None, UNEVEN], ids=["equal", "ragged"])
def test_gradient_on_cuda_is_that_of_single_rows(settings, mazes, tokenizer, loss_type, rows, rollouts):
    changed = settings | {"per_device_train_batch_size": rows, "prompts_per_batch": 4, "loss_type": loss_type}
    trainer = build(RLVRTrainer, changed, mazes, tokenizer, share_of_right_moves, rollouts=rollouts)
    batch = sample(trainer, mazes, 4)
    assert batch["completion_ids"].is_cuda and batch["advantages"].is_cuda
    expected, found = gradient_row_by_row(trainer, batch), gradient_in_passes(trainer, batch)
    assert expected.norm() > 1e-6
    assert (found - expected).norm() / expected.norm() <= 1e-5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bf16": True},
        {"gradient_checkpointing": True},
        {"max_extra_rollouts": 5},
        {"max_rows_per_generation": 3},
        {"num_iterations": 2},
    ],
    ids=str,
)
def test_dars_trains_on_cuda(settings, mazes, tokenizer, options):
    changed = settings | {"prompts_per_batch": 2, "correctness_threshold": 0.1} | options
    estimator, allocator = PassAtK(2), DARS("hardness_weighted", max_generations=8)
    trainer = build(
        RLVRTrainer, changed, mazes, tokenizer, share_of_right_moves, advantages=estimator, rollouts=allocator
    )
    before = flat_weights(trainer.model).cpu()
    trainer.train()
    assert planned_batch(trainer)["completion_ids"].is_cuda
    after = flat_weights(trainer.model).cpu()
    assert after.isfinite().all() and not torch.equal(before, after)


def test_a_run_on_cuda_resumes(settings, mazes, tokenizer):
    changed = settings | {"save_strategy": "steps", "save_steps": 1, "prompts_per_batch": 4}
    options = {"rewards": share_of_right_moves, "rollouts": UNEVEN}
    whole = flat_weights(trained(RLVRTrainer, changed, mazes, tokenizer, **options).model).cpu()
    again = build(RLVRTrainer, changed, mazes, tokenizer, **options)
    again.train(resume_from_checkpoint=f"{changed['output_dir']}/checkpoint-1")
    torch.testing.assert_close(flat_weights(again.model).cpu(), whole, rtol=1e-4, atol=1e-6)
