"""The page of what a GPU has measured, `docs/gpu.md`, from the files that `run.py` wrote.

    python benchmarks/gpu/report.py results.json     # takes the steps of a run into benchmarks/results/gpu
    python benchmarks/gpu/report.py                  # the page, of all that is there

Every number is computed from the files; nothing on the page is written by hand. Where there is no result, it says so.
"""

import argparse
import json
import re
from pathlib import Path


ROOT = Path(__file__).resolve().parents[2]
RESULTS, PAGE = ROOT / "benchmarks/results/gpu", ROOT / "docs/gpu.md"
NONE = "No result."
KS = ("1", "2", "4", "8", "16", "32", "64")
VARIANTS = {
    "row by row": "row by row",
    "stock": "stock TRL",
    "stock_without_cudnn": "stock TRL without cuDNN's attention",
    "trim_padding": "`trim_padding=True`",
    "prompts_per_batch": "`prompts_per_batch`",
    "token_budget": "and a token budget",
}
HEAD = """\
# On a GPU

<!-- from benchmarks/gpu/report.py -->

What one command measures on one GPU. It needs no network and no more than the tree and a few wheels:

```bash
python benchmarks/gpu/pack.py                                # here: the wheels that the machine lacks, into .whl
python3 benchmarks/gpu/run.py --output results.json          # there, in at most nine minutes
python benchmarks/gpu/report.py results.json                 # here: this page; --note says what one should know
```

`pack.py` says how the wheels are installed there. `--size toy` rehearses all of it on a CPU.
"""


