"""ModelCloud: any endpoint that speaks the chat-completions protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from .. import _http
from .._sse import SSEDecoder
from ..config import Headers, Secret, SecretLike, checked_url, keys_in_use
from ..errors import ErrorAgent, ErrorConfig, ErrorModel, ErrorModelConnection, ErrorModelResponse, ErrorModelTimeout
from ..keeping import without_credentials
from ..message import LLMChunk, LLMRequest, LLMResponse
from .base import chunks_of
from .quirks import Quirks, quirks_of, quirks_of_kind
from .refusals import change_for, learned, refuses_tools
from .wire import StreamFold, counted, response_of, usage_of
from .wire_errors import error_of, failed_calls
from .wire_request import characters_of, request_body

__all__ = ["ModelCloud"]

_KEY_HEADER = re.compile("auth|key|token|secret|cookie")
"""Headers whose values are never to be shown."""
_IS_KEY = re.compile("auth|api-?key|(^|-)key$|token|secret|cookie")
"""Narrower: `x-portkey-provider` says where a gateway asks, and tells no secret."""
_WHO_ASKS = frozenset({"http-referer", "referer", "x-title", "user-agent", "x-request-id", "x-session-id", "traceparent", "tracestate", "connection", "idempotency-key"})
DONE_S, ENDED_S = 1.0, 3.0
"""Seconds a stream is read on after `[DONE]`, for its connection's sake, and after a finish reason, for its usage."""


