"""Reinforcement learning with verifiable rewards on top of TRL.

The trainers are imported on first use, so that `rlvr_trl.advantages`, `rlvr_trl.evaluation`, `rlvr_trl.data` and
`rlvr_trl.rewards` can be used without loading TRL.
"""

from importlib.metadata import PackageNotFoundError, version

from .lazy import import_on_use


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

__getattr__, __dir__, __all__ = import_on_use(__name__, {"trainer": _TRAINERS})
__all__ = ["__version__", *__all__]
