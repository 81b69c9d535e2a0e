"""The report of the maze table: `docs/results.md` and its figures, from the JSON files that `maze_table.py` wrote.

python benchmarks/maze_report.py

Every number, verdict and interval is computed here from the files; nothing in the report is written by hand.
"""

import argparse
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from maze_cell import BASE, RATE_FACTORS, SCALES, SEARCH_BASE, read
from maze_claims import CLAIMS, MISSING, Claim, verdict
from maze_methods import TABLE
from maze_statistics import mean_and_interval
from maze_table import BASES_OF, METHODS_OF, RESULTS, SEEDS_OF, plan

from rlvr_trl.evaluation import pass_at_k


DOCS = Path(__file__).resolve().parents[1] / "docs"
KS = (1, 2, 4, 8, 16, 32, 64)
SHOWN = ("dapo", "grpo_n", "nsr", "pass_at_8", "pass_at_8_then_1", "dars_hw", "a_grae_grpo")


class Results:
    """
    The cells of one scale.

    Attributes:
        cells (`dict[Cell, dict]`): those that were finished.
        failed (`dict[Cell, str]`): the error of those that were not.
        missing (`list[Cell]`): planned, and not run.
    """

    def __init__(self, folder: Path, scale: str):
        self.scale, self.settings = scale, SCALES[scale]
        planned = plan(scale, METHODS_OF[scale], BASES_OF[scale], SEEDS_OF[scale], search=True)
        saved = {cell: read(cell.path(folder)) for cell in planned}
        self.missing = [cell for cell, value in saved.items() if value is None]
        self.failed = {cell: value["error"] for cell, value in saved.items() if value and "error" in value}
        self.cells = {cell: value for cell, value in saved.items() if value and "error" not in value}
        if len(digests := {value["test"]["mazes"] for value in self.cells.values() if "test" in value}) > 1:
            raise ValueError(f"The cells of {scale} were tested on different mazes: {sorted(digests)}.")

    @cached_property
    def rows(self) -> dict[str, dict[tuple[int, int], dict]]:
        """`{row: {(base, seed): cell}}`; a row is a method, or a method and `":equal"`."""
        rows = {}
        for cell, value in self.cells.items():
            if cell.base != SEARCH_BASE:
                row = f"{cell.method}:{cell.variant}" if cell.variant else cell.method
                rows.setdefault(row, {})[cell.base, cell.seed] = value
        return rows

    def values(self, row: str, metric: str, runs: list[tuple[int, int]]) -> np.ndarray:
        """`(runs, mazes)` for pass@k, `(runs,)` otherwise. The base model is the same with every seed."""
        found = [self.rows[row][(base, 0) if row == BASE else (base, seed)] for base, seed in runs]
        return np.array([value_of(cell, metric) for cell in found])

    def runs_of(self, *rows: str) -> tuple[tuple[int, int], ...]:
        """The runs that all of these rows have."""
        trained = [set(self.rows.get(row, {})) for row in rows if row != BASE]
        if BASE in rows:
            bases = {base for base, _ in self.rows.get(BASE, {})}
            trained = [{run for run in runs if run[0] in bases} for runs in trained] or [{(b, 0) for b in bases}]
        return tuple(sorted(set.intersection(*trained)))

    def interval(self, row: str, metric: str) -> tuple[float, float, float]:
        runs = self.runs_of(row)
        return mean_and_interval(self.values(row, metric, runs), runs)

    def difference(self, a: str, b: str, metric: str) -> tuple[float, float, float, int] | None:
        """Mean, interval and number of runs; `None` where the two have no run in common."""
        runs = self.runs_of(a, b)
        if not runs:
            return None
        return *mean_and_interval(self.values(a, metric, runs) - self.values(b, metric, runs), runs), len(runs)


def value_of(cell: dict, metric: str, test: str = "test"):
    """A number of a run, or one number for every maze."""
    if metric.startswith("pass@"):
        return pass_at_k(cell[test]["num_samples"], np.array(cell[test]["num_correct"]), int(metric[5:]))
    if metric == "completions":
        return cell[metric]
    if metric == "unsteadiness":
        return float(np.std(np.diff(cell["log"]["reward"])))
    return cell[test][metric]


# --- tables ---


def with_interval(mean: float, low: float, high: float) -> str:
    return f"{mean:.3f} ±{(high - low) / 2:.3f}"


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def label(row: str) -> str:
    method, _, variant = row.partition(":")
    return "base model" if method == BASE else TABLE[method].label + (", equal rollouts" if variant else "")


def ordered(results: Results) -> list[str]:
    names = [BASE, *TABLE]
    return sorted(results.rows, key=lambda row: (names.index(row.partition(":")[0]), row))


