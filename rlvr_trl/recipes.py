"""The recipes of the papers' experiments, and the training scripts that they belong to, as installed or in a clone."""

import importlib.util
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

from .plain_yaml import read_yaml, read_yaml_file
from .registry import did_you_mean


SCRIPTS = ("train_math", "train_maze", "train_puzzles", "train_vlm", "pass_at_k_then_pass_at_1")


def examples_folder() -> Path:
    """
    The folder with the training scripts and `recipes`: a part of an installed package, beside the package in a clone.

    Raises:
        `FileNotFoundError`: It is in neither place.
    """
    package = Path(__file__).parent
    for folder in (package / "examples", package.parent / "examples"):
        if (folder / "recipes").is_dir():
            return folder
    raise FileNotFoundError(f"There are no recipes in {package / 'examples'}: rlvr_trl was installed without them.")


def find_recipes() -> dict[str, Path]:
    """The file of each recipe, by name, such as `dars/1.5b_dars_hw`."""
    paths = sorted((examples_folder() / "recipes").glob("*/*.yaml"))
    return {f"{path.parent.name}/{path.stem}": path for path in paths}


def recipe_path(name: str) -> Path:
    """
    The file of a recipe.

    Raises:
        `ValueError`: There is no recipe of this name.
    """
    recipes = find_recipes()
    if name in recipes:
        return recipes[name]
    if Path(name).is_file():
        raise ValueError(f"{name!r} is a file of your own and no recipe of this package: give it as --config {name}.")
    raise ValueError(f"Unknown recipe {name!r}.{did_you_mean(name, recipes)} `rlvr-trl recipes` lists all.")


def title_of(path: Path) -> str:
    """What a recipe is: method, model and paper, the first paragraph of its comment."""
    lines = (line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines())
    return " ".join(takewhile(bool, lines))


def read_settings(path: Path, changes: list[str]) -> dict[str, Any]:
    """
    The settings of a file, changed by `key=value` pairs whose values are YAML.

    Raises:
        `ValueError`: The file cannot be read, or a change is not such a pair.
    """
    settings = read_yaml_file(path, "The file of settings")
    for change in changes:
        name, equals, text = change.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"A change of the settings is written name=value, such as max_steps=100, got {change!r}.")
        if not text.strip():
            raise ValueError(f"{change!r} gives no value. {name}=null is none at all.")
        settings[name] = read_yaml(text, f"The value of {name}, {text!r},")
    return settings


def load_script(settings: dict[str, Any]) -> ModuleType:
    """
    The training script that the settings name as `script`, by default `train_math`.

    Raises:
        `ValueError`: There is no training script of this name.
    """
    name = settings.get("script") or SCRIPTS[0]
    if name not in SCRIPTS:
        raise ValueError(f"Unknown script {name!r}.{did_you_mean(str(name), SCRIPTS)} Scripts: {', '.join(SCRIPTS)}.")
    spec = importlib.util.spec_from_file_location(f"rlvr_trl_{name}", examples_folder() / f"{name}.py")
    assert spec is not None and spec.loader is not None  # a .py file has both
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
