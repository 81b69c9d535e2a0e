"""
What samples completions: a model in this process, vLLM, or a server. See [`~rlvr_trl.evaluation.Engine`].

Each is imported on first use: a server needs no torch.
"""

from ...lazy import import_on_use


_HOMES = {"server": ("ServerEngine",), "transformers": ("TransformersEngine",), "vllm": ("VLLMEngine",)}

__getattr__, __dir__, __all__ = import_on_use(__name__, _HOMES)
