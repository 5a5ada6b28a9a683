"""The only file that talks HTTP: requests out, status, headers and bytes back, every failure an ErrorModel.

Works with httpx2 where it is installed, else with httpx (same API). One client serves each event loop, so connections
are reused from run to run; it is closed when its loop ends. Redirects are not followed: neither the key nor the prompt
ever goes to an address the caller did not name.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .config import Secret
from .errors import ErrorAgent, ErrorConfig, ErrorModelConnection, ErrorModelResponse, ErrorModelTimeout

if TYPE_CHECKING:
    import ssl

__all__ = ["Reply", "post", "post_stream", "where"]

MAX_BODY = 64 * 1024 * 1024
"""Bytes of an answer after decoding; a larger one is an error."""
allowed_hosts: frozenset[str] | None = None
"""When set, the only hosts a request may go to (`agentroute.testing.no_requests`)."""
CONNECT_S, WRITE_S, POOL_S = 10.0, 30.0, 600.0


@dataclass
class Reply:
    """Status and headers (lower-case names) of an answer; `body` is empty while it is being streamed."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(default=b"", repr=False)


@cache
def _library() -> Any:
    """The HTTP library, imported when the first request is made."""
    try:
        import httpx2

        return httpx2
    except ImportError:
        import httpx

        return httpx


@cache
def _tls() -> ssl.SSLContext:
    """One TLS context for all clients; making one costs some 20 ms."""
    context: ssl.SSLContext = _library().create_ssl_context()
    return context


_clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = weakref.WeakKeyDictionary()
_clients_lock = threading.Lock()


async def _client() -> Any:
    loop = asyncio.get_running_loop()
    entry = _clients.get(loop)
    if entry is not None:
        return entry[0]
    library = _library()
    client = library.AsyncClient(
        verify=_tls(),
        timeout=library.Timeout(None, connect=CONNECT_S, write=WRITE_S, pool=POOL_S),
        limits=library.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30),
        follow_redirects=False,
    )

    async def keeper() -> AsyncGenerator[None, None]:
        # asyncio closes open async generators when a loop ends: the one moment its client can still be closed.
        try:
            yield
        finally:
            await client.aclose()

    generator = keeper()
    await anext(generator)
    with _clients_lock:
        _clients[loop] = (client, generator)
    return client


def where(url: str) -> str:
    """host:port of a URL, for messages; never the user or password that may stand in it."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname}:{port or (443 if parts.scheme == 'https' else 80)}"


def _headers(extra: Mapping[str, str], key: Secret | None) -> dict[str, str]:
    headers = {
        "content-type": "application/json",
        "accept-encoding": "identity",  # odd proxies buffer compressed streams
        **extra,
    }
    if key:
        headers["authorization"] = f"Bearer {key.reveal()}"
    return headers


def _failure(error: Exception, url: str, timeout: float) -> ErrorAgent | None:
    """Our error for one of the HTTP library's; None for what is not about HTTP."""
    library = _library()
    name, place, detail = type(error).__name__, where(url), str(error) or type(error).__name__
    if isinstance(error, library.ConnectTimeout | library.PoolTimeout):
        return ErrorModelTimeout(f"{place} could not be connected to within {CONNECT_S:g} s")
    if isinstance(error, library.TimeoutException | TimeoutError):
        return ErrorModelTimeout(f"{place} did not answer in full within timeout={timeout:g} s")
    if isinstance(error, library.UnsupportedProtocol | library.InvalidURL | library.LocalProtocolError | UnicodeError):
        return ErrorConfig(f"not a usable endpoint: {place} ({detail}); give one like https://host/v1")
    if isinstance(error, library.DecodingError):
        return ErrorModelResponse(f"{place} sent a body that cannot be decoded ({detail})")
    if isinstance(error, library.ConnectError):
        return ErrorModelConnection(f"{place} could not be reached ({detail}); check the address, the network and the proxy settings")
    if isinstance(error, library.ProxyError):
        return ErrorModelConnection(f"the proxy for {place} failed ({detail}); check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
    if isinstance(error, library.HTTPError | library.StreamError | OSError):
        return ErrorModelConnection(f"the connection to {place} broke ({name}: {detail})")
    return None


async def post_stream(
    url: str, body: bytes, *, key: Secret | None, timeout: float, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Reply | bytes, None]:
    """First the Reply with status and headers, then the body's bytes as they come.

    `timeout` is seconds for the whole exchange. Closing the generator closes the connection.

    Raises:
        ErrorModelConnection, ErrorModelTimeout, ErrorModelResponse (body over MAX_BODY), ErrorConfig (bad address).
    """
    if allowed_hosts is not None and urlsplit(url).hostname not in allowed_hosts:
        raise RuntimeError(f"a request to {where(url)} was stopped: requests are forbidden here (no_requests)")
    deadline = time.monotonic() + timeout
    failure: ErrorAgent | None = None
    try:
        client = await _client()
        request = client.build_request("POST", url, content=body, headers=_headers(headers or {}, key))
        async with asyncio.timeout(timeout):
            response = await client.send(request, stream=True)
        try:
            yield Reply(response.status_code, {name.lower(): value for name, value in response.headers.items()})
            size = 0
            async with aclosing(response.aiter_bytes()) as pieces:
                while True:
                    async with asyncio.timeout(deadline - time.monotonic()):  # no yield inside a timeout
                        piece = await anext(pieces, b"")
                    if not piece:
                        break
                    size += len(piece)
                    if size > MAX_BODY:
                        raise ErrorModelResponse(f"{where(url)} sent more than {MAX_BODY} bytes")
                    yield piece
        finally:
            await response.aclose()
    except Exception as error:
        failure = None if isinstance(error, ErrorAgent) else _failure(error, url, timeout)
        if failure is None:
            raise
    if failure is not None:  # raised out here, so that it drags no HTTP frames (and no headers) along
        raise failure


async def post(
    url: str, body: bytes, *, key: Secret | None, timeout: float, headers: Mapping[str, str] | None = None
) -> Reply:
    """The whole answer. Errors as `post_stream`."""
    reply: Reply | None = None
    pieces: list[bytes] = []
    async with aclosing(post_stream(url, body, key=key, timeout=timeout, headers=headers)) as parts:
        async for part in parts:
            if isinstance(part, Reply):
                reply = part
            else:
                pieces.append(part)
    assert reply is not None
    reply.body = b"".join(pieces)
    return reply
