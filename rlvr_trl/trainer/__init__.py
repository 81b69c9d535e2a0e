"""The trainers: the only part of the toolkit that knows TRL."""

from .pass_at_k_trainer import PassAtKConfig, PassAtKTrainer
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


__all__ = ["PassAtKConfig", "PassAtKTrainer", "RLVRConfig", "RLVRTrainer"]
