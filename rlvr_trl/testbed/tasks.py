"""The tasks of the testbed: how a problem is drawn, what a right answer is, and how answers are demonstrated."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

from datasets import Dataset
from transformers import Qwen2Tokenizer

from ..answer_text import CLOSING_TAG, OPENING_TAG
from ..checks import check_integer
from ..data.maze import MAX_ATTEMPTS, excluded_texts, make_maze_dataset
from ..mazes import RandomWalks
from ..puzzles import (
    countdown_solutions,
    draw_countdown,
    draw_sudoku,
    draw_sums,
    solves_countdown,
    solves_sudoku,
    solves_sums,
    sudoku_solutions,
    sums_solutions,
)
from ..rewards import countdown_reward, maze_reward, sudoku_reward, sums_reward
from .model import MAZE_SYMBOLS, build_tokenizer


@dataclass(frozen=True)
class Task:
    """
    A family of small problems, each with several right answers, that a tiny model learns on a CPU.

    A problem is a text, and its prompt is the text and a newline. A completion is right if `reward` finds a right
    answer in its `<answer>…</answer>`. The tasks of this package are in `TASKS`.

    Attributes:
        name (`str`):
            Name of the task, of the column of its problems in a dataset, and of that argument of the reward.
        noun (`str`):
            What its problems are called in the titles of tables: `"mazes"`.
        dataset (`Callable`):
            What `draw` calls, with `count`, `seed=` and `exclude=`.
        answers (`Callable`):
            `answers(problem)` is a function that maps a `random.Random` to a random right answer.
        reward (`Callable`):
            The reward function, which gives 1 to right answers and 0 to all else, and logs `extracted_answer`.
        symbols (`str`):
            The characters that problems and answers are made of.
        max_completion_length (`int`):
            Tokens of the longest demonstration, with both tags and the end token.
        warmup_problems (`int`, *optional*, defaults to `6000`):
            Problems on which the demo warms up a base model.
        warmup_steps (`int`, *optional*, defaults to `2000`):
            Optimizer steps of that warm-up; with a target, the most steps before it is reached.
        target (`float`, *optional*, defaults to `0.15`):
            The pass@1 up to which it trains, see [`warm_up_to`]. `None` trains for `warmup_steps`.
    """

    name: str
    noun: str
    dataset: Callable[..., Dataset]
    answers: Callable[[str], Callable[[random.Random], str]]
    reward: Callable[..., list[float]]
    symbols: str
    max_completion_length: int
    warmup_problems: int = 6000
    warmup_steps: int = 2000
    target: float | None = 0.15

    def draw(self, count: int, seed: int = 0, exclude: Iterable[str] | Dataset | None = None) -> Dataset:
        """
        Draws distinct problems.

        Args:
            count (`int`):
                Number of problems.
            seed (`int`, *optional*, defaults to `0`):
                Seed of the generator. The same arguments give the same problems.
            exclude (iterable of `str` or [`~datasets.Dataset`], *optional*):
                Problems that must not be drawn, as texts or as a dataset of this task: so sets are kept disjoint.

        Returns:
            [`~datasets.Dataset`]: `count` rows with at least the columns `prompt` and `self.name`, the problem.

        Raises:
            ValueError: If `count` is below 1, there are not so many problems, or `exclude` holds something else.
        """
        return self.dataset(count, seed=seed, exclude=exclude)

    def demonstrate(self, problem: str, rng: random.Random) -> str:
        """A random right answer to a problem, inside the tags."""
        return f"{OPENING_TAG}{self.answers(problem)(rng)}{CLOSING_TAG}"

    def demonstrations(self, problems: Iterable[str], count: int, seed: int = 0) -> Dataset:
        """
        Random right answers to problems drawn with replacement.

        Returns:
            [`~datasets.Dataset`]: `count` rows with the columns `prompt`, `completion` (the answer in its tags), the
            problem under the name of the task, and `answer`.

        Raises:
            ValueError: If there are no problems, or one of them is not of this task or has no answer.
        """
        return Dataset.from_list(list(islice(self.endless_demonstrations(problems, seed), count)))

    def endless_demonstrations(self, problems: Iterable[str], seed: int = 0) -> Iterator[dict[str, str]]:
        """The rows of [`Task.demonstrations`], without an end."""
        choices = [(problem, self.answers(problem)) for problem in problems]
        if not choices:
            raise ValueError(f"demonstrations need at least one {self.name} problem, found none")
        rng = random.Random(seed)
        while True:
            problem, answer_with = rng.choice(choices)
            answer = answer_with(rng)
            completion = f"{OPENING_TAG}{answer}{CLOSING_TAG}"
            yield {"prompt": problem + "\n", "completion": completion, self.name: problem, "answer": answer}

    def build_tokenizer(self) -> Qwen2Tokenizer:
        """The tokenizer of the task: see [`~rlvr_trl.testbed.build_tokenizer`]."""
        return build_tokenizer(self.symbols)


def _draw_puzzles(
    name: str,
    draw: Callable[[random.Random], str],
    solves: Callable[[str, str], bool],
    count: int,
    seed: int = 0,
    exclude: Iterable[str] | Dataset | None = None,
) -> Dataset:
    """`Task.dataset` of a puzzle: problems are drawn until they are new."""
    check_integer("count", count, at_least=1)
    rng, rows = random.Random(seed), []
    taken = excluded_texts(name, exclude, check=lambda problem: solves(problem, ""))
    for _ in range(count):
        drawn = (draw(rng) for _ in range(MAX_ATTEMPTS))
        problem = next((problem for problem in drawn if problem not in taken), None)
        if problem is None:
            raise ValueError(
                f"found {len(rows)} of count={count} {name} problems: {MAX_ATTEMPTS} draws in a row gave no new one. "
                "Lower count, or exclude fewer."
            )
        taken.add(problem)
        rows.append({"prompt": problem + "\n", name: problem})
    return Dataset.from_list(rows)


def _random_solution(solutions: Callable[[str], list[str]], problem: str) -> Callable[[random.Random], str]:
    """`Task.answers` of a puzzle: all right answers are equally likely."""
    found = solutions(problem)
    if not found:
        raise ValueError(f"there is no answer to {problem!r}")
    return lambda rng: rng.choice(found)


MAZE = Task(
    name="maze",
    noun="mazes",
    dataset=partial(make_maze_dataset, prompt_style="bare"),
    answers=RandomWalks,
    reward=maze_reward,
    symbols=MAZE_SYMBOLS,
    max_completion_length=12,
    warmup_steps=400,
    target=None,
)

SUDOKU = Task(
    name="sudoku",
    noun="sudokus",
    dataset=partial(_draw_puzzles, "sudoku", draw_sudoku, solves_sudoku),
    answers=partial(_random_solution, sudoku_solutions),
    reward=sudoku_reward,
    symbols="\n.1234",
    max_completion_length=19,
)

SUMS = Task(
    name="sums",
    noun="sums",
    dataset=partial(_draw_puzzles, "sums", draw_sums, solves_sums),
    answers=partial(_random_solution, sums_solutions),
    reward=sums_reward,
    symbols="\n01234",
    max_completion_length=19,
    target=0.08,  # it rises fast, and doubles while the learning rate falls
)

COUNTDOWN = Task(
    name="countdown",
    noun="countdowns",
    dataset=partial(_draw_puzzles, "countdown", draw_countdown, solves_countdown),
    answers=partial(_random_solution, countdown_solutions),
    reward=countdown_reward,
    symbols="\n0123456789+-*=",
    max_completion_length=10,
    warmup_problems=4000,  # of the 10,446 there are
    warmup_steps=3000,
    target=0.17,  # it rises slowly, and hardly further while the learning rate falls
)

TASKS = {task.name: task for task in (MAZE, SUDOKU, SUMS, COUNTDOWN)}
