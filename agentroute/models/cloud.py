"""ModelCloud: any endpoint that speaks the chat-completions protocol."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote, urlsplit

from .. import _http
from .._sse import SSEDecoder
from ..config import Headers, Secret, checked_url
from ..errors import ErrorAgent, ErrorConfig, ErrorModel, ErrorModelResponse
from ..message import LLMChunk, LLMRequest, LLMResponse
from .base import chunks_of
from .wire import StreamFold, request_body, response_of, usage_of
from .wire_errors import error_of

__all__ = ["ModelCloud"]

_KEY_HEADER = re.compile("auth|key|token|secret|cookie")
"""Headers whose values are never to be shown."""


class ModelCloud:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model_id: the id the endpoint knows the model by.
        base_url: the address up to and without `/chat/completions`. A user and password in it are sent as basic
            authorization, unless there is an `api_key`; the attribute `base_url` is without them.
        api_key: sent as a bearer token; None or empty sends none.
        timeout: seconds for one request in all, when the request itself names none.
        headers: sent with every request.
        free: the endpoint charges nothing (a server of one's own), so an unreported cost is 0, not unknown.
        context_tokens: the model's context, for history policies that can make use of it; None is unknown.
    """

    retried = True
    """Whether an Agent asks this model again when it fails in a way that passes (see `ModelRetry`)."""
    model_id = base_url = ""  # the repr of a half-made object is asked for by tracebacks that show local variables

    def __init__(
        self,
        *,
        model_id: str,
        base_url: str,
        api_key: str | Secret | None = None,
        timeout: float = 600.0,
        headers: Mapping[str, str] | None = None,
        free: bool = False,
        context_tokens: int | None = None,
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
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise ErrorConfig(f"timeout must be a positive number of seconds, not {timeout!r}")
        self.model_id = model_id
        self.base_url, login = _without_login(checked_url(base_url))
        self.timeout = timeout
        self.headers = Headers({**login, **headers})
        self.free = free
        self._context_tokens = context_tokens
        self._key = api_key

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model_id={self.model_id!r}, base_url={self.base_url!r})"

    @property
    def context_tokens(self) -> int | None:
        """The size of the model's context; None is unknown."""
        return self._context_tokens

    async def endpoint(self) -> tuple[str, Secret | None]:
        """Base URL and key for the next request. A subclass whose server must be started first starts it here."""
        return self.base_url, self._key

    def finish_response(self, response: LLMResponse) -> LLMResponse:
        """Called on every response before it is returned."""
        if self.free:
            response.usage.setdefault("cost", 0)
        response.model = response.model or self.model_id
        return response

    async def complete(self, request: LLMRequest) -> LLMResponse:
        url, key, timeout = await self._target(request)
        body = request_body(request, stream=False)
        failure: ErrorAgent | None = None
        try:
            reply = await _http.post(url, body, key=key, timeout=timeout, headers=self.headers)
            return self.finish_response(_whole(reply, request.model, url))
        except ErrorAgent as error:
            failure = self._priced(self._without_keys(error, key))
        raise failure

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        url, key, timeout = await self._target(request)
        body = request_body(request, stream=True)
        failure: ErrorAgent | None = None
        fold: StreamFold | None = None
        try:
            async with aclosing(_http.post_stream(url, body, key=key, timeout=timeout, headers=self.headers)) as parts:
                reply = await anext(parts)
                assert isinstance(reply, _http.Reply)
                if reply.status != 200 or "event-stream" not in reply.headers.get("content-type", "event-stream"):
                    reply.body = b"".join([part async for part in parts if isinstance(part, bytes)])
                    response = _whole(reply, request.model, url)
                    for chunk in chunks_of(self.finish_response(response)):
                        yield chunk
                    return
                fold, decoder = StreamFold(), SSEDecoder()
                while part := await _next(parts, fold.done):
                    for event in decoder.feed(part):
                        for chunk in fold.add_data(event.data):
                            yield chunk
                for event in decoder.flush():
                    for chunk in fold.add_data(event.data):
                        yield chunk
                yield LLMChunk(done=True, response=self.finish_response(fold.finish()))
                return
        except ErrorAgent as error:
            failure = self._without_keys(error, key)
            if fold is not None:
                _charge(error, fold.usage)
            self._priced(failure)
        raise failure

    async def close(self) -> None:
        """Nothing to do: connections belong to the event loop and serve every model on it."""

    async def _target(self, request: LLMRequest) -> tuple[str, Secret | None, float]:
        base_url, key = await self.endpoint()
        return f"{base_url}/chat/completions", key, request.timeout or self.timeout

    def _priced(self, error: ErrorAgent) -> ErrorAgent:
        """The same error; what was sent to an endpoint that charges nothing has cost nothing."""
        if self.free and isinstance(error, ErrorModel) and error.sent:
            error.usage.setdefault("cost", 0)
        return error

    def _without_keys(self, error: ErrorAgent, key: Secret | None) -> ErrorAgent:
        """The same error with all keys struck out, should a provider have echoed one, and without the frames that read it."""
        keys = [value.removeprefix("Basic ") for name, value in self.headers.items() if _KEY_HEADER.search(name)]
        for text in [*keys, key.reveal() if key else ""]:
            if len(text) >= 4:
                error.args = tuple(str(arg).replace(text, "[key]") for arg in error.args)
                for name, value in error.__dict__.items():
                    if isinstance(value, str):
                        error.__dict__[name] = value.replace(text, "[key]")
        return error.with_traceback(None)


async def _next(parts: AsyncGenerator[_http.Reply | bytes, None], done: bool) -> bytes:
    """The next bytes, or none at the end. After [DONE] the end is read too, or the connection could not be used
    again, but not waited for longer than a second."""
    try:
        async with asyncio.timeout(1.0 if done else None):
            part = await anext(parts, b"")
    except TimeoutError:
        return b""
    assert isinstance(part, bytes)
    return part


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        text = body[:2000].decode("utf-8", "replace")
    raise ErrorModelResponse(f"the provider sent something that is not JSON: {' '.join(text.split())[:200]!r}", body=text)


def _whole(reply: _http.Reply, model: str, url: str) -> LLMResponse:
    """The response in a body that came as one, be it a completion object or a stream."""
    if reply.status != 200:
        raise error_of(reply.status, reply.headers, reply.body, model=model, place=_http.where(url))
    fold, payload = StreamFold(), None
    try:
        if reply.body.lstrip().startswith(b"data:"):
            decoder = SSEDecoder()
            for event in [*decoder.feed(reply.body), *decoder.flush()]:
                fold.add_data(event.data)
            return fold.finish()
        payload = _json_of(reply.body)
        return response_of(payload)
    except ErrorModel as error:
        _charge(error, fold.usage or usage_of(payload))
        raise


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
