"""ModelRetry: a layer that asks again when an endpoint has failed in a way that passes."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from ..errors import (
    ErrorConfig,
    ErrorModel,
    ErrorModelConnection,
    ErrorModelCredit,
    ErrorModelKey,
    ErrorModelRateLimit,
    ErrorModelRequest,
    ErrorModelResponse,
    ErrorModelTimeout,
)
from ..message import LLMChunk, LLMRequest, LLMResponse
from .any_tools import ModelAnyTools
from .base import Layer, Model, ask
from .cloud import ModelCloud

__all__ = ["ModelRetry", "with_retries"]

BASE_S, CAP_S = 0.5, 8.0
"""Seconds: the longest first wait, which doubles from attempt to attempt, and what it never passes. Read at each wait, so a
test that must not wait sets `agentroute.models.retry.BASE_S` to 0."""
MAX_WAIT_S = 25.0
STATUSES = frozenset({408, 429, 500, 502, 503, 504, 529})
"""What is worth another attempt, be it the status of an answer or the code of an error inside one."""


def _random() -> float:
    import random  # it loads much, and most runs never wait

    return random.random()


class ModelRetry(Layer):
    """The model, asked again after a failure that passes, as long as nothing of an answer has been passed on.

    Such failures are: the statuses 408, 429 (not for a used-up quota), 500, 502, 503, 504 and 529, also as an error inside
    an answer; no connection, or one that breaks; an answer with nothing in it. An attempt that ended without a word from
    the provider (timeout, break, empty answer) may have been charged for, and is followed by one more at most.

    Before attempt n+1 there is a random wait of up to 0.5 · 2ⁿ⁻¹ s, at most 8 s; what the provider asks to wait is added.

    `request.timeout` is for one attempt; waits are not counted.

    What attempts before the last one used is in `request.failed_attempts`. The last one's error says how many there were,
    also as `.attempts`; when it was an empty answer, that is the response. Other attributes are the inner model's.

    Args:
        model: the model to ask; closing the layer closes it.
        attempts: how often one request is made at most.
        max_wait_s: a provider that asks for a longer wait is not asked again.
        sleep, random: for tests.

    Raises:
        ErrorConfig: an argument is of the wrong type or out of range.
    """

    def __init__(
        self,
        model: Model,
        *,
        attempts: int = 3,
        max_wait_s: float = MAX_WAIT_S,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        random: Callable[[], float] = _random,
    ) -> None:
        if isinstance(model, type) or not isinstance(model, Model):
            raise ErrorConfig(f"ModelRetry goes around a Model, such as resolve_model('…') gives; got {type(model).__name__}")
        if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 1:
            raise ErrorConfig(f"attempts must be a whole number of at least 1, got {attempts!r}")
        if not isinstance(max_wait_s, int | float) or isinstance(max_wait_s, bool) or not 0 <= max_wait_s < math.inf:
            raise ErrorConfig(f"max_wait_s must be a number of seconds of at least 0, got {max_wait_s!r}")
        self.inner = model
        self.attempts = attempts
        self.max_wait_s = max_wait_s
        self.sleep = sleep
        self.random = random

    def __repr__(self) -> str:
        return f"ModelRetry({self.__dict__.get('inner')!r}, attempts={self.__dict__.get('attempts')!r})"

    @property
    def replay_identity(self) -> Any:
        return getattr(self.inner, "replay_identity", None)

    async def _answer(self, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        """The chunks of the answer; when it is not to be streamed, one that holds the inner model's own `complete`."""
        attempts = _Attempts(self, request)
        while True:
            shown = False
            empty: LLMChunk | None = None
            try:
                async with aclosing(ask(self.inner, attempts.request, stream=stream)) as chunks:
                    async for chunk in chunks:
                        if not shown and chunk.response is not None and _is_empty(chunk.response):
                            empty = chunk
                            break
                        shown = True
                        yield chunk
                if empty is None or empty.response is None:
                    return
                failure: ErrorModel = ErrorModelResponse("the answer is empty", reason="empty", sent=True, usage=empty.response.usage)
            except ErrorModel as error:
                failure = error
            if await attempts.again(failure, shown):
                continue
            if empty is not None:
                yield empty
                return
            raise attempts.told(failure)  # out here, so that it drags no earlier attempt's error along


