"""The report of the maze table: `docs/results.md` and its figures, from the JSON files that `maze_table.py` wrote.

python benchmarks/maze_report.py

Every number, verdict and interval is computed here from the files; nothing in the report is written by hand. Tables of
docs/methods come from here too, between two comments that name this file.
"""

import argparse
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
from comparison_report import fill_in_place, markdown
from maze_claims import CLAIMS, MARGIN, MISSING, Claim, verdict
from maze_figures import HEADLINE, figures
from maze_methods import TABLE
from maze_plan import BASE, RATE_FACTORS, RESULTS, SCALES, SEARCH_BASE
from maze_results import CURVE, Results, at_equal_rollouts, label, ordered, present, value_of
from maze_statistics import mean_and_interval

from rlvr_trl.testbed.intervals import settle, shown


ROOT = Path(__file__).resolve().parents[1]
BEGIN = "<!-- from benchmarks/maze_report.py -->"
HEADLINE_SIZE = "4x4"
# The rows on the pages of docs/methods, after the base model and DAPO; all at equal rollouts
METHOD_PAGES = {
    "grpo": "grpo dr_grpo grpo_2 gspo depth_naive:equal breadth_naive",
    "pass_at_k": "pass_at_4 pass_at_8 pass_at_8_bootstrap pass_at_8_full dapo_32 pass_at_16 pass_at_8_then_1 "
    "pass_at_8_then_1_twice",
    "implicit_rewards": "pass_at_8 exceeding combination adaptive without_easy combination_dars_breadth:equal",
    "dars": "dr_grpo dars_hw:equal dars_et:equal depth_naive:equal dars_hw_breadth:equal dars_et_breadth:equal "
    "breadth_naive dars_hw_annealed:equal dars_et_annealed:equal pass_at_4 pass_at_4_dars:equal "
    "combination_dars_breadth:equal",
    "reinforce_ada": "reinforce_ada:equal reinforce_ada_positive:equal dars_et:equal dars_hw:equal",
    "a_grae": "grpo a_grae_grpo a_grae_shift_grpo a_grae_suppression_grpo a_grae_dapo dr_grpo a_grae_dr_grpo "
    "pass_at_4_dars:equal a_grae_pass_at_4_dars:equal positive_dominant negative_dominant hard_focused easy_focused",
    "negative": "grpo grpo_n nsr nsr_then_dapo w_reinforce psr grpo_2 gspo gspo_n",
    "grpo_lead": "grpo grpo_lead",
    "noise": "noise_10 noise_30 noise_50 pass_at_8",
}


# --- tables ---


def with_interval(mean: float, low: float, high: float) -> str:
    return f"{shown(mean, '.3f')} ±{shown((high - low) / 2, '.3f')}"


def signed(mean: float, low: float, high: float, form: str = "+.3f") -> str:
    return f"{shown(mean, form)} [{shown(low, form)}, {shown(high, form)}]"


def main_table(results: Results, rows: list[str]) -> str:
    ks = results.ks
    header = ["method", "runs", *(f"@{k}" for k in ks), "token entropy", "answer entropy", "rollouts, thousands"]
    lines = []
    for row in rows:
        cells = [with_interval(*results.interval(row, f"pass@{k}")) for k in ks]
        cells += [shown(results.interval(row, name)[0], ".2f") for name in ("token_entropy", "answer_entropy")]
        lines.append([label(row), str(len(results.rows[row])), *cells, cost(results, row, "completions", 1e3)])
        lines[-1].append(cost(results, row, "tokens", 1e6))
    return markdown([*header, "tokens, millions"], lines)


def headline_table(results: Results) -> str:
    ks = [k for k in results.ks if k in (1, 8, 32, 64)]
    lines = []
    for row in present(results, HEADLINE):
        cells = [with_interval(*results.interval(row, f"pass@{k}")) for k in ks]
        lines.append([label(row), *cells, shown(results.interval(row, "token_entropy")[0], ".2f")])
    return markdown(["", *(f"pass@{k}" for k in ks), "token entropy"], lines)


