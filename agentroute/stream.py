"""RunStream: the events of one run, for `async for` and plain `for`."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from typing import Any, Generic, TypeVar

from ._portal import GRACE_S, check_may_block, portal
from .errors import ErrorRun
from .events import AgentEnd, AgentStart, Event, ReasoningDelta, TextDelta
from .result import Result

__all__ = ["RunStream", "outcome"]

OutputT = TypeVar("OutputT")


class _Gate:
    """Keeps the thread that runs the agent from going ahead of the one that reads its events."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left = False
        self._asked, self._given = 0, 0  # events the reader is done with, and events it was given

    def open(self) -> None:
        """Called first, in the thread of the run."""
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    async def passed(self, *, wait: bool) -> None:
        """Returns when the reader is done with all it was given so far; at once unless `wait`."""
        self._given += 1
        while wait and self._asked < self._given and not self._left:
            self._event.clear()
            if self._asked < self._given and not self._left:
                await self._event.wait()

    def leave(self) -> None:
        """Called by the reader when it wants no more: the run's end waits for nobody."""
        self._left = True
        self._wake()

    def ask(self) -> None:
        """Called by the reader, when it is done with an event."""
        self._asked += 1
        if self._asked == self._given:
            self._wake()

    def _wake(self) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._event.set)
            except RuntimeError:  # the loop has ended, and the run with it
                pass


class RunStream(Generic[OutputT]):
    """The events of one run as they happen, for `async for` or plain `for`, once.

    Leaving early stops the run and closes its connection; `with` (or `async with`) does so at the end of the block.
    A failed run ends the iteration by raising its error, after its AgentEnd event.
    """

    def __init__(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> None:
        self._begin: Callable[[], AsyncGenerator[Event, None]] | None = begin
        self._start: AgentStart | None = None
        self._end: AgentEnd | None = None
        # Weak, because the generators hold this object: a `for` that is left drops its generator, which then closes at once.
        self._plain: weakref.ref[Generator[Event, None, None]] | None = None
        self._asynchronous: weakref.ref[AsyncGenerator[Event, None]] | None = None
        self._within = False  # an `async with`, at whose end the generator must still be there to be closed
        self._held: AsyncGenerator[Event, None] | None = None

    @property
    def result(self) -> Result[OutputT]:
        """The Result, once the iteration has ended; the partial one when it was left early.

        Raises:
            RuntimeError: the run has not ended. ErrorAgent: it failed.
        """
        if self._end is not None:
            return outcome(self._end)
        if self._start is None or self._start.partial is None or self._start.record.run.duration_s is None:
            raise RuntimeError("the run has not ended yet; iterate the stream to its end, or close it, first")
        return self._start.partial()

    def __aiter__(self) -> AsyncGenerator[Event, None]:
        events = self._take_async(self._once())
        self._asynchronous = weakref.ref(events)
        self._held = events if self._within else None
        return events

    def __iter__(self) -> Generator[Event, None, None]:
        check_may_block("async for event in agent.stream(...)")
        events = self._take_plain(self._once())
        self._plain = weakref.ref(events)
        return events

    async def aclose(self) -> None:
        """Stops the run if it has not ended."""
        if self._asynchronous is not None and (events := self._asynchronous()) is not None:
            await events.aclose()
        self._held = None

    def close(self) -> None:
        """Stops the run if it has not ended."""
        if self._plain is not None and (events := self._plain()) is not None:
            events.close()

    async def __aenter__(self) -> RunStream[OutputT]:
        self._within = True
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __enter__(self) -> RunStream[OutputT]:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _once(self) -> Callable[[], AsyncGenerator[Event, None]]:
        if self._begin is None:
            raise RuntimeError("a stream is read once: reading it again would run, and pay for, the agent again")
        begin, self._begin = self._begin, None
        return begin

    def _seen(self, event: Event) -> Event:
        if isinstance(event, AgentStart):
            self._start = event
        elif isinstance(event, AgentEnd):
            self._end = event
        return event

    async def _take_async(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> AsyncGenerator[Event, None]:
        async with aclosing(begin()) as events:
            async for event in events:
                yield self._seen(event)
        outcome(self._end)

    def _take_plain(self, begin: Callable[[], AsyncGenerator[Event, None]]) -> Generator[Event, None, None]:
        import queue

        pipe: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        gate = _Gate()

        async def pump() -> None:
            error: BaseException | None = None
            gate.open()
            try:
                async with aclosing(begin()) as events:
                    async for event in events:
                        pipe.put(event)
                        # Text that is on its way is paid for. All else waits for whoever reads, who may leave instead.
                        await gate.passed(wait=not isinstance(event, TextDelta | ReasoningDelta))
            except BaseException as caught:
                error = caught
            pipe.put(error)

        handle = portal().start(pump)
        try:
            while isinstance(item := _get(pipe), Event):
                yield self._seen(item)
                gate.ask()
        finally:
            if not handle.wait(0):
                handle.cancel()
                gate.leave()  # after it, or the run would go on
                handle.wait(GRACE_S)
        if item is not None:
            raise item
        outcome(self._end)


def _get(pipe: Any) -> Any:
    """The next item, waited for in slices, so that Ctrl-C gets through on every platform."""
    import queue

    while True:
        try:
            return pipe.get(timeout=0.1)
        except queue.Empty:
            continue


def outcome(end: AgentEnd | None) -> Result[Any]:
    """The result a run ended with, or its error raised."""
    if end is None:
        raise ErrorRun("the run ended without a result")
    if end.error is not None:
        raise end.error
    return end.result
