"""Extra rollouts by difficulty: the two schedules of DARS (arXiv 2508.13755, Eq. 5 to 8).

With accuracy a = c/N after N rollouts, one completion carries a mean absolute advantage of S(a), which is largest at
a = 1/2. A prompt gets Δ more rollouts so that Σ|A| over its group reaches a target:

    equal treatment     (N + Δ)·S(a) >= peak               what a prompt of accuracy 1/2 has with N rollouts
    hardness weighted   (N + Δ)·S(a) >= 2(1 − a)·peak      up to twice that, the harder it is

    scale "none"   S(a) = 2a(1 − a)          peak = N/2    advantages r − mean
    scale "std"    S(a) = 2·sqrt(a(1 − a))   peak = N      advantages divided by the standard deviation

with the smallest such Δ, 0 for a >= 1/2; S is Eq. 3. Eq. 7 prints the target 2(1 − x) with x = 1 − a, which would be
largest for the easiest prompts; 2x is meant, as in Eq. 8 and the code.
`ceil` in floating point is one too many for some N (N = 6 hardness weighted, c = 0), so everything here is computed in
integers. With a = m/(2N):

                        scale "none"                  scale "std"
    equal treatment     Δ = ceil(N³ / m(2N−m)) − N    Δ = ceil(sqrt(N⁴ / m(2N−m))) − N
    hardness weighted   Δ = ceil(N² / m) − N          Δ = ceil(sqrt(N²(2N−m) / m)) − N

where m = 2c. At c = 0 no number of rollouts is enough; `zero_accuracy="half"` then takes half a correct completion,
m = 1, as the released code does.
"""

from collections.abc import Callable
from typing import overload

import torch
from torch import Tensor

from ..checks import check_choice, check_integer
from .allocator import check_counts


SCALES = ("none", "std")
ZERO_ACCURACY = ("half", "cap")

_MOST_SAMPLES = 2**15  # N⁴ must fit in 64 bits


@overload
def equal_treatment(
    num_correct: int, num_samples: int, max_generations: int, scale: str = "none", zero_accuracy: str = "half"
) -> int: ...
@overload
def equal_treatment(
    num_correct: int | Tensor,
    num_samples: int | Tensor,
    max_generations: int,
    scale: str = "none",
    zero_accuracy: str = "half",
) -> Tensor: ...
def equal_treatment(
    num_correct: int | Tensor,
    num_samples: int | Tensor,
    max_generations: int,
    scale: str = "none",
    zero_accuracy: str = "half",
) -> int | Tensor:
    """
    Extra rollouts that bring every hard prompt to the cumulative advantage of one of accuracy 1/2 (arXiv 2508.13755).

    Args:
        num_correct (`int` or `Tensor` of shape `(P,)`):
            Correct completions of each prompt.
        num_samples (`int` or `Tensor` of shape `(P,)`):
            Completions of each prompt, N. With 0 there is no accuracy, and no extra rollout.
        max_generations (`int`):
            Cap on the completions of a prompt, N included.
        scale (`str`, *optional*, defaults to `"none"`):
            `"none"` for advantages `r − mean`, `"std"` for those divided by the standard deviation.
        zero_accuracy (`str`, *optional*, defaults to `"half"`):
            A prompt without a correct completion counts as having half of one (`"half"`) or gets all that
            `max_generations` allows (`"cap"`).

    Returns:
        `int` or `Tensor` of shape `(P,)`: Rollouts to add: 0 where accuracy is at least 1/2, and never more than
        `max_generations − num_samples`. An `int` when both counts are, else `int64`; tensors broadcast.

    Raises:
        `ValueError`: A count is not an integer, negative, above 32768, or `num_correct` above `num_samples`;
        `max_generations < 1`; an unknown `scale` or `zero_accuracy`.
    """
    return _extra(_equal_treatment_size, num_correct, num_samples, max_generations, scale, zero_accuracy)


