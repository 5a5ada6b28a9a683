"""The tap that records: it passes a run's events through and commits what they tell, turn by turn."""

from __future__ import annotations

import asyncio
import threading
import warnings
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing
from copy import copy
from typing import Any

from ._threads import run_in_thread
from .events import AgentEnd, AgentStart, Event, ToolCallEnd, TurnEnd, TurnStart
from .records import Record
from .store import RunStore, default_store, set_default_store

__all__ = ["default_store", "recorded", "set_default_store"]

_warned: weakref.WeakSet[RunStore] = weakref.WeakSet()


async def recorded(events: AsyncGenerator[Event, None], store: RunStore) -> AsyncGenerator[Event, None]:
    """The same events; each is passed on when what it tells is in the file.

    A run that is left early is stored as `interrupted`. A store that fails does not break the run: there is one
    warning for each store, and one more try with everything when the run ends.
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
        if not tape.complete:  # the events are closed by now, so the record says how the run was left
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
                await self.save()
                self.complete = True

    def _settle(self) -> None:
        for part, index in self._saved:
            self._settled[part] = max(self._settled[part], index + 1)
        self._saved.clear()

    async def save(self) -> None:
        """Writes the run and those rows that are new or changed since they were last written."""
        if self._record is None:
            return
        run, changed = copy(self._record.run), self._changed()
        rows = {part: [row for (of, _), row in changed.items() if of == part] for part in self._settled}

        def write() -> None:
            with self._writing:
                self._store.save(run, **rows)

        try:
            await run_in_thread(write, name="agentroute-recorder")
        except Exception as error:
            self._failed = True
            self._warn(error)
        else:
            self._saved.update(changed)

    def _changed(self) -> dict[tuple[str, int], Any]:
        """Copies, because the run goes on changing its rows while they are written."""
        changed = {}
        for part, start in self._settled.items():
            for index, row in enumerate(getattr(self._record, part)[start:], start):
                if row != self._saved.get((part, index)):
                    changed[part, index] = copy(row)
        return changed

    def _warn(self, error: Exception) -> None:
        if self._store not in _warned:
            _warned.add(self._store)
            warnings.warn(f"runs are not recorded: {type(error).__name__}: {error}", RuntimeWarning, stacklevel=2)
