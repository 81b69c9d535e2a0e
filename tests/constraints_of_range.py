"""Prints constraints for the lowest or the newest versions that pyproject.toml admits; `make test-versions` uses them.

    python tests/constraints_of_range.py lowest > constraints-lowest.txt

The libraries of `RANGED` are at the lower ends of their ranges, or left to pip, which takes the newest that the ranges
admit; so are those that come with them and have to fit. Everything else is as in constraints.txt.
"""

import re
import sys
import tomllib
from pathlib import Path


RANGED = ("trl", "transformers", "accelerate", "peft")
FOLLOWING = ("huggingface_hub", "tokenizers", "safetensors")

ROOT = Path(__file__).parent.parent


def lowest_versions() -> dict[str, str]:
    """The lower end of the range of each library of `RANGED`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    required = project["dependencies"] + [
        each for extra in project["optional-dependencies"].values() for each in extra
    ]
    found = (re.match(r"([a-z]+)>=([0-9.]+)", each) for each in required)
    return {each[1]: each[2] for each in found if each and each[1] in RANGED}


def constraints(which: str) -> str:
    """The lines of a constraints file; `which` is `"lowest"` or `"newest"`."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.partition("==")[0] not in RANGED + FOLLOWING]
    if which == "lowest":
        kept += [f"{name}=={version}" for name, version in lowest_versions().items()]
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] not in (["lowest"], ["newest"]):
        sys.exit("usage: python tests/constraints_of_range.py lowest|newest")
    print(constraints(sys.argv[1]), end="")