@overload
def hardness_weighted(
    num_correct: int, num_samples: int, max_generations: int, scale: str = "none", zero_accuracy: str = "half"
) -> int: ...
@overload
def hardness_weighted(
    num_correct: int | Tensor,
    num_samples: int | Tensor,
    max_generations: int,
    scale: str = "none",
    zero_accuracy: str = "half",
) -> Tensor: ...
def hardness_weighted(
    num_correct: int | Tensor,
    num_samples: int | Tensor,
    max_generations: int,
    scale: str = "none",
    zero_accuracy: str = "half",
) -> int | Tensor:
    """
    Extra rollouts that give a prompt of accuracy a `2(1 − a)` times the cumulative advantage of one of accuracy 1/2.

    Arguments, result and errors are those of [`equal_treatment`] (arXiv 2508.13755).
    """
    return _extra(_hardness_weighted_size, num_correct, num_samples, max_generations, scale, zero_accuracy)


def _equal_treatment_size(n: Tensor, m: Tensor, scale: str) -> Tensor:
    product = m * (2 * n - m)
    return _ceil_div(n**3, product) if scale == "none" else _ceil_sqrt(_ceil_div(n**4, product))


def _hardness_weighted_size(n: Tensor, m: Tensor, scale: str) -> Tensor:
    return _ceil_div(n**2, m) if scale == "none" else _ceil_sqrt(_ceil_div(n**2 * (2 * n - m), m))


def _extra(
    group_size: Callable[[Tensor, Tensor, str], Tensor],
    num_correct: int | Tensor,
    num_samples: int | Tensor,
    max_generations: int,
    scale: str,
    zero_accuracy: str,
) -> int | Tensor:
    check_integer("max_generations", max_generations, at_least=1)
    check_choice("scale", scale, SCALES)
    check_choice("zero_accuracy", zero_accuracy, ZERO_ACCURACY)
    c, n = _as_tensors(num_correct, num_samples)  # (P,) each

    hard = 2 * c < n
    # Where no rollout is added, 1 of 1 stands in, so that no divisor is 0.
    safe_n, m = torch.where(hard, n, 1), torch.where(hard, (2 * c).clamp(min=1), 1)
    extra = group_size(safe_n, m, scale) - n
    room = (max_generations - n).clamp(min=0)
    if zero_accuracy == "cap":
        extra = torch.where(c == 0, room, extra)
    extra = torch.where(hard, torch.minimum(extra, room), 0)  # (P,)
    return extra if isinstance(num_correct, Tensor) or isinstance(num_samples, Tensor) else int(extra)


def _as_tensors(num_correct: int | Tensor, num_samples: int | Tensor) -> tuple[Tensor, Tensor]:
    counts = {"num_samples": num_samples, "num_correct": num_correct}
    device = next((count.device for count in counts.values() if isinstance(count, Tensor)), None)
    for name, count in counts.items():
        if not isinstance(count, Tensor):
            check_integer(name, count, at_least=0)
            counts[name] = torch.tensor(int(count), device=device)
    n, c = torch.broadcast_tensors(*counts.values())
    check_counts(num_samples=n, num_correct=c)
    if (n > _MOST_SAMPLES).any():
        raise ValueError(f"`num_samples` must be at most {_MOST_SAMPLES}, got {int(n.max())}.")
    return c.long(), n.long()


def extra_of_halves(
    schedule: str, half_correct: Tensor, num_samples: int, max_generations: int, scale: str = "none"
) -> Tensor:
    """
    The extra rollouts of a schedule for an accuracy that was predicted and not counted. int64, shape `(P,)`.

    Args:
        schedule (`str`): `"equal_treatment"` or `"hardness_weighted"`.
        half_correct (`Tensor` of shape `(P,)`): m, at least 1, of the accuracy m / 2N.
        num_samples (`int`): N.
        max_generations (`int`), scale (`str`): as in [`equal_treatment`].
    """
    n = torch.full_like(half_correct, num_samples)
    hard = half_correct < n
    size = _equal_treatment_size if schedule == "equal_treatment" else _hardness_weighted_size
    extra = size(n, torch.where(hard, half_correct, n), scale) - n
    return torch.where(hard, extra.clamp(max=max(max_generations - num_samples, 0)), 0)


def _ceil_div(a: Tensor, b: Tensor) -> Tensor:
    return (a + b - 1) // b


def _ceil_sqrt(x: Tensor) -> Tensor:
    # The smallest t with t² >= x >= 1. x < 2^53 is exact in float64, so the first guess is off by 1 at most.
    root = x.double().sqrt().ceil().long()
    root = root - ((root - 1) ** 2 >= x).long()
    return root + (root**2 < x).long()
