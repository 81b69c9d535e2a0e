r"""Where the answer is in a completion: `\boxed{…}`, `<answer>…</answer>`, "the answer is …"."""

import re
from collections.abc import Callable

from .maze import completion_text


BOX = "\\boxed"
MAX_BOXES = 50  # boxes that are looked at, from the end
MAX_BOX_CHARS = 10_000  # characters in a box, so that the search is linear in the text however many boxes are open

_BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(\{)|(\\?\w+|-\s?\d+))")
_BOX_NAMES = (BOX, "\\fbox")
_BETWEEN_BOXES = re.compile(r"(?:[\s$,;.]|\\[,;!()\[\]]|\\(?:text|mbox|quad)(?![a-z])|[{}]|\b(?:and|or)\b){0,40}")
_BRACES = re.compile(r"\\[{}\\]|[{}]")


def boxed_format_reward(completions: list, log_extra: Callable[[str, list], None] | None = None, **kwargs) -> list:
    r"""
    Reward function that checks for an answer in a box: 1.0 if there is a `\boxed{…}` that is closed and not empty.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        log_extra (`callable`, *optional*):
            Given by the trainer. Not used: the reward of the answer logs it.
        **kwargs:
            Other columns and trainer arguments, not used.

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Example:
    ```python
    >>> boxed_format_reward([r"\boxed{4}", r"\boxed{}", r"\boxed{4", "4"])
    [1.0, 0.0, 0.0, 0.0]
    ```
    """
    return [float(bool(boxes(completion_text(c), braced=True))) for c in completions]


def boxes(text: str, braced: bool = False) -> list[tuple[int, int, str]]:
    r"""
    Start, end and content of the `\boxed{…}` and `\fbox{…}` that are closed and not empty, from the last to the first.

    A box inside another is not one of them. `\boxed 5` counts too, unless they must be `braced`. At most the last
    `MAX_BOXES` are looked at, and those of more than `MAX_BOX_CHARS` characters count as open.
    """
    found, end = [], len(text)
    for _ in range(MAX_BOXES):
        end = max(text.rfind(name, 0, end) for name in _BOX_NAMES)
        if end < 0:
            break
        match = _BOX.match(text, end)
        if match is None or (braced and match[1] is None):
            continue
        close = _closing_brace(text, match.end()) if match[1] else match.end()
        content = text[match.end() : close] if match[1] else match[2]
        if close < 0 or not content.strip():
            continue
        while found and found[-1][0] < close:  # boxes inside this one
            found.pop()
        found.append((end, close + bool(match[1]), content))
    return found


def last_boxed(text: str) -> tuple[str, ...]:
    r"""
    The content of the last box, in a tuple that is empty if there is none.

    Where only separators are between the last boxes, as in `$\boxed{1}$ and $\boxed{2}$`, there are two readings: all
    of them as a list, and the last.
    """
    found = boxes(text)
    contents = [content for _, _, content in found[:1]]
    for (start, _, _), (_, end, content) in zip(found, found[1:], strict=False):
        if not _BETWEEN_BOXES.fullmatch(text, end, start):
            break
        contents.insert(0, content)
    return (",".join(contents), contents[-1]) if len(set(contents)) > 1 else tuple(contents[:1])


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for match in _BRACES.finditer(text, start, start + MAX_BOX_CHARS):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return -1
