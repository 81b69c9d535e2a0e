"""
A cell of a comparison: one method, trained from one base model of a task at one learning rate, and tested.

All cells of a task are tested on the same problems. From one base model all methods see the same training problems in
the same order; a method with fewer prompts sees the first of them, in an order of its own. No two of the sets for
warm-up, training, validation and test share a problem.
"""

import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainerCallback

from ..evaluation import EvaluationResult, evaluate
from .methods import NUM_GENERATIONS, PROMPTS_PER_STEP, Method, make_method_trainer
from .model import build_model
from .progress_bar import show_figures_in_bar
from .tasks import TASKS, Task
from .warmup import warm_up_to


BASE = "base"  # in place of a method: the base model itself is tested
TOKEN_BUDGET = 2**16  # four times the default: a model this small takes a fifth less time with large batches
LOG_POINTS = 20  # entries in the log of a cell
STRONG, STRONG_TARGET = 10, 0.4  # base models from this number on are warmed up further than the others
TARGET, WARMUP_STEPS = 0.15, 2000  # of the warm-up, where a task does not say more
LOGGED = ("step", "reward", "entropy", "grad_norm", "rollouts/per_prompt_mean")
OF_BATCHES = (
    *("groups/frac_all_wrong", "groups/frac_all_right"),
    *("rollouts/prompts_sampled", "rollouts/frac_dropped", "rollouts/rounds", "history/prediction_error"),
)


@dataclass(frozen=True)
class Size:
    """
    How long a cell trains, in batches of 16 prompts x 16 completions, and on how many problems it is tested.

    Attributes:
        training_problems (`int`, *optional*):
            Size of a training set that is gone through again and again. By default every problem is new.
        max_tokens (`int`, *optional*):
            Training ends before the batch with which more tokens of completions would have been sampled than this.
    """

    batches: int = 100
    test_problems: int = 200
    samples: int = 64
    validation_problems: int = 100
    validation_samples: int = 32
    warmup_problems: int = 4000
    training_problems: int | None = None
    max_tokens: int | None = None


FULL_SIZE = Size()


