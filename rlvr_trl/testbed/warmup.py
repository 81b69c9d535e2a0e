"""Supervised warm-up: the tiny model learns to answer often enough for reinforcement learning to begin."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from ..checks import check_integer
from ..evaluation import evaluate
from ..mazes import RandomWalks
from .progress_bar import show_figures_in_bar
from .tasks import MAZE, Task


def demonstrations(mazes: Iterable[str], count: int, random_move_probability: float = 0.25, seed: int = 0) -> Dataset:
    """
    Makes walks from S to E that are right but not all short, so that a model trained on them stays uncertain.

    With probability `random_move_probability` a step of the walk is drawn uniformly from the legal moves, otherwise
    from those that begin a shortest path to E. The walk stops on E. A walk of more than 9 moves is drawn again, on the
    same maze. [`Task.demonstrations`] does the same for any task.

    Args:
        mazes (iterable of `str`):
            Texts of mazes whose shortest path has at most 9 moves.
        count (`int`):
            Number of walks; each is on a maze drawn uniformly.
        random_move_probability (`float`, *optional*, defaults to `0.25`):
            Probability of a random move, in [0, 1].
        seed (`int`, *optional*, defaults to `0`):
            Seed of the mazes and the moves.

    Returns:
        [`~datasets.Dataset`]: `count` rows with the columns `prompt` (style `"bare"`), `completion` (`<answer>`, the
        moves, `</answer>`), `maze` and `moves`.

    Raises:
        ValueError: If there are no mazes, the probability is outside [0, 1], or a maze has no path of at most 9 moves.
    """
    walks = partial(RandomWalks, random_move_probability=random_move_probability)
    return replace(MAZE, answers=walks).demonstrations(mazes, count, seed).rename_column("answer", "moves")


def warm_up(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Iterable[str],
    *,
    output_dir: str | Path,
    task: Task = MAZE,
    steps: int = 400,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    disable_tqdm: bool = False,
) -> list[float]:
    """
    Trains the model in place on demonstrations of a task, each of them once, and saves it with its tokenizer.

    The loss counts the completion only. The learning rate rises over the first 30 steps (a tenth of the steps, if that
    is less) and falls to 0 over the last 30 %.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, trained in place; it is on a GPU afterwards if there is one.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer of the model.
        problems (iterable of `str`):
            Texts of the mazes, or other problems, to demonstrate. Those of a test set do not belong here.
        output_dir (`str` or `Path`):
            Folder for the trained model and the tokenizer.
        task ([`Task`], *optional*):
            The task; mazes by default.
        steps (`int`, *optional*, defaults to `400`):
            Optimizer steps. After many more, the model leaves reinforcement learning little to find.
        batch_size (`int`, *optional*, defaults to `64`):
            Demonstrations per step.
        learning_rate (`float`, *optional*, defaults to `2e-3`):
            Peak learning rate of AdamW.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the demonstrations and their order.
        disable_tqdm (`bool`, *optional*, defaults to `False`):
            Whether to hide the progress bar.

    Returns:
        `list[float]`: the loss per completion token, in nats: the means over consecutive twentieths of the steps, or
        of single steps if there are fewer than 40.
    """
    return imitate(
        model,
        tokenizer,
        tokenize_demonstrations(task.demonstrations(problems, steps * batch_size, seed), tokenizer),
        output_dir=output_dir,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        disable_tqdm=disable_tqdm,
    )


class EndlessDemonstrations(torch.utils.data.IterableDataset):
    """Demonstrations as rows of tokens, made a batch at a time, because no one knows how many training will take."""

    def __init__(self, rows: Iterator[dict[str, str]], tokenizer: PreTrainedTokenizerBase, batch_size: int):
        self.rows, self.tokenizer, self.batch_size = rows, tokenizer, batch_size

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        while True:
            rows = list(islice(self.rows, self.batch_size))
            yield from _tokenized([row["prompt"] for row in rows], [row["completion"] for row in rows], self.tokenizer)


class StopAtTarget(TrainerCallback):
    """
    Checks pass@1 while the learning rate is constant. Once it has reached the target, the rate falls to 0 and training
    ends.

    Raises:
        ValueError: If the target is not reached within `steps`.
    """

    def __init__(self, target: float, pass_at_1: Callable[[], float], every: int, steps: int, decay_steps: int):
        self.target, self.pass_at_1, self.every = target, pass_at_1, every
        self.steps, self.decay_steps = steps, decay_steps
        self.reached: int | None = None  # the step
        self.rate = 0.0  # the learning rate at that step, from which it falls
        self.checks: list[tuple[int, float]] = []

    def on_step_begin(self, args, state, control, **kwargs):
        if self.reached is not None:
            left = 1 - (state.global_step - self.reached) / self.decay_steps
            for group in kwargs["optimizer"].param_groups:
                group["lr"] = self.rate * left

    def on_step_end(self, args, state, control, **kwargs):
        if self.reached is not None:
            if state.global_step == self.reached + self.decay_steps:
                control.should_training_stop = True
        elif state.global_step % self.every == 0:
            self.checks.append((state.global_step, self.pass_at_1()))
            if self.checks[-1][1] >= self.target:
                self.reached, self.rate = state.global_step, kwargs["optimizer"].param_groups[0]["lr"]
            elif state.global_step + self.every > self.steps:
                best = max(value for _, value in self.checks)
                raise ValueError(
                    f"pass@1 on validation problems must reach `target`={self.target} within `steps`={self.steps}, "
                    f"but was at most {best:.3f}. Raise `steps`, or lower `target`."
                )


@dataclass(frozen=True)
class WarmUp:
    """
    What [`warm_up_to`] did.

    Attributes:
        pass_at_1 (`float`):
            pass@1 on the validation problems at the end.
        steps (`int`):
            Optimizer steps in all, those with a falling learning rate included.
        checks (`list[tuple[int, float]]`):
            Step and pass@1 of each check before the learning rate fell.
    """

    pass_at_1: float
    steps: int
    checks: list[tuple[int, float]]


def warm_up_to(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: Iterable[str],
    *,
    output_dir: str | Path,
    task: Task,
    target: float,
    validation: Dataset,
    steps: int,
    decay_steps: int = 25,
    check_every: int = 10,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    seed: int = 0,
    disable_tqdm: bool = False,
) -> WarmUp:
    """
    Trains as [`warm_up`] does, but until the model solves a share of validation problems instead of for some steps.

    Models differ much in when they begin to answer right, and then learn within a few hundred steps, so models of
    different seeds are alike at the same pass@1 and not at the same step. The learning rate rises over 30 steps and
    stays constant until a check finds `target`; then it falls to 0 over `decay_steps`, in which pass@1 rises further.
    A check takes 8 samples of every validation problem.

    Args:
        model, tokenizer, problems, output_dir, task, batch_size, learning_rate, disable_tqdm: as in [`warm_up`].
        target (`float`):
            The pass@1 at which the learning rate begins to fall, in (0, 1).
        validation ([`~datasets.Dataset`]):
            Problems of the task that are not among `problems`, as [`Task.draw`] returns them.
        steps (`int`):
            Most optimizer steps before `target` is reached.
        decay_steps (`int`, *optional*, defaults to `25`):
            Optimizer steps in which the learning rate falls to 0.
        check_every (`int`, *optional*, defaults to `10`):
            Optimizer steps from one check to the next.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the demonstrations, their order, and the samples of the checks.

    Returns:
        [`WarmUp`]: what was reached, and when.

    Raises:
        ValueError: If a setting is out of range, or if `target` is not reached within `steps`.
    """
    check_integer("decay_steps", decay_steps, at_least=1)
    check_integer("check_every", check_every, at_least=1)
    if not 0 < target < 1:
        raise ValueError(f"`target` must be between 0 and 1, got {target!r}.")
    if steps < check_every:
        raise ValueError(f"`steps` must be at least `check_every`={check_every}, got {steps!r}.")

    def pass_at_1() -> float:
        options = {"num_samples": 8, "max_new_tokens": task.max_completion_length, "seed": seed, "progress": False}
        return evaluate(model, tokenizer, validation, task.reward, **options).pass_at_k[1]

    stop = StopAtTarget(target, pass_at_1, check_every, steps, decay_steps)
    imitate(
        model,
        tokenizer,
        EndlessDemonstrations(task.endless_demonstrations(problems, seed), tokenizer, batch_size),
        output_dir=output_dir,
        steps=steps + decay_steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        disable_tqdm=disable_tqdm,
        stop=stop,
    )
    return WarmUp(pass_at_1(), stop.checks[-1][0] + decay_steps, stop.checks)


def imitate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    examples: Dataset | torch.utils.data.Dataset,
    *,
    output_dir: str | Path,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    disable_tqdm: bool,
    stop: StopAtTarget | None = None,
) -> list[float]:
    """The training of [`warm_up`] on what [`tokenize_demonstrations`] made, which may come from several processes."""
    decay_steps = int(0.3 * steps) if stop is None else stop.decay_steps
    args = TrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": decay_steps},
        warmup_steps=min(30, steps // 10) if stop is None else 30,
        seed=seed,
        bf16=False,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=max(1, steps // 20),
        save_strategy="no",
        report_to="none",
        disable_tqdm=disable_tqdm,
    )
    collator = DataCollatorForSeq2Seq(tokenizer)
    trainer = Trainer(model, args, collator, train_dataset=examples, processing_class=tokenizer)
    show_figures_in_bar(trainer, "warm-up", {"loss": "loss"})
    if stop is not None:
        trainer.add_callback(stop)
    trainer.train()
    trainer.save_model()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def tokenize_demonstrations(demonstrations: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Token ids of prompt, completion and end token; the labels of the prompt are -100, which the loss ignores."""
    return Dataset.from_list(_tokenized(demonstrations["prompt"], demonstrations["completion"], tokenizer))


def _tokenized(
    prompts: Iterable[str], completions: Iterable[str], tokenizer: PreTrainedTokenizerBase
) -> list[dict[str, list[int]]]:
    prompt_ids = tokenizer(list(prompts))["input_ids"]
    completion_ids = tokenizer(list(completions))["input_ids"]
    return [
        {
            "input_ids": prompt + completion + [tokenizer.eos_token_id],
            "labels": [-100] * len(prompt) + completion + [tokenizer.eos_token_id],
        }
        for prompt, completion in zip(prompt_ids, completion_ids, strict=True)
    ]
