"""Sample, score, report: pass@k and exploration metrics of any causal language model. Knows no trainer."""

from .metrics import (
    PairedDifference,
    answer_entropy,
    bootstrap_interval,
    paired_difference,
    pass_at_k,
    wrong_answer_diversity,
)
from .report import EvaluationResult, compare, evaluate
from .sampling import Completions, sample_completions


__all__ = [
    "Completions",
    "EvaluationResult",
    "PairedDifference",
    "answer_entropy",
    "bootstrap_interval",
    "compare",
    "evaluate",
    "paired_difference",
    "pass_at_k",
    "sample_completions",
    "wrong_answer_diversity",
]
