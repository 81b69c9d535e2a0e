"""Prompts as all engines take them: what they may hold, their tokens, a digest of their content, and seeds from it."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def is_conversation(prompt: Any) -> bool:
    """Whether a prompt is a list of messages rather than a string."""
    return not isinstance(prompt, str)


def content_parts(prompt: Sequence[dict]) -> list[dict]:
    """The content parts of all messages of a conversation, of those whose content is a list."""
    contents = [message.get("content") for message in prompt]
    return [part for content in contents if isinstance(content, list) for part in content]


def images_of(prompt) -> list:
    """The PIL images of a prompt, in order."""
    if not is_conversation(prompt):
        return []
    return [part["image"] for part in content_parts(prompt) if part["type"] == "image"]


def check_engine_prompts(prompts: Sequence, why_no_images: str | None = None) -> None:
    """
    Checks that an engine can take these prompts.

    Args:
        prompts (sequence of `str`, or of lists of messages): the prompts.
        why_no_images (`str`, *optional*): why the engine takes no images, as the end of the error message.

    Raises:
        ValueError: there are no prompts; they are neither all strings nor all conversations; or a prompt has content
            other than text and PIL images, or has images although the engine takes none.
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
    """A prompt's tokens, whether it has images, and a digest of tokens and images."""

    ids: list[int]
    has_images: bool
    digest: bytes


def tokenize_prompts(
    processing_class, prompts: Sequence, problems: Iterable[int], chat_template_kwargs: dict | None
) -> dict[int, TokenizedPrompt]:
    """
    Tokenizes the prompts of these problems as TRL's `GRPOTrainer` does, so that a model is measured on the tokens that
    it was trained on.

    Prompts with images are processed one at a time and their pixels dropped: all of them would not fit in memory.

    Raises:
        ValueError: a prompt has no tokens.
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


@dataclass(frozen=True)
class PromptSurvey:
    """
    How prompts fit the model.

    Args:
        count (`int`): number of prompts.
        longest (`int`): tokens of the longest.
        context (`int`, *optional*): tokens of prompt and completion that the model takes; `None` without a limit.
        num_beyond_context (`int`): prompts that reach beyond it together with the longest completion.
        num_two_bos (`int`): prompts that begin with two BOS tokens.
    """

    count: int
    longest: int
    context: int | None
    num_beyond_context: int
    num_two_bos: int

    def messages(self, max_new_tokens: int) -> list[str]:
        """What a user should be warned of."""
        messages = []
        if self.num_beyond_context and self.context is not None:
            which = f"{self.num_beyond_context} of {self.count} prompts"
            messages.append(
                beyond_context_message(which, self.longest, self.context, f"max_new_tokens={max_new_tokens}")
            )
        if self.num_two_bos:
            messages.append(two_bos_message(f"{self.num_two_bos} of {self.count} prompts"))
        return messages


def survey_prompts(
    prompt_ids: Collection[Sequence[int]], context: int | None, max_new_tokens: int, bos_token_id: int | None
) -> PromptSurvey:
    """Looks at the tokens of prompts; see [`PromptSurvey`]."""
    lengths = [len(ids) for ids in prompt_ids]
    return PromptSurvey(
        count=len(lengths),
        longest=max(lengths),
        context=context,
        num_beyond_context=sum(context is not None and length + max_new_tokens > context for length in lengths),
        num_two_bos=sum(begins_with_two_bos(ids, bos_token_id) for ids in prompt_ids),
    )


def begins_with_two_bos(ids: Sequence[int], bos_token_id: int | None) -> bool:
    """Whether a prompt begins with two tokens that begin a text. `ids` has no padding."""
    return bos_token_id is not None and list(ids[:2]) == [bos_token_id] * 2


def context_of(config) -> int | None:
    """
    Tokens of prompt and completion that a model was made for: `max_position_embeddings` of its configuration, or what
    YaRN makes of the context that it was trained on. `None` without a limit.
    """
    config = config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if rope.get("rope_type") == "yarn" and limit and factor and original:
        return max(limit, int(factor * original))  # Qwen's cards add YaRN and leave the limit as it is
    return limit


def beyond_context_message(which: str, longest: int, context: int, setting: str) -> str:
    """The warning of prompts that reach beyond the context of the model. `setting` is that of the completions."""
    return (
        f"{which} reach beyond the model's context of {context} tokens (`max_position_embeddings`, or vLLM's "
        f"`max_model_len`) together with completions of {setting}: the longest prompt has {longest} tokens. There a "
        f"model writes nonsense, fails, or is cut off. Leave out long prompts or lower the length of completions."
    )


def two_bos_message(which: str) -> str:
    """The warning of prompts with two BOS tokens."""
    return (
        f"{which} begin with two BOS tokens, which the model has never seen: the text of the prompt has one, and the "
        f"tokenizer adds another. Give the prompts as conversations (lists of messages), whose template writes the "
        f"only one, or take it out of the text."
    )


def processor_inputs(processing_class, prompts: Sequence, chat_template_kwargs: dict | None) -> dict:
    """What the tokenizer or processor returns for prompts of one kind: lists of tokens, and images as arrays."""
    if not is_conversation(prompts[0]):
        return processing_class(text=list(prompts))
    if has_image_processor(processing_class):  # many chat templates of such models take only lists of parts
        prompts = [[_with_parts(message) for message in prompt] for prompt in prompts]
    return processing_class.apply_chat_template(
        conversation=list(prompts),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        **(chat_template_kwargs or {}),
    )


def has_image_processor(processing_class) -> bool:
    """Whether this is the processor of a model that takes images, not a tokenizer."""
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
    """The key of the noise of one sample of a prompt: a signed 64-bit integer. `prompt` is a digest of its content."""
    return int.from_bytes(_hash(f"{seed}/{sample}/", prompt), "little", signed=True)


def request_seed(seed: int, prompt: bytes, sample: int) -> int:
    """
    The seed of a request to an engine that takes seeds. It is below 2^31, which every server accepts, and different
    for every sample of a prompt, since two samples with the same seed would be the same completion.
    """
    return (int.from_bytes(_hash(f"{seed}/", prompt), "little") + sample) % 2**31


def _hash(prefix: str, prompt: bytes) -> bytes:
    return hashlib.blake2b(prefix.encode() + prompt, digest_size=8).digest()
