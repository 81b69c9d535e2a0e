"""The report of the comparison: `docs/results.md`, its figures and `docs/claims.md`, from the lines of the cells.

python benchmarks/comparison_report.py

Every number, verdict and interval is computed here from the files; nothing in the report is written by hand. Tables of
docs/methods and what README.md says of the methods come from here too, between two comments that name this file.
"""

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from comparison import BASES, RESULTS, beyond_the_edge, plan
from comparison_claims import (
    A_GRAE,
    ALL_TASKS,
    CLAIMS,
    DEPENDS,
    LIMITS,
    MARGIN,
    MISSING,
    NOT_REPRODUCED,
    OPPOSITE,
    OURS,
    REPRODUCED,
    Claim,
    Judgement,
    judge_all,
    row_of,
)
from comparison_figures import GAINS, HEADLINE, WIDE, draw_gains, draw_rates, rate_text

from rlvr_trl.testbed import TASKS
from rlvr_trl.testbed.cell_runner import read_folder
from rlvr_trl.testbed.cells import BASE, FULL_SIZE, STRONG_TARGET, Cell
from rlvr_trl.testbed.comparison_methods import BEYOND, EVERY_RATE, METHODS, ON_EVERY_TASK, RATES
from rlvr_trl.testbed.intervals import Estimate, average, false_discovery, shown
from rlvr_trl.testbed.outcomes import BASE_ROW, CHOSEN, CURVE, Outcomes, Row


ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- from benchmarks/comparison_report.py -->", "<!-- end -->"
# The rows on the pages of docs/methods; all at equal rollouts
METHOD_PAGES = {
    "grpo": "grpo dr_grpo dapo dapo_one_update entropy depth_naive breadth_naive",
    "pass_at_k": "dapo pass_at_4 pass_at_8 pass_at_16 pass_at_8_bootstrap pass_at_8_full pass_at_8_then_1",
    "implicit_rewards": "dapo pass_at_8 combination without_easy combination_dars_breadth",
    "dars": "dr_grpo dars_hw dars_et depth_naive dars_hw_breadth dars_et_breadth breadth_naive dars_hw_annealed "
    "pass_at_4_dars combination_dars_breadth",
    "reinforce_ada": "dapo reinforce_ada dars_et dars_hw",
    "a_grae": "grpo a_grae a_grae_half a_grae_shift a_grae_suppression hard_focused negative_dominant "
    "positive_dominant",
    "negative": "grpo_kl grpo_n dapo nsr psr grpo w_reinforce",
    "grpo_lead": "grpo grpo_lead",
}
WITH_EQ_12 = ("a_grae", "a_grae_half", "a_grae_shift")  # of A-GRAE


class Comparison:
    """The outcomes of every task, the verdicts on the claims, and the words for them."""

    def __init__(self, cells: Mapping[Cell, dict]):
        self.cells = cells
        self.tasks = {name: Outcomes(cells, name) for name in TASKS}
        self.strong = Outcomes(cells, "maze", strong=True)
        self.planned = plan(list(TASKS))
        self.missing = [cell for cell in self.planned if cell not in cells]
        self.at_edges = beyond_the_edge(self.planned, cells)
        self.judgements = judge_all(self.tasks, CLAIMS)

    def difference(self, task: str, name: str, metric: str, rate: float | None = None, to: str = BASE):
        """Row `name` minus row `to` on a task, at one rate or at the chosen ones."""
        return self.tasks[task].difference(row_of(name, rate), row_of(to, rate), metric)

    def over_tasks(self, name: str, metric: str, rate: float | None = None, to: str = BASE) -> Estimate | None:
        """The same, as the average over all tasks; `None` if one of them lacks it."""
        found = [self.difference(task, name, metric, rate, to) for task in self.tasks]
        return average([one for one in found if one is not None]) if all(found) else None


# --- text ---


def signed(found: Estimate | None, form: str = "+.3f", bases: int = len(BASES)) -> str:
    """The estimate, and from how many base models it is if that is fewer than `bases`."""
    if found is None:
        return ""
    return found.text(form) + ("" if found.runs >= bases else f" ({counted(found.runs, 'base')})")


