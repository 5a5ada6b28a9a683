"""The two ways an agent runs in a cell, and how such a cell ends.

1. `run_here`: a `%%agent` cell at the top level of a kernel is rewritten (see `transform.py`) to an `await`, and the run
   is a task on the kernel's own loop, where connections that earlier cells have opened are usable.
2. `run_beside`: everywhere else (terminal, `%%capture`, `%%time`, `run_cell_magic`) the run goes to the one background
   loop, and its events cross a queue to the thread of the cell, which draws.

Both look every tenth of a second whether Stop was pressed: an idle loop would not notice it before its next event, and
a kernel that awaits takes one interrupt only. The first one cancels the run and waits for it; the second gives it up.
Where code blocks the kernel's loop, nothing looks any more: then the second one breaks into that code.

A run that has to ask somebody does so through the cell that waits for it (`asking.py`).
"""

from __future__ import annotations

import asyncio
import math
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager
from types import FrameType, TracebackType
from typing import Any, Protocol

from agentroute._portal import GRACE_S, Handle, portal
from agentroute.errors import ErrorAgent, ErrorInterrupted
from agentroute.events import AgentEnd, AgentStart, Event
from agentroute.keys import without_credentials
from agentroute.result import Result

from .asking import CellOfLoop, CellOfThread, ToDo, WaitingCell, waiting_cell
from .formats import one_line

__all__ = ["Interrupted", "Run", "Runnable", "Stops", "View", "run_beside", "run_here", "supervised"]

TICK_S = 0.1
BLOCKED_S = 0.25  # a loop that has not ticked for so long is taken to be blocked


class View(Protocol):
    """What draws a run; `LiveView` is one."""

    def show(self) -> None: ...
    def update(self, event: Event) -> None: ...
    def tick(self) -> None: ...
    def close(self) -> None: ...


class Runnable(Protocol):
    """What a cell runs, in front or in the background: a `Run`, or a comparison of several."""

    @property
    def begun(self) -> bool:
        """Whether the loop has come to it. Cancelled before, it would leave no trace; so that waits."""

    async def consume(self, take: Callable[[Any], None]) -> None:
        """Runs to the end, on the loop that serves it; each event is given to `take`."""

    def show(self) -> None:
        """Draws the empty state at once."""

    def tick(self) -> None:
        """Draws what has not been drawn yet. Called about ten times a second."""

    def take(self, event: Any) -> None:
        """Draws one event, in the thread that draws."""

    def finish(self) -> None:
        """Draws the last state, and keeps what there is of a run that did not end by itself. Called once, always."""

    def fail(self) -> None:
        """Fails the cell when the run was stopped or has failed."""


