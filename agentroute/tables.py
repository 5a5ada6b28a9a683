"""The record classes as tables of the run history: their SQL, and their rows. Times are microseconds since 1970 in UTC.

A column that is `long` holds texts of up to 256 characters itself; a longer one is in the table `bodies`, once for all rows
that hold it, and the row has its hash in a column beside (`content_text`, `content_text_body`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .keeping import Keeping, without_credentials
from .records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord, columns, kind_of

if TYPE_CHECKING:
    import sqlite3

__all__ = ["RUN_START", "TABLES", "Bodies", "Table", "body_of", "encoded", "fit", "hash_of", "store_bodies"]

_SQL_TYPES = {"str": "TEXT", "int": "INTEGER", "float": "REAL", "datetime": "INTEGER"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
INLINE = 256
"""Characters a row holds itself; a longer text goes into `bodies`."""

RUN_START = "run_start"
"""May be asked for like a column: the start of the row's run, by which rows are ordered."""

Bodies = dict[bytes, str]
"""Long texts by their hash."""


def hash_of(text: str) -> bytes:
    return blake2b(text.encode("utf-8"), digest_size=16).digest()


@lru_cache(maxsize=512)
def body_of(data: bytes) -> str:
    """The text of a row of `bodies`."""
    return zlib.decompress(data).decode("utf-8")


def store_bodies(connection: sqlite3.Connection, bodies: Bodies) -> None:
    """Adds the texts that are not there yet."""
    for key, text in bodies.items():
        if connection.execute("SELECT 1 FROM bodies WHERE hash = ?", (key,)).fetchone() is None:
            data = text.encode("utf-8")
            connection.execute("INSERT INTO bodies (hash, size, data) VALUES (?, ?, ?)", (key, len(data), zlib.compress(data, 6)))