def with_half_width(found: Estimate | None) -> str:
    if found is None:
        return ""
    low, high = found.interval()
    return f"{shown(found.mean, '.3f')} ±{shown((high - low) / 2, '.3f')}"


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def label(name: str) -> str:
    method, _, variant = name.partition(":")
    return "base model" if method == BASE else METHODS[method].label + (", equal rollouts" if variant else "")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: list[str]) -> str:
    return "none" if not names else " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def equal(names: Iterable[str]) -> list[str]:
    """Every method as a row at the rollouts of the others; what samples no more is the same without."""
    return [f"{name}:equal" for name in names]


# --- what stands first ---


def on_tasks(found: Mapping[str, Estimate | None], sign: int) -> str:
    """On which tasks the interval is above 0, or below it."""
    ends = {task: one.interval() for task, one in found.items() if one is not None}
    return listed([task for task, (low, high) in ends.items() if (low > 0 if sign > 0 else high < 0)])


def sentences(comparison: Comparison) -> list[str]:
    """What the comparison says, the weakest points first."""
    judged = [one for by_task in comparison.judgements.values() for name, one in by_task.items() if name in TASKS]
    judged = [one for one in judged if one.verdict != MISSING]
    verdicts = Counter(one.verdict for one in judged)
    order = (REPRODUCED, NOT_REPRODUCED, OPPOSITE, DEPENDS)
    changes = sum(one.verdict == DEPENDS and one.changes_sign for one in judged)
    found = listed([f"{verdicts[verdict]} {verdict}" for verdict in order])
    found = found.replace(NOT_REPRODUCED, f"{NOT_REPRODUCED} (no interval excludes the limit of the claim)")
    found = found.replace(DEPENDS, f"depend on the rate (in {changes} of these the sign changes)")
    claims = {one.claim for one in judged}
    count = f"{len(CLAIMS)}" if len(claims) == len(CLAIMS) else f"{len(claims)} of {len(CLAIMS)}"
    ours = sum(claim.where == OURS for claim in CLAIMS)
    lines = [
        f"**Not all is robust**: {count} claims, {ours} of them ours and the others of four papers, are "
        f"{counted(len(judged), 'comparison')} on four tasks: {found}. {surviving(comparison)} differences stay "
        "significant when the false discovery rate is held at 5 %."
    ]
    if sentence := rate_sentence(comparison):
        lines.append(sentence)
    for name, to in (("grpo", BASE), ("pass_at_8", "dapo"), ("dars_hw:equal", "dr_grpo")):
        lines += two_ends(comparison, name, to)
    return lines


def rate_sentence(comparison: Comparison) -> str | None:
    found = [comparison.tasks[task].difference(Row("grpo", RATES[-1]), Row("grpo", RATES[0]), WIDE) for task in TASKS]
    shifts = {task: one for task, one in zip(TASKS, found, strict=True) if one is not None}
    if not shifts:
        return None
    each = ", ".join(f"{task} {signed(one)}" for task, one in shifts.items())
    return (
        f"**The learning rate matters as much as the method**: GRPO at {rate_text(RATES[-1])} minus GRPO at "
        f"{rate_text(RATES[0])} at {WIDE}: {each}. So every comparison stands at equal rates too."
    )


def two_ends(comparison: Comparison, name: str, to: str) -> list[str]:
    lines = []
    ends = {
        metric: {task: comparison.difference(task, name, metric, to=to) for task in TASKS}
        for metric in ("pass@1", WIDE)
    }
    if any(one is not None for found in ends.values() for one in found.values()):
        each = "; ".join(
            f"{metric} is higher on {on_tasks(found, 1)}, lower on {on_tasks(found, -1)}"
            for metric, found in ends.items()
        )
        mean = comparison.over_tasks(name, WIDE, to=to)
        over = "" if mean is None else f" (over all tasks {signed(mean)} at {WIDE})"
        lines.append(f"**{label(name)} against {label(to)}**: {each}{over}.")
    return lines


def surviving(comparison: Comparison) -> int:
    return sum(passes for judged in passing(comparison).values() for passes in judged.values())


def passing(comparison: Comparison) -> dict[Claim, dict[str, bool]]:
    """For every comparison of a claim on a task whether it stays significant when the false discovery rate is 5 %."""
    tested = [
        (claim, name, one.p_value)
        for claim, by_task in comparison.judgements.items()
        for name, one in by_task.items()
        if name in TASKS and one.p_value is not None
    ]
    found: dict[Claim, dict[str, bool]] = {claim: {} for claim in CLAIMS}
    for (claim, name, _), passes in zip(tested, false_discovery([p for *_, p in tested]), strict=True):
        found[claim][name] = passes
    return found


