"""From plain code into the async loop: one background thread with one event loop for all synchronous callers."""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from ._threads import forget_abandon, on_abandon

__all__ = ["Handle", "Portal", "check_may_block", "portal", "run_blocking"]

T = TypeVar("T")

GRACE_S = 3.0
"""How long an interrupted call may clean up before it is abandoned."""


class Handle(Generic[T]):
    """A coroutine that runs on the portal's loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[T] | None = None
        self._finished = threading.Event()
        self._cancelled_early = False
        self.cancelled_at: float | None = None

    @property
    def overdue(self) -> bool:
        """Whether it was cancelled a while ago and has not ended: something may be blocking its loop."""
        return self.cancelled_at is not None and not self._finished.is_set() and time.monotonic() - self.cancelled_at > 0.2

    def _start(self, make: Callable[[], Coroutine[Any, Any, T]], context: contextvars.Context) -> None:
        if self._cancelled_early:
            self._finished.set()
            return
        self._task = self._loop.create_task(make(), context=context)
        self._task.add_done_callback(lambda _: self._finished.set())

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it finished in time. Waits in slices, so that Ctrl-C gets through on every platform."""
        if timeout is not None:
            return self._finished.wait(timeout)
        while not self._finished.wait(0.1):
            pass
        return True

    def cancel(self) -> None:
        def do() -> None:
            self._cancelled_early = True
            if self._task is not None:
                self._task.cancel()

        if not self._finished.is_set():
            self.cancelled_at = self.cancelled_at or time.monotonic()
            self._loop.call_soon_threadsafe(do)

    def result(self) -> T:
        """The coroutine's value, or its error. Call after `wait` said True."""
        if self._task is None:
            raise asyncio.CancelledError
        return self._task.result()


class Portal:
    """A daemon thread that runs one event loop until the interpreter exits."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._handles: weakref.WeakSet[Handle[Any]] = weakref.WeakSet()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._run, name="agentroute-loop", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            tasks = asyncio.all_tasks(self.loop)
            for task in tasks:
                task.cancel()
            if tasks:
                self.loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    @property
    def usable(self) -> bool:
        """False after a fork (threads do not survive it) and after closing."""
        return self._pid == os.getpid() and self._thread.is_alive() and not self.loop.is_closed()

    @property
    def in_its_thread(self) -> bool:
        return threading.current_thread() is self._thread

    def start(self, make: Callable[[], Coroutine[Any, Any, T]]) -> Handle[T]:
        """Begins `make()` on the loop; the caller's context variables go with it."""
        handle: Handle[T] = Handle(self.loop)
        context = contextvars.copy_context()
        context.run(forget_abandon)  # it is this handle that is stopped
        self.loop.call_soon_threadsafe(handle._start, make, context, context=context)
        on_abandon(handle.cancel)
        self._handles.add(handle)
        return handle

    def stuck(self) -> bool:
        """Whether code that blocks, in an async tool that was given up, keeps the loop from serving anybody else."""
        if self.in_its_thread or not any(handle.overdue for handle in list(self._handles)):
            return False
        answered = threading.Event()
        self.loop.call_soon_threadsafe(answered.set)
        return not answered.wait(0.3)

    def close(self) -> None:
        """Stops the loop; what still runs is cancelled."""
        if self.usable:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=2.0)


_lock = threading.Lock()
_portal: Portal | None = None


def portal() -> Portal:
    """The process's portal, started when first asked for, and anew after a fork or when the old one is stuck."""
    global _portal
    with _lock:
        if _portal is None or not _portal.usable or _portal.stuck():
            _portal = Portal()
        return _portal


def _forget_lock() -> None:
    global _lock, _portal
    _lock, _portal = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def _in_notebook_cell() -> bool:
    """Whether the loop that runs in this thread is a Jupyter kernel's, which a cell may block."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def check_may_block(instead: str) -> None:
    """Refuses to block an event loop that others depend on; a notebook cell may block its kernel.

    Raises:
        RuntimeError: an event loop runs in this thread; the message says `instead`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    if (_portal is not None and _portal.in_its_thread) or not _in_notebook_cell():
        raise RuntimeError(f"an event loop is running here and must not be blocked; use `{instead}`")


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """`make()` run to its end on the portal. Ctrl-C, or whatever else ends the waiting, cancels it and waits for its cleanup."""
    handle = portal().start(make)
    try:
        handle.wait()
    except BaseException:
        handle.cancel()
        handle.wait(GRACE_S)
        raise
    return handle.result()