def markdown(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


# --- one table for each kind of result; each takes what its step has saved ---


def tests_table(saved: dict) -> str:
    found = saved["pieces"]
    ended = "" if found["exit_code"] is not None else " (out of time)"
    row = ["estimators, passes, stages, checkpoints" + ended]
    row += [*(str(found[key]) for key in ("passed", "skipped")), str(len(found["failed"]))]
    causes = {}
    for test, message in found["failed"].items():
        causes.setdefault(_one_line(message), []).append(test.partition("[")[0])
    failures = [
        f"- failed, {len(tests)} of {', '.join(f'`{test}`' for test in sorted(set(tests)))}: {cause}"
        for cause, tests in causes.items()
    ]
    header = ["tests that need a GPU", "passed", "skipped", "failed"]
    return "\n".join([markdown(header, [row]), "", *failures]).strip()


def gradients_table(saved: dict) -> str:
    rows = [
        [
            VARIANTS[row["variant"]],
            str(row["micro_batch"]),
            f"{row['to_float64']:.1e}",
            f"{row['to_rows']:.1e}" if row["variant"] != "row by row" else "",
        ]
        for row in saved["errors"]
    ]
    settings = saved["settings"]
    title = (
        f"Relative error of the gradient of {settings['rows']} completions of up to {settings['max_length']} tokens, "
        f"weights in {settings['dtype']}:\n\n"
    )
    return title + markdown(["", "micro-batch", "to float64 on the CPU", "to row by row on the card"], rows)


def optimizer_table(saved: dict) -> str:
    settings, lines = saved["settings"], []
    header = ["", "seconds", "the first time", "times faster", "padding", "peak GiB", "tokens/s", "utilization"]
    header += ["error to float32", "to stock"]
    for name in ("log-normal", "equal"):
        if name not in saved:
            continue
        found = saved[name]
        rows = []
        for variant, row in found["variants"].items():
            rows.append(
                [
                    VARIANTS[variant],
                    f"{row['median_seconds']:.2f}",
                    f"{row['first_seconds']:.2f}" if "first_seconds" in row else "",
                    f"{row['times_faster']:.2f}",
                    f"{row['padding_share']:.0%}" if "padding_share" in row else "",
                    f"{row['peak_mib'] / 1024:.1f}" if "peak_mib" in row else "",
                    f"{row['tokens_per_second']:,.0f}",
                    f"{row['utilization']:.1%}",
                    f"{row['error_to_reference']:.1e}" if "error_to_reference" in row else "",
                    f"{row['gradient_error']:.1e}" if variant != "stock" else "",
                ]
            )
        lines.append(
            f"{name} lengths, {settings['rows']} completions of mean {found['mean_length']:.0f} and at most "
            f"{found['max_length']} tokens, micro-batch {found['micro_batch']}, "
            f"{found['parameters'] / 1e6:,.0f} million parameters in {settings['dtype']}:\n\n" + markdown(header, rows)
        )
    return "\n\n".join(lines) or NONE


def estimators_table(saved: dict) -> str:
    rows = [[row["name"], f"{row['wall_ms']:.2f}", f"{row['difference']:.0e}"] for row in saved["estimators"]]
    title = f"{saved['settings']['groups']:,} groups of {saved['settings']['smallest']} to "
    title += f"{saved['settings']['largest']} completions, medians of {saved['settings']['repeats']} repeats:\n\n"
    return title + markdown(["estimator", "ms", "largest difference from the CPU"], rows)


def mazes_table(saved: dict) -> str:
    if "methods" not in saved:
        return NONE
    methods, warm = saved["methods"], saved["warm_up"]
    ks = [k for k in KS if k in methods["base"]["pass_at_k"]]
    rows = []
    for row in methods.values():
        cells = []
        for k in ks:
            low, high = row["intervals"][k]
            cells.append(f"{row['pass_at_k'][k]:.3f} ±{(high - low) / 2:.3f}")
        cost = ["", "", ""]
        if "steps" in row:
            cost = [str(row["steps"]), f"{row['train_seconds']:.0f}", f"{row['completions']:,}"]
        rows.append([row["label"], *cells, f"{row['token_entropy']:.2f}", *cost])
    settings = saved["settings"]
    title = (
        f"{settings['size']}×{settings['size']} mazes, {warm['parameters'] / 1e6:.1f} million parameters, warmed up "
        f"for {warm['seconds']:.0f} s; {settings['prompts']} prompts a batch, learning rate "
        f"{settings['learning_rate']:g} for all, tested on {settings['test_mazes']} mazes × {settings['samples']}. "
        f"{how_short(methods)}\n\n"
    )
    table = markdown(["", *(f"pass@{k}" for k in ks), "token entropy", "steps", "seconds", "completions"], rows)
    minus = [
        f"- {row['label']} minus GRPO: "
        + ", ".join(
            f"{values[0]:+.3f} [{values[1]:+.3f}, {values[2]:+.3f}] at pass@{k}" for k, values in shown.items()
        )
        for row in methods.values()
        if (shown := {k: v for k, v in row.get("minus_grpo", {}).items() if k in ("1", "8", "64")})
    ]
    return title + table + ("\n\n" + "\n".join(minus) if minus else "")


def how_short(methods: dict) -> str:
    trained = [row for row in methods.values() if "steps" in row]
    if not trained:
        return "No method ended:"
    steps, seconds = ([row[key] for row in trained] for key in ("steps", "train_seconds"))
    return (
        f"The training is short, {min(steps)} to {max(steps)} steps in {min(seconds):.0f} to {max(seconds):.0f} "
        "seconds, with one seed:"
    )


def attention_table(saved: dict) -> str:
    kernels = saved["settings"]["kernels"]
    rows = [
        [str(row["width"]), row["mask"], *(not_finite(row["kernels"][name]) for name in kernels)]
        for row in saved["calls"]
    ]
    text = "Values that are not finite in the gradients of query, key and value, of one call with finite inputs in "
    text += f"bfloat16, by kernel; cuDNN {saved['settings']['cudnn'] or 'absent'}:\n\n"
    text += markdown(["width", "mask", *kernels], rows)
    if "passes" in saved:
        text += f"\n\n{passes_table(saved['passes'])}"
    if "suspect" in saved:
        rows = [[name, str(found.get("parameters", found.get("error")))] for name, found in saved["suspect"].items()]
        text += "\n\nThe first of them with such a gradient, with one kernel alone, and with others changed:\n\n"
        text += markdown(["", "parameters with a gradient that is not finite"], rows)
    return text


def not_finite(found: dict) -> str:
    return "no kernel" if "error" in found else ", ".join(f"{count:,}" for count in found["gradients"])


def passes_table(passes: list[dict]) -> str:
    text = "The passes under a token budget, of the model of part 2, with the kernels that torch prefers and without "
    text += (
        "cuDNN's: how many parameters have a gradient that is not finite, and seconds, the first time and again.\n\n"
    )
    header = ["rows", "width", "mod 128", "padding", "not finite", "seconds", "not finite without cuDNN", "seconds"]
    rows = []
    for row in passes:
        cells = [str(row["rows"]), str(row["width"]), str(row["width"] % 128), "yes" if row["padded"] else "no"]
        for tries in (row["preferred"], row["without_cudnn"]):
            seconds = (f"{one['seconds']:.2f}" if "seconds" in one else "error" for one in tries)
            cells += [str(tries[0].get("parameters", "error")), ", ".join(seconds)]
        rows.append(cells)
    return text + markdown(header, rows)


def generation_table(saved: dict) -> str:
    settings = saved["settings"]
    found = saved["tokens_per_second"]
    if isinstance(found, dict):
        speed = f"{found['continuous']:,.0f} tokens a second"
        return f"Continuous batching of transformers, {found['batch']} prompts, its set-up included: {speed}."
    ways = {
        "engine": "the evaluation's engine",
        "generate": "`generate` alone",
        "without_cudnn": "`generate` without cuDNN's attention",
    }
    rows = [
        [str(row["batch"]), *(f"{row[f'{way}_{time}']:,.0f}" for way in ways for time in ("first", "again"))]
        for row in found
    ]
    title = f"Tokens a second, prompts of {settings['prompt']} and completions of {settings['new']} tokens, the model "
    title += "of part 2. The first time, all shapes are new to the kernels:\n\n"
    return title + markdown(["batch", *(heading for label in ways.values() for heading in (label, "again"))], rows)


PARTS = {
    "Tests and gradients": {
        "tests": tests_table,
        "gradients_float32": gradients_table,
        "gradients_bfloat16": gradients_table,
    },
    "The optimizer phase": {"optimizer": optimizer_table, "optimizer_checkpointing": optimizer_table},
    "Attention": {"attention": attention_table},
    "Estimators": {"estimators": estimators_table},
    "DARS against GRPO on mazes": {"mazes": mazes_table},
    "Generation": {"generation": generation_table, "continuous_batching": generation_table},
}
NOTES = {
    "The optimizer phase": "From a sampled batch to its gradient, stock TRL and this trainer in the same process. "
    "Utilization is that of the model FLOPs of real tokens at 989 TFLOP/s, the dense bfloat16 peak of an H100 or "
    "H200: padding and recomputation count as waste. `benchmarks/gpu/optimizer.py` has the formula. Peak memory is "
    "beyond models, gradients and batch.",
    "optimizer_checkpointing": "With gradient checkpointing:",
    "DARS against GRPO on mazes": "Each method trains for the same seconds from the same base model.",
}


def step_text(name: str, step: dict | None, table) -> str:
    """The table of a step, and how it ended where that was not its end."""
    if step is None:
        return f"`{name}`: {NONE}"
    lines = []
    try:
        lines.append(table(step["results"]))
    except KeyError:  # it ended before it had saved what the table needs
        lines.append(f"`{name}`: {NONE}")
    if step["status"] != "done":
        ended = f"`{name}` is {step['status']} after {step.get('seconds', 0):.0f} s."
        lines.append(f"{ended} {_one_line(step.get('error', ''))}".strip())
    return "\n\n".join(lines)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "/")[:400]