# --- tables ---


def rates_table(comparison: Comparison) -> str:
    """The headline rows at every equal rate: the change from the base model."""
    rows = []
    for name in equal(HEADLINE):
        for metric in ("pass@1", WIDE):
            for task in TASKS:
                cells = [signed(comparison.difference(task, name, metric, rate)) for rate in EVERY_RATE]
                if any(cells):
                    rows.append([METHODS[row_of(name).method].label, metric, task, *cells])
    return markdown(["method", "minus base model", "task", *map(rate_text, EVERY_RATE)], rows)


def ranking(comparison: Comparison) -> list[tuple[str, Estimate]]:
    """
    The methods that all tasks have from all base models by the whole curve, minus the base model, over all tasks at
    equal rollouts.
    """
    found = {
        name: comparison.over_tasks(name, CURVE)
        for name in equal(ON_EVERY_TASK)
        if all(outcomes.common_bases(row_of(name)) == list(BASES) for outcomes in comparison.tasks.values())
    }
    return sorted(((name, one) for name, one in found.items() if one), key=lambda pair: -pair[1].mean)


def ranking_table(comparison: Comparison) -> str | None:
    """Which method is best on the whole curve over all tasks, and how clearly."""
    ranked = ranking(comparison)
    if not ranked:
        return None
    best, rows = ranked[0][0], []
    for name, found in ranked:
        minus_best = "" if name == best else signed(comparison.over_tasks(name, CURVE, to=best))
        worst = min(one.mean for task in TASKS if (one := comparison.difference(task, name, CURVE)))
        ends = [signed(comparison.over_tasks(name, metric)) for metric in ("pass@1", WIDE)]
        rows.append([METHODS[row_of(name).method].label, signed(found), minus_best, shown(worst, "+.3f"), *ends])
    header = [CURVE, "minus the first", "worst task", "pass@1", WIDE]
    table = markdown(["minus base model, mean of all tasks", *header], rows)
    return f"{table}\n\nThe first was chosen by the same test problems, so it is a little worse than it looks."


def task_table(comparison: Comparison, task: str, strong: bool = False) -> str:
    """All methods of a task at their chosen rates, and once more at equal rollouts where they sample more."""
    outcomes = comparison.strong if strong else comparison.tasks[task]
    rows = []
    for name in (BASE, *METHODS):
        for row_name in [name] if name == BASE else [name, f"{name}:equal"]:
            row = row_of(row_name)
            bases = outcomes.common_bases(row)
            cells = [outcomes.cell(row, base) for base in bases]
            samples_more = any("equal" in (outcomes.cell(row._replace(equal=False), base) or {}) for base in bases)
            if not bases or (row.equal and not samples_more):
                continue
            means = [with_half_width(outcomes.mean(row, f"pass@{k}")) for k in (1, 4, 8, 32, 64)]
            entropy = outcomes.mean(row, "token_entropy")
            chosen = [outcomes.chosen_rate(row.method, base, row.equal) for base in bases]
            rates = ", ".join(f"{rate_text(rate)}" for rate in sorted({rate for rate in chosen if rate is not None}))
            cost = "" if name == BASE else shown(sum(cell["completions"] for cell in cells) / len(cells) / 1e3, ".1f")
            text = "" if entropy is None else shown(entropy.mean, ".2f")
            rows.append([label(row_name), str(len(bases)), *means, text, cost, rates])
    header = ["method", "bases", *(f"@{k}" for k in (1, 4, 8, 32, 64)), "token entropy", "thousand rollouts", "rates"]
    return markdown(header, rows)


def edges(comparison: Comparison) -> str:
    """How often the lowest and the highest rate were chosen."""
    chosen = Counter(
        outcomes.chosen_rate(name, base, True)
        for outcomes in comparison.tasks.values()
        for name in METHODS
        for base in outcomes.common_bases(Row(name, None, True))
    )
    each = ", ".join(f"{rate_text(rate)} {counted(chosen[rate], 'time')}" for rate in EVERY_RATE)
    return f"Chosen over all methods, tasks and base models: {each}."


def crossing(comparison: Comparison) -> str:
    """Whether the accuracy of the training completions passes .5, where A-GRAE turns to hard prompts."""
    rows = []
    for rate in RATES:
        cell = comparison.strong.cell(Row("a_grae_half", rate), 10)
        if cell is not None:
            rewards = cell["log"]["reward"]
            rows.append([rate_text(rate), *(shown(value, ".2f") for value in (rewards[0], max(rewards), rewards[-1]))])
    return markdown(["rate", "first twentieth", "highest", "last"], rows) if rows else "Not run yet."


