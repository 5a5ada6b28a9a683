"""A SQLite file of ours, shared by threads, event loops, processes and forked children.

What run history and memory have in common: private file modes, write-ahead logging, one short transaction a write,
numbered migrations, and errors that name the file. Only the standard library's `sqlite3` may open these files in a
process that also writes them: a second SQLite library drops the first one's locks, and commits get lost.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import ErrorConfig, ErrorStore

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Database", "Schema"]

IN_RAM = ":memory:"
WAL_LIMIT_BYTES = 4 << 20
MAX_CONNECTIONS = 4

Migration = Callable[[sqlite3.Connection], None]

_creating = threading.Lock()


def _adopt_none(connection: sqlite3.Connection) -> int | None:
    return None


@dataclass(frozen=True)
class Schema:
    """What is in a file: `migrations[n]` takes it from version n to n + 1; the version is SQLite's `user_version`.

    `adopt` is shown the tables of a file that carries no application id and says which version they are, or None.
    """

    what: str
    application_id: int
    migrations: Sequence[Migration]
    adopt: Callable[[sqlite3.Connection], int | None] = _adopt_none


@dataclass(eq=False)
class _Pool:
    """One process's idle connections. A forked child has its own and never touches its parent's."""

    limit: int
    pid: int = field(default_factory=os.getpid)
    idle: list[sqlite3.Connection] = field(default_factory=list)
    writing: threading.Lock = field(default_factory=threading.Lock)
    guard_fd: int | None = None

    def __post_init__(self) -> None:
        self.slots = threading.BoundedSemaphore(self.limit)

    def release(self) -> None:
        """Closes what is idle."""
        while self.idle:
            self.dispose(self.idle.pop())
        if self.guard_fd is not None and self.pid == os.getpid():
            os.close(self.guard_fd)
            self.guard_fd = None

    def dispose(self, connection: sqlite3.Connection) -> None:
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


class Database:
    """A file with a schema. Nothing is opened or created before the first `read` or `write`.

    Safe from any thread and, after a fork, in the child; pickled, it is the same file, opened anew on the other side.
    `:memory:` is one private database in RAM, which cannot be pickled.
    `timeout_s` is how long to wait for another process's lock.
    """

    def __init__(self, path: str | os.PathLike[str], schema: Schema, *, timeout_s: float = 10.0) -> None:
        text = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(text, str) or not text or "\0" in text:
            raise ErrorConfig(f"the path of a {schema.what} must be a file name, not {text!r}")
        self.in_ram = text == IN_RAM
        self.path = Path(text) if self.in_ram else Path(os.path.abspath(os.path.expanduser(text)))
        self.schema = schema
        self._timeout_s = timeout_s
        self._new_pool()

    def __repr__(self) -> str:
        return f"Database({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        if self.in_ram:
            raise ErrorConfig(f"a {self.schema.what} in RAM cannot be pickled or copied; give it a file")
        return {name: value for name, value in vars(self).items() if name not in ("_pool", "_close_pool")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._new_pool()

    def exists(self) -> bool:
        return self.in_ram or self.path.exists()

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction of its own, which sees one state of the file."""
        with self._named("read"), self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                _roll_back(connection)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A connection in a write transaction: committed at the end, rolled back when an error passes."""
        with self._named("written"), self._connection() as connection, self._guard():
            with _transaction(connection):
                yield connection
            self._checkpoint(connection)

    def close(self) -> None:
        """Closes the connections; the next use opens new ones."""
        close = self._close_pool
        self._new_pool()
        close()

    # ---- connections ------------------------------------------------------------------------------------------

    def _new_pool(self) -> _Pool:
        self._pool = _Pool(1 if self.in_ram else MAX_CONNECTIONS)
        # Runs also when the interpreter exits, so that a forgotten close leaves nothing to warn about.
        self._close_pool = weakref.finalize(self, self._pool.release)
        return self._pool

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        pool = self._pool
        if pool.pid != os.getpid():
            self._close_pool()
            pool = self._new_pool()
        if not pool.slots.acquire(timeout=self._timeout_s):
            raise ErrorStore(f"{self._name} is busy: {pool.limit} uses of it in this process do not end; close unfinished reads")
        connection = None
        try:
            connection = self._take(pool)
            yield connection
        except (sqlite3.Error, OSError):  # it may be in any state
            if connection is not None and not self.in_ram:
                pool.dispose(connection)
                connection = None
            raise
        finally:
            if connection is not None:
                if pool is self._pool and pool.pid == os.getpid():
                    pool.idle.append(connection)
                else:
                    pool.dispose(connection)
            pool.slots.release()

    def _take(self, pool: _Pool) -> sqlite3.Connection:
        while pool.idle:
            try:
                connection = pool.idle.pop()
            except IndexError:  # another thread was faster
                break
            if self.in_ram or _same_file(connection, self.path):
                return connection
            pool.dispose(connection)  # the file was deleted or replaced under us
        return self._open()

    def _open(self) -> sqlite3.Connection:
        if not self.in_ram:
            _create(self.path)
        connection = sqlite3.connect(
            self.path, timeout=self._timeout_s, isolation_level=None, check_same_thread=False, factory=_Connection
        )
        try:
            if not self.in_ram:
                connection.file = _identity(self.path)
            connection.execute("BEGIN")  # one state of the file: another process may be making it right now
            version = self._version(connection)
            connection.execute("ROLLBACK")
            if version < len(self.schema.migrations):
                with self._guard():
                    self._migrate(connection)
            self._configure(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            _patiently(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone(), self._timeout_s)
        # NORMAL: a commit survives kill -9 of the program; only a power cut can take the last ones.
        connection.execute("PRAGMA synchronous=NORMAL")
        if _needs_guard(sqlite3.sqlite_version_info):
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA journal_size_limit=0")  # so that the log's size says how much is in it

    # ---- schema -----------------------------------------------------------------------------------------------

    def _version(self, connection: sqlite3.Connection) -> int:
        """The schema's version in this file; 0 for a new one.

        Raises:
            ErrorStore: the file belongs to another application or to a newer version of this one; it is not changed.
        """
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if owner == self.schema.application_id:
            known = len(self.schema.migrations)
            if version > known:
                newer = f"its schema has version {version}, this one knows {known}"
                raise ErrorStore(f"{self._name} was written by a newer agentroute ({newer}); upgrade, or use another file")
            return version
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner == 0 and version == 0:
            if not tables:
                return 0
            if (adopted := self.schema.adopt(connection)) is not None:
                return adopted
        raise ErrorStore(f"{self._name} belongs to another application and was left as it is; give another path")

    def _migrate(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):
            version = self._version(connection)  # another process may have been faster
            for migration in self.schema.migrations[version:]:
                migration(connection)
            connection.execute(f"PRAGMA application_id={self.schema.application_id}")
            connection.execute(f"PRAGMA user_version={len(self.schema.migrations)}")

    # ---- locks ------------------------------------------------------------------------------------------------

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Alone among the writers of this file, as far as this SQLite needs it.

        Up to 3.51.2 SQLite may corrupt a file when one connection restarts the log while another checkpoints it
        (https://sqlite.org/wal.html#walresetbug); there, a lock on a file beside it keeps writers apart.
        """
        pool, deadline = self._pool, time.monotonic() + self._timeout_s
        if not pool.writing.acquire(timeout=self._timeout_s):
            raise ErrorStore(f"{self._name} is locked by another thread for more than {self._timeout_s:g} s")
        try:
            locked = not self.in_ram and _needs_guard(sqlite3.sqlite_version_info) and self._flock(pool, deadline)
            try:
                yield
            finally:
                if locked and pool.guard_fd is not None:
                    fcntl.flock(pool.guard_fd, fcntl.LOCK_UN)
        finally:
            pool.writing.release()

    def _flock(self, pool: _Pool, deadline: float) -> bool:
        if pool.guard_fd is None:
            pool.guard_fd = os.open(f"{self.path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        pause_s = 0.001
        while True:
            try:
                fcntl.flock(pool.guard_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise sqlite3.OperationalError("database is locked") from None
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, 0.01)

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        if not self.in_ram and _needs_guard(sqlite3.sqlite_version_info):
            try:
                if os.stat(f"{self.path}-wal").st_size > WAL_LIMIT_BYTES:
                    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            except (OSError, sqlite3.Error):
                pass  # the commit is safe in the log; the next write tries again

    # ---- errors -----------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"{self.schema.what} {self.path}"

    @contextmanager
    def _named(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            alien = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB  # the advice says it better than SQLite
            why = self._advice(error) if alien else f"{error}; {self._advice(error)}"
            raise ErrorStore(f"{self._name} cannot be {doing}: {why}") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = "check the path and its permissions" if error.errno else "give another path"  # 0: our own refusal
            raise ErrorStore(f"{self._name} cannot be {doing}: {reason}; {advice}") from error

    def _advice(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            locked = "locked" in str(error)
            code = sqlite3.SQLITE_BUSY if locked else 0
        return {
            sqlite3.SQLITE_BUSY: f"it is locked by another process for more than {self._timeout_s:g} s; end that one or wait",
            sqlite3.SQLITE_READONLY: "the file or its directory is read-only; change the permissions or give another path",
            sqlite3.SQLITE_IOERR: "the disk is full or failing; make room or give another path",
            sqlite3.SQLITE_FULL: "the disk is full; make room or give another path",
            sqlite3.SQLITE_CANTOPEN: "check that the directory exists and may be written to",
            sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away, or restore it from a backup",
            sqlite3.SQLITE_NOTADB: "it is no SQLite file, or a damaged one, and was left as it is; give another path",
        }.get(code & 0xFF, "the file may be damaged; move it away or give another path")


class _Connection(sqlite3.Connection):
    file: tuple[int, int] | None = None  # device and inode it was opened on


def _create(path: Path) -> None:
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
        for directory in reversed([parent for parent in path.parents if not parent.exists()]):
            directory.mkdir(0o700, exist_ok=True)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        except FileExistsError:  # another process was faster
            return
        os.close(handle)


def _identity(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _same_file(connection: sqlite3.Connection, path: Path) -> bool:
    try:
        return isinstance(connection, _Connection) and connection.file == _identity(path)
    except OSError:
        return False


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")  # a transaction that begins by reading fails at once when it is to write
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # already rolled back by SQLite itself, or the connection is of no more use


def _patiently(action: Callable[[], object], timeout_s: float) -> None:
    """Changing the journal mode does not wait for locks by itself."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            action()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


def _needs_guard(version: tuple[int, ...]) -> bool:
    """Whether this SQLite has the WAL-reset bug: fixed in 3.51.3, 3.50.7 and 3.44.6."""
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return fcntl is not None and not fixed
