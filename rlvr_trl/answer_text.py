r"""
Where the answer is in a completion: after the thinking, in a box, in a tag, after a phrase, or in the last line.

This module does not know what an answer means. Rewards and datasets read it: `math_reward` as mathematics,
`choice_reward` as a letter. All functions take time linear in the text, because a model in training will find any text
for which they do not.
"""

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


OPENING_TAG, CLOSING_TAG = "<answer>", "</answer>"

MAX_TEXT_CHARS = 1_000_000  # a longer text is not read
MAX_BOXES = 50  # boxes that are looked at, from the end
MAX_BOX_CHARS = 10_000  # characters in a box: keeps the search linear in the text however many boxes are left open
MAX_PHRASES = 50  # occurrences of the word "answer" that are looked at, from the end
MAX_PHRASE_CHARS = 2_000  # characters of an answer after a phrase
MAX_LINE_CHARS = 200  # characters of a last line that may be an answer

# Opening and closing tag of a thought. The opening tag is empty if only the closing one can be told from other text.
THINKING_TAGS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),  # DeepSeek-R1, Qwen3, GLM, MiniMax, Nemotron, OLMo and most others
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<scratchpad>", "</scratchpad>"),
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # Sky-T1, OpenThinker
    ("◁think▷", "◁/think▷"),  # Kimi
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("<|channel>thought", "<channel|>"),  # Gemma 4
    ("<|channel|>analysis", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel|>commentary", "<|channel|>final<|message|>"),
    ("", "assistantfinal"),  # gpt-oss, decoded without special tokens as TRL does
)

_END_OF_TURN = {
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_solution|>",
    "<|end|>",
    "<|return|>",
    "<|END_RESPONSE|>",
    "<|END_OF_TURN_TOKEN|>",
    "<end_of_turn>",
    "<turn|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<eos>",
}

_BOX_NAME = re.compile(r"\\(?:boxed|fbox|framebox)(?![a-zA-Z])")
_AFTER_BOX_NAME = re.compile(
    r"\s*+(?:(?P<brace>\{)"
    r"|(?P<whole>\\[dt]?frac\s?\w\s?\w|\\sqrt\s?\w|[-+]?\s?\d+(?:[.,]\d+)*(?:/\d+)?|[a-zA-Z](?![a-zA-Z]))"
    r"|(?P<command>\\[a-zA-Z]+))"
)
_BRACES = re.compile(r"\\[{}\\]|[{}]")
_BETWEEN_BOXES = re.compile(
    r"(?:[\s$,;.&~*{}、，和或]|\\[,;:!()\[\]\\ ]|\\(?:text|mbox|quad|qquad)(?![a-z])|\b(?:and|or)\b)*+"
    r"\\?"  # the first backslash of \\boxed, as in JSON
)

_ANSWER_WORD = re.compile(r"\banswers?\b|答案", re.IGNORECASE)
_IS = re.compile(
    r"[\s*_`]{0,9}(?:(?:to|for)\s[^\n.:]{1,80}?\s)?"
    r"(?:(?:is|are|was|equals|(?:must|should|would|will) be)\b|[:：=是为為])"
    r"[\s*_`]{0,9}(?:(?:therefore|thus|simply|given by|as follows)\b\s?)?[:：]?",
    re.IGNORECASE,
)
_ABOUT_THE_ANSWER = re.compile(
    r"[\s*`]*(?:correct|incorrect|wrong|helpful|clear|reasonable|consistent|valid|verified)\b", re.IGNORECASE
)
_HEADINGS = {"", "final", "the", "the final", "my", "my final", "correct", "the correct", "最终"}
_REST_OF_HEADING = re.compile(r"[ \t*_`#]{0,9}(?:\n|\Z)")
_BEGINNING = re.compile(r"[^\s*`]")
_CLAUSE = re.compile(r"(?<=[\s,(—–])(?:(?:because|since|so|which|as|where)\b|i\.e\.)|因为|因為|所以", re.IGNORECASE)
_MATH_DELIMITERS = (("$$", "$$"), ("\\[", "\\]"), ("\\(", "\\)"), ("$", "$"))
# Asterisks around bold text, but not the power in 2**3 or 2 ** 3
_BOLD = re.compile(r"(?<![\w)\]}])\*\*(?=\S)|(?<=\S)\*\*(?![\w({\\-])")


