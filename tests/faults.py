"""What tests of faults share: an answer in bytes, a request, and what is asked of every error it may end in."""

from __future__ import annotations

import asyncio
import time

import pytest

from agentroute import LLMRequest, Message, ModelCloud
from agentroute.errors import ErrorAgent

KEY = "sk-secret-0123456789"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])

WHOLE = b'{"choices":[{"message":{"content":"hello"},"finish_reason":"stop"}]}'
EVENTS = b'data: {"choices":[{"delta":{"content":"hello"},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
OK = b"HTTP/1.1 200 OK\r\n"


def head(*lines: bytes, stream: bool = False) -> bytes:
    return (
        OK
        + b"content-type: "
        + (b"text/event-stream" if stream else b"application/json")
        + b"".join(b"\r\n" + line for line in lines)
        + b"\r\n\r\n"
    )


def body(stream: bool) -> bytes:
    return EVENTS if stream else WHOLE


def good(stream: bool) -> bytes:
    """A whole answer in HTTP."""
    return head(b"content-length: %d" % len(body(stream)), stream=stream) + body(stream)


def chunk(data: bytes) -> bytes:
    """A chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def ask(base_url: str, stream: bool, timeout: float = 60.0, **options) -> str:
    model = ModelCloud(model_id="m", base_url=base_url, api_key=KEY, **options)
    request = LLMRequest("m", [Message("user", "hi")], timeout=timeout)

    async def streamed() -> str:
        return "".join([chunk.delta or "" async for chunk in model.complete_stream(request)])

    async def whole() -> str:
        return (await model.complete(request)).content or ""

    return asyncio.run(streamed() if stream else whole())


def failing(base_url: str, stream: bool, timeout: float = 60.0, within_s: float = 20.0, **options) -> ErrorAgent:
    """The error a request ends in: ours, long before a hang would end, short, and without the key."""
    began = time.monotonic()
    with pytest.raises(ErrorAgent) as caught:
        ask(base_url, stream, timeout, **options)
    assert time.monotonic() - began < within_s
    assert KEY not in f"{caught.value} {vars(caught.value)}" and len(str(caught.value)) <= 4000
    assert caught.value.__context__ is None
    return caught.value