def main_table(results: Results, rows: list[str]) -> str:
    ks = [k for k in KS if k <= results.settings.samples]
    header = ["method", "runs", *(f"@{k}" for k in ks), "token entropy", "answer entropy", "rollouts, thousands"]
    lines = []
    for row in rows:
        cells = [with_interval(*results.interval(row, f"pass@{k}")) for k in ks]
        cells += [f"{results.interval(row, name)[0]:.2f}" for name in ("token_entropy", "answer_entropy")]
        lines.append([label(row), str(len(results.rows[row])), *cells, cost(results, row, "completions", 1e3)])
        lines[-1].append(cost(results, row, "tokens", 1e6))
    return markdown([*header, "tokens, millions"], lines)


def cost(results: Results, row: str, name: str, unit: float) -> str:
    cells = results.rows[row].values()
    return "" if row == BASE else f"{np.mean([cell[name] for cell in cells]) / unit:.1f}"


def equal_table(results: Results) -> str | None:
    """At equal rollouts, against Pass@1 training with the same loss for what has one, otherwise DAPO."""
    rows = [row for row in ordered(results) if row.endswith(":equal")]
    return main_table(results, [*[r for r in ("dapo", "dr_grpo") if r in results.rows], *rows]) if rows else None


def other_sizes_table(results: Results) -> str:
    sizes = [f"{size}x{size}" for size in results.settings.other_sizes]
    wide = min(32, results.settings.samples)
    lines = []
    for row in ordered(results):
        runs = results.runs_of(row)
        cells = [
            np.mean([value_of(results.rows[row][run], f"pass@{k}", size).mean() for run in runs])
            for size in sizes
            for k in (1, wide)
        ]
        lines.append([label(row), str(len(runs)), *(f"{cell:.3f}" for cell in cells)])
    return markdown(["method", "runs", *(f"{size} @{k}" for size in sizes for k in (1, wide))], lines)


def search_table(results: Results) -> str:
    found = {}
    for cell, value in results.cells.items():
        if "score" in value:
            found.setdefault(cell.method, {})[value["learning_rate"]] = value["score"]
    lines = []
    for method, scores in found.items():
        best = max(scores, key=scores.get)
        shown = [f"{rate:.0e}: {score:.3f}" for rate, score in sorted(scores.items())]
        lines.append([TABLE[method].label, f"{best:.0e}", "; ".join(shown)])
    return markdown(["method", "learning rate", "score"], lines)


# --- claims ---


def judge(results: Results, claim: Claim) -> tuple[str, str]:
    """The verdict, and the figures that it follows from."""
    ks = [k for k in KS if k <= results.settings.samples]
    if claim.metric.startswith("pass@") and int(claim.metric[5:]) not in ks:
        return MISSING, f"{claim.metric} is not measured"
    found = results.difference(claim.a, claim.b, claim.metric)
    if found is None:
        absent = [row for row in (claim.a, claim.b) if row not in results.rows]
        return MISSING, f"no run of {' or '.join(absent)}" if absent else "no run that both have"
    mean, low, high, runs = found
    if runs == 1 and not claim.metric.startswith("pass@"):
        return MISSING, f"{mean:+.3f}, one run, which has no interval"
    form = ",.0f" if claim.metric == "completions" else "+.4f" if claim.metric == "unsteadiness" else "+.3f"
    figure = f"{mean:{form}} [{low:{form}}, {high:{form}}]"
    return verdict(low, high, claim.expected), f"{figure}, {runs} run{'s' if runs > 1 else ''}"


def claims_section(results: Results) -> str:
    lines, counts = [], Counter()
    for number, claim in enumerate(CLAIMS, start=1):
        outcome, figure = judge(results, claim)
        counts[outcome] += 1
        difference = f"{label(claim.a)} − {label(claim.b)}, {claim.metric.replace('_', ' ')}"
        lines.append([str(number), claim.paper, claim.sentence, difference, claim.expected, figure, f"**{outcome}**"])
    header = ["", "paper", "claim", "difference", "expected", "found", "verdict"]
    summary = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    note = "A verdict from one run is about that run: its interval is over mazes alone."
    return f"Of {len(CLAIMS)} claims: {summary}. {note}\n\n{markdown(header, lines)}"


# --- figures ---


def mean_columns(results: Results, row: str, table: str, names: list[str]) -> list[np.ndarray]:
    """Columns of the logs, means over the runs that have them."""
    cells = [cell for cell in results.rows[row].values() if table in cell]
    return [np.array([cell[table][name] for cell in cells], dtype=float).mean(axis=0) for name in names]


def figures(results: Results, folder: Path) -> list[str]:
    """Draws three figures, returns their file names."""
    folder.mkdir(parents=True, exist_ok=True)
    wide = min(32, results.settings.samples)
    names = []
    for name, draw in {"dynamics": draw_dynamics, "entropy": draw_entropy, "end": draw_end}.items():
        figure = Figure(figsize=(7, 5), layout="constrained")
        draw(figure.subplots(), results, [row for row in SHOWN if row in results.rows], wide)
        names.append(f"results_{results.scale}_{name}.png")
        figure.savefig(folder / names[-1], dpi=110)
    return names


