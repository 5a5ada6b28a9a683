"""The record classes as tables of the run history: their SQL, and their rows. Times are microseconds since 1970 in UTC.

A column that is `long` holds texts of up to 256 characters itself (in `messages` 64, because what replay keeps of an answer has
most of them, too); a longer one is in the table `bodies`, once for all rows that hold it, and the row has its hash in a column
beside (`content_text`, `content_text_body`).
"""

from __future__ import annotations

import threading
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import MISSING, Field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from hashlib import blake2b
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .config import keys_in_use
from .keeping import Keeping, without_credentials, word_of
from .records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord, columns, kind_of

if TYPE_CHECKING:
    import sqlite3

__all__ = ["RUN_START", "TABLES", "Bodies", "Table", "body_of", "encoded", "fit", "forget_bodies", "hash_of", "packed", "store_bodies", "unpacked"]

_SQL_TYPES = {"str": "TEXT", "int": "INTEGER", "float": "REAL", "datetime": "INTEGER"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
INLINE = 256
"""Characters a row holds itself; a longer text goes into `bodies`."""
INLINE_OF_MESSAGES = 64
DAMAGED = "[damaged]"
"""Stands for a text whose body cannot be unpacked."""

RUN_START = "run_start"
"""May be asked for like a column: the start of the row's run, by which rows are ordered."""

Bodies = dict[bytes, str]
"""Long texts by their hash."""


def hash_of(text: str) -> bytes:
    return blake2b(text.encode("utf-8"), digest_size=16).digest()


_TYPICAL = (
    b'"completion_tokens_details": {"reasoning_tokens": 0}, "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0}, "cost_details": '
    b'{"upstream_inference_cost": null}, "is_byok": false, "cost": 0.00, "cost_source": "table"}, "model": "anthropic/claude-openai/gpt-google/gemini-", '
    b'"finish_reason": "stop", "reasoning": null, "refusal": null, "id": "chatcmpl-", "id": "gen-17", "extra": {}, "replayed_from": null}'
    b'{"tool_calls": [], "content": "", "arguments": "{\\"query\\": \\"", "id": "call_'
    b'", "usage": {"prompt_tokens": 1, "completion_tokens": , "total_tokens": , "model": "", "finish_reason": "tool_calls", "reasoning": null, '
    b'"refusal": null, "id": "gen-", "extra": {}, "replayed_from": null}'
    b'[{"id": "call_", "type": "function", "function": {"name": "", "arguments": "{\\"\\": \\"'
)
"""What JSON of models is like. What is in a file was packed with it, so a change of it is a change of the schema."""


def packed(text: str) -> bytes:
    pack = zlib.compressobj(6, zdict=_TYPICAL) if text.startswith(("{", "[{")) else zlib.compressobj(6)
    return pack.compress(text.encode("utf-8")) + pack.flush()


def unpacked(data: bytes) -> str | None:
    """What was packed; None where that cannot be told any more."""
    unpack = zlib.decompressobj(zdict=_TYPICAL)
    try:
        text = (unpack.decompress(data) + unpack.flush()).decode("utf-8")
    except (zlib.error, UnicodeDecodeError):
        return None
    return text if unpack.eof else None


CACHED_TEXT = 64 << 10
CACHED_IN_ALL = 8 << 20
"""Characters. What is read again and again is short: instructions, prompts."""
_texts: dict[bytes, str] = {}
_texts_size = 0
_texts_changing = threading.Lock()


def body_of(data: bytes) -> str | None:
    """The text of a row of `bodies`; None where it is damaged."""
    global _texts_size
    if (text := _texts.get(data)) is None and (text := unpacked(data)) is not None and len(text) <= CACHED_TEXT:
        with _texts_changing:
            _texts_size += 0 if data in _texts else len(text)
            _texts[data] = text
            while _texts_size > CACHED_IN_ALL:
                _texts_size -= len(_texts.pop(next(iter(_texts))))
    return text


def forget_bodies() -> None:
    """Drops the texts that are held because they were read a moment ago."""
    global _texts_size
    with _texts_changing:
        _texts.clear()
        _texts_size = 0


def store_bodies(connection: sqlite3.Connection, bodies: Bodies) -> None:
    """Adds the texts that are not there yet, or damaged."""
    for key, text in bodies.items():
        found = connection.execute("SELECT data FROM bodies WHERE hash = ?", (key,)).fetchone()
        if found is None:
            connection.execute("INSERT INTO bodies (hash, size, data) VALUES (?, ?, ?)", (key, len(text.encode("utf-8")), packed(text)))
        elif body_of(found[0]) != text:
            connection.execute("UPDATE bodies SET data = ? WHERE hash = ?", (packed(text), key))


class Table:
    """A record class as SQL."""

    def __init__(self, kind: type[Any], name: str, *, inline: int = INLINE) -> None:
        self.kind, self.name, self.inline = kind, name, inline

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
    def words(self) -> list[int]:
        return [index for index, column in enumerate(self.columns) if column.metadata["word"]]

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
        for index in () if keeping.whole else self.words:
            row[index] = row[index] and word_of(row[index])
        for index in self.longs:
            text = row[index]
            kept = keeping.of(text, keys) if text else text
            key = None
            if kept is None:
                kept = self.defaults[index]
            elif len(kept) > self.inline:
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

    def whole_texts(
        self, rows: list[tuple[Any, ...]], names: Sequence[str] | None = None, *, on_damage: Callable[[], object]
    ) -> list[tuple[Any, ...]]:
        """The rows with their long texts as text; calls `on_damage` for each that is lost."""
        long = {self.names[index] for index in self.longs}
        places = [place for place, name in enumerate(self.names if names is None else names) if name in long]
        if not places:
            return rows
        return [_whole(row, places, on_damage) for row in rows]

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
        if found is not None and self._add_columns(connection, found[0]):
            return
        if found is not None:
            connection.execute(f"ALTER TABLE {self.name} RENAME TO {self.name}_before")
        connection.execute(self.create_sql)
        if found is not None:
            self._carry_over(connection)
            connection.execute(f"DROP TABLE {self.name}_before")

    def _add_columns(self, connection: sqlite3.Connection, sql: str) -> bool:
        """Adds the columns that are missing, at once however large the table is; False where more than that has to be done."""
        from sqlite3 import connect

        with closing(connect(":memory:")) as plan:
            plan.execute(self.create_sql)
            wanted = _columns_in(plan, self.name)
        there = _columns_in(connection, self.name)
        missing = [name for name in wanted if name not in there]
        kept = {name: what for name, what in wanted.items() if name in there}
        if there != kept or sql.rpartition(")")[2] != self.create_sql.rpartition(")")[2]:
            return False
        if any(wanted[name] != (wanted[name][0], 0, None, 0) for name in missing):
            return False  # it may not be empty
        for name in missing:
            connection.execute(f"ALTER TABLE {self.name} ADD COLUMN {name} {wanted[name][0]}")
        return True

    def _carry_over(self, connection: sqlite3.Connection) -> None:
        before = f"{self.name}_before"
        present = {column[1] for column in connection.execute(f"PRAGMA table_info({before})")}
        wanted = [name for name in [*self.sql_names, *self._extra] if name in present]
        places = {name: place for place, name in enumerate(wanted)}
        body_names = self.sql_names[len(self.names) :]
        apart = any(name in places for name in body_names)
        keys = keys_in_use()
        cursor = connection.execute(f"SELECT {', '.join(wanted)} FROM {before}")
        while rows := cursor.fetchmany(2048):
            bodies: Bodies = {}
            new = []
            for old in rows:
                row = [old[places[name]] if name in places else None for name in self.names]
                row = [default if value is None and index not in self.longs else value for index, (value, default) in enumerate(zip(row, self.defaults, strict=True))]
                row = self._without_keys(row, keys)
                if apart:  # a text of a column that is new has none
                    row += [old[places[name]] if name in places else None for name in body_names]
                else:
                    row = self._apart(row, Keeping(), bodies, keys)
                new.append([*row, *(old[places[name]] if name in places else 0 for name in self._extra)])
            store_bodies(connection, bodies)
            connection.executemany(self.upsert_sql, new)


def _columns_in(connection: sqlite3.Connection, table: str) -> dict[str, tuple[Any, ...]]:
    """Each column of a table: its type, whether it must be given, its default, its place in the key."""
    return {column[1]: tuple(column[2:6]) for column in connection.execute(f"PRAGMA table_info({table})")}


def _whole(row: tuple[Any, ...], places: list[int], on_damage: Callable[[], object]) -> tuple[Any, ...]:
    for place in places:
        if isinstance(row[place], bytes):
            if (text := body_of(row[place])) is None:
                on_damage()
            row = (*row[:place], DAMAGED if text is None else text, *row[place + 1 :])
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
    MessageRecord: Table(MessageRecord, "messages", inline=INLINE_OF_MESSAGES),
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
    "INSERT OR IGNORE INTO state (name, value) VALUES ('revision', 0), ('epoch', abs(random() / 2)), ('file', random())",  # of this file only
    # What replay serves. A place is an execution of a cell in a session, and the run that asked there; `ordinal` counts the same
    # request in it. `rest` is the response, packed JSON, without those texts of its message that are in `bodies`.
    "CREATE TABLE IF NOT EXISTS places (place_id INTEGER PRIMARY KEY, session TEXT NOT NULL, cell TEXT NOT NULL, execution INTEGER NOT NULL, "
    "run_id TEXT NOT NULL, created_at INTEGER NOT NULL, UNIQUE (run_id, session, cell, execution)) STRICT",
    "CREATE TABLE IF NOT EXISTS answers (answer_id INTEGER PRIMARY KEY, request_key BLOB NOT NULL, place_id INTEGER NOT NULL, "
    "ordinal INTEGER NOT NULL, content_body BLOB, tool_calls_body BLOB, rest BLOB NOT NULL) STRICT",
)
_INDEXES: Iterable[str] = (
    "CREATE UNIQUE INDEX IF NOT EXISTS runs_by_start ON runs (started_at, run_id)",
    "CREATE INDEX IF NOT EXISTS runs_by_revision ON runs (revision)",
    "CREATE INDEX IF NOT EXISTS runs_by_parent ON runs (parent_run_id) WHERE parent_run_id IS NOT NULL",
    "CREATE INDEX IF NOT EXISTS answers_by_request ON answers (request_key)",
)


_SOURCES: Iterable[str] = (  # at first only providers said what an answer cost, so nothing was kept of who did
    "UPDATE turns SET cost_source = 'provider' WHERE cost_usd IS NOT NULL AND cost_source = 'unknown'",
    "UPDATE runs SET cost_source = coalesce((SELECT CASE count(DISTINCT cost_source) WHEN 0 THEN NULL WHEN 1 THEN nullif(max(cost_source), 'unknown') "
    "ELSE 'mixed' END FROM turns WHERE turns.run_id = runs.run_id), 'provider') WHERE cost_usd IS NOT NULL AND cost_source = 'unknown'",
)


def fit(connection: sqlite3.Connection) -> None:
    """Makes the schema of now of whatever is there."""
    for sql in _BESIDE:
        connection.execute(sql)
    for table in TABLES.values():
        table.fit(connection)
    for sql in _INDEXES:
        connection.execute(sql)
    for sql in _SOURCES:
        connection.execute(sql)
