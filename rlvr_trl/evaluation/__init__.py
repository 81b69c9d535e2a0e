"""Sample, score, report: pass@k and exploration metrics of any causal language model. Knows no trainer.

Everything is imported on first use, so that the command line can offer `eval` without loading torch.
"""

from ..lazy import import_on_use


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

__getattr__, __dir__, __all__ = import_on_use(__name__, _HOMES)
