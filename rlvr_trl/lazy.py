"""Packages whose names are imported on first use, so that one name does not load what another needs."""

import importlib
from collections.abc import Callable
from typing import Any


def import_on_use(
    package: str, homes: dict[str, tuple[str, ...]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """
    Makes the `__getattr__` and `__dir__` of a package.

    Editors and type checkers cannot follow them, so the package also imports its names under `TYPE_CHECKING` and has a
    literal `__all__`. It calls this function in the `else` branch: a type checker that saw `__getattr__` would accept
    any name, misspelled ones included. `tests/test_lazy_imports.py` compares the three lists.

    Args:
        package (`str`): its `__name__`.
        homes (`dict`): module of the package -> the names it holds.
    """
    home_of = {name: home for home, names in homes.items() for name in names}

    def get_attribute(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(f".{home_of[name]}", package), name)

    names = sorted(home_of)
    return get_attribute, lambda: names
