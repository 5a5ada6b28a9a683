"""A SQLite file of ours, shared by threads, event loops, processes and forked children.

What run history and memory have in common: private file modes, write-ahead logging, one short transaction a write,
numbered migrations, and errors that name the file. Only the standard library's `sqlite3` may open these files in a
process that also writes them: a second SQLite library drops the first one's locks, and commits get lost.

On a network disk there is no write-ahead log and no connection outlives its use (`_network_files.py`).
"""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ._connection_pool import Connection, Pool, create_file, file_identity, make_directories
from ._migrations import Schema, copy_to, roll_back, transaction
from ._network_files import LockDirectory, file_state, is_write_ahead, locks_answer, on_network_disk
from .errors import ErrorConfig, ErrorStore

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["Database", "Schema"]

IN_RAM = ":memory:"
WAL_LIMIT_BYTES = 4 << 20
MAX_CONNECTIONS = 4
ERASE_WAIT_MS = 500  # for readers of an older state
BRIEF_S = 0.1
BRIEF_FOR_S = 30.0


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
        self._network_lock = LockDirectory(f"{self.path}-lock.d", timeout_s=timeout_s)
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
    def read(self, *, slow: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction of its own, which sees one state of the file.

        `slow` is for a reader that may take its time between rows. On a network disk it reads a private copy, because
        a file there is one use's at a time; elsewhere it makes no difference.
        """
        with self._named("read"), self._connection(slow=slow, reading=True) as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                roll_back(connection)

    @contextmanager
    def write(self, *, erase: bool = False, brief: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection in a write transaction: committed at the end, rolled back when an error passes.

        With `erase` what is deleted is gone from the file's log too when this ends; while somebody reads an older
        state, as soon as a later write or the last close finds nobody reading.

        `brief` is for what others wait for meanwhile: when somebody has waited for a lock in vain, it waits a tenth of a second at
        most, for half a minute or until a write has worked.
        """
        with self._patience(brief) as wait_s, self._named("written", wait_s), self._writing(wait_s) as connection, self._guard(connection):
            with transaction(connection, connection.before_commit):
                yield connection
            self._checkpoint(connection, erase=erase)

    def compact(self) -> bool:
        """Writes the file anew without the room that deleted rows had, so that it shrinks and no trace of them is left in it.

        Returns whether its log holds no trace either; False while somebody reads an older state (see `write`).

        Raises:
            ErrorStore: it is in use for too long, or there is no room for a second copy.
        """
        with self._named("written"), self._writing() as connection, self._guard(connection):
            connection.before_commit()
            connection.execute("VACUUM")
            self._checkpoint(connection, erase=True)
        return not self._pool.erasing

    def backup(self, path: str | os.PathLike[str]) -> None:
        """Copies what is committed to a new file: whole in itself, without logs, readable by its owner only.

        Raises:
            ErrorStore: there is such a file already, nothing to copy yet, or no room.
        """
        target = Path(os.path.abspath(os.path.expanduser(path)))
        if not self.exists():
            raise ErrorStore(f"{self._name} does not exist yet, so there is nothing to copy")
        with self._named("read"), self._connection(slow=True, reading=True) as connection:
            try:
                copy_to(connection, target)
            except FileExistsError as error:
                raise ErrorStore(f"{target} exists already and was left as it is; give another path for the copy") from error
            except (sqlite3.Error, OSError) as error:
                why = getattr(error, "strerror", None) or error
                advice = "make room, check the permissions, or give another path"
                raise ErrorStore(f"{self._name} cannot be copied to {target}: {why}; {advice}") from error

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file, one line a finding; empty when it is sound or not there."""
        if not self.exists():
            return []
        with self._named("read"):
            try:
                with self._connection(slow=True, reading=True) as connection:
                    lines = [line for (line,) in connection.execute("PRAGMA integrity_check")]
            except sqlite3.DatabaseError as error:
                if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_CORRUPT:
                    raise
                return [str(error)]
        return [] if lines == ["ok"] else lines

    def close(self) -> None:
        """Closes the connections; the next use opens new ones."""
        close = self._close_pool
        self._new_pool()
        close()

    # ---- connections ------------------------------------------------------------------------------------------

    def _new_pool(self) -> Pool:
        self._pool = Pool(1 if self.in_ram else MAX_CONNECTIONS)
        # Runs also when the interpreter exits, so that a forgotten close leaves nothing to warn about.
        self._close_pool = weakref.finalize(self, self._pool.release)
        return self._pool

    def _own_pool(self) -> Pool:
        if self._pool.pid != os.getpid():
            self._close_pool()
            self._new_pool()
        return self._pool

    @contextmanager
    def _patience(self, brief: bool) -> Iterator[float]:
        """How long a write may wait for locks."""
        pool, begun = self._own_pool(), time.monotonic()
        wait_s = min(BRIEF_S, self._timeout_s) if brief and begun < pool.brief_until else self._timeout_s
        try:
            yield wait_s
        except ErrorStore:
            if wait_s == self._timeout_s and (now := time.monotonic()) - begun >= wait_s * 0.9:
                pool.brief_until = now + BRIEF_FOR_S
            raise
        pool.brief_until = 0.0

    @contextmanager
    def _writing(self, wait_s: float | None = None) -> Iterator[Connection]:
        """A connection for one of the writers of this process, who come one after the other."""
        pool, wait_s = self._own_pool(), self._timeout_s if wait_s is None else wait_s
        if not pool.writers.acquire(wait_s):
            raise self._locked(wait_s)
        try:
            with self._connection(wait_s) as connection:
                yield connection
        finally:
            pool.writers.release()

    def _locked(self, wait_s: float) -> ErrorStore:
        return ErrorStore(f"{self._name} is locked by another thread for more than {wait_s:g} s; let that one end, or try again")

    @contextmanager
    def _connection(self, wait_s: float | None = None, *, slow: bool = False, reading: bool = False) -> Iterator[Connection]:
        pool, wait_s = self._own_pool(), self._timeout_s if wait_s is None else wait_s
        if reading and self._is_frozen():
            with closing(self._open_frozen()) as connection:
                yield connection
        elif self._is_networked(pool) and not slow:
            with self._alone(pool, wait_s) as renew, closing(self._open(wait_s, renew)) as connection:
                yield connection
        elif not pool.slots.acquire(wait_s):
            raise ErrorStore(f"{self._name} is busy: {pool.limit} uses of it in this process do not end; close unfinished reads")
        else:
            try:
                take = self._take_copy if self._is_networked(pool) else self._take
                with pool.lent(lambda pool: take(pool, wait_s), keep=self.in_ram) as connection:
                    yield connection
            finally:
                pool.slots.release()

    def _take(self, pool: Pool, wait_s: float) -> Connection:
        connection = pool.idle_in(None if self.in_ram else lambda: file_identity(self.path))
        if connection is None:
            return self._open(wait_s)
        if connection.wait_s != wait_s:
            connection.execute(f"PRAGMA busy_timeout={round(wait_s * 1000)}")
            connection.wait_s = wait_s
        return connection

    def _open(self, wait_s: float, renew: Callable[[], None] | None = None) -> Connection:
        """`renew` is of the lock held on a network disk."""
        if not self.in_ram:
            create_file(self.path)
        connection = self._connect(wait_s)
        try:
            if not self.in_ram:
                connection.state = file_identity(self.path)
            connection.execute("PRAGMA secure_delete=ON")  # from the first write on: later it would miss earlier states of a row
            if renew is not None:
                connection.renew = renew
                if is_write_ahead(self.path):  # without this SQLite would want shared memory
                    connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            is_old = self.schema.is_old(connection, self._name)
            self._configure(connection)
            if is_old:
                with self._guard(connection):
                    path, renewing = None if self.in_ram else self.path, connection.before_commit
                    self.schema.upgrade(connection, self._name, path=path, open_again=lambda: self._connect(wait_s), before_commit=renewing)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self, wait_s: float) -> Connection:
        nolock = self._pool.sqlite_locks is False
        # Not SQLite's `nolock=1`, which leaves the journal of a killed process where it is and knows no write-ahead files.
        place = f"file:{quote(os.fspath(self.path))}?vfs=unix-none" if nolock else self.path
        connection = Connection(place, timeout=wait_s, isolation_level=None, check_same_thread=False, uri=nolock)
        connection.wait_s = wait_s
        return connection

    def _is_frozen(self) -> bool:
        """Whether we can write neither the file nor beside it, and it has no log, so that nobody is writing it."""
        if self.in_ram or not self.path.is_file():  # asked first: another thread may be making the file and its directory right now
            return False
        if os.access(self.path.parent, os.W_OK) and os.access(self.path, os.W_OK):
            return False
        return not any(os.path.exists(f"{self.path}-{log}") for log in ("wal", "journal"))

    def _open_frozen(self) -> Connection:
        """SQLite wants to write beside a file to read it, unless it is told that the file does not change."""
        place = f"file:{quote(os.fspath(self.path))}?mode=ro&immutable=1"
        connection = Connection(place, isolation_level=None, check_same_thread=False, uri=True)
        try:
            if self.schema.is_old(connection, self._name):
                raise ErrorStore(f"{self._name} is of an older version, and read-only, so it cannot be upgraded; read a copy of it instead")
        except BaseException:
            connection.close()
            raise
        return connection

    def _configure(self, connection: Connection) -> None:
        if connection.renew is not None:
            connection.execute("PRAGMA journal_mode=DELETE").fetchone()
            connection.execute("PRAGMA locking_mode=NORMAL").fetchone()
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA cache_spill=OFF")  # nothing reaches the file before the lock was renewed for the commit
            return
        if connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            _patiently(lambda: connection.execute("PRAGMA journal_mode=WAL").fetchone(), connection.wait_s)
        # NORMAL: a commit survives kill -9 of the program; only a power cut can take the last ones.
        connection.execute("PRAGMA synchronous=NORMAL")
        if _needs_guard(sqlite3.sqlite_version_info):
            connection.execute("PRAGMA wal_autocheckpoint=0")
            connection.execute("PRAGMA journal_size_limit=0")  # so that the log's size says how much is in it

    # ---- network disks ----------------------------------------------------------------------------------------

    def _is_networked(self, pool: Pool) -> bool:
        if pool.networked is None:
            pool.networked = not self.in_ram and on_network_disk(self.path)
        return pool.networked

    @contextmanager
    def _alone(self, pool: Pool, wait_s: float) -> Iterator[Callable[[], None]]:
        """Alone with the file among the threads, processes and machines that use it; gives what renews the lock."""
        if not pool.writing.acquire(wait_s):
            raise self._locked(wait_s)
        try:
            make_directories(self.path)
            with self._network_lock.held(wait_s) as renew:
                if pool.sqlite_locks is None:  # not needed, but taken where they answer, for programs that are not ours
                    pool.sqlite_locks = locks_answer(self.path.parent)
                yield renew
        finally:
            pool.writing.release()

    def _take_copy(self, pool: Pool, wait_s: float) -> Connection:
        """The file as it is now, in a temporary one that SQLite deletes; the last copy, if nobody wrote since."""
        with self._alone(pool, wait_s) as renew:
            if (copy := pool.idle_in(lambda: file_state(self.path))) is not None:
                return copy
            copy = Connection("", isolation_level=None, check_same_thread=False)
            try:
                with closing(self._open(wait_s, renew)) as connection:
                    connection.backup(copy)
                copy.state = file_state(self.path)
            except BaseException:
                copy.close()
                raise
            return copy

    # ---- locks ------------------------------------------------------------------------------------------------

    @contextmanager
    def _guard(self, connection: Connection) -> Iterator[None]:
        """Alone among the writers of this file, as far as this SQLite needs it.

        Up to 3.51.2 SQLite may corrupt a file when one connection restarts the log while another checkpoints it
        (https://sqlite.org/wal.html#walresetbug); there, a lock on a file beside it keeps writers apart.
        """
        pool, deadline = self._pool, time.monotonic() + connection.wait_s
        if connection.renew is not None:  # alone already
            yield
            return
        if not pool.writing.acquire(connection.wait_s):
            raise self._locked(connection.wait_s)
        try:
            locked = not self.in_ram and _needs_guard(sqlite3.sqlite_version_info) and self._flock(pool, deadline)
            try:
                yield
            finally:
                if locked and pool.guard_fd is not None:
                    fcntl.flock(pool.guard_fd, fcntl.LOCK_UN)
        finally:
            pool.writing.release()

    def _flock(self, pool: Pool, deadline: float) -> bool:
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

    def _checkpoint(self, connection: Connection, *, erase: bool) -> None:
        """Under the guard. What fails here is tried again by the next write: the commit is safe in the log."""
        pool = self._pool
        if self.in_ram or connection.renew is not None:
            return
        pool.erasing = pool.erasing or erase
        try:
            if pool.erasing:
                connection.execute(f"PRAGMA busy_timeout={ERASE_WAIT_MS if erase else 0}")
                try:
                    pool.erasing = bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
                finally:
                    connection.execute(f"PRAGMA busy_timeout={round(connection.wait_s * 1000)}")
            elif _needs_guard(sqlite3.sqlite_version_info) and os.stat(f"{self.path}-wal").st_size > WAL_LIMIT_BYTES:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except (OSError, sqlite3.Error):
            pass

    # ---- errors -----------------------------------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"{self.schema.what} {self.path}"

    @contextmanager
    def _named(self, doing: str, wait_s: float | None = None) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            alien = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB  # the advice says it better than SQLite
            advice = self._advice(error, self._timeout_s if wait_s is None else wait_s)
            why = advice if alien else f"{error}; {advice}"
            raise ErrorStore(f"{self._name} cannot be {doing}: {why}") from error
        except OSError as error:
            reason = error.strerror or type(error).__name__
            advice = "check the path and its permissions" if error.errno else "give another path"  # 0: our own refusal
            raise ErrorStore(f"{self._name} cannot be {doing}: {reason}; {advice}") from error

    def _advice(self, error: sqlite3.Error, wait_s: float) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None:
            locked = "locked" in str(error)
            code = sqlite3.SQLITE_BUSY if locked else 0
        return {
            sqlite3.SQLITE_BUSY: f"it is locked by another process for more than {wait_s:g} s; end that one or wait",
            sqlite3.SQLITE_READONLY: "the file or its directory is read-only; change the permissions or give another path",
            sqlite3.SQLITE_IOERR: "the disk is full or failing; make room or give another path",
            sqlite3.SQLITE_FULL: "the disk is full; make room or give another path",
            sqlite3.SQLITE_CANTOPEN: "check that the directory exists and may be written to",
            sqlite3.SQLITE_CORRUPT: "the file is damaged; move it away, or restore it from a backup",
            sqlite3.SQLITE_NOTADB: "it is no SQLite file, or a damaged one, and was left as it is; give another path",
        }.get(code & 0xFF, "the file may be damaged; move it away or give another path")


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
