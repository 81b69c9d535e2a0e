"""What an engine is asked for, and what it returns."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral
from reprlib import repr as shorten
from typing import Any, Protocol

import numpy as np

from ..checks import is_real


ROUNDING = 1e-2  # by which an entropy may be below 0, in half precision too


@dataclass(frozen=True)
class SamplingSettings:
    """
    How completions are drawn, with the same meaning in every engine.

    Args:
        max_new_tokens (`int`): number of tokens after which a completion is cut.
        temperature (`float`): sampling temperature; 0 is greedy.
        top_p (`float`), top_k (`int`): nucleus and top-k sampling; 1 and 0 switch them off.
        seed (`int`): seed of the samples.

    Raises:
        ValueError: a setting is out of range.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self):
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature must be 0 (greedy) or above, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1 (off), got {self.top_p}.")
        if self.top_k < 0:
            raise ValueError(f"top_k must be 0 (off) or above, got {self.top_k}.")


@dataclass(frozen=True)
class Sample:
    """
    One completion of one problem.

    Args:
        problem (`int`): index of the prompt that it completes.
        sample (`int`): its number among the prompt's samples, from 0.
        text (`str`): the text, decoded without special tokens.
        token_ids (`list[int]`, *optional*): its tokens, up to and including the one that ended it; `None` if the
            engine does not return them.
        length (`int`): number of tokens, including the one that ended it.
        truncated (`bool`): whether it was cut at `max_new_tokens`.
        entropy (`float`, *optional*): mean over its tokens of the entropy of the model's full next-token distribution
            at temperature 1, in nats; `None` if the engine does not return it.
        refused (`bool`): whether the engine refused to complete, as a server with a filter does. Such a sample has no
            text and no length, and is not scored.

    Raises:
        ValueError: a field is of another type, or a number is out of range.
    """

    problem: int
    sample: int
    text: str
    token_ids: list[int] | None
    length: int
    truncated: bool
    entropy: float | None
    refused: bool = False

    def __post_init__(self):
        for name in ("problem", "sample", "length"):
            value = getattr(self, name)
            if not _is_whole_number(value) or not 0 <= value < 2**63:
                raise ValueError(f"`{name}` of a sample must be an integer of at least 0, got {shorten(value)}.")
        if not isinstance(self.text, str):
            raise ValueError(f"`text` of a sample must be a text, got {shorten(self.text)}.")
        if self.token_ids is not None and not (
            isinstance(self.token_ids, list) and all(map(_is_whole_number, self.token_ids))
        ):
            raise ValueError(f"`token_ids` of a sample must be integers or None, got {shorten(self.token_ids)}.")
        for name in ("truncated", "refused"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise ValueError(f"`{name}` of a sample must be true or false, got {shorten(value)}.")
        if self.entropy is not None and not (is_real(self.entropy) and -ROUNDING < self.entropy < math.inf):
            raise ValueError(
                f"`entropy` of a sample must be a number of at least 0 or None, got {shorten(self.entropy)}."
            )
        if self.refused and (self.text or self.length):
            raise ValueError("A sample that was `refused` has neither a text nor a length.")

    def __repr__(self) -> str:  # texts and tokens of any length
        return f"Sample(problem={self.problem}, sample={self.sample}, length={self.length}, text={shorten(self.text)})"


def _is_whole_number(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


class Engine(Protocol):
    """
    Something that samples completions: a model in this process, vLLM, or a server.

    One that knows the tokens of its prompts may have another method, which is called after `check`:

        survey(prompts, max_new_tokens) -> PromptSurvey | None      how the prompts fit the model; None if unknown
    """

    def check(self, prompts: Sequence) -> None:
        """Raises `ValueError` for prompts that this engine cannot complete. Called before anything is sampled."""

    def sample(
        self, prompts: Sequence, requests: Sequence[tuple[int, int]], settings: SamplingSettings
    ) -> Iterator[list[Sample]]:
        """
        Yields completions as they finish, a few at a time, in any order: exactly one for each request.

        Args:
            prompts (sequence of `str`, or of lists of messages): the prompts of all problems.
            requests (sequence of `(problem, sample)`): which completions of which prompts are wanted.
            settings ([`SamplingSettings`]): how they are drawn. Up to floating point, what is drawn for a request
                depends on the prompt, these settings and the request alone, not on the other requests.
        """
        ...

    def describe(self) -> dict:
        """The name of the engine, the model and its revision, and whatever else a result depends on."""
        ...


@dataclass(frozen=True, eq=False)
class Completions:
    """
    Sampled completions, prompt by prompt: completion `s` of prompt `p` is at index `p * num_samples + s`.

    Args:
        texts (`list[str]`): the texts, decoded without special tokens.
        token_ids (`list[list[int] | None]`): the tokens of each, up to and including the one that ended it; `None` if
            the engine does not return them.
        lengths (`np.ndarray` of shape `(completions,)`): number of tokens, including the one that ended it.
        truncated (`np.ndarray` of shape `(completions,)`): whether it was cut at `max_new_tokens`.
        entropies (`np.ndarray` of shape `(completions,)`): mean token entropy in nats, see [`Sample`]; NaN if the
            engine does not return it.
        refused (`frozenset[int]`): indices of the completions that the engine refused, see [`Sample`].
    """

    texts: list[str]
    token_ids: list[list[int] | None]
    lengths: np.ndarray
    truncated: np.ndarray
    entropies: np.ndarray
    refused: frozenset[int] = frozenset()

    def __repr__(self) -> str:  # any number of texts
        return f"Completions({len(self.texts)} texts, {int(self.lengths.sum())} tokens)"

    @classmethod
    def from_samples(cls, samples: Iterable[Sample], num_problems: int, num_samples: int) -> "Completions":
        """
        Puts samples that came in any order into the order of problems and samples.

        Raises:
            ValueError: a sample is missing, comes twice, or has the number of a problem or sample that does not exist.
        """
        ordered: list[Sample | None] = [None] * (num_problems * num_samples)
        for sample in samples:
            if not (0 <= sample.problem < num_problems and 0 <= sample.sample < num_samples):
                raise ValueError(
                    f"Sample {sample.sample} of problem {sample.problem} does not exist: there are {num_samples} "
                    f"samples of each of {num_problems} problems, numbered from 0."
                )
            index = sample.problem * num_samples + sample.sample
            if ordered[index] is not None:
                raise ValueError(f"Sample {sample.sample} of problem {sample.problem} came twice.")
            ordered[index] = sample
        missing = [divmod(index, num_samples) for index, sample in enumerate(ordered) if sample is None]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(ordered)} samples are missing; the first is sample {missing[0][1]} of "
                f"problem {missing[0][0]}."
            )
        found = [sample for sample in ordered if sample is not None]
        return cls(
            texts=[sample.text for sample in found],
            token_ids=[sample.token_ids for sample in found],
            lengths=np.array([sample.length for sample in found], dtype=np.int64),
            truncated=np.array([sample.truncated for sample in found], dtype=bool),
            entropies=np.array([np.nan if sample.entropy is None else sample.entropy for sample in found]),
            refused=frozenset(index for index, sample in enumerate(found) if sample.refused),
        )