class Interrupted(KeyboardInterrupt):
    """Stop was pressed. The cell fails with this one line."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class Run:
    """One run as its cell sees it: takes the events, draws them, and keeps how it ended.

    Args:
        events: begins the run, on the loop that will serve it.
        keep: is given the Result, whole or partial, before the cell ends.
        told: what the cell says of an error that ends the run.
    """

    def __init__(
        self,
        events: Callable[[], AsyncGenerator[Event, None]],
        view: View,
        keep: Callable[[Result[Any]], None],
        told: Callable[[ErrorAgent], str] = str,
    ) -> None:
        self._events, self._view, self._keep, self._told = events, view, keep, told
        self._start: AgentStart | None = None
        self._end: AgentEnd | None = None
        self._closed = False
        self.begun = False
        """Whether the loop has come to it. Cancelled before, it would leave no trace; so that waits."""

    async def consume(self, take: Callable[[Event], None]) -> None:
        self.begun = True
        async with aclosing(self._events()) as events:
            async for event in events:
                take(event)

    def show(self) -> None:
        self._view.show()

    def tick(self) -> None:
        self._view.tick()

    def take(self, event: Event) -> None:
        if self._closed:  # given up, and still going on
            return
        if isinstance(event, AgentStart):
            self._start = event
        elif isinstance(event, AgentEnd):
            self._end = event
            self._keep(event.result)
        self._view.update(event)

    def finish(self) -> None:
        """Draws the last state. A run that did not end by itself ends here; what it did so far is its partial result."""
        try:
            if self._end is None:
                error = ErrorInterrupted("the run was stopped before its end")
                error.result = self._partial()
                self.take(AgentEnd(error.result, error))
        finally:
            self._closed = True
            self._view.close()

    def _partial(self) -> Result[Any]:
        if self._start is None or self._start.partial is None:
            return Result(None, interrupted=True, record=self._start.record if self._start else None)
        result = self._start.partial()
        result.interrupted = True
        return result

    def fail(self) -> None:
        """Fails the cell when the run was stopped or has failed; a run that was complete when Stop came has not."""
        error = self._end.error if self._end else None
        if isinstance(error, ErrorInterrupted):
            raise Interrupted("the run was stopped; what it did until then is in _agent")
        if error is not None:
            raise in_few_lines(error, self._told(error))


async def run_here(run: Runnable) -> None:
    """Runs on the loop of the caller, to the end.

    Raises:
        Interrupted: it was stopped. ErrorAgent: it failed; IPython shows it in two lines.
    """
    interrupts = _Interrupts(on_loop_of=asyncio.current_task())
    try:
        with interrupts:
            run.show()
            await supervised(run, interrupts, CellOfLoop())
    finally:
        run.finish()
    run.fail()


class Stops(Protocol):
    """How often somebody wanted a run to stop."""

    count: int

    def ticked(self) -> None:
        """The loop goes round."""


async def supervised(run: Runnable, stops: Stops, cell: WaitingCell | None) -> None:
    """Runs on the loop of the caller until the run has ended or is given up. The caller calls `finish` then."""

    async def consume() -> None:
        waiting_cell.set(cell)
        await run.consume(run.take)

    task = asyncio.create_task(consume())
    try:
        stopping = _Stopping(task.cancel)
        while not task.done() and not stopping.given_up(stops.count, run.begun):
            try:
                await asyncio.wait({task}, timeout=TICK_S)
            except asyncio.CancelledError:
                stops.count += 1
            stops.ticked()
            run.tick()
        if task.done() and not task.cancelled():
            task.result()
    finally:
        if not task.done():
            task.cancel()
            task.add_done_callback(_forget)


def run_beside(run: Runnable) -> None:
    """Runs on the background loop while this thread draws, to the end. Raises as `run_here`."""
    interrupts = _Interrupts()
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    """Events; what is to be done in this thread (`ToDo`); None at the end."""

    async def consume() -> None:
        waiting_cell.set(CellOfThread(events.put, interrupts))
        try:
            await run.consume(events.put)
        finally:
            events.put(None)

    if portal().in_its_thread:
        raise RuntimeError("an async tool cannot run an agent cell; use `await agent.arun(...)` there")
    handle = None
    ended = False
    try:
        with interrupts:
            run.show()
            handle = portal().start(consume)
            stopping = _Stopping(handle.cancel)
            while not ended and not stopping.given_up(interrupts.count, run.begun):
                run.tick()
                try:
                    event = events.get(timeout=TICK_S)
                except queue.Empty:
                    ended = handle.wait(0) and events.empty()  # cancelled before its first step, it says nothing
                    continue
                if event is None:
                    ended = handle.wait(1.0)
                elif isinstance(event, ToDo):
                    event.work()
                else:
                    run.take(event)
        if ended:
            _value_or_cancelled(handle)
    finally:
        if handle is not None and not ended:
            handle.cancel()
        run.finish()
    run.fail()


class _Interrupts:
    """Counts Ctrl-C and the kernel's Stop instead of letting them break in anywhere, such as into a half-drawn card.

    From the second one on they do break into a task that blocks the loop, as a cancellation of that task: a
    KeyboardInterrupt in a task would end the loop, and with it the kernel. In threads other than the main one there are
    no signals to count.

    Args:
        on_loop_of: the task of the cell, when the run shares its loop; it is never broken into itself.
    """

    def __init__(self, on_loop_of: asyncio.Task[Any] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.count = 0
        self._before: Any = None
        self._cell, self._clock = on_loop_of, clock
        self._ticked_at = clock()

    def ticked(self) -> None:
        """The loop goes round."""
        self._ticked_at = self._clock()

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._counted) or signal.default_int_handler
        return self

    def _counted(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._cell is None or self.count < 2 or self._clock() - self._ticked_at < BLOCKED_S:
            return
        task = asyncio.current_task(self._cell.get_loop())
        if task is not None and task is not self._cell:
            task.cancel()  # so that what it runs knows the CancelledError for one from outside
            raise asyncio.CancelledError

    @contextmanager
    def breaking_in(self) -> Iterator[None]:
        """For as long as this thread asks something, an interrupt is a KeyboardInterrupt again."""
        if self._before is None:
            yield
            return
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, self._counted)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class _Stopping:
    """From interrupts to what is done about them: cancel at the first, give up at the second or after GRACE_S seconds."""

    def __init__(self, cancel: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._cancel: Callable[[], object] | None = cancel
        self._clock = clock
        self._deadline = math.inf

    def given_up(self, interrupts: int, begun: bool = True) -> bool:
        if interrupts and self._deadline == math.inf:
            self._deadline = self._clock() + GRACE_S
        if interrupts and begun and self._cancel is not None:
            self._cancel()
            self._cancel = None
        return interrupts > 1 or self._clock() > self._deadline


def _value_or_cancelled(handle: Handle[None]) -> None:
    try:
        handle.result()
    except asyncio.CancelledError:
        pass  # the run has said so in its own last event


def _forget(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


class _FewLines:
    """Stands in for IPython's traceback. Holds text only, so that the error can still be pickled."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def __call__(self) -> list[str]:
        from IPython.core.getipython import get_ipython

        shell = get_ipython()
        error = sys.exc_info()[1] or getattr(sys, "last_value", None)
        if error is None or getattr(getattr(shell, "InteractiveTB", None), "mode", "") != "Verbose":
            return self.lines
        shown = "".join(traceback.format_exception(type(error), error, _without_cell(error.__traceback__)))
        return without_credentials(shown).splitlines()  # what it comes from may be anybody's error


def _without_cell(frames: TracebackType | None) -> TracebackType | None:
    """The traceback below the cell and its magic."""
    inner = frames
    while inner is not None and not inner.tb_frame.f_globals.get("__name__", "").startswith("agentroute."):
        inner = inner.tb_next
    return inner


def in_few_lines(error: ErrorAgent, text: str | None = None) -> ErrorAgent:
    """The error, which IPython will now show in two lines, `text` in place of its message; `%tb Verbose` shows where it was raised."""
    message = one_line(str(error) if text is None else text, 500)
    record = error.result.record if error.result is not None else None
    kept = "what it did until then is in _agent; " if record is not None and record.turns else ""
    error._render_traceback_ = _FewLines([f"{type(error).__name__}: {message}", f"({kept}%tb Verbose shows the traceback)"])  # type: ignore[attr-defined]
    return error
