"""The methods of the comparison, by name.

All share one recipe: 16 prompts x 16 completions a batch in four updates of 4 prompts, loss dapo with DAPO's higher
upper clip, no KL, and a constant learning rate after a warm-up. A method changes only what it says here. Rates are not
here: every method is trained at each of `RATES`.

- `dapo_one_update` makes one update a batch, so that clipping never acts.
- k = 16 needs more than 16 completions a prompt, as 16 have only one subset of 16 and thus no gradient: it has 8
  prompts x 32.
- Breadth is the whole batch in one update, twice (arXiv 2508.13755, Sec. 3.2), of 64 prompts for 16 where the paper
  has 3072 for 128. It sees as many prompts as the others, so it has 50 updates for 400.
- DARS without breadth keeps the four updates of the others, where its paper has two of the whole batch.
- GRPO-N has the KL and entropy terms that its paper gives all methods (arXiv 2510.04028, App. C.2: 1e-3 and 1e-4).
  It is to be compared with `grpo_kl`, which has them as well.
- What the paper of A-GRAE compares has the loss of GRPO, W-REINFORCE too; PSR and NSR have the loss dapo.
"""

from dataclasses import replace

from ..trainer import RLVRConfig, RLVRTrainer
from .methods import Method


RATES = (5e-5, 1e-4, 2e-4)
# Where the lowest or the highest of them is the best, so that no method is held back by the edge of the rates
BEYOND = {RATES[0]: 2.5e-5, RATES[-1]: 4e-4}
EVERY_RATE = tuple(sorted((*RATES, *BEYOND.values())))
BASES = (0, 1, 2)
RECIPE = {
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 20,
    "prompts_per_batch": 16,
    "prompts_per_update": 4,
}
GRPO_LOSS = {"loss_type": "grpo", "epsilon_high": 0.2}
DR_GRPO_LOSS = {"loss_type": "dr_grpo", "epsilon_high": 0.2, "scale_rewards": "none"}
DEEP = {"num_generations": 32, "prompts_per_batch": 8, "prompts_per_update": 2}
BROAD = {"prompts_per_batch": 64, "prompts_per_update": 64, "num_iterations": 2}
TWO_STAGE = {"beta": 1e-3, "entropy_coef": 1e-4}
PASS_AT_8, PASS_AT_4, PASS_AT_1 = ({"name": "pass_at_k", "k": k} for k in (8, 4, 1))


def method(label: str, advantages: str | dict | None = None, **settings) -> Method:
    chosen = {} if advantages is None else {"advantages": advantages}
    return Method(label, RLVRTrainer, RLVRConfig, RECIPE | chosen | settings)


def dars(label: str, schedule: str = "hardness_weighted", advantages: str | dict | None = None, **settings) -> Method:
    """DARS with 8 to 32 completions a prompt, and Dr. GRPO's loss and advantages unless others are given."""
    end = settings.pop("max_generations_end", None)
    rollouts = {"name": "dars", "schedule": schedule, "max_generations": 32}
    rollouts |= {} if end is None else {"max_generations_end": end}
    loss = DR_GRPO_LOSS if advantages is None else {}
    return method(label, advantages, **loss, num_generations=8, rollouts=rollouts, **settings)


