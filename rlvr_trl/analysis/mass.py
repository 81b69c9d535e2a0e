"""How a small step of the logits of one position moves the probabilities there (arXiv 2510.04028, Proposition 1)."""

from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel


def predicted_mass_change(model: nn.Module, input_ids: Tensor, logit_step: Tensor) -> Tensor:
    r"""
    The change of the log probabilities of the next token in one step of gradient ascent, to first order:

        Δ log π = [I − e πᵀ] [(∇_θ z)(∇_θ z)ᵀ] Δz,        θ <- θ + (∇_θ z)ᵀ Δz

    Δz is the step of the logits if nothing but them were trained, η ∇_z J. The kernel in the middle says what of it is
    left when weights are trained that all logits share, and how much of it moves other tokens. For a softmax bandit,
    whose logits are its weights, the kernel is the identity.

    Args:
        model (`nn.Module`):
            A causal language model, called with `input_ids`. All weights that require a gradient are trained.
        input_ids (`Tensor` of shape `(P,)`):
            The tokens before.
        logit_step (`Tensor` of shape `(V,)`):
            Δz, such as η times the gradient of an objective with respect to the logits.

    Returns:
        `Tensor` of shape `(V,)`: Δ log π of every token, without gradient. The error is of order η².
    """
    weights = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}

    def logits_of(trained: dict[str, Tensor]) -> Tensor:  # (V,)
        return functional_call(model, trained, (), {"input_ids": input_ids[None]}).logits[0, -1]

    with sdpa_kernel(SDPBackend.MATH):  # the other kernels have no derivative in forward mode
        logits, pull, *_ = vjp(logits_of, weights)
        (step,) = pull(logit_step.to(logits.dtype))  # (∇_θ z)ᵀ Δz, the step of the weights
        _, moved, *_ = jvp(logits_of, (weights,), (step,))  # the kernel times Δz, (V,)
    return moved - (logits.softmax(-1) * moved).sum()