class Table:
    """A record class as SQL."""

    def __init__(self, kind: type[Any], name: str) -> None:
        self.kind, self.name = kind, name

    @cached_property
    def columns(self) -> tuple[Field[Any], ...]:
        return columns(self.kind)

    @cached_property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]

    @cached_property
    def keys(self) -> list[str]:
        return [column.name for column in self.columns if column.metadata["key"]]

    @cached_property
    def values(self) -> attrgetter[tuple[Any, ...]]:
        return attrgetter(*self.names)

    @cached_property
    def texts(self) -> list[int]:
        return [index for index, column in enumerate(self.columns) if kind_of(column)[0] == "str"]

    @cached_property
    def times(self) -> list[int]:
        return [index for index, column in enumerate(self.columns) if kind_of(column)[0] == "datetime"]

    @cached_property
    def longs(self) -> list[int]:
        return [index for index, column in enumerate(self.columns) if column.metadata["long"]]

    @cached_property
    def defaults(self) -> list[Any]:
        """What stands for None in each column; None where it may stand itself."""
        return [None if kind_of(column)[1] else _default(column) for column in self.columns]

    # ---- writing ----------------------------------------------------------------------------------------------

    @cached_property
    def sql_names(self) -> list[str]:
        return [*self.names, *(f"{self.names[index]}_body" for index in self.longs)]

    @cached_property
    def upsert_sql(self) -> str:
        names = [*self.sql_names, *self._extra]
        changes = ", ".join(f"{name} = excluded.{name}" for name in names if name not in self.keys)
        marks, keys = ", ".join("?" * len(names)), ", ".join(self.keys)
        return f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({marks}) ON CONFLICT ({keys}) DO UPDATE SET {changes}"

    @property
    def _extra(self) -> list[str]:
        return ["revision"] if self.kind is RunRecord else []

    def row(self, record: Any, keeping: Keeping, bodies: Bodies, keys: Iterable[str] | None = None) -> list[Any]:
        """A record as `upsert_sql` takes it, but for the revision; its long texts are added to `bodies`. `keys` as in `keeping`."""
        return self._apart(self._without_keys(list(encoded(record)), keys), keeping, bodies, keys)

    def _without_keys(self, row: list[Any], keys: Iterable[str] | None) -> list[Any]:
        """Names, too, may hold a key: of a model, a session, in a tag."""
        places = [index for index in self.texts if index not in self.longs and row[index]]
        together = "\n".join(row[index] for index in places)
        if without_credentials(together, keys) != together:
            for index in places:
                row[index] = without_credentials(row[index], keys)
        return row

    def _apart(self, row: list[Any], keeping: Keeping, bodies: Bodies, keys: Iterable[str] | None = None) -> list[Any]:
        hashes: list[bytes | None] = []
        for index in self.longs:
            text = row[index]
            kept = keeping.of(text, keys) if text else text
            key = None
            if kept is None:
                kept = self.defaults[index]
            elif len(kept) > INLINE:
                key = hash_of(kept)
                bodies[key], kept = kept, None
            row[index] = kept
            hashes.append(key)
        return row + hashes

    # ---- reading ----------------------------------------------------------------------------------------------

    def select_sql(self, condition: str, names: Sequence[str] | None = None) -> str:
        """Rows by start of the run, then by position in it; long texts come as text, or as the data of their body."""
        # CROSS JOIN keeps this nesting: runs come in order of the unique index on started_at, so nothing has to be sorted.
        source, row = f"runs AS run CROSS JOIN {self.name} AS row ON row.run_id = run.run_id", "row"
        if self.kind is RunRecord:
            source, row = "runs AS run", "run"
        wanted = ", ".join(self._read_sql(row, name) for name in (self.names if names is None else names))
        order = ", ".join(["run.started_at", "run.run_id", *(f"{row}.{key}" for key in self.keys[1:])])
        return f"SELECT {wanted} FROM {source} WHERE {condition} ORDER BY {order}"

    def _read_sql(self, row: str, name: str) -> str:
        if name == RUN_START:
            return "run.started_at"
        if name not in {self.names[index] for index in self.longs}:
            return f"{row}.{name}"
        return f"coalesce({row}.{name}, (SELECT data FROM bodies WHERE hash = {row}.{name}_body))"

    def whole_texts(self, rows: list[tuple[Any, ...]], names: Sequence[str] | None = None) -> list[tuple[Any, ...]]:
        """The rows with their long texts as text."""
        long = {self.names[index] for index in self.longs}
        places = [place for place, name in enumerate(self.names if names is None else names) if name in long]
        if not places:
            return rows
        return [_whole(row, places) for row in rows]

    def decode(self, row: Sequence[Any]) -> Any:
        values = list(row)
        for index in self.times:
            if values[index] is not None:
                values[index] = _EPOCH + values[index] * _MICROSECOND
        return self.kind(**dict(zip(self.names, values, strict=True)))

    # ---- the table --------------------------------------------------------------------------------------------

    @cached_property
    def create_sql(self) -> str:
        own = [_column_sql(column) for column in self.columns]
        hashes = [f"{self.names[index]}_body BLOB" for index in self.longs]
        extra = [f"{name} INTEGER NOT NULL DEFAULT 0" for name in self._extra]
        # Rows of one run lie together, in its order, without an index beside them.
        how = "STRICT" if self.kind is RunRecord else "STRICT, WITHOUT ROWID"
        body = ", ".join([*own, *hashes, *extra, f"PRIMARY KEY ({', '.join(self.keys)})"])
        return f"CREATE TABLE {self.name} ({body}) {how}"

    def fit(self, connection: sqlite3.Connection) -> None:
        """Makes the table as it is to be; rows of one that is otherwise are carried over."""
        found = connection.execute("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ?", (self.name,)).fetchone()
        if found is not None and found[0] == self.create_sql:
            return
        if found is not None:
            connection.execute(f"ALTER TABLE {self.name} RENAME TO {self.name}_before")
        connection.execute(self.create_sql)
        if found is not None:
            self._carry_over(connection)
            connection.execute(f"DROP TABLE {self.name}_before")

    def _carry_over(self, connection: sqlite3.Connection) -> None:
        before = f"{self.name}_before"
        present = {column[1] for column in connection.execute(f"PRAGMA table_info({before})")}
        wanted = [name for name in [*self.sql_names, *self._extra] if name in present]
        places = {name: place for place, name in enumerate(wanted)}
        apart = all(name in places for name in self.sql_names[len(self.names) :])
        cursor = connection.execute(f"SELECT {', '.join(wanted)} FROM {before}")
        while rows := cursor.fetchmany(2048):
            bodies: Bodies = {}
            new = []
            for old in rows:
                row = [old[places[name]] if name in places else None for name in self.names]
                row = [default if value is None and index not in self.longs else value for index, (value, default) in enumerate(zip(row, self.defaults, strict=True))]
                row = [*row, *(old[places[name]] for name in self.sql_names[len(self.names) :])] if apart else self._apart(row, Keeping(), bodies)
                new.append([*row, *(old[places[name]] if name in places else 0 for name in self._extra)])
            store_bodies(connection, bodies)
            connection.executemany(self.upsert_sql, new)


