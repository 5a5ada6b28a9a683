"""Requests out, status, headers and bytes back, every failure an ErrorModel. `_connections.py` has the connections.

Redirects are never followed: neither the key nor the prompt ever goes to an address the caller did not name.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ._connections import CONNECT_S, TIMEOUTS, WRITE_S, Connection, UserClient, Way, connections_here, library, way, where
from ._decoding import Decoder, Listener
from .config import Headers, Secret
from .errors import ErrorAgent, ErrorConfig, ErrorModelConnection, ErrorModelResponse, ErrorModelTimeout

__all__ = ["Reply", "UserClient", "get", "post", "post_stream", "where"]

MAX_BODY = 16 * 1024 * 1024
"""Bytes of an answer after decoding; a larger one is an error. As Python's objects JSON takes up to 25 times its bytes."""
MAX_STREAM = 512 * 1024 * 1024
"""The same for a stream of events, which is not held in memory; long answers have some 400 bytes a token."""
IDLE_S = 180.0
"""How long a stream may be silent between data."""
FIRST_S = 300.0
"""How long a stream may take from its head to the first data, or `idle` where that is longer: models think before they speak,
and a server that only says that it is alive is given up in the end."""
allowed_hosts: frozenset[str] | None = None
"""When set, the only hosts a request may go to (`agentroute.testing.no_requests`)."""
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
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)


# ---- time ---------------------------------------------------------------------------------------------------------