def draw_dynamics(axes, results: Results, shown: list[str], wide: int) -> None:
    for row in shown:
        at_1, at_many = mean_columns(results, row, "dynamics", ["eval_pass@1", f"eval_pass@{wide}"])
        (line,) = axes.plot(at_1, at_many, marker="o", markersize=4, label=label(row))
        axes.plot(at_1[-1], at_many[-1], marker="s", color=line.get_color())
    axes.set(xlabel="pass@1", ylabel=f"pass@{wide}", title="As training moves it (square: the end)")
    axes.legend()


def draw_entropy(axes, results: Results, shown: list[str], wide: int) -> None:
    for row in shown:
        axes.plot(*mean_columns(results, row, "log", ["step", "entropy"]), label=label(row))
    axes.set(xlabel="update", ylabel="token entropy, nats", title="Entropy of the training completions")
    axes.legend()


def draw_end(axes, results: Results, shown: list[str], wide: int) -> None:
    for row in ordered(results):
        point = [results.interval(row, f"pass@{k}")[0] for k in (1, wide)]
        axes.scatter(*point, s=70 if row == BASE else 15, color="black" if row == BASE else "tab:blue")
        if row in (BASE, *shown):
            axes.annotate(label(row), point, fontsize=8)
    axes.set(xlabel="pass@1", ylabel=f"pass@{wide}", title="All methods at the end")


# --- the page ---


def introduction(results: Results) -> str:
    scale = results.settings
    some = next(iter(value for value in results.cells.values() if "test" in value))
    versions = ", ".join(f"{name} {version}" for name, version in some["versions"].items())
    seconds = sum(value["seconds"] for value in results.cells.values())
    return (
        f"Mazes of {scale.size}×{scale.size}, {scale.test_mazes} of them held out × {scale.samples} samples, "
        f"temperature 1. {scale.batches} batches of 16 prompts × 16 completions for most methods. Base models "
        f"{', '.join(map(str, BASES_OF[results.scale]))}, seeds {', '.join(map(str, SEEDS_OF[results.scale]))}: all "
        f"methods begin with the same ones and see the same mazes. {len(results.cells)} cells took "
        f"{seconds / 3600:.1f} hours of one core each ({some['device']}; {versions}). Intervals are 95 %, over mazes, "
        f"base models and seeds together; ± is half of their width. None is adjusted for how many there are."
    )


def absent_section(results: Results) -> str:
    parts = []
    if results.missing:
        names = Counter(cell.method for cell in results.missing)
        shown = ", ".join(f"{name} ({count})" for name, count in names.items())
        parts.append(f"**Not run yet**, {len(results.missing)} cells: {shown}.")
    parts += [f"**Failed**: {cell}: {error}" for cell, error in results.failed.items()]
    return "\n\n".join(parts) or "No cell is missing, none failed."


def scale_sections(results: Results, folder: Path) -> list[str]:
    size = f"{results.settings.size}×{results.settings.size}"
    images = [f"![](images/{name})" for name in figures(results, folder / "images")]
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
    about_others = f"Sizes that were never trained on, {results.settings.other_mazes} mazes of each."
    sections += [f"### Other sizes, {size}", about_others, other_sizes_table(results)]
    sections += [f"### Claim by claim, {size}", claims_section(results)]
    if any("score" in value for value in results.cells.values()):
        factors = " and ".join(f"{factor:g}" for factor in RATE_FACTORS)
        sections += [
            "### The search",
            f"For every method two runs of half length, at {factors} of the learning rate of its recipe, with base "
            f"model and seed {SEARCH_BASE}, which are in no row. Chosen by the mean of pass@1 and pass@32 on "
            f"{SCALES['4x4'].validation_mazes} mazes that nothing else is measured on. Nothing else was searched.",
            search_table(results),
        ]
    return sections


def make_report(results: Path, docs: Path, scales: list[str]) -> Path:
    """
    Writes `results.md` and its figures into the folder `docs`.

    Raises:
        `ValueError`: No scale has a finished cell with a test.
    """
    sections = [
        "# Every method on the same mazes",
        "Made by `python benchmarks/maze_report.py` from the files in `benchmarks/results/maze_table`, which "
        "`make benchmark` wrote; [how it is done](../benchmarks/README.md#maze_tablepy).",
    ]
    found = [Results(results, scale) for scale in scales]
    found = [one for one in found if one.rows]
    if not found:
        raise ValueError(f"'{results}' holds no finished cell of {', '.join(scales)}. Run maze_table.py first.")
    for one in found:
        sections += scale_sections(one, docs)
    docs.mkdir(parents=True, exist_ok=True)
    page = docs / "results.md"
    page.write_text("\n\n".join(sections) + "\n", encoding="utf-8")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder for results.md and images/")
    parser.add_argument("--sizes", nargs="+", choices=["4x4", "5x5", "9x9"], default=["4x4", "5x5", "9x9"])
    args = parser.parse_args()
    try:
        print(f"Wrote {make_report(args.results, args.docs, args.sizes)}.")
    except ValueError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
