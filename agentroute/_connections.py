"""Each event loop's connections, and the way a request takes: which proxy, which certificates. The only file that imports httpx.

Works with httpx2 where it is installed, else with httpx (same API). Only their transports are used: no cookies, no
`.netrc`, no redirects, no log of addresses. Each transport is held to one connection, and they are pooled here, newest
first: the libraries' own pools look at every connection for every request, and 500 requests at once take them seconds.
"""

from __future__ import annotations

import asyncio
import contextvars
import ipaddress
import logging
import os
import socket
import ssl
import weakref
from asyncio.trsock import TransportSocket
from collections.abc import AsyncGenerator
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from .errors import ErrorConfig

__all__ = ["Connection", "Connections", "UserClient", "Way", "connections_here", "library", "way", "where"]

KEEP_S = 30.0
"""How long a connection nobody uses is kept."""
CONNECT_S, WRITE_S = 10.0, 30.0
TIMEOUTS = {"timeout": {"connect": CONNECT_S, "read": None, "write": WRITE_S, "pool": None}}
"""What the library sees to; how long an answer may take is seen to in `_http.py`."""
_PROXIES = [name for scheme in ("http", "https", "all", "no") for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper())]
_CERTIFICATES = ["SSL_CERT_FILE", "SSL_CERT_DIR"]


@cache
def library() -> Any:
    """The HTTP library, imported when the first request is made."""
    for core in ("httpcore", "httpcore2"):
        for part in ("http11", "connection", "proxy"):
            logging.getLogger(f"{core}.{part}").addFilter(_says_no_headers)
    try:
        import httpx2

        return httpx2
    except ImportError:
        import httpx

        return httpx


def _says_no_headers(record: logging.LogRecord) -> bool:
    """A log record of the library, at DEBUG, without the headers of an answer: a proxy may send a key back in them."""
    if isinstance(record.msg, str) and "headers" in record.msg:
        record.msg = record.msg.partition(" return_value=")[0]
    return True


# ---- the way of a request -----------------------------------------------------------------------------------------


class Way(NamedTuple):
    """Where a request goes and how, worked out once for an address and the environment's settings."""

    url: Any
    host: str
    place: tuple[object, ...]
    """Requests with equal places can share a connection."""
    proxy: str | None
    proxy_variable: str
    tls: ssl.SSLContext

    def transport(self) -> Any:
        """A transport for one connection.

        Raises:
            ErrorConfig: the proxy cannot be used.
        """
        limits = library().Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_S)
        if self.proxy is None:
            return library().AsyncHTTPTransport(verify=self.tls, limits=limits)
        try:
            parts = urlsplit(self.proxy)
            if not parts.hostname:
                raise ValueError
            tls = self.tls if parts.scheme == "https" else None
            return library().AsyncHTTPTransport(
                verify=self.tls, limits=limits, proxy=library().Proxy(self.proxy, ssl_context=tls)
            )
        except ImportError:
            problem = "it names a SOCKS proxy, which needs one more package: pip install socksio"
        except (ValueError, library().InvalidURL):
            problem = "it must look like http://host:port"
        raise ErrorConfig(f"{self.proxy_variable} is not a usable proxy (its value is not shown here): {problem}")


def way(url: str) -> Way:
    """The way to an address, with the proxies and certificates that the environment sets now.

    Raises:
        ErrorConfig: SSL_CERT_FILE or SSL_CERT_DIR cannot be used.
        InvalidURL (the library's): not an address.
    """
    return _way(url, tuple(map(os.environ.get, _PROXIES)), tuple(map(os.environ.get, _CERTIFICATES)))


@lru_cache(maxsize=256)
def _way(url: str, proxies: tuple[str | None, ...], certificates: tuple[str | None, str | None]) -> Way:
    parsed = library().URL(url)
    origin = f"{parsed.scheme}://{where(url)}"
    proxy = None if _is_loopback(parsed.host) else _proxy_for(parsed.scheme, where(url))
    secure = parsed.scheme == "https" or (proxy or "").startswith("https:")
    tls = _tls(*certificates) if secure else _no_tls()
    place = (origin, proxy, certificates if secure else None)
    return Way(parsed, parsed.host, place, proxy, _proxy_variable(parsed.scheme), tls)


