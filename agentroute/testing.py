"""For tests: models that need no provider, the contract every model keeps, and a switch that forbids requests."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import asdict, is_dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeVar

from . import _http
from .errors import ErrorAgent, ErrorConfig, ErrorModelResponse
from .message import LLMChunk, LLMRequest, LLMResponse, Message, ToolCall, TurnUsage
from .models.base import Model, fold
from .output import OUTPUT_TOOL

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import BaseModel

    Answer = str | ToolCall | Sequence[ToolCall] | LLMResponse | Exception | BaseModel | DataclassInstance | Mapping[str, Any]

__all__ = ["ModelFunction", "ModelScripted", "check_model", "no_requests"]


class ModelFunction:
    """A model that answers with what a function of the request returns.

    The function (plain or async) returns a text, a ToolCall or a list of them, an LLMResponse, or an Exception, which
    is raised; or a typed answer as a pydantic model, dataclass or dictionary, which is handed in as the request asks for
    it: by a call of `final_answer` where that tool is offered, else as JSON text. Text is streamed in pieces of `piece` characters. Usage counts characters as tokens and costs `cost_usd`
    a call (None: the cost is unknown). `delay_s` passes before the first piece, `chunk_s` between pieces.
    `requests` lists what was asked.

    Raises:
        ErrorConfig: an argument, or later an answer, is of the wrong type or out of range.
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
        if not isinstance(model_id, str):
            raise ErrorConfig(f"model_id must be a text, got {type(model_id).__name__}")
        if not isinstance(piece, int) or isinstance(piece, bool) or piece < 1:
            raise ErrorConfig(f"piece must be a whole number of at least 1, got {piece!r:.80}")
        self.function = function
        self.model_id = model_id
        self.cost_usd = None if cost_usd is None else _amount("cost_usd", cost_usd, "or None for an unknown cost; ")
        self.delay_s = _amount("delay_s", delay_s)
        self.chunk_s = _amount("chunk_s", chunk_s)
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
        if _is_typed(answer):
            answer = _handed_in(request, answer)
        calls = [answer] if isinstance(answer, ToolCall) else [] if isinstance(answer, str) else answer
        if not isinstance(calls, list | tuple) or not all(isinstance(call, ToolCall) for call in calls):
            raise ErrorConfig(
                "a scripted answer is a text, ToolCall, list of ToolCalls, LLMResponse or Exception, "
                f"or a typed answer (pydantic model, dataclass, dictionary), not {_shown(answer)}"
            )
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


def _amount(name: str, value: Any, otherwise: str = "") -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0 or not math.isfinite(value):
        raise ErrorConfig(f"{name} must be a number of at least 0, {otherwise}got {value!r:.80}")
    return value


def _is_typed(answer: Any) -> bool:
    if isinstance(answer, type | ToolCall | Message | LLMRequest | LLMChunk):
        return False
    return isinstance(answer, Mapping) or is_dataclass(answer) or callable(getattr(answer, "model_dump_json", None))


def _handed_in(request: LLMRequest, answer: Any) -> str | ToolCall:
    """A typed answer in the way the request asks for one."""
    import pydantic_core

    unknown: list[str] = []
    try:
        text = pydantic_core.to_json(answer, fallback=lambda value: unknown.append(type(value).__name__)).decode()
    except ValueError:  # it holds itself
        unknown.append(type(answer).__name__)
    if unknown:
        raise ErrorConfig(f"a scripted answer, {type(answer).__name__}, has no JSON form: it holds {unknown[0]}")
    offered = [tool.get("function", {}).get("name") for tool in request.tools or []]
    return ToolCall(OUTPUT_TOOL, OUTPUT_TOOL, text) if OUTPUT_TOOL in offered else text


def _shown(answer: Any) -> str:
    return f"the class {answer.__name__}; give an object of it" if isinstance(answer, type) else f"{answer!r:.80}"


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
        asks = callable(answer) and not isinstance(answer, type | Exception) and not _is_typed(answer)
        return answer(request) if asks else answer  # type: ignore[operator, return-value]


async def check_model(make: Callable[[], Model], request: LLMRequest, *, exact: bool = True) -> None:
    """Checks the model contract (see `agentroute.models.base`) as far as it shows from outside, by six requests.

    `make()` gives a fresh model that will answer `request` the same each time. With `exact=False` the words of two
    answers may differ, as those of a real model do when it answers several requests at once. A model whose
    `complete_stream` raises NotImplementedError is one that cannot stream: agents ask it for whole answers.

    Raises:
        AssertionError: a point of the contract does not hold; the message says which.
        ErrorAgent: the model failed to answer.
    """
    model = make()
    lacking = [name for name in ("complete", "complete_stream", "close") if not callable(getattr(model, name, None))]
    if lacking:
        raise AssertionError(f"a model has complete, complete_stream and close; {type(model).__name__} lacks {', '.join(lacking)}")
    whole = await _only_error_agent("complete", _whole(model, request))
    streamed = await _only_error_agent("complete_stream", _streamed(model, request))
    if streamed is not None:
        _agree("complete and complete_stream give equal responses", whole, streamed, exact)
        await _only_error_agent("complete_stream, left early,", _left_early(model, request))
    both = await _only_error_agent("one of two requests at once", _at_once(model, request))
    for response in both:
        _agree("one object serves two requests at once", whole, response, exact)
    asked = _only_error_agent("complete, in another event loop,", _whole(model, request))
    _agree("one object serves any event loop", whole, await asyncio.to_thread(asyncio.run, asked), exact)
    for _ in range(2):
        await _only_error_agent("close, which may be called twice,", _closed(model))


