"""The reward for a multiple-choice question: 1 for the right letter, A to J."""

import re
from collections.abc import Callable, Sequence

from ..answer_text import THINKING_TAGS, after_thinking, completion_text, find_answer
from .references import reference_column


MAX_CHOICE_CHARS = 2_000  # of a letter with the text of its option
_TAIL = 2_000  # characters at the end that are searched for a letter if none is marked as the answer

_MARKUP = re.compile(
    r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|bf|rm)(?![a-zA-Z])|\\[(){}\[\]]|[{}$*`\"“”]"
)
_SPACE = re.compile(r"\\(?:[ ,;:!]|q?quad(?![a-z]))|~|\s")
_LEAD = re.compile(r"(?:the )?(?:correct )?(?:options?|choices?|both) ?(?:is |are )?", re.IGNORECASE)
_SINGLE = re.compile(r"[(\[]?([A-Ja-j])[)\]]?[.:]?")
_JOINED = re.compile(r"[A-J]{2,10}")
# Lower case counts only with a parenthesis. Before a word, A is an article and I a pronoun.
_LETTER = re.compile(r"\(([A-Ja-j])\)|([a-j])\)|([B-HJ]|[AI](?! (?!(?:and|or) )[a-z]))(?:\)|(?![A-Za-z0-9'(]))")
_BETWEEN_LETTERS = re.compile(r" ?[,;/&+.:]? ?(?:(?:and|or) )?")
_ANOTHER_OPTION = re.compile(r"[ ,;/]\(?([A-J])\)")
_MENTIONED = re.compile(
    r"\b(?i:answer|option|choice)s?(?![a-z])\s{0,3}(?i:is\b)?\s{0,3}[:=]?\s{0,3}[*$({]{0,4}(?:\\text\w{0,6}\{\(?)?"
    r"([A-HJb-hj]|I(?!\s[a-z]))(?![\w'])|\(([A-J])\)"
)


def choice_reward(
    completions: list[str] | list[list[dict]],
    solution: list[str] | None = None,
    answer: list[str] | None = None,
    log_extra: Callable[[str, list], None] | None = None,
    thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS,
    starts_thinking: bool = False,
    **kwargs,
) -> list[float | None]:
    r"""
    Reward function that compares the letter that a completion chooses, A to J, with the reference.

    The choice is read where [`find_answer`] finds the answer: the last `\boxed{…}` after the thinking, else the last
    `<answer>…</answer>`, else what follows "the answer is" and the like, else the last line if it is nothing but a
    letter. A box or tag with anything other than letters is not a choice. Without either, the last resort is the
    last letter in parentheses or after "option". A completion that chooses several letters, as in `\boxed{A, B}`, is
    right only if the reference has the same ones.

    Args:
        completions (`list[str]` or `list[list[dict]]`):
            Plain or conversational completions. Of a conversational one the last message counts.
        solution (`list[str]`, *optional*):
            Reference solution of each completion, used where there is no column `answer`.
        answer (`list[str]`, *optional*):
            Reference letter of each completion, such as `C`, `(C)` or `\boxed{C}`, or letters, such as `A,B` or `AB`.
        log_extra (`callable`, *optional*):
            Passed by the trainer. Receives the column `extracted_answer`: the letter, or letters such as `A,B`, or
            `None` without a choice.
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag of a thought. Set it with `functools.partial`.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that nothing counts before a closing tag.
        **kwargs:
            Other columns and arguments of the trainer, not used.

    Returns:
        `list[float | None]`: 1.0 or 0.0 per completion, `None` where no letter can be read from the reference.

    Raises:
        `ValueError`: There is neither column, or it does not have one entry for each completion, or `thinking_tags`
        are not pairs.

    Example:
    ```python
    >>> choice_reward([r"\boxed{\text{(C)}}", "The answer is D.", "(A) is wrong, so (C)"], answer=["C"] * 3)
    [1.0, 0.0, 1.0]
    ```
    """
    references = reference_column("choice_reward", completions, solution, answer)
    golds = [choice_letters(r) or extract_choice(r) if isinstance(r, str) else None for r in references]
    choices = [extract_choice(completion_text(c), thinking_tags, starts_thinking) for c in completions]
    if log_extra is not None:
        log_extra("extracted_answer", [",".join(sorted(choice)) if choice else None for choice in choices])
    return [None if g is None else float(g == choice) for g, choice in zip(golds, choices, strict=True)]


def extract_choice(
    text: str, thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS, starts_thinking: bool = False
) -> frozenset[str] | None:
    """The letters that a completion chooses, nearly always one, or `None`. For the arguments see [`find_answer`]."""
    found = find_answer(text, thinking_tags, starts_thinking)
    if found is not None and found.how in ("box", "tag"):
        marked = [choice_letters(text) for text in found.texts]
        return frozenset(letter for letters in marked for letter in letters or ()) if all(marked) else None
    if found is not None:
        letters, rest = _leading_letters(found.texts[0])
        if found.how != "line":
            letters = choice_letters(found.texts[0]) or letters
        if letters and (found.how != "line" or not rest):
            return letters
    tail = (after_thinking(text, thinking_tags, starts_thinking) or "")[-_TAIL:]
    mentioned = _MENTIONED.findall(tail)
    return frozenset("".join(mentioned[-1]).upper()) if mentioned else None


def choice_letters(text: str) -> frozenset[str] | None:
    r"""
    The letters that an answer consists of, or `None` if it is not a choice.

    The text of its option may follow a letter: `C`, `(c)`, `\textbf{(C)}\ 12`, `C. 12`, `C) Paris` and `option C` are
    all C. `A, B`, `A and B`, `A/B`, `AB` and `(A) 3 or (B) 4` are two letters.

    Example:
    ```python
    >>> choice_letters(r"\text{C. } 12"), choice_letters("C + 12")
    (frozenset({'C'}), None)
    ```
    """
    letters, rest = _leading_letters(text)
    if not rest:
        return letters or None
    # The text of an option follows a full stop, a colon or a parenthesis.
    if len(letters) == 1 and (rest[0] in ".:" or rest.startswith(") ")):
        return letters.union(_ANOTHER_OPTION.findall(rest))
    return None


def _leading_letters(text: str) -> tuple[frozenset[str], str]:
    """The letters at the beginning of an answer, and the text after them, with the last letter's parenthesis."""
    if len(text) > MAX_CHOICE_CHARS:
        return frozenset(), text
    text = " ".join(_MARKUP.sub("", _SPACE.sub(" ", text)).split())
    lead = _LEAD.match(text)
    text = text[lead.end() :] if lead else text
    single = _SINGLE.fullmatch(text)
    if single:
        return frozenset(single[1].upper()), ""
    if _JOINED.fullmatch(text) and list(text) == sorted(set(text)):
        return frozenset(text), ""
    letters, end, match = set(), 0, _LETTER.match(text)
    while match:
        letters.add((match[1] or match[2] or match[3]).upper())
        end = match.end()
        between = _BETWEEN_LETTERS.match(text, end)
        match = _LETTER.match(text, between.end() if between else end)
    rest = text[end:]
    if rest.strip(" .,;:") == "":
        return frozenset(letters), ""
    return frozenset(letters), ")" + rest if text[:end].endswith(")") else rest
