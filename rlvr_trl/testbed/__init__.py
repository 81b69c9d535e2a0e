"""A testbed that runs on a CPU in minutes: a tiny language model that learns mazes (see `rlvr_trl.mazes`)."""

from .maze_model import build_model, build_tokenizer
from .warmup import demonstrations, warm_up


__all__ = ["build_model", "build_tokenizer", "demonstrations", "warm_up"]