# --- claims ---


def claims_summary(comparison: Comparison) -> str:
    """Every claim and the verdict on each task."""
    rows = []
    for number, claim in enumerate(CLAIMS, start=1):
        by_task = comparison.judgements[claim]
        verdicts = [f"{by_task[name].verdict}" if name in by_task else "" for name in (*TASKS, ALL_TASKS)]
        rows.append([f"[{number}](claims.md#claim-{number})", claim.paper.split(",")[0], claim.sentence, *verdicts])
    return markdown(["", "paper", "claim", *TASKS, ALL_TASKS], rows)


def claims_page(comparison: Comparison) -> str:
    """One section a claim, with the differences at the chosen rates and at equal ones."""
    passes = passing(comparison)
    tested = sum(len(by_task) for by_task in passes.values())
    sections = [
        "# The claims of four papers, one by one",
        "Verdicts as in [the results](results.md#claims). The third column of a table is the difference at the rates "
        "chosen for each method, over as many base models as the second says; then it stands at equal rates, with "
        "95 % intervals. The last column says whether the "
        f"difference at the chosen rates stays significant when the false discovery rate of all {tested} of them is "
        f"held at 5 % (Benjamini and Hochberg). Tested against 0; *not lower* and *not higher* against ∓{MARGIN:g}.",
    ]
    paper = None
    for number, claim in enumerate(CLAIMS, start=1):
        if claim.paper != paper:
            paper = claim.paper
            sections += [f"## {paper}", LIMITS[paper]]
            if paper == A_GRAE:
                sections.append(shift_of_difficulty(comparison))
        rows_of_claim = f"*{label(claim.a)}* minus *{label(claim.b)}*, {claim.metric.replace('_', ' ')}"
        sections += [
            f"### Claim {number}",
            f"{claim.sentence}. Source: {claim.where}. {rows_of_claim}: {claim.expected}.",
        ]
        rows = [
            claim_row(name, bases_of(comparison, claim, name), one, passes[claim].get(name))
            for name, one in comparison.judgements[claim].items()
        ]
        sections.append(
            markdown(["task", "bases", "chosen rates", *map(rate_text, EVERY_RATE), "verdict", "after FDR"], rows)
            if rows
            else "Not run yet."
        )
    return "\n\n".join(sections) + "\n"


def bases_of(comparison: Comparison, claim: Claim, task: str) -> str:
    """How many base models the difference at the chosen rates rests on."""
    return "" if task == ALL_TASKS else str(len(comparison.tasks[task].common_bases(*claim.rows(CHOSEN))))


def shift_of_difficulty(comparison: Comparison) -> str:
    """How far Eq. 12 of A-GRAE gets, which weighs hard prompts more from a mean reward of 0.5 on."""
    rewards = [
        reward
        for outcomes in comparison.tasks.values()
        for cell, saved in outcomes.cells.items()
        if cell.method in WITH_EQ_12
        for reward in saved["log"]["reward"]
    ]
    if not rewards:
        return "No run of A-GRAE has ended yet."
    low, high = (shown(value, ".2f") for value in (min(rewards), max(rewards)))
    begins = f"In the runs of A-GRAE so far the mean reward, over five batches at a time, is from {low} to {high}. "
    if max(rewards) < 0.5:
        return begins + (
            "So its Eq. 12 weighs easy prompts more, and the turn to hard ones, which the paper is about (§5.1), "
            "happens in single batches at most: the verdicts are on the first half of the method. "
            "[A base model that is warmed up further](results.md#a-base-model-that-is-warmed-up-further) is for the "
            "second."
        )
    return begins + "Its Eq. 12 weighs hard prompts more where it is above 0.5."


def claim_row(name: str, bases: str, one: Judgement, passes: bool | None) -> list[str]:
    form = "+,.0f" if one.claim.metric == "completions" else "+.3f"
    cells = [signed(one.chosen, form), *(signed(one.equal.get(rate), form) for rate in EVERY_RATE)]
    return [name, bases, *cells, one.verdict, "" if passes is None else "yes" if passes else "no"]


# --- the page ---


