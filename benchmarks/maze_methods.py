"""Every method of the maze table, by name: those of the demo, and the others in the same form.

All share the recipe of `rlvr_trl.testbed.methods`: one update on 16 prompts x 16 completions, loss dapo, no KL. A
method changes only what it says here, and the learning rate, which is searched.

- With one update a batch nothing is off-policy, so clipping never acts and GSPO equals GRPO. `grpo_2`, `gspo` and
  `gspo_n` therefore make two updates on each batch, and are to be compared with each other.
- k = 16 needs more than 16 completions a prompt, as 16 have only one subset of 16 and thus no gradient. These rows,
  and `dapo_32` for comparison, have 8 prompts x 32.
- Breadth is 64 prompts and two updates a batch, as in its paper, at up to twice the learning rate of the others.
"""

from dataclasses import replace

from rlvr_trl import RLVRConfig, RLVRTrainer
from rlvr_trl.rewards import NoisyReward, maze_reward
from rlvr_trl.testbed.methods import METHODS, NUM_GENERATIONS, PROMPTS_PER_STEP, RECIPE, Method


GRPO_LOSS = {"loss_type": "grpo", "epsilon_high": 0.2}
DR_GRPO_LOSS = {"loss_type": "dr_grpo", "epsilon_high": 0.2, "scale_rewards": "none"}
DEEP = {"num_generations": 32, "prompts_per_batch": 8}
BROAD = {"prompts_per_batch": 64, "num_iterations": 2, "learning_rate": 2 * RECIPE["learning_rate"]}
BASES = {
    "grpo": ("GRPO", GRPO_LOSS),
    "dapo": ("DAPO", {}),
    "dr_grpo": ("Dr. GRPO", DR_GRPO_LOSS),
}


def rlvr(label: str, advantages: str | dict | None = None, rewards: tuple | None = None, **settings) -> Method:
    settings = settings if advantages is None else {"advantages": advantages} | settings
    return Method(label, RLVRTrainer, RLVRConfig, settings, rewards)


def changed(name: str, label: str, **settings) -> Method:
    """A method of the demo with other settings."""
    return replace(METHODS[name], label=label, settings=METHODS[name].settings | settings)


def pass_at_k() -> dict[str, Method]:
    ways = {"": "analytical", "_bootstrap": "bootstrap", "_full": "full_sampling"}
    rows = {}
    for k in (8, 4, 16):
        for suffix, way in ways.items():
            label = f"Pass@{k}" if not suffix else f"Pass@{k}, {way.replace('_', ' ')}"
            rows[f"pass_at_{k}{suffix}"] = changed("pass_at_k", label, k=k, method=way, **DEEP if k == 16 else {})
    return rows


def a_grae(base: str) -> dict[str, Method]:
    label, settings = BASES[base]
    halves = {"": "A-GRAE", "_shift": "A-GRAE, shift alone", "_suppression": "A-GRAE, suppression alone"}
    without = {"": {}, "_shift": {"suppression": False}, "_suppression": {"difficulty_shift": False}}
    return {
        f"a_grae{half}_{base}": changed("a_grae", f"{name} ({label})", **settings, **without[half])
        for half, name in halves.items()
    }


def two_updates(label: str, level: str, advantages: str | None = None) -> Method:
    return rlvr(label, advantages, **GRPO_LOSS, num_iterations=2, importance_sampling_level=level)


def noise(percent: int) -> Method:
    # The reward without noise is logged and decides what is correct, but is not trained on
    rewards = (NoisyReward(maze_reward, percent / 100), maze_reward)
    weights = {"reward_weights": [1.0, 0.0], "correctness_reward": "maze_reward"}
    return rlvr(f"DAPO, noise {percent} %", rewards=rewards, **weights)


def taking_turns(label: str, *advantages: str | dict) -> Method:
    stages = [[turn / len(advantages), estimator] for turn, estimator in enumerate(advantages)]
    return rlvr(label, {"name": "scheduled", "stages": stages})


PASS_AT_8, PASS_AT_4, PASS_AT_1 = ({"name": "pass_at_k", "k": k} for k in (8, 4, 1))

