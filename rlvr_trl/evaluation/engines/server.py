"""Sampling from a server that speaks OpenAI's API, such as `vllm serve`."""

import base64
import hashlib
import io
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException

from ...terminal import printable
from ..samples import Sample, SamplingSettings
from .prompts import check_engine_prompts, is_conversation, request_seed


ATTEMPTS = 7
FIRST_WAIT = 0.5  # seconds, doubled with every further attempt: half a minute in all
_image_lock = threading.Lock()


class ServerEngine:
    """
    Samples from an OpenAI-compatible server: strings from `/v1/completions`, conversations from
    `/v1/chat/completions`, where the server applies the chat template. Images go as data URLs.

    Every completion is a request with a seed of its own. Whether a seed gives the same completion again is up to the
    server. Servers do not tell a completion's tokens or the full distribution, so samples have neither `token_ids` nor
    an entropy; lengths are the server's count. Unlike the other engines, `describe` cannot tell the weights: it names
    the address and the model's name there.

    An answer that cannot be had (no connection, a time-out, status 429 or 5xx) is asked for again, with growing
    waits, 7 times in all.

    Args:
        base_url (`str`): the address, with or without `/v1`.
        model (`str`): the model's name at the server.
        api_key (`str`, *optional*): sent as a bearer token.
        concurrency (`int`): requests that wait for the server at the same time.
        timeout (`float`): seconds to wait for an answer.
        chat_template_kwargs (`dict`, *optional*): sent along with conversations, as vLLM takes them.

    Raises:
        ValueError: `base_url` is no http address or `concurrency` is below 1; from `sample`, the server refuses a
            request or its answer is not what the API says.
        ConnectionError: from `sample`, there is still no answer at the last attempt.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        concurrency: int = 32,
        timeout: float = 600,
        chat_template_kwargs: dict | None = None,
    ):
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, got {base_url!r}.")
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}.")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.model, self.api_key, self.chat_template_kwargs = model, api_key, chat_template_kwargs
        self.concurrency, self.timeout = concurrency, timeout

    def check(self, prompts: Sequence) -> None:
        check_engine_prompts(prompts)
        for index, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise ValueError(f"Prompt {index} is empty.")

    def sample(
        self, prompts: Sequence, requests: Sequence[tuple[int, int]], settings: SamplingSettings
    ) -> Iterator[list[Sample]]:
        stop = threading.Event()
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="server-engine")
        try:
            futures = [
                pool.submit(self._complete, prompts[request[0]], request, settings, stop) for request in requests
            ]
            for future in as_completed(futures):
                yield [future.result()]
        finally:  # also when a request has failed, or no more samples are wanted
            stop.set()
            pool.shutdown(cancel_futures=True)

    def describe(self) -> dict:
        return {
            "engine": "server",
            "base_url": self.base_url,
            "model": self.model,
            "revision": None,
            "chat_template_kwargs": self.chat_template_kwargs or {},
        }

    def _complete(self, prompt, request: tuple[int, int], settings: SamplingSettings, stop: threading.Event) -> Sample:
        is_chat = is_conversation(prompt)
        url = f"{self.base_url}/v1/{'chat/completions' if is_chat else 'completions'}"
        answer = self._ask(url, self._body(prompt, request[1], settings), stop)
        try:
            [choice] = answer["choices"]
            # None: a server that takes the reasoning apart, and there was nothing after it
            text = (choice["message"]["content"] or "") if is_chat else choice["text"]
            reason, length = choice["finish_reason"], answer["usage"]["completion_tokens"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{url} must answer with one choice, its finish_reason and usage.completion_tokens, "
                f"but answered {_beginning(json.dumps(answer))}"
            ) from error
        if reason not in ("stop", "length"):
            raise ValueError(f"{url} ended a completion with finish_reason={reason!r}; 'stop' or 'length' is needed.")
        return Sample(*request, text, token_ids=None, length=length, truncated=reason == "length", entropy=None)

    def _body(self, prompt, sample: int, settings: SamplingSettings) -> bytes:
        body = {
            "model": self.model,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        if settings.top_k:  # not OpenAI's, but vLLM's and others'
            body["top_k"] = settings.top_k
        if is_conversation(prompt):
            body["messages"] = [_with_data_urls(message) for message in prompt]
            if self.chat_template_kwargs:
                body["chat_template_kwargs"] = self.chat_template_kwargs
            content = body["messages"]
        else:
            body["prompt"] = content = prompt
        digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
        body["seed"] = request_seed(settings.seed, digest, sample)
        return json.dumps(body).encode()

    def _ask(self, url: str, body: bytes, stop: threading.Event) -> dict:
        for attempt in range(ATTEMPTS):
            try:
                text = self._post(url, body)
                break
            except ConnectionError as error:
                is_last = attempt == ATTEMPTS - 1
                if is_last or stop.wait(FIRST_WAIT * 2**attempt):
                    raise ConnectionError(f"{url} gave no answer in {attempt + 1} attempts: {error}") from error
        try:
            return json.loads(text)
        except ValueError as error:
            raise ValueError(f"{url} must answer in JSON, but answered {_beginning(text)}") from error

    def _post(self, url: str, body: bytes) -> str:
        """The body of the answer. Raises `ConnectionError` where it is worth asking again, else `ValueError`."""
        headers = {"Content-Type": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(url, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            message = f"status {error.code}: {_beginning(error.read().decode(errors='replace'))}"
            if error.code == 429 or error.code >= 500:
                raise ConnectionError(message) from error
            raise ValueError(f"{url} refused a request with {message}") from error
        except (OSError, HTTPException) as error:  # a time-out and a broken connection are among them
            raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _with_data_urls(message: dict) -> dict:
    if not isinstance(message.get("content"), list):
        return message
    return {**message, "content": [_with_data_url(part) for part in message["content"]]}


def _with_data_url(part: dict) -> dict:
    if part["type"] != "image":
        return part
    stream = io.BytesIO()
    with _image_lock:  # PIL reads a file when its pixels are first needed, and threads share the image
        image = part["image"].convert("RGB")
    image.save(stream, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _beginning(text: str) -> str:
    return printable(text[:500])