def introduction(comparison: Comparison) -> str:
    size, saved = FULL_SIZE, [one for one in comparison.cells.values() if "test" in one]
    versions = {tuple(sorted(one["versions"].items())) for one in saved}
    text = ["; ".join(f"{name} {version}" for name, version in one) for one in sorted(versions)]
    hours = shown(sum(one["seconds"] for one in saved) / 3600, ".1f")
    return (
        f"{counted(len(METHODS), 'method')} on mazes and {len(ON_EVERY_TASK)} of them on [three other "
        f"tasks](testbed.md), {len(RATES)} learning rates, {len(BASES)} base models of 160,000 parameters each. "
        f"{size.batches} batches of 16 prompts × 16 completions in four updates, {size.test_problems} test problems × "
        f"{size.samples} samples, temperature 1. The rate stays constant after 20 updates; where the "
        f"lowest or the highest is the best of a method, {rate_text(BEYOND[RATES[0]])} or "
        f"{rate_text(BEYOND[RATES[-1]])} is tried too{edges_left(comparison)}. Breadth has a quarter as many batches, "
        f"of 64 prompts in two updates; DARS has 8 to 32 completions a prompt, and what samples more than 256 a batch "
        f"is also tested at equal rollouts. A method's rate is chosen for each base "
        f"model by the whole curve (the mean of pass@1, 2, 4, … 32) on validation problems of the "
        f"*other* base models. Intervals are 95 %, over problems and base models together, with Student's t for so "
        f"few base models. {counted(len(saved), 'cell')} took {hours} hours of one core each ({' | '.join(text)})."
    )


def edges_left(comparison: Comparison) -> str:
    """How many cells beyond the edge of the rates are still to be run, once all others of their methods are there."""
    left = sum(cell not in comparison.cells for cell in comparison.at_edges)
    return f" ({counted(left, 'cell')} of it still to be run, which are not counted below)" if left else ""


def absent(comparison: Comparison) -> str:
    parts = []
    if comparison.missing:
        names = Counter(f"{cell.task} {cell.method}" for cell in comparison.missing)
        parts.append(
            f"**Not run yet**: {len(comparison.missing)} of {len(comparison.planned)} cells "
            f"({listed([f'{name} ({count})' for name, count in names.items()])}). Until then some rows "
            "rest on fewer base models, which the tables say."
        )
    failed = [f"{cell}: {error}" for one in comparison.tasks.values() for cell, error in one.failed.items()]
    parts += [f"**Failed**: {text}" for text in failed]
    return "\n\n".join(parts) or f"All {len(comparison.planned)} cells were run, none failed."


def page(comparison: Comparison, images: Mapping[str, str]) -> str:
    tables = [part for task in TASKS for part in (f"### {task}", task_table(comparison, task))]
    best = ranking_table(comparison)
    sections = [
        "# What holds on four tasks",
        "\n".join(f"{number}. {line}" for number, line in enumerate(sentences(comparison), start=1)),
        *(f"![{about}](images/{name})" for name, about in images.items()),
        introduction(comparison),
        absent(comparison),
        "Made by `python benchmarks/comparison_report.py` from the lines in `benchmarks/results/comparison`, which "
        "`make benchmark` wrote; [how it is done](../benchmarks/README.md#comparisonpy).",
        *(["## Which is best on all tasks", best] if best else []),
        "## At equal learning rates",
        "At the rollouts of the others.",
        rates_table(comparison),
        "## Claims",
        f"{about_verdicts()}",
        claims_summary(comparison),
        "## All methods",
        f"At the rates chosen for them; ± is half of a 95 % interval. {edges(comparison)}",
        *tables,
        "## A base model that is warmed up further",
        "Eq. 12 of A-GRAE weighs hard prompts more than easy ones where the mean reward of a batch is above 0.5. This "
        f"base model is warmed up to a pass@1 of at least {STRONG_TARGET:g}, so that training can pass that. No claim "
        "is judged on it. Mean reward of the training completions with A-GRAE, α = 0.5:",
        crossing(comparison),
        strong_table(comparison),
    ]
    return "\n\n".join(sections) + "\n"


def strong_table(comparison: Comparison) -> str:
    """At equal rates alone, as there is one base model and so none to choose a rate on."""
    rows = []
    for name in METHODS:
        for metric in ("pass@1", WIDE, CURVE):
            found = [comparison.strong.difference(Row(name, rate), BASE_ROW, metric) for rate in RATES]
            cells = [signed(one, bases=1) for one in found]
            if any(cells):
                rows.append([METHODS[name].label, metric, *cells])
    return markdown(["method", "minus base model", *map(rate_text, RATES)], rows)


