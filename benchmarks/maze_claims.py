"""What four papers say that the maze table can test: a difference of two rows for each, and the sign it should have.

A claim is *reproduced* where the interval of the difference is on the expected side of 0, the *opposite* where it is
on the other side, and *not reproduced* where it includes 0. "Not lower" is tested with a margin of 0.02.
"""

from dataclasses import dataclass


PASS_AT_K = "Pass@k Training, 2508.10751"
DARS = "DARS, 2508.13755"
A_GRAE = "A-GRAE, 2602.05548"
TWO_STAGE = "Two-stage view, 2510.04028"
MARGIN = 0.02
REPRODUCED, OPPOSITE, NOT_REPRODUCED, MISSING = "reproduced", "opposite", "not reproduced", "missing"


@dataclass(frozen=True)
class Claim:
    """
    Row `a` minus row `b` in `metric` is expected to be `"higher"` than 0, `"lower"`, or `"not lower"`.

    A row is a method, `"base"`, or a method and `":equal"` for its run at equal rollouts. Metrics are `"pass@8"` and
    the like, a mean that every cell has (`"token_entropy"`), `"completions"`, or `"unsteadiness"`, the standard
    deviation of the change of the training reward from one log to the next.
    """

    paper: str
    sentence: str
    a: str
    b: str
    metric: str
    expected: str = "higher"


def verdict(low: float, high: float, expected: str) -> str:
    """What the interval `[low, high]` of a difference says about the expectation."""
    if expected == "lower":
        low, high = -high, -low
    elif expected == "not lower":
        low, high = low + MARGIN, high + MARGIN
    return REPRODUCED if low > 0 else OPPOSITE if high < 0 else NOT_REPRODUCED


