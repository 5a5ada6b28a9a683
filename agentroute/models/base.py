"""The model protocol, and the fold of a stream into a response.

A model is anything with `complete`, `complete_stream` and `close`. The contract, which one test runs over every model
and every layer (`agentroute.testing.check_model`):

1. `complete(request)` and `complete_stream(request)` give equal responses for the same answer, and the text deltas
   joined equal the response's text. The last chunk of a stream has `done=True` and carries the response.
2. An error is raised before the first chunk or ends the stream; it is an ErrorAgent. A stream that ends with neither
   a finish reason nor `[DONE]` is an error, and its half-received tool calls never run.
3. Closing the iterator early closes the connection.
4. One object serves many requests at once, from any event loop.
5. What the provider wants echoed (reasoning, signatures) comes back unchanged with the next request.

A model may have three more attributes: `model_id`, the id that goes into its requests, `context_tokens`, the size of its
context, which history policies make use of, and `replay_identity`, JSON that says which model it is; without one its answers
are not kept for replay.

A layer that asks again puts what the failed attempt has used, or may have used, into `request.failed_attempts`, where the
loop counts it however the call ends.

A layer (retry, fallback) is a model around a model: it writes `complete_stream`, `complete` is its fold, it asks its inner
model by `ask`, and says so with `is_layer = True`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from inspect import isawaitable
from typing import Any, Protocol, runtime_checkable

from ..errors import ErrorModelResponse, ErrorModelTimeout
from ..message import LLMChunk, LLMRequest, LLMResponse

__all__ = ["Layer", "Model", "ask", "chunks_of", "completed", "fold"]


@runtime_checkable
class Model(Protocol):
    """Something that answers requests. `complete_stream` is an async generator function, called without await."""

    async def complete(self, request: LLMRequest) -> LLMResponse: ...

    def complete_stream(self, request: LLMRequest) -> AsyncIterator[LLMChunk]: ...

    async def close(self) -> None: ...


class Layer:
    """A model around another one, `inner`, whose attributes show through. A subclass writes `_answer`."""

    is_layer = True
    inner: Model
    replay_identity: Any = None
    """A layer that does not change what is asked or answered says here that it is as its inner model."""

    def __getattr__(self, name: str) -> Any:
        if name == "inner" or name.startswith("_"):  # also asked for while a copy is half made
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.inner, name)

    def _answer(self, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of the answer; when it is not to be streamed, one that holds the inner model's own `complete`."""
        raise NotImplementedError

    async def complete(self, request: LLMRequest) -> LLMResponse:
        async with aclosing(self._answer(request, stream=False)) as chunks:
            async for chunk in chunks:
                if chunk.response is not None:
                    return chunk.response
        raise AssertionError("an answer ends with a response or an error")

    def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        return self._answer(request, stream=True)

    async def close(self) -> None:
        await self.inner.close()


async def completed(model: Model, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
    """The model's stream, up to its last chunk, which is sure to carry a response.

    A custom model may leave the response out; then it is put together from the deltas.

    Raises:
        ErrorModelResponse: the stream ended without a last chunk.
    """
    chunks = model.complete_stream(request)
    if isawaitable(chunks):  # written as a coroutine that returns the iterator
        chunks = await chunks
    if not hasattr(chunks, "__aiter__"):
        raise ErrorModelResponse(f"{_method(model)} must be an async generator of LLMChunks, got {type(chunks).__name__}")
    text: list[str] = []
    calls: list[dict[str, Any]] = []
    try:
        async for chunk in chunks:
            if not isinstance(chunk, LLMChunk):
                raise ErrorModelResponse(f"{_method(model)} must be an async generator of LLMChunks; one was {type(chunk).__name__}", sent=True)
            if not chunk.done:
                if chunk.delta:
                    text.append(chunk.delta)
                if chunk.tool_call_delta:
                    calls.append(chunk.tool_call_delta)
                yield chunk
                continue
            if chunk.response is None:
                finish = "tool_calls" if calls else "stop"
                chunk = replace(chunk, response=LLMResponse("".join(text) or None, calls, finish_reason=finish))
            yield chunk
            return
        raise ErrorModelResponse("the model's stream ended without a last chunk", partial="".join(text), sent=True)
    finally:
        if (aclose := getattr(chunks, "aclose", None)) is not None:
            await aclose()


def _method(model: Model) -> str:
    return f"{type(model).__name__}.complete_stream"


async def fold(model: Model, request: LLMRequest) -> LLMResponse:
    """The response the model's stream ends with: `complete` written as `complete_stream`."""
    async with aclosing(completed(model, request)) as chunks:
        async for chunk in chunks:
            if chunk.response is not None:
                return chunk.response
    raise AssertionError("completed() ends with a response or an error")


def chunks_of(response: LLMResponse) -> list[LLMChunk]:
    """A response as the shortest stream that folds to it."""
    chunks = []
    if response.reasoning:
        chunks.append(LLMChunk(reasoning_delta=response.reasoning))
    if response.content:
        chunks.append(LLMChunk(delta=response.content))
    return [*chunks, LLMChunk(done=True, response=response)]


def ask(model: Model, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
    """Chunks of the model's answer; one chunk when `stream` is false or the model cannot stream.

    Every layer asks its inner model by this, so that the innermost call goes through the request's meter.
    """
    if request.meter is None or getattr(model, "is_layer", False):
        return _asked(model, request, stream)
    metered: AsyncGenerator[LLMChunk, None] = request.meter.ask(model, request, stream, _asked)
    return metered


def _asked(model: Model, request: LLMRequest, stream: bool) -> AsyncGenerator[LLMChunk, None]:
    chunks = _chunks(model, request, stream)
    if request.timeout is None or getattr(model, "keeps_timeout", False) or getattr(model, "is_layer", False):
        return chunks
    return _in_time(chunks, request.timeout, type(model).__name__)


async def _in_time(chunks: AsyncGenerator[LLMChunk, None], timeout: float, name: str) -> AsyncGenerator[LLMChunk, None]:
    """The chunks, as long as they come within `timeout` seconds in all; for models that know of no timeout."""
    until = asyncio.get_running_loop().time() + timeout
    async with aclosing(chunks):
        while True:
            limit = asyncio.timeout_at(until)
            try:
                async with limit:
                    chunk = await anext(chunks, None)
            except TimeoutError:
                if not limit.expired():
                    raise
                break
            if chunk is None:
                return
            yield chunk
    raise ErrorModelTimeout(f"{name} did not answer in full within timeout={timeout:g} s", sent=True)


async def _chunks(model: Model, request: LLMRequest, stream: bool) -> AsyncGenerator[LLMChunk, None]:
    if stream:
        started = False
        try:
            async with aclosing(completed(model, request)) as chunks:
                async for chunk in chunks:
                    started = True
                    yield chunk
            return
        except NotImplementedError:
            if started:
                raise
    answer: Any = model.complete(request)
    response = await answer if isawaitable(answer) else answer
    if response is answer or not isinstance(response, LLMResponse):
        kind = type(response).__name__
        raise ErrorModelResponse(f"{type(model).__name__}.complete must be async and return an LLMResponse; it returned {kind}", sent=True)
    yield LLMChunk(done=True, response=response)
