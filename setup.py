"""What pyproject.toml cannot say: what is edited or made elsewhere, and read by the package, goes into it."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


def installed_examples() -> list[Path]:
    """The recipes and the scripts that run them; `SCRIPTS` in rlvr_trl/recipes.py names these."""
    folder = Path("examples")
    return [*folder.glob("train_*.py"), folder / "pass_at_k_then_pass_at_1.py", *folder.glob("recipes/*/*.yaml")]


def installed_results() -> list[Path]:
    """The published cells and base models, which `published_folder` of rlvr_trl/testbed/bench.py finds."""
    folder = Path("benchmarks", "results", "comparison")
    return [path for pattern in ("*.jsonl", "bases/*.json", "bases/*.safetensors") for path in folder.glob(pattern)]


class BuildWithMore(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # all is found in the clone
            return
        for path in [*installed_examples(), *installed_results()]:
            target = Path(self.build_lib, "rlvr_trl", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def get_source_files(self):
        return [*super().get_source_files(), *map(str, [*installed_examples(), *installed_results()])]


setup(cmdclass={"build_py": BuildWithMore})