def method_table(results: Results, rows: list[str]) -> str:
    metrics = ("pass@1", f"pass@{results.wide}")
    lines = []
    for row in present(results, (BASE, "dapo", *rows)):
        cells = [shown(results.interval(row, metric)[0], ".3f") for metric in metrics]
        cells += ["" if row == "dapo" else signed(*results.difference(row, "dapo", m)[:3]) for m in metrics]
        lines.append([label(row), *cells, shown(results.interval(row, "token_entropy")[0], ".2f")])
    return markdown(["", *metrics, *(f"{metric} minus DAPO" for metric in metrics), "token entropy"], lines)


def cost(results: Results, row: str, name: str, unit: float) -> str:
    cells = results.rows[row].values()
    return "" if row == BASE else shown(np.mean([cell[name] for cell in cells]) / unit, ".1f")


def equal_table(results: Results) -> str | None:
    """The rows at equal rollouts, after DAPO and Dr. GRPO for comparison."""
    rows = [row for row in ordered(results) if row.endswith(":equal")]
    return main_table(results, [*present(results, ("dapo", "dr_grpo")), *rows]) if rows else None


def best_table(results: Results) -> str:
    """
    The best three of the rows with the same rollouts, at pass@1, at pass@32 and on the whole curve.

    They are chosen on one half of the mazes and measured on the other: on the same mazes the best of many would look
    too good.
    """
    rows, runs = at_equal_rollouts(results), results.runs_of("dapo")
    lines = []
    for metric in ("pass@1", f"pass@{results.wide}", CURVE):
        values = {row: results.values(row, metric, runs) for row in rows}
        chosen = sorted(rows, key=lambda row: -settle(values[row][:, ::2].mean()))  # ties: as in the table
        measured = {row: values[row][:, 1::2] for row in rows}
        as_good = sum(mean_and_interval(measured[row] - measured[chosen[0]], runs)[2] >= 0 for row in rows)
        for place, row in enumerate(chosen[:3], start=1):
            minus = mean_and_interval(measured[row] - measured["dapo"], runs)
            against = "" if row == "dapo" else signed(*minus)
            found, others = shown(measured[row].mean(), ".3f"), f"{as_good - 1} of {len(rows) - 1}"
            first = (metric, others) if place == 1 else ("", "")
            lines.append([first[0], str(place), label(row), found, against, first[1]])
    header = ["best at", "place", "method", "found", "minus DAPO", "others that the best is not clearly above"]
    return markdown(header, lines)


def against_table(results: Results) -> str:
    """The differences of every row with the same rollouts to DAPO and to the base model; the highest curve first."""
    rows, columns = at_equal_rollouts(results), [("pass@1", "dapo"), (f"pass@{results.wide}", "dapo"), (CURVE, "dapo")]
    if results.runs_of(BASE, "dapo"):
        rows, columns = [BASE, *rows], [*columns, (f"pass@{results.wide}", BASE)]
    found = {row: [results.difference(row, other, metric) for metric, other in columns] for row in rows}
    lines = []
    for row in sorted(rows, key=lambda row: -found[row][2][0]):
        cells = zip(found[row], columns, strict=True)
        lines.append([label(row), *("" if row == other else signed(*minus[:3]) for minus, (_, other) in cells)])
    return markdown(["method", *(f"{metric} minus {label(other)}" for metric, other in columns)], lines)


def runs_table(results: Results) -> str:
    """The difference of each single run to DAPO, at pass@1 and at many samples, which shows how runs vary."""
    runs, metrics = results.runs_of("dapo"), ("pass@1", f"pass@{results.wide}")
    lines = []
    for row in present(results, (row for row in HEADLINE if row != "dapo")):
        common = results.runs_of(row, "dapo")
        minus = [(results.values(row, m, common) - results.values("dapo", m, common)).mean(axis=1) for m in metrics]
        both = [f"{shown(at_1, '+.3f')}, {shown(at_many, '+.3f')}" for at_1, at_many in zip(*minus, strict=True)]
        of_run = dict(zip(common, both, strict=True))
        lines.append([label(row), *(of_run.get(run, "") for run in runs)])
    header = [f"minus DAPO, {' and '.join(metrics)}", *(f"base {base}, seed {seed}" for base, seed in runs)]
    return markdown(header, lines)


