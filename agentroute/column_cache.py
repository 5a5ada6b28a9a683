"""The run history as columns: a copy of its rows in Arrow files beside it, so that they need not be gathered row by row again.

`runs.db.columns/turns.arrow` holds the turns as of a revision of the store. A read takes them from there and asks SQLite only
for the runs that were touched since. A copy counts for one file, one epoch (nothing was deleted since) and one set of columns;
whatever is wrong with it, it is as if it were not there. Only the owner can read it, as with the history itself.

The history holds a random number of its newest copy, which a file from a backup does not know: only a backup that is younger
than the copy has it, and goes on from where that was made.

A file is a line of JSON, then an Arrow IPC file. The line says what the copy is of, and holds a checksum: a broken disk may
cost time, and no figure.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import time
import zlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._arrays import schema_of, table_of
from .errors import ErrorStore
from .records import columns
from .tables import RUN_START, TABLES

if TYPE_CHECKING:
    import pyarrow as pa

    from .selection import Selection
    from .store import RunStore

__all__ = ["arrow_table", "drop_cache"]

MIN_ROWS = 20_000
"""Fewer are read in less than a tenth of a second."""
MAX_BYTES = 1 << 30
"""In memory. Columns with more text than that are not copied: it is the texts that take time then, not the rows."""
STALE_SHARE = 0.05
"""Of the rows: with more of them new, the copy is written anew. Reading one from SQLite costs as much as writing ten or more."""
ROWS_PER_BATCH = 65_536
MAX_PIECES = 200
"""Slices of a table cost nothing to put together, many of them cost more than new memory."""
LEFT_OVER_S = 3600.0
"""A file still being written after that long never will be."""

MAX_FILE_BYTES = 1 << 28
"""Of the history: where it is larger, texts are not gathered for a read of other columns."""

_without: set[str] = set()
"""Copies that could not be written, or were too large."""
_FORMAT = 2
_ALIGNMENT = 64
_counter = itertools.count()


def arrow_table(store: RunStore, kind: type[Any], names: Sequence[str], where: Selection | None = None) -> pa.Table:
    """Rows of a record class with some of its columns, as `RunStore.chunks` orders them; from the copy where there is one."""
    directory = _directory(store.path)
    if (where is not None and not where.all) or not store.path.is_file():
        return table_of(store.chunks(kind, where=where, columns=names), schema_of(kind, names))
    stamp = _Stamp.now(store, kind)
    path = directory / f"{TABLES[kind].name}.arrow"
    table = _with_news(store, kind, names, path, stamp)
    if table is not None and store.watermark()[0] == stamp.epoch:
        return table
    if len(names) < len(columns(kind)) and not _worth_a_copy(store, kind, path):  # which has all columns
        return table_of(store.chunks(kind, columns=names), schema_of(kind, names))
    table = table_of(store.chunks(kind, columns=[*_all(kind), RUN_START]), _schema(kind))
    _write(store, kind, path, stamp, table)
    return table.select(names)


def drop_cache(path: str | os.PathLike[str]) -> None:
    """Deletes the copies of a run history; call it after rows were deleted from the file `path`, once that is committed.

    Never raises: what cannot be deleted counts for nothing all the same.
    """
    directory = _directory(Path(path))
    try:
        for file in [*directory.glob("*.arrow"), *directory.glob("*.arrow-*")]:
            file.unlink(missing_ok=True)
        directory.rmdir()
    except OSError:
        pass


@dataclass(frozen=True)
class _Stamp:
    """What a copy is of."""

    file: list[int]
    epoch: int
    columns: list[str]
    copy: int | None
    """The random number of the copy."""
    revision: int

    @classmethod
    def now(cls, store: RunStore, kind: type[Any]) -> _Stamp:
        status = os.stat(store.path)
        epoch, revision = store.watermark()
        return cls([status.st_dev, status.st_ino], epoch, [str(field) for field in _schema(kind)], store.number(_number_of(kind)), revision)

    def header(self, body: Any) -> bytes:
        parts = {"agentroute": _FORMAT, **vars(self), "size": len(body), "checksum": zlib.crc32(body)}
        text = json.dumps(parts).encode()
        return text.ljust(-(-(len(text) + 1) // _ALIGNMENT) * _ALIGNMENT - 1) + b"\n"

    def revision_of(self, path: Path) -> tuple[int, pa.Buffer] | None:
        """The revision of a copy of the same, and its Arrow file; None when there is none that counts."""
        import pyarrow as pa

        try:
            with pa.OSFile(str(path)) as file:
                content = file.read_buffer()
            end = bytes(memoryview(content)[: 1 << 16]).index(b"\n") + 1
            header = json.loads(bytes(memoryview(content)[:end]))
            body = content.slice(end)
            other = _Stamp(header["file"], header["epoch"], header["columns"], header["copy"], header["revision"])
            if other.copy is None or other.revision > self.revision or other != replace(self, revision=other.revision):
                return None
            sound = (header["agentroute"], header["size"], header["checksum"]) == (_FORMAT, body.size, zlib.crc32(body))
            return (other.revision, body) if sound else None
        except (OSError, ValueError, TypeError, LookupError):  # an ArrowInvalid is a ValueError
            return None


def _with_news(store: RunStore, kind: type[Any], names: Sequence[str], path: Path, stamp: _Stamp) -> pa.Table | None:
    """The copy, and what was touched since; None where there is no copy, or so much is new that it is to be made anew."""
    found = stamp.revision_of(path)
    if found is None:
        return None
    revision, body = found
    wanted = list(dict.fromkeys([*names, *TABLES[kind].keys, RUN_START])) if revision < stamp.revision else list(names)
    copy = _read(body, wanted, kind)
    if copy is None or revision == stamp.revision:
        return copy
    news = table_of(store.chunks(kind, columns=wanted, after=revision), _schema(kind, wanted))
    merged = _merged(copy, news, TABLES[kind].keys)
    stale = news.num_rows > STALE_SHARE * merged.num_rows
    if stale and len(wanted) <= len(_all(kind)) and str(path) not in _without:
        return None
    if stale and len(wanted) == len(_all(kind)) + 1:
        merged = merged.combine_chunks()
        _write(store, kind, path, stamp, merged.select([*_all(kind), RUN_START]))
    return merged.select(names)


def _read(body: pa.Buffer, names: Sequence[str], kind: type[Any]) -> pa.Table | None:
    import pyarrow as pa

    schema = _schema(kind)
    options = pa.ipc.IpcReadOptions(included_fields=sorted(schema.get_field_index(name) for name in names))
    try:
        table = pa.ipc.open_file(pa.BufferReader(body), options=options).read_all().select(names)
    except (OSError, ValueError, LookupError):
        return None
    return table if table.schema.equals(_schema(kind, names)) else None


def _merged(copy: pa.Table, news: pa.Table, keys: Sequence[str]) -> pa.Table:
    """Both, without the rows of the copy whose run has news, in the order of the store."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    if not news.num_rows:
        return copy
    both = pa.concat_tables([copy, news])
    kept = np.ones(both.num_rows, bool)
    kept[: copy.num_rows] = pc.invert(pc.is_in(copy["run_id"], value_set=pc.unique(news["run_id"]))).to_numpy()
    order = both[RUN_START].to_numpy().argsort(kind="stable")
    order = order[kept[order]]
    # Rows that begin together are in order as far as they come from one of the two.
    together = copy[RUN_START].filter(pa.array(kept[: copy.num_rows]))
    if pc.any(pc.is_in(together, value_set=pc.unique(news[RUN_START]))).as_py():
        return both.take(order).sort_by([(name, "ascending") for name in (RUN_START, *keys)])
    pieces = np.split(order, np.flatnonzero(np.diff(order) != 1) + 1)
    if len(pieces) > MAX_PIECES:
        return both.take(order)
    return pa.concat_tables([both.slice(piece[0], len(piece)) for piece in pieces])


