"""The address of a server that may be slow, busy, broken or hostile, and one request to it."""

import base64
import functools
import json
import os
import re
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.request import getproxies

import httpx2

from ...terminal import printable


ERROR_BYTES = 2**16  # of the body of an answer without success
AWAY = (502, 503, 504)  # statuses of a server that is being started again, or of a gateway in front of it
GONE = (httpx2.NetworkError, httpx2.RemoteProtocolError)  # errors of one that is not there, or has gone meanwhile


class NoAnswer(ConnectionError):
    """
    An attempt that may succeed when it is repeated.

    Args:
        message (`str`): what happened.
        is_away (`bool`): whether the server is not there for now, rather than broken.
        asks_to_wait (`bool`): whether the server said that it wants to be asked later.
        seconds (`float`, *optional*): for how long, if it said so.
    """

    def __init__(self, message: str, is_away: bool = False, asks_to_wait: bool = False, seconds: float | None = None):
        super().__init__(message)
        self.is_away, self.asks_to_wait, self.seconds = is_away, asks_to_wait, seconds


class RefusedRequest(ValueError):
    """A request that the server refuses whenever it is sent. `answer` is what it said, if that was JSON."""

    def __init__(self, message: str, answer: Any):
        super().__init__(message)
        self.answer = answer


class Address:
    """
    The address of a server, and what it has to be told to be let in, which is neither shown nor saved.

    Args:
        base_url (`str`): the address, with or without `/v1`, and perhaps with a user and password, as in
            `https://user:password@host`. The attribute `base_url` is without them.
        api_key (`str`, *optional*): sent as a bearer token.

    Raises:
        ValueError: `base_url` is not an http address or has a query, `api_key` fits in no header, or there are both a
            key and a user. The message repeats none of them.
    """

    def __init__(self, base_url: str, api_key: str | None):
        shown = without_credentials(base_url)
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"base_url must start with http:// or https://, got {shown!r}.")
        try:
            url = httpx2.URL(base_url)
        except httpx2.InvalidURL as error:
            why = "what is before the '@' is not shown" if "@" in base_url else str(error)
            raise ValueError(f"base_url must be an address, got {shown!r} ({why}).") from None
        if not url.host:
            raise ValueError(f"base_url must be an address, got {shown!r}, which has no host.")
        if url.port is not None and not 0 < url.port < 2**16:
            raise ValueError(f"base_url must be an address, got {shown!r}, whose port is above {2**16 - 1} or 0.")
        if "?" in base_url or "#" in base_url:
            raise ValueError(f"base_url must end with its path, but a query or fragment follows {shown!r}.")
        if api_key is not None and not (
            api_key and api_key.isascii() and api_key.isprintable() and " " not in api_key
        ):
            raise ValueError("api_key must be printable ASCII without line breaks and spaces, as in a header of HTTP.")
        if "@" in base_url.partition("://")[2].partition("/")[2]:
            raise ValueError(f"base_url has a '/' before the '@' of {shown!r}: write '/' as %2F, or that '@' as %40.")
        self.user = (url.username, url.password) if url.userinfo else None
        if self.user is not None and api_key is not None:
            raise ValueError(f"base_url {shown!r} has a user, and there is an api_key: a request can have only one.")
        told = [] if self.user is None else [base64.b64encode(":".join(self.user).encode()).decode(), self.user[1]]
        self._secrets = [secret for secret in (api_key, *told) if secret]
        self.base_url, self.api_key = shown.rstrip("/").removesuffix("/v1"), api_key

    def client(self, connections: int) -> httpx2.AsyncClient:
        """
        A client with at most this many connections. It follows no redirect, so that key, user and prompts reach this
        address alone, and has no time-outs of its own: they would bound each piece of an answer instead of the whole.

        Raises:
            ValueError: the environment names proxies or certificates that cannot be used.
        """
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        try:
            return httpx2.AsyncClient(
                headers=headers,
                auth=self.user,
                verify=_tls(*(os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"))),
                timeout=None,
                limits=httpx2.Limits(max_connections=connections),
                follow_redirects=False,
            )
        except (httpx2.InvalidURL, ImportError, OSError, ValueError) as error:
            hidden = any("@" in proxy for proxy in getproxies().values())
            why = "a proxy with a user is not shown" if hidden else str(error)
            raise ValueError(
                f"The proxies or certificates that the environment names (ALL_PROXY, HTTPS_PROXY, SSL_CERT_FILE …) "
                f"cannot be used for {self.base_url}: {why}. Correct or unset them."
            ) from (None if hidden else error)

    def show(self, text: str) -> str:
        """The beginning of what a server said, for a message: without the key and password that it may repeat."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return printable(text[:500])

    async def post(self, client: httpx2.AsyncClient, url: str, body: bytes, max_bytes: int) -> tuple[Any, str]:
        """
        The answer as JSON, and its beginning for messages.

        Raises:
            NoAnswer: there is none, but another attempt may succeed.
            RefusedRequest: the server refuses the request.
            ValueError: the answer is a redirect, is not JSON in UTF-8, or is longer than `max_bytes`.
        """
        try:
            async with client.stream("POST", url, content=body) as response:
                content, is_whole = await _read(response, max_bytes if response.is_success else ERROR_BYTES)
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol) as error:  # what another attempt cannot mend
            raise ValueError(self._told(f"{url} cannot be asked", error)) from None
        except httpx2.HTTPError as error:  # such as a broken connection
            raise NoAnswer(self._told("", error), isinstance(error, GONE)) from None
        shown = self.show(content.decode(errors="replace"))
        status = response.status_code
        if status == 429 or response.is_server_error:
            seconds = retry_after(response.headers)
            asks_to_wait = status == 429 or seconds is not None
            raise NoAnswer(f"status {status}: {shown}", status in AWAY, asks_to_wait, seconds)
        if response.is_redirect:
            target = self.show(without_credentials(response.headers.get("Location", "")))
            raise ValueError(
                f"{url} answered with status {status}, a redirect to {target!r}, which is not followed: it would take "
                f"prompts and key elsewhere. If that server is meant, name it as base_url."
            )
        if not response.is_success:
            raise RefusedRequest(f"{url} refused a request with status {status}: {shown}", _json_or_none(content))
        if not is_whole:
            raise ValueError(
                f"{url} answered with more than {max_bytes} bytes, which no completion of this length has."
            )
        try:
            return json.loads(content.decode()), shown
        except RecursionError:
            raise ValueError(f"{url} answered in JSON that is nested too deeply: {shown}") from None
        except UnicodeDecodeError as error:
            raise ValueError(f"{url} must answer in UTF-8, but {error}: {shown}") from None
        except ValueError:
            kind = self.show(response.headers.get("Content-Type", "of no type"))
            raise ValueError(f"{url} must answer in JSON, but answered {shown} ({kind})") from None

    def _told(self, what: str, error: BaseException) -> str:
        """What went wrong, and the first cause of it: on the way up, "connection refused" is lost."""
        causes = [error]
        while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
            causes.append(cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause)
        first = causes[-1]
        number = first.errno if isinstance(first, ConnectionError) else None
        told = str(first) if number is None else os.strerror(number)  # asyncio has words of its own there
        texts = [what, type(error).__name__, *dict.fromkeys([str(error), told])]
        return self.show(": ".join(filter(None, texts)))


@functools.cache
def _tls(*certificates: str | None) -> ssl.SSLContext:
    """What the environment trusts, which takes a fifth of a second to read. The arguments are what it depends on."""
    return httpx2.create_ssl_context()


def without_credentials(url: str) -> str:
    """An address for a message: without all that may be user and password, which may hold any character, and query."""
    scheme, separator, _ = url.partition("://")
    shown = re.split("[?#]", url.rpartition("@")[2], maxsplit=1)[0]
    return f"{scheme}{separator}{shown}" if "@" in url and separator and scheme.isalpha() else shown


async def _read(response: httpx2.Response, max_bytes: int) -> tuple[bytes, bool]:
    """The body, uncompressed, up to `max_bytes`, and whether that is all of it."""
    content = bytearray()
    async for piece in response.aiter_bytes():  # compressed or not, a piece has at most 1 MiB
        content += piece
        if len(content) > max_bytes:
            return bytes(content[:max_bytes]), False
    return bytes(content), True


def _json_or_none(content: bytes) -> Any:
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):
        return None


def retry_after(headers: httpx2.Headers) -> float | None:
    """
    Seconds that a server asks to wait by `Retry-After` (RFC 9110, 10.2.3): a number, or a date, which is compared with
    the server's own clock where the answer has it. None without the header, or for what is neither.
    """
    value = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return float(value)  # of any length: inf, where an int would fail
    until = _date(value)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(UTC)
    return max(0.0, (until - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
