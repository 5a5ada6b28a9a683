"""What a server can send to a request, be it HTTP or not: too much, packed, broken or merely odd."""

import gzip
import subprocess
import sys
import zlib

import pytest

from agentroute import _http
from agentroute._decoding import Decoder
from agentroute.errors import (
    ErrorModelResponse,
)
from tests.faults import OK, WHOLE, ask, body, both, chunk, failing, good, head
from tests.http_library import LIBRARIES, with_library
from tests.raw_server import RawServer, Talk, answering


@pytest.fixture(autouse=True, params=LIBRARIES)
def http_library(request, monkeypatch):
    """Each test with either library."""
    yield from with_library(request.param, monkeypatch)


# ---- too much (N10, N11)


def endless(first: bytes, rest: bytes):
    def script(talk: Talk) -> None:
        talk.request()
        talk.send(first)
        while True:
            talk.send(rest)

    return script


ENDLESS = {
    "headers": lambda stream: (OK, b"x-more: 1\r\n" * 100),
    "one header": lambda stream: (OK + b"x-long: ", b"a" * 10_000),
    "early hints": lambda stream: (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10),
    "body": lambda stream: (head(stream=stream), b" " * 10_000),
    "events": lambda stream: (head(stream=stream), b'data: {"choices":[]}\n\n' * 500),
    "one line": lambda stream: (head(stream=stream) + b"data: ", b"a" * 10_000),
    "chunk size": lambda stream: (head(b"transfer-encoding: chunked", stream=stream), b"1" * 1000),
}


@both
@pytest.mark.parametrize("what", ENDLESS)
def test_what_has_no_end_is_cut(what, stream, monkeypatch):
    monkeypatch.setattr(_http, "MAX_BODY", 1_000_000)
    monkeypatch.setattr(_http, "MAX_STREAM", 1_000_000)
    with RawServer(endless(*ENDLESS[what](stream))) as server:
        failing(server.base_url, stream, timeout=1.0)
        assert server.all_closed()


BOMB = """
import asyncio, sys
from agentroute import LLMRequest, Message, ModelCloud
from agentroute.errors import ErrorModelResponse
model, request = ModelCloud(model_id="m", base_url=sys.argv[1]), LLMRequest("m", [Message("user", "hi")])
async def streamed():
    async for chunk in model.complete_stream(request): pass
try:
    asyncio.run(streamed() if sys.argv[2] == "True" else model.complete(request))
except ErrorModelResponse as error:
    most = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))  # getrusage tells also of the process before
    print(int(most.split()[1]) // 1024, error)
"""


@both
def test_a_small_body_that_unpacks_to_a_huge_one_is_stopped_before_it_fills_the_memory(stream, http_library):
    pack = zlib.compressobj(9, wbits=31)
    packed = b"".join(pack.compress(b" " * 1_000_000) for _ in range(400)) + pack.flush()
    with RawServer(
        answering(head(b"content-encoding: gzip", b"content-length: %d" % len(packed), stream=stream) + packed)
    ) as server:
        program = f"import sys; sys.modules.update({LIBRARIES[http_library]}){BOMB}"
        command = [sys.executable, "-c", program, server.base_url, str(stream)]
        megabytes, _, message = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout.partition(
            " "
        )
    assert "larger than" in message or "more than" in message
    assert int(megabytes) < 300


@both
def test_a_small_body_of_many_tiny_objects_is_never_parsed(stream, http_library):
    """57 MB of empty lists in 240 kB: as Python's objects 1.4 GB."""
    pack = zlib.compressobj(1, wbits=31)
    parts = [WHOLE[:-1] + b',"z":[', *[b"[]," * 1_000_000] * 19, b"[]]}"]
    packed = b"".join(map(pack.compress, parts)) + pack.flush()
    assert len(packed) < 300_000
    with RawServer(answering(head(b"content-encoding: gzip", b"content-length: %d" % len(packed)) + packed)) as server:
        program = f"import sys; sys.modules.update({LIBRARIES[http_library]}){BOMB}"
        command = [sys.executable, "-c", program, server.base_url, str(stream)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100).stdout
    assert "more than 50 times its size" in said
    assert int(said.split()[0]) < 300


def test_text_that_repeats_itself_is_no_bomb():
    packed = gzip.compress(
        b"".join(b'data: {"id":"gen-1","choices":[{"delta":{"content":"%d"}}]}\n\n' % n for n in range(100_000))
    )
    assert sum(map(len, Decoder("gzip", "x").feed(packed))) > 6_000_000


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("padding", [b"", b"\0" * 600, b"\x1f", b"\0\x1f\x8b"])
def test_all_members_of_a_gzip_body_are_read(size, padding):
    packed = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two") + padding
    decoder = Decoder("gzip", "x")
    parts = [part for at in range(0, len(packed), size) for part in decoder.feed(packed[at : at + size])]
    decoder.finish()
    assert b"".join(parts) == b"one two"


def test_a_second_member_that_is_cut_is_an_error():
    decoder = Decoder("gzip", "x")
    assert b"".join(decoder.feed(gzip.compress(b"one") + gzip.compress(b"two")[:-3])) == b"onetwo"
    with pytest.raises(ErrorModelResponse, match="cut off"):
        decoder.finish()


