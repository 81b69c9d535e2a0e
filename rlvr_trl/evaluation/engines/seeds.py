"""A seed for every request, which no other request can move."""

import hashlib


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
