"""RunStore: the run history, kept in one SQLite file.

Tables `runs`, `turns`, `tool_calls` and `messages` are made from the dataclasses in `records.py`. Times are stored as
microseconds since 1970 in UTC. Each `save` is one short transaction: what it returned from survives `kill -9`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import MISSING, Field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ErrorConfig, ErrorStore
from .records import MessageRecord, Record, RunRecord, ToolCallRecord, TurnRecord, columns, kind_of

if TYPE_CHECKING:
    import sqlite3

    from ._sqlite import Database

__all__ = ["RunStore", "default_store", "encoded", "set_default_store"]

_SQL_TYPES = {"str": "TEXT", "int": "INTEGER", "float": "REAL", "datetime": "INTEGER"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class RunStore:
    """Recorded runs in a file: what `agentroute.runs()` and its siblings read.

    `path` is by default `$AGENTROUTE_RUNS`, else `~/.agentroute/runs.db`, looked up at the first use. The file is made
    at the first run that is saved, readable by its owner only. Safe from any thread, process and after a fork. Pickled,
    it is the same file elsewhere.

    Raises:
        ErrorStore: from any method, when the file cannot be used; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise ErrorConfig(f"the path of a run history must be a file name, not {path!r:.80}")
        self._given = path
        self._opened: Database | None = None

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        _ = self._database  # chooses the file here: elsewhere the directory and the environment may be others
        return vars(self)

    @property
    def path(self) -> Path:
        return self._database.path

    def save(
        self,
        run: RunRecord,
        *,
        turns: Sequence[TurnRecord] = (),
        tool_calls: Sequence[ToolCallRecord] = (),
        messages: Sequence[MessageRecord] = (),
    ) -> None:
        """Writes a run and some of its rows, all or nothing. A row whose key is there already is replaced."""
        parts = [rows for rows in ([run], turns, tool_calls, messages) if rows]
        batches = [(TABLES[type(rows[0])].upsert_sql, [encoded(row) for row in rows]) for rows in parts]
        with self._database.write() as connection:
            for sql, rows in batches:
                connection.executemany(sql, rows)

    def select(self, kind: type[Any], *, run_id: str | Iterable[str] | None = None) -> Iterator[tuple[Any, ...]]:
        """Rows of a record class as stored, columns in its order; by start of the run, then by position in it.

        `run_id` is one run's id or several; None is all runs. All rows are of one moment. A file that does not exist has no rows, and is not made. Read to the end, or close.
        """
        if kind not in TABLES:
            known = "RunRecord, TurnRecord, ToolCallRecord or MessageRecord"
            raise ErrorConfig(f"rows come as {known} (agentroute.records), got {getattr(kind, '__name__', repr(kind))}")
        wanted = _run_ids(run_id)
        if not self._database.exists():
            return
        with self._database.read() as connection, closing(TABLES[kind].query(connection, wanted)) as cursor:
            while rows := cursor.fetchmany(2048):
                yield from rows

    def record(self, run_id: str) -> Record:
        """All that is kept of one run.

        Raises:
            ErrorStore: there is no such run.
        """
        parts: dict[type[Any], list[Any]] = {kind: [] for kind in TABLES}
        if self._database.exists():
            with self._database.read() as connection:
                for kind, table in TABLES.items():
                    parts[kind] = [table.decode(row) for row in table.query(connection, [run_id]).fetchall()]
        if not parts[RunRecord]:
            raise ErrorStore(f"there is no run {run_id!r} in {self.path}; agentroute.runs() lists those there are")
        return Record(parts[RunRecord][0], parts[TurnRecord], parts[ToolCallRecord], parts[MessageRecord])

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _database(self) -> Database:
        if self._opened is None:
            from ._sqlite import Database, Schema

            path = self._given if self._given is not None else os.environ.get("AGENTROUTE_RUNS") or "~/.agentroute/runs.db"
            schema = Schema("run history", application_id=0x41475231, migrations=_MIGRATIONS)  # "AGR1"
            self._opened = Database(path, schema, timeout_s=5.0)
        return self._opened


_default: RunStore | None = None


def default_store() -> RunStore | None:
    """The store that records the runs of agents which name none; None until one is set."""
    return _default


def set_default_store(store: RunStore | None) -> None:
    """Makes `store` record every run of this process whose agent has no `store=` of its own; None stops it."""
    global _default
    _default = store


