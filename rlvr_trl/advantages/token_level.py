"""Advantages that differ within a completion: what each token gets, from its entropy or its log-probability.

Both go on top of any estimator. They change nothing about the advantage of a completion, and say afterwards what its
tokens get of it, from what the policy that sampled them said about them:

    H_t = −Σ_a π(a|s_t) log π(a|s_t)        entropy of the distribution that token t was drawn from
    L_t = log π(a_t|s_t) + H_t              its log-probability, minus the mean of the log-probability under π

Neither is a part of the gradient. A token that is not in the loss gets nothing, and neither does a completion that
could not be scored.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_boolean, check_positive
from .groups import AdvantageEstimator, CompletionTokens, RolloutGroups
from .grpo import GroupRelative
from .nesting import NestedEstimator, shape_tokens


@dataclass(frozen=True)
class EntropyShaped(NestedEstimator):
    """
    Tokens that the policy was uncertain about get a higher advantage (arXiv 2506.14758).

        A_t = A + min(α · H_t, |A| / κ)

    The bonus never turns the sign of an advantage, as κ > 1: a right token is reinforced more and a wrong one punished
    less, if it was drawn from a distribution of high entropy. A completion with an advantage of 0 keeps it.

    Args:
        alpha (`float`, *optional*, defaults to `0.4`):
            α, what one nat of entropy is worth. The paper's for GRPO; for PPO it has 0.1.
        kappa (`float`, *optional*, defaults to `2.0`):
            κ, the paper's: the bonus is at most |A| / κ.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage A of a completion, or of each of its tokens.

    Raises:
        `ValueError`: `alpha` is not positive, or `kappa` is not above 1.
    """

    alpha: float = 0.4
    kappa: float = 2.0
    base: AdvantageEstimator = GroupRelative()

    def __post_init__(self):
        super().__post_init__()
        check_positive("alpha", self.alpha)
        check_positive("kappa", self.kappa)
        if self.kappa <= 1:
            raise ValueError(
                f"`kappa` must be above 1, got {self.kappa}: the bonus could turn the sign of an advantage."
            )

    shapes_tokens = True

    def __call__(self, groups: RolloutGroups) -> Tensor:
        return self.base(groups)

    def shape_tokens(self, advantages: Tensor, tokens: CompletionTokens) -> Tensor:
        advantages = shape_tokens(self.base, advantages, tokens)  # (B, C)
        return advantages + torch.minimum(self.alpha * tokens.entropies, advantages.abs() / self.kappa)


@dataclass(frozen=True)
class REPO(NestedEstimator):
    """
    Tokens get less, the likelier they were: the penalty that keeps the entropy of a policy (arXiv 2603.11682).

        A_t = A − β · L_t                                       L_t = log π(a_t|s_t) + H_t
        A_t = A − β · |A| · log π(a_t|s_t), not across 0        with `rescale`: REPO-R, App. D.2

    The policy gradient lowers the entropy as far as advantages and log-probabilities go together; subtracting a
    multiple of the centred log-probability takes that apart. Without `rescale` the penalty is there whatever A is, so
    that completions with an advantage of 0 are trained too, towards higher entropy. With it an advantage of 0 stays,
    rare tokens of right completions count more, and rare ones of wrong completions less, down to 0.

    Args:
        beta (`float`, *optional*, defaults to `0.01`):
            β, or ζ with `rescale`: what one nat of log-probability costs.
        base (`AdvantageEstimator`, *optional*, defaults to `GroupRelative()`):
            The advantage A of a completion, or of each of its tokens.
        rescale (`bool`, *optional*, defaults to `False`):
            Whether the penalty is in proportion to |A|.

    Raises:
        `ValueError`: `beta` is not positive, or `rescale` neither true nor false.
    """

    beta: float = 0.01
    base: AdvantageEstimator = GroupRelative()
    rescale: bool = False
    shapes_tokens = True

    def __post_init__(self):
        super().__post_init__()
        check_positive("beta", self.beta)
        check_boolean("rescale", self.rescale)

    def __call__(self, groups: RolloutGroups) -> Tensor:
        return self.base(groups)

    def shape_tokens(self, advantages: Tensor, tokens: CompletionTokens) -> Tensor:
        advantages = shape_tokens(self.base, advantages, tokens)  # (B, C)
        if not self.rescale:
            return advantages - self.beta * (tokens.log_probs + tokens.entropies)
        return advantages * (1 - self.beta * advantages.sign() * tokens.log_probs).clamp(min=0.0)
