"""The measured part of a model card: tables and curves of pass@k, during training and after it."""

import re
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..evaluation.display import plot_pass_at_k
from ..evaluation.store import load_results, read_json


TRAINING, RESULTS = "pass@k during training", "pass@k"
TRAINING_CURVE, RESULTS_CURVE = "pass_at_k_training.png", "pass_at_k.png"


def load_card(path: Path) -> tuple[ModelCard, ModelCardData]:
    """A model card and its metadata, which is part of it."""
    card = ModelCard.load(path)
    assert isinstance(card.data, ModelCardData)  # huggingface_hub annotates it as that of any card
    return card, card.data


def mark(name: str, section: str) -> str:
    """A section between markers, by which it is found again."""
    return f"<!-- rlvr_trl: {name} -->\n\n{section}\n\n<!-- rlvr_trl: end of {name} -->"


def results_in(text: str) -> str | None:
    """The section that `add_results_to_card` wrote, with its markers, if there is one."""
    found = re.search(_marked(RESULTS), text, re.DOTALL)
    return None if found is None else found[0]


def _marked(name: str) -> str:
    return rf"<!-- rlvr_trl: {re.escape(name)} -->.*?<!-- rlvr_trl: end of {re.escape(name)} -->"


def training_results(log_history: list[dict], folder: Path) -> str | None:
    """
    The section of what [`PassAtKCallback`] measured, and its curve as `pass_at_k_training.png` in `folder`.

    Args:
        log_history (`list[dict]`): `trainer.state.log_history`, which a resumed run continues.
        folder (`Path`): where the card is.
    """
    measured = _measurements(log_history)
    if not measured:
        return None
    parts, lines = ["## pass@k during training"], {}
    for prefix, by_step in measured.items():
        ks = sorted({k for values in by_step.values() for k in values})
        title = "" if prefix == "eval" else f"`{prefix}`\n\n"
        parts.append(title + _table(["step"], ks, {(str(step),): values for step, values in by_step.items()}))
        for k in ks:
            steps = [step for step, values in by_step.items() if k in values]
            label = f"pass@{k}" if prefix == "eval" else f"{prefix} pass@{k}"
            lines[label] = steps, [by_step[step][k] for step in steps]
    _plot_training(lines, folder / TRAINING_CURVE)
    return "\n\n".join([*parts, f"![pass@k during training]({TRAINING_CURVE})"])


def _measurements(log_history: list[dict]) -> dict[str, dict[int, dict[int, float]]]:
    """Prefix of the metrics -> step -> k -> pass@k."""
    measured = {}
    for entry in log_history:
        for name, value in entry.items():
            if found := re.fullmatch(r"(.+)_pass@(\d+)", name):
                measured.setdefault(found[1], {}).setdefault(entry["step"], {})[int(found[2])] = value
    return {prefix: dict(sorted(by_step.items())) for prefix, by_step in measured.items()}


def add_results_to_card(model_folder: str | Path, *results: str | Path) -> None:
    """
    Writes what `rlvr-trl eval` measured into the model card of a folder: a table, a curve, and the Hub's metadata.

    The curve is `pass_at_k.png` beside the card. What an earlier call wrote is replaced, so name all results at once.
    A trainer in the same process keeps it when it pushes again, until it has trained further.

    Args:
        model_folder (`str` or `Path`): folder with the `README.md`.
        results (`str` or `Path`): `results.json` of one benchmark or of several, or the folders of these.

    Raises:
        `ValueError`: There is no `README.md`; `results` is empty, holds files that `rlvr-trl eval` did not write, or
        has a benchmark twice.
    """
    path = Path(model_folder) / "README.md"
    if not path.exists():
        raise ValueError(f"'{path}' does not exist. The trainer writes it: `trainer.create_model_card()`.")
    evaluations = _load(results)
    card, data = load_card(path)
    section = mark(RESULTS, _evaluation_section(evaluations, path.parent))
    if results_in(card.text) is None:
        before, heading, after = card.text.partition("### Framework versions")
        card.text = "\n\n".join([before.rstrip(), section, heading + after]).rstrip() + "\n"
    else:
        card.text = re.sub(_marked(RESULTS), lambda _: section, card.text, count=1, flags=re.DOTALL)
    data.model_name = data.model_name or Path(model_folder).resolve().name
    data.eval_results = [
        EvalResult(
            task_type="text-generation",
            dataset_type=name,
            dataset_name=name,
            metric_type="pass@k",
            metric_name=f"pass@{k}",
            metric_value=round(value, 4),
        )
        for name, (counts, _) in evaluations.items()
        for k, value in counts.pass_at_k.items()
    ]
    card.save(path)


def _load(results: Sequence[str | Path]) -> dict[str, tuple]:
    """Benchmark -> its counts and its settings."""
    if not results:
        raise ValueError("`results` names no results.json, but at least 1 is needed.")
    evaluations = {}
    for path in map(Path, results):
        counts = load_results(path)
        saved = read_json(path / "results.json" if path.is_dir() else path)
        if twice := counts.keys() & evaluations.keys():
            raise ValueError(f"`results` has the benchmark {sorted(twice)[0]!r} twice, the second time in '{path}'.")
        for name, of_benchmark in counts.items():
            settings = saved["benchmarks"][name] if "benchmarks" in saved else saved
            evaluations[name] = of_benchmark, settings["settings"]
    return evaluations


def _evaluation_section(evaluations: dict[str, tuple], folder: Path) -> str:
    ks = sorted({k for counts, _ in evaluations.values() for k in counts.pass_at_k})
    rows: dict[tuple[str, ...], dict[int, float]] = {}
    for name, (counts, settings) in evaluations.items():
        sampling = f"{settings['num_samples']}", f"{settings['temperature']:g}"
        rows[(name, f"{int(counts.is_scorable.sum())}", *sampling)] = counts.pass_at_k
    curves = {name: counts for name, (counts, _) in evaluations.items()}
    plot_pass_at_k(curves, folder / RESULTS_CURVE, title="pass@k, 95 % intervals over problems")
    table = _table(["benchmark", "problems", "samples", "temperature"], ks, rows)
    return (
        f"## pass@k\n\n{table}\n\nMeans over problems, unbiased, from all samples of each. The bands of the curve are "
        f"95 % intervals over problems.\n\n![pass@k over k]({RESULTS_CURVE})"
    )


def _table(columns: list[str], ks: list[int], rows: dict[tuple[str, ...], dict[int, float]]) -> str:
    head = [*columns, *(f"pass@{k}" for k in ks)]
    lines = [head, ["---"] * len(head)]
    for names, values in rows.items():
        lines.append([*map(_cell, names), *(f"{values[k]:.4f}" if k in values else "–" for k in ks)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """Text of a file as Markdown that shows it: no end of the cell, no tag or comment, no link."""
    return re.sub(r"[\\`*\[\]<>|~$&]", r"\\\g<0>", " ".join(text.split()))


def _plot_training(lines: dict[str, tuple[list[int], list[float]]], path: Path) -> None:
    """One line for each label, over the optimizer step."""
    from matplotlib.figure import Figure  # without pyplot: no screen, and the caller's backend stays

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for label, (steps, values) in lines.items():
        axes.plot(steps, values, marker="o", markersize=4, label=label)
    axes.set(xlabel="optimizer step", ylabel="pass@k")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150, metadata={"Software": None})  # the same bytes for the same numbers