class _Clock:
    """The time limits of one exchange, on one timer: `asyncio.timeout` around each piece of a stream costs as much as the piece.

    The timer cancels the task that waits in `wait`, as `asyncio.timeout` does; while nobody waits it does nothing, so that
    it never strikes the consumer of a stream between two pieces. The time until the consumer comes back does not count.
    """

    def __init__(self, timeout: float, idle: float | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout, self._idle = timeout, idle
        self._asked_at = self._loop.time()
        self._total_at = self._asked_at + timeout
        self._connect_at = self._first_at = self._idle_at = float("inf")
        self._body: _Body | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._rang = self._heard = False
        self.expired: str | None = None
        """What took too long: `connect`, `first`, `idle` or `total`; None while nothing did."""

    def connecting(self, body: _Body) -> None:
        """From now on the connection has CONNECT_S to stand: name, TCP, proxy and TLS together."""
        self._body, self._connect_at = body, self._loop.time() + CONNECT_S

    @property
    def first_s(self) -> float:
        """Seconds a stream has for its first data. A model may think long before it: not less than FIRST_S."""
        return max(self._idle or 0.0, FIRST_S)

    def begun(self) -> None:
        """The head of a stream is there: its first data must come within `first_s`."""
        self._first_at = self._loop.time() + self.first_s

    def heard(self) -> None:
        """Data came: the next must come within `idle`, counted from when it is waited for."""
        self._heard, self._first_at = True, float("inf")

    async def wait(self, awaitable: Any) -> Any:
        """What the awaitable gives.

        Raises:
            TimeoutError: the time is up; `expired` says which.
        """
        task = asyncio.current_task()
        assert task is not None
        now = self._loop.time()
        held = now - self._asked_at  # by the consumer, since the last piece
        self._total_at, self._first_at, self._idle_at = self._total_at + held, self._first_at + held, self._idle_at + held
        if self._heard and self._idle is not None:
            self._heard, self._idle_at = False, now + self._idle
        if self._timer is None or self._timer.when() > min(self._idle_at, self._first_at, self._connect_at):
            self._start()
        cancelling = task.cancelling()
        self._waiting = task
        try:
            return await awaitable
        except asyncio.CancelledError:
            if self._rang and task.cancelling() - 1 <= cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._waiting, self._asked_at = None, self._loop.time()
            if self._rang:
                self._rang = False
                task.uncancel()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _start(self) -> None:
        self.stop()
        self._timer = self._loop.call_at(self._next()[0], self._ring)

    def _next(self) -> tuple[float, str]:
        if self._body is not None and self._body.begun:
            self._connect_at = float("inf")
        return min((self._total_at, "total"), (self._idle_at, "idle"), (self._first_at, "first"), (self._connect_at, "connect"))

    def _ring(self) -> None:
        self._timer = None
        when, what = self._next()
        if self._waiting is None:
            return
        if when > self._loop.time():
            self._start()
            return
        self.expired, self._rang = what, True
        self._waiting.cancel()


# ---- what is sent -------------------------------------------------------------------------------------------------


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


class _Request(NamedTuple):
    """What goes out. No content: a GET."""

    url: str
    content: bytes | None
    key: Secret | None
    headers: Headers | None
    accept: str

    @property
    def method(self) -> str:
        return "GET" if self.content is None else "POST"

    def lines(self) -> dict[str, str]:
        lines = {"accept": self.accept, **_HEADERS, **(self.headers or {})}
        if self.key:
            lines["authorization"] = f"Bearer {self.key.reveal()}"
        if self.content is None:
            del lines["content-type"]
        else:
            lines["content-length"] = str(len(self.content))
        return lines


async def _send(
    request: _Request, where_to: Way, body: _Body, clock: _Clock, client: UserClient | None
) -> tuple[Connection | UserClient, Any]:
    """The response as soon as its head is there, and who it is to be given back to."""
    if allowed_hosts is not None and where_to.host not in allowed_hosts:
        raise RuntimeError(f"a request to {where(request.url)} was stopped: requests are forbidden here (no_requests)")
    if client is not None:
        body.begun = True  # it cannot be seen when it is
        return client, await clock.wait(client.send(request.method, request.url, request.content, request.lines()))
    content = None if request.content is None else body
    built = library().Request(request.method, where_to.url, content=content, headers=request.lines(), extensions=TIMEOUTS)
    connection: Connection = await clock.wait((await connections_here()).borrow(where_to))
    if request.content is not None:
        clock.connecting(body)
    try:
        return connection, await clock.wait(connection.send(built))
    except BaseException as error:
        if isinstance(error, Exception):  # not a cancellation
            connection.broke_before_its_answer()
        await connection.give_back(None, complete=False)
        raise


# ---- what comes back ----------------------------------------------------------------------------------------------


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and those it came from; of several at once (one for each address of a name) the first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.exceptions[0] if isinstance(seen, BaseExceptionGroup) else seen.__cause__ or seen.__context__


def _detail(error: BaseException) -> str:
    """What is known of an error: what the system says, where it is the system's."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno is not None:
            return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)  # below 0: of names; they come in words
    return str(error) or type(error).__name__


def _proxy_words(where_to: Way | None) -> str:
    """The proxy of a request and what set it, for messages; nothing without one."""
    if where_to is None or where_to.proxy is None:
        return ""
    return f"the proxy {where(where_to.proxy)} (set by {where_to.proxy_variable})"


def _no_entry(url: str, where_to: Way | None) -> str:
    proxy = _proxy_words(where_to) or "http_client's proxy"
    return f"{proxy} wants a user and password to reach {where(url)} (407); give the ones it knows, as in http://user:password@host:port"


def _failure(error: Exception, url: str, where_to: Way | None, clock: _Clock, sent: bool) -> ErrorAgent | None:
    """Our error for one of the HTTP library's; None for what is not about HTTP."""
    if isinstance(error, ErrorAgent):
        return error
    kinds = {kind.__name__ for kind in type(error).__mro__}  # by name: httpx's are not httpx2's, and a user may bring either
    name, place, detail = type(error).__name__, where(url), _detail(error)
    tls = next((cause for cause in _causes(error) if isinstance(cause, ssl.SSLError)), None)
    proxy = _proxy_words(where_to)
    through = f" through {proxy}" if proxy else ""
    if clock.expired == "connect" or kinds & {"ConnectTimeout", "PoolTimeout"}:
        return ErrorModelTimeout(f"{place} could not be connected to within {CONNECT_S:g} s{through}")
    if clock.expired == "first":
        wanted = "a larger idle_timeout waits longer"
        return ErrorModelTimeout(f"{place} began a stream, but sent no data within {clock.first_s:g} s; {wanted}", sent=sent)
    if clock.expired == "idle":
        return ErrorModelTimeout(f"{place} stopped sending: no data for idle_timeout={clock._idle:g} s", sent=sent)
    if "WriteTimeout" in kinds:
        return ErrorModelTimeout(f"{place} did not take the request within {WRITE_S:g} s", sent=sent)
    if kinds & {"TimeoutException", "TimeoutError"}:
        return ErrorModelTimeout(f"{place} did not answer in full within timeout={clock._timeout:g} s", sent=sent)
    if kinds & {"UnsupportedProtocol", "InvalidURL"}:
        return ErrorConfig(f"not a usable endpoint: {place} ({detail}); give one like https://host/v1")
    if kinds & {"LocalProtocolError", "UnicodeError"}:  # what they say may quote a header
        return ErrorConfig(f"a request to {place} could not be put into words ({name}); check the headers and the address")
    if "HTTPStatusError" in kinds:
        return ErrorConfig(
            f"http_client raised HTTPStatusError ({detail}); take raise_for_status out of its hooks, the status is read here"
        )
    if isinstance(tls, ssl.SSLCertVerificationError):
        advice = "name the file of the authority that signed it in SSL_CERT_FILE"
        return ErrorConfig(
            f"the TLS certificate of {place} is not trusted ({tls.verify_message or tls.reason}); nothing was sent; {advice}"
        )
    if tls is not None and not sent:
        return ErrorModelConnection(
            f"no TLS connection to {place}{through} ({tls.reason or detail}); does it speak https? else use http://"
        )
    if "ProxyError" in kinds and str(error).startswith("407"):
        return ErrorConfig(_no_entry(url, where_to))
    if "ProxyError" in kinds:
        advice = "check the proxy, or set NO_PROXY"
        return ErrorModelConnection(f"{proxy or 'the proxy'} did not connect to {place} ({detail}); {advice}")
    if "ConnectError" in kinds and proxy:
        advice = "check the address, or set NO_PROXY"
        return ErrorModelConnection(f"{proxy} could not be reached ({detail}), nor {place} through it; {advice}")
    if "ConnectError" in kinds:
        return ErrorModelConnection(
            f"{place} could not be reached ({detail}); check the address, the network and the proxy settings"
        )
    if kinds & {"HTTPError", "StreamError", "OSError"}:
        return ErrorModelConnection(f"the connection to {place}{through} broke ({name}: {detail})", sent=sent)
    return None


# ---- requests -----------------------------------------------------------------------------------------------------


def post_stream(
    url: str,
    content: bytes,
    *,
    key: Secret | None,
    timeout: float,
    headers: Headers | None = None,
    idle: float | None = IDLE_S,
    client: UserClient | None = None,
) -> AsyncGenerator[Reply | bytes, None]:
    """First the Reply with status and headers, then the body's bytes as they come.

    `timeout` is seconds for the whole exchange, without the time the reader takes between two pieces; `idle` for a silence
    of an event stream between data, comments and pings not counted; the first may take FIRST_S. Closing the generator
    closes the connection.

    Raises:
        ErrorModelConnection, ErrorModelTimeout, ErrorModelResponse (body over MAX_BODY, not to be decoded),
        ErrorConfig (bad address, proxy, certificate, `client`).
    """
    return _exchange(_Request(url, content, key, headers, "text/event-stream"), timeout, idle, client)


async def post(
    url: str,
    content: bytes,
    *,
    key: Secret | None,
    timeout: float,
    headers: Headers | None = None,
    client: UserClient | None = None,
) -> Reply:
    """The whole answer. Errors as `post_stream`."""
    return await _whole(_exchange(_Request(url, content, key, headers, "application/json"), timeout, None, client))


async def get(url: str, *, key: Secret | None, timeout: float, headers: Headers | None = None) -> Reply:
    """The whole answer to a GET. Errors as `post_stream`."""
    return await _whole(_exchange(_Request(url, None, key, headers, "application/json"), timeout, None, None))


async def _whole(parts: AsyncGenerator[Reply | bytes, None]) -> Reply:
    async with aclosing(parts):
        reply = await anext(parts)
        assert isinstance(reply, Reply)
        reply.body = b"".join([part async for part in parts if isinstance(part, bytes)])
        return reply


async def _exchange(
    request: _Request, timeout: float, idle: float | None, client: UserClient | None
) -> AsyncGenerator[Reply | bytes, None]:
    """One request and its answer; see `post_stream`."""
    clock, body, failure = _Clock(timeout, idle), _Body(request.content or b""), None
    where_to: Way | None = None
    try:
        where_to = way(request.url)
        sender, response = await _send(request, where_to, body, clock, client)
        complete = False
        try:
            if response.status_code == 407 and client is None and where_to.proxy:
                raise ErrorConfig(_no_entry(request.url, where_to))
            reply = Reply(response.status_code, response.headers)
            yield reply
            read = response.is_stream_consumed  # by a hook of the user's client, or it came from a mock
            events = idle is not None and "event-stream" in reply.headers.get("content-type", "event-stream")
            most, size = MAX_STREAM if events else MAX_BODY, 0
            listener = Listener()
            if events:
                clock.begun()
            decoder = Decoder("" if read else reply.headers.get("content-encoding", ""), where(request.url))
            pieces = aiter(response.aiter_bytes() if read else response.stream)
            while (raw := await clock.wait(anext(pieces, None))) is not None:
                if events and listener.is_data(raw):
                    clock.heard()
                for piece in decoder.feed(raw):
                    size += len(piece)
                    if size > most:
                        raise ErrorModelResponse(f"{where(request.url)} sent more than {most} bytes", sent=True)
                    yield piece
            decoder.finish()
            complete = True
        finally:
            await sender.give_back(response, complete=complete)
    except Exception as error:
        failure = _failure(error, request.url, None if client else where_to, clock, body.begun)
        if failure is None:
            raise
    finally:
        clock.stop()
    if failure is not None:  # raised out here, so that it drags no HTTP frames (and no headers) along
        failure.__context__ = None
        raise failure