@dataclass(frozen=True)
class FoundAnswer:
    r"""
    An answer as it stands in a text.

    Attributes:
        how (`str`):
            What it was found by: `"box"` (`\boxed{…}`), `"tag"` (`<answer>…</answer>`), `"phrase"` ("the answer is
            …"), `"hash"` (`#### …`) or `"line"` (the last line). A last line may be anything: the caller decides
            whether it is an answer.
        texts (`tuple[str, ...]`):
            At least one text, none of them blank. There are several only for boxes side by side, as in
            `$\boxed{1}$ and $\boxed{2}$`.
    """

    how: Literal["box", "tag", "phrase", "hash", "line"]
    texts: tuple[str, ...]


def find_answer(
    text: str, thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS, starts_thinking: bool = False
) -> FoundAnswer | None:
    r"""
    The answer of a completion, or `None` if there is none.

    It is looked for after the thinking, see [`after_thinking`]. The first of these that exists is the answer:

    - the last box, or the last boxes if only separators stand between them, see [`boxes`];
    - the last complete `<answer>…</answer>` that is not blank;
    - what follows `####` in the last line, as in GSM8K;
    - what follows the last "answer is", "answer:" or "答案是", or the line after a heading such as "**Final Answer**",
      up to the end of the line or the sentence, or up to a clause such as ", because …";
    - the last line, if it has at most 200 characters.

    The last three come without markdown bold, a full stop at the end, and `$…$` or `\(…\)` around the whole.

    Args:
        text (`str`):
            What the model wrote.
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought, so that there is no answer before a closing tag.

    Raises:
        `ValueError`: `thinking_tags` are not pairs.

    Example:
    ```python
    >>> find_answer(r"<think>\boxed{3}? No.</think> The answer is $4$, because it is even.")
    FoundAnswer(how='phrase', texts=('4',))
    ```
    """
    rest = after_thinking(text, thinking_tags, starts_thinking)
    if rest is None:
        return None
    boxed = last_boxes(rest)
    if boxed:
        return FoundAnswer("box", boxed)
    for how, find in (
        ("tag", extract_tagged_answer),
        ("hash", _after_hashes),
        ("phrase", _after_phrase),
        ("line", _last_line),
    ):
        found = (find(rest) or "").strip()
        if found and not _BOX_NAME.search(found):  # an empty box, or one that was cut off, is no answer
            return FoundAnswer(how, (found,))
    return None


def after_thinking(
    text: str, thinking_tags: Sequence[Sequence[str]] = THINKING_TAGS, starts_thinking: bool = False
) -> str | None:
    r"""
    What follows the thinking, without the tokens that end the turn; `None` if there is only thinking.

    It begins after the last closing tag of any kind. Everything before is thought, even if the text has no opening
    tag, because many chat templates put it into the prompt. A thought without a closing tag of its own kind was cut
    off. Then there is nothing to read, even if a thought of another kind ends within it or an earlier one has ended.

    Args:
        text (`str`):
            What the model wrote. One of more than 1,000,000 characters is not read: `None`.
        thinking_tags (`Sequence[Sequence[str]]`, *optional*, defaults to `THINKING_TAGS`):
            Pairs of opening and closing tag. The opening one is empty if only the closing one can be told from other
            text.
        starts_thinking (`bool`, *optional*, defaults to `False`):
            Whether the prompt has opened a thought: then a text without a closing tag is all thought.

    Raises:
        `ValueError`: `thinking_tags` are not pairs.

    Example:
    ```python
    >>> after_thinking("2 + 2 = 4</think>So it is 4.<|im_end|>")
    'So it is 4.'
    ```
    """
    if len(text) > MAX_TEXT_CHARS:
        return None
    start = 0
    for tags in [thinking_tags] if thinking_tags is None else thinking_tags:
        if tags is None or isinstance(tags, str) or len(tags) != 2 or not tags[1]:
            raise ValueError(
                f"`thinking_tags` must be pairs of an opening and a closing tag, such as "
                f"[['<think>', '</think>']], found {tags!r} in {thinking_tags!r}."
            )
        opening, closing = tags
        closed = text.rfind(closing)
        if opening and text.rfind(opening) > closed:
            return None
        if closed >= 0:
            start = max(start, closed + len(closing))
    return None if starts_thinking and start == 0 else text[start : _end_of_turn(text)]


