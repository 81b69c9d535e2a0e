"""Results as tables for a terminal, and as curves of pass@k over k."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from rich.table import Table

from ..line_styles import line_styles
from ..terminal import literal
from .comparison import Comparison
from .results import OVERALL, ProblemCounts


def result_tables(summary: dict) -> list[Table]:
    """
    Two tables: pass@k with the ends of its 95 % interval over problems below it, and statistics of the completions.

    Args:
        summary (`dict`): as [`summarize`] returns it.
    """
    return [_pass_at_k_table(summary), _completions_table(summary["benchmarks"])]


def _pass_at_k_table(summary: dict) -> Table:
    benchmarks = summary["benchmarks"]
    ks = sorted({k for result in benchmarks.values() for k in result["pass_at_k"]}, key=int)
    table = Table(
        title="pass@k, and below it the ends of its 95 % interval over problems",
        caption="Bayesian bootstrap with half a problem more at the bound: see docs/evaluation.md",
    )
    table.add_column("benchmark", no_wrap=True)
    table.add_column("problems", justify="right")
    for k in ks:
        table.add_column(f"@{k}", justify="right", no_wrap=True)
    rows = benchmarks if len(benchmarks) == 1 else benchmarks | {OVERALL: summary[OVERALL]}
    for name, result in rows.items():
        table.add_row(literal(name), str(result["num_problems"]), *(_with_interval(result, k) for k in ks))
        for value, part in result.get("subsets", {}).items():
            part_of = literal(f"  {result['settings']['by']} {value}")
            table.add_row(part_of, str(part["num_problems"]), *(_with_interval(part, k) for k in ks))
    if len(benchmarks) > 1:
        means = summary["mean_over_benchmarks"]["pass_at_k"]
        table.add_row("mean of benchmarks", "", *(f"{means[k]:.3f}" if k in means else "" for k in ks))
    return table


def _with_interval(result: dict, k: str) -> str:
    if k not in result["pass_at_k"]:
        return ""
    low, high = result["pass_at_k_intervals"][k]
    return f"{result['pass_at_k'][k]:.3f}\n{low:.3f}\n{high:.3f}"


def _completions_table(benchmarks: dict[str, dict]) -> Table:
    table = Table(title="completions")
    table.add_column("benchmark", no_wrap=True)
    columns = {
        "n": lambda result: str(result["settings"]["num_samples"]),
        "answer\nentropy": lambda result: _number(result["answer_entropy"], ".2f"),
        "distinct\nwrong": lambda result: _number(result["wrong_answer_diversity"], ".2f"),
        "token\nentropy": lambda result: _number(result["token_entropy"], ".2f"),
        "tokens": lambda result: _number(result["mean_length"], ".0f"),
        "cut\noff": lambda result: _number(result["truncated_share"], ".1%"),
        "not\nscorable": lambda result: str(result["num_unscorable_completions"]),
    }
    for header in columns:
        table.add_column(header, justify="right", no_wrap=True)
    for name, result in benchmarks.items():
        table.add_row(literal(name), *(cell(result) for cell in columns.values()))
    beyond = {name: number for name, result in benchmarks.items() if (number := result.get("num_beyond_context"))}
    if beyond:
        counts = ", ".join(f"{literal(name)} {number}" for name, number in beyond.items())
        table.caption = f"prompts that reach beyond the context of the model: {counts}"
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def sweep_table(summaries: Mapping[float, dict]) -> Table:
    """
    pass@k of each benchmark at several temperatures.

    Args:
        summaries (`dict[float, dict]`): as [`summarize`] returns them, by temperature.
    """
    first = next(iter(summaries.values()))
    names = [*first["benchmarks"], *([OVERALL] if len(first["benchmarks"]) > 1 else [])]
    found = {
        (name, temperature): (summary if name == OVERALL else summary["benchmarks"])[name]["pass_at_k"]
        for name in names
        for temperature, summary in summaries.items()
    }
    ks = sorted({k for means in found.values() for k in means}, key=int)
    table = Table(title="pass@k at each temperature; intervals are in the tables above")
    table.add_column("benchmark", no_wrap=True)
    for header in ("temperature", *(f"@{k}" for k in ks)):
        table.add_column(header, justify="right", no_wrap=True)
    for (name, temperature), means in found.items():
        table.add_row(literal(name), f"{temperature:g}", *(f"{means[k]:.3f}" if k in means else "" for k in ks))
    return table


def comparison_table(reference: str, run: str, comparisons: list[Comparison]) -> Table:
    """A run against a reference: both values of pass@k, the paired difference with its interval, and the verdict."""
    table = Table(title=f"{literal(run)} against {literal(reference)}, paired 95 % intervals over problems")
    table.add_column("benchmark", no_wrap=True)
    for header in ("k", "reference", "run", "difference", "interval"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("run is")
    for row in comparisons:
        table.add_row(
            literal(row.benchmark),
            str(row.k),
            f"{row.reference:.3f}",
            f"{row.value:.3f}",
            f"{row.difference:+.3f}",
            f"{row.low:+.3f} … {row.high:+.3f}",
            row.verdict,
        )
    return table


def plot_pass_at_k(results: Mapping[str, ProblemCounts], *paths: Path, title: str) -> None:
    """
    Draws pass@k over k, one curve with its 95 % interval over problems for each evaluation.

    Args:
        results (`dict[str, ProblemCounts]`): evaluations by label.
        paths (`Path`): files to write, such as `pass_at_k.png` and `pass_at_k.svg`; the ending says the format.
        title (`str`): title of the picture.
    """
    from matplotlib.figure import Figure  # not pyplot, which would choose a backend for the whole process

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = line_styles(results)
    for label, result in results.items():
        means, intervals = result.pass_at_k, result.intervals()
        low, high = np.array([intervals[k] for k in means]).T
        shown = label.replace("$", r"\$")  # a dollar sign would begin a formula
        (line,) = axes.plot(list(means), list(means.values()), marker="o", markersize=4, label=shown, **styles[label])
        axes.fill_between(list(means), low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log", base=2)
    ticks = sorted({k for result in results.values() for k in result.ks})
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.set(xlabel="k", ylabel="pass@k", title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    for path in paths:
        figure.savefig(path, dpi=150)
