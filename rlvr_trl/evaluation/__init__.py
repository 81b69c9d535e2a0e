"""Samples and scores completions and reports pass@k and exploration metrics of any causal language model.

Nothing here depends on a trainer. Everything is imported on first use, so that the command line can offer `eval`
without loading torch.
"""

from typing import TYPE_CHECKING

from ..lazy import import_on_use


_HOMES = {
    "comparison": ("Comparison", "compare", "compare_runs"),
    "display": ("plot_pass_at_k",),
    "engines": ("ServerEngine", "TransformersEngine", "VLLMEngine"),
    "problems": ("Problem",),
    "results": ("EvaluationResult", "ProblemCounts", "SavedCounts", "pooled"),
    "runs": ("evaluate", "evaluate_engine", "rescore"),
    "samples": ("Completions", "Engine", "Sample", "SamplingSettings"),
    "sampling": ("sample_completions",),
    "statistics": (
        "PairedDifference",
        "answer_entropy",
        "bootstrap_interval",
        "mean_interval",
        "paired_difference",
        "pass_at_k",
        "wrong_answer_diversity",
    ),
    "store": ("load_results", "summarize"),
}

if TYPE_CHECKING:
    from .comparison import Comparison, compare, compare_runs
    from .display import plot_pass_at_k
    from .engines import ServerEngine, TransformersEngine, VLLMEngine
    from .problems import Problem
    from .results import EvaluationResult, ProblemCounts, SavedCounts, pooled
    from .runs import evaluate, evaluate_engine, rescore
    from .samples import Completions, Engine, Sample, SamplingSettings
    from .sampling import sample_completions
    from .statistics import (
        PairedDifference,
        answer_entropy,
        bootstrap_interval,
        mean_interval,
        paired_difference,
        pass_at_k,
        wrong_answer_diversity,
    )
    from .store import load_results, summarize
else:
    __getattr__, __dir__ = import_on_use(__name__, _HOMES)

__all__ = [
    "Comparison",
    "Completions",
    "Engine",
    "EvaluationResult",
    "PairedDifference",
    "Problem",
    "ProblemCounts",
    "Sample",
    "SamplingSettings",
    "SavedCounts",
    "ServerEngine",
    "TransformersEngine",
    "VLLMEngine",
    "answer_entropy",
    "bootstrap_interval",
    "compare",
    "compare_runs",
    "evaluate",
    "evaluate_engine",
    "load_results",
    "mean_interval",
    "paired_difference",
    "pass_at_k",
    "plot_pass_at_k",
    "pooled",
    "rescore",
    "sample_completions",
    "summarize",
    "wrong_answer_diversity",
]