T = TypeVar("T")


async def _only_error_agent(who: str, doing: Coroutine[Any, Any, T]) -> T:
    try:
        return await doing
    except (ErrorAgent, AssertionError):
        raise
    except Exception as error:
        problem = f"{type(error).__name__}: {error}".rstrip(": ")
        raise AssertionError(f"{who} raised {problem}; what a model raises is an ErrorAgent") from error


async def _whole(model: Model, request: LLMRequest) -> LLMResponse:
    answer: Any = model.complete(request)
    if not isawaitable(answer):
        raise AssertionError(f"complete is async; it returned {type(answer).__name__}")
    response = await answer
    if not isinstance(response, LLMResponse):
        raise AssertionError(f"complete returns an LLMResponse; it returned {type(response).__name__}")
    return response


async def _stream(model: Model, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
    stream: Any = model.complete_stream(request)
    if isawaitable(stream):  # a coroutine that returns the iterator, or raises NotImplementedError
        stream = await stream
    lacking = [name for name in ("__aiter__", "__anext__", "aclose") if not hasattr(stream, name)]
    if lacking:
        kind = type(stream).__name__
        raise AssertionError(f"complete_stream is an async generator, which can be closed early; it gives {kind} without {', '.join(lacking)}")
    return stream  # type: ignore[no-any-return]


async def _streamed(model: Model, request: LLMRequest) -> LLMResponse | None:
    """The response the stream ends with; None when the model cannot stream."""
    chunks: list[LLMChunk] = []
    try:
        async with aclosing(await _stream(model, request)) as stream:
            async for chunk in stream:
                if not isinstance(chunk, LLMChunk):
                    raise AssertionError(f"complete_stream gives LLMChunks; one was {type(chunk).__name__}")
                chunks.append(chunk)
    except NotImplementedError:
        if chunks:
            raise
        return None
    if not chunks or not chunks[-1].done:
        raise AssertionError("the last chunk has done=True; the stream ended without one")
    if any(chunk.done for chunk in chunks[:-1]):
        raise AssertionError("only the last chunk has done=True; one before it has too")
    last = chunks[-1].response
    if not isinstance(last, LLMResponse):
        raise AssertionError(f"the last chunk carries the response; it carries {last!r:.80}")
    text = "".join(chunk.delta or "" for chunk in chunks)
    if text != (last.content or ""):
        raise AssertionError(f"the deltas add up to the text of the response; they are {text!r:.200}, and it is {last.content!r:.200}")
    return last


async def _left_early(model: Model, request: LLMRequest) -> None:
    stream = await _stream(model, request)
    await anext(stream)
    await stream.aclose()


async def _at_once(model: Model, request: LLMRequest) -> list[LLMResponse]:
    """Two whole answers; where the model has state, the second request meets it in the middle of the first."""
    return list(await asyncio.gather(_whole(model, request), _whole(model, request)))


async def _closed(model: Model) -> None:
    closing: Any = model.close()
    if not isawaitable(closing):
        raise AssertionError(f"close is async; it returned {type(closing).__name__}")
    await closing


def _agree(rule: str, one: LLMResponse, other: LLMResponse, exact: bool) -> None:
    said, again = _said(one, exact), _said(other, exact)
    differing = [f"{name} {said[name]!r:.100} and {again[name]!r:.100}" for name in said if said[name] != again[name]]
    if differing:
        raise AssertionError(f"{rule}; they differ in {'; '.join(differing)}")


def _said(response: LLMResponse, exact: bool) -> dict[str, Any]:
    """What a response says, in every respect an agent relies on; if not `exact`, of what kind it is."""
    calls = [(call.name, call.arguments_text) for call in map(ToolCall.from_wire, response.tool_calls)]
    usage = TurnUsage.from_wire(response.usage)
    if not exact:
        known = [name for name in ("input_tokens", "output_tokens", "cost_usd") if getattr(usage, name) is not None]
        has = {"content": bool(response.content), "refusal": bool(response.refusal)}
        return {**has, "number of tool_calls": len(calls), "known usage": known}
    return {
        "content": response.content,
        "tool_calls": calls,
        "finish_reason": response.finish_reason,
        "refusal": response.refusal,
        "reasoning": response.reasoning,
        "extra": response.extra,
        **{f"usage ({name})": value for name, value in asdict(usage).items()},
    }


@contextmanager
def no_requests(*, allow: Sequence[str] = ("127.0.0.1", "localhost", "::1")) -> Iterator[None]:
    """While it lasts, a request to any host but those allowed is a RuntimeError and is not sent; so is fetching weights by pip."""
    if isinstance(allow, str):
        raise ErrorConfig(f"allow must be a list of hosts, got str; write allow=[{allow!r:.80}]")
    before = _http.allowed_hosts
    _http.allowed_hosts = frozenset(allow)
    try:
        yield
    finally:
        _http.allowed_hosts = before
