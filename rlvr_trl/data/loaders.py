"""Loads a published dataset, or a local one of the same shape, in the columns that trainers and rewards expect."""

import warnings
from pathlib import Path

from datasets import Dataset

from .filters import deduplicate, select_rows
from .reading import as_dataset, check_columns, decoded_images, read_rows, undecoded_images
from .sources import SOURCES, Source
from .templates import Template, fill_template, find_template


_ORDER = ("prompt", "answer", "solution", "level", "subject", "image", "images")
# Prefix of new columns: `map` would cast a column that was there before to its old type, and turn 025 back into 25.
_NEW = "new:"


def load_source(
    name: str,
    path_or_id: str | Path | None = None,
    split: str | None = None,
    *,
    template: str | Template | None = None,
    distinct: bool = True,
    drop_unanswered: bool = False,
) -> Dataset:
    """
    Loads one of `SOURCES`.

    Args:
        name (`str`):
            Which source, such as `"dapo"`. It says which columns are expected.
        path_or_id (`str` or `Path`, *optional*):
            A file (`.parquet`, `.json`, `.jsonl`), a folder of such files, or an id of the Hub, with the columns of
            the source. Defaults to its id on the Hub.
        split (`str`, *optional*):
            Split of a folder or of a dataset of the Hub; a file has none. Defaults to that of the source.
        template (`str`, `list` or `callable`, *optional*):
            Name of one of `PROMPT_TEMPLATES`; a string or messages with `{problem}`; or a function from a row to a
            prompt, which gets the columns as they were read (images as bytes or paths) and `problem`. Defaults to that
            of the source, and to `"choice"` for questions with options.
        distinct (`bool`, *optional*, defaults to `True`):
            Whether only the first of equal prompts is kept, see [`deduplicate`].
        drop_unanswered (`bool`, *optional*, defaults to `False`):
            Whether to leave out rows without an answer, with a warning that counts them; otherwise they are an error.
            The training split of MATH has two.

    Returns:
        [`~datasets.Dataset`]: the columns `prompt` and `answer`, and those of `solution`, `level` (without the word),
        `subject`, `image` or `images` and `generations` that the source has. Apart from prompts, images and
        generations they are strings.

    Raises:
        ValueError: the source or the template is unknown, the file is missing or empty, columns are missing, a row has
            no answer, or a template makes a string where there are images.
    """
    if name not in SOURCES:
        raise ValueError(f"name={name!r} is not a source; use one of {', '.join(SOURCES)}.")
    source = SOURCES[name]
    path_or_id = path_or_id or source.hub
    rows = read_rows(path_or_id, source.configs, split or source.split, has_configs=path_or_id == source.hub)
    check_columns(rows, source.columns, name, path_or_id)
    dataset = _with_prompts(rows, source, template, path_or_id)
    dataset = _answered(dataset, f"{name} from {path_or_id}", drop_unanswered)
    return deduplicate(dataset) if distinct else dataset


def load_math(
    path_or_id: str | Path = "EleutherAI/hendrycks_math",
    split: str = "train",
    *,
    template: str | Template | None = None,
    distinct: bool = True,
    drop_unanswered: bool = False,
) -> Dataset:
    r"""
    Loads MATH (arXiv 2103.03874), in its seven parts or merged into one, with or without a column `answer`.

    The seven parts are joined in alphabetical order. Without that column, the answer is what is in the last
    `\boxed{…}` of the solution. For the arguments see [`load_source`].

    Example:
    ```python
    >>> train = load_math(drop_unanswered=True)
    >>> train = load_math("math_train.parquet", drop_unanswered=True, template="plain")
    ```
    """
    return load_source(
        "math", path_or_id, split, template=template, distinct=distinct, drop_unanswered=drop_unanswered
    )


def _with_prompts(rows: Dataset, source: Source, template: str | Template | None, path_or_id: str | Path) -> Dataset:
    chosen = None if template is None else find_template(template)
    if source.images:
        rows = undecoded_images(rows, source.images, path_or_id)

    def convert(row: dict, index: int) -> dict:
        try:
            question = source.read(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"Row {index} of {path_or_id} is not as expected: {error!r}") from error
        used = find_template("choice" if question.options else source.template) if chosen is None else chosen
        prompt = fill_template(used, question.full_text, row)
        if source.images and isinstance(prompt, str):
            raise ValueError("template must give messages where there are images, found one that gives a string.")
        columns = {"prompt": prompt, "answer": question.answer, **question.columns}
        return {f"{_NEW}{column}": value for column, value in columns.items()}

    def convert_batch(batch, indices: list[int]) -> dict[str, list]:
        names = list(batch)
        rows = (dict(zip(names, values, strict=True)) for values in zip(*(batch[n] for n in names), strict=True))
        converted = [convert(row, index) for row, index in zip(rows, indices, strict=True)]
        return {name: [row[name] for row in converted] for name in converted[0]}

    # A cached result would outlive a change of this package, and of functions that a template calls.
    removed = [column for column in rows.column_names if column != source.images]
    dataset = as_dataset(
        rows.map(convert_batch, batched=True, with_indices=True, remove_columns=removed, load_from_cache_file=False)
    )
    new_names = {c: c.removeprefix(_NEW) for c in dataset.column_names if c.startswith(_NEW)}
    dataset = as_dataset(dataset.rename_columns(new_names))
    if source.images:
        dataset = decoded_images(dataset, source.images)
        if source.images == "decoded_image":
            dataset = as_dataset(dataset.rename_column(source.images, "image"))
    ordered = [column for column in _ORDER if column in dataset.column_names]
    return as_dataset(dataset.select_columns(ordered + [c for c in dataset.column_names if c not in ordered]))


def _answered(dataset: Dataset, origin: str, drop_unanswered: bool) -> Dataset:
    missing = [i for i, answer in enumerate(dataset["answer"]) if answer is None]
    if not missing:
        return dataset
    if not drop_unanswered:
        prompt = dataset.select_columns("prompt")[missing[0]]["prompt"]
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        raise ValueError(
            f"{len(missing)} of {len(dataset)} rows of {origin} have no answer, the first is row {missing[0]}: "
            f"{text[:80]!r}. Leave them out with drop_unanswered=True."
        )
    warnings.warn(f"{len(missing)} of {len(dataset)} rows of {origin} have no answer: left out.", stacklevel=3)
    return select_rows(dataset, [i for i, answer in enumerate(dataset["answer"]) if answer is not None], "an answer")
