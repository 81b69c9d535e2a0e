"""
Engines sample completions: from a model in this process, with vLLM, or from a server. See
[`~rlvr_trl.evaluation.Engine`].

Each is imported on first use: that of a server needs no torch.
"""

from typing import TYPE_CHECKING

from ...lazy import import_on_use


_HOMES = {"server": ("ServerEngine",), "transformers": ("TransformersEngine",), "vllm": ("VLLMEngine",)}

if TYPE_CHECKING:
    from .server import ServerEngine
    from .transformers import TransformersEngine
    from .vllm import VLLMEngine
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "ServerEngine",
    "TransformersEngine",
    "VLLMEngine",
]
