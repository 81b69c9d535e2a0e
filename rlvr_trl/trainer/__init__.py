"""The trainers, the part of the package that builds on TRL."""

from ..trl_compat import check_private_parts


check_private_parts("trl", "transformers", "accelerate", "torch")  # before the imports below, which rely on them

from .mass_callback import MassDynamicsCallback  # noqa: E402
from .method_trainers import (  # noqa: E402
    AGRAEConfig,
    AGRAETrainer,
    DARSConfig,
    DARSTrainer,
    NegativeGRPOConfig,
    NegativeGRPOTrainer,
    PassAtKConfig,
    PassAtKTrainer,
)
from .pass_at_k_callback import PassAtKCallback  # noqa: E402
from .rlvr_config import RLVRConfig  # noqa: E402
from .rlvr_trainer import RLVRTrainer  # noqa: E402


__all__ = [
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
]
