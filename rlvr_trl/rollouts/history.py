"""What is known of each training prompt: how often it was seen, how often it was solved, and how long its answers are.

Arrays of numbers alone, 48 bytes a prompt: a million prompts take 48 MB, and a batch is a few operations on arrays.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset

from ..checks import check_integer, check_positive, check_share


# Of every prompt, in the order of the columns of a Parquet file
_COLUMNS = {
    "seen": np.int32,  # batches
    "samples": np.int32,  # judged completions
    "correct": np.int32,
    "recent_correct": np.float32,  # discounted
    "recent_wrong": np.float32,
    "mean_reward": np.float32,
    "mean_length": np.float32,
    "max_length": np.int32,
    "last_step": np.int32,  # -1: never
}
_HALF = 0.5
_DIGITS = re.compile("[0-9a-f]{16}")


class PromptHistory:
    """
    The record of every prompt of a training set, and what it says of the next completions.

    The accuracy of a prompt has a Beta posterior. Its evidence is what was seen of the prompt, discounted by
    `discount` with each later batch that it is in, since the model changes. Its prior is that of the prompt's *pool*:
    the discounted accuracy of all prompts of the pool, with the weight of `prior_strength` completions. So a prompt
    that was never seen has the accuracy of others like it, which is learnt as training goes; before anything was
    seen, it is 1/2.

    Prompts are known by ids: 16 hexadecimal digits, such as an evaluation makes of the content of its problems,
    or any texts of the user's, of which the digest is kept. Equal ids are one prompt.

    Args:
        ids (`Sequence[str]`):
            The id of each row of the training set, with repetitions.
        pools (`Sequence`, *optional*):
            Of each row, what its pool is named by: a level, a size. By default all prompts are one pool.
        discount (`float`, *optional*, defaults to `0.7`):
            What the evidence of a prompt is multiplied by when new evidence comes, in [0, 1]. With 1 all of it counts
            alike, with 0 the last batch alone.
        pool_discount (`float`, *optional*, defaults to `0.95`):
            The same of a pool, with each batch.
        prior_strength (`float`, *optional*, defaults to `2.0`):
            Completions that the accuracy of the pool counts as.

    Attributes:
        seen, samples, correct, last_step, max_length (`np.ndarray` of shape `(prompts,)`): batches that each prompt
            was in, its judged completions, those that were correct, the last step at which it was in a batch (−1:
            never), and the most tokens of a completion.
        mean_reward, mean_length (`np.ndarray` of shape `(prompts,)`): over its judged completions.

    Raises:
        `ValueError`: There are no ids, not one pool for each, rows of one id have two pools, or a setting is out of
        its range.
    """

    seen: np.ndarray
    samples: np.ndarray
    correct: np.ndarray
    recent_correct: np.ndarray
    recent_wrong: np.ndarray
    mean_reward: np.ndarray
    mean_length: np.ndarray
    max_length: np.ndarray
    last_step: np.ndarray

    def __init__(
        self,
        ids: Sequence[str],
        pools: Sequence | None = None,
        *,
        discount: float = 0.7,
        pool_discount: float = 0.95,
        prior_strength: float = 2.0,
    ):
        for name, value in (("discount", discount), ("pool_discount", pool_discount)):
            check_share(name, value)
        check_positive("prior_strength", prior_strength)
        if len(ids) == 0:
            raise ValueError("`ids` is empty, but a history needs at least 1 prompt.")
        if pools is not None and len(pools) != len(ids):
            raise ValueError(f"`pools` must have one entry for each of {len(ids)} ids, got {len(pools)}.")
        self.discount, self.pool_discount, self.prior_strength = discount, pool_discount, prior_strength
        self._keys, first = np.unique(_keys_of(ids), return_index=True)
        self._pool_names, self._pool = ["all"], np.zeros(len(self._keys), np.int32)
        if pools is not None:
            names, of_row = np.unique(np.array([str(pool) for pool in pools]), return_inverse=True)
            self._pool_names, self._pool = names.tolist(), of_row[first].astype(np.int32)
            apart = of_row != self._pool[self.find(ids)]
            if apart.any():
                raise ValueError(f"`pools` has several pools for the prompt {ids[int(apart.argmax())]!r}.")
        self._pool_counts = np.zeros((len(self._pool_names), 2))  # correct, wrong
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.full(len(self._keys), -1 if name == "last_step" else 0, kind))

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        seen = int((self.seen > 0).sum())
        return f"PromptHistory({len(self)} prompts, {seen} seen, {int(self.samples.sum())} completions)"

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        arrays = [self._keys, self._pool, *(getattr(self, name) for name in _COLUMNS)]
        return sum(array.nbytes for array in arrays)

    def find(self, ids: Sequence[str]) -> np.ndarray:
        """
        Places of prompts, `(N,)`, by which all else is asked.

        Raises:
            `ValueError`: An id is not of this history.
        """
        keys = _keys_of(ids)
        places = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        unknown = self._keys[places] != keys
        if unknown.any():
            raise ValueError(
                f"The prompt {ids[int(unknown.argmax())]!r} is not of this history of {len(self)} prompts."
            )
        return places

    def update(
        self,
        places: np.ndarray,
        *,
        step: int,
        samples: np.ndarray,
        correct: np.ndarray,
        rewards: np.ndarray | None = None,
        lengths: np.ndarray | None = None,
        max_lengths: np.ndarray | None = None,
    ) -> None:
        """
        Adds what a batch has shown. A prompt that is twice in it counts once, with all of its completions.

        Args:
            places (`np.ndarray` of shape `(P,)`): from [`find`].
            step (`int`): of the training.
            samples, correct (`np.ndarray` of shape `(P,)`): judged completions of each, and those that are correct.
            rewards, lengths, max_lengths (`np.ndarray` of shape `(P,)`, *optional*): mean reward and mean and maximum
                number of tokens of the completions of each.

        Raises:
            `ValueError`: The arrays differ in shape, `correct` is negative or above `samples`, or `step` is negative.
        """
        check_integer("step", step, at_least=0)
        places, samples, correct = (np.asarray(values, np.int64) for values in (places, samples, correct))
        if not places.shape == samples.shape == correct.shape or places.ndim != 1:
            shapes = [tuple(values.shape) for values in (places, samples, correct)]
            raise ValueError(f"`places`, `samples` and `correct` must be equally long lists, got the shapes {shapes}.")
        if ((correct < 0) | (correct > samples)).any():
            raise ValueError("`correct` must be from 0 to `samples` for every prompt.")
        at, group = np.unique(places, return_inverse=True)
        new, right = (np.bincount(group, values, len(at)) for values in (samples, correct))

        self.seen[at] += 1
        self.samples[at] += new.astype(np.int32)
        self.correct[at] += right.astype(np.int32)
        for mean, values in ((self.mean_reward, rewards), (self.mean_length, lengths)):
            if values is not None:
                added = np.bincount(group, np.asarray(values, np.float64) * samples, len(at)) - new * mean[at]
                mean[at] += (added / np.maximum(self.samples[at], 1)).astype(np.float32)
        if max_lengths is not None:
            np.maximum.at(self.max_length, places, np.asarray(max_lengths, np.int32))
        self.last_step[at] = step
        judged = at[new > 0]  # what was not judged is no evidence, and makes none older
        for evidence, found in ((self.recent_correct, right), (self.recent_wrong, new - right)):
            evidence[judged] = self.discount * evidence[judged] + found[new > 0]
        pools = self._pool[at]
        found = [np.bincount(pools, values, len(self._pool_names)) for values in (right, new - right)]
        self._pool_counts = self.pool_discount * self._pool_counts + np.stack(found, axis=1)

    def posterior(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """α and β of the Beta distribution of the accuracy of each prompt, `(P,)` each, above 0."""
        counts = self._pool_counts + _HALF  # Jeffreys' prior of a pool
        prior = self.prior_strength * counts / counts.sum(axis=1, keepdims=True)
        alpha, beta = prior[self._pool[places]].T
        return alpha + self.recent_correct[places], beta + self.recent_wrong[places]

    def accuracy(self, places: np.ndarray) -> np.ndarray:
        """The mean of the posterior, `(P,)`: how likely the next completion is to be correct."""
        alpha, beta = self.posterior(places)
        return alpha / (alpha + beta)

    # --- kept and read ---

    def state_dict(self) -> dict[str, Any]:
        """Everything that training adds, for a checkpoint."""
        return {name: getattr(self, name).copy() for name in _COLUMNS} | {
            "keys": self._keys.copy(),
            "pools": list(self._pool_names),
            "pool_counts": self._pool_counts.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Restores what `state_dict` returned.

        Raises:
            `ValueError`: It is of other prompts or pools.
        """
        keys = np.asarray(state["keys"]).view(np.uint64)  # a checkpoint has no unsigned numbers
        if not np.array_equal(keys, self._keys) or list(state["pools"]) != self._pool_names:
            raise ValueError(
                f"The state is of {len(state['keys'])} prompts in {len(state['pools'])} pools, and this history has "
                f"{len(self)} in {len(self._pool_names)}, or they are not the same."
            )
        for name, kind in _COLUMNS.items():
            setattr(self, name, np.array(state[name], kind))
        self._pool_counts = np.array(state["pool_counts"], np.float64)

    def to_parquet(self, path: str | Path) -> None:
        """Writes a row for each prompt: `id` (16 hexadecimal digits) and what is known of it."""
        import pyarrow
        import pyarrow.parquet

        columns = {"id": [f"{key:016x}" for key in self._keys.tolist()]}
        pyarrow.parquet.write_table(
            pyarrow.table(columns | {name: getattr(self, name) for name in _COLUMNS}), str(path)
        )

    def read(self, path: str | Path) -> int:
        """
        Takes over what another run or an evaluation has found of the prompts that are also in this history.

        Args:
            path (`str` or `Path`): a file that `to_parquet` wrote; or `results.json` of a benchmark that
                `rlvr-trl eval` wrote, whose counts are one batch of evidence.

        Returns:
            `int`: how many of the prompts were found there.

        Raises:
            `ValueError`: The file is neither.
        """
        if Path(path).suffix == ".json":
            return self._read_evaluation(Path(path))
        import pyarrow.parquet

        try:
            table = pyarrow.parquet.read_table(str(path), columns=["id", *_COLUMNS])
            read = {name: table.column(name).to_numpy() for name in _COLUMNS}
            _check_columns(read)
            columns = {name: read[name].astype(kind) for name, kind in _COLUMNS.items()}
            ids = table.column("id").to_pylist()
            here = self._has(ids)
        except (OSError, ValueError) as error:
            raise ValueError(f"'{path}' holds no history of prompts: {error}") from None
        places = self.find([one for one, is_here in zip(ids, here, strict=True) if is_here])
        for name, values in columns.items():
            getattr(self, name)[places] = values[here]
        evidence = (self.recent_correct, self.recent_wrong)
        of_pools = [np.bincount(self._pool, values, len(self._pool_names)) for values in evidence]
        self._pool_counts = np.stack(of_pools, axis=1).astype(np.float64)
        return len(places)

    def _read_evaluation(self, path: Path) -> int:
        from ..evaluation.results import SavedCounts
        from ..evaluation.store import read_json

        try:
            counts = SavedCounts.from_dict(read_json(path))
        except (OSError, KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"'{path}' holds no results of a benchmark ({what}).") from None
        here = self._has(counts.problem_ids)
        places = self.find([one for one, is_here in zip(counts.problem_ids, here, strict=True) if is_here])
        self.update(places, step=0, samples=counts.num_samples[here], correct=counts.num_correct[here])
        self.last_step[places] = -1  # of this training
        return len(places)

    def _has(self, ids: Iterable[str]) -> np.ndarray:
        return np.isin(_keys_of(list(ids)), self._keys)


