"""The asynchronous trainer, on TRL's experimental one: a vLLM server samples while another step trains."""

from ..trl_compat import check_private_parts


# before the imports below, which rely on them
check_private_parts("trl", "transformers", "accelerate", "torch")
check_private_parts("trl", asynchronous=True)

from .async_rlvr_config import AsyncRLVRConfig  # noqa: E402
from .async_rlvr_trainer import AsyncRLVRTrainer  # noqa: E402


__all__ = ["AsyncRLVRConfig", "AsyncRLVRTrainer"]
