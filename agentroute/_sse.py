"""Bytes to server-sent events. No I/O; feed it bytes cut anywhere and it gives the same events.

Source of the rules: the event-stream chapter of the WHATWG HTML standard. Lines end in LF, CR or CRLF and in nothing
else (text helpers also split at U+2028 and U+0085, which may stand inside JSON). Three deviations, all wanted: an event
that the end of the stream cuts off before its blank line is delivered by `flush`; a line `error: …` (older llama.cpp
servers) is the data of an event of type `error`; and a line `data: [DONE]` is an event at once, since servers that hold
the connection may leave out the blank line.
"""

from __future__ import annotations

from typing import NamedTuple

from .errors import ErrorModelResponse

__all__ = ["ServerSentEvent", "SSEDecoder"]


class ServerSentEvent(NamedTuple):
    """`data` is the joined data lines; `event` is the type, `message` when the server named none."""

    event: str
    data: str


class SSEDecoder:
    """Collects bytes and hands out the events they complete. `limit` bounds one event, in bytes."""

    def __init__(self, limit: int = 32 * 1024 * 1024) -> None:
        self._limit = limit
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._data: list[bytes] = []
        self._event = b""
        self._size = 0
        self._first = True
        self._skip_lf = False  # the last byte was CR: an LF now belongs to it

    def feed(self, data: bytes) -> list[ServerSentEvent]:
        """The events completed by these bytes.

        Raises:
            ErrorModelResponse: one event is larger than the limit.
        """
        if self._skip_lf and data:
            data = data[1:] if data[:1] == b"\n" else data
            self._skip_lf = False
        if b"\r" in data:
            self._skip_lf = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            if data:
                self._line.append(data)
                self._grow(len(data))
            return []
        lines = data.split(b"\n")
        self._grow(len(lines[0]))
        if self._line:
            lines[0] = b"".join([*self._line, lines[0]])
        rest = lines.pop()
        self._line = [rest] if rest else []
        events: list[ServerSentEvent] = []
        self._take(lines[0], events)
        for line in lines[1:]:
            self._grow(len(line))
            self._take(line, events)
        self._grow(len(rest))
        return events

    def flush(self) -> list[ServerSentEvent]:
        """The event that was still open when the stream ended, if any."""
        events: list[ServerSentEvent] = []
        if self._line:
            self._take(b"".join(self._line), events)
            self._line = []
        self._take(b"", events)
        return events

    def _grow(self, size: int) -> None:
        """Counts bytes of the event that is being received."""
        self._size += size
        if self._size > self._limit:
            raise ErrorModelResponse(f"one event of the model's stream is larger than {self._limit} bytes")

    def _take(self, line: bytes, events: list[ServerSentEvent]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            self._end(events)
            return
        name_bytes, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name_bytes == b"data" and value == b"[DONE]":
            self._end(events)
            events.append(ServerSentEvent("message", "[DONE]"))
        elif name_bytes == b"data":
            self._data.append(value)
        elif name_bytes == b"event":
            self._event = value
        elif name_bytes == b"error":
            self._data.append(value)
            self._event = b"error"

    def _end(self, events: list[ServerSentEvent]) -> None:
        if self._data:
            name = self._event.decode("utf-8", "replace") or "message"
            events.append(ServerSentEvent(name, b"\n".join(self._data).decode("utf-8", "replace")))
        self._data, self._event, self._size = [], b"", 0
