"""The demo: what GRPO and other methods do to pass@k, on a model small enough for a laptop."""

import json
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from rich import box
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

from ..data.reading import as_dataset
from ..evaluation import EvaluationResult, compare, evaluate, plot_pass_at_k
from ..registry import did_you_mean
from ..terminal import literal, print_tables
from .methods import METHODS, PROMPTS_PER_STEP, rollouts_per_prompt, train
from .model import build_model
from .tasks import MAZE, TASKS, Task
from .warmup import WarmUp, warm_up, warm_up_to


BASE = "base"
SHOWN_KS = (1, 8, 32, 64)
SETTINGS_FILE = "demo.json"


@dataclass(frozen=True)
class DemoSettings:
    """The task and the size of the demo; the defaults are the full one on mazes."""

    task: str = MAZE.name
    warmup_problems: int = MAZE.warmup_problems
    warmup_steps: int = MAZE.warmup_steps
    target: float | None = MAZE.target
    steps: int = 300
    test_problems: int = 200
    samples: int = 64
    seed: int = 0


VALIDATION_PROBLEMS = 100  # by which a warm-up to a target is ended


def demo_settings(task: str, quick: bool = False, seed: int = 0) -> DemoSettings:
    """
    The settings of the demo on a task.

    Raises:
        `ValueError`: There is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"Unknown task {task!r}.{did_you_mean(task, TASKS)} Valid tasks: {', '.join(TASKS)}.")
    chosen = TASKS[task]
    settings = DemoSettings(task, chosen.warmup_problems, chosen.warmup_steps, chosen.target, seed=seed)
    if quick and chosen.target is None:
        settings = replace(settings, warmup_problems=3000, warmup_steps=300)
    return replace(settings, steps=60, test_problems=100) if quick else settings


def run_demo(
    output_dir: str | Path, methods: list[str], settings: DemoSettings, disable_tqdm: bool = False
) -> dict[str, EvaluationResult]:
    """
    Warms up a base model, trains each method from it, evaluates all on held-out problems, and reports.

    Writes into `output_dir`: `results.json`, `pass_at_k.png`, and a folder with model and tokenizer for the base and
    each method.

    Args:
        output_dir (`str` or `Path`):
            A new or empty folder, or the folder of an earlier demo, which is replaced.
        methods (`list[str]`):
            Names in `METHODS`, each once.
        settings ([`DemoSettings`]):
            The task and the size of the demo.
        disable_tqdm (`bool`, *optional*, defaults to `False`):
            Whether to hide the progress bars.

    Returns:
        `dict[str, EvaluationResult]`: the evaluation of the base and of each method.

    Raises:
        `ValueError`: A method is unknown or named twice, or `output_dir` holds anything other than a demo.
    """
    _check_methods(methods)
    task = TASKS[settings.task]
    folder = _claim_folder(Path(output_dir), settings)
    console, start = Console(), time.perf_counter()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.disable_progress_bar()  # of loading weights; the demo has its own

    console.print(f"Drawing {task.noun}: a held-out test set first, then others to train on.")
    test = task.draw(settings.test_problems, seed=settings.seed)
    num_train = settings.warmup_problems + settings.steps * PROMPTS_PER_STEP
    num_validation = 0 if settings.target is None else VALIDATION_PROBLEMS
    pool = task.draw(num_train + num_validation, seed=settings.seed + 1, exclude=test)
    training = as_dataset(pool.select(range(settings.warmup_problems, num_train)))

    warmed_up = _warm_up(task, pool, settings, folder / BASE, disable_tqdm)
    if warmed_up is not None:
        console.print(
            f"The base model has a pass@1 of {warmed_up.pass_at_1:.3f} on other {task.noun} after {warmed_up.steps} "
            "steps."
        )
    options = {"seed": settings.seed, "task": task, "disable_tqdm": disable_tqdm}
    logs = {name: train(METHODS[name], folder / BASE, folder / name, training, **options) for name in methods}
    results = {}
    for name in [BASE, *methods]:
        console.print(f"Evaluating {label(name)} on the test {task.noun}.")
        results[name] = evaluate_checkpoint(
            folder / name, test, settings.samples, settings.seed, progress=not disable_tqdm, task=task
        )

    rollouts = {name: rollouts_per_prompt(METHODS[name], logs[name]) for name in methods}
    conclusion = describe_results(results)
    _write_report(folder, settings, warmed_up, results, logs, rollouts, conclusion, time.perf_counter() - start)
    plot_pass_at_k(
        {label(name): result for name, result in results.items()},
        folder / "pass_at_k.png",
        title=f"Held-out {task.noun}: pass@k after training",
    )
    print_tables(make_table(results, rollouts, task.noun))
    console.print(conclusion)
    seconds = time.perf_counter() - start
    console.print(f"Wrote {literal(str(folder))}/results.json, pass_at_k.png and the models in {seconds:.0f} s.")
    return results


def _warm_up(task: Task, pool: Dataset, settings: DemoSettings, folder: Path, disable_tqdm: bool) -> WarmUp | None:
    """Warms up on the first problems of the pool: for some steps, or to a target on the last ones."""
    tokenizer = task.build_tokenizer()
    model, problems = build_model(tokenizer, seed=settings.seed), pool[: settings.warmup_problems][task.name]
    options: dict[str, Any] = {"output_dir": folder, "task": task, "steps": settings.warmup_steps}
    options |= {"seed": settings.seed, "disable_tqdm": disable_tqdm}
    if settings.target is None:
        warm_up(model, tokenizer, problems, **options)
        return None
    validation = as_dataset(pool.select(range(len(pool) - VALIDATION_PROBLEMS, len(pool))))
    return warm_up_to(model, tokenizer, problems, target=settings.target, validation=validation, **options)


def label(name: str) -> str:
    return "base" if name == BASE else METHODS[name].label


def _check_methods(methods: list[str]) -> None:
    for name in methods:
        if name not in METHODS:
            hint = did_you_mean(name, METHODS)
            raise ValueError(f"Unknown method {name!r}.{hint} Valid methods: {', '.join(METHODS)}.")
    if not methods or len(set(methods)) < len(methods):
        raise ValueError(f"`methods` must name at least one method, and each once, got {methods}.")


def _claim_folder(folder: Path, settings: DemoSettings) -> Path:
    """Refuses a folder with anything in it but an earlier demo, so that no one's files are overwritten."""
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not (folder / SETTINGS_FILE).exists())):
        raise ValueError(
            f"`output_dir` {str(folder)!r} exists and is not the folder of an earlier demo. Name a new folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").unlink(missing_ok=True)  # they would not belong to the models of this run
    (folder / SETTINGS_FILE).write_text(json.dumps(asdict(settings), indent=2) + "\n", encoding="utf-8")
    return folder


