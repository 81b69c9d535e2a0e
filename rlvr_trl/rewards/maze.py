"""The rewards for a maze: 1 for a path from S to E, else 0 (arXiv 2508.10751), read strictly or leniently."""

import re
from collections.abc import Callable, Sequence

from ..answer_text import THINKING_TAGS, after_thinking, completion_text, extract_tagged_answer
from ..mazes import MOVES, is_solution
from .puzzle import score_answers


def maze_reward(
    completions: list[str] | list[list[dict]],
    maze: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list[float]:
    r"""
    Reward function that checks whether the moves in the last complete `<answer>…</answer>` lead from S to E.

    A tag inside the thinking does not count.

    The moves must be the letters U, D, L and R in upper case; whitespace and commas around and between them are
    ignored. A path that leaves the grid, enters a wall or does not *end* on E scores 0 (it may cross E and come back).
    So does anything that cannot be read: missing tags, other characters, no moves, a completion without text.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        maze (`list[str]`):
            Text of the maze of each completion, as in the `maze` column of [`make_maze_dataset`].
        log_extra (`callable`, *optional*):
            Passed by the trainer. Receives the column `extracted_answer`: the moves of each completion without
            separators, or `None` where no moves could be read.
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag of a thought. Set it with `functools.partial`.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that nothing counts before a closing tag.
        **kwargs:
            Other columns and arguments of the trainer, not used.

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `maze` is not a maze, or if there is not one for each completion. Both are mistakes
            in the dataset, not in a completion. Or if `thinking_tags` are not pairs.

    Example:
    ```python
    >>> maze_reward(["<answer>RD</answer>", "<answer>DR</answer>"], maze=["S.\n*E", "S.\n*E"])
    [1.0, 0.0]
    ```
    """
    answers = [extract_moves(completion_text(c), thinking_tags, starts_thinking) for c in completions]
    return score_answers("maze", maze, answers, is_solution, log_extra)


def lenient_maze_reward(
    completions: list[str] | list[list[dict]],
    maze: list[str],
    log_extra: Callable[[str, list], None] | None = None,
    **kwargs,
) -> list[float]:
    r"""
    Reward function that reads the moves as the verifier does that the authors of Pass@k Training (arXiv 2508.10751)
    published, to compare with their numbers. Train with [`maze_reward`].

    If both tags occur, what follows the last `<answer>` is read, else everything; of that what is in the last box, or
    all if there is none. Every U, D, L and R in it is a move, in lower case too, and everything else is passed over.
    So `U -> R`, `**UR**` and `\boxed{ur}` are read, and words are moves by their letters: `Right` is R, but `Ground`
    is R, U, D. A thought counts like any other text.

    Args:
        completions, maze, log_extra, **kwargs:
            As in [`maze_reward`].

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        ValueError: If an entry of `maze` is not a maze, or if there is not one for each completion.

    Example:
    ```python
    >>> lenient_maze_reward(["<answer>r -> d</answer>", "I go down."], maze=["S.\n*E", "S.\n*E"])
    [1.0, 0.0]
    ```
    """
    answers = [moves_in(completion_text(c)) or None for c in completions]
    return score_answers("maze", maze, answers, is_solution, log_extra)


def moves_in(text: str) -> str:
    """All letters of moves in the part of a text that [`lenient_maze_reward`] reads."""
    if "<answer>" in text and "</answer>" in text:
        text = text.rpartition("<answer>")[2].partition("</answer>")[0]
    _, box, after = text.rpartition("boxed")
    if box and not after.startswith("{"):
        text = after.partition("$")[0]
    elif box:
        depth = 0
        for place, symbol in enumerate(after):
            depth += (symbol == "{") - (symbol == "}")
            if depth == 0:
                after = after[:place]
                break
        text = after[1:]
    return "".join(move for move in text.upper() if move in MOVES)


def extract_moves(
    text: str, thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS, starts_thinking: bool = False
) -> str | None:
    """
    The moves in the last complete `<answer>…</answer>` after the thinking, without separators.

    `None` if there are none. For the arguments see [`find_answer`].
    """
    answer = extract_tagged_answer(after_thinking(text, thinking_tags, starts_thinking) or "")
    if answer is None:
        return None
    moves = re.sub(r"[\s,]", "", answer)
    return moves if moves and set(moves) <= MOVES.keys() else None