def about_verdicts() -> str:
    return (
        "*Reproduced*: the interval of the difference is on the side that the claim expects at the chosen rates and "
        "at one equal rate at least, and at no equal rate the difference leans to the other side. *Opposite*: the "
        "same on the other side. *Not reproduced*: no interval excludes 0, so the runs do not decide. *Depends on "
        "the learning rate*: anything else, so the sign changes or some intervals exclude 0 and others do not. At the "
        "chosen rates and at an equal one it may be the same runs that are compared. For *not lower* and *not higher* "
        f"the limit is ∓{MARGIN:g} in place of 0. [One by one, with "
        "figures, sources and what differs from the papers](claims.md)."
    )


def method_table(comparison: Comparison, names: list[str]) -> str:
    """The rows of a page of docs/methods: pass@1 and pass@32 minus the base model, on every task."""
    rows = []
    for name in equal(names):
        for metric in ("pass@1", WIDE):
            cells = [signed(comparison.difference(task, name, metric)) for task in TASKS]
            if any(cells):
                rows.append([METHODS[row_of(name).method].label, metric, *cells])
    return markdown(["minus base model", "", *TASKS], rows)


def fill_in_tables(root: Path, comparison: Comparison) -> None:
    """Puts the tables of the pages of the methods into their places."""
    about = (
        "At equal rollouts and the learning rates chosen for each, with 95 % intervals; at equal rates and what else "
        "was measured: [results](../results.md). Made by `python benchmarks/comparison_report.py`."
    )
    for name, rows in METHOD_PAGES.items():
        fill_in_place(root / "docs/methods" / f"{name}.md", f"{method_table(comparison, rows.split())}\n\n{about}")
    image = f"![{GAINS}]({{}}images/results_gains.png)"
    lines = "\n".join(f"- {line}" for line in [*sentences(comparison), *progress(comparison)])
    headline = method_table(comparison, list(HEADLINE))
    fill_in_place(root / "docs/methods/README.md", "\n\n".join([image.format("../"), lines, headline, about]))
    fill_in_place(root / "README.md", "\n\n".join([image.format("docs/"), lines]))


def progress(comparison: Comparison) -> list[str]:
    """Nothing, once all cells are there."""
    done = len(comparison.planned) - len(comparison.missing)
    return [f"This rests on {done} of {len(comparison.planned)} runs so far."] if comparison.missing else []


def fill_in_place(path: Path, block: str, begin: str = BEGIN) -> None:
    """
    Writes the block between the two comments of a page, of which the first is `begin`.

    Raises:
        `ValueError`: The comments are not there.
    """
    text = path.read_text(encoding="utf-8")
    whole = f"{begin}\n{block}\n{END}"
    text, places = re.subn(f"{re.escape(begin)}.*{re.escape(END)}", lambda _: whole, text, flags=re.DOTALL)
    if not places:
        raise ValueError(f"'{path}' has no place for its table: no '{begin}' followed by '{END}'.")
    path.write_text(text, encoding="utf-8")


def make_report(results: Path, docs: Path) -> Comparison:
    """
    Writes `results.md`, `claims.md` and the figures into the folder `docs`.

    Raises:
        `ValueError`: No cell has a test.
    """
    comparison = Comparison(read_folder(results))
    if not any(outcomes.cells for outcomes in comparison.tasks.values()):
        raise ValueError(f"'{results}' holds no finished cell. Run comparison.py first.")
    (docs / "images").mkdir(parents=True, exist_ok=True)
    images = {}
    for name, draw in {"results_gains.png": draw_gains, "results_rates.png": draw_rates}.items():
        images[name] = draw(comparison.tasks, docs / "images" / name)
    (docs / "results.md").write_text(page(comparison, images), encoding="utf-8")
    (docs / "claims.md").write_text(claims_page(comparison), encoding="utf-8")
    return comparison


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository whose pages are written")
    args = parser.parse_args()
    try:
        fill_in_tables(args.root, make_report(args.results, args.root / "docs"))
    except ValueError as error:
        raise SystemExit(str(error)) from None
    print(f"Wrote {args.root / 'docs' / 'results.md'} and claims.md, and the tables of docs/methods.")


if __name__ == "__main__":
    main()
