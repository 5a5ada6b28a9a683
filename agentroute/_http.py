"""The only file that talks HTTP: requests out, status, headers and bytes back, every failure an ErrorModel.

Works with httpx2 where it is installed, else with httpx (same API). Each event loop has its own connections, which are
reused from run to run and closed when the loop ends. Of the library only its transports are used: no cookies, no
redirects (neither the key nor the prompt ever goes to an address the caller did not name), no log of addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .config import Headers, Secret
from .errors import ErrorAgent, ErrorConfig, ErrorModelConnection, ErrorModelResponse, ErrorModelTimeout

if TYPE_CHECKING:
    import ssl

__all__ = ["Reply", "get", "post", "post_stream", "where"]

MAX_BODY = 64 * 1024 * 1024
"""Bytes of an answer after decoding; a larger one is an error."""
allowed_hosts: frozenset[str] | None = None
"""When set, the only hosts a request may go to (`agentroute.testing.no_requests`)."""
CONNECT_S, WRITE_S, POOL_S = 10.0, 30.0, 600.0
_TIMEOUTS = {"timeout": {"connect": CONNECT_S, "read": None, "write": WRITE_S, "pool": POOL_S}}
_HEADERS = {
    "accept-encoding": "identity",  # odd proxies buffer compressed streams
    "connection": "keep-alive",
    "content-type": "application/json",
    "user-agent": "agentroute",
}


@dataclass
class Reply:
    """Status and headers (any case) of an answer; `body` is empty while it is being streamed."""

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
    """One TLS context for all connections; making one costs some 20 ms."""
    context: ssl.SSLContext = _library().create_ssl_context()
    return context


# ---- connections --------------------------------------------------------------------------------------------------


class _Connections:
    """One event loop's connections: a pool for direct ones, and one for each proxy."""

    def __init__(self) -> None:
        self._pools: dict[str | None, Any] = {}
        self._proxies: dict[str, str | None] = {}
        self.keeper: AsyncGenerator[None, None] | None = None

    def pool(self, target: _Target) -> Any:
        """The pool that serves a target.

        Raises:
            ErrorConfig: the proxy set for it cannot be used.
        """
        proxy = None
        if not target.loopback:
            if target.origin not in self._proxies:
                self._proxies[target.origin] = _proxy_for(target)
            proxy = self._proxies[target.origin]
        if proxy not in self._pools:
            self._pools[proxy] = _direct() if proxy is None else _through(proxy, target)
        return self._pools[proxy]

    async def close(self) -> None:
        pools, self._pools = self._pools, {}
        for pool in pools.values():
            await pool.aclose()


_connections: dict[asyncio.AbstractEventLoop, _Connections] = {}


async def _connections_here() -> _Connections:
    """The running loop's connections."""
    loop = asyncio.get_running_loop()
    if (known := _connections.get(loop)) is not None:
        return known
    for other in list(_connections):
        if other.is_closed():  # and never told its generators to end; nothing of it can be closed any more but by letting go
            _connections.pop(other, None)
    made = _connections[loop] = _Connections()

    async def keeper() -> AsyncGenerator[None, None]:
        # asyncio closes open async generators when a loop ends: the one moment its connections can still be closed.
        # The entry goes with them: it holds this generator, whose hook holds the loop.
        try:
            yield
        finally:
            _connections.pop(loop, None)
            await made.close()

    made.keeper = keeper()
    await anext(made.keeper)
    return made


def _limits() -> Any:
    return _library().Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=30)


def _direct() -> Any:
    return _library().AsyncHTTPTransport(verify=_tls(), limits=_limits())


def _through(proxy: str, target: _Target) -> Any:
    library = _library()
    try:
        if not urlsplit(proxy).hostname:
            raise ValueError
        return library.AsyncHTTPTransport(verify=_tls(), limits=_limits(), proxy=proxy)
    except ImportError:
        problem = "it names a SOCKS proxy, which needs one more package: pip install socksio"
    except (ValueError, library.InvalidURL):
        problem = "it must look like http://host:port"
    raise ErrorConfig(f"{_proxy_variable(target)} is not a usable proxy (its value is not shown here): {problem}")


def _proxy_for(target: _Target) -> str | None:
    """The proxy the environment, or the system, sets for a target."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(target.url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(target.origin.partition("://")[2]):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_variable(target: _Target) -> str:
    names = [name for scheme in (target.url.scheme, "all") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())]
    return next((name for name in names if os.environ.get(name)), "the proxy in the system's settings")


# ---- addresses ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Target:
    """An address, taken apart once."""

    url: Any
    origin: str
    """`scheme://host:port`."""
    loopback: bool
    """On this machine: no proxy could reach it."""


@lru_cache(maxsize=256)
def _target(url: str) -> _Target:
    parsed = _library().URL(url)
    host = parsed.host
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host.rstrip(".").lower() == "localhost"
    return _Target(parsed, f"{parsed.scheme}://{where(url)}", loopback)


def where(url: str) -> str:
    """host:port of a URL, for messages; never the user or password that may stand in it."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname}:{port or (443 if parts.scheme == 'https' else 80)}"


# ---- requests -----------------------------------------------------------------------------------------------------


class _Body:
    """A request's bytes. `begun` once they were asked for: the connection stands, and the provider may get them."""

    def __init__(self, content: bytes) -> None:
        self._content: bytes | None = content
        self.begun = False

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        self.begun = True
        if self._content is None:
            raise StopAsyncIteration
        content, self._content = self._content, None
        return content


