"""Digests of prompts and completions: equal for equal content, in every process."""

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


def _pixels(value: Any) -> str:
    if not hasattr(value, "tobytes"):
        raise TypeError(f"A prompt or completion holds a {type(value).__name__}: only text and images are supported.")
    return hashlib.sha256(value.tobytes()).hexdigest()