def other_sizes_table(results: Results) -> str:
    sizes = [f"{size}x{size}" for size in results.settings.other_sizes]
    wide = results.wide
    lines = []
    for row in ordered(results):
        runs = results.runs_of(row)
        cells = [
            np.mean([value_of(results.rows[row][run], f"pass@{k}", size).mean() for run in runs])
            for size in sizes
            for k in (1, wide)
        ]
        lines.append([label(row), str(len(runs)), *(shown(cell, ".3f") for cell in cells)])
    return markdown(["method", "runs", *(f"{size} @{k}" for size in sizes for k in (1, wide))], lines)


def searched(results: Results) -> dict[str, dict[float, float]]:
    """The score of every method at each learning rate, on the size of the search; other sizes take its rates."""
    found = {}
    for cell, value in results.cells.items():
        if "score" in value and cell.scale == results.scale:
            found.setdefault(cell.method, {})[value["learning_rate"]] = value["score"]
    return found


def search_section(results: Results) -> list[str]:
    found = searched(results)
    if not found:
        return []
    taken = {method: max(scores, key=scores.get) for method, scores in found.items()}
    lowest = sum(rate == min(found[method]) for method, rate in taken.items())
    factors = " and ".join(f"{factor:g}" for factor in RATE_FACTORS)
    about = (
        f"For every method two runs of half length, at {factors} of the learning rate of its recipe, with base model "
        f"and seed {SEARCH_BASE}, which are in no row. Chosen by the mean of pass@1 and pass@32 on "
        f"{SCALES['4x4'].validation_mazes} mazes that nothing else is measured on. Nothing else was searched. "
        f"{lowest} of {len(taken)} methods took the lower rate; a still lower one was not tried."
    )
    lines = []
    for method, scores in found.items():
        each = [f"{rate:.0e}: {shown(score, '.3f')}" for rate, score in sorted(scores.items())]
        lines.append([TABLE[method].label, f"{taken[method]:.0e}", "; ".join(each)])
    return ["### The search", about, markdown(["method", "learning rate", "score"], lines)]


# --- claims ---


@cache
def judge(results: Results, claim: Claim) -> tuple[str, str]:
    """The verdict on a claim, and the figures that it follows from."""
    ks = results.ks
    if claim.metric.startswith("pass@") and int(claim.metric[5:]) not in ks:
        return MISSING, f"{claim.metric} is not measured"
    found = results.difference(claim.a, claim.b, claim.metric)
    if found is None:
        return MISSING, "no run that both have"
    mean, low, high, runs = found
    if runs == 1 and not claim.metric.startswith("pass@"):
        return MISSING, f"{shown(mean, '+.3f')}, one run, which has no interval"
    form = ",.0f" if claim.metric == "completions" else "+.4f" if claim.metric == "unsteadiness" else "+.3f"
    figure = signed(mean, low, high, form)
    return verdict(low, high, claim.expected), f"{figure}, {runs} run{'s' if runs > 1 else ''}"


def summary(results: Results) -> str:
    counts = Counter(judge(results, claim)[0] for claim in CLAIMS)
    found = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    return f"Of {len(CLAIMS)} claims of four papers: {found}."