def boxes(text: str, braced: bool = False) -> list[tuple[int, int, str]]:
    r"""
    Start, end and content of the boxes that are closed and not empty, from the last to the first.

    A box is `\boxed{…}`, `\fbox{…}` or `\framebox{…}`. `\boxed 5` and `\boxed\frac{1}{2}` count too, unless boxes must
    be `braced`. A box around another does not: of `\boxed{\text{it is } \boxed{5}}`, only the inner one counts.
    Only the last `MAX_BOXES` are looked at, and a box of more than `MAX_BOX_CHARS` characters counts as open.
    """
    found = []
    for name in reversed(deque(_BOX_NAME.finditer(text), maxlen=MAX_BOXES)):
        match = _AFTER_BOX_NAME.match(text, name.end())
        if match is None or (braced and match["brace"] is None):
            continue
        if match["brace"]:
            start = match.end()
            end = _closing_brace(text, start)
        else:
            start = match.start("command" if match["command"] else "whole")
            end = _end_of_arguments(text, match.end()) if match["command"] else match.end()
        content = text[start:end]
        if end >= 0 and content.strip() and not _BOX_NAME.search(content):
            found.append((name.start(), end + bool(match["brace"]), content))
    return found


def last_boxes(text: str) -> tuple[str, ...]:
    r"""
    The content of the last box, and of those before it with only separators in between, in the order of the text.

    `$\boxed{1}$ and $\boxed{2}$` has two. Equal contents appear once. This function does not look for a thought.
    """
    found = boxes(text)
    contents = [content.strip() for _, _, content in found[:1]]
    for (start, _, _), (_, end, content) in zip(found, found[1:], strict=False):
        if not _BETWEEN_BOXES.fullmatch(text, end, start):
            break
        contents.append(content.strip())
    return tuple(dict.fromkeys(reversed(contents)))


def extract_tagged_answer(text: str) -> str | None:
    """
    The text inside the last complete `<answer>…</answer>`, or `None` if there is no such pair.

    An opening tag that is never closed and a closing tag that was never opened are ignored.
    """
    # The search goes backwards: `<answer>(.*?)</answer>` takes time quadratic in the number of opening tags, and would
    # begin at the first of two of them.
    opening = text.rfind(OPENING_TAG, 0, max(text.rfind(CLOSING_TAG), 0))
    if opening == -1:
        return None
    return text[opening + len(OPENING_TAG) : text.find(CLOSING_TAG, opening)]


def completion_text(completion: str | list[dict] | None) -> str:
    """
    The text of a plain or conversational completion; the empty string if there is none.

    Of a conversational completion the last message counts. Its content may be a string, or a list of parts, whose
    parts of type `"text"` are joined.
    """
    if isinstance(completion, str):
        return completion
    message = completion[-1] if isinstance(completion, list) and completion else None
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _end_of_turn(text: str) -> int:
    """Where the tokens that end the turn, and the space around them, begin."""
    end = len(text)
    while True:
        while end and text[end - 1].isspace():
            end -= 1
        token = text.rfind("<", 0, end)
        if token < 0 or text[token:end] not in _END_OF_TURN:
            return end
        end = token


def _closing_brace(text: str, start: int) -> int:
    depth = 1
    for match in _BRACES.finditer(text, start, start + MAX_BOX_CHARS):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return -1


def _end_of_arguments(text: str, end: int) -> int:
    r"""Where the arguments of a command such as `\sqrt[3]{2}` end; -1 if one is not closed."""
    while text[end : end + 1] in ("{", "["):
        closing = _closing_brace(text, end + 1) if text[end] == "{" else text.find("]", end, end + MAX_BOX_CHARS)
        if closing < 0:
            return -1
        end = closing + 1
    return end


