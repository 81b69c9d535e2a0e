"""Reads the rows of a local file, a local folder or a dataset of the Hub, unchanged."""

import glob
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from datasets import (
    Dataset,
    DatasetDict,
    DownloadManager,
    Image,
    List,
    ReadInstruction,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
)
from datasets.packaged_modules.csv.csv import Csv, CsvConfig
from datasets.packaged_modules.json.json import Json
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import HFValidationError

from .text_files import dataset_of, read_text_files


FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


def read_rows(path_or_id: str | Path, configs: Sequence[str], split: str, has_configs: bool = False) -> Dataset:
    """
    Reads a file, a folder, or a dataset of the Hub.

    A path that ends in `.parquet`, `.json`, `.jsonl` or `.csv` is a file. Everything else is a folder, if there is one
    of this name, or an id of the Hub; `datasets` finds their files. JSON and CSV, wherever they are, are read by
    [`read_text_files`], which leaves every value as it is written.

    Args:
        path_or_id (`str` or `Path`): file, folder or id of the Hub.
        configs (sequence of `str`): configurations to join, if the folder or dataset has all of them; otherwise it
            must have only one, which is read.
        split (`str`): split of a folder or dataset. A file has none.
        has_configs (`bool`): whether the dataset is known to have the configurations, which saves asking for them.

    Raises:
        ValueError: a file or folder is missing, cannot be read or has no rows; a folder has no files or not this
            split.
    """
    path = Path(path_or_id)
    if path.suffix in FORMATS or path.is_file():
        return _read_file(path)
    if path.is_dir() and not any(file.suffix in FORMATS for file in path.rglob("*")):
        raise ValueError(f"The folder {path} has no file that ends in {', '.join(FORMATS)}.")
    name = os.path.abspath(path) if path.is_dir() else str(path_or_id)
    with found_on_hub(name):
        if not has_configs and configs and not set(configs) <= set(get_dataset_config_names(name)):
            configs = ()
        parts = [_read_config(name, config, split) for config in configs or [None]]
    text = [part for part in parts if isinstance(part, list)]
    typed = [part for part in parts if isinstance(part, Dataset)]
    if text:
        try:
            typed.append(dataset_of(sum(text, [])))  # all of them together, so that they have the same types
        except ValueError as error:
            raise ValueError(f"No rows could be read from {name}: {error}") from error
    return typed[0] if len(typed) == 1 else concatenate_datasets(typed)


def _read_config(name: str, config: str | None, split: str) -> Dataset | list[dict]:
    """One configuration of a folder or of a dataset of the Hub; rows as they are written, if its files are text."""
    builder = load_dataset_builder(name, config)
    if not isinstance(builder, Csv | Json):
        return load_dataset(name, config, split=split)
    files, rows = builder.config.data_files or {}, []
    kind, delimiter = ("csv", builder.config.sep) if isinstance(builder.config, CsvConfig) else ("json", ",")
    for part in split.split("+"):  # such as train, train[:100] or train+test
        of_part = part.partition("[")[0]
        if of_part not in files:
            raise ValueError(f"{name} has no split {of_part!r}. Its splits: {', '.join(map(str, files))}.")
        downloaded = DownloadManager(name).download_and_extract(list(files[of_part]))  # an archive is a folder now
        found = read_text_files(DownloadManager(name).iter_files(downloaded), kind, delimiter)
        (span,) = ReadInstruction.from_spec(part).to_absolute({of_part: len(found)})
        rows += found[slice(span.from_, span.to)]
    return rows


@contextmanager
def found_on_hub(path_or_id: str | Path) -> Iterator[None]:
    """Raises `ValueError` if something is neither here nor found on the Hub."""
    try:
        yield
    except (FileNotFoundError, ConnectionError, HFValidationError) as error:
        if Path(path_or_id).is_dir():
            raise
        raise ValueError(
            f"There is no file or folder '{path_or_id}', and no dataset of this id could be read from the Hub: {error}"
        ) from error


def as_dataset(transformed: Dataset | DatasetDict) -> Dataset:
    """What a method of a `Dataset` returned, which is one as well: its decorators hide that from type checkers."""
    assert isinstance(transformed, Dataset)
    return transformed


