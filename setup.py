"""What pyproject.toml cannot say: training scripts and recipes, which are edited in examples/, go into the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


def installed_examples() -> list[Path]:
    """The recipes and the scripts that run them; `SCRIPTS` in rlvr_trl/recipes.py names these."""
    folder = Path("examples")
    return [*folder.glob("train_*.py"), folder / "pass_at_k_then_pass_at_1.py", *folder.glob("recipes/*/*.yaml")]


class BuildWithExamples(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # they are found in the clone
            return
        for path in installed_examples():
            target = Path(self.build_lib, "rlvr_trl", path)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)

    def get_source_files(self):
        return [*super().get_source_files(), *map(str, installed_examples())]


setup(cmdclass={"build_py": BuildWithExamples})
