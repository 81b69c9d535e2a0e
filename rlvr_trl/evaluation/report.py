"""One evaluation from model to numbers: sample, score, report."""

import json
import math
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .metrics import (
    PairedDifference,
    answer_entropy,
    bootstrap_interval,
    paired_difference,
    pass_at_k,
    wrong_answer_diversity,
)
from .sampling import Completions, is_conversation, sample_completions


@dataclass(frozen=True, eq=False)
class EvaluationResult:
    """
    What `evaluate` measured.

    A completion whose reward is missing (`None` or NaN) is *unscorable*: it is no sample of its problem. A problem
    without a scorable completion is in none of the means over problems. Every mean below is over problems, except
    those of token entropy, length and truncation, which are over all completions.

    Args:
        prompts (`list`): the distinct prompts, in the order of the dataset.
        completions ([`Completions`]): all completions, prompt by prompt.
        rewards (`np.ndarray` of shape `(problems, num_samples)`): rewards, NaN where missing.
        extra_columns (`dict[str, list]`): what the reward function passed to `log_extra`, one entry per completion for
            `extracted_answer`.
        reward_metrics (`dict[str, float]`): means of what it passed to `log_metric`.
        num_duplicates (`int`): rows of the dataset left out because their prompt came before.
        settings (`dict`): the settings of the evaluation.
    """

    prompts: list
    completions: Completions
    rewards: np.ndarray
    extra_columns: dict[str, list]
    reward_metrics: dict[str, float]
    num_duplicates: int
    settings: dict

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

    @cached_property
    def is_scorable(self) -> np.ndarray:
        """Whether each problem has a scorable completion, `(problems,)`."""
        return self.num_samples > 0

    @property
    def num_unscorable_problems(self) -> int:
        return int((~self.is_scorable).sum())

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
        """Mean pass@k for every k of `ks`, always over the same problems."""
        return {k: float(self.problem_pass_at_k(k).mean()) for k in self.ks}

    def intervals(self, confidence: float = 0.95, num_resamples: int = 10_000, seed: int = 0) -> dict:
        """`{k: (low, high)}`: bootstrap interval over problems of each mean in `pass_at_k`."""
        values = np.stack([self.problem_pass_at_k(k) for k in self.ks], axis=1)  # (scorable problems, ks)
        low, high = bootstrap_interval(values, confidence, num_resamples, seed)
        return {k: (float(low[i]), float(high[i])) for i, k in enumerate(self.ks)}

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
        """Mean over completions of their mean token entropy, in nats."""
        return float(self.completions.entropies.mean())

    @property
    def mean_length(self) -> float:
        """Mean completion length in tokens."""
        return float(self.completions.lengths.mean())

    @property
    def truncated_share(self) -> float:
        """Share of completions cut at `max_new_tokens`."""
        return float(self.completions.truncated.mean())

    @property
    def share_all_wrong(self) -> float:
        """Share of the scorable problems without a correct completion."""
        return float((self.num_correct[self.is_scorable] == 0).mean())

    @property
    def share_all_right(self) -> float:
        """Share of the scorable problems whose scorable completions are all correct."""
        return float((self.num_correct == self.num_samples)[self.is_scorable].mean())

    def to_dict(self) -> dict:
        """Everything but the completions, ready for `json.dump`: NaN becomes `None`, and k a string."""
        diversity = self.wrong_answer_diversity
        return {
            "settings": self.settings,
            "num_problems": len(self.prompts),
            "num_duplicates": self.num_duplicates,
            "num_unscorable_problems": self.num_unscorable_problems,
            "num_unscorable_completions": self.num_unscorable_completions,
            "pass_at_k": {str(k): value for k, value in self.pass_at_k.items()},
            "pass_at_k_intervals": {str(k): list(interval) for k, interval in self.intervals().items()},
            "answer_entropy": self.answer_entropy,
            "wrong_answer_diversity": None if diversity is None or math.isnan(diversity) else diversity,
            "token_entropy": self.token_entropy,
            "mean_length": self.mean_length,
            "truncated_share": self.truncated_share,
            "share_all_wrong": self.share_all_wrong,
            "share_all_right": self.share_all_right,
            "reward_metrics": self.reward_metrics,
            "problems": [
                {"prompt": prompt, "num_samples": int(n), "num_correct": int(c)}
                for prompt, n, c in zip(self.prompts, self.num_samples, self.num_correct, strict=True)
            ],
        }


