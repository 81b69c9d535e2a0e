"""Comparisons of evaluations on the same problems."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

from .results import OVERALL, ProblemCounts, pooled
from .statistics import PairedDifference, paired_difference, pass_at_k


def compare(
    a: ProblemCounts,
    b: ProblemCounts,
    k: int,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """
    pass@k of `a` minus pass@k of `b` on the same problems, with its paired interval over problems, see
    [`paired_difference`].

    A problem that is scorable in only one of the two is left out with a warning.

    Args:
        a, b ([`EvaluationResult`] or [`SavedCounts`]): evaluations of the same problems in the same order.
        k (`int`): the k of pass@k.
        confidence, num_resamples, seed: as in [`mean_interval`].

    Raises:
        ValueError: the problems differ in content or order, no problem is scorable in both, or `k` exceeds the number
            of samples of a problem.
    """
    if a.problem_ids != b.problem_ids:
        raise ValueError(
            f"compare needs two evaluations of the same prompts in the same order; these have {len(a.problem_ids)} "
            f"and {len(b.problem_ids)}, of which "
            f"{sum(x == y for x, y in zip(a.problem_ids, b.problem_ids, strict=False))} agree."
        )
    both = a.is_scorable & b.is_scorable  # (problems,)
    if not both.any():
        raise ValueError(f"None of {len(both)} problems is scorable in both evaluations: there is nothing to compare.")
    if one_sided := int((a.is_scorable != b.is_scorable).sum()):
        warnings.warn(
            f"{one_sided} of {len(both)} problems are scorable in only one of the two evaluations and are left out.",
            stacklevel=2,
        )
    values_a, values_b = (pass_at_k(each.num_samples[both], each.num_correct[both], k) for each in (a, b))
    return paired_difference(values_a, values_b, confidence, num_resamples, seed)


class Comparison(NamedTuple):
    """
    One run against a reference at one k of one benchmark.

    Attributes:
        benchmark (`str`): its name, or `"overall"`.
        k (`int`): the k of pass@k.
        reference, value (`float`): pass@k of the reference, and of the run.
        difference, low, high (`float`): value minus reference, and its paired interval, over the problems that are
            scorable in both.
        verdict (`str`): `"higher"` or `"lower"`, or `"-"` if the interval includes 0.
    """

    benchmark: str
    k: int
    reference: float
    value: float
    difference: float
    low: float
    high: float
    verdict: str

    def __repr__(self) -> str:  # one line of a list of many
        return (
            f"Comparison({self.benchmark!r}, k={self.k}: {self.value:.3f} against {self.reference:.3f}, "
            f"{self.difference:+.3f} [{self.low:+.3f}, {self.high:+.3f}], {self.verdict})"
        )


def compare_runs(
    reference: Mapping[str, ProblemCounts],
    run: Mapping[str, ProblemCounts],
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> list[Comparison]:
    """
    Compares a run with a reference on every benchmark and at every k that both have, and on these benchmarks together.

    The intervals are not adjusted for the number of comparisons.

    Args:
        reference, run (`dict[str, ProblemCounts]`): evaluations by benchmark, as [`load_results`] returns them.
        confidence, num_resamples, seed: as in [`mean_interval`].

    Raises:
        ValueError: the two have no benchmark in common, or the problems of a benchmark differ; the message names the
            benchmark and how many problems agree.
    """
    common = [name for name in reference if name in run]
    if not common:
        raise ValueError(f"The runs have no benchmark in common: {', '.join(reference)} and {', '.join(run)}.")
    if apart := sorted(set(reference) ^ set(run)):
        warnings.warn(f"Only one of the two runs has {', '.join(apart)}: left out of the comparison.", stacklevel=2)
    pairs = {name: (reference[name], run[name]) for name in common}
    if len(common) > 1:
        pairs[OVERALL] = (pooled(reference[name] for name in common), pooled(run[name] for name in common))
    rows = []
    for name, (a, b) in pairs.items():
        if not (a.is_scorable.any() and b.is_scorable.any()):
            raise ValueError(f"{name}: no problem is scorable in one of the two runs: there is nothing to compare.")
        references, values = a.pass_at_k, b.pass_at_k
        for k in sorted(references.keys() & values.keys()):
            try:
                difference, low, high = compare(b, a, k, confidence, num_resamples, seed)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            verdict = "higher" if low > 0 else "lower" if high < 0 else "-"
            rows.append(Comparison(name, k, references[k], values[k], difference, low, high, verdict))
    return rows