# In the order in which they are run: what most claims need comes first
TABLE: dict[str, Method] = {
    "dapo": replace(METHODS["grpo"], label="DAPO"),
    "grpo": rlvr("GRPO", **GRPO_LOSS),
    "dr_grpo": rlvr("Dr. GRPO", **DR_GRPO_LOSS),
    "pass_at_8": pass_at_k()["pass_at_8"],
    "dars_hw": replace(METHODS["dars"], label="DARS-HW"),
    "dars_et": changed("dars", "DARS-ET", schedule="equal_treatment"),
    "depth_naive": rlvr("Depth-Naive (Dr. GRPO, 32)", **DR_GRPO_LOSS, prompts_per_batch=16, num_generations=32),
    "breadth_naive": rlvr("Breadth-Naive (Dr. GRPO)", **DR_GRPO_LOSS, **BROAD),
    "dars_hw_breadth": changed("dars", "DARS-HW, breadth", **BROAD),
    **a_grae("grpo"),
    "grpo_n": rlvr("GRPO-N", "negative_only", **GRPO_LOSS),
    "nsr": METHODS["nsr"],
    "psr": rlvr("PSR", "psr"),
    "w_reinforce": rlvr("W-REINFORCE", "w_reinforce"),
    "pass_at_8_then_1": taking_turns("Pass@8, then Pass@1", PASS_AT_8, PASS_AT_1),
    "pass_at_8_then_1_twice": taking_turns("Pass@8, Pass@1, twice", *(PASS_AT_8, PASS_AT_1) * 2),
    **pass_at_k(),
    "dapo_32": rlvr("DAPO, 8 prompts x 32", **DEEP),
    "negative_dominant": rlvr("negative-dominant", {"name": "dominant_side", "beta": 0.1}, **GRPO_LOSS),
    "positive_dominant": rlvr("positive-dominant", {"name": "dominant_side", "beta": 10.0}, **GRPO_LOSS),
    "hard_focused": rlvr("hard-focused", {"name": "difficulty_focused", "focus": "hard"}, **GRPO_LOSS),
    "easy_focused": rlvr("easy-focused", {"name": "difficulty_focused", "focus": "easy"}, **GRPO_LOSS),
    "exceeding": rlvr("exceeding Pass@8", {"name": "exceeding_pass_at_k", "k": 8}),
    "combination": rlvr("combined Pass@8 and Pass@1", {"name": "combined_pass_at_k", "k": 8}),
    "adaptive": rlvr("adaptive Pass@8", {"name": "adaptive_pass_at_k", "k": 8}),
    "without_easy": rlvr("DAPO without easy", {"name": "without_easy", "base": "group_relative"}),
    **{f"noise_{percent}": noise(percent) for percent in (10, 30, 50)},
    **{f"entropy_{coef}": rlvr(f"DAPO, entropy bonus {coef}", entropy_coef=coef) for coef in (0.001, 0.003, 0.005)},
    "pass_at_4_dars": changed("dars", "Pass@4 with DARS-HW", advantages=PASS_AT_4),
    "a_grae_pass_at_4_dars": changed(
        "dars", "A-GRAE over Pass@4 with DARS-HW", advantages={"name": "a_grae", "base": PASS_AT_4}
    ),
    "combination_dars_breadth": changed(
        "dars", "combined Pass@4 with DARS-HW, breadth", advantages={"name": "combined_pass_at_k", "k": 4}, **BROAD
    ),
    "nsr_then_dapo": taking_turns("NSR, then DAPO", "nsr", "group_relative"),
    "dars_et_breadth": changed("dars", "DARS-ET, breadth", schedule="equal_treatment", **BROAD),
    "dars_hw_annealed": changed("dars", "DARS-HW, cap 32 to 8", max_generations_end=8),
    "dars_et_annealed": changed("dars", "DARS-ET, cap 32 to 8", schedule="equal_treatment", max_generations_end=8),
    "reinforce_ada": rlvr(
        "Reinforce-Ada style, balanced",
        num_generations=8,
        prompts_per_batch=16,
        rollouts={"name": "reinforce_ada", "max_generations": 32, "round_size": 8, "positives": 4, "negatives": 4},
    ),
    "reinforce_ada_positive": rlvr(
        "Reinforce-Ada style, positive",
        num_generations=8,
        prompts_per_batch=16,
        rollouts={"name": "reinforce_ada", "max_generations": 32, "round_size": 8},
    ),
    **a_grae("dapo"),
    **a_grae("dr_grpo"),
    "grpo_2": two_updates("GRPO, two updates a batch", "token"),
    "gspo": two_updates("GSPO, two updates a batch", "sequence"),
    "gspo_n": two_updates("GSPO-N, two updates a batch", "sequence", "negative_only"),
    "grpo_lead": rlvr("GRPO-LEAD", "grpo_lead", **GRPO_LOSS),
}

# On the other sizes, at the learning rates of the first
SELECTION = (
    "dapo",
    "grpo",
    "dr_grpo",
    "pass_at_8",
    "dars_hw",
    "depth_naive",
    "breadth_naive",
    "dars_hw_breadth",
    "combination_dars_breadth",
    "a_grae_grpo",
    "grpo_n",
    "nsr",
    "pass_at_8_then_1",
)
SMOKE = ("dapo", "pass_at_8", "dars_hw")


def samples_more(method: Method) -> bool:
    """Whether a method may sample more completions than the others, so that it has a second row at equal rollouts."""
    adaptive = "rollouts" in method.settings or "max_generations" in method.settings
    batch = method.prompts_per_batch * method.recipe["num_generations"]
    return adaptive or (method.prompts_per_batch <= PROMPTS_PER_STEP and batch > PROMPTS_PER_STEP * NUM_GENERATIONS)
