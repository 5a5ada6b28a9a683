"""A chat-completions endpoint on loopback for tests: it answers from a script and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from agentroute import ToolCall


@dataclass
class Raw:
    """An answer given to the letter. `body` pieces are sent one by one; `hold_s` waits before closing."""

    status: int = 200
    body: Sequence[bytes] = (b"",)
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    hold_s: float = 0.0

    @classmethod
    def sse(cls, *events: Any, done: bool = True) -> Raw:
        lines = [b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n" for event in events]
        return cls(body=[*lines, *([b"data: [DONE]\n\n"] if done else [])], headers={"content-type": "text/event-stream"})


Answer = str | ToolCall | list[ToolCall] | Raw | Callable[[dict[str, Any]], Any]


class ModelServer:
    """Answers each request with the next of `answers` (the last one for ever when `repeat`), streamed when asked to."""

    def __init__(self, answers: Sequence[Answer], *, usage: dict[str, Any] | None = None, repeat: bool = False) -> None:
        self.answers = list(answers)
        self.usage = {"prompt_tokens": 10, "completion_tokens": 5, "cost": 0.001} if usage is None else usage
        self.repeat = repeat
        self.pages: dict[str, Raw] = {}
        """What a GET of a path answers; 404 for others."""
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.connections = 0
        self.closed_early = threading.Event()
        self.released = threading.Event()
        self._lock = threading.Lock()

    def __enter__(self) -> ModelServer:
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def model(self) -> str:
        """A model string that resolves to this server."""
        return f"{self.base_url}/test-model"

    def next_answer(self, body: dict[str, Any]) -> Any:
        with self._lock:
            position = len(self.requests)
            self.requests.append(body)
        if position >= len(self.answers) and not self.repeat:
            return Raw(500, [b'{"error":{"message":"the script is used up"}}'])
        answer = self.answers[min(position, len(self.answers) - 1)]
        return answer(body) if callable(answer) else answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what some tests are about."""


def completion(answer: Any, usage: dict[str, Any]) -> dict[str, Any]:
    """The completion object for a text or tool calls."""
    calls = [answer] if isinstance(answer, ToolCall) else answer if isinstance(answer, list) else []
    message: dict[str, Any] = {"role": "assistant", "content": answer if isinstance(answer, str) else None}
    if calls:
        message["tool_calls"] = [call.to_wire() for call in calls]
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return {"id": "gen-1", "object": "chat.completion", "model": "test/model-1", "choices": [choice], "usage": usage}


def chunks(answer: Any, usage: dict[str, Any]) -> list[dict[str, Any]]:
    """The same as completion chunks: text in threes, tool calls in two fragments."""
    base = {"id": "gen-1", "object": "chat.completion.chunk", "model": "test/model-1"}
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    if isinstance(answer, str):
        deltas += [{"content": answer[start : start + 3]} for start in range(0, len(answer), 3)]
    for index, call in enumerate([answer] if isinstance(answer, ToolCall) else answer if isinstance(answer, list) else []):
        wire = call.to_wire()
        text, half = wire["function"]["arguments"], len(wire["function"]["arguments"]) // 2
        first = {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": text[:half]}}
        deltas.append({"tool_calls": [first]})
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": text[half:]}}]})
    finish = "stop" if isinstance(answer, str) else "tool_calls"
    result = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    result.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    result.append({**base, "choices": [], "usage": usage})
    return result


def _handler(model: ModelServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            model.connections += 1

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            model.headers.append({name.lower(): value for name, value in self.headers.items()})
            model.paths.append(self.path)
            answer = model.next_answer(body)
            if not isinstance(answer, Raw):
                if body.get("stream"):
                    answer = Raw.sse(*chunks(answer, model.usage))
                else:
                    answer = Raw(body=[json.dumps(completion(answer, model.usage)).encode()])
            self._reply(answer)

        def do_GET(self) -> None:
            model.headers.append({name.lower(): value for name, value in self.headers.items()})
            model.paths.append(self.path)
            self._reply(model.pages.get(self.path, Raw(404, [b'{"error":{"message":"no such page"}}'])))

        def _reply(self, answer: Raw) -> None:
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            try:
                for piece in answer.body:
                    if piece:
                        self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                if answer.hold_s:
                    self._hold(answer.hold_s)
                self.wfile.write(b"0\r\n\r\n")
            except (BrokenPipeError, ConnectionResetError):
                model.closed_early.set()
                self.close_connection = True

        def _hold(self, seconds: float) -> None:
            """Waits, and notices when the client goes away."""
            self.connection.settimeout(0.02)
            for _ in range(int(seconds / 0.02)):
                if model.released.is_set():
                    return
                try:
                    if self.connection.recv(1) == b"":
                        model.closed_early.set()
                        self.close_connection = True
                        raise BrokenPipeError
                except TimeoutError:
                    continue
            self.connection.settimeout(None)

    return Handler
