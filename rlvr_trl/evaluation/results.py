"""What an evaluation measured, and pass@k from it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .problems import Problem
from .samples import Completions
from .statistics import answer_entropy, mean_interval, pass_at_k, wrong_answer_diversity


OVERALL = "overall"  # the name for the problems of all benchmarks together
MOST_SAMPLES = 2**17  # of a problem, in a file: the binomials of many more take long
MOST_SUBSETS = 100  # more parts than that are no parts, but problems
INTERVALS = "95 %, Bayesian bootstrap over problems with half a problem more at the bound (see mean_interval)"


@dataclass(frozen=True, eq=False, repr=False)
class ProblemCounts:
    """
    The counts that pass@k is computed from, and pass@k itself, of an evaluation or of what it saved.

    A problem without a scorable completion is left out of every mean over problems.

    Args:
        problem_ids (`list[str]`): one id per problem, see [`Problem`].
        num_samples (`np.ndarray` of shape `(problems,)`): scorable completions of each problem.
        num_correct (`np.ndarray` of shape `(problems,)`): how many of them are correct.
    """

    problem_ids: list[str]
    num_samples: np.ndarray
    num_correct: np.ndarray

    def __repr__(self) -> str:
        rows = [("k", "pass@k"), *((str(k), f"{value:.4f}") for k, value in self._shown_pass_at_k.items())]
        lines = [f"{k:>6}  {value:>6}" for k, value in rows] if len(rows) > 1 else []
        return "\n".join([f"{type(self).__name__}: {self._in_short}", *lines])

    def _repr_html_(self) -> str:
        """The table that a notebook shows."""
        rows = [("k", "pass@k"), *((str(k), f"{value:.4f}") for k, value in self._shown_pass_at_k.items())]
        lines = "".join(
            f"<tr><th>{line[0]}</th><td>{'</td><td>'.join(line[1:])}</td></tr>" for line in zip(*rows, strict=True)
        )
        return f"<div>{type(self).__name__}: {self._in_short}</div><table>{lines}</table>"

    @property
    def _shown_pass_at_k(self) -> dict[int, float]:
        return self.pass_at_k if self.is_scorable.any() else {}

    @property
    def _in_short(self) -> str:
        counts, unscorable = self.num_samples[self.is_scorable], self.num_unscorable_problems
        parts = [f"{len(self.problem_ids)} problem{'' if len(self.problem_ids) == 1 else 's'}"]
        if len(counts):
            low, high = counts.min(), counts.max()
            parts.append(f"{low} samples each" if low == high else f"{low} to {high} scored samples each")
        if unscorable:
            parts.append(f"{unscorable} without a scored sample")
        return ", ".join(parts)

    @cached_property
    def is_scorable(self) -> np.ndarray:
        """Whether each problem has a scorable completion, `(problems,)`."""
        return self.num_samples > 0

    @property
    def num_unscorable_problems(self) -> int:
        """Number of problems without a scorable completion."""
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
        """Mean pass@k for every k of `ks`, always over the same problems. The first one, pass@1, is also avg@n."""
        return {k: float(self.problem_pass_at_k(k).mean()) for k in self.ks}

    def intervals(
        self, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0
    ) -> dict[int, tuple[float, float]]:
        """`{k: (low, high)}`: the interval over problems of each mean in `pass_at_k`, see [`mean_interval`]."""
        values = np.stack([self.problem_pass_at_k(k) for k in self.ks], axis=1)  # (scorable problems, ks)
        ends = np.array(
            mean_interval(values, confidence=confidence, num_resamples=num_resamples, seed=seed)
        )  # (2, ks)
        return {k: (float(low), float(high)) for k, (low, high) in zip(self.ks, ends.T, strict=True)}

    @property
    def share_all_wrong(self) -> float:
        """Share of the scorable problems without a correct completion."""
        return float((self.num_correct[self.is_scorable] == 0).mean())

    @property
    def share_all_right(self) -> float:
        """Share of the scorable problems whose scorable completions are all correct."""
        return float((self.num_correct == self.num_samples)[self.is_scorable].mean())

    def counts_to_dict(self) -> dict:
        """Every number that follows from the counts, ready for `json.dump`: each k becomes a string."""
        means = self.pass_at_k
        return {
            "num_problems": len(self.problem_ids),
            "num_unscorable_problems": self.num_unscorable_problems,
            "avg_at_n": means[1],
            "pass_at_k": {str(k): value for k, value in means.items()},
            "pass_at_k_interval_method": INTERVALS,
            "pass_at_k_intervals": {str(k): list(interval) for k, interval in self.intervals().items()},
            "share_all_wrong": self.share_all_wrong,
            "share_all_right": self.share_all_right,
        }


@dataclass(frozen=True, eq=False, repr=False)
class SavedCounts(ProblemCounts):
    """The counts of one evaluation, read from a file, or of several evaluations together."""

    @classmethod
    def from_dict(cls, saved: dict) -> "SavedCounts":
        """
        The counts in what `EvaluationResult.to_dict` returned.

        Raises:
            KeyError, TypeError or ValueError: it is something else, or a count is out of range.
        """
        problems = saved["problems"]
        for index, problem in enumerate(problems):
            n, c = problem["num_samples"], problem["num_correct"]
            if not (type(n) is type(c) is int and 0 <= c <= n <= MOST_SAMPLES):
                raise ValueError(f"problem {index} has num_correct={c!r:.50} of num_samples={n!r:.50}")
        return cls(
            problem_ids=[problem["id"] for problem in problems],
            num_samples=np.array([problem["num_samples"] for problem in problems], dtype=np.int64),
            num_correct=np.array([problem["num_correct"] for problem in problems], dtype=np.int64),
        )


def pooled(results: Iterable[ProblemCounts]) -> SavedCounts:
    """
    The problems of several benchmarks as if they were one benchmark. Each problem has the same weight, so a benchmark
    has the weight of its number of problems. A problem that is in two benchmarks counts twice.
    """
    results = list(results)
    return SavedCounts(
        problem_ids=[problem_id for result in results for problem_id in result.problem_ids],
        num_samples=np.concatenate([result.num_samples for result in results]),
        num_correct=np.concatenate([result.num_correct for result in results]),
    )


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationResult(ProblemCounts):
    """
    What `evaluate` measured.

    A completion whose reward is missing (`None` or NaN) is *unscorable* and does not count as a sample of its problem.
    A problem without a scorable completion is left out of every mean over problems. Every mean below is over problems,
    except those of token entropy, length and truncation, which are over all completions but those that the engine
    refused. A refused completion is unscorable.

    Args:
        problems (`list[Problem]`): the distinct problems, in the order of the dataset.
        completions ([`Completions`]): all completions, problem by problem.
        rewards (`np.ndarray` of shape `(problems, num_samples)`): rewards, NaN where one is missing.
        extra_columns (`dict[str, list]`): what the reward function passed to `log_extra`. The column
            `extracted_answer` has one entry per completion.
        reward_metrics (`dict[str, float]`): means of what it passed to `log_metric`.
        num_duplicates (`int`): number of rows of the dataset that were left out because an earlier row has their
            prompt and images.
        settings (`dict`): the settings of the evaluation, and the versions of Python and the packages it ran with.
    """

    # Computed from the arguments below
    problem_ids: list[str] = field(init=False)
    num_samples: np.ndarray = field(init=False)
    num_correct: np.ndarray = field(init=False)

    problems: list[Problem]
    completions: Completions
    rewards: np.ndarray
    extra_columns: dict[str, list]
    reward_metrics: dict[str, float]
    num_duplicates: int
    settings: dict

    def __post_init__(self):
        object.__setattr__(self, "problem_ids", [problem.id for problem in self.problems])
        object.__setattr__(self, "num_samples", self._is_scored.sum(axis=1))
        object.__setattr__(self, "num_correct", self._is_correct.sum(axis=1))

    @property
    def prompts(self) -> list:
        """The prompt of each problem."""
        return [problem.row["prompt"] for problem in self.problems]

    @property
    def subsets(self) -> dict[str, SavedCounts]:
        """The counts of the problems with each value of the column `settings["by"]`, in order; empty without one."""
        by = self.settings.get("by")
        if by is None:
            return {}
        rows: dict[str | int | float | None, list[int]] = {}
        for index, problem in enumerate(self.problems):
            rows.setdefault(problem.row[by], []).append(index)
        numbers = [value for value in rows if isinstance(value, int | float)]
        values = sorted(numbers) if len(numbers) == len(rows) else list(rows)
        return {
            "none" if value is None else str(value): SavedCounts(
                problem_ids=[self.problem_ids[index] for index in rows[value]],
                num_samples=self.num_samples[rows[value]],
                num_correct=self.num_correct[rows[value]],
            )
            for value in values
        }

    @cached_property
    def _is_scored(self) -> np.ndarray:  # (problems, num_samples)
        return ~np.isnan(self.rewards)

    @cached_property
    def _is_correct(self) -> np.ndarray:  # (problems, num_samples); a comparison with NaN is False
        return self.rewards > self.settings["correctness_threshold"]

    @property
    def num_unscorable_completions(self) -> int:
        """Number of completions without a reward."""
        return int((~self._is_scored).sum())

    @property
    def num_refused_completions(self) -> int:
        """Number of completions that the engine refused, such as a server with a filter. They have no reward."""
        return len(self.completions.refused)

    @property
    def num_cut_early(self) -> int:
        """Number of problems with a completion cut before `max_new_tokens`, by a server's context or other limit."""
        longest = self.settings.get("max_new_tokens") or 0
        early = self.completions.truncated & (self.completions.lengths < longest)
        return int(early.reshape(self.rewards.shape).any(axis=1).sum())

    @property
    def num_beyond_context(self) -> int | None:
        """
        Number of problems whose prompt, with a completion of `max_new_tokens`, reaches beyond the context of the
        model. An engine that does not see tokens knows only of those that were cut there; `None` if there are none.
        """
        known = self.settings.get("num_beyond_context")
        return (self.num_cut_early or None) if known is None else known

    @cached_property
    def answers(self) -> list[list] | None:
        """The extracted answers of each problem's scorable completions; `None` if the reward function logs none."""
        if "extracted_answer" not in self.extra_columns:
            return None
        flat, width = self.extra_columns["extracted_answer"], self.rewards.shape[1]
        by_problem = [flat[start : start + width] for start in range(0, len(flat), width)]
        return [
            [answer for answer, scored in zip(row, is_scored, strict=True) if scored]
            for row, is_scored in zip(by_problem, self._is_scored, strict=True)
        ]

    @property
    def answer_entropy(self) -> float | None:
        """Mean answer entropy in nats; `None` without answers."""
        if self.answers is None:
            return None
        return float(np.mean([answer_entropy(answers) for answers in self.answers if answers]))

    @property
    def wrong_answer_diversity(self) -> float | None:
        """Mean over the problems with a wrong completion; NaN if no problem has one; `None` without answers."""
        if self.answers is None:
            return None
        correct = [row[scored] for row, scored in zip(self._is_correct, self._is_scored, strict=True)]
        values = [wrong_answer_diversity(*pair) for pair in zip(self.answers, correct, strict=True)]
        values = [value for value in values if not math.isnan(value)]
        return float(np.mean(values)) if values else math.nan

    @cached_property
    def _is_there(self) -> np.ndarray:  # (completions,); not refused
        return np.array([index not in self.completions.refused for index in range(len(self.completions.texts))])

    @property
    def token_entropy(self) -> float:
        """Mean over completions of their mean token entropy, in nats; NaN if the engine does not return it."""
        return float(self.completions.entropies[self._is_there].mean())

    @property
    def mean_length(self) -> float:
        """Mean completion length in tokens."""
        return float(self.completions.lengths[self._is_there].mean())

    @property
    def truncated_share(self) -> float:
        """Share of completions cut at `max_new_tokens`."""
        return float(self.completions.truncated[self._is_there].mean())

    def to_dict(self) -> dict:
        """Everything but the completions, ready for `json.dump`: NaN becomes `None`, and each k a string."""
        return {
            "settings": self.settings,
            **self.counts_to_dict(),
            "num_duplicates": self.num_duplicates,
            "num_unscorable_completions": self.num_unscorable_completions,
            "num_refused_completions": self.num_refused_completions,
            "num_beyond_context": self.num_beyond_context,
            "answer_entropy": self.answer_entropy,
            "answer_entropy_bits": None if self.answer_entropy is None else self.answer_entropy / math.log(2),
            "wrong_answer_diversity": _or_none(self.wrong_answer_diversity),
            "token_entropy": _or_none(self.token_entropy),
            "mean_length": self.mean_length,
            "truncated_share": self.truncated_share,
            "reward_metrics": {name: _or_none(value) for name, value in self.reward_metrics.items()},
            "subsets": {
                value: counts.counts_to_dict() for value, counts in self.subsets.items() if counts.is_scorable.any()
            },
            "problems": [
                {"id": problem.id, "prompt": problem.plain_prompt, "num_samples": int(n), "num_correct": int(c)}
                for problem, n, c in zip(self.problems, self.num_samples, self.num_correct, strict=True)
            ],
        }


def check_by(by: str, values: list) -> None:
    """Raises `ValueError` unless a column has a text, a number or nothing for each problem, and few different ones."""
    wrong = [value for value in values if not isinstance(value, str | int | float | None)]
    if wrong:
        raise ValueError(f"by={by!r} needs a text or a number for every problem, found {wrong[0]!r:.100}.")
    if len(set(values)) > MOST_SUBSETS:
        raise ValueError(
            f"by={by!r} has {len(set(values))} different values, but at most {MOST_SUBSETS} are reported."
        )


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
