"""The tap that records: it passes a run's events through and commits what they tell, turn by turn."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from copy import copy
from typing import Any

from ._threads import run_in_thread
from .errors import tell
from .events import AgentEnd, AgentStart, Event, ToolCallEnd, TurnEnd, TurnStart
from .records import Record
from .store import RunStore

__all__ = ["recorded"]

_warned: dict[int, Callable[[], object]] = {}
"""Stores that were warned of, by their id: anything with a `save` may be a store, also what has no hash."""


async def recorded(events: AsyncGenerator[Event, None], store: RunStore) -> AsyncGenerator[Event, None]:
    """The same events; each is passed on when what it tells is in the file.

    A run that is left early is stored as `interrupted`. A store that fails does not break the run: there is one
    warning for each store (logged, where warnings are errors), a try with everything when the run ends, and a last one
    when its events close.
    """
    tape = _Tape(store)
    try:
        async with aclosing(events):
            event = await anext(events, None)
            while event is not None:
                try:
                    await tape.take(event)
                except asyncio.CancelledError as stop:  # while saving: the run shall still end in its own way, with AgentEnd
                    event = await _thrown(events, stop)
                else:
                    yield event
                    event = await anext(events, None)
    finally:
        if not tape.complete:  # the events are closed by now, so the record says how the run was left, or ended
            await tape.save()


async def _thrown(events: AsyncGenerator[Event, None], error: BaseException) -> Event:
    try:
        return await events.athrow(error)
    except StopAsyncIteration:
        raise error from None


class _Tape:
    """What of a run's record is in the store, and what is not yet."""

    def __init__(self, store: RunStore) -> None:
        self.complete = False
        self._store = store
        self._record: Record | None = None
        self._saved: dict[tuple[str, int], Any] = {}  # rows of the current turn, as they were last saved
        self._settled = {"turns": 0, "tool_calls": 0, "messages": 0}  # rows before these do not change any more
        self._failed = False
        self._file: object = None  # what the last save returned
        self._writing = threading.Lock()  # a write whose await was cancelled goes on; the next one comes after it

    async def take(self, event: Event) -> None:
        match event:
            case AgentStart():
                self._record = event.record
                await self.save()
            case TurnStart():
                self._settle()
            case TurnEnd() | ToolCallEnd() if not self._failed:
                await self.save()
            case AgentEnd():
                self._record = event.result.record or self._record
                self.complete = await self.save()

    def _settle(self) -> None:
        """Passes over the rows that are in the store as they are now."""
        for part, start in self._settled.items():
            for index, row in enumerate(getattr(self._record, part)[start:], start):
                if self._saved.get((part, index)) != row:
                    break
                del self._saved[part, index]
                self._settled[part] = index + 1

    async def save(self) -> bool:
        """Writes the run and those rows that are new or changed since they were last written; whether that worked."""
        if self._record is None:
            return False
        run, changed = copy(self._record.run), self._changed()
        rows = {part: [row for (of, _), row in changed.items() if of == part] for part in self._settled}

        def write() -> object:
            with self._writing:
                return self._store.save(run, **rows)

        try:
            file = await run_in_thread(write, name="agentroute-recorder")
        except Exception as error:
            self._failed = True
            self._forget()  # nobody knows what is in the store now
            _warn(self._store, error)
            return False
        self._saved.update(changed)
        if (before := self._file) != file:
            self._file = file
            if before is not None:  # the file was deleted, say, and is made anew
                self._forget()
                return await self.save()
        return True

    def _forget(self) -> None:
        """So that the next save brings everything."""
        self._saved.clear()
        self._settled = dict.fromkeys(self._settled, 0)

    def _changed(self) -> dict[tuple[str, int], Any]:
        """Copies, because the run goes on changing its rows while they are written."""
        changed = {}
        for part, start in self._settled.items():
            for index, row in enumerate(getattr(self._record, part)[start:], start):
                if row != self._saved.get((part, index)):
                    changed[part, index] = copy(row)
        return changed


def _warn(store: object, error: Exception) -> None:
    """Once for each store. Never raises, because that would cost an answer that is paid for."""
    known = _warned.get(id(store))
    if known is not None and known() is store:  # ids are given again
        return
    try:
        _warned[id(store)] = weakref.ref(store)
    except TypeError:  # it has __slots__; kept alive, so that its id stays its own
        _warned[id(store)] = lambda: store
    with suppress(Exception):  # even the error's own text may fail
        tell(f"runs are not recorded: {type(error).__name__}: {error}")