METHODS: dict[str, Method] = {
    "dapo": method("DAPO without dynamic sampling"),
    "grpo": method("GRPO", **GRPO_LOSS),
    "dr_grpo": method("Dr. GRPO", **DR_GRPO_LOSS),
    "pass_at_8": method("Pass@8", PASS_AT_8),
    "dars_hw": dars("DARS-HW"),
    "a_grae_half": method("A-GRAE, α = 0.5", {"name": "a_grae", "alpha": 0.5}, **GRPO_LOSS),
    "grpo_kl": method("GRPO with KL and entropy terms", **GRPO_LOSS, **TWO_STAGE),
    "grpo_n": method("GRPO-N", "negative_only", **GRPO_LOSS, **TWO_STAGE),
    "nsr": method("NSR", "nsr"),
    "pass_at_4": method("Pass@4", PASS_AT_4),
    "combination": method("combined Pass@8 and Pass@1", {"name": "combined_pass_at_k", "k": 8}),
    "dars_hw_breadth": dars("DARS-HW, breadth", **BROAD),
    "combination_dars_breadth": dars(
        "combined Pass@4 with DARS-HW, breadth", advantages={"name": "combined_pass_at_k", "k": 4}, **BROAD
    ),
    "pass_at_4_dars": dars("Pass@4 with DARS-HW", advantages=PASS_AT_4),
    "pass_at_8_then_1": method(
        "Pass@8, then Pass@1", {"name": "scheduled", "stages": [[0.0, PASS_AT_8], [0.5, PASS_AT_1]]}
    ),
    "dars_et": dars("DARS-ET", "equal_treatment"),
    "breadth_naive": method("Breadth-Naive (Dr. GRPO)", **DR_GRPO_LOSS, **BROAD),
    "depth_naive": method("Depth-Naive (Dr. GRPO, 32)", **DR_GRPO_LOSS, num_generations=32),
    "a_grae": method("A-GRAE, α = 1", {"name": "a_grae", "alpha": 1.0}, **GRPO_LOSS),
    "a_grae_shift": method("A-GRAE, shift alone", {"name": "a_grae", "suppression": False}, **GRPO_LOSS),
    "a_grae_suppression": method(
        "A-GRAE, suppression alone", {"name": "a_grae", "alpha": 1.0, "difficulty_shift": False}, **GRPO_LOSS
    ),
    "psr": method("PSR", "psr"),
    "w_reinforce": method("W-REINFORCE", "w_reinforce", **GRPO_LOSS),
    "pass_at_16": method("Pass@16", {"name": "pass_at_k", "k": 16}, **DEEP),
    "pass_at_8_bootstrap": method("Pass@8, bootstrap", PASS_AT_8 | {"method": "bootstrap"}),
    "dars_hw_annealed": dars("DARS-HW, cap 32 to 8", max_generations_end=8),
    "entropy": method("DAPO's loss, entropy bonus 0.003", entropy_coef=0.003),
    "reinforce_ada": method(
        "Reinforce-Ada style, balanced",
        num_generations=8,
        rollouts={"name": "reinforce_ada", "max_generations": 32, "round_size": 8, "positives": 4, "negatives": 4},
    ),
    "grpo_lead": method("GRPO-LEAD", "grpo_lead", **GRPO_LOSS),
    "pass_at_8_full": method("Pass@8, full sampling", PASS_AT_8 | {"method": "full_sampling"}),
    "without_easy": method(
        "DAPO's loss without easy problems", {"name": "without_easy", "base": "group_relative", "threshold": 0.6}
    ),
    "dars_et_breadth": dars("DARS-ET, breadth", "equal_treatment", **BROAD),
    "hard_focused": method("hard-focused", {"name": "difficulty_focused", "focus": "hard", "gamma": 0.5}, **GRPO_LOSS),
    "negative_dominant": method("negative-dominant", {"name": "dominant_side", "beta": 0.1}, **GRPO_LOSS),
    "positive_dominant": method("positive-dominant", {"name": "dominant_side", "beta": 10.0}, **GRPO_LOSS),
    "dapo_dynamic": method("DAPO with dynamic sampling", rollouts="dynamic_sampling"),
    "max_rl": method("MaxRL", "max_rl", **GRPO_LOSS),
    "pkpo": method("PKPO, k = 8", {"name": "pkpo", "k": 8}, **GRPO_LOSS),
    "rs_grpo": method("RS-GRPO", "rs_grpo", **GRPO_LOSS),
    "f_grpo": method("F-GRPO", "f_grpo", **GRPO_LOSS),
    "leave_one_out": method("RLOO", "leave_one_out", **GRPO_LOSS),
    "reinforce_plus_plus": method("REINFORCE++", "reinforce_plus_plus", **GRPO_LOSS),
    "unlikeliness": method("unlikeliness", "unlikeliness", **GRPO_LOSS),
    "uniqueness_aware": method("uniqueness-aware", "uniqueness_aware", **GRPO_LOSS),
    "entropy_shaped": method("entropy-shaped", "entropy_shaped", **GRPO_LOSS),
    "repo": method("REPO", "repo", **GRPO_LOSS),
}
METHODS["dapo_one_update"] = replace(
    METHODS["dapo"],
    label="DAPO's loss, one update a batch",
    settings=METHODS["dapo"].settings | {"prompts_per_update": 16},
)
# Which methods run on which tasks, and in which order: the main effects first, and the rest on mazes alone
MAIN = ("grpo", "dr_grpo", "dapo", "pass_at_8", "dars_hw")
ON_EVERY_TASK = tuple(METHODS)[:15]