class ModelCloud:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model_id: the id the endpoint knows the model by.
        base_url: the address up to and without `/chat/completions`. A user and password in it are sent as basic
            authorization, unless there is an `api_key`; the attribute `base_url` is without them.
        api_key: sent as a bearer token; None or empty sends none.
        timeout: seconds for one request in all, without the time the reader of a stream takes, when the request itself
            names none.
        idle_timeout: seconds a stream may be silent between data; comments that keep a connection open are no data. The
            first data may take 300 s, or this where it is longer.
        headers: sent with every request.
        free: the endpoint charges nothing (a server of one's own), so an unreported cost is 0, not unknown. None: as its
            kind has it.
        context_tokens: the model's context, for history policies that can make use of it; None is unknown.
        kind: what the endpoint is (`openrouter`, `openai`, `ollama`, `vllm`, `litellm`, …; see `quirks.py`), where its
            address does not tell.
        http_client: an AsyncClient of httpx or httpx2 that makes the requests; it stays yours to close.

    What an endpoint refuses to be asked (streaming, `max_tokens`, a temperature, …) it is asked again in a way it takes,
    and for the rest of the process at once in that way. Tools are never left out.

    Raises:
        ErrorConfig: an argument is of the wrong type or out of range.
    """

    retried = True
    """Whether an Agent asks this model again when it fails in a way that passes (see `ModelRetry`)."""
    keeps_timeout = True
    model_id = base_url = ""  # the repr of a half-made object is asked for by tracebacks that show local variables

    def __init__(
        self,
        *,
        model_id: str,
        base_url: str,
        api_key: str | Secret | SecretLike | None = None,
        timeout: float = 600.0,
        idle_timeout: float = _http.IDLE_S,
        headers: Mapping[str, str] | None = None,
        free: bool | None = None,
        context_tokens: int | None = None,
        kind: str | None = None,
        http_client: Any = None,
    ) -> None:
        try:
            api_key = Secret(api_key) if api_key else None
            headers = Headers(headers)
        except ErrorConfig:
            api_key = headers = None  # tracebacks may show local variables
            raise
        if not isinstance(model_id, str):
            raise ErrorConfig(f"model_id must be a text, got {type(model_id).__name__}")
        if not model_id:
            raise ErrorConfig("model_id is empty; give the id the endpoint knows the model by")
        for name, seconds in {"timeout": timeout, "idle_timeout": idle_timeout}.items():
            if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < float("inf"):
                raise ErrorConfig(f"{name} must be a positive number of seconds, not {seconds!r}")
        self.model_id = model_id
        problem: ErrorConfig | None = None
        try:
            self.base_url, login = _without_login(checked_url(base_url))
        except ErrorConfig as error:
            problem = error.with_traceback(None)
        if problem is not None:
            base_url = ""  # tracebacks may show local variables
            raise problem
        self.timeout = timeout
        self.idle_timeout = idle_timeout
        self.headers = Headers({**login, **headers})
        self._header_keys = _keys_in(self.headers)  # held, so that they are known for keys wherever they turn up
        self.kind = quirks_of(self.base_url).kind if kind is None else quirks_of_kind(kind).kind
        self.free = quirks_of_kind(self.kind).free if free is None else free
        self._context_tokens = context_tokens
        self._key = api_key
        self._client = None if http_client is None else _http.UserClient(http_client)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model_id={self.model_id!r}, base_url={self.base_url!r})"

    @property
    def context_tokens(self) -> int | None:
        """The size of the model's context; None is unknown."""
        return self._context_tokens

    @property
    def replay_identity(self) -> Any:
        """What is asked, for replay: answers are kept by this and the request (see `request_key.py`). JSON.

        Headers are part of it, as gateways choose a provider by them, but for keys and those that only say who asks.
        """
        headers = sorted(item for item in self.headers.items() if item[0] not in _WHO_ASKS and not _IS_KEY.search(item[0]))
        return [self.kind, self.base_url, headers]

    @property
    def quirks(self) -> Quirks:
        """What the endpoint takes and does, with what this process has learned of it."""
        return self._quirks(self.base_url, self.model_id)

    async def endpoint(self) -> tuple[str, Secret | None]:
        """Base URL and key for the next request. A subclass whose server must be started first starts it here."""
        return self.base_url, self._key

    def finish_response(self, response: LLMResponse) -> LLMResponse:
        """Called on every response before it is returned."""
        if self.free:
            response.usage.setdefault("cost", 0)
        response.model = response.model or self.model_id
        return response

    def body_of(self, request: LLMRequest) -> bytes:
        """What would be sent: to a budget, every byte may be a token."""
        return request_body(request, self._quirks(self.base_url, request.model), stream=True)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        return await self._complete(await self._call(request, stream=False))

    async def _complete(self, call: _Call) -> LLMResponse:
        while True:
            body = request_body(call.request, call.quirks, stream=False)
            try:
                reply = await _http.post(call.url, body, key=call.key, timeout=call.left(), headers=self.headers, client=self._client)
                response = _whole(reply, call)
                return self._finished(response, call)
            except ErrorAgent as error:
                failure = self._told(error, call)
            if not call.adapted(failure):
                raise failure

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        call = await self._call(request, stream=True)
        while True:
            if not call.quirks.streams and "stream" not in request.extra:
                call.stream = False
                for chunk in chunks_of(await self._complete(call)):
                    yield chunk
                return
            body, failure = request_body(request, call.quirks, stream=True), None
            try:
                async with aclosing(self._pieces(call, body)) as chunks:
                    async for chunk in chunks:
                        yield chunk
            except ErrorAgent as error:
                failure = self._told(error, call)
            if failure is None:
                return
            if not call.adapted(failure):
                raise failure

    async def _pieces(self, call: _Call, body: bytes) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of one attempt."""
        exchange = _http.post_stream(
            call.url, body, key=call.key, timeout=call.left(), headers=self.headers, idle=self.idle_timeout, client=self._client
        )
        async with aclosing(exchange) as parts:
            reply = await anext(parts)
            assert isinstance(reply, _http.Reply)
            if reply.status != 200 or "event-stream" not in reply.headers.get("content-type", "event-stream"):
                reply.body = b"".join([part async for part in parts if isinstance(part, bytes)])
                for chunk in chunks_of(self._finished(_whole(reply, call), call)):
                    yield chunk
                return
            call.fold = fold = StreamFold()
            call.generation = reply.headers.get("x-generation-id")
            decoder, stream = SSEDecoder(), _Stream(parts, fold)
            while part := await stream.next():
                for event in decoder.feed(part):
                    for chunk in fold.add_data(event.data, event.event):
                        yield chunk
            for event in decoder.flush() if not stream.broken else ():
                for chunk in fold.add_data(event.data, event.event):
                    yield chunk
            response = fold.finish()
            response.id = call.generation or response.id
            response.usage = counted(response.usage, call.quirks, {})
            yield LLMChunk(done=True, response=self._finished(response, call))

    async def close(self) -> None:
        """Nothing to do: connections belong to the event loop and serve every model on it."""

    def _quirks(self, base_url: str, model: str) -> Quirks:
        return learned.get((base_url, self.kind, model), quirks_of_kind(self.kind))

    async def _call(self, request: LLMRequest, *, stream: bool) -> _Call:
        base_url, key = await self.endpoint()
        timeout = request.timeout or self.timeout
        place = base_url, self.kind, request.model
        return _Call(request, f"{base_url}/chat/completions", key, time.monotonic() + timeout, timeout, place, self._quirks(base_url, request.model), stream)

    def _finished(self, response: LLMResponse, call: _Call) -> LLMResponse:
        call.note(response)
        return self.finish_response(response)

    def _told(self, error: ErrorAgent, call: _Call) -> ErrorAgent:
        """The same error, with what is known of the attempt and without keys."""
        if isinstance(error, ErrorModel):
            if call.fold is not None:
                _charge(error, counted(call.fold.usage, call.quirks, {}))
            if error.request_id is None and call.generation:
                error.request_id = call.generation
                error.args = (f"{error} (request id {call.generation})",)
            if refuses_tools(error, call.request) and "takes no tools" not in str(error):
                advice = "choose a model that takes tools, or put ModelPromptedTools around this one (agentroute.models.prompted_tools)"
                error.args = (f"{call.request.model!r} takes no tools there: {error}; {advice}",)
                error.no_tools = True
        return self._priced(self._without_keys(error, call.key))

    def _priced(self, error: ErrorAgent) -> ErrorAgent:
        """The same error; what was sent to an endpoint that charges nothing has cost nothing."""
        if self.free and isinstance(error, ErrorModel) and error.sent:
            error.usage.setdefault("cost", 0)
        return error

    def _without_keys(self, error: ErrorAgent, key: Secret | None) -> ErrorAgent:
        """The same error without keys, should a provider have echoed one, and without the frames that read it."""
        sent = [value for name, value in self.headers.items() if _KEY_HEADER.search(name)]
        keys = {*map(_secret_of, sent), *(value.removeprefix("Basic ") for value in sent), key.reveal() if key else "", *keys_in_use()}
        error.args = tuple(without_credentials(str(arg), keys) for arg in error.args)
        for name, value in error.__dict__.items():
            if isinstance(value, str):
                error.__dict__[name] = without_credentials(value, keys)
        return error.with_traceback(None)


def _keys_in(headers: Headers) -> list[Secret]:
    """The keys in headers that carry one."""
    values = [value for name, value in headers.items() if _KEY_HEADER.search(name)]
    found = []
    for text in {word for value in values for word in (*value.split(), _secret_of(value))}:
        with suppress(ErrorConfig):  # a password may hold what no key does
            found.append(Secret(text))
    return found


def _secret_of(header: str) -> str:
    """The password in the value of a header; without one, the value."""
    if not header.startswith("Basic "):
        return header
    return base64.b64decode(header.removeprefix("Basic ")).decode("utf-8", "replace").partition(":")[2]


@dataclass
class _Call:
    """One request on its way, asked once or, when the endpoint refuses how it is put, a few times."""

    request: LLMRequest
    url: str
    key: Secret | None
    until: float
    timeout: float
    place: tuple[str, str, str]
    quirks: Quirks
    stream: bool
    fold: StreamFold | None = None
    generation: str | None = None
    """OpenRouter's id of what it does for this request; known before the answer."""
    tried: list[Quirks] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def left(self) -> float:
        """Seconds: all there are for a first attempt, what is left of them for a later one."""
        return max(self.until - time.monotonic(), 0.001) if self.tried else self.timeout

    def adapted(self, error: ErrorAgent) -> bool:
        """Whether the request is to be made again, with quirks that this refusal has taught."""
        if not isinstance(error, ErrorModel) or self.fold is not None:
            return False
        self.tried.append(self.quirks)
        found = change_for(error, self.request, self.tried, stream=self.stream)
        if found is None or len(self.tried) > MOST_CHANGES:
            return False
        self.quirks = found[0]
        self.told += [found[1]] if found[1] else []
        return True

    def note(self, response: LLMResponse) -> None:
        """Keeps what an answer shows: that changed quirks are right, and whether a long conversation was dropped."""
        if self.tried:
            learned.put(self.place, self.quirks)
        for problem in self.told:
            learned.tell_once((*self.place, problem), f"{self.place[2]} at {_http.where(self.url)}: {problem}")
        if self.quirks.drops_history and _is_dropped(self.request, response):
            learned.tell_once((*self.place, "dropped"), _DROPPED.format(model=self.place[2], tokens=response.usage["prompt_tokens"]))


MOST_CHANGES = 6
"""How often one request is asked in yet another way."""
_DROPPED = (
    "{model} seems to have been sent more than fits into its context, and Ollama drops the beginning of such a conversation without a word: it "
    "counts {tokens} tokens of prompt. Give it more room (OLLAMA_CONTEXT_LENGTH=32768 for the server, or PARAMETER num_ctx in a "
    "Modelfile), or send less: history=HistoryTruncate(3000)"
)


def _is_dropped(request: LLMRequest, response: LLMResponse) -> bool:
    """Whether a conversation was cut on its way: fewer tokens were counted than its text can be, or no more than before
    although it has grown."""
    counts = response.usage.get("prompt_tokens")
    if not isinstance(counts, int) or isinstance(counts, bool) or counts <= 0 or not request.messages:
        return False
    characters = characters_of(request)
    first = request.messages[0].__dict__  # the same object from turn to turn of a run
    before = first.get("_counted")
    first["_counted"] = characters, counts
    grown = before is not None and characters > before[0] + GROWTH and counts <= before[1]
    return grown or (characters > LONG and counts * SPARSE < characters)


GROWTH, LONG, SPARSE = 4_000, 16_000, 8
"""Characters: what makes a conversation longer for certain; what may be too long at all; the most a token has of them, on average."""


class _Stream:
    """The bytes of a streamed answer. After the answer's end the stream is read on: its usage may be still to come, and the
    connection can only be used again when all is read. But that is not waited for longer than a little in all."""

    def __init__(self, parts: AsyncGenerator[_http.Reply | bytes, None], fold: StreamFold) -> None:
        self._parts, self._fold = parts, fold
        self._until: float | None = None  # on the loop's clock
        self.broken = False
        """It did not come to its end, so its last line may be half a line."""

    async def next(self) -> bytes:
        """The next bytes, or none at the end.

        Raises:
            ErrorModelConnection, ErrorModelTimeout: it broke, or fell silent, before the answer was whole.
        """
        fold = self._fold
        try:
            if fold.done or fold.ended:
                left = asyncio.get_running_loop().time() + (DONE_S if fold.done else ENDED_S)
                self._until = left if self._until is None else min(self._until, left)
                async with asyncio.timeout_at(self._until):
                    part = await anext(self._parts, b"")
            else:
                self._until = None
                part = await anext(self._parts, b"")
        except TimeoutError:
            self.broken = True
            return b""
        except (ErrorModelConnection, ErrorModelTimeout):
            if not fold.whole:
                raise
            self.broken = True
            return b""
        assert isinstance(part, bytes)
        return part


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        text = body[:2000].decode("utf-8", "replace")
    raise ErrorModelResponse(f"the provider sent something that is not JSON: {' '.join(text.split())[:200]!r}", body=text)


def _whole(reply: _http.Reply, call: _Call) -> LLMResponse:
    """The response in a body that came as one, be it a completion object or a stream."""
    call.generation = reply.headers.get("x-generation-id")
    if not 200 <= reply.status < 300 and not (reply.status == 400 and b"tool_use_failed" in reply.body and failed_calls(reply.body)):
        raise error_of(reply.status, reply.headers, reply.body, model=call.request.model, place=_http.where(call.url), kind=call.place[1])
    fold, payload = StreamFold(), None
    try:
        if not reply.body.strip():
            raise ErrorModelResponse(f"{_http.where(call.url)} answered {reply.status} with an empty body", reason="empty")
        if reply.body.lstrip().startswith((b"data:", b"event:", b":")):
            decoder = SSEDecoder()
            for event in [*decoder.feed(reply.body), *decoder.flush()]:
                fold.add_data(event.data, event.event)
            response = fold.finish()
        elif "ndjson" in reply.headers.get("content-type", ""):
            fold.add_data(reply.body.decode("utf-8-sig", "replace"))
            response = fold.finish()
        else:
            payload = _json_of(reply.body)
            response = response_of(payload)
    except ErrorModel as error:
        _charge(error, counted(fold.usage or usage_of(payload), call.quirks, reply.headers))
        raise
    response.usage = counted(response.usage, call.quirks, reply.headers)
    response.id = call.generation or response.id
    return response


def _charge(error: ErrorAgent, usage: dict[str, Any]) -> None:
    """Notes on an error that came after status 200 that the request may be charged for, and what it has used."""
    if isinstance(error, ErrorModel):
        error.sent, error.usage = True, usage


def _without_login(url: str) -> tuple[str, dict[str, str]]:
    """The URL without the user and password in it, and the header that says the same."""
    parts = urlsplit(url)
    login, at, place = parts.netloc.rpartition("@")
    if not at:
        return url, {}
    user, _, password = login.partition(":")
    token = base64.b64encode(f"{unquote(user)}:{unquote(password)}".encode("utf-8", "replace")).decode()
    return parts._replace(netloc=place).geturl(), {"authorization": f"Basic {token}"}
