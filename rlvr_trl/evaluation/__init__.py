"""Sample, score, report: pass@k and exploration metrics of any causal language model. Knows no trainer.

Everything is imported on first use, so that the command line can offer `eval` without loading torch.
"""

import importlib


_HOMES = {
    "comparison": ("Comparison", "compare", "compare_runs"),
    "counts": ("ProblemCounts", "SavedCounts", "pooled"),
    "engines": ("ServerEngine", "TransformersEngine", "VLLMEngine"),
    "metrics": (
        "PairedDifference",
        "answer_entropy",
        "bootstrap_interval",
        "paired_difference",
        "pass_at_k",
        "wrong_answer_diversity",
    ),
    "plots": ("plot_pass_at_k",),
    "problems": ("Problem",),
    "report": ("EvaluationResult",),
    "rescoring": ("rescore",),
    "runs": ("evaluate", "evaluate_engine"),
    "samples": ("Completions", "Engine", "Sample", "SamplingSettings"),
    "sampling": ("sample_completions",),
    "summary": ("load_results", "summarize"),
}

__all__ = sorted(name for names in _HOMES.values() for name in names)


def __getattr__(name):
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f".{home}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
