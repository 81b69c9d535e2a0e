"""Reinforcement learning with verifiable rewards on top of TRL.

The trainers are imported on first use, so that `rlvr_trl.advantages`, `rlvr_trl.evaluation`, `rlvr_trl.data` and
`rlvr_trl.rewards` can be used without loading TRL.
"""

import importlib
from importlib.metadata import PackageNotFoundError, version


try:
    __version__ = version("rlvr-trl")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_TRAINERS = (
    "AGRAEConfig",
    "AGRAETrainer",
    "DARSConfig",
    "DARSTrainer",
    "NegativeGRPOConfig",
    "NegativeGRPOTrainer",
    "PassAtKCallback",
    "PassAtKConfig",
    "PassAtKTrainer",
    "RLVRConfig",
    "RLVRTrainer",
)

__all__ = ["__version__", *_TRAINERS]


def __getattr__(name):
    if name in _TRAINERS:
        return getattr(importlib.import_module("rlvr_trl.trainer"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted(__all__)
