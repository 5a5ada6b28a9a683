"""Memory in a SQLite file."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import TypeVar

from .._sqlite import Database, Schema
from .._threads import run_in_thread
from ..errors import ErrorConfig, ErrorStore
from ..message import Message
from .base import check_fact, check_key, check_limit, check_messages, check_session, check_text, opened
from .recall import Fact, Wanted, query_words, ranked, words

__all__ = ["MemorySQLite"]

T = TypeVar("T")

MAX_CANDIDATES = 500
_MAX_ROWS = 2**63 - 1


class MemorySQLite:
    """Kept in a file, which is made at first use for its owner only. Safe from any thread, event loop and process.

    A write that returned survives `kill -9`; one that was cancelled is whole or absent. `session(session_id)` is the
    same memory with another conversation: facts are shared, messages are not. Files of agentroute 1.1.0 are
    converted when first opened. After `close()` the next use opens the file again. Pickled, it is the same file
    elsewhere. `:memory:` is a file in RAM.

    Raises:
        ErrorStore: from any method, when the file cannot be used; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._database = Database(path, _SCHEMA)
        self._session_id: str | None = None

    def __repr__(self) -> str:
        session = f", session_id={self._session_id!r}" if self._session_id else ""
        return f"MemorySQLite({str(self.path)!r}{session})"

    @property
    def path(self) -> Path:
        return self._database.path

    def session(self, session_id: str | None) -> MemorySQLite:
        """This memory, seen from one conversation; None is the conversation without a name."""
        check_session(session_id)
        view = copy(self)
        view._session_id = session_id
        return view

    async def get_messages(self, limit: int | None = None) -> list[Message]:
        if limit is not None:
            check_limit("get_messages()", limit)
            if limit <= 0:
                return []
        # Any limit sorts from the end of an index, so the length of the conversation does not matter.
        sql = "SELECT message FROM messages WHERE session_id = ? ORDER BY id DESC LIMIT ?"
        count = _MAX_ROWS if limit is None else min(limit, _MAX_ROWS)
        rows = await self._read(lambda connection: connection.execute(sql, (self._session_id or "", count)).fetchall())
        return opened([self._message(text) for (text,) in reversed(rows)])

    async def add_messages(self, messages: list[Message]) -> None:
        check_messages(messages)
        rows = [(self._session_id or "", _message_json(message)) for message in messages]
        if rows:
            sql = "INSERT INTO messages (session_id, message, created_at) VALUES (?, ?, strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))"
            await self._write(lambda connection: connection.executemany(sql, rows))

    async def clear_messages(self) -> None:
        sql = "DELETE FROM messages WHERE session_id = ?"
        await self._write(lambda connection: connection.execute(sql, (self._session_id or "",)))

    async def remember(self, key: str, value: str) -> None:
        check_fact(key, value)
        await self._write(lambda connection: _remember(connection, key, value))

    async def recall(self, query: str, limit: int = 10) -> list[str]:
        check_text("recall()", "query", query)
        check_limit("recall()", limit)
        if limit <= 0:
            return []
        return await self._read(lambda connection: _recall(connection, query, min(limit, _MAX_ROWS)))

    async def forget(self, key: str) -> None:
        check_key("forget()", key)
        await self._write(lambda connection: _forget(connection, key))

    async def close(self) -> None:
        """Closes the file for all sessions of this memory."""
        await run_in_thread(self._database.close, name="agentroute-memory")

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def read() -> T:
            with self._database.read() as connection:
                return work(connection)

        return await run_in_thread(read, name="agentroute-memory")

    async def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        def write() -> None:
            with self._database.write() as connection:
                work(connection)

        await run_in_thread(write, name="agentroute-memory")

    def _message(self, text: str) -> Message:
        try:
            return Message.from_dict(json.loads(text))
        except (ValueError, AttributeError) as error:
            advice = "restore it from a backup"
            raise ErrorStore(f"memory {self.path} holds a message that cannot be read ({error}); {advice}") from error


