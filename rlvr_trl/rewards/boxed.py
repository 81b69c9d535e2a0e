r"""The reward for an answer in a box: 1 if there is a `\boxed{…}` after the thinking."""

from collections.abc import Callable, Sequence

from ..answer_text import THINKING_TAGS, after_thinking, boxes, completion_text


def boxed_format_reward(
    completions: list,
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list:
    r"""
    Reward function for the format: 1.0 if there is a `\boxed{…}` that is closed and not empty, else 0.0.

    A box inside the thinking does not count.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        log_extra (`callable`, *optional*):
            Passed by the trainer. Not used: the reward for the answer logs it.
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag of a thought. Set it with `functools.partial`.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that nothing counts before a closing tag.
        **kwargs:
            Other columns and arguments of the trainer, not used.

    Returns:
        `list[float]`: 1.0 or 0.0 per completion.

    Raises:
        `ValueError`: `thinking_tags` are not pairs.

    Example:
    ```python
    >>> boxed_format_reward([r"\boxed{4}", r"\boxed{}", r"\boxed{4", "4", r"<think>\boxed{4}</think> 4"])
    [1.0, 0.0, 0.0, 0.0, 0.0]
    ```
    """
    answers = (after_thinking(completion_text(c), thinking_tags, starts_thinking) for c in completions)
    return [float(bool(boxes(answer or "", braced=True))) for answer in answers]