def test_no_piece_unpacks_to_more_than_a_step(monkeypatch):
    monkeypatch.setattr(Decoder, "RATIO", 2000)
    packed = gzip.compress(b" " * 20_000_000)
    assert len(packed) < 65536  # so that it may come as one piece
    sizes = [len(part) for part in Decoder("gzip", "x").feed(packed)]
    assert sum(sizes) == 20_000_000 and max(sizes) <= Decoder.STEP


# ---- encodings (N12)


@both
@pytest.mark.parametrize(
    ("encoding", "pack"),
    [
        (b"gzip", gzip.compress),
        (b"x-gzip", gzip.compress),
        (b"deflate", zlib.compress),
        (b"deflate", lambda data: zlib.compress(data)[2:-4]),  # without zlib's header, as some send it
        (b"identity", bytes),
    ],
    ids=["gzip", "x-gzip", "deflate", "raw deflate", "identity"],
)
def test_a_compressed_answer_is_read_though_none_was_asked_for(encoding, pack, stream):
    packed = pack(body(stream))
    pieces = [packed[at : at + 7] for at in range(0, len(packed), 7)]
    with RawServer(answering(head(b"content-encoding: " + encoding, stream=stream), *pieces)) as server:
        assert ask(server.base_url, stream) == "hello"
        assert b"accept-encoding: identity" in server.requests[0].lower()


@both
@pytest.mark.parametrize(
    ("encoding", "packed", "words"),
    [
        (b"gzip", b"not gzip at all, " * 5, "cannot be decoded"),
        (b"gzip", gzip.compress(WHOLE * 100)[:-20], "cut off"),
        (b"gzip", gzip.compress(WHOLE)[:-8] + b"\0" * 8, "cannot be decoded"),
        (b"deflate", b"\xff" * 50, "cannot be decoded"),
        (b"br", WHOLE, "not asked for"),
        (b"gzip, gzip", gzip.compress(gzip.compress(WHOLE)), "not asked for"),
        (b"\xc3\xa9", WHOLE, "not asked for"),
    ],
)
def test_a_compressed_answer_that_cannot_be_read_is_an_error(encoding, packed, words, stream):
    # the head says JSON: a stream of events that is cut off has an error of its own
    with RawServer(answering(head(b"content-encoding: " + encoding) + packed)) as server:
        error = failing(server.base_url, stream)
    assert isinstance(error, ErrorModelResponse)
    assert words in str(error) and error.sent


# ---- what is not HTTP, and what is though it looks odd (N13, N14)

NOT_HTTP = {
    "bad status line": b"HTTP/1.1 abc OK\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>",
    "a banner": b"220 smtp.example ESMTP\r\n",
    "nothing but line ends": b"\r\n\r\n\r\n",
    "binary": bytes(range(256)) * 4,
    "a negative length": head(b"content-length: -5") + WHOLE,
    "a length in words": head(b"content-length: many") + WHOLE,
    "two lengths": head(b"content-length: 5", b"content-length: 50") + WHOLE,
    "a bad chunk": head(b"transfer-encoding: chunked") + b"zz\r\nhello\r\n",
    "an unknown transfer": head(b"transfer-encoding: rot13") + WHOLE,
    "a line without a colon": OK + b"no colon here\r\n\r\n",
    "a header of 300 kB": OK + b"x-long: " + b"a" * 300_000 + b"\r\n\r\n",
    "status 999": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    "status 101": b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
    "HTTP/3.0": b"HTTP/3.0 200 OK\r\n\r\n",
}


@both
@pytest.mark.parametrize("what", NOT_HTTP)
def test_what_is_no_answer_in_http_is_an_error(what, stream):
    with RawServer(answering(NOT_HTTP[what])) as server:
        failing(server.base_url, stream)
        assert len(server.requests) == 1


ODD = {
    "100 first": lambda stream: b"HTTP/1.1 100 Continue\r\n\r\n" + good(stream),
    "hints first": lambda stream: b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 3 + good(stream),
    "HTTP/1.0 to the end": lambda stream: good(stream).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "to the end": lambda stream: head(stream=stream) + body(stream),
    "one-byte chunks": lambda stream: head(b"transfer-encoding: chunked", stream=stream) + b"".join(chunk(bytes([byte])) for byte in body(stream)) + b"0\r\n\r\n",
    "a trailer": lambda stream: head(b"transfer-encoding: chunked", stream=stream) + chunk(body(stream)) + b"0\r\nx-sum: 1\r\n\r\n",
    "chunk extensions": lambda stream: head(b"transfer-encoding: chunked", stream=stream) + chunk(body(stream)).replace(b"\r\n", b";a=b\r\n", 1) + b"0\r\n\r\n",
    "no reason": lambda stream: good(stream).replace(b"200 OK", b"200 "),
    "more after the end": lambda stream: good(stream) + b"HTTP/1.1 200 OK\r\n",
}  # fmt: skip


@both
@pytest.mark.parametrize("what", ODD)
def test_odd_but_lawful_http_is_read(what, stream):
    with RawServer(answering(ODD[what](stream))) as server:
        assert ask(server.base_url, stream) == "hello"


@both
def test_bytes_one_by_one_are_read(stream):
    with RawServer(answering(*[bytes([byte]) for byte in good(stream)], pause_s=0.0005)) as server:
        assert ask(server.base_url, stream) == "hello"