def check_columns(dataset: Dataset, needed: Sequence[str], source: str, path_or_id: str | Path):
    """Raises `ValueError` unless all needed columns are there; `problem|question` is either of the two."""
    missing = [names for names in needed if not set(names.split("|")) & set(dataset.column_names)]
    if missing:
        raise ValueError(
            f"{source} needs the column{'s' * (len(missing) > 1)} {', '.join(n.replace('|', ' or ') for n in missing)}"
            f", found {dataset.column_names} in {path_or_id}."
        )


def undecoded_images(dataset: Dataset, column: str, path_or_id: str | Path) -> Dataset:
    """
    The dataset with a column of images, or lists of images, as bytes or paths, whatever they were written as.

    JSON cannot hold images: there they are paths, relative to the folder of the file. Paths in Parquet are read in the
    same way.

    Raises:
        ValueError: a path leads out of that folder (else a dataset could name any file of the machine, or an address),
            or there is no such file.
    """
    image = Image(decode=False)
    is_list = isinstance(dataset.features[column], List)
    dataset = as_dataset(dataset.cast_column(column, List(image) if is_list else image))
    if not _has_paths(dataset, column):  # otherwise `map` would write all bytes again
        return dataset
    folder = _folder_of(path_or_id)

    def located(value):
        return [_located(one, folder) for one in value] if is_list and value else _located(value, folder)

    return as_dataset(
        dataset.map(lambda value: {column: located(value)}, input_columns=column, load_from_cache_file=False)
    )


def images_together(dataset: Dataset, columns: Sequence[str], path_or_id: str | Path) -> Dataset:
    """The dataset with `images` in place of several columns with an image or none, undecoded and in their order."""
    for column in columns:
        dataset = undecoded_images(dataset, column, path_or_id)
    images = [[one for one in row if one is not None] for row in zip(*(dataset[c] for c in columns), strict=True)]
    dataset = as_dataset(dataset.remove_columns(list(columns)))
    return as_dataset(dataset.add_column("images", images, feature=List(Image(decode=False))))


def _has_paths(dataset: Dataset, column: str) -> bool:
    """Whether there is an image that is a path and has no bytes."""
    chunks = dataset.data.column(column).chunks
    if isinstance(dataset.features[column], List):
        chunks = [chunk.flatten() for chunk in chunks]
    for chunk in chunks:
        data, path = chunk.flatten()  # the two fields of an image
        alone = path.filter(data.is_null())
        if alone.null_count < len(alone):
            return True
    return False


def _folder_of(path_or_id: str | Path) -> str:
    path = os.path.abspath(path_or_id)
    if os.path.isfile(path):
        return os.path.dirname(path)
    return path if os.path.isdir(path) else os.path.abspath(HF_HUB_CACHE)  # where files of the Hub are downloaded to


def _located(image: dict | None, folder: str) -> dict | None:
    if not image or image["bytes"] is not None or image["path"] is None:
        return image
    path = os.path.normpath(os.path.join(folder, image["path"]))
    # Links are followed: the cache of the Hub is made of links.
    if "://" in image["path"] or os.path.commonpath([path, folder]) != folder:
        raise ValueError(f"The image {image['path']!r} is not in {folder}, the folder of its dataset. Put it there.")
    if not os.path.isfile(path):
        raise ValueError(f"There is no image {image['path']!r} in {folder}, the folder of its dataset.")
    return {"bytes": None, "path": path}


def decoded_images(dataset: Dataset, column: str) -> Dataset:
    """The dataset with the images that [`undecoded_images`] left as bytes or paths."""
    is_list = isinstance(dataset.features[column], List)
    return as_dataset(dataset.cast_column(column, List(Image()) if is_list else Image()))


def _read_file(path: Path) -> Dataset:
    if not path.is_file():
        raise ValueError(f"The file {path} does not exist.")
    if path.suffix not in FORMATS:
        raise ValueError(f"A file must end in {', '.join(FORMATS)}, got {path}.")
    try:
        if FORMATS[path.suffix] != "parquet":
            return dataset_of(read_text_files([path], FORMATS[path.suffix]))
        # datasets raises StopIteration for an empty file, and errors other than ValueError for broken ones
        return load_dataset("parquet", data_files=glob.escape(str(path)), split="train")
    except Exception as error:
        raise ValueError(f"No rows could be read from {path}: {error or 'it is empty'}") from error
