"""Supervised warm-up: the model of `maze_model` learns to answer often enough for reinforcement learning to begin."""

import random
from collections.abc import Iterable
from pathlib import Path

import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)

from ..answer_text import CLOSING_TAG, OPENING_TAG
from ..data.maze import make_prompt
from ..mazes import MOVES, parse_maze, shortest_paths, step
from .progress_bar import show_figures_in_bar


# `<answer>`, the moves, `</answer>` and the end token fit the 12 tokens that a completion may have.
MAX_MOVES = 9


def demonstrations(mazes: Iterable[str], count: int, random_move_probability: float = 0.25, seed: int = 0) -> Dataset:
    """
    Makes walks from S to E that are right but not all short, so that a model trained on them stays uncertain.

    With probability `random_move_probability` a step of the walk is drawn uniformly from the legal moves, otherwise
    from those that begin a shortest path to E. The walk stops on E. A walk of more than 9 moves is drawn again, on the
    same maze.

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
    if not 0 <= random_move_probability <= 1:
        raise ValueError(f"random_move_probability must be in [0, 1], found {random_move_probability}")
    guides = [_guide(maze) for maze in mazes]
    if not guides:
        raise ValueError("mazes must hold at least one maze, found none")
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        maze, start, choices = rng.choice(guides)
        moves = _walk(rng, start, choices, random_move_probability)
        while len(moves) > MAX_MOVES:
            moves = _walk(rng, start, choices, random_move_probability)
        completion = f"{OPENING_TAG}{moves}{CLOSING_TAG}"
        rows.append({"prompt": make_prompt(maze, "bare"), "completion": completion, "maze": maze, "moves": moves})
    return Dataset.from_list(rows)


def warm_up(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    mazes: Iterable[str],
    *,
    output_dir: str | Path,
    steps: int = 400,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    random_move_probability: float = 0.25,
    seed: int = 0,
    disable_tqdm: bool = False,
) -> list[float]:
    """
    Trains the model in place on [`demonstrations`], each of them once, and saves it with its tokenizer.

    The loss counts the completion only. The learning rate rises over the first 30 steps (a tenth of the steps, if that
    is less) and falls to 0 over the last 30 %.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            The model, trained in place; it is on a GPU afterwards if there is one.
        tokenizer ([`~transformers.PreTrainedTokenizerBase`]):
            The tokenizer of the model.
        mazes (iterable of `str`):
            Texts of the mazes to demonstrate. Test mazes do not belong here.
        output_dir (`str` or `Path`):
            Folder for the trained model and the tokenizer.
        steps (`int`, *optional*, defaults to `400`):
            Optimizer steps. After many more, the model leaves reinforcement learning little to find.
        batch_size (`int`, *optional*, defaults to `64`):
            Demonstrations per step.
        learning_rate (`float`, *optional*, defaults to `2e-3`):
            Peak learning rate of AdamW.
        random_move_probability (`float`, *optional*, defaults to `0.25`):
            See [`demonstrations`].
        seed (`int`, *optional*, defaults to `0`):
            Seed of the demonstrations and their order.
        disable_tqdm (`bool`, *optional*, defaults to `False`):
            Whether to hide the progress bar.

    Returns:
        `list[float]`: the loss per completion token, in nats: the means over consecutive twentieths of the steps, or
        of single steps if there are fewer than 40.
    """
    walks = demonstrations(mazes, steps * batch_size, random_move_probability, seed)
    return imitate(
        model,
        tokenizer,
        tokenize_walks(walks, tokenizer),
        output_dir=output_dir,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        disable_tqdm=disable_tqdm,
    )


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
) -> list[float]:
    """The training of [`warm_up`] on what [`tokenize_walks`] returned, which may come from several processes."""
    args = TrainingArguments(
        output_dir=str(output_dir),
        max_steps=steps,
        per_device_train_batch_size=batch_size,
        learning_rate=learning_rate,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": int(0.3 * steps)},
        warmup_steps=min(30, steps // 10),
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
    trainer.train()
    trainer.save_model()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _guide(maze: str) -> tuple[str, tuple, dict]:
    """The maze, its start, and for each cell but E the legal moves and the shortest ones, each with its target."""
    rows, start, end = parse_maze(maze)
    distance = {cell: len(path) for cell, path in shortest_paths(rows, end).items()}
    if distance.get(start, MAX_MOVES + 1) > MAX_MOVES:
        found = distance.get(start, "no")
        raise ValueError(f"a demonstration has at most {MAX_MOVES} moves, found {found} moves from S to E in {maze!r}")
    choices = {}
    for cell in distance.keys() - {end}:
        legal = [(move, target) for move in MOVES if (target := step(rows, cell, move)) is not None]
        choices[cell] = legal, [(move, target) for move, target in legal if distance[target] < distance[cell]]
    return maze, start, choices


def _walk(rng: random.Random, cell: tuple, choices: dict, random_move_probability: float) -> str:
    """One walk to E, cut off once it is too long."""
    moves = ""
    while cell in choices and len(moves) <= MAX_MOVES:
        legal, shortest = choices[cell]
        move, cell = rng.choice(legal if rng.random() < random_move_probability else shortest)
        moves += move
    return moves


def tokenize_walks(walks: Dataset, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Token ids of prompt, completion and end token; the labels of the prompt are -100, which the loss ignores."""
    prompts = tokenizer(list(walks["prompt"]))["input_ids"]
    completions = tokenizer(list(walks["completion"]))["input_ids"]
    rows = [
        {
            "input_ids": prompt + completion + [tokenizer.eos_token_id],
            "labels": [-100] * len(prompt) + completion + [tokenizer.eos_token_id],
        }
        for prompt, completion in zip(prompts, completions, strict=True)
    ]
    return Dataset.from_list(rows)