def _worth_a_copy(store: RunStore, kind: type[Any], path: Path) -> bool:
    """Whether a read of some columns should gather all, so that the next ones are fast."""
    if str(path) in _without or (TABLES[kind].longs and store.path.stat().st_size > MAX_FILE_BYTES):
        return False
    rows = 0
    with closing(store.chunks(kind, columns=TABLES[kind].keys[:1])) as chunks:
        for chunk in chunks:
            rows += len(chunk)
            if rows >= MIN_ROWS:
                return True
    return False


def _number_of(kind: type[Any]) -> str:
    return f"copy of {TABLES[kind].name}"


def _write(store: RunStore, kind: type[Any], path: Path, stamp: _Stamp, table: pa.Table) -> None:
    """Replaces the copy, or leaves it where that is not possible or not worth it."""
    import pyarrow as pa

    if table.num_rows < MIN_ROWS:
        return
    _without.add(str(path))
    if table.nbytes > MAX_BYTES:
        return
    number = secrets.randbits(62)
    sink = pa.BufferOutputStream()
    codec = "zstd" if pa.Codec.is_available("zstd") else None
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer:
        writer.write_table(table, max_chunksize=ROWS_PER_BATCH)
    body = sink.getvalue()
    draft = path.with_name(f"{path.name}-{os.getpid()}-{next(_counter)}")
    try:
        path.parent.mkdir(0o700, exist_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o600)
        try:
            with open(handle, "wb") as file:
                file.write(replace(stamp, copy=number).header(body))
                file.write(body)
            with store.transaction() as connection:  # others who write a copy come before or after
                sql = "INSERT INTO state (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
                connection.execute(sql, (_number_of(kind), number))
                os.replace(draft, path)
            _without.discard(str(path))
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        # Rows that were deleted meanwhile may be in it. Whoever deletes commits first and drops the copies then, so one of
        # the two sees the other.
        if store.watermark()[0] != stamp.epoch:
            path.unlink(missing_ok=True)
        for left_over in path.parent.glob("*.arrow-*"):
            if time.time() - left_over.stat().st_mtime > LEFT_OVER_S:
                left_over.unlink(missing_ok=True)
    except (OSError, ErrorStore):  # read-only, full, busy, dropped under us: then without
        pass


def _directory(history: Path) -> Path:
    return history.with_name(f"{history.name}.columns")


def _all(kind: type[Any]) -> list[str]:
    return [column.name for column in columns(kind)]


def _schema(kind: type[Any], names: Sequence[str] | None = None) -> pa.Schema:
    """As `schema_of`, with the start of the run, which orders the rows and is no column of most records."""
    import pyarrow as pa

    fields = {field.name: field for field in [*schema_of(kind), pa.field(RUN_START, pa.int64(), nullable=False)]}
    return pa.schema([fields[name] for name in (fields if names is None else names)])


