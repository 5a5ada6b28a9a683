"""Running a blocking function beside the event loop, in a daemon thread of its own.

Why not `asyncio.to_thread`: its pool is small and shared, a hung function keeps the interpreter from exiting, and a
function that raises StopIteration makes it wait for ever (Python 3.11).
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import TypeVar

__all__ = ["run_in_thread"]

T = TypeVar("T")


async def run_in_thread(function: Callable[[], T], *, name: str = "agentroute-tool") -> T:
    """What `function()` returns; context variables are carried. Cancelling abandons the thread, it does not stop it."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[tuple[T | None, BaseException | None]] = loop.create_future()
    context = contextvars.copy_context()

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

    threading.Thread(target=work, name=name, daemon=True).start()
    value, error = await done
    if isinstance(error, StopIteration):
        raise RuntimeError(f"{type(error).__name__} raised by the function") from error
    if error is not None:
        raise error
    return value  # type: ignore[return-value]
