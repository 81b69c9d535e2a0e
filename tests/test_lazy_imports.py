"""Packages whose names are imported on first use."""

import importlib
import subprocess
import sys

import pytest


PACKAGES = ["rlvr_trl"] + [f"rlvr_trl.{name}" for name in ("analysis", "data", "evaluation", "evaluation.engines")]
PACKAGES.append("rlvr_trl.rewards")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_name_is_there(name):
    package = importlib.import_module(name)
    for exported in package.__all__:
        if exported != "__version__":
            assert getattr(package, exported) is not None and exported in dir(package)
    with pytest.raises(AttributeError, match=f"module '{name}' has no attribute 'nothing'"):
        _ = package.nothing


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
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
