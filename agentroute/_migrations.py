"""What is in a SQLite file of ours, how an older one becomes today's, and how a file is copied whole."""

from __future__ import annotations

import os
import secrets
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from .errors import ErrorStore

__all__ = ["Migration", "Schema", "copy_to", "roll_back", "transaction"]

Migration = Callable[[sqlite3.Connection], None]


def _adopt_none(connection: sqlite3.Connection) -> int | None:
    return None


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Schema:
    """What is in a file: `migrations[n]` takes it from version n to n + 1; the version is SQLite's `user_version`.

    `adopt` is shown the tables of a file that carries no application id and says which version they are, or None.
    """

    what: str
    application_id: int
    migrations: Sequence[Migration]
    adopt: Callable[[sqlite3.Connection], int | None] = _adopt_none

    def is_old(self, connection: sqlite3.Connection, name: str) -> bool:
        """Whether this file has to be upgraded; one that is new and empty has.

        Raises:
            ErrorStore: the file belongs to another application or to a newer version of this one; it is not changed.
        """
        connection.execute("BEGIN")  # one state of the file: another process may be making it right now
        try:
            return self._version(connection, name) < len(self.migrations)
        finally:
            connection.execute("ROLLBACK")

    def upgrade(
        self,
        connection: sqlite3.Connection,
        name: str,
        *,
        path: Path | None,
        open_again: Callable[[], sqlite3.Connection],
        before_commit: Callable[[], None] = _nothing,
    ) -> None:
        """Brings a file to today's version, all or nothing, unless another process did it a moment ago.

        Of a file that is not new a copy is kept beside it before anything changes: `<name>.v<version>.bak`, with a
        number before `.bak` when there is such a copy already. `path` None is a database in RAM.

        Raises:
            ErrorStore: no copy can be written; the file is as it was.
        """
        kept: Path | None = None
        try:
            with transaction(connection, before_commit):
                version = self._version(connection, name)
                if version == len(self.migrations):
                    return
                if version and path is not None:
                    kept = _keep(open_again, path, version, name)
                for migration in self.migrations[version:]:
                    migration(connection)
                connection.execute(f"PRAGMA application_id={self.application_id}")
                connection.execute(f"PRAGMA user_version={len(self.migrations)}")
        except BaseException:
            if kept is not None:  # the file is what it was, so each further try would leave one more copy
                kept.unlink(missing_ok=True)
            raise
        if kept is not None:
            before_commit()
            with suppress(sqlite3.Error):  # gives room back, and overwrites what was deleted before secure_delete was on
                connection.execute("VACUUM")

    def _version(self, connection: sqlite3.Connection, name: str) -> int:
        """The schema's version in this file; 0 for a new one."""
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if owner == self.application_id:
            known = len(self.migrations)
            if version > known:
                newer = f"its schema has version {version}, this one knows {known}"
                raise ErrorStore(f"{name} was written by a newer agentroute ({newer}); upgrade, or use another file")
            return version
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner == 0 and version == 0:
            if not tables:
                return 0
            if (adopted := self.adopt(connection)) is not None:
                return adopted
        raise ErrorStore(f"{name} belongs to another application and was left as it is; give another path")


def _keep(open_again: Callable[[], sqlite3.Connection], path: Path, version: int, name: str) -> Path:
    """The copy of an older file, by a connection of its own: SQLite copies nothing through one that is writing.

    The caller's write transaction has changed nothing yet and lets nobody else change anything.
    """
    names = (f"{path.name}.v{version}{'' if number == 1 else f'.{number}'}.bak" for number in count(1))
    target = next(path.with_name(one) for one in names if not os.path.lexists(path.with_name(one)))
    try:
        with closing(open_again()) as reader:
            copy_to(reader, target)
    except (sqlite3.Error, OSError) as error:
        advice = "make room beside it, or give another path"
        raise ErrorStore(
            f"{name} is of an older version and was left as it is, because no copy of it can be kept as {target.name}"
            f" ({error}); {advice}"
        ) from error
    return target


def copy_to(source: sqlite3.Connection, target: Path) -> None:
    """A new file with what `source` sees: whole in itself, without logs, for its owner's eyes only.

    The file is there with all its content or not at all.

    Raises:
        FileExistsError: there is such a file; it is not touched.
    """
    os.close(_new_file(target))  # claims the name
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(_new_file(part))
        with closing(sqlite3.connect(part, isolation_level=None)) as copy:
            copy.execute("PRAGMA synchronous=OFF")  # one fsync, below; what fails is thrown away
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE").fetchone()  # write-ahead logging was copied with the first page
        handle = os.open(part, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.replace(part, target)
    except BaseException:
        for file in (part, target):
            file.unlink(missing_ok=True)
        raise


def _new_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)


@contextmanager
def transaction(connection: sqlite3.Connection, before_commit: Callable[[], None] = _nothing) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")  # a transaction that begins by reading fails at once when it is to write
    try:
        yield
        before_commit()
        connection.execute("COMMIT")
    except BaseException:
        roll_back(connection)
        raise


def roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # already rolled back by SQLite itself, or the connection is of no more use
