"""The two stages of reinforcement learning with verifiable rewards, in a softmax bandit (arXiv 2510.04028).

A policy over a few actions with logits z and probabilities π = softmax(z / temperature). Each step samples a group of
G actions and takes one optimizer step up the policy gradient with group-relative advantages:

    A_i = r(a_i) − mean of the group              -N: min(A_i, 0)
    g_v = Σ_i A_i (1[a_i = v] − π_v)              z <- z + step(g / G)

First the good action that is sampled often takes the mass of the bad one, while the best action, hardly ever sampled,
stays where it is: exploitation. When the good action is close to saturation its gradient vanishes, and each rare
sample of the best action takes mass from it: exploration.

With -N the best action is never pushed down. What pushes it up is small, in expectation smaller than with all
advantages while its probability is low; but Adam makes full steps of small gradients of one sign. So -N overtakes
sooner with Adam, but with plain gradient ascent far later than all advantages do, if ever.

The temperature divides the logits when sampling, and π in g is that sampling policy. g is the gradient with respect to
z / temperature: the factor 1/temperature of the chain rule is left out, which makes no difference to Adam.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement
from math import isfinite

import torch
from torch import Tensor

from ..checks import check_choice, check_integer, check_positive


_OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}


def simulate(
    rewards: Sequence[float],
    logits: Sequence[float],
    group_size: int,
    *,
    temperature: float = 1.0,
    learning_rate: float = 0.1,
    steps: int = 400,
    seeds: int = 200,
    negative_only: bool = False,
    optimizer: str = "adam",
) -> Tensor:
    """
    Trains one bandit per seed, all at once.

    Args:
        rewards (`Sequence[float]`):
            Reward of each of the K actions.
        logits (`Sequence[float]`):
            Initial logits.
        group_size (`int`):
            Actions sampled per step, G, at least 2.
        temperature (`float`, *optional*, defaults to `1.0`):
            Divides the logits when sampling.
        learning_rate (`float`, *optional*, defaults to `0.1`):
            η.
        steps (`int`, *optional*, defaults to `400`):
            Optimizer steps.
        seeds (`int`, *optional*, defaults to `200`):
            Independent runs, with the seeds 0…seeds−1. A run does not depend on the number of other runs.
        negative_only (`bool`, *optional*, defaults to `False`):
            -N: positive advantages count as 0.
        optimizer (`str`, *optional*, defaults to `"adam"`):
            `"adam"` with PyTorch's defaults, or `"sgd"`.

    Returns:
        `Tensor` of shape `(seeds, steps + 1, K)`: The probabilities that actions are sampled with, before the first
        step and after each. Float64.

    Raises:
        `ValueError`: `rewards` and `logits` differ in length, have fewer than 2 values or one that is not finite;
        `group_size < 2`; `steps` or `seeds` below 1; `temperature` or `learning_rate` not positive; an unknown
        `optimizer`.
    """
    if len(rewards) != len(logits) or len(rewards) < 2:
        raise ValueError(
            f"`rewards` and `logits` must have one value for each of at least 2 actions, got {len(rewards)} and "
            f"{len(logits)}."
        )
    for name, values in (("rewards", rewards), ("logits", logits)):
        if not all(isfinite(value) for value in values):
            raise ValueError(f"`{name}` must be finite numbers, got {', '.join(map(str, values))}.")
    check_integer("group_size", group_size, at_least=2)
    check_integer("steps", steps, at_least=1)
    check_integer("seeds", seeds, at_least=1)
    check_positive("temperature", temperature)
    check_positive("learning_rate", learning_rate)
    check_choice("optimizer", optimizer, _OPTIMIZERS)

    reward_of = torch.as_tensor(rewards, dtype=torch.double)  # (K,)
    z = torch.as_tensor(logits, dtype=torch.double).repeat(seeds, 1)  # (S, K)
    ascent = _OPTIMIZERS[optimizer]([z], lr=learning_rate, maximize=True)
    draws = draw_uniforms(seeds, steps, group_size)
    history = z.new_empty(seeds, steps + 1, z.shape[1])
    for step in range(steps):
        policy = history[:, step] = (z / temperature).softmax(1)  # (S, K)
        actions = torch.searchsorted(policy.cumsum(1), draws[step], right=True).clamp_(max=z.shape[1] - 1)  # (S, G)
        advantages = _advantages(reward_of[actions], negative_only)
        gradient = -policy * advantages.sum(1, keepdim=True)
        z.grad = gradient.scatter_add_(1, actions, advantages) / group_size
        ascent.step()
    history[:, steps] = (z / temperature).softmax(1)
    return history


def draw_uniforms(seeds: int, steps: int, group_size: int) -> Tensor:
    """
    The random numbers of `simulate`, in [0, 1), of shape `(steps, seeds, group_size)`.

    A sample is the first action whose cumulative probability is above its random number.
    """
    shape = (steps, group_size)
    generators = (torch.Generator().manual_seed(seed) for seed in range(seeds))
    return torch.stack([torch.rand(shape, generator=generator, dtype=torch.double) for generator in generators], dim=1)


def _advantages(rewards: Tensor, negative_only: bool) -> Tensor:
    """Reward minus the mean over the last dimension; for -N, positive advantages are 0."""
    advantages = rewards - rewards.mean(-1, keepdim=True)
    return advantages.clamp(max=0.0) if negative_only else advantages


def expected_update(
    probabilities: Tensor,
    rewards: Sequence[float],
    group_size: int,
    *,
    learning_rate: float = 0.1,
    negative_only: bool = False,
) -> Tensor:
    """
    Expected change of the logits in one step of gradient ascent without Adam (arXiv 2510.04028, Theorem 1):

        E Δz_v = η · π_v [(1 − π_v) A_v − Σ_{u≠v} π_u A_u]

    This is exact for every group size, and for -N too, when A_v is the expected advantage of a sample *given that it
    is v*. That is what is computed here, over all outcomes of the other G − 1 samples. Without -N it is
    `A_v = (G − 1)/G · (r_v − Σ_u π_u r_u)`: a sample is part of its own baseline. So with `r_v − Σ_u π_u r_u`, or with
    `r_v` less any constant, the theorem is exact up to the factor (G − 1)/G, which is 1/2 for G = 2.

    Args:
        probabilities (`Tensor` of shape `(…, K)`):
            π, at the sampling temperature.
        rewards (`Sequence[float]`):
            Reward of each action.
        group_size (`int`):
            G. The number of outcomes grows as `G^(K−1)`.
        learning_rate (`float`, *optional*, defaults to `0.1`):
            η.
        negative_only (`bool`, *optional*, defaults to `False`):
            -N.

    Returns:
        `Tensor` of shape `(…, K)`.

    Raises:
        `ValueError`: `group_size < 2`.
    """
    check_integer("group_size", group_size, at_least=2)
    reward_of = torch.as_tensor(rewards, dtype=torch.double)  # (K,)
    policy = probabilities.double()
    num_actions, others = len(reward_of), group_size - 1
    # Unordered outcomes of the other samples, with their probability: (M, G−1) -> counts (M, K) -> (…, M).
    outcomes = torch.tensor(list(combinations_with_replacement(range(num_actions), others)))
    counts = torch.nn.functional.one_hot(outcomes, num_actions).sum(1).double()
    orders = (torch.tensor(group_size).double().lgamma() - (counts + 1).lgamma().sum(1)).exp()  # (M,)
    weight = orders * (policy.unsqueeze(-2) ** counts).prod(-1)
    own = torch.arange(num_actions).view(1, -1, 1).expand(len(outcomes), -1, -1)
    groups = torch.cat([own, outcomes.unsqueeze(1).expand(-1, num_actions, -1)], dim=2)  # (M, K, G), own action first
    advantage = weight @ _advantages(reward_of[groups], negative_only)[..., 0]  # (…, K), given that the sample is v
    mean = (policy * advantage).sum(-1, keepdim=True)
    return learning_rate * policy * (advantage - mean)  # (1 − π_v) A_v − Σ_{u≠v} π_u A_u = A_v − Σ_u π_u A_u


def crossing_step(probabilities: Tensor, good: int = 0, best: int = 1) -> tuple[float, Tensor]:
    """
    The first step after which the best action is more probable than the good one.

    Args:
        probabilities (`Tensor` of shape `(seeds, steps + 1, K)`):
            From [`simulate`].
        good (`int`, *optional*, defaults to `0`):
            Index of the good action.
        best (`int`, *optional*, defaults to `1`):
            Index of the best action.

    Returns:
        `tuple[float, Tensor]`: The step of the mean over seeds, and that of every seed, float64 of shape `(seeds,)`.
        NaN where it never happens.
    """
    lead = probabilities[..., best] - probabilities[..., good]  # (S, steps+1)
    ahead = torch.cat([lead.mean(0, keepdim=True), lead]) > 0
    first = ahead.int().argmax(1).double().masked_fill_(~ahead.any(1), torch.nan)
    return float(first[0]), first[1:]


@dataclass(frozen=True)
class Bandit:
    """One panel of a figure: the names of the actions, good and best first, and the arguments of [`simulate`]."""

    rewards: tuple[float, ...] = (0.5, 1.0, 0.0)
    logits: tuple[float, ...] = (0.0, -3.0, 0.0)
    actions: tuple[str, ...] = ("good, explored", "best, unexplored", "bad, explored")
    group_size: int = 2
    temperature: float = 1.0
    learning_rate: float = 0.1
    steps: int = 400
    negative_only: bool = False
    optimizer: str = "adam"

    def simulate(self, seeds: int = 200, steps: int | None = None) -> Tensor:
        """Probabilities of shape `(seeds, steps + 1, K)`, over `steps` or the panel's own number of steps."""
        return simulate(
            self.rewards,
            self.logits,
            self.group_size,
            temperature=self.temperature,
            learning_rate=self.learning_rate,
            steps=self.steps if steps is None else steps,
            seeds=seeds,
            negative_only=self.negative_only,
            optimizer=self.optimizer,
        )


