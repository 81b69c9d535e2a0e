"""
Which prompts, and how many completions of each: methods at equal tokens sampled and at one learning rate, on mazes.

python benchmarks/prompt_allocation.py --jobs 2     # everything; stop and restart it as you like
python benchmarks/prompt_allocation.py --report     # the tables of the page, from the cells that are there

`repeated`: a training set of 640 mazes, gone through again and again, so that a memory of prompts has something to
remember. `fresh`: every maze is new, and the length of the shortest path is all that a memory can go by. `fewer`: the
first again with 80 % of the tokens, for methods that claim to need fewer. All have the base models and the test of
`benchmarks/comparison.py`, the loss and the advantages of Dr. GRPO unless a label says otherwise, and train until the
tokens of all completions that were sampled, also of those that were thrown away, reach the same number.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from rlvr_trl.testbed.cell_runner import Store, run_cells
from rlvr_trl.testbed.cells import BASE, Cell, Size
from rlvr_trl.testbed.comparison_methods import BASES, DR_GRPO_LOSS, GRPO_LOSS, dars, method
from rlvr_trl.testbed.intervals import shown
from rlvr_trl.testbed.methods import Method
from rlvr_trl.testbed.outcomes import Outcomes, Row


RESULTS = Path(__file__).resolve().parent / "results" / "prompt_allocation"
KEPT_BASES = RESULTS.with_name("comparison") / "bases"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "prompt_choice.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
RATE, EPOCH = 1e-4, 640 // 16
TOKENS = 420_000  # GRPO: some 230 batches of 256 completions
LONG = 1000  # batches, more than any method gets
REPEATED = Size(batches=LONG, training_problems=640, max_tokens=TOKENS)
FEWER = replace(REPEATED, max_tokens=TOKENS * 4 // 5)
FRESH = Size(batches=LONG, training_problems=20_000, max_tokens=TOKENS)
USE_HISTORY = ("predicted_dars", "predicted_dars_easy", "knapsack", "target_accuracy")
PREDICTED = ("predicted_dars", "predicted_dars_easy")


def allocated(
    label: str, name: str, num_generations: int = 16, *, advantages: str | None = None, **settings
) -> Method:
    rollouts = {"name": name} | settings
    return method(label, advantages, num_generations=num_generations, rollouts=rollouts, **DR_GRPO_LOSS)


METHODS = {
    "grpo": method("GRPO", **GRPO_LOSS),
    "dr_grpo": method("Dr. GRPO", **DR_GRPO_LOSS),
    "dapo": method("DAPO without dynamic sampling"),
    "dars_hw": dars("DARS-HW, 8 to 32"),
    "dapo_dynamic": method("DAPO", rollouts="dynamic_sampling"),
    "dynamic": allocated("dynamic sampling", "dynamic_sampling"),
    "predicted_dars": allocated("predicted DARS-HW, 8 to 32", "predicted_dars", 8),
    "predicted_dars_easy": allocated(
        "predicted DARS-HW, easy prompts 4", "predicted_dars", 8, easy=0.6, easy_generations=4
    ),
    "knapsack": allocated("knapsack, 2 to 64", "knapsack", max_generations=64),
    "variance_optimal": allocated("variance-optimal, 3 to 64", "variance_optimal", max_generations=64),
    # as its page has it: the gradient whose variance it lowers is a mean over prompts
    "variance_optimal_mean": allocated(
        "variance-optimal, 3 to 64, prompts weigh the same",
        "variance_optimal",
        advantages="per_prompt_mean",
        max_generations=64,
    ),
    "skip_solved": method("skip solved", **DR_GRPO_LOSS, selection={"name": "skip_solved", "threshold": 0.8}),
    "difficulty_pool": method("difficulty pool", **DR_GRPO_LOSS, selection="difficulty_pool"),
    "target_accuracy": method("target accuracy 1/2", **DR_GRPO_LOSS, selection="target_accuracy"),
}
# With fresh prompts, what is remembered is remembered of the length of the shortest path
BY_LENGTH = {"prompt_history": {"pools": "path_length"}}
POOLED = {name: replace(METHODS[name], settings=METHODS[name].settings | BY_LENGTH) for name in USE_HISTORY}
AT_80 = {
    f"{name}_at_80": replace(METHODS[name], label=f"{METHODS[name].label}, 80 % of the tokens") for name in PREDICTED
}
# What trains how long, under the folder of the results
PLAN = {
    "repeated": [(REPEATED, METHODS), (FEWER, AT_80)],
    "fresh": [(FRESH, {name: METHODS[name] for name in ("grpo", "dr_grpo", "dars_hw", "dynamic")} | POOLED)],
}


def cells_of(methods: Iterable[str], bases: Sequence[int]) -> list[Cell]:
    """The base models, then all methods from one of them before the next."""
    base_models = [Cell("maze", BASE, 0.0, base) for base in bases]
    return base_models + [Cell("maze", name, RATE, base) for base, name in product(bases, methods)]


def groups_trained_on(saved: dict) -> tuple[int, int]:
    """Over a run, the prompts that were trained on, and those of them with right and with wrong completions."""
    logged = {name: np.array(values, dtype=float) for name, values in saved["of_batches"].items()}
    kept = np.full(saved["batches"], 16.0)
    if "rollouts/prompts_sampled" in logged:
        kept = np.round(logged["rollouts/prompts_sampled"] * (1 - logged["rollouts/frac_dropped"]))
    mixed = np.round(kept * (1 - logged["groups/frac_all_wrong"] - logged["groups/frac_all_right"]))
    return int(kept.sum()), int(mixed.sum())


def figures(runs: Sequence[dict]) -> list[str]:
    """Columns of a table about the runs of a method, one from each base model."""
    kept, mixed = np.array([groups_trained_on(saved) for saved in runs]).T
    batches, completions, tokens = np.array(
        [(saved["batches"], saved["completions"], saved["tokens_sampled"]) for saved in runs]
    ).T
    rounds = [saved["of_batches"].get("rollouts/rounds", [1.0] * saved["batches"]) for saved in runs]
    one_round = np.mean([np.mean(np.array(each[EPOCH:]) == 1) for each in rounds])
    return [
        shown(batches.mean(), ".0f"),
        shown(completions.mean(), ",.0f"),
        shown((completions / kept).mean(), ".1f"),
        shown((mixed / kept).mean(), ".3f"),
        shown((mixed / tokens * 1e6).mean(), ",.0f"),
        f"{shown(100 * one_round, '.0f')} %",
    ]


def table(setting: str, outcomes: Outcomes) -> list[str]:
    """The rows of a setting as Markdown."""
    lines = [
        "| method | base models | batches | completions | for each prompt trained on | mixed groups "
        "| per million tokens | one round | pass@1 | pass@32 | pass@32 − Dr. GRPO's | pass@32 − DARS-HW's |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, method_of in {name: one for _, methods in PLAN[setting] for name, one in methods.items()}.items():
        row = Row(name, RATE)
        runs = [saved for base in outcomes.common_bases(row) if (saved := outcomes.cell(row, base))]
        if not runs:
            continue
        means = [outcomes.mean(row, metric) for metric in ("pass@1", "pass@32")]
        others = [outcomes.difference(row, Row(other, RATE), "pass@32") for other in ("dr_grpo", "dars_hw")]
        columns = figures(runs) + [shown(mean.mean, ".3f") for mean in means if mean]
        columns += ["" if other is None or other.variance == 0 else other.text() for other in others]
        lines.append(f"| {method_of.label} | {len(runs)} | " + " | ".join(columns) + " |")
    return lines


def report(page: Path = PAGE) -> None:
    """Writes the tables into the page."""
    parts = [BEGIN]
    for setting, title in (("repeated", "640 mazes, gone through again and again"), ("fresh", "Every maze new")):
        outcomes = Outcomes(Store(RESULTS / setting).cells, "maze")
        rows = table(setting, outcomes)
        parts += ["", f"**{title}**", "", *rows] if len(rows) > 2 else ["", f"**{title}**: not run yet."]
    text = page.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    page.write_text(before + "\n".join([*parts, "", END]) + rest.split(END)[1], encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help=", ".join([*METHODS, *AT_80]))
    parser.add_argument("--bases", nargs="+", type=int, default=list(BASES))
    parser.add_argument("--jobs", type=int, default=2, help="processes of one thread")
    parser.add_argument("--retry", action="store_true", help="run failed cells again")
    parser.add_argument("--work", type=Path, default=Path("runs/comparison"), help="where base models are unpacked")
    parser.add_argument("--report", action="store_true", help="write the tables of the page, and run nothing")
    args = parser.parse_args()
    if args.report:
        return report()
    for setting, parts in PLAN.items():
        for size, methods in parts:
            cells = cells_of([name for name in methods if args.only is None or name in args.only], args.bases)
            store = Store(RESULTS / setting)
            run_cells(cells, methods, store, KEPT_BASES, args.work, size, jobs=args.jobs, retry=args.retry)


if __name__ == "__main__":
    main()