def _message_json(message: Message) -> str:
    try:
        text = json.dumps(message.to_dict(), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ErrorConfig(f"a message with role {message.role!r} cannot be kept: {error}; use only what JSON knows") from error
    try:
        text.encode()
    except UnicodeEncodeError:  # half characters come back as they are from escapes
        return json.dumps(message.to_dict())
    return text


# ---- facts ------------------------------------------------------------------------------------------------------


def has_fts5(connection: sqlite3.Connection) -> bool:
    """Whether this Python's SQLite can search full text. Without it, recall looks at every fact: the same answers, slower."""
    return connection.execute("SELECT 1 FROM pragma_module_list WHERE name = 'fts5'").fetchone() is not None


def _is_indexed(connection: sqlite3.Connection) -> bool:
    index = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'facts_index'").fetchone()
    return index is not None and has_fts5(connection)


def _remember(connection: sqlite3.Connection, key: str, value: str) -> None:
    sql = "INSERT INTO facts (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value RETURNING id"
    (identifier,) = connection.execute(sql, (key, value)).fetchone()
    if _is_indexed(connection):
        connection.execute("DELETE FROM facts_index WHERE rowid = ?", (identifier,))
        _index(connection, identifier, key, value)


def _index(connection: sqlite3.Connection, identifier: int, key: str, value: str) -> None:
    text = " ".join(words(f"{key} {value}"))
    connection.execute("INSERT INTO facts_index (rowid, words) VALUES (?, ?)", (identifier, text))


def _forget(connection: sqlite3.Connection, key: str) -> None:
    if _is_indexed(connection):
        connection.execute("DELETE FROM facts_index WHERE rowid = (SELECT id FROM facts WHERE key = ?)", (key,))
    connection.execute("DELETE FROM facts WHERE key = ?", (key,))


def _recall(connection: sqlite3.Connection, query: str, limit: int) -> list[str]:
    if not query.strip():
        return [value for (value,) in connection.execute("SELECT value FROM facts ORDER BY id LIMIT ?", (limit,))]
    if (wanted := query_words(query)) and _is_indexed(connection):
        # Words hold only letters, digits and marks, and are quoted: nothing in them is syntax.
        looked_for = [Wanted.of(word) for word in wanted]
        beginnings = [f'"{form}"*' for one in looked_for for form in one.beginnings]
        match = " OR ".join(dict.fromkeys([*beginnings, *(f'"{form}"' for one in looked_for for form in one.whole)]))
        sql = (
            "SELECT key, value FROM facts JOIN"
            " (SELECT rowid FROM facts_index WHERE facts_index MATCH ? ORDER BY bm25(facts_index) LIMIT ?) AS found"
            " ON found.rowid = id ORDER BY id"
        )
        if candidates := connection.execute(sql, (match, max(limit, MAX_CANDIDATES))).fetchall():
            (total,) = connection.execute("SELECT count(*) FROM facts").fetchone()
            return ranked(query, [Fact.of(key, value) for key, value in candidates], limit, total=total)
    everything = connection.execute("SELECT key, value FROM facts ORDER BY id")
    return ranked(query, [Fact.of(key, value) for key, value in everything], limit)


# ---- schema -----------------------------------------------------------------------------------------------------


def _create_first(connection: sqlite3.Connection) -> None:
    """The tables of agentroute 1.1.0."""
    connection.execute(
        "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, role TEXT NOT NULL, content TEXT, tool_calls TEXT,"
        " tool_call_id TEXT, name TEXT)"
    )
    connection.execute("CREATE TABLE facts (key TEXT PRIMARY KEY, value TEXT NOT NULL)")


def _add_sessions(connection: sqlite3.Connection) -> None:
    """Conversations apart, messages whole as JSON, facts with a lasting id and an index of folded words."""
    connection.execute("ALTER TABLE messages RENAME TO old_messages")
    connection.execute("ALTER TABLE facts RENAME TO old_facts")
    connection.execute(
        "CREATE TABLE messages (id INTEGER PRIMARY KEY AUTOINCREMENT, session_id TEXT NOT NULL, message TEXT NOT NULL) STRICT"
    )
    connection.execute("CREATE INDEX messages_by_session ON messages (session_id, id)")
    connection.execute("CREATE TABLE facts (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, value TEXT NOT NULL) STRICT")
    if has_fts5(connection):
        tokenize = "unicode61 remove_diacritics 0 categories 'L* M* N*'"
        connection.execute(f'CREATE VIRTUAL TABLE facts_index USING fts5(words, tokenize="{tokenize}")')
    old = connection.execute("SELECT role, content, tool_calls, tool_call_id, name FROM old_messages ORDER BY id").fetchall()
    rows = [(_message_json(_first_message(*row)),) for row in old]
    connection.executemany("INSERT INTO messages (session_id, message) VALUES ('', ?)", rows)
    facts = "SELECT CAST(key AS TEXT), CAST(value AS TEXT) FROM old_facts WHERE key IS NOT NULL ORDER BY rowid"
    for identifier, (key, value) in enumerate(connection.execute(facts).fetchall(), 1):
        connection.execute("INSERT INTO facts (id, key, value) VALUES (?, ?, ?)", (identifier, key, value))
        if has_fts5(connection):
            _index(connection, identifier, key, value)
    connection.execute("DROP TABLE old_messages")
    connection.execute("DROP TABLE old_facts")
    if has_fts5(connection):
        connection.execute("DROP TABLE IF EXISTS facts_fts")  # of 1.1.0


def _add_times(connection: sqlite3.Connection) -> None:
    """When each message was added, UTC as ISO 8601; NULL for those from before."""
    connection.execute("ALTER TABLE messages ADD COLUMN created_at TEXT")


def _first_message(role: str, content: str | None, tool_calls: str | None, tool_call_id: str | None, name: str | None) -> Message:
    try:
        calls = json.loads(tool_calls) if tool_calls else None
    except ValueError:
        calls = None
    return Message(role, content, calls if isinstance(calls, list) else None, tool_call_id, name)


def _is_first(connection: sqlite3.Connection) -> int | None:
    """1 when a file without application id has the tables of agentroute 1.1.0."""

    def names(table: str) -> set[str]:
        return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}

    messages = {"id", "role", "content", "tool_calls", "tool_call_id", "name"}
    return 1 if (names("messages"), names("facts")) == (messages, {"key", "value"}) else None


# One entry a released schema, oldest first; never change or remove one. The id is "AGM1".
_SCHEMA = Schema("memory", application_id=0x41474D31, migrations=(_create_first, _add_sessions, _add_times), adopt=_is_first)
