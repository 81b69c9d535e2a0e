"""
A cell of a comparison: one method, trained from one base model of a task at one learning rate, and tested.

All cells of a task are tested on the same problems. From one base model all methods see the same training problems in
the same order. No two of the sets for warm-up, training, validation and test share a problem.
"""

import hashlib
import json
import platform
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ..evaluation import EvaluationResult, evaluate
from .methods import NUM_GENERATIONS, PROMPTS_PER_STEP, Method, make_method_trainer, rollouts_per_prompt
from .model import build_model
from .progress_bar import show_figures_in_bar
from .tasks import TASKS, Task
from .warmup import warm_up_to


BASE = "base"  # in place of a method: the base model itself is tested
TOKEN_BUDGET = 2**16  # four times the default: a model this small takes a fifth less time with large batches
LOG_POINTS = 20  # entries in the log of a cell, roughly
STRONG, STRONG_TARGET = 10, 0.4  # base models from this number on are warmed up further than the others
TARGET, WARMUP_STEPS = 0.15, 2000  # of the warm-up, where a task does not say more
LOGGED = ("step", "reward", "entropy", "grad_norm", "rollouts/per_prompt_mean")


@dataclass(frozen=True)
class Size:
    """How long a cell trains, in batches of 16 prompts x 16 completions, and on how many problems it is tested."""

    batches: int = 200
    test_problems: int = 200
    samples: int = 64
    validation_problems: int = 100
    validation_samples: int = 32
    warmup_problems: int = 4000


FULL_SIZE = Size()


@dataclass(frozen=True, order=True)
class Cell:
    """
    Attributes:
        task, method (`str`): names of a task and of a method; the method `"base"` is the base model itself.
        rate (`float`): learning rate; 0 for the base model.
        base, seed (`int`): which base model, and the seed of the training problems and of sampling.
        variant (`str`): `"equal"` for as many batches as cost the rollouts of the other methods, or empty.
    """

    task: str
    method: str
    rate: float
    base: int
    seed: int = 0
    variant: str = ""

    def __str__(self) -> str:
        return (
            f"{self.task} {self.method} rate {self.rate:g} base {self.base} seed {self.seed} {self.variant}".rstrip()
        )


# --- problems ---


@dataclass(frozen=True)
class Problems:
    """The problems of a base model: those it is warmed up on, and two sets that are the same for all base models."""

    warmup: Dataset
    validation: Dataset
    test: Dataset


@cache
def problems_of(task_name: str, base: int, size: Size) -> Problems:
    task = TASKS[task_name]
    test = task.draw(size.test_problems, seed=90_001)
    validation = task.draw(size.validation_problems, seed=90_002, exclude=test)
    held_out = [*test[task.name], *validation[task.name]]
    return Problems(task.draw(size.warmup_problems, seed=1000 + base, exclude=held_out), validation, test)


def training_problems(cell: Cell, count: int, size: Size) -> Dataset:
    """The first `count` of a sequence that is the same for every method and learning rate."""
    task, problems = TASKS[cell.task], problems_of(cell.task, cell.base, size)
    exclude = [text for one in (problems.warmup, problems.validation, problems.test) for text in one[task.name]]
    return task.draw(count, seed=100 * (cell.base + 1) + cell.seed, exclude=exclude)


def digest(problems: list[str]) -> str:
    return hashlib.sha256("\n".join(problems).encode()).hexdigest()[:12]


# --- base models ---


def unpacked_base(task: Task, base: int, size: Size, bases: Path, work: Path) -> Path:
    """
    The folder of a base model with its tokenizer, below `work`.

    `bases` keeps the weights of every base model once it was made, in float16, with how it was made beside them. What
    is trained from is always what is kept: so are all cells from the same weights, whichever machine made them.
    """
    folder, kept = work / f"{task.name}-{base}", bases / f"{task.name}-{base}.safetensors"
    if folder.exists():
        return folder
    tokenizer = task.build_tokenizer()
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as temporary:
        if not kept.exists():
            _make_base_model(task, base, size, kept, Path(temporary) / "warmup")
        model = build_model(tokenizer)
        weights = {name: weight.float() for name, weight in load_file(kept).items()}
        model.load_state_dict(weights, strict=False)  # the output head is the embedding
        model.tie_weights()
        made = Path(temporary) / "model"
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():  # another process was faster
                raise
    return folder