def _check_columns(columns: dict[str, np.ndarray]) -> None:
    """Raises a `ValueError` that names a column of a file unless its numbers can be those of a history."""
    for name, values in columns.items():
        if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
            raise ValueError(f"`{name}` must be a number for every prompt.")
        least = {"last_step": -1, "mean_reward": -np.inf}.get(name, 0)
        if (impossible := (values < least) | (np.abs(values) >= 2**31)).any():
            raise ValueError(f"`{name}` has the value {values[impossible][0]}.")
    if (columns["correct"] > columns["samples"]).any():
        raise ValueError("`correct` is above `samples`.")


def ids_of_prompts(dataset: Dataset) -> list[str]:
    """
    An id for each row of a training set: the digest of its prompt, which an evaluation of it has too, or the row's
    number where it also has images, without which prompts of the same words cannot be told apart, and where there is
    no prompt.
    """
    from ..evaluation.problems import Problem

    columns = set(dataset.column_names)
    if "prompt" not in columns or columns & {"image", "images"}:
        return [f"row {row}" for row in range(len(dataset))]
    return [Problem.from_row({"prompt": prompt}).id for prompt in dataset["prompt"]]


def _keys_of(ids: Sequence[str]) -> np.ndarray:
    """64 bits for each id: its own if it is 16 hexadecimal digits, else the beginning of its digest."""
    keys = np.empty(len(ids), np.uint64)
    for place, one in enumerate(ids):
        if not isinstance(one, str) or not one:
            raise ValueError(f"ids must be texts, found {one!r}.")
        digits = one if _DIGITS.fullmatch(one) else hashlib.sha256(one.encode()).hexdigest()[:16]
        keys[place] = int(digits, 16)
    return keys