def _whole(row: tuple[Any, ...], places: list[int]) -> tuple[Any, ...]:
    for place in places:
        if isinstance(row[place], bytes):
            row = (*row[:place], body_of(row[place]), *row[place + 1 :])
    return row


def _default(column: Field[Any]) -> Any:
    return column.default if column.default is not MISSING else {"str": "", "float": 0.0}.get(kind_of(column)[0], 0)


def _column_sql(column: Field[Any]) -> str:
    name, may_be_none = kind_of(column)
    sql = f"{column.name} {_SQL_TYPES[name]}"
    return sql if may_be_none or column.metadata["long"] else f"{sql} NOT NULL DEFAULT {_default(column)!r}"


TABLES: dict[type[Any], Table] = {
    RunRecord: Table(RunRecord, "runs"),
    TurnRecord: Table(TurnRecord, "turns"),
    ToolCallRecord: Table(ToolCallRecord, "tool_calls"),
    MessageRecord: Table(MessageRecord, "messages"),
    ScoreRecord: Table(ScoreRecord, "scores"),
}


def encoded(record: Any) -> tuple[Any, ...]:
    """A record as a row: its columns in order, times as microseconds, text that UTF-8 can hold."""
    table = TABLES[type(record)]
    row = list(table.values(record))
    for index in table.times:
        if row[index] is not None:
            row[index] = (row[index] - _EPOCH) // _MICROSECOND
    for index in table.texts:
        if row[index] is not None and not row[index].isascii():
            row[index] = row[index].encode("utf-8", "backslashreplace").decode("utf-8")  # half characters
    return tuple(row)


_BESIDE: Iterable[str] = (
    "CREATE TABLE IF NOT EXISTS bodies (hash BLOB NOT NULL UNIQUE, size INTEGER NOT NULL, data BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS state (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "INSERT OR IGNORE INTO state (name, value) VALUES ('revision', 0), ('epoch', abs(random() / 2))",  # an epoch is of one file
    # What replay serves. `ordinal` counts the same request within one execution of a cell; `body` is the response as JSON.
    "CREATE TABLE IF NOT EXISTS answers (answer_id INTEGER PRIMARY KEY, request_key BLOB NOT NULL, session TEXT NOT NULL, cell TEXT NOT NULL, "
    "execution INTEGER NOT NULL, ordinal INTEGER NOT NULL, run_id TEXT NOT NULL, created_at INTEGER NOT NULL, "
    "body BLOB NOT NULL) STRICT",
)
_INDEXES: Iterable[str] = (
    "CREATE UNIQUE INDEX IF NOT EXISTS runs_by_start ON runs (started_at, run_id)",
    "CREATE INDEX IF NOT EXISTS runs_by_revision ON runs (revision)",
    "CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS answers_by_request ON answers (request_key)",
    "CREATE INDEX IF NOT EXISTS answers_by_run ON answers (run_id)",
)


def fit(connection: sqlite3.Connection) -> None:
    """Makes the schema of now of whatever is there."""
    for sql in _BESIDE:
        connection.execute(sql)
    for table in TABLES.values():
        table.fit(connection)
    for sql in _INDEXES:
        connection.execute(sql)
