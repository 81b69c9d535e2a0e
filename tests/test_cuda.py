"""On a GPU: the trainer's passes have the gradient of single rows, and stages and checkpoints work there."""

import pytest
import torch
from row_by_row import UNEVEN, gradient_in_passes, gradient_row_by_row
from tiny_training import build, flat_weights, planned_batch, sample, share_of_right_moves, trained

from rlvr_trl import RLVRTrainer
from rlvr_trl.advantages import PassAtK
from rlvr_trl.attention import without_cudnn_attention
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


class OnTheCPU:
    """An estimator that leaves every second completion out of the loss, and whose tensors are on the CPU."""

    drops_rows = True

    def __call__(self, groups):
        return torch.arange(len(groups.rewards)) - 1.5

    def rows_in_loss(self, groups):
        return torch.arange(len(groups.rewards)) % 2 == 0


@pytest.mark.parametrize("rollouts", [None, UNEVEN], ids=["equal", "ragged"])
def test_an_estimator_on_the_cpu_trains_on_cuda(settings, mazes, tokenizer, rollouts):
    changed = settings | {"prompts_per_batch": 4, "max_steps": 1}
    trainer = build(
        RLVRTrainer, changed, mazes, tokenizer, share_of_right_moves, advantages=OnTheCPU(), rollouts=rollouts
    )
    batch = sample(trainer, mazes, 4)
    assert batch["advantages"].is_cuda and batch["in_loss"].is_cuda
    assert batch["in_loss"].sum() == (len(batch["in_loss"]) + 1) // 2
    trainer.train()


def test_attention_of_padded_rows_has_a_finite_gradient_on_cuda():
    """At a width with which cuDNN's has not (https://github.com/pytorch/pytorch/issues/196678)."""
    width = 960
    mask = torch.ones(width, width, dtype=torch.bool, device="cuda").tril()[None, None].clone()
    mask[..., :100] = False  # padding: the first queries have no key
    inputs = [torch.randn(1, 2, width, 64, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in "qkv"]
    with without_cudnn_attention():
        out = torch.nn.functional.scaled_dot_product_attention(*inputs, attn_mask=mask)
    gradients = torch.autograd.grad(out, inputs, torch.randn_like(out) * mask.any(dim=-1, keepdim=True))
    assert all(gradient.isfinite().all() for gradient in gradients)
