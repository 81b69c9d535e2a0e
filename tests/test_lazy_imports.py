"""Packages whose names are imported on first use."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import rlvr_trl


ROOT = Path(rlvr_trl.__file__).parent
PACKAGES = sorted(
    ".".join(path.parent.relative_to(ROOT.parent).parts)
    for path in ROOT.rglob("__init__.py")
    if "import_on_use(" in path.read_text(encoding="utf-8")
)


def test_which_packages_are_lazy():
    names = ("analysis", "data", "evaluation", "evaluation.engines", "rewards")
    assert ["rlvr_trl", *(f"rlvr_trl.{name}" for name in names)] == PACKAGES


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_there(name):
    package = importlib.import_module(name)
    for exported in package.__all__:
        if exported != "__version__":
            assert getattr(package, exported) is not None and exported in dir(package)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize("name", PACKAGES)
def test_table_and_imports_and_all_agree(name):
    package = importlib.import_module(name)
    statements = ast.parse(Path(package.__file__).read_text(encoding="utf-8")).body
    (branch,) = (node for node in statements if isinstance(node, ast.If))
    assert ast.unparse(branch.test) == "TYPE_CHECKING"
    assert all(node.level == 1 and not any(alias.asname for alias in node.names) for node in branch.body)
    imported = [(node.module, alias.name) for node in branch.body for alias in node.names]
    assert sorted(imported) == sorted((home, name) for home, names in package._HOMES.items() for name in names)

    literals = {node.targets[0].id: node.value for node in statements if isinstance(node, ast.Assign)}
    version = ["__version__"] if name == "rlvr_trl" else []
    assert ast.literal_eval(literals["__all__"]) == version + sorted(name for _, name in imported)


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import rlvr_trl", ["torch", "trl", "transformers", "datasets", "numpy"]),
        ("import rlvr_trl.analysis, rlvr_trl.data, rlvr_trl.evaluation, rlvr_trl.rewards", ["torch", "datasets"]),
        ("import rlvr_trl.cli; rlvr_trl.cli._parser()", ["torch", "transformers", "datasets"]),
        ("from rlvr_trl.evaluation import pass_at_k", ["torch", "transformers", "datasets"]),
        ("from rlvr_trl.evaluation import evaluate", ["trl"]),
        ("from rlvr_trl.rewards import maze_reward", ["trl", "math_verify"]),
        ("from rlvr_trl.advantages import PassAtK", ["trl", "transformers"]),
    ],
)
def test_what_is_not_needed_is_not_loaded(code, unloaded):
    check = f"{code}; import sys; assert not {set(unloaded)} & set(sys.modules), sys.modules.keys() & {set(unloaded)}"
    subprocess.run([sys.executable, "-c", check], check=True)
