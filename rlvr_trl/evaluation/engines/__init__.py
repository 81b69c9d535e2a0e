"""
What samples completions: a model in this process, vLLM, or a server. See [`~rlvr_trl.evaluation.Engine`].

Each is imported on first use: a server needs no torch.
"""

import importlib


_HOMES = {"ServerEngine": "server", "TransformersEngine": "transformers", "VLLMEngine": "vllm"}

__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
