"""Checks of settings, so that every part of the toolkit refuses the same things in the same words."""

import importlib.util
import math
from collections.abc import Iterable
from numbers import Integral, Real
from typing import Any


def check_integer(name: str, value: Any, at_least: int) -> None:
    """Raises a `ValueError` that names the setting unless `value` is an integer of at least `at_least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"`{name}` must be an integer of at least {at_least}, got {value!r}.")


def is_real(value: Any) -> bool:
    """Whether `value` is a real number; true and false are none."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_positive(name: str, value: float, may_be_infinite: bool = False) -> None:
    """Raises a `ValueError` that names the setting unless `value` is a number above 0, and finite if it must be."""
    if not is_real(value) or not value > 0 or (value == math.inf and not may_be_infinite):
        raise ValueError(f"`{name}` must be a positive number, got {value!r}.")


def check_not_negative(name: str, value: float) -> None:
    """Raises a `ValueError` that names the setting unless `value` is a finite number of at least 0."""
    if not is_real(value) or not 0 <= value < math.inf:
        raise ValueError(f"`{name}` must be a number of at least 0, got {value!r}.")


def check_boolean(name: str, value: Any) -> None:
    """Raises a `ValueError` that names the setting unless `value` is true or false: the word `no` is neither."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be true or false, got {value!r}.")


def check_share(name: str, value: float, above_zero: bool = False) -> None:
    """
    Raises a `ValueError` that names the setting unless `value` is a number from 0 to 1, or above 0 and at most 1.
    """
    if not is_real(value) or not 0 <= value <= 1 or (above_zero and value == 0):
        wanted = "above 0 and at most 1" if above_zero else "from 0 to 1"
        raise ValueError(f"`{name}` must be a number {wanted}, got {value!r}.")


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raises a `ValueError` that names the setting and the valid words unless `value` is one of `choices`."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that is there for the second time; None if there is none."""
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


# What a module that is not always installed belongs to: the package that pip installs, and the extra of this one.
_OPTIONAL = {
    "flint": ("python-flint", "eval"),
    "math_verify": ("math-verify", "eval"),
    "reasoning_gym": ("reasoning-gym", "puzzles"),
    "vllm": ("'trl[vllm]'", "vllm"),
}


def check_installed(what: str, *modules: str) -> None:
    """Raises an `ImportError` that says what to install unless all the modules that `what` needs are there."""
    missing = [_OPTIONAL[name] for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        packages = [package for package, _ in missing]
        extras = ",".join(dict.fromkeys(extra for _, extra in missing))
        raise ImportError(
            f"{what} needs {' and '.join(packages).replace(chr(39), '')}, not installed here: "
            f"pip install {' '.join(packages)}, or pip install '.[{extras}]' in a clone of rlvr_trl."
        )