@dataclass(frozen=True, order=True)
class Cell:
    """
    Attributes:
        task, method (`str`): names of a task and of a method; the method `"base"` is the base model itself.
        rate (`float`): learning rate; 0 for the base model.
        base, seed (`int`): which base model, and the seed of the training problems and of sampling.
    """

    task: str
    method: str
    rate: float
    base: int
    seed: int = 0

    def __str__(self) -> str:
        return f"{self.task} {self.method} rate {self.rate:g} base {self.base} seed {self.seed}"


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
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}.tmp")
    save_file({name: weight.detach().half().contiguous() for name, weight in model.named_parameters()}, temporary)
    about = {"validation_pass@1": round(done.pass_at_1, 4), "steps": done.steps, **environment()}
    kept.with_suffix(".json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    temporary.rename(kept)


# --- a cell ---


def run_cell(cell: Cell, method: Method | None, bases: Path, work: Path, size: Size = FULL_SIZE) -> dict:
    """
    Trains and tests a cell, for as many batches as hold the prompts of `size.batches` batches of 16, but at most that
    many.

    Args:
        method ([`Method`], *optional*): what `cell.method` names; `None` for the base model.
        bases, work (`Path`): where base models are kept, and where they are unpacked.

    Returns:
        `dict`: what is saved of it. The right answers of every problem are counted, in the order of the problems. A
        method that sampled more completions than `size.batches` batches of 16 x 16 hold is also tested as it was
        before the batch with which it exceeded them: under `"equal"`. With `size.max_tokens` a method is tested as
        it was before the batch with which it exceeded these tokens, and so in no other way.
    """
    begin, task = time.perf_counter(), TASKS[cell.task]
    folder = unpacked_base(task, cell.base, size, bases, work)
    problems = problems_of(cell.task, cell.base, size)

    def tested(model) -> dict:
        parts = {"validation": (problems.validation, size.validation_samples), "test": (problems.test, size.samples)}
        options = {"max_new_tokens": task.max_completion_length, "seed": cell.seed, "token_budget": TOKEN_BUDGET}
        return {
            name: measured(
                evaluate(model, tokenizer, rows, task.reward, num_samples=samples, progress=False, **options)
            )
            for name, (rows, samples) in parts.items()
        }

    if method is None:
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        saved = {"label": "base model", **tested(model)}
    else:
        batches = min(size.batches, size.batches * PROMPTS_PER_STEP // method.prompts_per_batch)
        examples = training_problems(cell, size.training_problems or batches * method.prompts_per_batch, size)
        if size.max_tokens is None:
            within = WithinBudget(size.batches * PROMPTS_PER_STEP * NUM_GENERATIONS, method.completions_of)
        else:
            within = WithinBudget(size.max_tokens, method.tokens_of, stop=True)
        trainer = _train(cell, method, folder, examples, batches, within)
        model: Any = trainer.model
        tokenizer = trainer.processing_class
        if size.max_tokens is not None:
            if not within.exceeded:
                raise ValueError(f"{batches} batches sampled {within.spent} tokens, fewer than {size.max_tokens}")
            model.load_state_dict(within.weights)
        saved = {"label": method.label, **_about_training(trainer, method, task, within), **tested(model)}
        if size.max_tokens is None and within.exceeded and within.batches:
            model.load_state_dict(within.weights)
            saved["equal"] = {"batches": within.batches, "completions": within.spent, **tested(model)}
    seconds = round(time.perf_counter() - begin, 1)
    return {"cell": asdict(cell), **saved, "seconds": seconds, **environment()}


class WithinBudget(TrainerCallback):
    """
    Keeps the weights of the last batch with which a run stays within a budget. As the learning rate does not fall, a
    run that ends there is the beginning of a longer one. The trainer logs once a batch.

    Args:
        budget (`int`): in whatever `cost` counts.
        cost (`Callable`): what a batch has cost, from what the trainer logged of it.
        stop (`bool`, *optional*, defaults to `False`): whether training ends once it is exceeded.
    """

    def __init__(self, budget: int, cost: Callable[[dict], float], stop: bool = False):
        self.budget, self.cost, self.stop = budget, cost, stop
        self.batches = self.spent = 0
        self.exceeded, self.weights = False, {}

    def on_log(self, args, state, control, **kwargs):
        logs, model = kwargs["logs"], kwargs["model"]
        if self.exceeded or "loss" not in logs:  # the last entry sums up the run
            return
        cost = round(self.cost(logs))
        self.exceeded = self.spent + cost > self.budget
        if not self.exceeded:
            self.batches, self.spent = self.batches + 1, self.spent + cost
            self.weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        control.should_training_stop |= self.exceeded and self.stop


def _train(cell: Cell, method: Method, base: Path, examples: Dataset, batches: int, within: WithinBudget) -> Trainer:
    with tempfile.TemporaryDirectory() as output_dir:
        changes = {"learning_rate": cell.rate, "logging_steps": method.updates_per_batch, "disable_tqdm": True}
        trainer = make_method_trainer(
            *(method, base, Path(output_dir), examples),
            batches=batches,
            seed=cell.seed,
            task=TASKS[cell.task],
            **changes,
        )
        show_figures_in_bar(trainer, method.label, {})
        trainer.add_callback(within)
        trainer.train()
    return trainer


def _about_training(trainer: Trainer, method: Method, task: Task, within: WithinBudget) -> dict:
    log = [entry for entry in trainer.state.log_history if "loss" in entry]
    log = log[: within.batches] if within.stop else log
    saved = {
        "settings": json.loads(json.dumps(method.settings, default=str)),
        "rewards": [getattr(reward, "__name__", type(reward).__name__) for reward in method.rewards_on(task)],
        "batches": len(log),
        "updates": len(log) * method.updates_per_batch,
        "completions": round(sum(map(method.completions_of, log))),
        "tokens": round(log[-1]["num_tokens"]),
        "log": log_columns(log, LOGGED, points=LOG_POINTS),
    }
    if within.stop:  # what each batch trained on, for the share of mixed groups and of batches with one round
        columns = {name: [_rounded(entry.get(name)) for entry in log] for name in OF_BATCHES}
        saved["of_batches"] = {name: values for name, values in columns.items() if any(v is not None for v in values)}
        saved["tokens_sampled"] = within.spent
    return saved


def log_columns(entries: list[dict], names: tuple[str, ...], points: int = 100) -> dict[str, list]:
    """
    Those of the names that the first entry has, each with at most `points` rounded values: means over as many entries
    in a row, and of `"step"` the last of these.
    """
    parts = [part.tolist() for part in np.array_split(np.arange(len(entries)), min(points, len(entries)))]
    columns = {}
    for name in (name for name in names if name in entries[0]):
        values = [[entries[i][name] for i in part] for part in parts]
        columns[name] = [part[-1] if name == "step" else _rounded(float(np.mean(part))) for part in values]
    return columns


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
