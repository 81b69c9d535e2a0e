"""Sampling from a server that speaks OpenAI's API, such as `vllm serve`."""

import base64
import hashlib
import io
import json
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any

import httpx2
from anyio import fail_after, sleep, to_thread
from anyio.from_thread import start_blocking_portal

from ...checks import check_positive
from ..samples import Sample, SamplingSettings
from .prompts import check_engine_prompts, is_conversation, request_seed
from .server_address import Address, NoAnswer, RefusedRequest


ATTEMPTS = 7  # that fail without an answer which asks to wait
FIRST_WAIT = 0.5  # seconds, doubled after every further attempt: half a minute in 7 attempts
LONGEST_WAIT = 60.0  # seconds, unless the server names a longer time
WARN_AFTER = 30.0  # seconds for which a request has been repeated
FILTERED, TOKENS = "content_filter", "completion_tokens"  # as OpenAI's API calls them
ANSWER_BYTES, TOKEN_BYTES = 2**20, 2**10  # the longest answer that is read: this, and as much more for each token
_image_lock = threading.Lock()


class ServerEngine:
    """
    Samples from an OpenAI-compatible server: strings from `/v1/completions`, conversations from
    `/v1/chat/completions`, where the server applies the chat template. Images are sent as data URLs.

    Every completion is a request with its own seed. Whether the same seed gives the same completion again is up to the
    server. Servers return neither a completion's tokens nor the full distribution, so samples have no `token_ids` and
    no entropy; lengths are the server's count. Unlike the other engines, `describe` cannot identify the weights: it
    gives the address and the name of the model there.

    A request that gets no usable answer (no connection, a time-out, status 5xx) is sent again after growing waits, up
    to 7 times in all. While the server asks to wait (status 429, or a header `Retry-After`), and while a server that
    has answered before is away, that is repeated for up to `patience` seconds, after the waits that the server names
    or a minute at most.

    A completion that the server refuses (`content_filter`) becomes a sample that is `refused`. An answer has at most
    1 MiB and 1 KiB more for each token of `max_new_tokens`; redirects are not followed.

    Args:
        base_url (`str`): the address, with or without `/v1`. A user and password in it are sent, and are in no file
            and no message.
        model (`str`): the model's name at the server.
        api_key (`str`, *optional*): sent as a bearer token.
        concurrency (`int`): number of requests that wait for the server at the same time.
        timeout (`float`): seconds that a whole answer may take, from the connection to its last byte.
        patience (`float`): seconds for which a request is repeated at a server that is busy or away for a while.
        chat_template_kwargs (`dict`, *optional*): sent along with conversations, in the form that vLLM takes.

    Raises:
        ValueError: `base_url` is not an http address, or another argument is out of range; from `sample`, the server
            refuses a request, or its answer does not follow the API.
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
        patience: float = 3600,
        chat_template_kwargs: dict | None = None,
    ):
        self._address = Address(base_url, api_key)
        self.base_url, self.api_key = self._address.base_url, api_key
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, got {concurrency}.")
        check_positive("timeout", timeout, may_be_infinite=True)
        check_positive("patience", patience, may_be_infinite=True)
        self.model, self.concurrency, self.chat_template_kwargs = model, concurrency, chat_template_kwargs
        self.timeout, self.patience = timeout, patience
        self._has_answered = self._has_warned = False
        self._address.client(concurrency)  # raises for proxies and certificates that cannot be used

    def check(self, prompts: Sequence) -> None:
        check_engine_prompts(prompts)
        for index, prompt in enumerate(prompts):
            if len(prompt) == 0:
                raise ValueError(f"Prompt {index} is empty.")

    def sample(
        self, prompts: Sequence, requests: Sequence[tuple[int, int]], settings: SamplingSettings
    ) -> Iterator[list[Sample]]:
        left, finished = iter(requests), SimpleQueue()

        async def work(client: httpx2.AsyncClient) -> None:
            for request in left:  # shared by all workers, which are tasks of one thread
                finished.put(await self._sample_one(client, prompts[request[0]], request, settings))

        # An event loop in a thread of its own: only there a time-out bounds a whole answer and all waits can be ended
        with (
            start_blocking_portal() as portal,
            portal.wrap_async_context_manager(self._address.client(self.concurrency)) as client,
        ):
            workers = [portal.start_task_soon(work, client) for _ in requests[: self.concurrency]]
            try:
                for worker in workers:
                    worker.add_done_callback(finished.put)
                num_working = len(workers)
                while num_working:
                    if isinstance(next_one := finished.get(), Future):
                        next_one.result()  # raises what ended it
                        num_working -= 1
                    else:
                        yield [next_one]
            finally:  # also when a request has failed, or no more samples are wanted
                for worker in workers:
                    worker.cancel()

    def describe(self) -> dict:
        return {
            "engine": "server",
            "base_url": self.base_url,
            "model": self.model,
            "revision": None,
            "chat_template_kwargs": self.chat_template_kwargs or {},
        }

    async def _sample_one(
        self, client: httpx2.AsyncClient, prompt: Any, request: tuple[int, int], settings: SamplingSettings
    ) -> Sample:
        is_chat = is_conversation(prompt)
        url = f"{self.base_url}/v1/{'chat/completions' if is_chat else 'completions'}"
        body = await to_thread.run_sync(self._body, prompt, request[1], settings)  # which may encode images
        most_bytes = ANSWER_BYTES + TOKEN_BYTES * settings.max_new_tokens
        try:
            answer, shown = await self._ask(client, url, body, most_bytes)
        except RefusedRequest as refusal:
            if not _is_filtered_prompt(refusal.answer):
                raise
            return _refused(request)
        try:
            [choice] = answer["choices"]
            reason = choice["finish_reason"]
            if reason == FILTERED:
                return _refused(request)
            text, length = choice["message"]["content"] if is_chat else choice["text"], answer["usage"][TOKENS]
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(
                f"{url} must answer with one choice, its finish_reason and usage.{TOKENS}, but answered {shown}"
            ) from None
        if is_chat and text is None:  # the server separates the reasoning, and nothing followed it
            text = ""
        if not isinstance(text, str):
            raise ValueError(f"{url} must answer with a text, but it is {type(text).__name__}: {shown}")
        if reason not in ("stop", "length"):
            found = self._address.show(repr(reason))
            raise ValueError(f"{url} ended a completion with finish_reason={found}; 'stop' or 'length' is needed.")
        if type(length) is not int or not 0 <= length <= settings.max_new_tokens:
            raise ValueError(
                f"{url} must answer with usage.{TOKENS} from 0 to max_tokens={settings.max_new_tokens}, but it is "
                f"{self._address.show(repr(length))}: {shown}"
            )
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # half a character is none
        return Sample(*request, text, token_ids=None, length=length, truncated=reason == "length", entropy=None)

    async def _ask(self, client: httpx2.AsyncClient, url: str, body: bytes, max_bytes: int) -> tuple[Any, str]:
        """The answer as JSON, and its beginning for messages. Asks again after growing waits."""
        begin, attempts, failures = time.monotonic(), 0, 0
        while True:
            attempts += 1
            try:
                with fail_after(self.timeout):
                    answer = await self._address.post(client, url, body, max_bytes)
                self._has_answered = True
                return answer
            except TimeoutError:
                error = NoAnswer(f"Time-out: the whole answer had not come after {self.timeout:g} seconds")
            except NoAnswer as caught:
                error = caught
            told = f"{url} gave no answer in {attempts} attempts: {error}"
            wait = min(FIRST_WAIT * 2 ** min(attempts - 1, 30), LONGEST_WAIT)
            if error.seconds is not None:
                wait = max(FIRST_WAIT, error.seconds)
            until = time.monotonic() - begin + wait
            if error.asks_to_wait or (error.is_away and self._has_answered):
                if until > self.patience:
                    raise ConnectionError(
                        f"{told}. The next would be {until:.4g} seconds after the first, which is beyond "
                        f"patience={self.patience:g}."
                    )
            else:
                failures += 1
                if failures == ATTEMPTS:
                    raise ConnectionError(told)
            if until > WARN_AFTER and not self._has_warned:
                self._has_warned = True
                warnings.warn(f"{told}. It is asked again, for up to {self.patience:g} seconds.", stacklevel=2)
            await sleep(wait)

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


def _refused(request: tuple[int, int]) -> Sample:
    """A completion that the server keeps to itself: it may not tell its beginning and length either."""
    return Sample(*request, "", token_ids=None, length=0, truncated=False, entropy=None, refused=True)


def _is_filtered_prompt(answer: Any) -> bool:
    """Whether an answer without success says that the prompt is filtered, as Azure's with status 400 does."""
    error = answer.get("error") if isinstance(answer, dict) else None
    return isinstance(error, dict) and error.get("code") == FILTERED


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
