"""The trainers: the only part of the toolkit that knows TRL."""

from .a_grae_trainer import AGRAEConfig, AGRAETrainer
from .callbacks import PassAtKCallback
from .dars_trainer import DARSConfig, DARSTrainer
from .negative_trainer import NegativeGRPOConfig, NegativeGRPOTrainer
from .pass_at_k_trainer import PassAtKConfig, PassAtKTrainer
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


__all__ = [
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
]
