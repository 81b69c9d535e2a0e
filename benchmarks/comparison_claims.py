"""
What four papers claim that the comparison can test: for each a difference of two rows and its expected sign.

All four texts were read whole. Every comparison stands once, even where several sentences or papers make it. A claim
is judged at the learning rates chosen for each method and at every rate that both were trained at:

- *reproduced*: the interval of the difference is on the expected side of 0 at the chosen rates and at one equal rate
  at least, and at no equal rate the difference leans to the other side;
- *opposite*: the same, on the other side;
- *not reproduced*: no interval excludes 0, so that the runs do not decide;
- *depends on the learning rate*: anything else.

For "not lower" and "not higher" the limit is a margin of 0.02 in place of 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rlvr_trl.testbed.cells import BASE
from rlvr_trl.testbed.comparison_methods import EVERY_RATE
from rlvr_trl.testbed.intervals import Estimate, average, settle
from rlvr_trl.testbed.outcomes import CHOSEN, Outcomes, Row


MARGIN = 0.02
REPRODUCED, OPPOSITE, NOT_REPRODUCED = "reproduced", "opposite", "not reproduced"
DEPENDS, MISSING = "depends on the learning rate", "not run yet"
ALL_TASKS = "mean of these tasks"
# sign of the expected difference, and where the difference that would just not do is
EXPECTED = {"higher": (1, 0.0), "lower": (-1, 0.0), "not lower": (1, -MARGIN), "not higher": (-1, MARGIN)}


@dataclass(frozen=True)
class Claim:
    """
    Row `a` minus row `b` in `metric` is expected to be as a key of `EXPECTED` says.

    A row is a method, `"base"`, or a method and `":equal"` for its runs at equal rollouts. A metric is `"pass@8"` or
    the like, a mean that every cell has (`"token_entropy"`), `"completions"`, or `"training_reward"`.
    """

    paper: str
    where: str
    sentence: str
    a: str
    b: str
    metric: str
    expected: str = "higher"

    def rows(self, rate: float | None) -> tuple[Row, Row]:
        return row_of(self.a, rate), row_of(self.b, rate)


def row_of(name: str, rate: float | None = CHOSEN) -> Row:
    """The row that `"method"` or `"method:equal"` names."""
    method, _, variant = name.partition(":")
    return Row(method, None if method == BASE else rate, variant == "equal")


@dataclass(frozen=True)
class Judgement:
    """
    Attributes:
        chosen (`Estimate`, *optional*): the difference at the chosen rates.
        equal (`dict[float, Estimate]`): the difference at each equal rate.
    """

    claim: Claim
    verdict: str
    chosen: Estimate | None
    equal: Mapping[float, Estimate]

    @property
    def changes_sign(self) -> bool:
        """Whether the difference is on one side of the limit at some rates, and on the other at others."""
        found = [*self.equal.values(), *([] if self.chosen is None else [self.chosen])]
        return {lean(one, self.claim.expected) for one in found} >= {-1, 1}

    @property
    def p_value(self) -> float | None:
        """Of the difference at the chosen rates, against the claim's limit."""
        return None if self.chosen is None else self.chosen.p_value(EXPECTED[self.claim.expected][1])


def differences(outcomes: Outcomes, claim: Claim) -> dict[float | None, Estimate]:
    """At the chosen rates (`None`) and at each equal rate, where both rows have runs."""
    found = {rate: outcomes.difference(*claim.rows(rate), claim.metric) for rate in (CHOSEN, *EVERY_RATE)}
    return {rate: one for rate, one in found.items() if one is not None}


def judge(claim: Claim, found: Mapping[float | None, Estimate]) -> Judgement:
    """What the differences say about the claim."""
    equal = {rate: one for rate, one in found.items() if rate is not CHOSEN}
    chosen = found.get(CHOSEN)
    sides = [side(one, claim.expected) for one in equal.values()]
    leanings = {lean(one, claim.expected) for one in equal.values()} - {0}
    if chosen is None or not equal:
        verdict = MISSING
    elif set(sides) | {side(chosen, claim.expected)} == {0}:
        verdict = NOT_REPRODUCED
    elif leanings == {side(chosen, claim.expected)} and leanings & set(sides):
        verdict = REPRODUCED if leanings == {1} else OPPOSITE
    else:
        verdict = DEPENDS
    return Judgement(claim, verdict, chosen, equal)


def side(found: Estimate, expected: str) -> int:
    """1 if the interval is on the expected side of the limit, -1 if it is on the other, else 0."""
    sign, limit = EXPECTED[expected]
    low, high = sorted(settle(sign * (end - limit)) for end in found.interval())
    return 1 if low > 0 else -1 if high < 0 else 0


def lean(found: Estimate, expected: str) -> int:
    """On which side the difference itself is."""
    sign, limit = EXPECTED[expected]
    distance = settle(sign * (found.mean - limit))
    return (distance > 0) - (distance < 0)


