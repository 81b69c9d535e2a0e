"""Reads JSON, JSON lines and CSV with every value as it is written.

`datasets.load_dataset` guesses types: it makes 2024-01-01 a timestamp, 007 the number 7, and rounds an integer of 23
digits. A reference must reach the reward function as its author wrote it.
"""

import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa
from datasets import Dataset

from ..checks import first_repeated


class _Number(str):
    """A number in a JSON file, as it is written."""


def read_text_files(paths: Iterable[str | Path], kind: str, delimiter: str = ",") -> list[dict]:
    """
    The rows of some files, for [`dataset_of`].

    Args:
        paths (iterable of `str` or `Path`): the files, in UTF-8, with or without a byte order mark.
        kind (`str`): `"json"` for a list of objects, or for one object a line; or `"csv"`, whose first line names the
            columns.
        delimiter (`str`): what separates the cells of CSV.

    Raises:
        ValueError: a file is not UTF-8 or not of this kind, holds NaN or infinity as a JSON number, or has a name
            twice in an object or a header. The message names the file and the line or row.
    """
    rows = []
    for path in paths:
        text = _decoded(Path(path))
        rows += _csv_rows(text, path, delimiter) if kind == "csv" else _json_rows(text, path)
    return rows


def dataset_of(rows: list[dict]) -> Dataset:
    """
    The dataset of rows that [`read_text_files`] has read.

    A column of JSON holds numbers if Python writes all of them as they are in the file: 7 and 12, or 0.5 and 27.0. If
    any is written in another way (1e-5, an integer beyond 64 bits, 7 beside 0.5) or there is text beside them, all of
    the column is text, exactly as in the file. A column of CSV is always text.

    Raises:
        ValueError: there are no rows; a column holds values of several kinds, and the message names both rows; objects
            share next to no names, so that the table would be as large as the square of the file; or they are nested
            too deeply.
    """
    if not rows:
        raise ValueError("it is empty")
    names = _names(rows)
    try:
        return Dataset(pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names}))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _decoded(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"'{path}' is not UTF-8: {error.reason} at byte {error.start}. Save it as UTF-8.") from None


def _json_rows(text: str, path: str | Path) -> list[dict]:
    if text.lstrip().startswith("["):
        rows = _parsed(text, f"'{path}'")
        names = [f"Row {index} of '{path}'" for index in range(len(rows))]
    else:
        # not `splitlines`, which also splits at characters that JSON allows inside of a text
        lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
        names = [f"Line {number} of '{path}'" for number, _ in lines]
        rows = [_parsed(line, name) for (_, line), name in zip(lines, names, strict=True)]
    for name, row in zip(names, rows, strict=True):
        if not isinstance(row, dict):
            raise ValueError(f"{name} is no JSON object, {{...}}, but {row!r:.100}.")
    return rows


def _parsed(text: str, name: str) -> Any:
    try:
        return json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError(f"{name} is nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"{name} is not JSON: {error}") from None


def _refuse_constant(word: str) -> NoReturn:
    raise ValueError(f'{word} is no JSON: write null for a missing value, or "{word}" for the word.')


def _object(pairs: list[tuple[str, Any]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"an object has {first_repeated(name for name, _ in pairs)!r} twice.")
    return found


def _csv_rows(text: str, path: str | Path, delimiter: str) -> list[dict]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    limit = csv.field_size_limit(sys.maxsize)  # of the whole process, and 131072 characters by default
    try:
        header = next(reader, [])
        if (twice := first_repeated(header)) is not None:
            raise ValueError(f"'{path}' has the column {twice!r} twice.")
        rows = []
        for cells in reader:
            if cells and len(cells) != len(header):
                raise ValueError(
                    f"The row that ends in line {reader.line_num} of '{path}' has {len(cells)} cells, but the header "
                    f"has {len(header)}."
                )
            rows += [dict(zip(header, cells, strict=True))] if cells else []  # an empty line has no cells
        return rows
    except csv.Error as error:
        raise ValueError(f"'{path}' is not CSV: {error} in line {reader.line_num}.") from None
    finally:
        csv.field_size_limit(limit)


def _column(name: str, values: list) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(_typed(values))
    except (pa.ArrowException, UnicodeError) as error:
        kinds = [(row, _kind(value)) for row, value in enumerate(values) if value is not None]
        other = next(((row, kind) for row, kind in kinds if kind != kinds[0][1]), None)
        if other is None:
            raise ValueError(f"The column {name!r} cannot be read: {error}.") from None
        raise ValueError(
            f"The column {name!r} needs values of one kind, but is {kinds[0][1]} in row {kinds[0][0]} and {other[1]} "
            f"in row {other[0]}, counted from 0."
        ) from None


def _typed(values: list) -> list:
    """The values of a column with their numbers as numbers, or as text if one of them would change."""
    there = [value for value in values if value is not None]
    if there and all(isinstance(value, dict) for value in there):
        fields = {name: iter(_typed([one.get(name) for one in there])) for name in _names(there)}
        return [value if value is None else {name: next(field) for name, field in fields.items()} for value in values]
    if there and all(isinstance(value, list) for value in there):
        items = iter(_typed([item for value in there for item in value]))
        return [value if value is None else [next(items) for _ in value] for value in values]
    write = str
    if all(isinstance(value, _Number) for value in there):
        if all(len(value) < 20 and _is_written(int, value) and -(2**63) <= int(value) < 2**63 for value in there):
            write = int
        elif all(_is_written(float, value) for value in there):
            write = float
    return [write(value) if isinstance(value, _Number) else value for value in values]


def _names(objects: list[dict]) -> dict[str, None]:
    names = dict.fromkeys(name for one in objects for name in one)
    if len(names) * len(objects) > 100 * sum(map(len, objects)) + 1_000_000:
        raise ValueError(
            f"{len(objects)} objects have {len(names)} different names, and nearly each has others; a table needs the "
            f"same names in all. Make lists of names and values of them."
        )
    return names


def _is_written(kind: type, text: str) -> bool:
    """Whether Python writes the number of this kind as `text`."""
    try:
        return repr(kind(text)) == text
    except ValueError:
        return False


def _kind(value: Any) -> str:
    names = {bool: "true or false", list: "a list", dict: "an object"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "text or a number")
