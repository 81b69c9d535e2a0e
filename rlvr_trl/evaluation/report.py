"""What an evaluation measured."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .counts import ProblemCounts
from .metrics import answer_entropy, wrong_answer_diversity
from .problems import Problem
from .samples import Completions


@dataclass(frozen=True, eq=False)
class EvaluationResult(ProblemCounts):
    """
    What `evaluate` measured.

    A completion whose reward is missing (`None` or NaN) is *unscorable*: it is no sample of its problem. A problem
    without a scorable completion is in none of the means over problems. Every mean below is over problems, except
    those of token entropy, length and truncation, which are over all completions.

    Args:
        problems (`list[Problem]`): the distinct problems, in the order of the dataset.
        completions ([`Completions`]): all completions, problem by problem.
        rewards (`np.ndarray` of shape `(problems, num_samples)`): rewards, NaN where missing.
        extra_columns (`dict[str, list]`): what the reward function passed to `log_extra`, one entry per completion for
            `extracted_answer`.
        reward_metrics (`dict[str, float]`): means of what it passed to `log_metric`.
        num_duplicates (`int`): rows of the dataset left out because their prompt came before.
        settings (`dict`): the settings of the evaluation, and the versions of what it ran with.
    """

    problems: list[Problem]
    completions: Completions
    rewards: np.ndarray
    extra_columns: dict[str, list]
    reward_metrics: dict[str, float]
    num_duplicates: int
    settings: dict

    @property
    def prompts(self) -> list:
        return [problem.row["prompt"] for problem in self.problems]

    @property
    def problem_ids(self) -> list[str]:
        return [problem.id for problem in self.problems]

    @cached_property
    def _is_scored(self) -> np.ndarray:  # (problems, num_samples)
        return ~np.isnan(self.rewards)

    @cached_property
    def _is_correct(self) -> np.ndarray:  # (problems, num_samples); a comparison with NaN is False
        return self.rewards > self.settings["correctness_threshold"]

    @cached_property
    def num_samples(self) -> np.ndarray:
        """Scorable completions of each problem, `(problems,)`."""
        return self._is_scored.sum(axis=1)

    @cached_property
    def num_correct(self) -> np.ndarray:
        """Completions of each problem with a reward above the threshold, `(problems,)`."""
        return self._is_correct.sum(axis=1)

    @property
    def num_unscorable_completions(self) -> int:
        return int((~self._is_scored).sum())

    @cached_property
    def answers(self) -> list[list] | None:
        """Extracted answers of each problem's scorable completions; `None` if the reward function logs none."""
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
        """Mean over the problems with a wrong completion, NaN if there is none; `None` without answers."""
        if self.answers is None:
            return None
        correct = [row[scored] for row, scored in zip(self._is_correct, self._is_scored, strict=True)]
        values = [wrong_answer_diversity(*pair) for pair in zip(self.answers, correct, strict=True)]
        values = [value for value in values if not math.isnan(value)]
        return float(np.mean(values)) if values else math.nan

    @property
    def token_entropy(self) -> float:
        """Mean over completions of their mean token entropy, in nats; NaN where the engine does not tell."""
        return float(self.completions.entropies.mean())

    @property
    def mean_length(self) -> float:
        """Mean completion length in tokens."""
        return float(self.completions.lengths.mean())

    @property
    def truncated_share(self) -> float:
        """Share of completions cut at `max_new_tokens`."""
        return float(self.completions.truncated.mean())

    def to_dict(self) -> dict:
        """Everything but the completions, ready for `json.dump`: NaN becomes `None`, and k a string."""
        return {
            "settings": self.settings,
            **self.counts_to_dict(),
            "num_duplicates": self.num_duplicates,
            "num_unscorable_completions": self.num_unscorable_completions,
            "answer_entropy": self.answer_entropy,
            "wrong_answer_diversity": _or_none(self.wrong_answer_diversity),
            "token_entropy": _or_none(self.token_entropy),
            "mean_length": self.mean_length,
            "truncated_share": self.truncated_share,
            "reward_metrics": {name: _or_none(value) for name, value in self.reward_metrics.items()},
            "problems": [
                {"id": problem.id, "prompt": problem.plain_prompt, "num_samples": int(n), "num_correct": int(c)}
                for problem, n, c in zip(self.problems, self.num_samples, self.num_correct, strict=True)
            ],
        }


def _or_none(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
