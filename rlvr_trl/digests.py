"""Digests of prompts, completions and answers: equal for equal content, in every process."""

import hashlib
import json
from typing import Any


def content_digest(*parts: Any) -> bytes:
    """
    SHA-256 of the content of text, numbers and messages. Images count by their pixels.

    Raises:
        `TypeError`: A part holds anything else.
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=_pixels).encode()).digest()


NO_ANSWER = -1


def answer_id(answer: Any) -> int:
    """
    63 bits of the digest of an extracted answer, or `NO_ANSWER` for None. Linear in its length.

    Raises:
        `TypeError`: It is neither text, a number, nor made of them.
    """
    return NO_ANSWER if answer is None else int.from_bytes(content_digest(answer)[:8], "big") >> 1


def _pixels(value: Any) -> str:
    if not hasattr(value, "tobytes"):
        raise TypeError(f"A prompt or completion holds a {type(value).__name__}: only text and images are supported.")
    return hashlib.sha256(value.tobytes()).hexdigest()