async def _send(url: str, content: bytes | None, body: _Body, key: Secret | None, headers: Headers | None, accept: str) -> Any:
    """The response as soon as its head is there; its body is still to be read, and it is to be closed. No content: a GET."""
    target = _target(url)
    if allowed_hosts is not None and target.url.host not in allowed_hosts:
        raise RuntimeError(f"a request to {where(url)} was stopped: requests are forbidden here (no_requests)")
    lines = {"accept": accept, **_HEADERS, **(headers or {})}
    if key:
        lines["authorization"] = f"Bearer {key.reveal()}"
    if content is None:
        del lines["content-type"]
        request = _library().Request("GET", target.url, headers=lines, extensions=_TIMEOUTS)
    else:
        lines["content-length"] = str(len(content))
        request = _library().Request("POST", target.url, content=body, headers=lines, extensions=_TIMEOUTS)
    return await (await _connections_here()).pool(target).handle_async_request(request)


def _failure(error: Exception, url: str, timeout: float, sent: bool) -> ErrorAgent | None:
    """Our error for one of the HTTP library's; None for what is not about HTTP."""
    library = _library()
    name, place, detail = type(error).__name__, where(url), str(error) or type(error).__name__
    if isinstance(error, ErrorAgent):
        return error
    if isinstance(error, library.ConnectTimeout | library.PoolTimeout):
        return ErrorModelTimeout(f"{place} could not be connected to within {CONNECT_S:g} s")
    if isinstance(error, library.TimeoutException | TimeoutError):
        return ErrorModelTimeout(f"{place} did not answer in full within timeout={timeout:g} s", sent=sent)
    if isinstance(error, library.UnsupportedProtocol | library.InvalidURL):
        return ErrorConfig(f"not a usable endpoint: {place} ({detail}); give one like https://host/v1")
    if isinstance(error, library.LocalProtocolError | UnicodeError):  # what they say may quote a header
        return ErrorConfig(f"a request to {place} could not be put into words ({name}); check the headers and the address")
    if isinstance(error, library.DecodingError):
        return ErrorModelResponse(f"{place} sent a body that cannot be decoded ({detail})", sent=sent)
    if isinstance(error, library.ConnectError):
        return ErrorModelConnection(f"{place} could not be reached ({detail}); check the address, the network and the proxy settings")
    if isinstance(error, library.ProxyError):
        return ErrorModelConnection(f"the proxy for {place} failed ({detail}); check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
    if isinstance(error, library.HTTPError | library.StreamError | OSError):
        return ErrorModelConnection(f"the connection to {place} broke ({name}: {detail})", sent=sent)
    return None


def _too_large(url: str) -> ErrorModelResponse:
    return ErrorModelResponse(f"{where(url)} sent more than {MAX_BODY} bytes", sent=True)


async def post_stream(
    url: str, content: bytes, *, key: Secret | None, timeout: float, headers: Headers | None = None
) -> AsyncGenerator[Reply | bytes, None]:
    """First the Reply with status and headers, then the body's bytes as they come.

    `timeout` is seconds for the whole exchange. Closing the generator closes the connection.

    Raises:
        ErrorModelConnection, ErrorModelTimeout, ErrorModelResponse (body over MAX_BODY), ErrorConfig (bad address).
    """
    deadline = time.monotonic() + timeout
    body, failure, size = _Body(content), None, 0
    try:
        async with asyncio.timeout(timeout):
            response = await _send(url, content, body, key, headers, "text/event-stream")
        try:
            yield Reply(response.status_code, response.headers)
            async with aclosing(response.aiter_bytes()) as pieces:
                while True:
                    async with asyncio.timeout(deadline - time.monotonic()):  # no yield inside a timeout
                        piece = await anext(pieces, b"")
                    if not piece:
                        break
                    size += len(piece)
                    if size > MAX_BODY:
                        raise _too_large(url)
                    yield piece
        finally:
            await response.aclose()
    except Exception as error:
        failure = _failure(error, url, timeout, body.begun)
        if failure is None:
            raise
    if failure is not None:  # raised out here, so that it drags no HTTP frames (and no headers) along
        raise failure


async def post(url: str, content: bytes, *, key: Secret | None, timeout: float, headers: Headers | None = None) -> Reply:
    """The whole answer. Errors as `post_stream`."""
    return await _exchange(url, content, key, timeout, headers)


async def get(url: str, *, key: Secret | None, timeout: float, headers: Headers | None = None) -> Reply:
    """The whole answer to a GET. Errors as `post_stream`."""
    return await _exchange(url, None, key, timeout, headers)


async def _exchange(url: str, content: bytes | None, key: Secret | None, timeout: float, headers: Headers | None) -> Reply:
    body, pieces, size = _Body(content or b""), [], 0
    try:
        async with asyncio.timeout(timeout):
            response = await _send(url, content, body, key, headers, "application/json")
            try:
                async with aclosing(response.aiter_bytes()) as parts:
                    async for piece in parts:
                        pieces.append(piece)
                        size += len(piece)
                        if size > MAX_BODY:
                            raise _too_large(url)
            finally:
                await response.aclose()
        return Reply(response.status_code, response.headers, b"".join(pieces))
    except Exception as error:
        failure = _failure(error, url, timeout, body.begun)
        if failure is None:
            raise
    raise failure
