"""examples/train_maze.py, with what lets TRL's vLLM code run without a GPU."""

import runpy
from pathlib import Path

from cpu_engine import use_cpu_engine


if __name__ == "__main__":
    use_cpu_engine()
    runpy.run_path(str(Path(__file__).parents[2] / "examples/train_maze.py"), run_name="__main__")
