"""Loads a published dataset, or a local one of the same shape, in the columns that trainers and rewards expect."""

import re
import warnings
from pathlib import Path

from datasets import Dataset, List, Value

from ..registry import did_you_mean
from .filters import deduplicate, select_rows
from .reading import FORMATS, as_dataset, check_columns, decoded_images, images_together, read_rows, undecoded_images
from .sources import SOURCES, Source, reference_text
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
            A file (`.parquet`, `.json`, `.jsonl`, `.csv`), a folder of such files, or an id of the Hub, with the
            columns of the source. Defaults to its id on the Hub.
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
        raise ValueError(
            f"name={name!r} is not a source.{did_you_mean(name, SOURCES)} Use one of {', '.join(SOURCES)}."
        )
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


def load_own(
    path_or_id: str | Path,
    split: str = "train",
    *,
    config: str | None = None,
    template: str | Template | None = None,
    distinct: bool = True,
    drop_unanswered: bool = False,
) -> Dataset:
    """
    Loads a dataset of the user's own, or any of the Hub, that is in TRL's format or nearly so.

    It needs the column `prompt`, a text or a list of messages; or `problem` or `question`, from which `template` makes
    the prompts. The reference is in `answer` or else in `solution`, if a reward function needs one, and becomes text
    that says the same: a number or a date of Parquet as Python writes it; true, false and lists are refused. All other
    columns are kept as they are: reward functions get them.

    Args:
        path_or_id (`str` or `Path`):
            A file (`.parquet`, `.json`, `.jsonl`, `.csv`), a folder of such files, or an id of the Hub.
        split (`str`, *optional*, defaults to `"train"`):
            Split of a folder or of a dataset of the Hub; a file has none.
        config (`str`, *optional*):
            Configuration of a dataset of the Hub.
        template (`str`, `list` or `callable`, *optional*):
            As in [`load_source`]. By default `prompt` is taken as it is, and `"boxed"` is used for problems.
        distinct (`bool`, *optional*, defaults to `True`):
            Whether only the first of equal prompts is kept, see [`deduplicate`].
        drop_unanswered (`bool`, *optional*, defaults to `False`):
            Whether to leave out rows with an empty reference, with a warning that counts them; otherwise they are an
            error.

    Raises:
        ValueError: there is no such file or folder, it has no rows or not the columns, a prompt is missing, is neither
            text nor messages, or is made of messages where there is a template; a reference is missing, or is neither
            text nor a number nor a date.
    """
    path = Path(path_or_id)
    is_here = path.exists() or path.suffix in FORMATS
    if not is_here and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(path_or_id)):
        raise ValueError(
            f"{str(path_or_id)!r} is neither a source nor a file or folder nor an id of the Hub, owner/name."
            f"{did_you_mean(str(path_or_id), SOURCES)} Sources: {', '.join(SOURCES)}."
        )
    rows = read_rows(path_or_id, [config] if config else (), split, has_configs=True)
    check_columns(rows, ("prompt|problem|question",), "A dataset of your own", path_or_id)
    images = [column for column in ("image", "images") if column in rows.column_names]
    for column in images:
        rows = undecoded_images(rows, column, path_or_id)
    dataset = _in_trl_format(_with_references(rows, path_or_id), template, path_or_id)
    for column in images:
        dataset = decoded_images(dataset, column)
    reference = next((column for column in ("answer", "solution") if column in dataset.column_names), None)
    if reference:
        dataset = _answered(dataset, str(path_or_id), drop_unanswered, reference)
    return deduplicate(dataset) if distinct else dataset


def _with_references(rows: Dataset, path_or_id: str | Path) -> Dataset:
    """The rows with their references as text."""
    for column in {"answer", "solution"} & set(rows.column_names):
        references = []
        for index, value in enumerate(rows[column]):
            try:
                references.append(reference_text(value))
            except ValueError as error:
                raise ValueError(f"Row {index} of {path_or_id} has no usable `{column}`: {error}") from None
        order = rows.column_names
        rows = as_dataset(as_dataset(rows.remove_columns(column)).add_column(column, references))
        rows = as_dataset(rows.select_columns(order))
    return rows


def _in_trl_format(rows: Dataset, template: str | Template | None, path_or_id: str | Path) -> Dataset:
    """The rows with a column `prompt`, of text or of messages. The column that a template was filled with is gone."""
    column = next(name for name in ("prompt", "problem", "question") if name in rows.column_names)
    is_empty = [not (value.strip() if isinstance(value, str) else value) for value in rows[column]]
    if missing := [i for i, empty in enumerate(is_empty) if empty]:
        raise ValueError(f"`{column}` is empty in {len(missing)} rows of {path_or_id}, the first is row {missing[0]}.")
    feature = rows.features[column]
    is_text = isinstance(feature, Value) and feature.dtype in ("string", "large_string")
    message = feature.feature if isinstance(feature, List) else None
    is_messages = isinstance(message, dict) and {"role", "content"} <= set(message)
    if not is_text and not (is_messages and column == "prompt"):
        raise ValueError(
            f"`{column}` of {path_or_id} must be text{' or messages with role and content' * (column == 'prompt')}, "
            f"found {feature}."
        )
    if column == "prompt" and template is None:
        return rows
    if is_messages:
        raise ValueError(f"template={template!r} is for texts, but `prompt` of {path_or_id} has messages. Remove it.")
    used = find_template("boxed" if template is None else template)
    filled = rows.map(
        lambda row: {f"{_NEW}prompt": fill_template(used, row[column], row)},
        remove_columns=[column],
        load_from_cache_file=False,
    )
    return as_dataset(as_dataset(filled).rename_column(f"{_NEW}prompt", "prompt"))


def _with_prompts(rows: Dataset, source: Source, template: str | Template | None, path_or_id: str | Path) -> Dataset:
    chosen = None if template is None else find_template(template)
    if isinstance(source.images, tuple):
        rows, image_column = images_together(rows, source.images, path_or_id), "images"
    elif image_column := source.images:
        rows = undecoded_images(rows, image_column, path_or_id)

    def convert(row: dict, index: int) -> dict:
        try:
            question = source.read(row)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            what = error if isinstance(error, ValueError) else repr(error)
            raise ValueError(f"Row {index} of {path_or_id} is not as expected: {what}") from error
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
    removed = [column for column in rows.column_names if column != image_column]
    dataset = as_dataset(
        rows.map(convert_batch, batched=True, with_indices=True, remove_columns=removed, load_from_cache_file=False)
    )
    new_names = {c: c.removeprefix(_NEW) for c in dataset.column_names if c.startswith(_NEW)}
    dataset = as_dataset(dataset.rename_columns(new_names))
    if image_column:
        dataset = decoded_images(dataset, image_column)
        if image_column == "decoded_image":
            dataset = as_dataset(dataset.rename_column(image_column, "image"))
    ordered = [column for column in _ORDER if column in dataset.column_names]
    return as_dataset(dataset.select_columns(ordered + [c for c in dataset.column_names if c not in ordered]))


def _answered(dataset: Dataset, origin: str, drop_unanswered: bool, column: str = "answer") -> Dataset:
    """The rows whose reference is neither missing nor an empty text."""
    missing = [i for i, answer in enumerate(dataset[column]) if answer is None or answer == ""]
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
    return select_rows(dataset, sorted(set(range(len(dataset))) - set(missing)), "an answer")