CLAIMS = [
    *[Claim(PASS_AT_K, "Pass@k Training raises pass@k above Pass@1 Training", "pass_at_8", "dapo", f"pass@{k}")
      for k in (8, 32, 64)],
    Claim(PASS_AT_K, "… and does not lower pass@1", "pass_at_8", "dapo", "pass@1", "not lower"),
    Claim(PASS_AT_K, "… and keeps entropy", "pass_at_8", "dapo", "token_entropy"),
    Claim(PASS_AT_K, "… and keeps wrong answers diverse", "pass_at_8", "dapo", "wrong_answer_diversity"),
    Claim(PASS_AT_K, "Bootstrap is better than full sampling", "pass_at_8_bootstrap", "pass_at_8_full", "pass@8"),
    Claim(PASS_AT_K, "Analytical is better than bootstrap", "pass_at_8", "pass_at_8_bootstrap", "pass@8"),
    Claim(PASS_AT_K, "Analytical is steadier than bootstrap", "pass_at_8", "pass_at_8_bootstrap", "unsteadiness",
          "lower"),
    Claim(PASS_AT_K, "A larger k moves the peak of η to harder prompts, and explores more", "pass_at_8", "pass_at_4",
          "pass@32"),
    Claim(PASS_AT_K, "… also k = 16 against Pass@1 Training with as many rollouts", "pass_at_16", "dapo_32",
          "pass@32"),
    Claim(PASS_AT_K, "Noise rewards lower pass@k", "noise_10", "dapo", "pass@32", "lower"),
    Claim(PASS_AT_K, "… the more the noise", "noise_50", "noise_10", "pass@32", "lower"),
    *[Claim(PASS_AT_K, f"Pass@k Training is better than an entropy bonus of {c}", "pass_at_8", f"entropy_{c}",
            "pass@32") for c in (0.001, 0.003, 0.005)],
    Claim(PASS_AT_K, "Leaving easy problems out is not enough: Pass@k is better", "pass_at_8", "without_easy",
          "pass@32"),
    Claim(PASS_AT_K, "η's peak position sets efficiency: exceeding learns hard prompts better", "exceeding",
          "pass_at_8", "pass@32"),
    Claim(PASS_AT_K, "The combination of Pass@k and Pass@1 is better than Pass@k at pass@1", "combination",
          "pass_at_8", "pass@1"),
    Claim(PASS_AT_K, "… and than Pass@1 at pass@k", "combination", "dapo", "pass@32"),
    Claim(PASS_AT_K, "Adaptive training is better than Pass@k at pass@1", "adaptive", "pass_at_8", "pass@1"),
    Claim(PASS_AT_K, "… and than Pass@1 at pass@k", "adaptive", "dapo", "pass@32"),
    Claim(PASS_AT_K, "Pass@k then Pass@1 beats Pass@1 alone at pass@1", "pass_at_8_then_1", "dapo", "pass@1"),
    Claim(PASS_AT_K, "… and twice beats once", "pass_at_8_then_1_twice", "pass_at_8_then_1", "pass@1"),
    Claim(DARS, "Depth alone (32 for every prompt) hurts pass@k", "depth_naive", "dr_grpo", "pass@32", "lower"),
    Claim(DARS, "DARS-HW raises pass@k", "dars_hw", "dr_grpo", "pass@32"),
    Claim(DARS, "… also at equal rollouts", "dars_hw:equal", "dr_grpo", "pass@32"),
    Claim(DARS, "DARS-ET raises pass@k", "dars_et", "dr_grpo", "pass@32"),
    Claim(DARS, "DARS-HW beats Depth-Naive at pass@k", "dars_hw", "depth_naive", "pass@32"),
    Claim(DARS, "… with fewer rollouts", "dars_hw", "depth_naive", "completions", "lower"),
    Claim(DARS, "DARS-ET beats Depth-Naive at pass@k", "dars_et", "depth_naive", "pass@32"),
    Claim(DARS, "… with fewer rollouts", "dars_et", "depth_naive", "completions", "lower"),
    Claim(DARS, "Hardness weighting beats equal treatment at pass@k", "dars_hw", "dars_et", "pass@32"),
    Claim(DARS, "Breadth raises pass@1", "breadth_naive", "dr_grpo", "pass@1"),
    Claim(DARS, "… and keeps entropy", "breadth_naive", "dr_grpo", "token_entropy"),
    Claim(DARS, "DARS with breadth raises pass@1", "dars_hw_breadth", "dr_grpo", "pass@1"),
    Claim(DARS, "… and pass@k, also against breadth alone", "dars_hw_breadth", "breadth_naive", "pass@32"),
    Claim(A_GRAE, "GRPO raises pass@1 above the base model", "grpo", "base", "pass@1"),
    Claim(A_GRAE, "… and its pass@large-k falls below it", "grpo", "base", "pass@64", "lower"),
    *[Claim(A_GRAE, f"A-GRAE on {label} raises pass@{k}", f"a_grae_{base}", base, f"pass@{k}")
      for base, label in (("grpo", "GRPO"), ("dapo", "DAPO"), ("dr_grpo", "Dr. GRPO")) for k in (1, 64)],
    *[Claim(A_GRAE, f"The {half} alone raises pass@64 of GRPO", f"a_grae_{half}_grpo", "grpo", "pass@64")
      for half in ("shift", "suppression")],
    Claim(A_GRAE, "Negative-dominant keeps pass@k", "negative_dominant", "grpo", "pass@64"),
    Claim(A_GRAE, "… but can collapse: lower at pass@1", "negative_dominant", "grpo", "pass@1", "lower"),
    Claim(A_GRAE, "… and less steady", "negative_dominant", "grpo", "unsteadiness"),
    Claim(A_GRAE, "Positive-dominant loses pass@k", "positive_dominant", "grpo", "pass@64", "lower"),
    Claim(A_GRAE, "… and entropy", "positive_dominant", "grpo", "token_entropy", "lower"),
    Claim(A_GRAE, "Hard-focused raises pass@k", "hard_focused", "grpo", "pass@64"),
    Claim(A_GRAE, "Easy-focused lowers it", "easy_focused", "grpo", "pass@64", "lower"),
    Claim(TWO_STAGE, "GRPO shrinks the boundary: pass@64 below the base model", "dapo", "base", "pass@64", "lower"),
    Claim(TWO_STAGE, "GRPO-N keeps entropy", "grpo_n", "grpo", "token_entropy"),
    Claim(TWO_STAGE, "GRPO-N raises pass@large-k above GRPO", "grpo_n", "grpo", "pass@64"),
    Claim(TWO_STAGE, "GSPO-N keeps entropy", "gspo_n", "gspo", "token_entropy"),
    Claim(TWO_STAGE, "GSPO-N raises pass@large-k above GSPO", "gspo_n", "gspo", "pass@64"),
]  # fmt: skip
