"""The run history for other programs: Parquet files for DuckDB, polars and Spark, or a copy of the SQLite file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ._arrays import batch_of, have_pyarrow, no_collection, schema_of
from .errors import ErrorConfig, ErrorMissingPackage, ErrorStore
from .frames import StoreLike, reading
from .records import RunRecord
from .selection import Filters, Selection, with_hints
from .store import CHUNK
from .tables import TABLES

if TYPE_CHECKING:
    import pyarrow as pa

    from .store import RunStore

__all__ = ["snapshot", "to_parquet"]

ROWS_PER_GROUP = 65_536
BYTES_PER_GROUP = 32 << 20
"""In memory; what is reached first ends a row group, so that an export of any size takes little memory."""

LONG_ROWS = 64
"""Rows put into columns at a time where texts may be long."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@with_hints
def to_parquet(directory: str | os.PathLike[str], store: StoreLike = None, **filters: Unpack[Filters]) -> list[Path]:
    """Writes `runs`, `turns`, `tool_calls`, `messages` and `scores` as Parquet files into a directory, and returns their paths.

    Rows and columns are those of the DataFrames, `tags` as JSON. Types do not depend on what is in a column; times are
    microseconds in UTC. A directory that is missing is made; files of the same names are replaced together, when all are
    written. Runs that begin meanwhile are in none of the files. `filters` are those of `runs`.

    Raises:
        ErrorConfig: a filter is wrong, or the path is a file.
        ErrorMissingPackage: pyarrow is not installed.
        ErrorStore: the history cannot be read, or the files cannot be written.
    """
    if not have_pyarrow():
        raise ErrorMissingPackage("pyarrow", "data", "an export to Parquet")
    if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
        raise ErrorConfig(f"to_parquet takes the path of a directory ('.' is this one), got {directory!r:.80}")
    target, where = Path(os.path.expanduser(directory)), Selection.of(**filters)
    if target.exists() and not target.is_dir():
        raise ErrorConfig(f"Parquet files are written into a directory, and {target} is a file; give another path")
    drafts: dict[Path, Path] = {}
    try:
        target.mkdir(parents=True, exist_ok=True)
        with reading(store) as opened:
            for kind, table in TABLES.items():
                path = target / f"{table.name}.parquet"
                drafts[path] = target / f".{path.name}-{os.getpid()}"
                drafts[path].touch(0o600)  # as private as the history
                newest = _write(opened, kind, where, drafts[path])
                if kind is RunRecord and newest is not None:
                    where = replace(where, until=_EPOCH + timedelta(microseconds=newest + 1))  # of the same runs
        for path, draft in drafts.items():
            os.replace(draft, path)
    except OSError as error:
        raise ErrorStore(f"the runs cannot be written to {target}: {error.strerror or error}; check the path and its permissions") from error
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)
    return list(drafts)


@with_hints
def snapshot(path: str | os.PathLike[str], store: StoreLike = None) -> Path:
    """A copy of the run history as it is now, a SQLite file that any program may open; returns its path.

    Another SQLite library in a process that has the history itself open would drop its locks, and runs would be lost.

    Raises:
        ErrorConfig: the path is none.
        ErrorStore: there is a file of that name, or it cannot be written.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ErrorConfig(f"snapshot takes the path of a file to make, got {path!r:.80}")
    with reading(store) as opened:
        return opened.snapshot(path)


def _write(store: RunStore, kind: type[Any], where: Selection, path: Path) -> int | None:
    """The rows of a record class as a Parquet file. Of runs: when the newest began."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    codec = "zstd" if pa.Codec.is_available("zstd") else "snappy"
    newest: int | None = None
    with pq.ParquetWriter(path, schema_of(kind), compression=codec) as writer, no_collection():
        for group in _groups(store, kind, where):
            writer.write_table(group, row_group_size=ROWS_PER_GROUP)
            if kind is RunRecord:
                newest = group["started_at"].cast(pa.int64())[-1].as_py()  # rows come by start
    return newest


def _groups(store: RunStore, kind: type[Any], where: Selection) -> Iterator[pa.Table]:
    import pyarrow as pa

    schema, step = schema_of(kind), LONG_ROWS if TABLES[kind].longs else CHUNK
    batches: list[pa.RecordBatch] = []
    rows = size = 0
    with closing(store.chunks(kind, where=where)) as chunks:
        for chunk in chunks:
            for part in (chunk[first : first + step] for first in range(0, len(chunk), step)):
                batches.append(batch_of(part, schema))
                rows, size = rows + len(part), size + batches[-1].nbytes
                if rows >= ROWS_PER_GROUP or size >= BYTES_PER_GROUP:
                    yield pa.Table.from_batches(batches, schema)
                    batches, rows, size = [], 0, 0
    if batches:
        yield pa.Table.from_batches(batches, schema)
