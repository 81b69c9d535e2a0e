"""A task of a user's own that the tiny model learns within some thirty steps; half of its demonstrations are right."""

import random
from itertools import product

from datasets import Dataset

from rlvr_trl.testbed import Task


ALPHABET = "abcdefghijklmnop"


def draw_letters(count, seed, exclude):
    """Pairs of letters, of which there are 256."""
    excluded = set(exclude["letters"] if isinstance(exclude, Dataset) else exclude or ())
    every = ["".join(pair) for pair in product(ALPHABET, repeat=2)]
    kept = [pair for pair in random.Random(seed).sample(every, len(every)) if pair not in excluded]
    return Dataset.from_list([{"prompt": pair + "\n", "letters": pair} for pair in kept[:count]])


def letters_reward(completions, letters, log_extra=None, **kwargs):
    """1 for the answer `a`, whatever the letters are."""
    if log_extra is not None:
        log_extra("extracted_answer", list(completions))
    return [float(completion == "<answer>a</answer>") for completion in completions]


LETTERS = Task(
    name="letters",
    noun="pairs of letters",
    dataset=draw_letters,
    answers=lambda problem: lambda rng: rng.choice("ab"),
    reward=letters_reward,
    symbols="\n" + ALPHABET,
    max_completion_length=4,
)
