"""The trainers: the only part of the toolkit that knows TRL."""

from .dars_trainer import DARSConfig, DARSTrainer
from .pass_at_k_trainer import PassAtKConfig, PassAtKTrainer
from .rlvr_config import RLVRConfig
from .rlvr_trainer import RLVRTrainer


__all__ = ["DARSConfig", "DARSTrainer", "PassAtKConfig", "PassAtKTrainer", "RLVRConfig", "RLVRTrainer"]
