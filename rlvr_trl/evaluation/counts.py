"""pass@k of many problems from how many samples each has and how many of them are correct."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .metrics import bootstrap_interval, pass_at_k


class ProblemCounts:
    """
    What pass@k is computed from, and pass@k. An evaluation has these counts, and so has what it saved.

    A problem without a scorable completion is in none of the means over problems.

    Attributes:
        problem_ids (`list[str]`): one id per problem, see [`Problem`].
        num_samples (`np.ndarray` of shape `(problems,)`): scorable completions of each problem.
        num_correct (`np.ndarray` of shape `(problems,)`): how many of them are correct.
    """

    problem_ids: list[str]
    num_samples: np.ndarray
    num_correct: np.ndarray

    @cached_property
    def is_scorable(self) -> np.ndarray:
        """Whether each problem has a scorable completion, `(problems,)`."""
        return self.num_samples > 0

    @property
    def num_unscorable_problems(self) -> int:
        return int((~self.is_scorable).sum())

    @property
    def ks(self) -> list[int]:
        """Powers of two up to the smallest number of samples, and that number itself if all problems have it."""
        counts = self.num_samples[self.is_scorable]
        smallest = int(counts.min())
        ks = {2**i for i in range(smallest.bit_length())}
        return sorted(ks | {smallest} if (counts == smallest).all() else ks)

    def problem_pass_at_k(self, k: int) -> np.ndarray:
        """pass@k of each scorable problem, `(scorable problems,)`."""
        return pass_at_k(self.num_samples[self.is_scorable], self.num_correct[self.is_scorable], k)

    @property
    def pass_at_k(self) -> dict[int, float]:
        """Mean pass@k for every k of `ks`, always over the same problems. The first, pass@1, is avg@n."""
        return {k: float(self.problem_pass_at_k(k).mean()) for k in self.ks}

    def intervals(self, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0) -> dict:
        """`{k: (low, high)}`: bootstrap interval over problems of each mean in `pass_at_k`."""
        values = np.stack([self.problem_pass_at_k(k) for k in self.ks], axis=1)  # (scorable problems, ks)
        low, high = bootstrap_interval(values, confidence, num_resamples, seed)
        return {k: (float(low[i]), float(high[i])) for i, k in enumerate(self.ks)}

    @property
    def share_all_wrong(self) -> float:
        """Share of the scorable problems without a correct completion."""
        return float((self.num_correct[self.is_scorable] == 0).mean())

    @property
    def share_all_right(self) -> float:
        """Share of the scorable problems whose scorable completions are all correct."""
        return float((self.num_correct == self.num_samples)[self.is_scorable].mean())

    def counts_to_dict(self) -> dict:
        """Every number that follows from the counts, ready for `json.dump`: k becomes a string."""
        means = self.pass_at_k
        return {
            "num_problems": len(self.problem_ids),
            "num_unscorable_problems": self.num_unscorable_problems,
            "avg_at_n": means[1],
            "pass_at_k": {str(k): value for k, value in means.items()},
            "pass_at_k_intervals": {str(k): list(interval) for k, interval in self.intervals().items()},
            "share_all_wrong": self.share_all_wrong,
            "share_all_right": self.share_all_right,
        }


@dataclass(frozen=True, eq=False)
class SavedCounts(ProblemCounts):
    """The counts of one evaluation read from a file, or of several together."""

    problem_ids: list[str]
    num_samples: np.ndarray
    num_correct: np.ndarray

    @classmethod
    def from_dict(cls, saved: dict) -> "SavedCounts":
        """The counts in what `EvaluationResult.to_dict` returned."""
        problems = saved["problems"]
        return cls(
            problem_ids=[problem["id"] for problem in problems],
            num_samples=np.array([problem["num_samples"] for problem in problems], dtype=np.int64),
            num_correct=np.array([problem["num_correct"] for problem in problems], dtype=np.int64),
        )


def pooled(results: Iterable[ProblemCounts]) -> SavedCounts:
    """
    All problems of several benchmarks as if they were one: each problem weighs the same, so a benchmark weighs by its
    number of problems. A problem that is in two benchmarks counts in both.
    """
    results = list(results)
    return SavedCounts(
        problem_ids=[problem_id for result in results for problem_id in result.problem_ids],
        num_samples=np.concatenate([result.num_samples for result in results]),
        num_correct=np.concatenate([result.num_correct for result in results]),
    )