def tables(results: dict) -> str:
    """All tables of one card."""
    lines = []
    for title, steps in PARTS.items():
        lines.append(f"### {title}")
        if title in NOTES:
            lines.append(NOTES[title])
        if not any(name in results["steps"] for name in steps):
            lines.append(NONE)
            continue
        for name, table in steps.items():
            if name in NOTES:
                lines.append(NOTES[name])
            lines.append(step_text(name, results["steps"].get(name), table))
    return "\n\n".join(lines)


def page(found: list[dict]) -> str:
    """The whole page, of the results of any number of cards."""
    if not found:
        return HEAD + "\nNo GPU has run it yet, so there is no result.\n"
    lines = [HEAD]
    for results in found:
        versions = ", ".join(f"{name} {value}" for name, value in results["versions"].items() if value)
        lines.append(f"## {results['card']['name']}\n")
        lines.append(f"{results['card']['memory_gib']} GiB, {results['cores']} cores, {versions}.\n")
        lines += [run_text(number, run, results["steps"]) for number, run in enumerate(results["runs"], start=1)]
        lines.append(tables(results) + "\n")
    return "\n".join(lines)


def run_text(number: int, run: dict, steps: dict) -> str:
    used = ", ".join(f"`{name}`" for name, step in steps.items() if step["run"] == number)
    ran = (
        f"- Run {number}, {run['date']}, commit {run['commit']}: `{run['command']}`. Shown here: {used or 'nothing'}."
    )
    return f"{ran} {run['note']}".strip() + "\n"


def slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def take_in(path: Path, folder: Path = RESULTS, note: str = "") -> Path:
    """
    Takes the steps of a run into the file of its card.

    A step replaces that of an earlier run, unless only the earlier one came to its end.

    Args:
        path (`Path`): a file of `run.py`.
        note (`str`): what a reader should know of the run.

    Raises:
        `ValueError`: The run was a rehearsal, or on no card.
    """
    run = json.loads(path.read_text(encoding="utf-8"))
    if run["size"] != "card" or run["card"] is None:
        raise ValueError(
            f"{path} is of size {run['size']!r} on card {run['card']}; results are of size 'card' on a GPU."
        )
    target = folder / f"{slug(run['card']['name'])}.json"
    known = json.loads(target.read_text(encoding="utf-8")) if target.exists() else {"runs": [], "steps": {}}
    about = {name: run[name] for name in ("command", "date", "commit", "seconds")} | {"note": note}
    steps = dict(known["steps"])
    for name, step in run["steps"].items():
        if step["status"] == "done" or steps.get(name, {}).get("status") != "done":
            steps[name] = step | {"run": len(known["runs"]) + 1}
    merged = {name: run[name] for name in ("card", "cores", "versions")}
    merged |= {"runs": [*known["runs"], about], "steps": steps}
    folder.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(merged, indent=1) + "\n", encoding="utf-8")
    return target


def committed(folder: Path = RESULTS) -> list[dict]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, help="files of run.py to take in, the oldest first")
    parser.add_argument("--note", default="", help="what a reader should know of these runs")
    options = parser.parse_args()
    for path in options.runs:
        print(f"into {take_in(path, note=options.note)}")
    PAGE.write_text(page(committed()), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
