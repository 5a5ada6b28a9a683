"""A server on loopback that sends bytes to the letter: for answers no HTTP library would give."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Self-signed for localhost and 127.0.0.1, with its key; good for nothing else."""


class Talk:
    """One connection, as the server sees it."""

    def __init__(self, server: RawServer, connection: socket.socket, number: int) -> None:
        self._server, self._connection = server, connection
        self.number = number
        """Which connection of the server it is, from 0."""

    def request(self) -> bytes:
        """Reads one request; nothing when the client went away instead."""
        head = b""
        while b"\r\n\r\n" not in head:
            if not (piece := self._connection.recv(65536)):
                return b""
            head += piece
        head, _, body = head.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while lengths and len(body) < int(lengths[0]):
            body += self._connection.recv(65536)
        self._server.requests.append(head + b"\r\n\r\n" + body)
        return head

    def send(self, *pieces: bytes, pause_s: float = 0.0) -> None:
        for piece in pieces:
            self._connection.sendall(piece)
            time.sleep(pause_s)

    def hold(self) -> None:
        """Says nothing until the client goes away."""
        while self._connection.recv(65536):
            pass

    def reset(self) -> None:
        """Ends the connection with RST."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()


class RawServer:
    """Each connection is handed to `script` in a thread of its own and closed when that returns."""

    def __init__(self, script: Callable[[Talk], None], *, tls: bool = False) -> None:
        self._script = script
        self._scheme = "https" if tls else "http"
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None
        if self._context is not None:
            self._context.load_cert_chain(CERTIFICATE)
        self.requests: list[bytes] = []
        self.connections = 0
        self.open = 0
        self._lock = threading.Lock()

    def __enter__(self) -> RawServer:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for connection in self._sockets:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended
        for thread in self._threads:
            thread.join(5)

    @property
    def base_url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def all_closed(self, within_s: float = 30.0) -> bool:
        """Whether every connection ends in that time."""
        end = time.monotonic() + within_s
        while self.open and time.monotonic() < end:
            time.sleep(0.01)
        return not self.open

    def has_read(self, count: int, within_s: float = 30.0) -> bool:
        """Whether so many requests come in that time."""
        end = time.monotonic() + within_s
        while len(self.requests) < count and time.monotonic() < end:
            time.sleep(0.005)
        return len(self.requests) >= count

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection, self.connections), daemon=True)
            self.connections += 1
            with self._lock:
                self.open += 1
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with connection if self._context is None else self._context.wrap_socket(connection, server_side=True) as wrapped:
                self._script(Talk(self, wrapped, number))
        except OSError:
            pass  # the client went away, which is what some tests are about
        finally:
            with self._lock:
                self.open -= 1


def answering(*pieces: bytes, pause_s: float = 0.0, hold: bool = False) -> Callable[[Talk], None]:
    """A script: reads a request, sends the pieces, and closes, or holds the connection open without a word."""

    def script(talk: Talk) -> None:
        talk.request()
        talk.send(*pieces, pause_s=pause_s)
        if hold:
            talk.hold()

    return script
