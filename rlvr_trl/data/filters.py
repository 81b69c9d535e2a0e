"""Which rows of a dataset are worth training on. Every filter warns how many rows it leaves out."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from datasets import Dataset

from ..digests import content_digest
from .reading import as_dataset


def deduplicate(dataset: Dataset) -> Dataset:
    """
    Keeps the first of the rows with equal prompts (and images: the same question about another figure is kept).

    The warning also says how many of those left out have a different answer than the first.
    """
    seen: dict[bytes, str | None] = {}
    kept, conflicts = [], 0
    columns = [name for name in ("prompt", "answer", "image", "images") if name in dataset.column_names]
    for i, row in enumerate(_rows(as_dataset(dataset.select_columns(columns)))):
        answer = row.pop("answer", None)
        digest = content_digest(row)
        if digest in seen:
            conflicts += answer != seen[digest]
        else:
            seen[digest] = answer
            kept.append(i)
    _warn(dataset, kept, f"their prompt came before, {conflicts} of them with a different answer")
    return select_rows(dataset, kept, "a prompt")


def filter_by_length(dataset: Dataset, tokenizer, max_tokens: int) -> Dataset:
    """
    Keeps the rows whose prompt has at most `max_tokens` tokens.

    Messages are counted as the model gets them: with the chat template, up to the beginning of the reply. Images are
    not counted: their number of tokens depends on the model.

    Raises:
        ValueError: `max_tokens` is below 1, or no row is left.
    """
    _check_max_tokens(max_tokens)
    lengths = []
    for prompt in dataset["prompt"]:
        is_text = isinstance(prompt, str)
        text = prompt if is_text else tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
        # a chat template writes the special tokens itself
        lengths.append(len(tokenizer(text, add_special_tokens=is_text)["input_ids"]))
    kept = [i for i, length in enumerate(lengths) if length <= max_tokens]
    _warn(
        dataset,
        kept,
        f"their prompt has more than max_tokens={max_tokens} tokens, the longest {max(lengths, default=0)}",
    )
    return select_rows(dataset, kept, f"a prompt of at most {max_tokens} tokens")


def filter_by_pass_rate(
    dataset: Dataset, num_correct: Sequence[int] | np.ndarray, num_samples: int | Sequence[int] | np.ndarray
) -> Dataset:
    """
    Drops the prompts that a model never or always solves: all advantages of their groups would be 0.

    Args:
        dataset ([`~datasets.Dataset`]):
            Any dataset.
        num_correct (sequence of `int`):
            Correct completions of each row, such as `num_correct` of an evaluation of the same rows.
        num_samples (`int` or sequence of `int`):
            Completions sampled for all rows, or for each.

    Raises:
        ValueError: the number of counts is not that of the rows, a row has no samples, a count is out of range, or no
            row is left.
    """
    samples = np.asarray(num_samples).tolist()  # a number or a list
    per_row = samples if isinstance(samples, list) else [samples] * len(dataset)
    for name, counts in (("num_correct", num_correct), ("num_samples", per_row)):
        if len(counts) != len(dataset):
            raise ValueError(f"{name} must have one count for each of the {len(dataset)} rows, got {len(counts)}.")
    kept, num_never = [], 0
    for i, (correct, samples) in enumerate(zip(num_correct, per_row, strict=True)):
        if correct is None or not samples or not 0 <= correct <= samples:
            raise ValueError(
                f"Row {i} needs 0 <= num_correct <= num_samples and a sample, got {correct} of {samples}."
            )
        num_never += correct == 0
        if 0 < correct < samples:
            kept.append(i)
    num_always = len(dataset) - len(kept) - num_never
    _warn(dataset, kept, f"{num_never} are never solved and {num_always} always")
    return select_rows(dataset, kept, "a prompt that is solved sometimes")


def filter_by_verifier(
    dataset: Dataset,
    reward_func: Callable | None = None,
    tokenizer=None,
    max_tokens: int | None = None,
    batch_size: int = 1024,
) -> Dataset:
    """
    Keeps the rows with at least one of `generations` that `reward_func` finds right and that is short enough.

    This is how the 45k subset was made from OpenR1-Math-220k (arXiv 2504.14945): answers that cannot be verified and
    generations of more than 8192 tokens are left out. The verifier is another one, so the rows are not exactly those.

    Args:
        dataset ([`~datasets.Dataset`]):
            With the columns `generations` (texts) and `answer`.
        reward_func (`callable`, *optional*):
            Reward function with TRL's signature; right is above 0.5. Defaults to [`~rlvr_trl.rewards.math_reward`].
        tokenizer ([`~transformers.PreTrainedTokenizerBase`], *optional*):
            Counts the tokens of a generation. Needed with `max_tokens`, and only then.
        max_tokens (`int`, *optional*):
            Generations of more tokens do not count.
        batch_size (`int`, *optional*, defaults to `1024`):
            Rows whose generations are judged together.

    Raises:
        ValueError: a column is missing, only one of `tokenizer` and `max_tokens` is given, or no row is left.
    """
    if missing := {"generations", "answer"} - set(dataset.column_names):
        raise ValueError(f"filter_by_verifier needs the columns {sorted(missing)}, found {dataset.column_names}.")
    if (tokenizer is None) != (max_tokens is None):
        raise ValueError(f"tokenizer and max_tokens must be given together, got {tokenizer!r} and {max_tokens!r}.")
    if max_tokens is not None:
        _check_max_tokens(max_tokens)
    if reward_func is None:
        from ..rewards import math_reward as reward_func

    def is_short(text: str) -> bool:
        if tokenizer is None or max_tokens is None:
            return True
        return len(tokenizer(text, add_special_tokens=False)["input_ids"]) <= max_tokens

    kept: list[int] = []
    for start in range(0, len(dataset), batch_size):
        batch = dataset[start : start + batch_size]
        rows, texts = [], []
        for i, generations in enumerate(batch["generations"]):
            for text in generations or []:
                if is_short(text):
                    rows.append(i)
                    texts.append(text)
        rewards = reward_func(completions=texts, answer=[batch["answer"][i] for i in rows]) if texts else []
        right = {i for i, reward in zip(rows, rewards, strict=True) if reward is not None and reward > 0.5}
        kept.extend(start + i for i in sorted(right))
    limit = "" if max_tokens is None else f" of at most {max_tokens} tokens"
    _warn(dataset, kept, f"no generation{limit} is right")
    return select_rows(dataset, kept, f"a generation{limit} that is right")


def select_rows(dataset: Dataset, kept: list[int], condition: str) -> Dataset:
    """The rows `kept`. Raises `ValueError` if there are none."""
    if not kept:
        raise ValueError(f"None of the {len(dataset)} rows has {condition}.")
    return dataset if len(kept) == len(dataset) else as_dataset(dataset.select(kept))


def _rows(dataset: Dataset) -> Iterator[dict]:
    """The rows, read a few hundred at a time, which is several times faster than one by one."""
    for batch in dataset.iter(batch_size=256):
        assert isinstance(batch, Mapping)
        yield from (dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _check_max_tokens(max_tokens: int):
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be at least 1, got {max_tokens}.")


def _warn(dataset: Dataset, kept: list[int], reason: str):
    if len(kept) < len(dataset):
        warnings.warn(f"{len(dataset) - len(kept)} of {len(dataset)} rows are left out: {reason}.", stacklevel=3)
