"""Running a blocking function beside the event loop, in a daemon thread that no other has at the time.

Why not `asyncio.to_thread`: its pool is small and shared, a hung function keeps the interpreter from exiting, and a
function that raises StopIteration makes it wait for ever (Python 3.11).
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["forget_abandon", "on_abandon", "run_in_thread"]

T = TypeVar("T")

CLEANUP_S = 2.0
"""How long an abandoned function may end what it was told to stop."""


class _Abandon:
    """What to stop when nobody waits for the function any more."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stops: list[Callable[[], object]] = []
        self._abandoned = False

    def add(self, stop: Callable[[], object]) -> None:
        with self._lock:
            self._stops.append(stop)
            late = self._abandoned
        if late:
            stop()

    def __call__(self) -> bool:
        """Stops it all; whether there was anything to stop."""
        with self._lock:
            self._abandoned = True
            stops = list(self._stops)
        for stop in stops:
            stop()
        return bool(stops)


_abandon: contextvars.ContextVar[_Abandon | None] = contextvars.ContextVar("agentroute_abandon", default=None)


def on_abandon(stop: Callable[[], object]) -> None:
    """Calls `stop` when the function that runs here, in `run_in_thread`, is abandoned; elsewhere does nothing.

    A thread cannot be stopped, but a run that it has begun and waits for can: else that run would go on spending.
    """
    if (abandon := _abandon.get()) is not None:
        abandon.add(stop)


def forget_abandon() -> None:
    """What runs in this context is stopped by other means."""
    _abandon.set(None)


class _Worker:
    """A thread that is used again: to start one takes longer than most of what is done in them."""

    def __init__(self) -> None:
        from queue import SimpleQueue

        self._jobs: SimpleQueue[tuple[Callable[[], None], str]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def do(self, job: Callable[[], None], name: str) -> None:
        self._jobs.put((job, name))

    def _run(self) -> None:
        from queue import Empty

        while True:
            try:
                job, self._thread.name = self._jobs.get(timeout=IDLE_S)
            except Empty:
                try:
                    _idle.remove(self)
                except ValueError:  # somebody has taken it just now
                    continue
                return
            job()
            del job  # nothing is kept alive by a thread that waits
            _idle.append(self)


IDLE_S = 5.0
"""How long a thread without work waits for some."""
_idle: list[_Worker] = []
"""Workers that wait, each in it once. Adding, taking and removing are one step each, so no lock is needed."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


def _in_some_thread(job: Callable[[], None], name: str) -> None:
    try:
        worker = _idle.pop()
    except IndexError:
        worker = _Worker()
    worker.do(job, name)


async def run_in_thread(function: Callable[[], T], *, name: str = "agentroute-tool") -> T:
    """What `function()` returns; context variables are carried. Cancelling abandons the thread, it does not stop it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()
    abandon = _Abandon()
    context.run(_abandon.set, abandon)

    def deliver(value: T | None, error: BaseException | None) -> None:
        if not done.done():
            done.set_result((value, error))  # a result even for errors: a future refuses StopIteration

    def work() -> None:
        value, error = None, None
        try:
            value = context.run(function)
        except BaseException as caught:
            error = caught
        try:
            loop.call_soon_threadsafe(deliver, value, error)
        except RuntimeError:
            pass  # the loop is closed; nobody waits any more

    _in_some_thread(work, name)
    try:
        value, error = await asyncio.shield(done)
    except asyncio.CancelledError:
        if abandon():
            await asyncio.wait({done}, timeout=CLEANUP_S)
        raise
    if isinstance(error, StopIteration):
        raise RuntimeError(f"{type(error).__name__} raised by the function") from error
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
