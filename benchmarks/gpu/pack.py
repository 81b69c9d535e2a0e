"""Downloads the wheels that a bare machine with a GPU and no network lacks, and prints what they weigh.

    python benchmarks/gpu/pack.py

Such a machine is taken to have Python 3.12 on x86-64, torch with CUDA, transformers, accelerate, peft, numpy, pandas,
pyarrow, pytest, pytest-xdist and rich. What is missing there travels in `.whl`, which git ignores, beside the tree:
there, in the root of the tree,

    python3 -m pip install --no-index --no-deps --target /tmp/site-packages .whl/*.whl
    PYTHONPATH=/tmp/site-packages python3 benchmarks/gpu/run.py --output results.json

The folder must be called site-packages: dill, with which datasets makes fingerprints, pickles modules elsewhere by
value, and fails.
"""

import argparse
import subprocess
import sys
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
# What the machine lacks, with its own needs named: nothing else is fetched. The package itself comes as a tree.
WHEELS = (
    "trl==1.16.0",
    "datasets==5.2.0",  # needs dill and multiprocess
    "dill==0.4.1",
    "multiprocess==0.70.19",
    "math-verify==0.9.0",  # needs latex2sympy2_extended, which needs antlr4
    "latex2sympy2_extended==1.11.0",
    "antlr4-python3-runtime==4.13.2",
    "httpx2==2.16.2",  # needs httpcore2 and truststore
    "httpcore2==2.16.2",
    "truststore==0.10.5",
)
# pip matches the number of manylinux exactly
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 17, 5)] + ["manylinux2014_x86_64"]
LIMIT = 64 * 2**20  # bytes of tree and wheels together


def download(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):
        old.unlink()  # two versions of one package would stop the whole installation
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    target = ["--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp", *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *target, "--dest", str(folder), *WHEELS]
    subprocess.run(command, check=True)


def tree_size() -> int:
    """Bytes of the files that travel: those that git knows or does not ignore."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sum((ROOT / name).stat().st_size for name in set(names) if name and (ROOT / name).is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / ".whl", help="where the wheels go [.whl]")
    folder = parser.parse_args().folder
    download(folder)
    wheels = sorted(folder.glob("*.whl"))
    for wheel in wheels:
        print(f"{wheel.stat().st_size / 2**20:7.2f} MiB  {wheel.name}")
    tree, packed = tree_size(), sum(wheel.stat().st_size for wheel in wheels)
    print(f"{packed / 2**20:7.2f} MiB  {len(wheels)} wheels\n{tree / 2**20:7.2f} MiB  the tree")
    print(f"{(tree + packed) / 2**20:7.2f} MiB  together, of {LIMIT / 2**20:.0f}")
    return 0 if len(wheels) == len(WHEELS) and tree + packed < LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
