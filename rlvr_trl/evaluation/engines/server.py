"""Sampling from a server that speaks OpenAI's API, such as `vllm serve`."""

import base64
import hashlib
import io
import json
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx2

from ...terminal import printable
from ..samples import Sample, SamplingSettings
from .prompts import check_engine_prompts, is_conversation, request_seed


ATTEMPTS = 7
FIRST_WAIT = 0.5  # seconds, doubled after every further attempt: half a minute in all
_image_lock = threading.Lock()


class ServerEngine:
    """
    Samples from an OpenAI-compatible server: strings from `/v1/completions`, conversations from
    `/v1/chat/completions`, where the server applies the chat template. Images are sent as data URLs.

    Every completion is a request with its own seed. Whether the same seed gives the same completion again is up to the
    server. Servers return neither a completion's tokens nor the full distribution, so samples have no `token_ids` and
    no entropy; lengths are the server's count. Unlike the other engines, `describe` cannot identify the weights: it
    gives the address and the name of the model there.

    A request that gets no usable answer (no connection, a time-out, status 429 or 5xx) is sent again after growing
    waits, up to 7 times in all.

    Args:
        base_url (`str`): the address, with or without `/v1`.
        model (`str`): the model's name at the server.
        api_key (`str`, *optional*): sent as a bearer token.
        concurrency (`int`): number of requests that wait for the server at the same time.
        timeout (`float`): seconds to wait for an answer.
        chat_template_kwargs (`dict`, *optional*): sent along with conversations, in the form that vLLM takes.

    Raises:
        ValueError: `base_url` is not an http address or `concurrency` is below 1; from `sample`, the server refuses a
            request or its answer does not follow the API.
        ConnectionError: from `sample`, the last attempt got no answer either.
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
        self.model, self.concurrency, self.chat_template_kwargs = model, concurrency, chat_template_kwargs
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ValueError("api_key must be printable ASCII without line breaks, as in a header of HTTP.")
        self.api_key, self.timeout = api_key, timeout
        self._client = self._connect()

    def _connect(self) -> httpx2.Client:
        headers = {"Content-Type": "application/json"}
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        limits = httpx2.Limits(max_connections=self.concurrency)
        try:
            return httpx2.Client(base_url=self.base_url, headers=headers, timeout=self.timeout, limits=limits)
        except httpx2.InvalidURL as error:
            raise ValueError(f"base_url must be an address, got {self.base_url!r} ({error}).") from error
        except (ImportError, OSError, ValueError) as error:
            raise ValueError(
                f"The proxies or certificates that the environment names (ALL_PROXY, HTTPS_PROXY, SSL_CERT_FILE …) "
                f"cannot be used for {self.base_url}: {error}. Correct or unset them."
            ) from error

    def __getstate__(self) -> dict:
        return {name: value for name, value in vars(self).items() if name != "_client"}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._client = self._connect()

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
                pool.submit(self._sample_one, prompts[request[0]], request, settings, stop) for request in requests
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

    def _sample_one(
        self, prompt: Any, request: tuple[int, int], settings: SamplingSettings, stop: threading.Event
    ) -> Sample:
        is_chat = is_conversation(prompt)
        url = f"{self.base_url}/v1/{'chat/completions' if is_chat else 'completions'}"
        answer = self._ask(url, self._body(prompt, request[1], settings), stop)
        try:
            [choice] = answer["choices"]
            # `content` is None if the server separates the reasoning and nothing followed it
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

    def _body(self, prompt: Any, sample: int, settings: SamplingSettings) -> bytes:
        body: dict[str, Any] = {
            "model": self.model,
            "max_tokens": settings.max_new_tokens,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
        }
        if settings.top_k:  # not in OpenAI's API, but in that of vLLM and others
            body["top_k"] = settings.top_k
        if is_conversation(prompt):
            body["messages"] = content = [_with_data_urls(message) for message in prompt]
            if self.chat_template_kwargs:
                body["chat_template_kwargs"] = self.chat_template_kwargs
        else:
            body["prompt"] = content = prompt
        digest = hashlib.blake2b(json.dumps(content).encode(), digest_size=16).digest()
        body["seed"] = request_seed(settings.seed, digest, sample)
        return json.dumps(body).encode()

    def _ask(self, url: str, body: bytes, stop: threading.Event) -> Any:
        """The answer as JSON. Asks up to `ATTEMPTS` times, and not again once `stop` is set."""
        # A loop of our own: tenacity needs more code for these waits, `stop` and the message, and the openai client's
        # waits cannot be interrupted.
        attempt = 1
        while True:
            try:
                return self._post(url, body)
            except ConnectionError as error:
                if attempt == ATTEMPTS or stop.wait(FIRST_WAIT * 2 ** (attempt - 1)):
                    raise ConnectionError(f"{url} gave no answer in {attempt} attempts: {error}") from error
            attempt += 1

    def _post(self, url: str, body: bytes) -> Any:
        """The answer as JSON. Raises `ConnectionError` if another attempt may succeed, else `ValueError`."""
        try:
            response = self._client.post(url, content=body)
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol) as error:  # what another attempt cannot mend
            raise ValueError(f"{url} cannot be asked: {type(error).__name__}: {error}") from error
        except httpx2.HTTPError as error:  # among them a time-out and a broken connection
            raise ConnectionError(f"{type(error).__name__}: {error}") from error
        if response.status_code == 429 or response.is_server_error:
            raise ConnectionError(f"status {response.status_code}: {_beginning(response.text)}")
        if not response.is_success:
            raise ValueError(
                f"{url} refused a request with status {response.status_code}: {_beginning(response.text)}"
            )
        try:
            return response.json()
        except ValueError as error:
            raise ValueError(f"{url} must answer in JSON, but answered {_beginning(response.text)}") from error


def _with_data_urls(message: dict) -> dict:
    if not isinstance(message.get("content"), list):
        return message
    return {**message, "content": [_with_data_url(part) for part in message["content"]]}


def _with_data_url(part: dict) -> dict:
    if part["type"] != "image":
        return part
    stream = io.BytesIO()
    with _image_lock:  # threads share the image, and PIL reads its file only when the pixels are first needed
        image = part["image"].convert("RGB")
    image.save(stream, format="PNG")
    url = f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}


def _beginning(text: str) -> str:
    return printable(text[:500])
