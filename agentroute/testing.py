"""For tests: models that need no provider, the contract every model keeps, and a switch that forbids requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from . import _http
from .errors import ErrorConfig, ErrorModelResponse
from .message import LLMChunk, LLMRequest, LLMResponse, ToolCall
from .models.base import Model, fold

__all__ = ["ModelFunction", "ModelScripted", "check_model", "no_requests"]

Answer = str | ToolCall | Sequence[ToolCall] | LLMResponse | Exception


class ModelFunction:
    """A model that answers with what a function of the request returns.

    The function (plain or async) returns a text, a ToolCall or a list of them, an LLMResponse, or an Exception, which
    is raised. Text is streamed in pieces of `piece` characters. Usage counts characters as tokens and costs `cost_usd`
    a call (None: the cost is unknown). `delay_s` passes before the first piece, `chunk_s` between pieces.
    `requests` lists what was asked.
    """

    def __init__(
        self,
        function: Callable[[LLMRequest], Answer | Awaitable[Answer]],
        *,
        model_id: str = "function",
        cost_usd: float | None = 0.0,
        delay_s: float = 0.0,
        chunk_s: float = 0.0,
        piece: int = 4,
    ) -> None:
        if not callable(function):
            raise ErrorConfig(f"{type(self).__name__} takes a function of the request, got {type(function).__name__}")
        self.function = function
        self.model_id = model_id
        self.cost_usd = cost_usd
        self.delay_s = delay_s
        self.chunk_s = chunk_s
        self.piece = piece
        self.requests: list[LLMRequest] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model_id!r})"

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await fold(self, request)

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        self.requests.append(request)
        answer = self.function(request)
        if isinstance(answer, Awaitable):
            answer = await answer
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if isinstance(answer, Exception):
            raise answer
        response = self._response(request, answer)
        text = response.content or ""
        for start in range(0, len(text), self.piece):
            yield LLMChunk(delta=text[start : start + self.piece])
            if self.chunk_s:
                await asyncio.sleep(self.chunk_s)
        yield LLMChunk(done=True, response=response)

    async def close(self) -> None:
        """Nothing to close."""

    def _response(self, request: LLMRequest, answer: Any) -> LLMResponse:
        if isinstance(answer, LLMResponse):
            return answer
        calls = [answer] if isinstance(answer, ToolCall) else [] if isinstance(answer, str) else answer
        if not isinstance(calls, list | tuple) or not all(isinstance(call, ToolCall) for call in calls):
            raise ErrorConfig(f"a scripted answer is a text, ToolCall, list of ToolCalls, LLMResponse or Exception, not {answer!r:.80}")
        text = answer if isinstance(answer, str) else None
        usage: dict[str, Any] = {
            "prompt_tokens": sum(len(message.text) for message in request.messages),
            "completion_tokens": len(text or "") + sum(len(call.arguments_text) for call in calls),
        }
        if self.cost_usd is not None:
            usage["cost"] = self.cost_usd
        return LLMResponse(
            content=text,
            tool_calls=[call.to_wire() for call in calls],
            usage=usage,
            model=self.model_id,
            finish_reason="tool_calls" if calls else "stop",
        )


class ModelScripted(ModelFunction):
    """A model that gives the listed answers, one a request; a function in the list is called with the request.

    Raises:
        ErrorModelResponse: it is asked more often than there are answers.
    """

    def __init__(self, answers: Sequence[Answer | Callable[[LLMRequest], Answer]], *, model_id: str = "scripted", **options: Any) -> None:
        if isinstance(answers, str | ToolCall) or not isinstance(answers, Sequence):
            example = f"{answers!r:.40}" if isinstance(answers, str) else "…"
            raise ErrorConfig(f"ModelScripted takes a list of answers, got {type(answers).__name__}; write ModelScripted([{example}])")
        super().__init__(self._next, model_id=model_id, **options)
        self.answers = list(answers)
        self._position = 0

    def _next(self, request: LLMRequest) -> Answer:
        if self._position >= len(self.answers):
            raise ErrorModelResponse(f"the script holds {len(self.answers)} answers, and one more was asked for")
        answer = self.answers[self._position]
        self._position += 1
        return answer(request) if callable(answer) and not isinstance(answer, Exception) else answer


async def check_model(make: Callable[[], Model], request: LLMRequest, *, exact: bool = True) -> None:
    """Checks the model contract (see `agentroute.models.base`) as far as it shows from outside.

    `make()` gives a fresh model that will answer `request` the same each time. With `exact=False` the words of two
    answers may differ, as those of a real model do when it answers several requests at once.

    Raises:
        AssertionError: a point of the contract does not hold; the message says which.
    """
    model = make()
    assert isinstance(model, Model), "a model has complete, complete_stream and close"
    whole = await model.complete(request)
    chunks: list[LLMChunk] = []
    async with aclosing(model.complete_stream(request)) as stream:  # type: ignore[type-var]
        async for chunk in stream:
            chunks.append(chunk)
    assert chunks and chunks[-1].done, "the last chunk has done=True"
    assert not any(chunk.done for chunk in chunks[:-1]), "only the last chunk has done=True"
    last = chunks[-1].response
    assert last is not None, "the last chunk carries the response"
    text = "".join(chunk.delta or "" for chunk in chunks)
    assert text == (last.content or ""), f"the deltas add up to {text!r}, the response says {last.content!r}"
    assert _same(last, whole, exact), "complete and complete_stream agree"
    stream = model.complete_stream(request)
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    both = await asyncio.gather(model.complete(request), model.complete(request))
    assert all(_same(response, whole, exact) for response in both), "one object serves two requests at once"
    other_loop = await asyncio.to_thread(lambda: asyncio.run(model.complete(request)))
    assert _same(other_loop, whole, exact), "one object serves any event loop"
    await model.close()
    await model.close()


def _same(one: LLMResponse, other: LLMResponse, exact: bool) -> bool:
    """Whether two responses say the same; if not `exact`, whether both say something of the same kind."""
    if not exact:
        return (bool(one.content), len(one.tool_calls)) == (bool(other.content), len(other.tool_calls))
    calls = [[(call.name, call.arguments_text) for call in map(ToolCall.from_wire, r.tool_calls)] for r in (one, other)]
    return (one.content, one.finish_reason, calls[0]) == (other.content, other.finish_reason, calls[1])


@contextmanager
def no_requests(*, allow: Sequence[str] = ("127.0.0.1", "localhost", "::1")) -> Iterator[None]:
    """While it lasts, a request to any host but those allowed is a RuntimeError and is not sent."""
    if isinstance(allow, str):
        raise ErrorConfig(f"allow must be a list of hosts, got str; write allow=[{allow!r:.80}]")
    before = _http.allowed_hosts
    _http.allowed_hosts = frozenset(allow)
    try:
        yield
    finally:
        _http.allowed_hosts = before