def evaluate_checkpoint(
    folder: Path, test, samples: int, seed: int, progress: bool, task: Task = MAZE
) -> EvaluationResult:
    """Loads a trained model from its folder, as any user would, and evaluates it on the test problems."""
    return evaluate(
        AutoModelForCausalLM.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
        test,
        task.reward,
        num_samples=samples,
        max_new_tokens=task.max_completion_length,
        seed=seed,
        progress=progress,
    )


def _write_report(folder, settings, warmed_up, results, logs, rollouts, conclusion, seconds) -> None:
    report = {
        "settings": asdict(settings),
        "seconds": round(seconds, 1),
        "conclusion": conclusion,
        "methods": {
            name: {"label": label(name), "rollouts_per_prompt": rollouts.get(name), **result.to_dict()}
            for name, result in results.items()
        },
        "logs": logs,
    }
    if warmed_up is not None:
        report["warm_up"] = asdict(warmed_up)
    (folder / "results.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def make_table(results: dict[str, EvaluationResult], rollouts: dict[str, float], noun: str = MAZE.noun) -> Table:
    """Each method's pass@k with half the width of its 95 % interval, entropies, and rollouts per prompt."""
    ks = _shown_ks(results)
    some = next(iter(results.values()))
    title = f"{len(some.prompts)} held-out {noun}, {some.settings['num_samples']} samples each"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("", width=9)  # in two lines, as the cells are; all columns together take 60
    for k in ks:
        table.add_column(f"pass\n@{k}", justify="right", no_wrap=True)
    for header in ("token\nentropy", "answer\nentropy", "roll-\nouts/\nprompt"):
        table.add_column(header, justify="right", no_wrap=True)
    for name, result in results.items():
        means, intervals = result.pass_at_k, result.intervals()
        cells = [f"{means[k]:.3f}\n±{(intervals[k][1] - intervals[k][0]) / 2:.3f}" for k in ks]
        entropies = (f"{result.token_entropy:.2f}", f"{result.answer_entropy:.2f}")
        table.add_row(label(name), *cells, *entropies, f"{rollouts[name]:.1f}" if name in rollouts else "")
    return table


def describe_results(results: dict[str, EvaluationResult]) -> str:
    """One sentence on what the figures show: GRPO against the base, other methods against GRPO if it was trained."""
    wide = max(k for k in _shown_ks(results) if k <= 32)
    against = {name: "grpo" if "grpo" in results and name != "grpo" else BASE for name in results if name != BASE}
    return "; ".join(_compared(results, name, other, sorted({1, wide})) for name, other in against.items()) + "."


def _shown_ks(results: dict[str, EvaluationResult]) -> list[int]:
    return [k for k in SHOWN_KS if all(k in result.ks for result in results.values())]


def _compared(results: dict[str, EvaluationResult], name: str, other: str, ks: list[int]) -> str:
    verdicts = []
    for k in ks:
        difference, low, high = compare(results[name], results[other], k)
        verb = "above" if low > 0 else "below" if high < 0 else "not told apart"
        verdicts.append(f"{verb} at pass@{k} ({difference:+.3f} [{low:+.3f}, {high:+.3f}])")
    return f"{label(name)} against {label(other)} is {' and '.join(verdicts)}"
