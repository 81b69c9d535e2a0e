"""A loss or a weight that is NaN or infinite is an error, on every process, before it is trained on or saved.

Gradients are not checked: under fp16 some are infinite now and then, and the gradient scaler skips the step.
"""

import torch
from torch import Tensor, nn

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
def _first_not_finite(model: nn.Module) -> str | None:
    """Name of a parameter whose part on this process is not finite."""
    for name, parameter in model.named_parameters():
        part = getattr(parameter, "ds_tensor", parameter)  # ZeRO-3 keeps what it shards there
        part = part.to_local() if hasattr(part, "to_local") else part  # FSDP2
        if not part.isfinite().all():
            return name
    return None
