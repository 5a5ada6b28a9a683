"""The bytes of an answer's body on their way in: unpacked, and told from what only keeps the connection open. No I/O."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from .errors import ErrorModelResponse

__all__ = ["Decoder", "Listener"]


class Decoder:
    """Undoes a compression nobody asked for, a megabyte at a time, so that a small body cannot grow large in one step.

    `encoding` is the content-encoding of the body, `place` who sent it.

    Raises:
        ErrorModelResponse: an unknown encoding; a body that is broken, cut off, or unpacks to more than RATIO times its size.
    """

    STEP = 1024 * 1024
    RATIO = 50
    """To how many times its size a body may unpack, after the first STEP: answers do 10, streams of them 40, bombs 1000."""

    def __init__(self, encoding: str, place: str) -> None:
        names = [name for name in encoding.lower().replace(" ", "").split(",") if name not in ("", "identity")]
        if names and names not in (["gzip"], ["x-gzip"], ["deflate"]):
            raise ErrorModelResponse(f"{place} sent a body in an encoding that was not asked for: {encoding!r}", sent=True)
        self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32) if names else None  # 32: zlib's header or gzip's
        self._raw = self._deflate = names == ["deflate"]  # some send deflate without a header
        self._after = b""  # of an end, what may begin a member
        self._place = place
        self._packed = self._unpacked = 0

    def feed(self, piece: bytes) -> Iterator[bytes]:
        if self._inflate is None:
            yield piece
            return
        self._packed += len(piece)
        piece, self._after = self._after + piece, b""
        while piece:
            if self._inflate.eof:
                if self._deflate or piece[:2] != b"\x1f\x8b":  # padding, or half of a member's first two bytes
                    self._after = piece[:2]
                    return
                self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 16)  # a gzip body may have several members
            try:
                part = self._inflate.decompress(piece, self.STEP)
            except zlib.error as error:
                if not self._raw:
                    raise ErrorModelResponse(f"{self._place} sent a body that cannot be decoded ({error})", sent=True) from None
                self._inflate, self._raw = zlib.decompressobj(-zlib.MAX_WBITS), False
                continue
            self._raw = False
            piece = self._inflate.unused_data or self._inflate.unconsumed_tail
            self._unpacked += len(part)
            if self._unpacked > self.STEP + self.RATIO * self._packed:
                raise ErrorModelResponse(
                    f"{self._place} sent a compressed body that unpacks to more than {self.RATIO} times its size", sent=True
                )
            if part:
                yield part

    def finish(self) -> None:
        if self._inflate is not None and not self._inflate.eof:
            raise ErrorModelResponse(f"{self._place} sent a compressed body that is cut off", sent=True, reason="cut_off")


class Listener:
    """Tells the data of an event stream from that with which servers keep it open: comments, and events of type ping."""

    def __init__(self) -> None:
        self._ping = False  # in an event that said so

    def is_data(self, piece: bytes) -> bool:
        """Whether the next bytes of the stream hold any data."""
        if not self._ping and piece[:1] not in b":\r\ne":
            return True
        for line in piece.splitlines():
            if not line:
                self._ping = False
            elif line.startswith(b"event:") and line[6:].strip() == b"ping":
                self._ping = True
            elif line[:1] != b":" and not self._ping:
                return True
        return False