def encoded(record: Any) -> tuple[Any, ...]:
    """A record as the row that is stored: its columns in order, times as microseconds, text that UTF-8 can hold."""
    table = TABLES[type(record)]
    row = list(table.values(record))
    for index in table.times:
        if row[index] is not None:
            row[index] = (row[index] - _EPOCH) // _MICROSECOND
    for index in table.texts:
        if row[index] is not None and not row[index].isascii():
            row[index] = row[index].encode("utf-8", "backslashreplace").decode("utf-8")  # half characters
    return tuple(row)


class _Table:
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
    def upsert_sql(self) -> str:
        changes = ", ".join(f"{name} = excluded.{name}" for name in self.names if name not in self.keys)
        names, marks, keys = ", ".join(self.names), ", ".join("?" * len(self.names)), ", ".join(self.keys)
        return f"INSERT INTO {self.name} ({names}) VALUES ({marks}) ON CONFLICT ({keys}) DO UPDATE SET {changes}"

    def select_sql(self, *, some_runs: bool) -> str:
        # CROSS JOIN keeps this nesting: runs come in order of the unique index on started_at, so nothing has to be sorted.
        source, run = f"runs AS run CROSS JOIN {self.name} AS row ON row.run_id = run.run_id", "run"
        if self.kind is RunRecord:
            source, run = "runs AS row", "row"
        names = ", ".join(f"row.{name}" for name in self.names)
        order = ", ".join([f"{run}.started_at", f"{run}.run_id", *(f"row.{key}" for key in self.keys[1:])])
        return f"SELECT {names} FROM {source}{f' WHERE {run}.run_id IN (SELECT value FROM json_each(?))' if some_runs else ''} ORDER BY {order}"

    def query(self, connection: sqlite3.Connection, run_ids: list[str] | None) -> sqlite3.Cursor:
        parameters = () if run_ids is None else (json.dumps(run_ids),)
        return connection.execute(self.select_sql(some_runs=run_ids is not None), parameters)

    def decode(self, row: Sequence[Any]) -> Any:
        values = list(row)
        for index in self.times:
            if values[index] is not None:
                values[index] = _EPOCH + values[index] * _MICROSECOND
        return self.kind(**dict(zip(self.names, values, strict=True)))

    def fit(self, connection: sqlite3.Connection) -> None:
        """Makes the table if it is missing, else those of its columns that are missing."""
        present = {row[1] for row in connection.execute(f"PRAGMA table_info({self.name})")}
        if not present:
            body = ", ".join([*map(_column_sql, self.columns), f"PRIMARY KEY ({', '.join(self.keys)})"])
            connection.execute(f"CREATE TABLE {self.name} ({body}) STRICT")
        for column in self.columns:
            if present and column.name not in present:
                connection.execute(f"ALTER TABLE {self.name} ADD COLUMN {_column_sql(column)}")


def _run_ids(run_id: str | Iterable[str] | None) -> list[str] | None:
    """The ids as a list; None stays None."""
    if run_id is None:
        return None
    wanted = [run_id] if isinstance(run_id, str) else list(run_id) if isinstance(run_id, Iterable) else [run_id]
    for one in wanted:
        if not isinstance(one, str):
            raise ErrorConfig(f"run_id must be a run's id or several of them, got {type(one).__name__}: {one!r:.80}")
    return wanted


def _column_sql(column: Field[Any]) -> str:
    name, may_be_none = kind_of(column)
    sql = f"{column.name} {_SQL_TYPES[name]}"
    if may_be_none:
        return sql
    default = column.default if column.default is not MISSING else {"str": "", "float": 0.0}.get(name, 0)
    return f"{sql} NOT NULL DEFAULT {default!r}"


TABLES: dict[type[Any], _Table] = {
    RunRecord: _Table(RunRecord, "runs"),
    TurnRecord: _Table(TurnRecord, "turns"),
    ToolCallRecord: _Table(ToolCallRecord, "tool_calls"),
    MessageRecord: _Table(MessageRecord, "messages"),
}


def _fit_tables(connection: sqlite3.Connection) -> None:
    for table in TABLES.values():
        table.fit(connection)
    connection.execute("CREATE UNIQUE INDEX IF NOT EXISTS runs_by_start ON runs (started_at, run_id)")


# One entry a released schema, oldest first; never remove one. A new column in records.py needs one more `_fit_tables`.
_MIGRATIONS = (_fit_tables, _fit_tables)
