"""ModelReplay: the layer that serves answers which are kept, and keeps those it asks for. `replays.py` has the rule."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace

from ._threads import run_in_thread
from .errors import ErrorReplay, tell
from .message import LLMChunk, LLMRequest, LLMResponse
from .models.base import Layer, Model, ask, chunks_of
from .replays import Place, Replay
from .request_key import request_key
from .store import Answer, RunStore

__all__ = ["ModelReplay"]

HELD_S = 0.5
"""How long a reader may hold up an answer that others wait for before they ask themselves."""


# ---- one session ------------------------------------------------------------------------------------------------------


@dataclass
class _Flight:
    """A request on its way, for those who ask the same."""

    landed: Future[LLMResponse | None] = field(default_factory=Future)
    """The answer; None when there is none to share."""
    held: int = 0
    """Changes whenever the answer's reader takes a piece of it, and is odd while he works on one: he may take his time."""


@dataclass
class _Session:
    """What this process has asked, as far as it matters to replay, for one store."""

    name: str = field(default_factory=lambda: os.urandom(8).hex())
    asked: dict[tuple[bytes, str], tuple[int, int]] = field(default_factory=dict)
    """By request and cell: the execution that asked it last, and how often that did."""
    used: set[int] = field(default_factory=set)
    flights: dict[bytes, _Flight] = field(default_factory=dict)
    """Requests on their way."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, key: bytes, place: Place) -> tuple[int, bool]:
        """How often this execution of the cell has asked this now, and whether an earlier one has."""
        with self.lock:
            execution, count = self.asked.get((key, place.cell), (place.execution, 0))
            again = execution != place.execution
            count = 1 if again else count + 1
            self.asked[key, place.cell] = (place.execution, count)
            return count, again

    def choose(self, answers: list[Answer], place: Place, ordinal: int, *, only: bool) -> Answer | None:
        """The answer to serve; `only`: any rather than none, be it one of this session or one served before."""
        known = [one for one in answers if only or one.session != self.name]
        same = [one for one in known if one.cell == place.cell and one.ordinal == ordinal]
        chosen = same[-1] if same else self._unused(known)
        if chosen is None and only and known:
            chosen = known[-1]
        if chosen is not None:
            self.used.add(chosen.answer_id)
        return chosen

    def _unused(self, answers: list[Answer]) -> Answer | None:
        """The first answer of the latest session, given in the last execution of its cell, that was not served yet."""
        last = {(one.session, one.cell): one.execution for one in answers}
        order = {one.session: one.answer_id for one in answers}
        left = [one for one in answers if last[one.session, one.cell] == one.execution and one.answer_id not in self.used]
        return min(left, key=lambda one: (-order[one.session], one.answer_id), default=None)


_sessions: dict[str, _Session] = {}
_making = threading.Lock()


def _session_of(store: RunStore) -> _Session:
    with _making:
        return _sessions.setdefault(str(store.path), _Session())


# ---- the layer --------------------------------------------------------------------------------------------------------


class ModelReplay(Layer):
    """The model of one run, asked only for what is not kept. The outermost layer: what is served falls under no budget.

    A model without `replay_identity` (one that is not asked over the wire) is always asked, except where `only` forbids it.
    """

    def __init__(self, model: Model, replay: Replay, run_id: str) -> None:
        self.inner = model
        self.replay = replay
        self.run_id = run_id

    async def _answer(self, request: LLMRequest, *, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        key = request_key(self.inner, request)
        mode, place = self.replay.mode, self.replay.place
        if key is None:
            if mode == "only":
                raise ErrorReplay(f"replay='only' allows no request, and answers of a {type(self.inner).__name__} are not kept")
            async with aclosing(ask(self.inner, request, stream=stream)) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        session = _session_of(self.replay.store)
        ordinal, again = session.begin(key, place)
        if mode == "only" or (mode == "on" and not again):
            kept = await self._kept(session, key, ordinal)
            if kept is not None:
                if request.meter is not None:
                    request.meter.cut_at = None
                for chunk in chunks_of(kept):
                    yield chunk
                return
        if mode == "only":
            raise ErrorReplay(
                "no answer is kept for this request, and replay='only' allows none to be sent: its prompt, instructions, tools, "
                "settings or a tool's result differ from what was asked before; run it once with replay='on'"
            )
        async with aclosing(self._shared(session, key, ordinal, request, stream)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _kept(self, session: _Session, key: bytes, ordinal: int) -> LLMResponse | None:
        """The answer that is kept for the request, or None."""
        store, only = self.replay.store, self.replay.mode == "only"

        def look() -> LLMResponse | None:
            chosen = session.choose(store.answers(key), self.replay.place, ordinal, only=only)
            body = None if chosen is None else store.answer_body(chosen)
            return None if chosen is None or body is None else _response(body, chosen.run_id)

        try:
            return await run_in_thread(look, name="agentroute-replay")
        except Exception as error:
            if only:
                raise ErrorReplay(f"the answers that are kept cannot be read: {error}") from error
            self._tell(error)
            return None

    async def _shared(self, session: _Session, key: bytes, ordinal: int, request: LLMRequest, stream: bool) -> AsyncGenerator[LLMChunk, None]:
        """Asks the model, or waits for an equal request that is on its way."""
        mine, answer = _Flight(), None
        while True:
            with session.lock:
                flight = session.flights.setdefault(key, mine)
            if flight is mine or not await _landed(flight):
                break
            answer = flight.landed.result()
            if answer is not None:
                await self._keep(session, key, ordinal, answer)
                for chunk in chunks_of(replace(answer)):
                    yield chunk
                return
        try:
            async with aclosing(ask(self.inner, request, stream=stream)) as chunks:
                async for chunk in chunks:
                    if chunk.response is not None and _may_be_kept(chunk.response, request):
                        answer = replace(chunk.response, replayed_from=self.run_id)
                        await self._keep(session, key, ordinal, answer)
                    mine.held += 1
                    yield chunk
                    mine.held += 1
        finally:
            with session.lock:
                if session.flights.get(key) is mine:
                    del session.flights[key]
            mine.landed.set_result(answer)

    async def _keep(self, session: _Session, key: bytes, ordinal: int, response: LLMResponse) -> None:
        place = self.replay.place
        body = json.dumps({**asdict(response), "replayed_from": None}, ensure_ascii=False)
        # The run that has paid for it.
        answer = Answer(session.name, place.cell, place.execution, ordinal, response.replayed_from or self.run_id)
        try:
            await run_in_thread(lambda: self.replay.store.keep_answer(key, answer, body), name="agentroute-replay")
        except Exception as error:
            self._tell(error)

    def _tell(self, error: Exception) -> None:
        if not self.replay.recorded and not _told:
            _told.append(str(error))
            tell(f"answers are neither replayed nor kept: {error}")


async def _landed(flight: _Flight) -> bool:
    """Waits for a request of somebody else; False when its reader has not come back for a while: he may be waiting for us."""
    landed = asyncio.wrap_future(flight.landed)
    while True:
        before = flight.held
        done, _ = await asyncio.wait({asyncio.shield(landed)}, timeout=HELD_S)
        if done:
            return True
        if before % 2 and flight.held == before:
            return False


def _may_be_kept(response: LLMResponse, request: LLMRequest) -> bool:
    """Whether an answer is whole and good: no error, refusal or filter, and not cut by a budget, which is no part of the request."""
    if response.refusal or response.finish_reason in ("error", "content_filter"):
        return False
    if response.finish_reason == "length" and getattr(request.meter, "cut_at", None) is not None:
        return False
    return bool(response.content or response.tool_calls)


def _response(body: str, run_id: str) -> LLMResponse:
    return LLMResponse(**{**json.loads(body), "replayed_from": run_id})


_told: list[str] = []
