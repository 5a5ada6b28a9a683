"""A chat-completions endpoint that costs next to nothing, in a process of its own, so that only the client is measured.

The answer depends on the request: while fewer than N tool messages were sent, a tool call; then a text. N and the
number of calls a turn come from the model id: `m-N-CALLS`, or `m-N-CALLS-MS` for an answer after so many milliseconds.
A streamed answer comes as one burst of `s-N` deltas.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.0001}


def model_of(body: bytes) -> list[str]:
    return body[body.index(b'"model":') + 8 :].split(b'"')[1].decode().split("-")


def answer(body: bytes) -> bytes:
    _, turns, calls, *_ = model_of(body)
    done = body.count(b'"role":"tool"') + body.count(b'"role": "tool"')
    message: dict[str, object] = {"role": "assistant", "content": "It is done."}
    if done < int(turns) * int(calls):
        wire = [
            {"id": f"c{done + i}", "type": "function", "function": {"name": "work", "arguments": '{"n": 1}'}}
            for i in range(int(calls))
        ]
        message = {"role": "assistant", "content": None, "tool_calls": wire}
    finish = "tool_calls" if "tool_calls" in message else "stop"
    payload = {"id": "g", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": finish}], "usage": USAGE}
    return json.dumps(payload).encode()


@cache
def burst(deltas: int) -> bytes:
    """A whole streamed answer, each delta an HTTP chunk of its own, as servers send them."""
    event = {
        "id": "g",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}],
    }
    last = {"id": "g", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
    events = [b"data: %s\n\n" % json.dumps(one).encode() for one in [event] * deltas + [last]] + [b"data: [DONE]\n\n"]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in events) + b"0\r\n\r\n"


def reply(body: bytes) -> bytes:
    if model_of(body)[0] == "s":
        return burst(int(model_of(body)[1]))
    whole = answer(body)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(whole), whole)


class Endpoint(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, rest = self.buffer.split(b"\r\n\r\n", 1)
            length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")).split(b":")[1])
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            wait_ms = int(model_of(body)[3]) if len(model_of(body)) > 3 else 0
            if wait_ms:
                asyncio.get_running_loop().call_later(wait_ms / 1000, self.transport.write, reply(body))
            else:
                self.transport.write(reply(body))


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Endpoint, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent is gone
    server.close()


@contextmanager
def endpoint() -> Iterator[str]:
    """Base URL of the endpoint, for as long as the block lasts."""
    process = subprocess.Popen([sys.executable, "-m", __spec__.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    asyncio.run(serve())
