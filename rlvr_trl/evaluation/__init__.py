"""Sample, score, report: pass@k and exploration metrics of any causal language model. Knows no trainer.

Everything is imported on first use, so that the command line can offer `eval` without loading torch.
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from .comparison import Comparison, compare, compare_runs
    from .counts import ProblemCounts, SavedCounts, pooled
    from .engines import ServerEngine, TransformersEngine, VLLMEngine
    from .metrics import (
        PairedDifference,
        answer_entropy,
        bootstrap_interval,
        paired_difference,
        pass_at_k,
        wrong_answer_diversity,
    )
    from .plots import plot_pass_at_k
    from .problems import Problem
    from .report import EvaluationResult
    from .rescoring import rescore
    from .runs import evaluate, evaluate_engine
    from .samples import Completions, Engine, Sample, SamplingSettings
    from .sampling import sample_completions
    from .summary import load_results, summarize
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
    "paired_difference",
    "pass_at_k",
    "plot_pass_at_k",
    "pooled",
    "rescore",
    "sample_completions",
    "summarize",
    "wrong_answer_diversity",
]
