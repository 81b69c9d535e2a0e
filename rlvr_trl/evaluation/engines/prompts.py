"""Prompts as every engine takes them: what they may hold, their tokens, and a digest that stands for their content."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


def is_conversation(prompt) -> bool:
    return not isinstance(prompt, str)


def content_parts(prompt: Sequence[dict]) -> list[dict]:
    """The parts of all messages of a conversation whose content is a list of parts."""
    contents = [message.get("content") for message in prompt]
    return [part for content in contents if isinstance(content, list) for part in content]


def images_of(prompt) -> list:
    """The PIL images of a prompt, in order."""
    if not is_conversation(prompt):
        return []
    return [part["image"] for part in content_parts(prompt) if part["type"] == "image"]


def check_engine_prompts(prompts: Sequence, why_no_images: str | None = None) -> None:
    """
    Raises `ValueError` if there are no prompts, if they are not all strings or all conversations, or if one has
    content of another type than text and PIL images, or images although `why_no_images` says why they cannot be had.
    """
    if len(prompts) == 0:
        raise ValueError("There are no prompts to sample from.")
    num_conversations = sum(is_conversation(prompt) for prompt in prompts)
    if num_conversations not in (0, len(prompts)):
        raise ValueError(
            f"Prompts must be all strings or all conversations, but {num_conversations} of {len(prompts)} are "
            "conversations."
        )
    for index, prompt in enumerate(prompts if num_conversations else ()):
        parts = content_parts(prompt)
        unknown = sorted({part["type"] for part in parts} - {"text", "image"})
        if unknown:
            raise ValueError(f"Prompt {index} has content of type {unknown}; only text and images are supported.")
        images = [part.get("image") for part in parts if part["type"] == "image"]
        if images and why_no_images:
            raise ValueError(f"Prompt {index} has an image, but {why_no_images}")
        for image in images:
            if not hasattr(image, "tobytes") or not hasattr(image, "mode"):
                found = type(image).__name__
                raise ValueError(f"Prompt {index} has an image part whose 'image' is {found}, not a PIL image.")


@dataclass(frozen=True)
class TokenizedPrompt:
    """A prompt's tokens, whether it has images, and a digest of both."""

    ids: list[int]
    has_images: bool
    digest: bytes


def tokenize_prompts(
    processing_class, prompts: Sequence, problems: Iterable[int], chat_template_kwargs: dict | None
) -> dict[int, TokenizedPrompt]:
    """
    Tokenizes the prompts of these problems as TRL's `GRPOTrainer` does, so that a model is measured on what it was
    trained on.

    Images are processed one prompt at a time and dropped again: a data set of them would not fit the memory.

    Raises:
        ValueError: a prompt has no token.
    """
    problems = sorted(set(problems))
    images = [images_of(prompts[problem]) for problem in problems]
    at_once = 1 if any(images) else max(1, len(problems))
    prompt_ids = []
    for start in range(0, len(problems), at_once):
        some = [prompts[problem] for problem in problems[start : start + at_once]]
        prompt_ids += processor_inputs(processing_class, some, chat_template_kwargs)["input_ids"]
    for problem, ids in zip(problems, prompt_ids, strict=True):
        if len(ids) == 0:
            raise ValueError(f"Prompt {problem} ({prompts[problem]!r}) has 0 tokens, but generation needs at least 1.")
    return {
        problem: TokenizedPrompt(list(ids), bool(own_images), _digest(ids, own_images))
        for problem, ids, own_images in zip(problems, prompt_ids, images, strict=True)
    }


def processor_inputs(processing_class, prompts: Sequence, chat_template_kwargs: dict | None) -> dict:
    """What the tokenizer or the processor makes of prompts of one kind: lists of tokens, and images as arrays."""
    if not is_conversation(prompts[0]):
        return processing_class(text=list(prompts))
    if has_image_processor(processing_class):  # the templates of many of these take lists of parts only
        prompts = [[_with_parts(message) for message in prompt] for prompt in prompts]
    return processing_class.apply_chat_template(
        conversation=list(prompts),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **(chat_template_kwargs or {}),
    )


def has_image_processor(processing_class) -> bool:
    return hasattr(processing_class, "image_processor")


def _with_parts(message: dict) -> dict:
    content = message.get("content")
    return {**message, "content": [{"type": "text", "text": content}]} if isinstance(content, str) else message


def _digest(ids: list[int], images: list) -> bytes:
    digest = hashlib.blake2b(np.asarray(ids, dtype="<i8").tobytes(), digest_size=16)
    for image in images:
        digest.update(f"{image.mode}{image.size}".encode())
        digest.update(image.tobytes())
    return digest.digest()


def stream_key(seed: int, prompt: bytes, sample: int) -> int:
    """Key of the stream of a prompt's sample: a signed 64-bit integer. `prompt` is a digest of its content."""
    return int.from_bytes(_hash(f"{seed}/{sample}/", prompt), "little", signed=True)


def request_seed(seed: int, prompt: bytes, sample: int) -> int:
    """
    Seed of a request to an engine that takes one: below 2^31, which every server accepts, and different for each of a
    prompt's samples, for the same seed twice would count one completion as two.
    """
    return (int.from_bytes(_hash(f"{seed}/", prompt), "little") + sample) % 2**31


def _hash(prefix: str, prompt: bytes) -> bytes:
    return hashlib.blake2b(prefix.encode() + prompt, digest_size=8).digest()
