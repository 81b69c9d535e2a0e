"""A loss, gradient or weight that is NaN or infinite is an error, on every process, before it is trained on or saved.

Under fp16 gradients are not checked: some are infinite now and then, and the gradient scaler skips the step.
"""

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback

from ..distributed import raise_together


def check_loss(accelerator, loss: Tensor, inputs: dict, model: nn.Module, step: int, max_grad_norm: float) -> None:
    """
    Refuses a loss that is not finite. All processes must call it, before the backward pass.

    Args:
        loss (`Tensor` of shape `()`): the loss of this process, detached.
        inputs (`dict`): the batch that the loss was computed from.
        model (`nn.Module`): looked at for the cause.
        step (`int`): optimizer steps done.
        max_grad_norm (`float`): of the configuration, for the message.

    Raises:
        `FloatingPointError`: On every process; names the step and the likely cause.
    """
    error = None
    if not loss.isfinite().all():
        error = FloatingPointError(
            f"The loss of optimizer step {step + 1} is {loss.item()}. {_likely_cause(model, inputs, max_grad_norm)}"
        )
    raise_together(accelerator, error)


class ChecksGradients(TrainerCallback):
    """
    Refuses gradients that are not finite, once for each optimizer step, right before it.

    Gradients that DeepSpeed keeps to itself are not seen.

    Raises:
        `FloatingPointError`: On every process; names the step and, without clipping, the weight.
    """

    def __init__(self, trainer: Trainer):
        self.trainer = trainer

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        accelerator, model = self.trainer.accelerator, self.trainer.model
        if accelerator.scaler is not None:
            return
        assert model is not None
        name, error = _first_gradient_not_finite(model), None
        if name is not None:
            error = FloatingPointError(
                f"The gradient of {name} is not finite before optimizer step {state.global_step + 1}, though the loss "
                f"was: a kernel of the backward pass failed. {_what_to_try()}"
            )
        raise_together(accelerator, error)


def _what_to_try() -> str:
    if torch.cuda.is_available() and torch.backends.cuda.cudnn_sdp_enabled():
        return (
            "If the model takes torch's attention, set TORCH_CUDNN_SDPA_DEPRIORITIZED=1 in the environment: the "
            "kernel of cuDNN, which torch prefers on some GPUs, may return NaN for padded batches."
        )
    return "Try another `attn_implementation`; `torch.autograd.set_detect_anomaly(True)` names the kernel."


def check_weights(accelerator, model: nn.Module, step: int) -> None:
    """
    Refuses weights that are not finite. Called before a checkpoint is written.

    Raises:
        `FloatingPointError`: On every process; names the step and a weight.
    """
    name = _first_not_finite(model)
    error = None
    if name is not None:
        error = FloatingPointError(
            f"The weight {name} is not finite after optimizer step {step}, and no checkpoint is written. Lower "
            f"`learning_rate`, or set `max_grad_norm`."
        )
    raise_together(accelerator, error)


def _likely_cause(model: nn.Module, inputs: dict, max_grad_norm: float) -> str:
    weight = _first_not_finite(model)
    if weight is not None:
        return (
            f"The weight {weight} is not finite either, so an optimizer step before this one diverged: lower "
            f"`learning_rate` or `max_grad_norm`, which is {max_grad_norm}."
        )
    for name, value in inputs.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
            return f"`{name}` of the batch is not finite, though the weights are: check what computed it."
    return (
        "Weights and batch are finite, so the forward pass or the loss overflowed: with `fp16` try `bf16`, and look "
        "at the logged KL divergence and importance ratios."
    )


@torch.no_grad()
def _first_gradient_not_finite(model: nn.Module) -> str | None:
    """Name of a parameter whose gradient on this process is not finite."""
    found = {name: _local(weight.grad) for name, weight in model.named_parameters() if weight.grad is not None}
    norms = [gradient.norm() for gradient in found.values()]
    if not norms or torch.stack([norm.float().to(norms[0].device) for norm in norms]).isfinite().all():
        return None  # after waiting for the device once
    return next((name for name, gradient in found.items() if not gradient.isfinite().all()), None)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if hasattr(value, "to_local") else value  # FSDP2


@torch.no_grad()
def _first_not_finite(model: nn.Module) -> str | None:
    """Name of a parameter whose part on this process is not finite."""
    for name, parameter in model.named_parameters():
        part = _local(getattr(parameter, "ds_tensor", parameter))  # ZeRO-3 keeps what it shards there
        if not part.isfinite().all():
            return name
    return None