class _Attempts:
    """The attempts at one request. `request` is what the next one asks."""

    def __init__(self, layer: ModelRetry, request: LLMRequest) -> None:
        self.request = request
        self._layer = layer
        self._causes: list[str] = []
        self._risked = False
        self._stopped = ""

    async def again(self, error: ErrorModel, shown: bool) -> bool:
        """Waits, and says True, when the request is to be made again."""
        self._causes.append(_cause(error))
        if shown or not _passes(error) or len(self._causes) >= self._layer.attempts:
            return False
        if _is_unknown(error):
            if self._risked:
                self._stopped = "each may have been charged for"
                return False
            self._risked = True
        wait = self._wait(error.retry_after_s)
        if wait is None:
            return False
        if error.sent or error.usage:  # before the wait, which may be cancelled
            self.request.failed_attempts.append(dict(error.usage))
        await self._layer.sleep(wait)
        return True

    def _wait(self, asked: float | None) -> float | None:
        """Seconds to wait; None when that is too long."""
        layer = self._layer
        wait = layer.random() * min(CAP_S, BASE_S * float(2 ** min(len(self._causes) - 1, 20)))
        if asked is not None:
            if asked > layer.max_wait_s:
                self._stopped = f"the provider asks to wait {asked:g} s, longer than max_wait_s={layer.max_wait_s:g}"
                return None
            wait = min(asked + wait, layer.max_wait_s)  # not `asked` sharp, or all who wait come back at the same moment
        return wait

    def told(self, error: ErrorModel) -> ErrorModel:
        """The last attempt's error, which says how many there were and why there are no more."""
        count = len(self._causes)
        if count == 1 and not self._stopped:
            return error
        told = copy.copy(error)  # the model may raise the same object again
        told.__cause__ = error.__cause__
        why = f"gave up after {count} attempt{'s' if count > 1 else ''} ({', '.join(self._causes)})"
        told.args = (f"{error}; {why}" + (f": {self._stopped}" if self._stopped else ""),)
        told.attempts = count
        return told


def with_retries(model: Model, *, max_wait_s: float = MAX_WAIT_S) -> Model:
    """The model as an Agent asks it: a ModelCloud with retries, and with tools in words where it takes none, unless its
    `retried` says no; any other as it is."""
    return ModelRetry(ModelAnyTools(model), max_wait_s=max_wait_s) if isinstance(model, ModelCloud) and model.retried else model


def _passes(error: ErrorModel) -> bool:
    """Whether another attempt may succeed where this one failed."""
    if isinstance(error, ErrorModelCredit | ErrorModelKey | ErrorModelRequest):
        return False
    if error.status is not None:
        return error.status in STATUSES
    return isinstance(error, ErrorModelRateLimit | ErrorModelConnection | ErrorModelTimeout) or _is_unknown(error)


def _is_unknown(error: ErrorModel) -> bool:
    """Whether the request was sent and the provider has not said what became of it."""
    if isinstance(error, ErrorModelResponse):
        return error.reason in ("empty", "cut_off")
    return error.sent and error.status is None and isinstance(error, ErrorModelConnection | ErrorModelTimeout)


def _is_empty(response: LLMResponse) -> bool:
    said = response.content or response.tool_calls or response.reasoning or response.refusal
    return not said and response.finish_reason in (None, "stop")


def _cause(error: ErrorModel) -> str:
    if error.status is not None:
        return str(error.status)
    if isinstance(error, ErrorModelResponse):
        return f"{error.reason.replace('_', ' ')} answer"
    return {ErrorModelTimeout: "timeout", ErrorModelConnection: "connection"}.get(type(error), type(error).__name__)