def _after_hashes(text: str) -> str:
    """What follows `####` in the last line; empty for a heading such as `#### Answer: 5`."""
    _, hashes, found = text[text.rfind("\n") + 1 :].rpartition("####")
    return _clean(found) if hashes and len(found) <= MAX_LINE_CHARS and not _ANSWER_WORD.search(found) else ""


def _after_phrase(text: str) -> str:
    """What follows the last "answer is" or a heading; empty if nothing does."""
    for word in reversed(deque(_ANSWER_WORD.finditer(text), maxlen=MAX_PHRASES)):
        lead = _IS.match(text, word.end())
        if lead is None and _is_heading(text, word.start()):
            lead = _REST_OF_HEADING.match(text, word.end())
        if lead is None or _ABOUT_THE_ANSWER.match(text, lead.end()):  # "I hope this answer is correct"
            continue
        first = _BEGINNING.search(text, lead.end())
        if first is None:
            continue
        window = text[first.start() : first.start() + MAX_PHRASE_CHARS]
        end = _end_of_answer(window)
        if end == MAX_PHRASE_CHARS:
            continue
        answer = _clean(window[:end].rstrip(" \t,;(—–-，、"))
        if answer:
            return answer
    return ""


def _is_heading(text: str, start: int) -> bool:
    """Whether nothing but "the final" and the like stands before `start` in its line."""
    before = text[max(0, start - 40) : start]
    before = before[before.rfind("\n") + 1 :] if "\n" in before or start <= 40 else "a line that is too long"
    return " ".join("".join(c if c.isalpha() else " " for c in before.lower()).split()) in _HEADINGS


def _end_of_answer(text: str) -> int:
    """Where the line, the sentence or the main clause ends, outside of mathematics and braces."""
    i, depth = 0, 0
    while i < len(text):
        past_math = _past_math(text, i)
        if past_math:
            i = past_math
            if text.startswith(".$", i - 2) and (text[i : i + 1] or " ").isspace():
                return i
            continue
        c = text[i]
        if c == "\\":
            i += 2
            continue
        if c == "\n":
            return i
        depth = max(0, depth + (c == "{") - (c == "}"))
        if depth == 0 and i > 0:
            # Neither an ellipsis nor the point in 1.5. Asterisks that end bold text may follow.
            full_stop = c == "。" or (
                c == "." and text[i - 1] != "." and (text[i + 1 : i + 4].lstrip("*`") or " ")[0].isspace()
            )
            if full_stop or _CLAUSE.match(text, i):
                return i
        i += 1
    return len(text)


def _past_math(text: str, start: int) -> int:
    r"""Where the `$…$`, `\(…\)` or the like that begins at `start` has ended; 0 if none begins there."""
    for opening, closing in _MATH_DELIMITERS:
        if text.startswith(opening, start):
            end = text.find(closing, start + len(opening))
            # Amounts of money are not mathematics: "$5 because I paid $3"
            if end < 0 or (opening == "$" and ("\n" in text[start:end] or text[end + 1 : end + 2].isdigit())):
                return 0
            return end + len(closing)
    return 0


def _last_line(text: str) -> str:
    """The last line if it is short, or the content of the displayed formula that ends there."""
    line = text[text.rfind("\n") + 1 :]
    for opening, closing in _MATH_DELIMITERS[:2]:
        if line.strip() == closing:
            line = text[: text.rfind(closing)]
            line = line[line.rfind(opening) + len(opening) :] if opening in line else ""
    return _clean(line) if len(line) <= MAX_LINE_CHARS else ""


def _clean(text: str) -> str:
    """A text without markdown bold, code marks, full stop, and delimiters around the whole."""
    text = _without_full_stop(_BOLD.sub("", text.strip()).strip("*` \t\n"))
    for opening, closing in _MATH_DELIMITERS:
        inner = text[len(opening) : -len(closing)]
        if inner and text.startswith(opening) and text.endswith(closing) and closing not in inner:
            return _without_full_stop(inner.strip())
    return text


def _without_full_stop(text: str) -> str:
    return text if text.endswith("..") else text.removesuffix(".").removesuffix("。").rstrip()
