"""A testbed that runs on a CPU in minutes: a tiny language model that learns mazes, or another task of `TASKS`."""

from .model import build_model, build_tokenizer
from .tasks import TASKS, Task
from .warmup import WarmUp, demonstrations, warm_up, warm_up_to


__all__ = [
    "TASKS",
    "Task",
    "WarmUp",
    "build_model",
    "build_tokenizer",
    "demonstrations",
    "warm_up",
    "warm_up_to",
]