def _is_loopback(host: str) -> bool:
    """Whether it is this machine: no proxy could reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.rstrip(".").lower() == "localhost"


def where(url: str) -> str:
    """host:port of a URL, for messages; never the user or password that may stand in it."""
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = None
    return f"{parts.hostname}:{port or (443 if parts.scheme == 'https' else 80)}"


def _proxy_for(scheme: str, place: str) -> str | None:
    """The proxy the environment, or the system, sets for host:port."""
    from urllib.request import getproxies, proxy_bypass

    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if not proxy or proxy_bypass(place):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _proxy_variable(scheme: str) -> str:
    names = [name for kind in (scheme, "all") for name in (f"{kind}_proxy", f"{kind}_proxy".upper())]
    return next((name for name in names if os.environ.get(name)), "the proxy in the system's settings")


@cache
def _tls(file: str | None, folder: str | None) -> ssl.SSLContext:
    """The TLS context of all connections; making one costs some 20 ms."""
    try:
        if file:
            return ssl.create_default_context(cafile=file)
        if folder:
            if not os.path.isdir(folder):
                raise FileNotFoundError(2, "no such folder")
            return ssl.create_default_context(capath=folder)
    except OSError as error:  # an SSLError is one
        problem = f"{'SSL_CERT_FILE' if file else 'SSL_CERT_DIR'}={file or folder} cannot be used ({error.strerror or error})"
        wanted = "a file of certificates in PEM form" if file else "a folder of certificates"
        raise ErrorConfig(f"{problem}; it must name {wanted}, or be unset") from None
    context: ssl.SSLContext = library().create_ssl_context(trust_env=False)
    return context


@cache
def _no_tls() -> ssl.SSLContext:
    """For connections without TLS, whose transports ask for a context all the same: one that trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# ---- connections --------------------------------------------------------------------------------------------------


_HASTY = "llama.cpp"
"""A server, as it calls itself, whose connections are used once: it closes some under a request that comes at once after a
streamed answer (one in five), or after five idle seconds. Seen 2026-11."""


class Connection:
    """One connection of one event loop, while it is borrowed or idle."""

    def __init__(self, owner: Connections, way: Way) -> None:
        self._owner = owner
        self._transport = way.transport()
        self._stream: Any = None
        self.place = way.place
        self.idle_since = 0.0
        self.reused = False

    async def send(self, request: Any) -> Any:
        """The response as soon as its head is there."""
        if self._stream is None:
            request.extensions = {**request.extensions, "trace": self._trace}
        return await self._transport.handle_async_request(request)

    async def _trace(self, name: str, info: dict[str, Any]) -> None:
        if name.endswith("connect_tcp.complete"):
            self._stream = info["return_value"]

    @property
    def socket(self) -> Any:
        return None if self._stream is None else self._stream.get_extra_info("socket")

    def broke_before_its_answer(self) -> None:
        """When a kept connection does, the others of its place may be as stale: the next request gets a new one."""
        if self.reused:
            self._owner.drop_idle(self.place)

    async def give_back(self, response: Any, *, complete: bool) -> None:
        """Ends the borrowing. `complete`: the response was read to its end, so the connection can be used again."""
        try:
            if response is not None:
                await response.aclose()
        finally:
            alive = complete and response.extensions.get("http_version") != b"HTTP/1.0" and response.headers.get("server") != _HASTY
            await self._owner.take_back(self, alive and "close" not in response.headers.get("connection", "").lower())

    async def close(self) -> None:
        await self._transport.aclose()
        if self._stream is not None:  # a TLS handshake that is cancelled forgets it
            await self._stream.aclose()


class UserClient:
    """An `AsyncClient` of the user's, httpx or httpx2: used with all its settings but its timeouts and redirects; never closed.

    It belongs to the event loop it is first used on.

    Raises:
        ErrorConfig: not an AsyncClient.
    """

    def __init__(self, client: Any) -> None:
        if isinstance(client, type) or not all(map(partial(hasattr, client), ("build_request", "send", "aclose", "is_closed"))):
            kind = client if isinstance(client, type) else type(client)
            named = f"{'the class ' if kind is client else ''}{kind.__module__.partition('.')[0]}.{kind.__name__}"
            raise ErrorConfig(f"http_client must be an httpx.AsyncClient or httpx2.AsyncClient, not {named}")
        self._client = client
        self._loop: weakref.ref[asyncio.AbstractEventLoop] | None = None

    async def send(self, method: str, url: str, content: bytes | None, headers: dict[str, str]) -> Any:
        """The response as soon as its head is there.

        Raises:
            ErrorConfig: the client is closed, or belongs to another event loop.
        """
        here = asyncio.get_running_loop()
        if self._client.is_closed:
            raise ErrorConfig("http_client is closed; keep it open for as long as the model is used")
        if self._loop is None:
            self._loop = weakref.ref(here)
        if self._loop() is not here:
            raise ErrorConfig(
                "http_client belongs to the event loop it was first used on, and this is another one: `run` has a loop of its own, "
                "`await arun` uses the caller's, and asyncio.run makes a new one each time; give each loop a model with a client of its own"
            )
        limits = tuple(TIMEOUTS["timeout"].values())
        request = self._client.build_request(method, url, content=content, headers=headers, timeout=limits)
        return await self._client.send(request, stream=True, follow_redirects=False)

    async def give_back(self, response: Any, *, complete: bool) -> None:
        await response.aclose()


