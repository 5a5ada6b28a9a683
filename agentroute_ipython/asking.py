"""The cell that waits for a run, as the run sees it: where it may show something meanwhile, and ask somebody.

A run on the kernel's own loop asks on another thread, so that whatever the loop serves goes on, time limits among it. A run
beside its cell has the cell's thread ask. A run in the background has no cell that waits, and can ask nobody this way.
"""

from __future__ import annotations

import asyncio
import contextvars
import ctypes
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

__all__ = ["CellOfLoop", "CellOfThread", "ToDo", "WaitingCell", "waiting_cell"]

SLICE_S = 0.05


class WaitingCell(Protocol):
    """Used from the loop of the run, or from that of a run its tools have begun."""

    def tell(self, show: Callable[[], None]) -> None:
        """Has `show` called where what it prints or displays belongs to the cell, in turn with the run's events."""

    async def ask(self, prompt: str, begin: Callable[[], bool] = lambda: True) -> str:
        """What somebody answers to `input(prompt)`. Stop works as ever meanwhile.

        Questions are asked one after the other. `begin` is called as `show` is when the turn of this one has come; False
        means that it is no longer wanted, and the answer is "".

        Raises:
            Exception: nobody answers: EOFError, or what the kernel says of a frontend that cannot ask.
        """


waiting_cell: contextvars.ContextVar[WaitingCell | None] = contextvars.ContextVar("agentroute_waiting_cell", default=None)
"""The cell that waits for the run that is going on; None in the background."""


class CellOfLoop:
    """The cell of `run_here`."""

    def __init__(self) -> None:
        self._asking = threading.Lock()  # no asyncio.Lock: runs that tools have begun ask from another loop

    def tell(self, show: Callable[[], None]) -> None:
        show()

    async def ask(self, prompt: str, begin: Callable[[], bool] = lambda: True) -> str:
        while not self._asking.acquire(blocking=False):  # noqa: ASYNC110
            await asyncio.sleep(SLICE_S)
        try:
            return await _input_in_thread(prompt) if begin() else ""
        finally:
            self._asking.release()


class ToDo:
    """Something that the thread of the cell does, in its turn among the events."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.work = work


class Interrupts(Protocol):
    count: int

    def breaking_in(self) -> AbstractContextManager[None]:
        """For as long as this thread asks something, an interrupt is a KeyboardInterrupt."""


class CellOfThread:
    """The cell of `run_beside`: `put` brings its thread something to do."""

    def __init__(self, put: Callable[[ToDo], None], interrupts: Interrupts) -> None:
        self._put, self._interrupts = put, interrupts

    def tell(self, show: Callable[[], None]) -> None:
        self._put(ToDo(show))

    async def ask(self, prompt: str, begin: Callable[[], bool] = lambda: True) -> str:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[str] = loop.create_future()

        def work() -> None:
            if answered.done():
                return
            answer, error = "", None
            try:
                if begin():
                    with self._interrupts.breaking_in():
                        if self._interrupts.count:  # one that came before; nothing would break into the question
                            return
                        answer = input(prompt)
            except KeyboardInterrupt:
                self._interrupts.count += 1
                return
            except Exception as caught:
                error = caught
            loop.call_soon_threadsafe(_deliver, answered, answer, error)

        self._put(ToDo(work))
        return await answered


async def _input_in_thread(prompt: str) -> str:
    """`input(prompt)`. Cancelled, it takes the question back, else its thread would take the answer of a later one.

    A kernel's `input` looks every hundredth of a second for the answer, and so meets the KeyboardInterrupt it is sent.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[str] = loop.create_future()
    context = contextvars.copy_context()
    turn, stands, taken_back = threading.Lock(), False, False  # whether the question stands, and may be interrupted

    def work() -> None:
        nonlocal stands
        answer, error = "", None
        try:
            with turn:
                stands = not taken_back
            try:
                answer = context.run(input, prompt) if stands else ""
            except BaseException as caught:
                error = caught if isinstance(caught, Exception) else EOFError(f"{type(caught).__name__} instead of an answer")
            with turn:
                stands = False
            loop.call_soon_threadsafe(_deliver, answered, answer, error)
        except (KeyboardInterrupt, RuntimeError):
            pass  # nobody waits any more

    thread = threading.Thread(target=work, name="agentroute-input", daemon=True)
    thread.start()
    try:
        return await asyncio.shield(answered)
    except asyncio.CancelledError:
        with turn:
            taken_back = True
            if stands:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt))
        thread.join(2 * SLICE_S)
        raise


def _deliver(answered: asyncio.Future[str], answer: str, error: Exception | None) -> None:
    if answered.done():
        return
    if error is None:
        answered.set_result(answer)
    else:
        answered.set_exception(error)
