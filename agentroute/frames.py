"""Recorded runs as pandas DataFrames. Columns and dtypes are read from `records.py`; pandas is imported when asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Any

from .errors import ErrorMissingPackage
from .records import MessageRecord, RunRecord, ToolCallRecord, TurnRecord, columns, kind_of
from .store import RunStore, default_store, encoded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame", "messages", "runs", "tool_calls", "turns"]

StoreLike = RunStore | str | os.PathLike[str] | None
"""A store, its file, or None: the store set for this process, else the default file."""


def runs(store: StoreLike = None, *, run_id: str | Iterable[str] | None = None) -> pd.DataFrame:
    """One row a run, oldest first; columns as in `RunRecord`.

    All four frames keep their columns and dtypes when there are no rows, also when the file does not exist (it is not
    made). Times are `datetime64[us, UTC]`, counts that may be unknown `Int64`, costs and seconds `float64` with NaN for
    unknown, texts `str` (pandas 2: `object`). `run_id` is one run's id or several of them.

    Raises:
        ErrorMissingPackage: pandas is not installed.
        ErrorStore: the file is not a run history, or cannot be read.
    """
    return _stored(RunRecord, store, run_id)


def turns(store: StoreLike = None, *, run_id: str | Iterable[str] | None = None) -> pd.DataFrame:
    """One row a model call, by start of the run, then `turn_index`; columns as in `TurnRecord`. See `runs`."""
    return _stored(TurnRecord, store, run_id)


def tool_calls(store: StoreLike = None, *, run_id: str | Iterable[str] | None = None) -> pd.DataFrame:
    """One row a tool call, by start of the run, then `turn_index`, `call_index`; columns as in `ToolCallRecord`. See `runs`."""
    return _stored(ToolCallRecord, store, run_id)


def messages(store: StoreLike = None, *, run_id: str | Iterable[str] | None = None) -> pd.DataFrame:
    """One row a message, by start of the run, then `message_index`; columns as in `MessageRecord`. See `runs`."""
    return _stored(MessageRecord, store, run_id)


def frame(kind: type[Any], records: Iterable[Any]) -> pd.DataFrame:
    """Records of one class as a frame, in the order given: `frame(TurnRecord, result.record.turns)`. Dtypes as in `runs`."""
    return _assembled(kind, (encoded(record) for record in records))


def _stored(kind: type[Any], store: StoreLike, run_id: str | Iterable[str] | None) -> pd.DataFrame:
    if store is None:
        store = default_store()
    if isinstance(store, RunStore):
        return _assembled(kind, store.select(kind, run_id=run_id))
    with closing(RunStore(store)) as opened:
        return _assembled(kind, opened.select(kind, run_id=run_id))


def _assembled(kind: type[Any], rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise ErrorMissingPackage("pandas", "notebook", "a DataFrame of recorded runs") from error
    names = [column.name for column in columns(kind)]
    parts: list[list[Any]] = [[] for _ in names]
    remaining = iter(rows)
    while chunk := list(islice(remaining, 2048)):  # in chunks: all rows at once would cost several times the memory
        for part, values in zip(parts, zip(*chunk, strict=True), strict=True):
            part.extend(values)
    arrays = {name: _array(part, *kind_of(column)) for name, part, column in zip(names, parts, columns(kind), strict=True)}
    return pd.DataFrame(arrays, copy=False)


def _array(values: Sequence[Any], name: str, may_be_none: bool) -> Any:
    """Stored values as an array of the column's dtype; the one place that says which dtype that is."""
    import numpy as np
    import pandas as pd

    if name == "str":
        return pd.array(values, dtype="str") if int(pd.__version__.split(".")[0]) >= 3 else np.array([*values, None], object)[:-1]
    if name == "float":
        return np.array(values, "float64")  # None becomes NaN
    missing = np.array([value is None for value in values], bool) if may_be_none else np.zeros(len(values), bool)
    integers = np.array([0 if value is None else value for value in values] if missing.any() else values, "int64")
    if name == "datetime":
        times = integers.view("datetime64[us]")
        times[missing] = np.datetime64("NaT")
        return pd.DatetimeIndex(times).tz_localize("UTC").array
    return pd.arrays.IntegerArray(integers, missing) if may_be_none else integers
