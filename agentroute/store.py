"""RunStore: the run history, kept in one SQLite file.

Tables `runs`, `turns`, `tool_calls`, `messages` and `scores` are made from the dataclasses in `records.py` (see `tables.py`),
beside them what replay serves (`answers`). Each `save` is one short transaction: what it returned from survives `kill -9`.

A run has a revision, which rises with every write that touches it; what is deleted raises the epoch. So a copy of the rows
knows what is new since it was made.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .config import keys_in_use
from .errors import ErrorConfig, ErrorStore, tell
from .keeping import Keeping

if TYPE_CHECKING:
    import sqlite3

    from ._sqlite import Database
    from .records import MessageRecord, Record, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord
    from .selection import Selection

__all__ = ["Answer", "RunStore", "default_store", "on_save", "set_default_store"]

CHUNK = 512
"""Rows that are read at a time: with more, they fall out of the processor's cache before they are put into columns."""


class Answer(NamedTuple):
    """Where an answer that is kept for replay was given."""

    session: str
    cell: str
    execution: int
    ordinal: int
    run_id: str
    answer_id: int = 0


class RunStore:
    """Recorded runs in a file: what `agentroute.runs()` and its siblings read.

    `path` is by default `$AGENTROUTE_RUNS`, else `~/.agentroute/runs.db`, looked up at the first use. The file is made
    at the first run that is saved, readable by its owner only. Safe from any thread, process and after a fork. Pickled,
    it is the same file elsewhere. API keys and authorization headers are struck out of everything that is stored.

    What is no content is always kept as it is: the names of agents, models and tools, the caller's own labels (`session_id`,
    `tags`, the names of scores and scorers), ids, and where a run was made.

    Args:
        record_content: `all`, or `metadata` to keep figures only: no prompt, answer, argument, result, error message, or label or note of a score.
        redact: makes of each text what is kept of it, before it is stored; where it fails nothing of the text is.
            With either, nothing is kept for replay, and of the names that models and providers make up (of tools that do not
            exist, reasons of their own) only what looks like one.

    Raises:
        ErrorStore: from any method, when the file cannot be used; the message names it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        record_content: str = "all",
        redact: Callable[[str], str] | None = None,
    ) -> None:
        if path is not None and (not isinstance(path, str | os.PathLike) or not os.fspath(path)):
            raise ErrorConfig(f"the path of a run history must be a file name, not {path!r:.80}")
        self.keeping = Keeping(record_content, redact)
        self._given = path
        self._opened: Database | None = None
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return f"RunStore({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        _ = self._database  # chooses the file here: elsewhere the directory and the environment may be others
        return vars(self)

    @property
    def path(self) -> Path:
        return self._database.path

    # ---- writing ----------------------------------------------------------------------------------------------

    def save(
        self,
        run: RunRecord,
        *,
        turns: Sequence[TurnRecord] = (),
        tool_calls: Sequence[ToolCallRecord] = (),
        messages: Sequence[MessageRecord] = (),
    ) -> int | None:
        """Writes a run and some of its rows, all or nothing. A row whose key is there already is replaced.

        Returns a number that stands for the file: where it is another one than before, somebody has put another file in its place,
        and what was saved earlier is not in it.
        """
        file = self._write([run], turns, tool_calls, messages, touched=[], brief=True)
        for listener in tuple(_listeners):
            with suppress(Exception):
                listener(run)
        return file

    def save_score(self, score: ScoreRecord) -> None:
        """Writes a score; one of the same run, name and scorer is replaced.

        Raises:
            ErrorStore: there is no such run.
        """
        from .records import RunRecord
        from .selection import Selection

        if not any(self.select(RunRecord, where=Selection(run_id=(score.run_id,)), columns=["run_id"])):
            raise self._no_run(score.run_id)
        self._write([score], touched=[score.run_id])

    def delete_score(self, run_id: str, name: str, *, scorer: str = "") -> None:
        """Takes a score back; nothing happens where there is none."""
        if self._database.exists():
            with self._database.write() as connection:
                connection.execute("DELETE FROM scores WHERE (run_id, name, scorer) = (?, ?, ?)", (run_id, name, scorer))
                self.touch(connection, [run_id])

    def _write(self, *parts: Sequence[Any], touched: Sequence[str], brief: bool = False) -> int | None:
        from .records import RunRecord
        from .tables import TABLES, Bodies, store_bodies

        bodies: Bodies = {}
        keys = keys_in_use()
        batches = [(TABLES[type(rows[0])], [TABLES[type(row)].row(row, self.keeping, bodies, keys) for row in rows]) for rows in parts if rows]
        with self._database.write(brief=brief) as connection:
            store_bodies(connection, bodies)
            revision = _next_revision(connection)
            for table, rows in batches:
                extra = [revision] if table.kind is RunRecord else []
                connection.executemany(table.upsert_sql, [[*row, *extra] for row in rows])
            self.touch(connection, touched, revision=revision)
            file = connection.execute("SELECT value FROM state WHERE name = 'file'").fetchone()
        return None if file is None else int(file[0])

    def transaction(self, *, erase: bool = False) -> AbstractContextManager[sqlite3.Connection]:
        """A connection in a write transaction, for what is done to runs later: committed at the end, rolled back by an error.

        `erase`: what is deleted leaves no trace in the file.
        """
        return self._database.write(erase=erase) if erase else self._database.write()

    def touch(self, connection: sqlite3.Connection, run_ids: Iterable[str], *, revision: int | None = None) -> None:
        """Gives runs that were changed in this transaction a new revision."""
        if ids := list(run_ids):
            revision = _next_revision(connection) if revision is None else revision
            connection.executemany("UPDATE runs SET revision = ? WHERE run_id = ?", [(revision, run_id) for run_id in ids])

    # ---- reading ----------------------------------------------------------------------------------------------

    def chunks(
        self,
        kind: type[Any],
        *,
        where: Selection | None = None,
        columns: Sequence[str] | None = None,
        after: int | None = None,
    ) -> Generator[list[tuple[Any, ...]], None, None]:
        """Rows of a record class, by start of the run, then by position in it, up to 512 at a time.

        All rows are of one moment. A file that does not exist has no rows, and is not made. Read to the end, or close.

        Args:
            where: of which runs; None is all.
            columns: names of columns, in the order wanted; None is all. Times are microseconds since 1970 in UTC.
            after: only of runs whose revision is greater.
        """
        from .tables import TABLES

        if kind not in TABLES:
            known = "RunRecord, TurnRecord, ToolCallRecord, MessageRecord or ScoreRecord"
            raise ErrorConfig(f"rows come as {known} (agentroute.records), got {getattr(kind, '__name__', repr(kind))}")
        if not self._database.exists():
            return
        table = TABLES[kind]
        condition, given = ("1", []) if where is None else where.sql()
        if after is not None:
            condition, given = f"({condition}) AND run.revision > ?", [*given, after]
        with self._database.read(slow=True) as connection:
            if where is not None:
                where.prepare(connection)
            with closing(connection.execute(table.select_sql(condition, columns), given)) as cursor:
                while rows := cursor.fetchmany(CHUNK):
                    yield table.whole_texts(rows, columns, on_damage=self._tell_of_damage)

    def select(self, kind: type[Any], *, where: Selection | None = None, columns: Sequence[str] | None = None) -> Iterator[tuple[Any, ...]]:
        """The rows of `chunks`, one by one."""
        with closing(self.chunks(kind, where=where, columns=columns)) as chunks:
            for rows in chunks:
                yield from rows

    def watermark(self) -> tuple[int, int]:
        """Epoch and revision: what has changed since has a greater revision, and where something was deleted, another epoch."""
        if not self._database.exists():
            return 0, 0
        with self._database.read() as connection:
            state = dict(connection.execute("SELECT name, value FROM state"))
        return state["epoch"], state["revision"]

    def number(self, name: str) -> int | None:
        """A number that the file holds of itself, by its name in the table `state`."""
        with self._database.read() as connection:
            found = connection.execute("SELECT value FROM state WHERE name = ?", (name,)).fetchone()
        return None if found is None else int(found[0])

    def record(self, run_id: str) -> Record:
        """All that is kept of one run.

        Raises:
            ErrorStore: there is no such run.
        """
        from .records import MessageRecord, Record, RunRecord, ToolCallRecord, TurnRecord
        from .selection import Selection
        from .tables import TABLES

        parts: dict[type[Any], list[Any]] = {kind: [] for kind in (RunRecord, TurnRecord, ToolCallRecord, MessageRecord)}
        if self._database.exists():
            condition, given = Selection(run_id=(run_id,)).sql()
            with self._database.read() as connection:
                for kind in parts:
                    table = TABLES[kind]
                    rows = connection.execute(table.select_sql(condition), given).fetchall()
                    parts[kind] = [table.decode(row) for row in table.whole_texts(rows, on_damage=self._tell_of_damage)]
        if not parts[RunRecord]:
            raise self._no_run(run_id)
        return Record(parts[RunRecord][0], parts[TurnRecord], parts[ToolCallRecord], parts[MessageRecord])

    def _no_run(self, run_id: str) -> ErrorStore:
        return ErrorStore(f"there is no run {run_id!r} in {self.path}; agentroute.runs() lists those there are, store= names another history")

    def run_ids(
        self, where: Selection | None = None, *, by: str = "started_at", descending: bool = True, limit: int | None = None, offset: int = 0
    ) -> list[str]:
        """The ids of runs in the order of a column of theirs that is no long text; newest first where it is the same, and last where
        it is unknown. At most `limit` of them, after the first `offset`."""
        from .records import RunRecord, kind_of
        from .tables import TABLES

        table = TABLES[RunRecord]
        column = next((one for one in table.columns if one.name == by and not one.metadata["long"]), None)
        if column is None:
            raise ErrorConfig(f"runs are ordered by a column that is no long text, such as started_at or cost_usd; got {by!r:.80}")
        way, fold = "DESC" if descending else "ASC", " COLLATE NOCASE" if kind_of(column)[0] == "str" else ""
        order = f"run.{by}{fold} {way}, run.started_at DESC, run.run_id DESC"
        if by == "started_at":  # as an index has it
            order = f"run.started_at {way}, run.run_id {way}"
        elif kind_of(column)[1]:
            order = f"run.{by} IS NULL, {order}"
        part = f"LIMIT {-1 if limit is None else limit:d} OFFSET {offset:d}"
        return [run_id for (run_id,) in self._runs_sql(f"SELECT run.run_id FROM runs AS run WHERE {{}} ORDER BY {order} {part}", where)]

    def run_count(self, where: Selection | None = None) -> int:
        return sum(number for (number,) in self._runs_sql("SELECT count(*) FROM runs AS run WHERE {}", where))

    def run_values(self, column: str, limit: int) -> list[str]:
        """The texts that most runs have in a column, the most frequent first."""
        from .records import RunRecord, columns, kind_of

        known = [one.name for one in columns(RunRecord) if kind_of(one)[0] == "str" and not one.metadata["long"]]
        if column not in known:
            raise ErrorConfig(f"values are of one of {', '.join(known)}; got {column!r:.80}")
        sql = f"SELECT run.{column} FROM runs AS run WHERE {{}} AND run.{column} IS NOT NULL GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT {limit:d}"
        return [value for (value,) in self._runs_sql(sql, None)]

    def _runs_sql(self, sql: str, where: Selection | None) -> list[tuple[Any, ...]]:
        """What a query finds that has `{}` for the condition."""
        if not self._database.exists():
            return []
        condition, given = ("1", []) if where is None else where.sql()
        with self._database.read() as connection:
            if where is not None:
                where.prepare(connection)
            return connection.execute(sql.format(condition), given).fetchall()

    # ---- what replay serves -----------------------------------------------------------------------------------

    def answers(self, request_key: bytes) -> list[Answer]:
        """The answers that are kept for a request, oldest first: the newest 1,000."""
        if not self._database.exists():
            return []
        sql = (
            "SELECT session, cell, execution, ordinal, run_id, answer_id FROM answers JOIN places USING (place_id) "
            "WHERE request_key = ? ORDER BY answer_id DESC LIMIT 1000"
        )
        with self._database.read() as connection:
            return [Answer._make(row) for row in connection.execute(sql, (request_key,))][::-1]

    def answer_body(self, answer: Answer) -> str | None:
        """What was answered, the JSON that was given to `keep_answer`; None when it is not kept any more."""
        from .tables import body_of, unpacked

        texts = ", ".join(f"{part}_body, (SELECT data FROM bodies WHERE hash = {part}_body)" for part in _APART)
        with self._database.read() as connection:
            found = connection.execute(f"SELECT rest, {texts} FROM answers WHERE answer_id = ?", (answer.answer_id,)).fetchone()
        if found is None:
            return None
        rest = unpacked(found[0])
        whole = None if rest is None else json.loads(rest)
        for part, key, data in zip(_APART, found[1::2], found[2::2], strict=True):
            if key is not None and whole is not None:
                text = None if data is None else body_of(data)
                whole = None if text is None else {**whole, part: text if part == "content" else json.loads(text)}
        if whole is None:
            self._tell_of_damage()
            return None
        return json.dumps(whole)

    def keep_answer(self, request_key: bytes, answer: Answer, body: str) -> None:
        """Keeps an answer, the JSON of a response, for replay; not where texts are not kept as they are, nor one that holds a key."""
        if not self.keeping.whole:
            return
        if self.keeping.of(body) != body:
            self._tell("key", f"an answer of run {answer.run_id} is not kept for replay, because it holds what looks like a key")
            return
        from .tables import INLINE_OF_MESSAGES, Bodies, hash_of, packed, store_bodies

        rest, bodies = json.loads(body), Bodies()
        keys: dict[str, bytes | None] = dict.fromkeys(_APART)
        for part in _APART if isinstance(rest, dict) else ():
            text = _text_of_message(part, rest.get(part))
            if len(text) > INLINE_OF_MESSAGES:
                keys[part] = key = hash_of(text)
                bodies[key] = text
                del rest[part]
        now = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1e6
        place = (answer.run_id, answer.session, answer.cell, answer.execution)
        with self._database.write(brief=True) as connection:
            store_bodies(connection, bodies)
            new = "INSERT OR IGNORE INTO places (run_id, session, cell, execution, created_at) VALUES (?, ?, ?, ?, ?)"
            connection.execute(new, (*place, int(now)))
            found = connection.execute("SELECT place_id FROM places WHERE (run_id, session, cell, execution) = (?, ?, ?, ?)", place).fetchone()
            sql = "INSERT INTO answers (request_key, place_id, ordinal, content_body, tool_calls_body, rest) VALUES (?, ?, ?, ?, ?, ?)"
            connection.execute(sql, (request_key, *found, answer.ordinal, *keys.values(), packed(json.dumps(rest))))

    def _tell_of_damage(self) -> None:
        self._tell("damage", f"texts in the run history {self.path} are damaged, and read as [damaged]; restore it from a backup if you have one")

    def _tell(self, what: str, message: str) -> None:
        """Once for each store."""
        if what not in self._told:
            self._told.add(what)
            tell(message)

    # ---- the file ---------------------------------------------------------------------------------------------

    def snapshot(self, path: str | os.PathLike[str]) -> Path:
        """A copy of the file as it is now, for other programs: only this library should open the file itself while it is in use.

        Raises:
            ErrorStore: there is a file of that name, or it cannot be written.
        """
        self._database.backup(path)
        return Path(os.path.abspath(os.path.expanduser(path)))

    def backups(self) -> list[Path]:
        """Copies of the file that upgrades of its schema have left beside it."""
        return sorted(found for found in self.path.parent.glob("*.bak") if found.name.startswith(f"{self.path.name}.v"))

    def check(self) -> list[str]:
        """What is wrong with the file, as SQLite finds it; empty when it is sound."""
        return self._database.check() if self._database.exists() else []

    def compact(self) -> bool:
        """Makes the file as small as what is in it, without a trace of what was deleted; False where its log may still hold one,
        as somebody is reading.

        Raises:
            ErrorStore: it is in use for too long, or there is no room for a second copy.
        """
        return self._database.compact()

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        if self._opened is not None:
            self._opened.close()

    @property
    def _database(self) -> Database:
        if self._opened is None:
            from . import tables
            from ._sqlite import Database, Schema

            path = self._given if self._given is not None else os.environ.get("AGENTROUTE_RUNS") or "~/.agentroute/runs.db"
            # One entry a released schema. Each makes the schema of now of whatever it finds; a new column needs one more.
            schema = Schema("run history", application_id=0x41475231, migrations=(tables.fit,) * VERSION)  # "AGR1"
            self._opened = Database(path, schema, timeout_s=5.0)
        return self._opened


_APART = ("content", "tool_calls")
"""What of an answer is in the message it becomes, too, and is stored once for both."""

VERSION = 4
"""Of the schema. Raise it with every change of a record class or of `tables.py`."""

_default: RunStore | None = None
_listeners: list[Callable[[RunRecord], object]] = []


def on_save(listener: Callable[[RunRecord], object]) -> Callable[[], None]:
    """Calls `listener` after each `save` of this process, into whichever file, with the run as it was saved; returns what ends that.

    It is called by the thread that saved, which waits for it, so it should only take note. What it raises is dropped.
    """
    _listeners.append(listener)

    def end() -> None:
        with suppress(ValueError):
            _listeners.remove(listener)

    return end


def default_store() -> RunStore | None:
    """The store that records the runs of agents which name none; None until one is set."""
    return _default


def set_default_store(store: RunStore | None) -> None:
    """Makes `store` record every run of this process whose agent has no `store=` of its own; None stops it."""
    global _default
    _default = store


def _next_revision(connection: sqlite3.Connection) -> int:
    connection.execute("UPDATE state SET value = value + 1 WHERE name = 'revision'")
    revision: int = connection.execute("SELECT value FROM state WHERE name = 'revision'").fetchone()[0]
    return revision


def _text_of_message(part: str, value: Any) -> str:
    """Content or tool calls of an answer, as `MessageRecord.of` writes them; empty where they are not the same text there."""
    text = value if isinstance(value, str) and part == "content" else json.dumps(value, ensure_ascii=False) if value and part == "tool_calls" else ""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:  # half characters
        return ""
    return text