def evaluate(
    model,
    tokenizer,
    dataset: Iterable[dict],
    reward_func: Callable,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    top_k: int = 0,
    token_budget: int = 16384,
    chat_template_kwargs: dict | None = None,
    correctness_threshold: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> EvaluationResult:
    """
    Samples `num_samples` completions for every problem of a dataset and scores them.

    The reward function is called as TRL calls it, once, with all completions: those of one prompt are neighbours.

    Args:
        model, tokenizer, max_new_tokens, temperature, top_p, top_k, token_budget, chat_template_kwargs, seed,
            progress: as in [`sample_completions`].
        dataset ([`~datasets.Dataset`] or iterable of rows): a `prompt` column and whatever the reward function reads.
            A prompt that comes up again is left out with a warning: problems must not count twice.
        reward_func (`Callable`): one reward per completion, `None` for one that cannot be scored. Extracted answers
            reported by `log_extra("extracted_answer", values)` are what the answer entropy is computed from.
        num_samples (`int`): completions per problem.
        correctness_threshold (`float`): a completion is correct if its reward is above.

    Raises:
        ValueError: a dataset that is empty, has no `prompt` column or has images, rewards or extracted answers of the
            wrong number, no rewards at all, or as in [`sample_completions`].
    """
    settings = {
        "num_samples": num_samples,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "correctness_threshold": correctness_threshold,
        "seed": seed,
    }
    rows, num_duplicates = _distinct_rows(dataset)
    prompts = [row["prompt"] for row in rows]
    completions = sample_completions(
        model,
        tokenizer,
        prompts,
        num_samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        token_budget=token_budget,
        chat_template_kwargs=chat_template_kwargs,
        seed=seed,
        progress=progress,
    )
    rewards, extra_columns, metrics = _score(reward_func, rows, completions, num_samples)
    rewards = rewards.reshape(len(rows), num_samples)
    result = EvaluationResult(prompts, completions, rewards, extra_columns, metrics, num_duplicates, settings)
    if not result.is_scorable.any():
        raise ValueError(f"The reward function '{_name(reward_func)}' gave no reward to any completion.")
    if result.num_unscorable_problems:
        warnings.warn(
            f"{result.num_unscorable_problems} of {len(rows)} problems have no scorable completion and are left out: "
            f"'{_name(reward_func)}' returned None or NaN for all of theirs.",
            stacklevel=2,
        )
    return result


def _distinct_rows(dataset: Iterable[dict]) -> tuple[list[dict], int]:
    if isinstance(dataset, dict):
        raise ValueError(f"dataset holds the splits {sorted(dataset)}; pass one of them.")
    rows = list(dataset)
    if not rows:
        raise ValueError("dataset is empty, but an evaluation needs at least 1 problem.")
    columns = list(rows[0])
    if "prompt" not in columns:
        raise ValueError(f"dataset needs a 'prompt' column, but its columns are {columns}.")
    if images := {"image", "images"} & set(columns):
        raise ValueError(f"dataset has the columns {sorted(images)}, but only text prompts are supported.")
    first = {}
    for row in rows:
        first.setdefault(json.dumps(row["prompt"], sort_keys=True, default=repr), row)
    if num_duplicates := len(rows) - len(first):
        warnings.warn(
            f"{num_duplicates} of {len(rows)} rows repeat the prompt of an earlier row and are left out.",
            stacklevel=3,
        )
    return list(first.values()), num_duplicates


def _score(reward_func: Callable, rows: list[dict], completions: Completions, num_samples: int):
    repeated = [row for row in rows for _ in range(num_samples)]
    replies = completions.texts
    if is_conversation(rows[0]["prompt"]):
        replies = [[{"role": "assistant", "content": text}] for text in replies]
    # The names that TRL keeps to itself do not reach the reward function as columns
    columns = {name: [row[name] for row in repeated] for name in rows[0].keys() - {"prompt", "completion"}}
    columns.pop("completion_ids", None)
    extra_columns, metrics = {}, {}
    returned = reward_func(
        prompts=[row["prompt"] for row in repeated],
        completions=replies,
        completion_ids=completions.token_ids,
        **columns,
        log_extra=lambda column, values: extra_columns.setdefault(column, []).extend(values),
        log_metric=lambda name, value: metrics.setdefault(name, []).append(value),
        trainer_state=None,
    )
    rewards = np.array([math.nan if reward is None else float(reward) for reward in returned])
    _check_length(reward_func, "rewards", rewards, len(replies))
    if "extracted_answer" in extra_columns:
        _check_length(reward_func, "extracted answers", extra_columns["extracted_answer"], len(replies))
    return rewards, extra_columns, {name: float(np.mean(values)) for name, values in metrics.items()}


def _check_length(reward_func: Callable, what: str, values, needed: int):
    if len(values) != needed:
        raise ValueError(
            f"The reward function '{_name(reward_func)}' returned {len(values)} {what}, but {needed} are needed: one "
            "per completion."
        )


def _name(reward_func: Callable) -> str:
    return getattr(reward_func, "__name__", type(reward_func).__name__)


def compare(
    a: EvaluationResult,
    b: EvaluationResult,
    k: int,
    confidence: float = 0.95,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """
    pass@k of `a` minus pass@k of `b` on the same problems, with the paired bootstrap interval over problems.

    A problem that only one of the two could score is left out with a warning.

    Raises:
        ValueError: the prompts differ, in content or in order; no problem is scorable in both; or `k` exceeds a
            problem's number of samples.
    """
    if a.prompts != b.prompts:
        raise ValueError(
            f"compare needs two evaluations of the same prompts in the same order; these have {len(a.prompts)} and "
            f"{len(b.prompts)}, of which {sum(x == y for x, y in zip(a.prompts, b.prompts, strict=False))} agree."
        )
    both = a.is_scorable & b.is_scorable  # (problems,)
    if one_sided := int((a.is_scorable != b.is_scorable).sum()):
        warnings.warn(
            f"{one_sided} of {len(both)} problems are scorable in one of the two evaluations only and are left out.",
            stacklevel=2,
        )
    values = [pass_at_k(result.num_samples[both], result.num_correct[both], k) for result in (a, b)]
    return paired_difference(*values, confidence, num_resamples, seed)