def claims_section(results: Results) -> str:
    lines, not_run = [], {}
    for number, claim in enumerate(CLAIMS, start=1):
        if absent := {claim.a, claim.b} - results.rows.keys():
            not_run[str(number)] = absent
            continue
        outcome, figure = judge(results, claim)
        difference = f"{label(claim.a)} − {label(claim.b)}, {claim.metric.replace('_', ' ')}"
        lines.append([str(number), claim.paper, claim.sentence, difference, claim.expected, figure, f"**{outcome}**"])
    header = ["", "paper", "claim", "difference", "expected", "found", "verdict"]
    note = (
        "*Reproduced* is a claim whose interval is on the side that it expects, *opposite* one on the other side, "
        f"*not reproduced* one that includes 0; *not lower* allows for {MARGIN:g}. A verdict from one run is about "
        "that run: its interval is over mazes alone. Second-hand claims stand in reviews and digests of the paper, "
        "implied and our own ones in none."
    )
    section = f"{summary(results)} {note}\n\n{markdown(header, lines)}"
    if not_run:
        names = ", ".join(sorted(set().union(*not_run.values())))
        section += f"\n\nMissing for want of a row: {', '.join(not_run)}. Not run at this size: {names}."
    return section


# --- the page ---


def introduction(results: Results) -> str:
    scale = results.settings
    some = next(iter(value for value in results.cells.values() if "test" in value))
    versions = ", ".join(f"{name} {version}" for name, version in some["versions"].items())
    seconds = [value["seconds"] for cell, value in results.cells.items() if cell.scale == results.scale]
    return (
        f"Mazes of {scale.size}×{scale.size}, {scale.test_mazes} of them held out × {scale.samples} samples, "
        f"temperature 1. {scale.batches} batches of 16 prompts × 16 completions for most methods. Base model and seed "
        f"of the runs: {', '.join(f'{base}-{seed}' for base, seed in results.runs)}. In a run all methods begin with "
        f"the same base model and see the same mazes. {len(seconds)} cells took {shown(sum(seconds) / 3600, '.1f')} "
        f"hours of one core each ({some['device']}; {versions}). Intervals are 95 %, over mazes, base models and "
        f"seeds together; ± is half of their width. None is adjusted for how many there are."
    )


def absent_section(results: Results) -> str:
    parts = []
    if results.missing:
        names = Counter(cell.method for cell in results.missing)
        counted = ", ".join(f"{name} ({count})" for name, count in names.items())
        parts.append(f"**Not run yet**, {len(results.missing)} cells: {counted}. Tables have the runs of all methods.")
    parts += [f"**Failed**: {cell}: {error}" for cell, error in results.failed.items()]
    return "\n\n".join(parts) or "No cell is missing, none failed."


def findings(results: Results) -> str:
    """The rows of the first figure, by whether they keep the pass@k of the base model at many samples."""
    wide, size = f"pass@{results.wide}", results.settings.size
    found = {"raised": [], "kept": [], "lost": []}
    for row in present(results, (row for row in HEADLINE if row != BASE and results.runs_of(row, BASE))):
        at_1, at_many = (results.difference(row, BASE, metric)[:3] for metric in ("pass@1", wide))
        outcome = "raised" if at_many[1] > 0 else "lost" if at_many[2] < 0 else "kept"
        name = label(row.partition(":")[0])
        found[outcome].append(f"    - {name}: {signed(*at_1)} and {signed(*at_many)}")
    about = {"raised": "the interval is above 0", "kept": "the interval includes 0", "lost": "the interval is below 0"}
    lines = [f"- **{wide} {outcome}** ({about[outcome]}):" for outcome in found]
    listed = [line for first, rows in zip(lines, found.values(), strict=True) if rows for line in (first, *rows)]
    introduced = (
        f"On mazes of {size}×{size}, at equal rollouts, the change from the base model at pass@1 and at {wide}, "
        "with 95 % intervals:"
    )
    return "\n".join([introduced, "", *listed, "", f"{summary(results)} [One by one](#claim-by-claim-{size}{size})."])


