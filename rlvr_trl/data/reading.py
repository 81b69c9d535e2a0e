"""Reads the rows of a local file, a local folder or a dataset of the Hub, unchanged."""

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import pandas
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    Image,
    List,
    Value,
    concatenate_datasets,
    get_dataset_config_names,
    load_dataset,
    load_dataset_builder,
)
from huggingface_hub.constants import HF_HUB_CACHE


FORMATS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv"}


def read_rows(path_or_id: str | Path, configs: Sequence[str], split: str, has_configs: bool = False) -> Dataset:
    """
    Reads a file, or a folder or dataset of the Hub by `datasets.load_dataset`.

    A path that ends in `.parquet`, `.json`, `.jsonl` or `.csv` is a file. Everything else is a folder, if there is one
    of this name, or an id of the Hub; both are read in the same way. All columns of CSV files are text.

    Args:
        path_or_id (`str` or `Path`): file, folder or id of the Hub.
        configs (sequence of `str`): configurations to join, if the folder or dataset has all of them; otherwise it
            must have only one, which is read.
        split (`str`): split of a folder or dataset. A file has none.
        has_configs (`bool`): whether the dataset is known to have the configurations, which saves asking for them.

    Raises:
        ValueError: a file is missing, cannot be read or has no rows; a folder has no files, or not this split.
    """
    path = Path(path_or_id)
    if path.suffix in FORMATS or path.is_file():
        return _read_file(path)
    if path.is_dir() and not any(file.suffix in FORMATS for file in path.rglob("*")):
        raise ValueError(f"The folder {path} has no file that ends in {', '.join(FORMATS)}.")
    name = str(path_or_id)
    if not has_configs and configs and not set(configs) <= set(get_dataset_config_names(name)):
        configs = ()
    parts = [_load_rows(name, config, split=split) for config in configs or [None]]
    return parts[0] if len(parts) == 1 else concatenate_datasets(parts)


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
        # datasets raises StopIteration for an empty file, and errors other than ValueError for broken ones
        return _load_rows(FORMATS[path.suffix], data_files=glob.escape(str(path)), split="train")
    except Exception as error:
        raise ValueError(f"No rows could be read from {path}: {error or 'it is empty'}") from error


def _load_rows(name: str, config: str | None = None, split: str = "train", **files) -> Dataset:
    """As `load_dataset`, but with the cells of CSV files as they are written: 007 is no 7, and NA is not missing."""
    builder = load_dataset_builder(name, config, **files)
    if builder.info.builder_name == "csv":
        assert builder.config.data_files  # a CSV reader has files
        some_file = next(iter(builder.config.data_files.values()))[0]
        columns = pandas.read_csv(some_file, nrows=0).columns
        files |= {"features": Features({column: Value("string") for column in columns}), "keep_default_na": False}
    return load_dataset(name, config, split=split, **files)