class Connections:
    """One event loop's connections. The one used last is lent first, so that a lone caller finds it warm."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._most = _most_connections()
        self._room = asyncio.Semaphore(self._most)
        self._idle: dict[tuple[object, ...], list[Connection]] = {}
        self._all: set[Connection] = set()
        self._ending: set[Connection] = set()  # no more in `_all`, but not closed yet: the end of the loop may come first
        self._timer: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False
        self.keeper: AsyncGenerator[None, None] | None = None

    async def borrow(self, way: Way) -> Connection:
        """A connection to be given back; waits while too many are out.

        Raises:
            ErrorConfig: the proxy set for it cannot be used.
        """
        await self._room.acquire()
        try:
            if idle := self._idle.get(way.place):
                idle[-1].reused = True
                return idle.pop()
            made = Connection(self, way)
        except BaseException:
            self._room.release()
            raise
        self._all.add(made)
        if len(self._all) > self._most and (oldest := min(self._all_idle(), key=lambda one: one.idle_since, default=None)):
            self._close_soon([oldest])
        return made

    async def take_back(self, connection: Connection, alive: bool) -> None:
        self._room.release()
        if not alive or self._closed:
            self._all.discard(connection)
            await connection.close()
            return
        connection.idle_since = self._loop.time()
        self._idle.setdefault(connection.place, []).append(connection)
        if self._timer is None:
            self._wake_at(connection.idle_since + KEEP_S)

    def drop_idle(self, place: tuple[object, ...]) -> None:
        """No idle connection of a place is used again."""
        self._close_soon(self._idle.get(place, []))

    async def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        await self._close(self._all | self._ending)
        self._all, self._idle = set(), {}

    def sockets(self) -> list[Any]:
        return [connection.socket for connection in self._all | self._ending]

    def _all_idle(self) -> list[Connection]:
        return [connection for idle in self._idle.values() for connection in idle]

    def _close_soon(self, connections: list[Connection]) -> None:
        """In a task of its own: whoever makes us close them may be cancelled. They are not idle any more when this returns."""
        if not (gone := set(connections)):
            return
        left = {place: [connection for connection in idle if connection not in gone] for place, idle in self._idle.items()}
        self._idle = {place: idle for place, idle in left.items() if idle}
        self._all -= gone
        self._ending |= gone
        task = self._loop.create_task(self._close(gone), name="agentroute-close-unused", context=contextvars.Context())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, connections: set[Connection]) -> None:
        for connection in connections:
            await connection.close()
            self._ending.discard(connection)

    def _wake_at(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._close_unused, context=contextvars.Context())

    def _close_unused(self) -> None:
        """Closes what was idle for long. Servers end idle connections too, and each would stay half open here."""
        old = self._loop.time() - KEEP_S
        unused = [connection for connection in self._all_idle() if connection.idle_since <= old]
        self._close_soon(unused)
        self._timer = None
        if left := [connection.idle_since for connection in self._all_idle() if connection.idle_since > old]:
            self._wake_at(min(left) + KEEP_S)


def _most_connections() -> int:
    """Connections at once: 1000, but at most half of the files this process may open."""
    try:
        import resource

        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except ImportError:  # Windows
        return 1000
    return 1000 if files < 0 else max(16, min(1000, files // 2))


_connections: dict[asyncio.AbstractEventLoop, Connections] = {}
_inherited: list[Any] = []
"""Connections of the parent process: never used again and never closed, which would tell the server of it."""


async def connections_here() -> Connections:
    """The running loop's connections."""
    loop = asyncio.get_running_loop()
    if (known := _connections.get(loop)) is not None:
        return known
    for other in list(_connections):
        if other.is_closed():  # and never told its generators to end; nothing of it can be closed any more but by letting go
            _connections.pop(other, None)
    made = _connections[loop] = Connections()
    _watch_forks()

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


@cache
def _watch_forks() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_let_go_of_the_parents)


def _let_go_of_the_parents() -> None:
    """In a child process: the parent's sockets are let go without a word to the server. While this process held them,
    the server would not notice when the parent closes them, as it does to stop an answer."""
    _inherited.append(dict(_connections))
    nothing = os.open(os.devnull, os.O_RDWR)
    for connections in _connections.values():
        for shared in connections.sockets():
            if isinstance(shared, socket.socket | TransportSocket) and shared.fileno() >= 0:
                os.dup2(nothing, shared.fileno(), inheritable=False)
    os.close(nothing)
    _connections.clear()
