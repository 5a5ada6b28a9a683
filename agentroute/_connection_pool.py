"""SQLite connections kept between uses, each process its own, and the file they are opened on."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Connection", "Pool", "Turns", "create_file", "file_identity", "make_directories"]

_creating = threading.Lock()


class Connection(sqlite3.Connection):
    state: object = None
    """Of the file, when it was opened or copied; another state means that this connection is of no more use."""
    renew: Callable[[], None] | None = None
    """Renews the lock held on a network disk, before each commit."""
    wait_s: float = 0.0
    """How long it waits for the locks of others."""

    def before_commit(self) -> None:
        if self.renew is not None:
            self.renew()


class Turns:
    """So many may be in at a time; the others come in the order in which they asked. A lock of `threading` lets some wait for ever."""

    def __init__(self, limit: int = 1) -> None:
        self._free = limit
        self._changing = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()

    def acquire(self, timeout_s: float) -> bool:
        with self._changing:
            if self._free:
                self._free -= 1
                return True
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        try:
            if turn.acquire(timeout=timeout_s):
                return True
        except BaseException:  # Ctrl-C
            if not self._leave(turn):
                self.release()
            raise
        return not self._leave(turn)

    def _leave(self, turn: threading.Lock) -> bool:
        """Stops waiting; False where the turn was given a moment ago."""
        with self._changing:
            if turn not in self._waiting:
                return False
            self._waiting.remove(turn)
            return True

    def release(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._free += 1


@dataclass(eq=False)
class Pool:
    """One process's idle connections. A forked child has its own and never touches its parent's."""

    limit: int
    pid: int = field(default_factory=os.getpid)
    idle: list[Connection] = field(default_factory=list)
    writers: Turns = field(default_factory=Turns)
    """Who writes comes here first, so that writers who wait for each other keep no connection from a reader."""
    writing: Turns = field(default_factory=Turns)
    """The lock on the file, as far as this process goes; also of a reader who has to upgrade it."""
    guard_fd: int | None = None
    is_closed: bool = False
    networked: bool | None = None  # None: nobody has looked
    sqlite_locks: bool | None = None  # whether they answer on this network disk
    erasing: bool = False  # what was erased is still in the log, because somebody was reading

    brief_until: float = 0.0  # by the monotonic clock: somebody has waited for the lock in vain

    def __post_init__(self) -> None:
        self.slots = Turns(self.limit)

    def release(self) -> None:
        """Closes what is idle, and from now on what is given back."""
        self.is_closed = True
        while self.idle:
            self.dispose(self.idle.pop())
        if self.guard_fd is not None and self.pid == os.getpid():
            os.close(self.guard_fd)
            self.guard_fd = None

    def dispose(self, connection: Connection) -> None:
        if self.pid != os.getpid():
            # A connection carried across a fork must not even be closed (https://www.sqlite.org/howtocorrupt.html, 2.6);
            # a reference that nobody gives back keeps it open until the process ends.
            import ctypes

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
            return
        try:
            connection.close()
        except sqlite3.Error:
            pass  # a full disk, say: what was committed is in the file or its log

    def idle_in(self, state: Callable[[], object] | None) -> Connection | None:
        """An idle connection to the file as it is now; those to an earlier one, deleted or replaced under us, are closed."""
        while self.idle:
            try:
                connection = self.idle.pop()
            except IndexError:  # another thread was faster
                break
            if state is None:
                return connection
            try:
                if (now := state()) is not None and connection.state == now:
                    return connection
            except OSError:  # it is not there
                pass
            self.dispose(connection)
        return None

    @contextmanager
    def lent(self, take: Callable[[Pool], Connection], *, keep: bool) -> Iterator[Connection]:
        """A connection that comes back to be idle; after an error only with `keep`, for it may be in any state."""
        connection, usable = take(self), True
        try:
            yield connection
        except (sqlite3.Error, OSError):
            usable = keep
            raise
        finally:
            if usable and not self.is_closed and self.pid == os.getpid():
                self.idle.append(connection)
            else:
                self.dispose(connection)


def create_file(path: Path) -> None:
    """An empty file that only its owner may read, unless there is one.

    Before the first connection, because the log files take over its mode. An existing file is never opened here:
    closing it would drop the locks that SQLite holds on it in this process.
    """
    with _creating:
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(0, "it is no regular file")
            if 0 < status.st_size < 512:  # SQLite would take it for an empty file and write over it
                raise OSError(0, "it is no SQLite file and was left as it is")
            return
        except FileNotFoundError:
            pass
        make_directories(path)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        except FileExistsError:  # another process was faster
            return
        os.close(handle)


def make_directories(path: Path) -> None:
    """Those a file needs, for its owner only."""
    for directory in reversed([parent for parent in path.parents if not parent.exists()]):
        directory.mkdir(0o700, exist_ok=True)


def file_identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
