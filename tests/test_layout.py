"""The layout: imports run one way, without circles, a name stands for one thing in the package, and text is UTF-8."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[1]
FILES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
    for file in sorted((ROOT / "rlvr_trl").rglob("*.py"))
}
PACKAGE = tuple(FILES)  # module names, such as `rlvr_trl.data.maze`
FILES |= {file.stem: file for file in sorted((ROOT / "benchmarks").glob("*.py"))}  # scripts, which import each other

NO_TRAINER = ("advantages", "rollouts", "evaluation", "analysis", "rewards", "data")
SHARED_FILE_NAMES = {
    "__init__.py",
    "cli.py",  # one subcommand of the command line each, and the command line
    "maze.py",  # the dataset of a task and its reward
}


# --- what a module imports and defines ---


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def import_nodes(node: ast.AST, type_checking: bool = False) -> Iterator[ast.Import | ast.ImportFrom]:
    """Imports at the top and in functions: those under `TYPE_CHECKING`, or else all others."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            for statement in child.body if type_checking else child.orelse:
                yield from import_nodes(ast.Module([statement], []))
        elif isinstance(child, ast.Import | ast.ImportFrom):
            if not type_checking:
                yield child
        else:
            yield from import_nodes(child, type_checking)


def source_of(module: str, node: ast.ImportFrom) -> str:
    """The full name of the module that `from ... import` names."""
    if node.level == 0:
        return node.module or ""
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for _ in range(node.level - 1):
        package = package.rpartition(".")[0]
    return f"{package}.{node.module}" if node.module else package


@cache
def homes(package: str) -> dict[str, str]:
    """The module of each name that a package imports on first use, according to its imports under `TYPE_CHECKING`."""
    if FILES[package].name != "__init__.py":
        return {}
    nodes = [node for node in import_nodes(tree(package), type_checking=True) if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: source_of(package, node) for node in nodes for alias in node.names}


@cache
def imports(module: str) -> set[str]:
    """Full names of the imported modules, including the home of a name that a package imports on first use."""
    found = set()
    for node in import_nodes(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        source = source_of(module, node)
        for name in (alias.name for alias in node.names):
            if f"{source}.{name}" in FILES:
                found.add(f"{source}.{name}")
                continue
            found.add(source)
            while source in FILES and name in homes(source):
                found.add(source := homes(source)[name])
            source = source_of(module, node)
    return found


def room(module: str) -> str:
    """The part of `rlvr_trl` that a module belongs to: a package or the module alone. Other names stay as they are."""
    return module.split(".")[1] if module.startswith("rlvr_trl.") else module


def defined(module: str) -> set[str]:
    """Names of the classes and functions of a module; overloads count once."""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    return {node.name for node in tree(module).body if isinstance(node, kinds)}


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError("imports run in a circle: " + " <- ".join(error.args[1])) from None


def reached_from(rooms: tuple[str, ...]) -> dict[str, str]:
    """All modules that these rooms import, directly or through others, each with a module that imports it."""
    waiting, importer = [module for module in PACKAGE if room(module) in rooms], {}
    while waiting:
        module = waiting.pop()
        for other in sorted(imports(module) - importer.keys()):
            importer[other] = module
            if other in FILES:
                waiting.append(other)
    return importer


# --- the reader of imports ---


def test_imports_are_read(monkeypatch):
    text = """
import json, rlvr_trl.checks
from typing import TYPE_CHECKING
from . import maze
from .loaders import load
from ..rewards import math_reward
if TYPE_CHECKING:
    from ..trainer import RLVRTrainer
else:
    from ..naming import build
def later():
    from rlvr_trl.evaluation import engines
    try:
        import numpy.linalg
    except ImportError:
        from ..lazy import import_on_use
"""
    monkeypatch.setitem(FILES, "rlvr_trl.data.new", Path("new.py"))
    nodes = list(import_nodes(ast.parse(text)))
    named = [source_of("rlvr_trl.data.new", node) for node in nodes if isinstance(node, ast.ImportFrom)]
    expected = ["typing", "rlvr_trl.data", "rlvr_trl.data.loaders", "rlvr_trl.rewards", "rlvr_trl.naming"]
    assert named == [*expected, "rlvr_trl.evaluation", "rlvr_trl.lazy"] and len(nodes) == 9
    assert homes("rlvr_trl.rewards")["math_reward"] == "rlvr_trl.rewards.math"
    assert {"rlvr_trl.trainer", "rlvr_trl.lazy"} <= {homes("rlvr_trl")["RLVRTrainer"], *imports("rlvr_trl")}
    with pytest.raises(AssertionError, match="a <- b <- a|b <- a <- b"):
        assert_no_circle({"a": {"b"}, "b": {"a"}, "c": {"a"}})


# --- the layout ---


def test_no_file_imports_in_a_circle():
    assert_no_circle({module: (imports(module) & FILES.keys()) - {module} for module in FILES})


def test_no_package_imports_in_a_circle():
    graph = defaultdict(set)
    for module in PACKAGE:
        graph[room(module)] |= {room(other) for other in imports(module) & set(PACKAGE)} - {room(module)}
    assert_no_circle(graph)


@pytest.mark.parametrize("name", NO_TRAINER)
def test_these_packages_know_no_trainer(name):
    reached = reached_from((name,))
    assert {other: by for other, by in reached.items() if room(other) in ("trainer", "async_trainer")} == {}


@pytest.mark.parametrize("name", ["advantages", "rollouts"])
def test_these_packages_know_neither_trl_nor_transformers(name):
    reached = reached_from((name,))
    assert {other: by for other, by in reached.items() if other.split(".")[0] in ("trl", "transformers")} == {}


def test_no_two_files_have_one_name():
    places = defaultdict(list)
    for module in PACKAGE:
        places[FILES[module].name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1 and name not in SHARED_FILE_NAMES} == {}


def test_no_class_or_function_is_defined_in_two_files():
    places = defaultdict(list)
    for module in PACKAGE:
        for name in defined(module):
            places[name].append(module)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


# --- text ---


def in_the_encoding_of_the_machine(call: ast.Call) -> bool:
    """Whether a call reads or writes text in the encoding of the locale, which another machine may not have."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    named = {keyword.arg for keyword in call.keywords}
    words = [value.value for value in call.args if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    binary = name == "open" and any("b" in word and set(word) <= set("rwabx+") for word in words)
    elsewhere = ast.unparse(call.func) in ("os.open", "Image.open", "image.open")
    reads = name in ("open", "read_text", "write_text") and not binary and not elsewhere
    starts = name in ("run", "Popen", "check_output") and "text" in named
    return (reads or starts) and "encoding" not in named


def test_text_is_read_and_written_as_utf_8():
    found = [
        f"{FILES[module].relative_to(ROOT)}:{node.lineno}"
        for module in FILES
        for node in ast.walk(tree(module))
        if isinstance(node, ast.Call) and in_the_encoding_of_the_machine(node)
    ]
    assert found == []
