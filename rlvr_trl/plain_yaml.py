"""Reads settings as YAML 1.2 does: `no` is a word, 1e-6 a number, 010 is ten and 2024-01-01 is no date."""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from .checks import first_repeated


def _check_keys(keys: Iterable[str]) -> None:
    if (twice := first_repeated(keys)) is not None:
        raise ValueError(f"{twice!r} is set twice")


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain scalars of YAML 1.2's core schema; its own are those of YAML 1.1."""

    yaml_implicit_resolvers: dict = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        _check_keys(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return super().construct_mapping(node, deep)


def _read_integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))  # in base ten


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.nan|\.NaN",
        [*"-+.0123456789"],
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)
_Loader.add_constructor("tag:yaml.org,2002:int", _read_integer)


def _mapping(pairs: list[tuple[str, Any]]) -> dict:
    _check_keys(name for name, _ in pairs)
    return dict(pairs)


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is a word")


def read_yaml(text: str, what: str) -> Any:
    """
    The value of a text in YAML or JSON.

    Args:
        text (`str`): the text, such as `{name: pass_at_k, k: 8}`.
        what (`str`): what it is, for the error.

    Raises:
        `ValueError`: The text is neither, sets a name twice, or is nested too deeply.
    """
    try:
        with contextlib.suppress(ValueError):
            return json.loads(text, object_pairs_hook=_mapping, parse_constant=_no_number)
        return yaml.load(text, _Loader)  # a safe loader: it makes plain values only
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{what} is neither YAML nor JSON: {' '.join(str(error).split())}") from error


def read_yaml_file(path: str | Path, what: str) -> dict[str, Any]:
    """
    The settings of a YAML file, by name.

    Raises:
        `ValueError`: There is no such file, or it is not a mapping from names to values.
    """
    if not Path(path).exists() or Path(path).is_dir():  # a pipe will do
        raise ValueError(f"{what} is {str(path)!r}, but there is no such file.")
    settings = read_yaml(Path(path).read_text(encoding="utf-8"), f"{what} {path}")
    if not isinstance(settings, Mapping) or not all(isinstance(name, str) for name in settings):
        names = [name for name in settings if not isinstance(name, str)] if isinstance(settings, Mapping) else []
        found = (
            f"the name {names[0]!r}" if names else "nothing" if settings is None else f"a {type(settings).__name__}"
        )
        raise ValueError(f"{what} {path} must hold settings, `name: value` in each line, but holds {found}.")
    return dict(settings)
