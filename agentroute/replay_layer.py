"""ModelReplay: the layer that serves answers which are kept, and keeps those it asks for. `replays.py` has the rule."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ._threads import run_in_thread
from .errors import ErrorConfig, ErrorModelTimeout, ErrorReplay, ErrorStore, tell
from .message import LLMChunk, LLMRequest, LLMResponse
from .models.base import Layer, Model, ask, chunks_of
from .replays import Place, Replay
from .request_key import request_key
from .store import Answer, RunStore

__all__ = ["ModelReplay"]

CHECK_S = 0.5
"""How often who waits for an equal request looks whether it still goes on, and how long its reader may hold it up."""
MOST_WAIT_S = 600.0
MOST_REMEMBERED = 50_000
WHOLE = frozenset({None, "stop", "tool_calls", "function_call", "length", "end_turn", "stop_sequence", "tool_use", "max_tokens", "eos", "complete", "completed"})
"""Reasons of an answer that is all there. Providers have many words for the others."""


@dataclass
class _Flight:
    """A request on its way, for those who ask the same."""

    loop: asyncio.AbstractEventLoop
    landed: Future[LLMResponse | None] = field(default_factory=Future)
    """The answer; None when there is none to share."""
    failed: bool = False
    """It was asked, and failed, or its answer is not to be kept: who waits asks himself."""
    next: _Flight | None = None
    """That of one who has waited for it in vain, and asks now; the others wait for him."""
    held: int = 0
    """Changes whenever the answer's reader takes a piece of it, and is odd while he works on one: he may take his time."""

    def stuck(self, before: int) -> bool:
        """Whether nobody reads on, or nobody can; `before` is what `held` was at the last look."""
        return not self.loop.is_running() or (before % 2 == 1 and self.held == before)