def judge_all(tasks: Mapping[str, Outcomes], claims: list[Claim]) -> dict[Claim, dict[str, Judgement]]:
    """Every claim on every task that has both of its rows and, if these are several, on their average."""
    judgements = {}
    for claim in claims:
        found = {name: differences(outcomes, claim) for name, outcomes in tasks.items()}
        found = {name: one for name, one in found.items() if one}
        if len(found) > 1:
            common = set.intersection(*(set(one) for one in found.values()))
            found[ALL_TASKS] = {rate: average([one[rate] for one in found.values()]) for rate in common}
        judgements[claim] = {name: judge(claim, one) for name, one in found.items()}
    return judgements


PASS_AT_K, DARS, A_GRAE, TWO_STAGE = (
    "Pass@k Training, arXiv 2508.10751",
    "DARS, arXiv 2508.13755",
    "A-GRAE, arXiv 2602.05548",
    "Two-stage view, arXiv 2510.04028",
)


def of_paper(paper: str, *claims: tuple) -> list[Claim]:
    return [Claim(paper, *claim) for claim in claims]


OURS = "(ours)"
CLAIMS = [
    *of_paper(
        A_GRAE,
        ("§4.2", "GRPO raises pass@1 above the base model", "grpo", BASE, "pass@1"),
        ("§4.2, of two of three sets at k = 256", "… and at large k falls below it", "grpo", BASE, "pass@64",
         "lower"),
        ("§4.2, Fig. 2, Table 6", "Suppressed positive advantages (negative-dominant) raise pass@k at large k",
         "negative_dominant", "grpo", "pass@64"),
        ("§4.2, Fig. 3", "… and entropy", "negative_dominant", "grpo", "token_entropy"),
        ("§4.2, Fig. 2, Table 6; not of AMC23", "Amplified ones (positive-dominant) lower pass@k at large k",
         "positive_dominant", "grpo", "pass@64", "lower"),
        ("§4.2, Fig. 3", "… and entropy", "positive_dominant", "grpo", "token_entropy", "lower"),
        ("Fig. 5", "A focus on hard prompts ends with a higher training reward", "hard_focused", "grpo",
         "training_reward"),
        ("Table 6", "… and a higher pass@k at large k", "hard_focused", "grpo", "pass@64"),
        ("Table 2", "A-GRAE (α = 1, as for mathematics) raises pass@1 of GRPO", "a_grae", "grpo", "pass@1"),
        ("Table 2", "… and its pass@k at large k", "a_grae", "grpo", "pass@64"),
        ("Table 3", "α = 0.5 (as for what collapses easily) raises pass@1", "a_grae_half", "grpo", "pass@1"),
        (OURS, "… and pass@k at large k", "a_grae_half", "grpo", "pass@64"),
        ("§5.4, Fig. 10", "A-GRAE (there α = 1, here 0.5) keeps entropy", "a_grae_half", "grpo", "token_entropy"),
        ("Table 5", "The shift of difficulty alone raises pass@1", "a_grae_shift", "grpo", "pass@1"),
        ("Table 5", "… and pass@k at large k", "a_grae_shift", "grpo", "pass@64"),
        ("Table 5", "The suppression alone raises pass@1", "a_grae_suppression", "grpo", "pass@1"),
        ("Table 5", "… and pass@k at large k", "a_grae_suppression", "grpo", "pass@64"),
        ("§5.4", "… more than the shift does", "a_grae_suppression", "a_grae_shift", "pass@64"),
        ("§5.4; not of AIME 2025 in Table 5", "The shift has a higher pass@1 than the suppression", "a_grae_shift",
         "a_grae_suppression", "pass@1"),
        ("Table 5", "Both together have a higher pass@1 than the shift", "a_grae", "a_grae_shift", "pass@1"),
        ("Table 5", "… and than the suppression", "a_grae", "a_grae_suppression", "pass@1"),
        ("§5.3, Table 2", "A-GRAE has a higher pass@1 than GRPO-LEAD", "a_grae", "grpo_lead", "pass@1"),
        ("§5.3, Table 2", "… and a higher pass@k at large k", "a_grae", "grpo_lead", "pass@64"),
        ("§5.3, Table 2", "A-GRAE has a higher pass@1 than W-REINFORCE", "a_grae", "w_reinforce", "pass@1"),
        ("§5.3; not so in Table 2 at k = 64", "… and a higher pass@k at large k", "a_grae", "w_reinforce", "pass@64"),
        ("Table 2", "W-REINFORCE has a higher pass@k than GRPO at large k", "w_reinforce", "grpo", "pass@64"),
    ),
    *of_paper(
        PASS_AT_K,
        ("§2.2, §2.4", "Pass@k Training raises pass@k above Pass@1 Training", "pass_at_8", "dapo", "pass@8"),
        ("§2.2", "… without lowering pass@1", "pass_at_8", "dapo", "pass@1", "not lower"),
        ("§2.2", "… nor with k a quarter of the group, as there", "pass_at_4", "dapo", "pass@1", "not lower"),
        ("§3.2, Fig. 7b", "… and keeps entropy", "pass_at_8", "dapo", "token_entropy"),
        ("§3.2, Fig. 7a", "… and makes wrong answers more diverse", "pass_at_8", "dapo", "wrong_answer_diversity"),
        ("§2.2, Fig. 3", "Full sampling raises pass@k too", "pass_at_8_full", "dapo", "pass@8"),
        ("§2.2, Fig. 3", "… without lowering pass@1", "pass_at_8_full", "dapo", "pass@1", "not lower"),
        ("§2.3", "Bootstrap sampling raises pass@k too", "pass_at_8_bootstrap", "dapo", "pass@8"),
        ("§2.3, Fig. 4", "… to more than full sampling does", "pass_at_8_bootstrap", "pass_at_8_full", "pass@8"),
        ("§2.4, Fig. 5", "The analytical form has a higher pass@k than bootstrap sampling", "pass_at_8",
         "pass_at_8_bootstrap", "pass@8"),
        ("§3.4, Fig. 8b", "Other k raise pass@k too: k = 4", "pass_at_4", "dapo", "pass@8"),
        ("§3.4, Fig. 8b", "… and k = 16 (here of 32 completions of 8 prompts, against 16 of 16)", "pass_at_16",
         "dapo", "pass@8"),
        ("§3.1, Fig. 6b", "Pass@k Training has a higher pass@k than an entropy bonus", "pass_at_8", "entropy",
         "pass@8"),
        ("§4.1.2, Fig. 10", "Leaving out easy problems raises pass@1", "without_easy", "dapo", "pass@1"),
        ("§4.2.2, Fig. 12", "The combination has a higher pass@1 than Pass@k Training", "combination", "pass_at_8",
         "pass@1"),
        ("§4.2.2, Fig. 12", "… and a higher pass@k", "combination", "pass_at_8", "pass@8"),
        ("§3.5, Table 2", "Pass@k, then Pass@1 has a higher pass@1 than Pass@1 alone (there with more steps in all, "
         "here with as many)", "pass_at_8_then_1", "dapo", "pass@1"),
        ("§3.5, Table 2", "… and a higher pass@k", "pass_at_8_then_1", "dapo", "pass@8"),
        ("§3.5, Table 2", "… and a higher pass@1 than Pass@k alone", "pass_at_8_then_1", "pass_at_8", "pass@1"),
        ("§3.5, Table 2; not so in Table 5", "… and a higher pass@k", "pass_at_8_then_1", "pass_at_8", "pass@8"),
    ),
    *of_paper(
        DARS,
        ("§2.1, Fig. 1", "More rollouts for every prompt raise pass@1 (there 32 for 8, here 32 for 16)",
         "depth_naive", "dr_grpo", "pass@1"),
        ("§2.1, Fig. 1, of the 1.5B; Table 4, of both; not of the 7B in Fig. 1, nor in Table 3", "… but not pass@k",
         "depth_naive", "dr_grpo", "pass@64", "not higher"),
        ("Tables 1 and 4", "DARS-HW raises pass@k", "dars_hw", "dr_grpo", "pass@64"),
        ("Tables 1 and 4", "… also above that of the base model", "dars_hw", BASE, "pass@64"),
        ("§4.3", "… without lowering pass@1", "dars_hw", "dr_grpo", "pass@1", "not lower"),
        ("Table 1", "DARS-ET raises pass@k", "dars_et", "dr_grpo", "pass@64"),
        ("§4.2", "HW has a higher pass@k than ET", "dars_hw", "dars_et", "pass@64"),
        ("§4.2", "… at the same pass@1", "dars_hw", "dars_et", "pass@1", "not lower"),
        ("Tables 1 and 4", "DARS-HW has a higher pass@k than more rollouts for all", "dars_hw", "depth_naive",
         "pass@64"),
        ("Table 2", "… with fewer rollouts", "dars_hw", "depth_naive", "completions", "lower"),
        ("§2.2, Tables 1 and 4", "Breadth raises pass@1 (there with some four times the prompts, here with as many "
         "in an eighth of the updates)", "breadth_naive", "dr_grpo", "pass@1"),
        ("§2.2, Fig. 4", "… and keeps entropy (there at equal pass@1, here at the end)", "breadth_naive", "dr_grpo",
         "token_entropy"),
        ("§2.2, of the 1.5B; Tables 1 and 4, of both; not so in Table 3", "… but lowers pass@k", "breadth_naive",
         "dr_grpo", "pass@64", "lower"),
        ("§4.2", "Breadth has a higher pass@1 than more rollouts (likewise)", "breadth_naive", "depth_naive",
         "pass@1"),
        ("Abstract, Tables 1, 3, 4 and 5", "DARS with breadth raises pass@1 (likewise)", "dars_hw_breadth", "dr_grpo",
         "pass@1"),
        ("Abstract, Tables 1, 3, 4 and 5", "… and pass@k", "dars_hw_breadth", "dr_grpo", "pass@64"),
        ("§4.2", "DARS with breadth has a higher pass@1 than breadth alone", "dars_hw_breadth", "breadth_naive",
         "pass@1"),
        ("Tables 1 and 4", "… and a higher pass@k", "dars_hw_breadth", "breadth_naive", "pass@64"),
        ("§4.2", "DARS with breadth has a higher pass@1 than DARS (there with some four times the prompts, here with "
         "as many in an eighth of the updates)", "dars_hw_breadth", "dars_hw", "pass@1"),
        ("§4.2", "… at the same pass@k", "dars_hw_breadth", "dars_hw", "pass@64", "not lower"),
        ("App. F.3, Fig. 12", "With breadth HW has a higher pass@k than ET", "dars_hw_breadth", "dars_et_breadth",
         "pass@64"),
        ("App. G.2", "A falling cap (suggested there, not tried) leads to a higher pass@1", "dars_hw_annealed",
         "dars_hw", "pass@1"),
        (OURS, "DARS-HW raises pass@k also at equal rollouts", "dars_hw:equal", "dr_grpo", "pass@64"),
        (OURS, "… and DARS-ET", "dars_et:equal", "dr_grpo", "pass@64"),
    ),
    *of_paper(
        TWO_STAGE,
        ("§4.2, Fig. 2", "GRPO lowers the entropy of the base model", "grpo_kl", BASE, "token_entropy", "lower"),
        ("§4.2, Fig. 2; not of Llama on AMC 2023 in Table 4", "GRPO-N keeps more entropy than GRPO", "grpo_n",
         "grpo_kl", "token_entropy"),
        ("§4.2, Fig. 2; in Table 4 of Qwen on AMC 2023 alone", "… more even than the base model has", "grpo_n", BASE,
         "token_entropy"),
        ("Table 4", "GRPO-N has more diverse answers than GRPO", "grpo_n", "grpo_kl", "answer_entropy"),
        ("Table 1, not of AIME 2024 and in Table 3", "GRPO-N has a higher pass@k than GRPO at large k", "grpo_n",
         "grpo_kl", "pass@64"),
        ("§4.2, of greedy accuracy; pass@1 in Table 1", "… at a competitive pass@1", "grpo_n", "grpo_kl", "pass@1",
         "not lower"),
        ("§4.2", "GRPO-N raises pass@1 above the base model", "grpo_n", BASE, "pass@1"),
        ("Table 1, not of MMLU-Pro, nor in Tables 2 and 3", "… and does not lose its pass@k at large k", "grpo_n",
         BASE, "pass@64", "not lower"),
    ),
]  # fmt: skip
# How the test of a paper's claims differs from the paper: what its authors would say first
LIMITS = {
    A_GRAE: (
        "The paper evaluates at temperature 0.6 and top-p 0.95 (App. C.2), here it is 1.0, which may cost a method "
        "that keeps entropy more of its pass@1. Not tested: the focus on easy prompts (Fig. 5), and A-GRAE on DAPO "
        "and Dr. GRPO (Table 2)."
    ),
    PASS_AT_K: (
        "The paper takes k = 8 of 32 completions (§3.4), here it is 8 of 16: Pass@4 has its share. Its full sampling "
        "has 4 sets a group or more (Fig. 4), here 2."
    ),
    DARS: (
        "The baseline of the paper has 8 completions a prompt (§4.1), here 16; DARS has 8 to 32 in both. The paper "
        "updates twice a batch (§4.1), here all but breadth do so four times. Breadth there has 3.6 to 4.2 times the "
        "prompts of the others, a sixth of their updates and five times their rate (App. E); here it has as many "
        "prompts as the others in 50 updates for 400, of which 20 are warm-up. Table 1 has for baselines the "
        "checkpoint with the best pass@1 and for DARS the one with the best pass@128 among those above the baseline's "
        "pass@1 (§4.1); Table 4 and this test choose none."
    ),
    TWO_STAGE: (
        "These claims are about GRPO-N alone. The two stages (§3), the paper's main result, are not tested: they need "
        "longer training, and answers that earn more than others. The paper proposes GRPO-N for prolonged training; "
        "here a run has 400 updates. It evaluates at temperature 0.6 and top-p 0.95 (App. C.2), here it is 1.0, which "
        "may cost a method that keeps entropy more of its pass@1. GSPO-N is not tested."
    ),
}
