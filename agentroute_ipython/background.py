"""Runs that go on while other cells run: `%%agent NAME --background`.

The cell ends at once. In a kernel the run is a task on the kernel's own loop, as that of an ordinary cell, so it goes on while the
kernel is idle or a cell awaits, and pauses while a cell computes; without such a loop it is on the library's background loop. Its
card stays in its cell, and is redrawn there, and so is what its tools print. In a terminal nothing is printed under the prompt
until the run has ended.

Stop of the kernel means the cell that runs, and leaves runs in the background alone. What stops them is their button,
`%agent stop`, `%unload_ext`, and the end of the kernel; each keeps what was done until then.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
from typing import Any

from agentroute._portal import GRACE_S, Handle, portal
from agentroute.errors import ErrorAgent

from .formats import one_line
from .panels import Spot, StopButton, can_show_widgets, is_captured
from .questions import line_bundle
from .running import Interrupted, Runnable, supervised

__all__ = ["running", "show_stop_button", "start", "stop"]

_jobs: dict[str, _Job] = {}
"""What runs in the background of this process, by name. A process has one shell."""
_lock = threading.Lock()
_stops_at_exit = False


def start(run: Runnable, name: str, shell: Any) -> str:
    """Begins the run, shows its card and Stop button in the cell that runs, and returns at once; the name by which to stop it.

    The name is `name`, or `name-2` and so on while others of that name run.
    """
    global _stops_at_exit
    with _lock:
        free = name if name not in _jobs else next(f"{name}-{n}" for n in range(2, len(_jobs) + 3) if f"{name}-{n}" not in _jobs)
        job = _jobs[free] = _Job(run, free, shell)
        if not _stops_at_exit:
            _stops_at_exit = True
            atexit.register(_end)
    try:
        job.begin()
    except BaseException:
        _jobs.pop(free, None)
        raise
    return free


def running() -> list[str]:
    """The names of the runs that go on, the oldest first."""
    return list(_jobs)


def stop(name: str | None = None) -> list[str]:
    """Stops one run, or all; the names of those that were going on. They end, and keep what they have done, a moment later.

    To stop one again that cleans up for long gives it up.
    """
    jobs = list(_jobs.values()) if name is None else [job for job in [_jobs.get(name)] if job is not None]
    for job in jobs:
        job.stop()
    return [job.name for job in jobs]


def show_stop_button(run: Runnable) -> None:
    """Shows the Stop button of this run in the cell that runs now, too, where the run goes on in the background and has one."""
    for job in list(_jobs.values()):
        if job.run is run:
            job.show_button()


class _Job:
    """A run in the background; also the count of how often it was stopped (`running.Stops`)."""

    def __init__(self, run: Runnable, name: str, shell: Any) -> None:
        self.run, self.name, self.count = run, name, 0
        self._in_kernel = hasattr(shell, "kernel")
        self._run = run if self._in_kernel else _AtEnd(run)
        self._shell = shell
        self._spot: Spot | None = None
        self._buttons: list[StopButton] = []
        self.task: asyncio.Task[None] | None = None
        self.handle: Handle[None] | None = None

    def begin(self) -> None:
        self._run.show()
        if self._in_kernel and is_captured(self._shell):  # nobody would see a card, or press a button
            print(f"{self.name} runs in the background; %agent stop {self.name} ends it, %agent show last shows it")
        else:
            self.show_button()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.handle = portal().start(self._drive)
        else:
            self.task = loop.create_task(self._drive())

    def show_button(self) -> None:
        if not self._in_kernel:
            return
        self._spot = Spot(self._shell)
        if can_show_widgets(self._shell) and getattr(self._shell.kernel, "_allow_stdin", False):  # else nobody is there to press
            button = StopButton(self._spot, self.name, self.stop)
            button.show()
            self._buttons.append(button)

    def stop(self) -> None:
        self.count += 1  # seen at the next tick

    def ticked(self) -> None:
        """Nothing to note."""

    async def _drive(self) -> None:
        told = ""
        try:
            try:
                await supervised(self._run, self, None)
            finally:
                self._run.finish()
            self._run.fail()
        except (ErrorAgent, Interrupted):
            pass  # the card says so, and the Result has it
        except Exception as error:
            told = f"{self.name} failed in the background: {type(error).__name__}: {one_line(str(error), 300)}"
        finally:
            _jobs.pop(self.name, None)
            self._end_of_controls(told)

    def _end_of_controls(self, told: str) -> None:
        for button in self._buttons:
            button.close()
        if told and self._spot is not None:
            self._spot.put(line_bundle(told))
        elif told:
            print(told)


class _AtEnd:
    """A run whose events are drawn all at once, when it has ended: in a terminal, they would get between what is typed."""

    def __init__(self, run: Runnable) -> None:
        self._run = run
        self._events: list[Any] = []

    @property
    def begun(self) -> bool:
        return self._run.begun

    async def consume(self, take: Any) -> None:
        await self._run.consume(take)

    def show(self) -> None:
        """Nothing yet."""

    def tick(self) -> None:
        """Nothing yet."""

    def take(self, event: Any) -> None:
        self._events.append(event)

    def finish(self) -> None:
        try:
            self._run.show()
            for event in self._events:
                self._run.take(event)
        finally:
            self._run.finish()

    def fail(self) -> None:
        self._run.fail()


def _end() -> None:
    """At the end of the process: stops all, and gives them time to record what they have done."""
    jobs = list(_jobs.values())
    stop()
    for job in jobs:
        try:
            if job.handle is not None:
                job.handle.wait(GRACE_S)
            elif job.task is not None and not job.task.done():
                loop = job.task.get_loop()
                if not loop.is_closed() and not loop.is_running():
                    loop.run_until_complete(asyncio.wait({job.task}, timeout=GRACE_S))
        except Exception:
            pass  # the kernel's sockets are closed by now; the record is kept before the card is drawn