def _make_base_model(task: Task, base: int, size: Size, kept: Path, output_dir: Path) -> None:
    problems, tokenizer = problems_of(task.name, base, size), task.build_tokenizer()
    model = build_model(tokenizer, seed=base)
    done = warm_up_to(
        model,
        tokenizer,
        problems.warmup[task.name],
        output_dir=output_dir,
        task=task,
        target=STRONG_TARGET if base >= STRONG else task.target or TARGET,
        validation=problems.validation,
        steps=max(task.warmup_steps, WARMUP_STEPS),
        seed=base,
        disable_tqdm=True,
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f"{kept.name}.tmp")
    save_file({name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}, temporary)
    about = {"validation_pass@1": round(done.pass_at_1, 4), "steps": done.steps, **environment()}
    kept.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    temporary.rename(kept)


# --- a cell ---


def run_cell(
    cell: Cell,
    method: Method | None,
    bases: Path,
    work: Path,
    size: Size = FULL_SIZE,
    batches: int | None = None,
) -> dict:
    """
    Trains and tests a cell.

    Args:
        method ([`Method`], *optional*): what `cell.method` names; `None` for the base model.
        bases, work (`Path`): where base models are kept, and where they are unpacked.
        batches (`int`, *optional*): number of batches; by default as many as hold the prompts of `size.batches`
            batches of 16, but at most that many.

    Returns:
        `dict`: what is saved of it. The right answers of every problem are counted, in the order of the problems.
    """
    begin, task = time.perf_counter(), TASKS[cell.task]
    folder = unpacked_base(task, cell.base, size, bases, work)
    problems = problems_of(cell.task, cell.base, size)
    if method is None:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        trained = {"label": "base model"}
    else:
        if batches is None:
            batches = min(size.batches, size.batches * PROMPTS_PER_STEP // method.prompts_per_batch)
        examples = training_problems(cell, batches * method.prompts_per_batch, size)
        model, tokenizer, trained = _train(cell, method, folder, examples, batches)
    tested = {
        "validation": (problems.validation, size.validation_samples),
        "test": (problems.test, size.samples),
    }
    found = {}
    for name, (rows, samples) in tested.items():
        options = {"num_samples": samples, "max_new_tokens": task.max_completion_length, "seed": cell.seed}
        found[name] = measured(
            evaluate(model, tokenizer, rows, task.reward, token_budget=TOKEN_BUDGET, progress=False, **options)
        )
    seconds = round(time.perf_counter() - begin, 1)
    return {"cell": asdict(cell), **trained, **found, "seconds": seconds, **environment()}


def _train(cell: Cell, method: Method, base: Path, examples: Dataset, batches: int) -> tuple:
    task = TASKS[cell.task]
    updates = batches * method.updates_per_batch
    with tempfile.TemporaryDirectory() as output_dir:
        changes = {"learning_rate": cell.rate, "logging_steps": max(1, updates // LOG_POINTS), "disable_tqdm": True}
        trainer = make_method_trainer(method, base, Path(output_dir), examples, seed=cell.seed, task=task, **changes)
        show_figures_in_bar(trainer, method.label, {})
        trainer.train()
    # the last entry sums up the run, and also covers the steps after the last regular one
    log = [entry for entry in trainer.state.log_history if "reward" in entry]
    regular = [entry for entry in log if "loss" in entry]
    saved = {
        "label": method.label,
        "settings": json.loads(json.dumps(method.settings, default=str)),
        "rewards": [getattr(reward, "__name__", type(reward).__name__) for reward in method.rewards_on(task)],
        "batches": batches,
        "updates": trainer.state.global_step,
        "completions": round(batches * method.prompts_per_batch * rollouts_per_prompt(method, log)),
        "tokens": round(log[-1]["num_tokens"]),
        "log": log_columns(regular, LOGGED),
    }
    return trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class, saved


def equal_batches(full: dict, size: Size) -> int:
    """As many batches as cost the rollouts of `size.batches` batches of 16 x 16, by what `full` cost."""
    budget = size.batches * PROMPTS_PER_STEP * NUM_GENERATIONS
    return max(1, round(budget / full["completions"] * full["batches"]))


def log_columns(entries: list[dict], names: tuple[str, ...]) -> dict[str, list]:
    """Those of the names that the first entry has, with their rounded values in all entries."""
    return {name: [_rounded(entry[name]) for entry in entries] for name in names if name in entries[0]}


def measured(result: EvaluationResult) -> dict:
    """The correct samples of every problem, from which pass@k follows, and a digest that identifies the problems."""
    means = ("token_entropy", "answer_entropy", "wrong_answer_diversity", "mean_length", "truncated_share")
    return {
        "problems": digest(result.prompts),
        "num_samples": result.settings["num_samples"],
        "num_correct": result.num_correct.tolist(),
        **{name: _rounded(getattr(result, name)) for name in means},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 4)


@cache
def environment() -> dict:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    versions = {"python": platform.python_version()} | {
        name: version(name) for name in ("torch", "transformers", "trl")
    }
    return {"versions": versions, "device": device}
