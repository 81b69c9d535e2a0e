"""Reinforcement learning with verifiable rewards on top of TRL.

The trainers are imported on first use, so that `rlvr_trl.advantages`, `rlvr_trl.evaluation`, `rlvr_trl.data` and
`rlvr_trl.rewards` can be used without loading TRL.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from .lazy import import_on_use


try:
    __version__ = version("rlvr-trl")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

_HOMES = {
    "async_trainer": ("AsyncRLVRConfig", "AsyncRLVRTrainer"),
    "trainer": (
        "AGRAEConfig",
        "AGRAETrainer",
        "DARSConfig",
        "DARSTrainer",
        "MassDynamicsCallback",
        "NegativeGRPOConfig",
        "NegativeGRPOTrainer",
        "PassAtKCallback",
        "PassAtKConfig",
        "PassAtKTrainer",
        "RLVRConfig",
        "RLVRTrainer",
    ),
}

if TYPE_CHECKING:
    from .async_trainer import AsyncRLVRConfig, AsyncRLVRTrainer
    from .trainer import (
        AGRAEConfig,
        AGRAETrainer,
        DARSConfig,
        DARSTrainer,
        MassDynamicsCallback,
        NegativeGRPOConfig,
        NegativeGRPOTrainer,
        PassAtKCallback,
        PassAtKConfig,
        PassAtKTrainer,
        RLVRConfig,
        RLVRTrainer,
    )
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "__version__",
    "AGRAEConfig",
    "AGRAETrainer",
    "AsyncRLVRConfig",
    "AsyncRLVRTrainer",
    "DARSConfig",
    "DARSTrainer",
    "MassDynamicsCallback",
    "NegativeGRPOConfig",
    "NegativeGRPOTrainer",
    "PassAtKCallback",
    "PassAtKConfig",
    "PassAtKTrainer",
    "RLVRConfig",
    "RLVRTrainer",
]
