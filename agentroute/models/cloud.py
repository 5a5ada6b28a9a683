"""ModelCloud: any endpoint that speaks the chat-completions protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from .. import _http
from .._sse import SSEDecoder
from ..config import Secret, without_password
from ..errors import ErrorAgent, ErrorConfig, ErrorModelResponse
from ..message import LLMChunk, LLMRequest, LLMResponse
from .base import chunks_of
from .wire import StreamFold, error_of, request_body, response_of

__all__ = ["ModelCloud"]


class ModelCloud:
    """A model behind an OpenAI-compatible endpoint.

    Args:
        model_id: the id the endpoint knows the model by.
        base_url: the address up to and without `/chat/completions`.
        api_key: sent as a bearer token; None or empty sends none.
        timeout: seconds for one request in all, when the request itself names none.
        free: the endpoint charges nothing (a server of one's own), so an unreported cost is 0, not unknown.
    """

    def __init__(
        self,
        *,
        model_id: str,
        base_url: str,
        api_key: str | Secret | None = None,
        timeout: float = 600.0,
        headers: Mapping[str, str] | None = None,
        free: bool = False,
    ) -> None:
        if not model_id:
            raise ErrorConfig("model_id is empty; give the id the endpoint knows the model by")
        if not isinstance(timeout, int | float) or not 0 < timeout < float("inf"):
            raise ErrorConfig(f"timeout must be a positive number of seconds, not {timeout!r}")
        self.model_id = model_id
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self.headers = dict(headers or {})
        self.free = free
        self._key = Secret(api_key) if api_key else None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(model_id={self.model_id!r}, base_url={without_password(self.base_url)!r})"

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
        reply = await _http.post(url, body, key=key, timeout=timeout, headers=self.headers)
        failure: ErrorAgent | None = None
        try:
            if reply.status != 200:
                raise error_of(reply.status, reply.headers, reply.body, model=request.model, place=_http.where(url))
            return self.finish_response(response_of(_json_of(reply.body)))
        except ErrorAgent as error:
            failure = _without_key(error, key)
        raise failure

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        url, key, timeout = await self._target(request)
        body = request_body(request, stream=True)
        failure: ErrorAgent | None = None
        try:
            headers = {"accept": "text/event-stream", **self.headers}
            async with aclosing(_http.post_stream(url, body, key=key, timeout=timeout, headers=headers)) as parts:
                reply = await anext(parts)
                assert isinstance(reply, _http.Reply)
                if reply.status != 200 or "event-stream" not in reply.headers.get("content-type", "event-stream"):
                    content = b"".join([part async for part in parts if isinstance(part, bytes)])
                    response = _unstreamed(reply, content, request.model, url)
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
            failure = _without_key(error, key)
        raise failure

    async def close(self) -> None:
        """Nothing to do: connections belong to the event loop and serve every model on it."""

    async def _target(self, request: LLMRequest) -> tuple[str, Secret | None, float]:
        base_url, key = await self.endpoint()
        return f"{base_url}/chat/completions", key, request.timeout or self.timeout


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


def _unstreamed(reply: _http.Reply, content: bytes, model: str, url: str) -> LLMResponse:
    """The response of a server that was asked to stream and sent one body instead."""
    if reply.status != 200:
        raise error_of(reply.status, reply.headers, content, model=model, place=_http.where(url))
    if content.lstrip().startswith(b"data:"):
        fold, decoder = StreamFold(), SSEDecoder()
        for event in [*decoder.feed(content), *decoder.flush()]:
            fold.add_data(event.data)
        return fold.finish()
    return response_of(_json_of(content))


def _without_key(error: ErrorAgent, key: Secret | None) -> ErrorAgent:
    """The same error with the key struck out, should a provider have echoed it."""
    if key and len(key.reveal()) >= 4:
        secret = key.reveal()
        error.args = tuple(str(arg).replace(secret, "[key]") for arg in error.args)
        for name, value in error.__dict__.items():
            if isinstance(value, str):
                error.__dict__[name] = value.replace(secret, "[key]")
    return error
