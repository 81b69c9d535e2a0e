"""The reward of a maze: 1 for a path from S to E inside the last `<answer>…</answer>`, else 0 (arXiv 2508.10751)."""

import re
from collections.abc import Callable

from ..data.maze import MOVES, is_solution


OPENING_TAG, CLOSING_TAG = "<answer>", "</answer>"


def maze_reward(
    completions: list[str] | list[list[dict]],
    maze: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    **kwargs,
) -> list[float]:
    r"""
    Reward function that checks whether the moves in the last complete `<answer>…</answer>` lead from S to E.

    The moves must be the letters U, D, L and R in upper case; whitespace and commas around and between them are
    ignored. A path that leaves the grid, enters a wall or does not *end* on E scores 0 (it may cross E and come back).
    So does anything that cannot be read: no tags, other characters, no moves, a completion without text.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        maze (`list[str]`):
            Text of the maze of each completion, as in the `maze` column of [`make_maze_dataset`].
        log_extra (`callable`, *optional*):
            Given by the trainer. Receives the column `extracted_answer`: the moves of each completion without
            separators, or `None` where no moves could be read.
        **kwargs:
            Other columns and trainer arguments, not used.

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `maze` is not a maze, or if there is not one for each completion. Both are mistakes
            in the dataset, not in a completion.

    Example:
    ```python
    >>> maze_reward(["<answer>RD</answer>", "<answer>DR</answer>"], maze=["S.\n*E", "S.\n*E"])
    [1.0, 0.0]
    ```
    """
    if len(maze) != len(completions):
        raise ValueError(f"maze must have one entry for each of the {len(completions)} completions, found {len(maze)}")
    answers = [extract_moves(completion_text(completion)) for completion in completions]
    # A maze is checked even where there is no answer: a broken dataset should not look like a weak model.
    rewards = [float(is_solution(text, moves or "")) for text, moves in zip(maze, answers, strict=True)]
    if log_extra is not None:
        log_extra("extracted_answer", answers)
    return rewards


def extract_moves(text: str) -> str | None:
    """The moves in the last complete `<answer>…</answer>` without separators, or `None` if there are none."""
    answer = extract_tagged_answer(text)
    if answer is None:
        return None
    moves = re.sub(r"[\s,]", "", answer)
    return moves if moves and set(moves) <= MOVES.keys() else None


def extract_tagged_answer(text: str) -> str | None:
    """
    The text inside the last complete `<answer>…</answer>`, or `None` if there is no such pair.

    An opening tag that is never closed and a closing tag that was never opened are passed over.
    """
    # Searched from the end rather than matched with `<answer>(.*?)</answer>`, whose time is quadratic in the number of
    # opening tags, and which would begin at the first of two of them.
    opening = text.rfind(OPENING_TAG, 0, max(text.rfind(CLOSING_TAG), 0))
    if opening == -1:
        return None
    return text[opening + len(OPENING_TAG) : text.find(CLOSING_TAG, opening)]


def completion_text(completion: str | list[dict] | None) -> str:
    """
    The text of a plain or conversational completion; the empty string where there is none.

    Of a conversational completion the last message counts. Its content may be a string or a list of parts, of which
    those of type `"text"` are joined.
    """
    if isinstance(completion, str):
        return completion
    message = completion[-1] if isinstance(completion, list) and completion else None
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
