"""The rewards of the puzzles of `rlvr_trl.puzzles`: 1 for a right answer in the last `<answer>…</answer>`, else 0."""

import re
from collections.abc import Callable, Sequence

from ..answer_text import THINKING_TAGS, after_thinking, completion_text, extract_tagged_answer
from ..puzzles import is_grid, solves_countdown, solves_sudoku, solves_sums


_DIGITS, _BITS = re.compile("[1-4]+"), re.compile("[01]+")
_EXPRESSION = re.compile("[1-9](?:[-+*][1-9])*+")


def sudoku_reward(
    completions: list[str] | list[list[dict]],
    sudoku: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list[float]:
    """
    Reward function that checks whether the last complete `<answer>…</answer>` is a 4x4 sudoku grid with the digits
    given.

    The answer is the 16 digits of the grid, row by row; whitespace and commas are ignored. Any grid that agrees with
    the digits given is right. What cannot be read scores 0.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        sudoku (`list[str]`):
            The sudoku of each completion: 16 characters over 1, 2, 3, 4 and `.`, row by row.
        log_extra (`callable`, *optional*):
            Passed by the trainer. Receives the column `extracted_answer`: the digits of each completion, or `None`
            where no digits could be read.
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag of a thought. Set it with `functools.partial`.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that nothing counts before a closing tag.
        **kwargs:
            Other columns and arguments of the trainer, not used.

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `sudoku` is not a sudoku, or if there is not one for each completion. Or if
            `thinking_tags` are not pairs.

    Example:
    ```python
    >>> sudoku_reward(["<answer>1234 3412 2143 4321</answer>"], sudoku=["1...3....1....2."])
    [1.0]
    ```
    """
    answers = _read_answers(completions, _DIGITS, r"[\s,]", thinking_tags, starts_thinking)
    return score_answers("sudoku", sudoku, answers, solves_sudoku, log_extra)


def sums_reward(
    completions: list[str] | list[list[dict]],
    sums: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list[float]:
    r"""
    Reward function that checks whether the last complete `<answer>…</answer>` is a 4x4 grid of bits with these sums.

    The answer is the 16 bits of the grid, row by row; whitespace and commas are ignored. Any grid with these sums is
    right. What cannot be read scores 0.

    Args:
        sums (`list[str]`):
            The sums of each completion: the four row sums, a newline, and the four column sums.
        completions, log_extra, thinking_tags, starts_thinking, **kwargs:
            As in [`sudoku_reward`].

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `sums` has another form, or if there is not one for each completion. Or if
            `thinking_tags` are not pairs.

    Example:
    ```python
    >>> sums_reward(["<answer>1000 0100 0010 0001</answer>"], sums=["1111\n1111"])
    [1.0]
    ```
    """
    answers = _read_answers(completions, _BITS, r"[\s,]", thinking_tags, starts_thinking)
    return score_answers("sums", sums, answers, solves_sums, log_extra)


def countdown_reward(
    completions: list[str] | list[list[dict]],
    countdown: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list[float]:
    """
    Reward function that checks whether the last complete `<answer>…</answer>` is an expression with the value wanted.

    The expression is made of the four digits, each used once, and +, - and * between them, with the usual precedence;
    whitespace is ignored. What cannot be read scores 0: brackets, signs, numbers of two digits, anything else.

    Args:
        countdown (`list[str]`):
            The countdown of each completion: four digits from 1 to 9 in ascending order, `=`, and a target from 1 to
            99, such as `1479=30`.
        completions, log_extra, thinking_tags, starts_thinking, **kwargs:
            As in [`sudoku_reward`].

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `countdown` has another form, or if there is not one for each completion. Or if
            `thinking_tags` are not pairs.

    Example:
    ```python
    >>> countdown_reward(["<answer>1+4*9-7</answer>"], countdown=["1479=30"])
    [1.0]
    ```
    """
    answers = _read_answers(completions, _EXPRESSION, r"\s", thinking_tags, starts_thinking)
    return score_answers("countdown", countdown, answers, solves_countdown, log_extra)


def grid_reward(
    completions: list[str] | list[list[dict]],
    grid: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list[float]:
    r"""
    Reward function that checks whether the last complete `<answer>…</answer>` is this grid of colours (ARC-AGI).

    A row is a line of digits, with or without spaces or commas between them; brackets around rows are left out, so
    that a list of lists is read as well, and so are the lines of a code fence. What cannot be read scores 0.

    Args:
        grid (`list[str]`):
            The right grid of each completion, as in the column of [`load_arc_agi`].
        completions, log_extra, thinking_tags, starts_thinking, **kwargs:
            As in [`sudoku_reward`].

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `grid` is no grid, or if there is not one for each completion. Or if
            `thinking_tags` are not pairs.

    Example:
    ```python
    >>> grid_reward(["<answer>[[0, 1], [2, 3]]</answer>", "<answer>01\n33</answer>"], grid=["0 1\n2 3"] * 2)
    [1.0, 0.0]
    ```
    """

    def is_right(reference: str, answer: str) -> bool:
        if not isinstance(reference, str) or not is_grid(reference):
            raise ValueError(f"grid must have grids of digits as text, found {reference!r:.100}")
        return answer == reference

    answers = []
    for completion in completions:
        text = after_thinking(completion_text(completion), thinking_tags, starts_thinking) or ""
        lines = (extract_tagged_answer(text) or "").replace("[", "").replace("]", "\n").split("\n")
        lines = [line for line in lines if not line.strip().startswith("```")]
        rows = [" ".join(re.sub(r"[\s,]", "", line)) for line in lines]
        answer = "\n".join(row for row in rows if row)
        answers.append(answer if is_grid(answer) else None)
    return score_answers("grid", grid, answers, is_right, log_extra)


def score_answers(
    column: str,
    problems: list[str],
    answers: list[str | None],
    solves: Callable[[str, str], bool],
    log_extra: Callable[[str, list], None] | None,
) -> list[float]:
    """
    1.0 for each answer that solves its problem, else 0.0; `None` is an answer that could not be read.

    Raises:
        ValueError: If there is not one problem for each answer, or `solves` refuses a problem. Both are mistakes in
            the dataset, not in a completion.
    """
    if len(problems) != len(answers):
        raise ValueError(
            f"{column} must have one entry for each of the {len(answers)} completions, found {len(problems)}"
        )
    # A problem is checked even where there is no answer: a broken dataset should not look like a weak model.
    rewards = [float(solves(problem, answer or "")) for problem, answer in zip(problems, answers, strict=True)]
    if log_extra is not None:
        log_extra("extracted_answer", answers)
    return rewards


def _read_answers(completions, pattern: re.Pattern, separators: str, thinking_tags, starts_thinking) -> list:
    """What matches the pattern in the last tags after the thinking, without separators; `None` if it does not."""
    answers = []
    for completion in completions:
        text = after_thinking(completion_text(completion), thinking_tags, starts_thinking) or ""
        answer = re.sub(separators, "", extract_tagged_answer(text) or "")
        answers.append(answer if pattern.fullmatch(answer) else None)
    return answers