_DEFAULT = Bandit()
_FOUR = replace(
    _DEFAULT,
    rewards=(0.5, 1.0, 0.0, 0.0),
    logits=(0.0, -3.0, 0.0, -3.0),
    actions=(*_DEFAULT.actions, "bad, unexplored"),
)

# The figure of the paper has these two rows: other policies with the same rewards, and other rewards with the same
# policy. Its values are not printed in the text, so these are ours.
_POLICIES = {f"best logit {logit:g}": replace(_DEFAULT, logits=(0.0, logit, 0.0)) for logit in (-2.0, -3.0, -4.0)}
_REWARDS = {f"good reward {reward:g}": replace(_DEFAULT, rewards=(reward, 1.0, 0.0)) for reward in (0.2, 0.5, 0.8)}

PRESETS: dict[str, dict[str, Bandit]] = {
    "default": {"G = 2, η = 0.1": _DEFAULT},
    "policies": _POLICIES,
    "rewards": _REWARDS,
    "group_size": {f"G = {g}": replace(_DEFAULT, group_size=g) for g in (2, 3, 5, 10)},
    "temperature": {f"temperature {t}": replace(_DEFAULT, temperature=float(t), steps=1000) for t in (1, 2, 5, 20)},
    "four_actions": {"G = 2, η = 0.1, four actions": _FOUR},
    "negative_only": {
        "all advantages": _DEFAULT,
        "negative advantages only": replace(_DEFAULT, negative_only=True),
        "all advantages, SGD": replace(_DEFAULT, optimizer="sgd", steps=4000),
        "negative advantages only, SGD": replace(_DEFAULT, negative_only=True, optimizer="sgd", steps=4000),
    },
}
