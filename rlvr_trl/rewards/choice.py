"""The reward of a multiple-choice question: 1 for the right letter, A to J."""

import re
from collections.abc import Callable

from .boxed import last_boxed
from .maze import completion_text, extract_tagged_answer
from .references import reference_column


MAX_CHARS = 1_000_000
_TAIL = 2_000  # characters at the end in which an answer without a box or tags is looked for

_COMMAND = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mathit|bf|rm)(?![a-z])|[\s{}$*]")
_LETTER = re.compile(r"\(?([A-J])\)?(?:[.:,)].*)?", re.DOTALL)
_ANSWER_IS = re.compile(
    r"\b(?:answer|option|choice)(?:\s+is)?\s*[:=]?\s*(?:option|choice)?\s*[*$({\s]*(?:\\text\w*\{)?\(?([A-Ja-j])(?![\w'])",
    re.IGNORECASE,
)
_PARENTHESES = re.compile(r"\(([A-J])\)")


def choice_reward(
    completions: list[str] | list[list[dict]],
    solution: list[str] | None = None,
    answer: list[str] | None = None,
    log_extra: Callable[[str, list], None] | None = None,
    **kwargs,
) -> list[float | None]:
    r"""
    Reward function that compares the letter that a completion chooses, A to J, with the reference.

    The choice is the letter in the last `\boxed{…}`, else in the last `<answer>…</answer>`, else after the last
    "answer is" or "answer:", else the last letter in parentheses. What is in a box and is not a letter is no choice.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        solution (`list[str]`, *optional*):
            Reference solution of each completion, used where there is no column `answer`.
        answer (`list[str]`, *optional*):
            Reference letter of each completion, such as `C`, `(C)` or `\boxed{C}`.
        log_extra (`callable`, *optional*):
            Given by the trainer. Receives the column `extracted_answer`: the letter, or `None` without a choice.
        **kwargs:
            Other columns and trainer arguments, not used.

    Returns:
        `list[float | None]`: 1.0 or 0.0 per completion, `None` where no letter can be read from the reference.

    Raises:
        `ValueError`: There is neither column, or it does not have one entry for each completion.

    Example:
    ```python
    >>> choice_reward([r"\boxed{\text{(C)}}", "The answer is D.", "(A) is wrong, so (C)"], answer=["C"] * 3)
    [1.0, 0.0, 1.0]
    ```
    """
    references = reference_column("choice_reward", completions, solution, answer)
    golds = [_letter(r) or extract_choice(r) if isinstance(r, str) else None for r in references]
    choices = [extract_choice(completion_text(completion)) for completion in completions]
    if log_extra is not None:
        log_extra("extracted_answer", choices)
    return [None if g is None else float(g == choice) for g, choice in zip(golds, choices, strict=True)]


def extract_choice(text: str) -> str | None:
    """The letter that a text chooses, or `None`."""
    if len(text) > MAX_CHARS:
        return None
    for marked in (*last_boxed(text)[-1:], extract_tagged_answer(text)):
        if marked is not None:
            return _letter(marked)
    tail = text[-_TAIL:]
    found = _ANSWER_IS.findall(tail) or _PARENTHESES.findall(tail)
    return found[-1].upper() if found else None


def _letter(text: str) -> str | None:
    """The letter at the beginning of `C`, `(C)`, `\\text{C}` or `C. Paris`."""
    match = _LETTER.fullmatch(_COMMAND.sub("", text[:_TAIL]))
    return match[1] if match else None
