"""Estimators on the card: `advantages.py` with its batch of 3,072 ragged groups, synchronization counted in."""

from argparse import Namespace
from collections.abc import Callable

import advantages
import torch


SIZES = {"card": {"groups": 3072, "repeats": 31}, "toy": {"groups": 32, "repeats": 2}}


def run(size: str, device: str, save: Callable) -> None:
    """Milliseconds of every estimator on the card, and its largest difference from the CPU."""
    settings = SIZES[size] | {"smallest": advantages.K, "largest": 64, "seed": 0}
    save("settings", settings)
    args = Namespace(**settings, device=device)
    rows = []
    for name, (estimator, _, _) in advantages.ESTIMATORS.items():
        rows.append({"name": name, **advantages.on_device(estimator, args)})
        save("estimators", rows)
    if device == "cuda":
        save("peak_mib", torch.cuda.max_memory_allocated() / 2**20)
