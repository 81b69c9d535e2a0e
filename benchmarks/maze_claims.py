"""The claims of four papers that the maze table can test: for each a difference of two rows and its expected sign.

A claim is *reproduced* if the interval of the difference is on the expected side of 0, *opposite* if it is on the
other side, and *not reproduced* if it includes 0. "Not lower" is tested with a margin of 0.02.

The full texts of Pass@k Training (v1) and A-GRAE (v3) were read, but only the abstracts of DARS and the two-stage
view. Claims marked as *second-hand* stand in reviews and digests of these two, *implied* ones follow from an abstract,
and *ours* are claimed by no paper.
"""

from dataclasses import dataclass
from functools import partial


MARGIN = 0.02
REPRODUCED, OPPOSITE, NOT_REPRODUCED, MISSING = "reproduced", "opposite", "not reproduced", "missing"


@dataclass(frozen=True)
class Claim:
    """
    Row `a` minus row `b` in `metric` is expected to be `"higher"` than 0, `"lower"`, or `"not lower"`.

    A row is a method, `"base"`, or a method and `":equal"` for its run at equal rollouts. A metric is `"pass@8"` or
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


def cited(paper: str, where: str, *of_claim: str) -> Claim:
    return Claim(f"{paper} {where}", *of_claim)


def pass_at_k_training() -> list[Claim]:
    claim = partial(cited, "Pass@k Training, 2508.10751")
    return [
        *[claim("§2.2", "Pass@k Training raises pass@k above Pass@1 Training", "pass_at_8", "dapo", f"pass@{k}")
          for k in (8, 32, 64)],
        claim("§2.2", "… and does not lower pass@1", "pass_at_8", "dapo", "pass@1", "not lower"),
        claim("§3.2, Fig. 7", "… and keeps entropy", "pass_at_8", "dapo", "token_entropy"),
        claim("§3.2, Fig. 7", "… and makes wrong answers more diverse", "pass_at_8", "dapo", "wrong_answer_diversity"),
        claim("§2.2", "… already with full sampling", "pass_at_8_full", "dapo", "pass@8"),
        claim("§2.3", "… and with bootstrap sampling", "pass_at_8_bootstrap", "dapo", "pass@8"),
        claim("§2.3", "With as many rollouts, bootstrap is better than full sampling", "pass_at_8_bootstrap",
              "pass_at_8_full", "pass@8"),
        claim("§2.4", "Analytical is better than bootstrap", "pass_at_8", "pass_at_8_bootstrap", "pass@8"),
        claim("§2.4, Fig. 5", "… and steadier (there in pass@k, here in the training reward)", "pass_at_8",
              "pass_at_8_bootstrap", "unsteadiness", "lower"),
        claim("§3.4", "Robust to k: a larger one does as well where the learning rate fits", "pass_at_8", "pass_at_4",
              "pass@8", "not lower"),
        claim("§3.4", "Other k leave the local optimum too: k = 4", "pass_at_4", "dapo", "pass@32"),
        claim("§3.4", "… and k = 16, with 32 completions a prompt", "pass_at_16", "dapo_32", "pass@32"),
        claim("§4.1.1", "η's peak position sets what is learned: with it at harder prompts, more of them are solved",
              "pass_at_8", "pass_at_4", "pass@32"),
        *[claim("§3.1, Fig. 6", f"Pass@k Training is better than {share} % of noise rewards", "pass_at_8",
                f"noise_{share}", "pass@32") for share in (10, 30, 50)],
        claim("§3.1, Fig. 6", "A little noise does not help", "dapo", "noise_10", "pass@32", "not lower"),
        *[claim("§3.1, Fig. 6", f"Much noise lowers pass@{k}", "noise_50", "dapo", f"pass@{k}", "lower")
          for k in (1, 32)],
        claim("§3.1, Fig. 6", "More noise is worse: 30 than 10 %", "noise_30", "noise_10", "pass@32", "lower"),
        claim("§3.1, Fig. 6", "… 50 than 30 %", "noise_50", "noise_30", "pass@32", "lower"),
        *[claim("§3.1, Fig. 6", f"Pass@k Training is better than an entropy bonus of {coefficient}", "pass_at_8",
                f"entropy_{coefficient}", "pass@32") for coefficient in (0.001, 0.003, 0.005)],
        claim("§3.1", "A large entropy bonus may break training", "entropy_0.005", "entropy_0.001", "pass@32",
              "lower"),
        claim("§4.1.2, Fig. 10", "Leaving easy problems out helps Pass@1 Training a little", "without_easy", "dapo",
              "pass@32"),
        claim("§4.1.2, Fig. 10", "… but less than Pass@k Training does", "without_easy", "pass_at_8", "pass@32",
              "lower"),
        claim("§4.2.1", "Exceeding learns pass@1 more slowly than Pass@k Training", "exceeding", "pass_at_8", "pass@1",
              "lower"),
        claim("§4.2.1", "… and pass@k faster (there early in training, here at its end)", "exceeding", "pass_at_8",
              "pass@32"),
        *[claim("§4.2.2, Fig. 12", f"The combination is better than Pass@k Training at pass@{k}", "combination",
                "pass_at_8", f"pass@{k}") for k in (1, 8)],
        *[claim("§4.2.3", f"Adaptive training is better than {other} at pass@{k}", "adaptive", row, f"pass@{k}")
          for row, other in (("pass_at_8", "Pass@k Training"), ("dapo", "Pass@1 Training")) for k in (1, 8)],
        claim("§3.5", "Pass@k then Pass@1 beats Pass@1 alone at pass@1 (there with more steps, here with as many)",
              "pass_at_8_then_1", "dapo", "pass@1"),
        claim("§3.5", "… and at pass@k", "pass_at_8_then_1", "dapo", "pass@8"),
        claim("§3.5", "… and Pass@k alone at pass@1", "pass_at_8_then_1", "pass_at_8", "pass@1"),
        claim("Table 5", "… and twice beats once (there with twice the steps)", "pass_at_8_then_1_twice",
              "pass_at_8_then_1", "pass@1"),
    ]  # fmt: skip


def dars() -> list[Claim]:
    claim = partial(cited, "DARS, 2508.13755")
    abstract, implied, digest = "abstract", "(implied)", "(second-hand)"
    return [
        claim(abstract, "Depth alone (32 for every prompt) does not raise pass@k", "dr_grpo", "depth_naive", "pass@32",
              "not lower"),
        claim("abstract of v4", "… and hurts it", "depth_naive", "dr_grpo", "pass@32", "lower"),
        claim(abstract, "DARS-HW raises pass@k", "dars_hw", "dr_grpo", "pass@32"),
        claim(abstract, "DARS-ET raises pass@k", "dars_et", "dr_grpo", "pass@32"),
        claim("(ours)", "… DARS-HW also at equal rollouts", "dars_hw:equal", "dr_grpo", "pass@32"),
        claim("(ours)", "… DARS-ET also at equal rollouts", "dars_et:equal", "dr_grpo", "pass@32"),
        claim(digest, "DARS-HW does not lower pass@1", "dars_hw", "dr_grpo", "pass@1", "not lower"),
        claim(implied, "DARS-HW beats Depth-Naive at pass@k", "dars_hw", "depth_naive", "pass@32"),
        claim("Table 2", "… with fewer rollouts", "dars_hw", "depth_naive", "completions", "lower"),
        claim(implied, "DARS-ET beats Depth-Naive at pass@k", "dars_et", "depth_naive", "pass@32"),
        claim("Table 2", "… with fewer rollouts", "dars_et", "depth_naive", "completions", "lower"),
        claim(digest, "Hardness weighting beats equal treatment at pass@k", "dars_hw", "dars_et", "pass@32"),
        claim(digest, "… and is level at pass@1", "dars_hw", "dars_et", "pass@1", "not lower"),
        claim(abstract, "Breadth raises pass@1", "breadth_naive", "dr_grpo", "pass@1"),
        claim(abstract, "… and keeps entropy", "breadth_naive", "dr_grpo", "token_entropy"),
        claim(digest, "… and is better than depth at pass@1", "breadth_naive", "depth_naive", "pass@1"),
        *[claim(abstract, f"DARS with breadth raises pass@{k}", "dars_hw_breadth", "dr_grpo", f"pass@{k}")
          for k in (1, 32)],
        claim(digest, "… pass@1 also against breadth alone", "dars_hw_breadth", "breadth_naive", "pass@1"),
        claim(implied, "… pass@k also against breadth alone", "dars_hw_breadth", "breadth_naive", "pass@32"),
        claim(digest, "… and pass@k is not below DARS alone", "dars_hw_breadth", "dars_hw", "pass@32", "not lower"),
    ]  # fmt: skip


def a_grae() -> list[Claim]:
    claim = partial(cited, "A-GRAE, 2602.05548")
    full, shift, suppression = "a_grae_grpo", "a_grae_shift_grpo", "a_grae_suppression_grpo"
    bases = {"grpo": "GRPO", "dapo": "DAPO", "dr_grpo": "Dr. GRPO"}
    return [
        claim("§4.2", "GRPO raises pass@1 above the base model", "grpo", "base", "pass@1"),
        claim("§4.2, also 2510.04028", "… and at large k it can fall below it", "grpo", "base", "pass@64", "lower"),
        *[claim("Table 3", f"A-GRAE on {label} raises pass@{k}", f"a_grae_{base}", base, f"pass@{k}")
          for base, label in bases.items() for k in (1, 64)],
        claim("Fig. 10", "A-GRAE keeps entropy", full, "grpo", "token_entropy"),
        claim("Table 6", "The shift alone raises pass@64 of GRPO", shift, "grpo", "pass@64"),
        claim("Table 6", "The suppression alone raises it", suppression, "grpo", "pass@64"),
        claim("§5.4", "… by more than the shift", suppression, shift, "pass@64"),
        claim("Table 6", "Both together are better at pass@1 than the shift", full, shift, "pass@1"),
        claim("Table 6", "… and than the suppression", full, suppression, "pass@1"),
        claim("Table 7", "Negative-dominant raises pass@1", "negative_dominant", "grpo", "pass@1"),
        claim("Table 7", "… and pass@64", "negative_dominant", "grpo", "pass@64"),
        claim("Table 7", "… which is not below the base model", "negative_dominant", "base", "pass@64", "not lower"),
        claim("Fig. 3", "… and entropy", "negative_dominant", "grpo", "token_entropy"),
        claim("App. D", "… but can collapse (there in 3 of 10 runs; here: less steady)", "negative_dominant", "grpo",
              "unsteadiness"),
        claim("App. D", "The suppression of A-GRAE is steadier than it", suppression, "negative_dominant",
              "unsteadiness", "lower"),
        claim("App. D", "… at no loss of pass@64", suppression, "negative_dominant", "pass@64", "not lower"),
        claim("Table 7", "Positive-dominant loses pass@64", "positive_dominant", "grpo", "pass@64", "lower"),
        claim("Fig. 3", "… and entropy", "positive_dominant", "grpo", "token_entropy", "lower"),
        claim("Table 7", "Hard-focused raises pass@64", "hard_focused", "grpo", "pass@64"),
        claim("Table 7", "… above easy-focused", "hard_focused", "easy_focused", "pass@64"),
        claim("Table 7", "Easy-focused is a little better at pass@1", "easy_focused", "grpo", "pass@1"),
        claim("App. D", "The shift is better than easy-focused at pass@1", shift, "easy_focused", "pass@1"),
        *[claim("Table 3", f"A-GRAE is better than GRPO-LEAD at pass@{k}", full, "grpo_lead", f"pass@{k}")
          for k in (1, 64)],
        claim("Table 3", "… and than W-REINFORCE at pass@1", full, "w_reinforce", "pass@1"),
        claim("Table 3", "W-REINFORCE is better than GRPO at pass@64", "w_reinforce", "grpo", "pass@64"),
    ]  # fmt: skip


def two_stage() -> list[Claim]:
    claim = partial(cited, "Two-stage view, 2510.04028")
    second_hand = "(second-hand)"
    return [
        claim(second_hand, "GRPO-N keeps more entropy than GRPO", "grpo_n", "grpo", "token_entropy"),
        claim(second_hand, "… more even than the base model has", "grpo_n", "base", "token_entropy"),
        claim(second_hand, "GRPO-N raises pass@64 above GRPO", "grpo_n", "grpo", "pass@64"),
        claim(second_hand, "… and above the base model", "grpo_n", "base", "pass@64"),
        claim(second_hand, "GSPO loses less entropy than GRPO", "gspo", "grpo_2", "token_entropy"),
        claim(second_hand, "GSPO-N is as good as GSPO at pass@64", "gspo_n", "gspo", "pass@64", "not lower"),
    ]  # fmt: skip


CLAIMS = [*pass_at_k_training(), *dars(), *a_grae(), *two_stage()]
