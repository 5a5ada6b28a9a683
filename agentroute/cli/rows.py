"""Recorded rows as CSV and JSON lines, written as they are read."""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from ..figures import plural
from .terminal import harmless, json_text

if TYPE_CHECKING:
    from ..selection import Selection
    from ..store import RunStore

__all__ = ["write_rows"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def write_rows(store: RunStore, table: str, where: Selection, kind: str, destination: str) -> None:
    """The rows of a table in a file, or on stdout for `-`; kind is `csv` or `jsonl`. Times are ISO text in UTC.

    A file is replaced when all is written, and only its owner may read it.
    """
    from ..tables import TABLES

    of = next(known for known in TABLES.values() if known.name == table)
    with closing(store.chunks(of.kind, where=where)) as chunks:
        rows = (_told(row, of.times) for chunk in chunks for row in chunk)
        if destination == "-":
            _write(sys.stdout, rows, of.names, kind, for_people=sys.stdout.isatty())
            return
        path = Path(destination)
        if path.is_dir():
            raise click.UsageError(f"{destination} is a directory; {kind} is written to a file")
        if path.exists() and path.samefile(store.path):
            raise click.UsageError(f"{path} is the history itself; write to another file")
        with _replaced(path) as file:
            count = _write(file, rows, of.names, kind, for_people=False)
    click.echo(f"{plural(count, 'row')} of {table} in {destination}.", err=True)


def _told(row: tuple[Any, ...], times: list[int]) -> list[Any]:
    told = list(row)
    for index in times:
        if told[index] is not None:
            told[index] = (_EPOCH + timedelta(microseconds=told[index])).isoformat()
    return told


def _write(file: IO[str], rows: Iterable[list[Any]], names: list[str], kind: str, *, for_people: bool) -> int:
    """Writes the rows, and returns how many they were."""
    to_json = json_text if file is sys.stdout else _json
    table = csv.writer(file, lineterminator="\n" if for_people else "\r\n")
    if kind == "csv":
        table.writerow(names)
    count = 0
    for row in rows:
        count += 1
        if kind == "jsonl":
            file.write(to_json(dict(zip(names, row, strict=True))) + "\n")
        else:
            table.writerow([harmless(cell) if for_people and isinstance(cell, str) else cell for cell in row])
    return count


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


@contextmanager
def _replaced(path: Path) -> Iterator[IO[str]]:
    """A file that takes the place of `path` when all is written."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # 0600
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:
            yield file
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