@dataclass
class _Session:
    """What this process has asked, as far as it matters to replay, for one store."""

    name: str = field(default_factory=lambda: os.urandom(8).hex())
    asked: dict[tuple[bytes, str], tuple[int, int, bool]] = field(default_factory=dict)
    """By request and cell: the execution that asked it last, how often that did, and whether one had before it."""
    used: dict[int, None] = field(default_factory=dict)
    flights: dict[bytes, _Flight] = field(default_factory=dict)
    """Requests on their way."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, key: bytes, place: Place) -> tuple[int, bool]:
        """How often this execution of the cell has asked this now, and whether an earlier one has."""
        with self.lock:
            execution, count, again = self.asked.pop((key, place.cell), (place.execution, 0, False))
            if execution != place.execution:
                count, again = 0, True
            count += 1
            self.asked[key, place.cell] = (place.execution, count, again)
            _trim(self.asked)
            return count, again

    def join(self, key: bytes, mine: _Flight, instead_of: _Flight | None = None) -> _Flight:
        """The flight of equal requests, which is `mine` where there is none but `instead_of`."""
        with self.lock:
            flight = instead_of.next if instead_of is not None and instead_of.next is not None else self.flights.get(key)
            if flight is None or flight is instead_of:
                flight = self.flights[key] = mine
            if instead_of is not None:
                instead_of.next = flight
            return flight

    def land(self, key: bytes, mine: _Flight, answer: LLMResponse | None) -> None:
        with self.lock:
            if self.flights.get(key) is mine:
                del self.flights[key]
        mine.landed.set_result(answer)

    def choose(self, answers: list[Answer], place: Place, ordinal: int, *, only: bool) -> Answer | None:
        """The answer to serve; `only`: any rather than none, be it one of this session or one served before.

        It is the newest that this cell was given at this count; else one of another cell that was served to none yet, the
        first of the latest session.
        """
        newest = {(one.cell, one.ordinal): one for one in answers if only or one.session != self.name}
        chosen = newest.get((place.cell, ordinal))
        if chosen is None:
            latest = {one.session: one.answer_id for one in answers}
            others = [one for one in newest.values() if one.cell != place.cell and one.answer_id not in self.used]
            chosen = min(others, key=lambda one: (-latest[one.session], one.answer_id), default=None)
        if chosen is None and only and answers:
            chosen = answers[-1]
        if chosen is not None:
            self.used[chosen.answer_id] = None
            _trim(self.used)
        return chosen


def _trim(kept: dict[Any, Any]) -> None:
    while len(kept) > MOST_REMEMBERED:
        del kept[next(iter(kept))]


_sessions: dict[str, _Session] = {}
_making = threading.Lock()


def _session_of(store: RunStore) -> _Session:
    with _making:
        return _sessions.setdefault(os.path.realpath(store.path), _Session())


def _forked() -> None:
    """A child is a session of its own, and what its parent has on the way does not come to it."""
    global _making
    _sessions.clear()
    _making = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


# ---- the layer --------------------------------------------------------------------------------------------------------


class ModelReplay(Layer):
    """The model of one run, asked only for what is not kept. The outermost layer: what is served falls under no budget.

    A model without `replay_identity` (one that is not asked over the wire) is always asked, except where `only` forbids it.

    Args:
        unusable: why the model cannot be asked, where it cannot: raised when it would have to be.
    """

    def __init__(self, model: Model, replay: Replay, run_id: str, unusable: ErrorConfig | None = None) -> None:
        self.inner = model
        self.replay = replay
        self.run_id = run_id
        self.unusable = unusable

    async def _answer(self, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        key, mode, place = request_key(self.inner, request, self.replay.salt), self.replay.mode, self.replay.place
        if key is None:
            async with aclosing(self._asked(request, stream, self._no_key())) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        session = _session_of(self.replay.store)
        mine = _Flight(asyncio.get_running_loop())
        # Before the look into the store: who comes meanwhile shall wait for us. What is to be fresh is asked each time.
        flight = mine if mode == "fresh" else session.join(key, mine)
        answer: LLMResponse | None = None
        asked = False
        try:
            ordinal, again = session.begin(key, place)
            if mode == "only" or (mode == "on" and not again):
                served = await self._kept(session, key, ordinal)
            else:
                served = None
            while served is None and flight is not mine and mode != "only":
                served = await _landed(flight, request.timeout)
                if served is not None:
                    await self._keep(session, key, ordinal, served)
                elif flight.failed:
                    break
                else:
                    flight = session.join(key, mine, instead_of=flight)
            if served is not None:
                if request.meter is not None:
                    request.meter.cut_at = None
                for chunk in chunks_of(served):
                    yield chunk
                return
            missing = (
                "no answer is kept for this request, and replay='only' allows none to be sent: its prompt, instructions, tools, settings "
                "or a tool's result differ from what was asked before; run it once with replay='on'"
            )
            asked = True
            async with aclosing(self._asked(request, stream, missing)) as chunks:
                async for chunk in chunks:
                    if chunk.response is not None and _may_be_kept(chunk.response, request):
                        answer = replace(chunk.response, replayed_from=self.run_id)
                        await self._keep(session, key, ordinal, answer)
                    mine.held += 1
                    yield chunk
                    mine.held += 1
        except (GeneratorExit, asyncio.CancelledError):
            asked = False  # left: one of those who wait goes on in our place
            raise
        finally:
            mine.failed = asked and answer is None
            session.land(key, mine, answer)

    def _asked(self, request: LLMRequest, stream: bool, missing: str) -> AsyncGenerator[LLMChunk, None]:
        """The model's own answer.

        Raises:
            ErrorReplay: nothing may be sent. ErrorConfig: nothing can be.
        """
        if self.replay.mode == "only":
            raise ErrorReplay(missing)
        if self.unusable is not None:
            raise self.unusable
        return ask(self.inner, request, stream=stream)

    def _no_key(self) -> str:
        """Why there is no key for a request."""
        if getattr(self.inner, "replay_identity", None) is not None:
            return "replay='only' allows no request, and this one cannot be looked up: it is no JSON; extra=, prompts and tools may hold only what JSON knows"
        model: Any = self.inner
        while getattr(model, "is_layer", False) and hasattr(model, "inner"):
            model = model.inner
        return f"replay='only' allows no request, and answers of a {type(model).__name__} are not kept: it has no replay_identity"

    async def _kept(self, session: _Session, key: bytes, ordinal: int) -> LLMResponse | None:
        """The answer that is kept for the request, or None."""
        store, only = self.replay.store, self.replay.mode == "only"

        def look() -> LLMResponse | None:
            chosen = session.choose(store.answers(key), self.replay.place, ordinal, only=only)
            body = None if chosen is None else store.answer_body(chosen)
            return None if chosen is None or body is None else LLMResponse(**{**json.loads(body), "replayed_from": chosen.run_id})

        try:
            return await run_in_thread(look, name="agentroute-replay")
        except Exception as error:
            if only:
                raise ErrorReplay(f"the answers that are kept cannot be read: {error}") from error
            self._tell(error)
            return None

    async def _keep(self, session: _Session, key: bytes, ordinal: int, response: LLMResponse) -> None:
        """Keeps an answer. Never raises: it is paid for."""
        place = self.replay.place
        answer = Answer(session.name, place.cell, place.execution, ordinal, response.replayed_from or self.run_id)
        try:
            body = json.dumps({**asdict(response), "replayed_from": None})
            await run_in_thread(lambda: self.replay.store.keep_answer(key, answer, body), name="agentroute-replay")
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not (self.replay.recorded and isinstance(error, ErrorStore)) and not _told:
            _told.append(str(error))
            tell(f"answers are neither replayed nor kept: {error}")


async def _landed(flight: _Flight, timeout: float | None) -> LLMResponse | None:
    """The answer to an equal request of somebody else; None when there is none to wait for any longer.

    Raises:
        ErrorModelTimeout: it did not come within the time that this request may take.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + (MOST_WAIT_S if timeout is None else timeout)
    landed = asyncio.wrap_future(flight.landed)
    while True:
        before = flight.held
        done, _ = await asyncio.wait({asyncio.shield(landed)}, timeout=max(min(CHECK_S, until - clock()), 0))
        if done:
            return copy.deepcopy(flight.landed.result())
        if flight.stuck(before):
            return None
        if clock() >= until:
            if timeout is None:
                return None
            raise ErrorModelTimeout(f"an equal request that was on its way was not answered within timeout={timeout:g} s")


def _may_be_kept(response: LLMResponse, request: LLMRequest) -> bool:
    """Whether an answer is whole and good, and not cut by a budget, which is no part of the request."""
    reason = response.finish_reason.lower() if isinstance(response.finish_reason, str) else None
    if response.refusal or reason not in WHOLE:
        return False
    if reason == "length" and getattr(request.meter, "cut_at", None) is not None:
        return False
    return bool(response.content or response.tool_calls)


_told: list[str] = []