def scale_sections(results: Results, images: list[str]) -> list[str]:
    size = f"{results.settings.size}×{results.settings.size}"
    full = [row for row in ordered(results) if not row.endswith(":equal")]
    sections = [f"## {size}", introduction(results), absent_section(results), f"### All methods, {size}"]
    sections += [main_table(results, full), *images]
    if equal := equal_table(results):
        sections += [
            f"### At equal rollouts, {size}",
            "Methods that sample more have a second run with as many batches as cost the rollouts of the others, "
            "computed from the rollouts of the first run.",
            equal,
        ]
    if "dapo" in results.rows:
        sections += [
            f"### The best, {size}",
            "One row a method, all with the rollouts of DAPO, though not with the same tokens or updates. Chosen on "
            f"one half of the mazes, measured on the other; {CURVE}: the mean of pass@k over k = "
            f"{', '.join(map(str, results.ks))}.",
            best_table(results),
            f"### Against DAPO and the base model, {size}",
            "Run by run and maze by maze on all test mazes, at equal rollouts. The first of so many look a little too "
            "good; for what is best see above.",
            against_table(results),
            f"### Run by run, {size}",
            runs_table(results),
        ]
    about_others = f"Sizes that were never trained on, {results.settings.other_mazes} mazes of each."
    sections += [f"### Other sizes, {size}", about_others, other_sizes_table(results)]
    sections += [f"### Claim by claim, {size}", claims_section(results)]
    sections += search_section(results)
    return sections


def make_report(results: Path, docs: Path, scales: list[str], fill_in: Path | None = None) -> Path:
    """
    Writes `results.md` and its figures into the folder `docs`; and, where `HEADLINE_SIZE` is a scale, the
    tables of the other pages of the repository `fill_in`.

    Raises:
        `ValueError`: No scale has a finished cell with a test, or a page has no place for its table.
    """
    sections = ["# Every method on the same mazes"]
    made_by = (
        "Made by `python benchmarks/maze_report.py` from the files in `benchmarks/results/maze_table`, which "
        "`make benchmark` wrote; [how it is done](../benchmarks/README.md#maze_tablepy)."
    )
    found = [Results(results, scale) for scale in scales]
    found = [one for one in found if one.rows]
    if not found:
        raise ValueError(f"'{results}' holds no finished cell of {', '.join(scales)}. Run maze_table.py first.")
    for one in found:
        images = [f"![{about}](images/{name})" for name, about in figures(one, docs / "images").items()]
        if one is found[0]:
            sections += [findings(one), images.pop(0), made_by]
        sections += scale_sections(one, images)
        if fill_in is not None and one.scale == HEADLINE_SIZE:
            fill_in_tables(fill_in, one)
    docs.mkdir(parents=True, exist_ok=True)
    page = docs / "results.md"
    page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return page


def fill_in_tables(root: Path, results: Results) -> None:
    """Puts the tables of the overview and of the pages of the methods into their places."""
    scale, runs = results.settings, results.runs_of("dapo")
    about = (
        f"Runs of each: {len(runs)}. Base models: {len({base for base, _ in runs})}. {scale.test_mazes} held-out "
        f"mazes × {scale.samples} samples"
    )
    of_readme = f"{about}; ± is half of a 95 % interval. {summary(results)}"
    fill_in_place(root / "docs/methods/README.md", f"{headline_table(results)}\n\n{of_readme}", BEGIN)
    size = f"{scale.size}×{scale.size}"
    of_method = (
        f"Mazes of {size}, all at the rollouts of DAPO, with 95 % intervals. {about}. "
        "Made by `python benchmarks/maze_report.py`; [more](../results.md)."
    )
    for page, rows in METHOD_PAGES.items():
        fill_in_place(
            root / "docs/methods" / f"{page}.md", f"{method_table(results, rows.split())}\n\n{of_method}", BEGIN
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository whose pages are written")
    parser.add_argument("--sizes", nargs="+", choices=["4x4", "5x5", "9x9"], default=["4x4", "5x5", "9x9"])
    args = parser.parse_args()
    try:
        print(f"Wrote {make_report(args.results, args.root / 'docs', args.sizes, args.root)}.")
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
