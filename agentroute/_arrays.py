"""Rows of a record class as typed arrays: the one place that says which dtype a column has.

With pyarrow the rows are gathered in Arrow memory, without it in numpy's; the dtypes of the frame are the same.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any

from .errors import ErrorMissingPackage
from .records import columns, kind_of

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Look", "batch_of", "frame_of_rows", "frame_of_table", "have_pyarrow", "no_collection", "pandas", "schema_of", "series", "table_of"]

Rows = Sequence[tuple[Any, ...]]

_EXACT_IN_A_FLOAT = 2.0**53


@dataclass(frozen=True)
class Look:
    """How values are shown: the time zone of times, and whose dtypes (None: numpy's and pandas' own; `pyarrow`)."""

    tz: str | tzinfo = "UTC"
    dtype_backend: str | None = None


def pandas() -> Any:
    try:
        import pandas
    except ImportError as error:
        raise ErrorMissingPackage("pandas", "notebook", "a DataFrame of recorded runs") from error
    return pandas


def have_pyarrow() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


# ---- rows to Arrow ----------------------------------------------------------------------------------------------


def schema_of(kind: type[Any], names: Sequence[str] | None = None) -> pa.Schema:
    """The Arrow types of a record class's columns; times in microseconds, UTC. Texts have 64-bit offsets: 32 bits end at 2 GB."""
    import pyarrow as pa

    types = {"str": pa.large_string(), "int": pa.int64(), "float": pa.float64(), "datetime": pa.timestamp("us", tz="UTC")}
    by_name = {column.name: pa.field(column.name, types[kind_of(column)[0]], nullable=kind_of(column)[1]) for column in columns(kind)}
    return pa.schema([by_name[name] for name in (by_name if names is None else names)])


def batch_of(rows: Rows, schema: pa.Schema) -> pa.RecordBatch:
    """Rows as stored, columns as in `schema`."""
    import pyarrow as pa

    return pa.RecordBatch.from_arrays([_arrow(values, type_) for values, type_ in zip(zip(*rows, strict=True), schema.types, strict=True)], schema=schema)


def table_of(chunks: Iterable[Rows], schema: pa.Schema) -> pa.Table:
    """All rows, in one piece a column."""
    import pyarrow as pa

    parts: list[list[pa.Array]] = [[] for _ in schema]
    types = schema.types
    with no_collection():
        for rows in chunks:
            for part, values, type_ in zip(parts, zip(*rows, strict=True), types, strict=True):
                part.append(_arrow(values, type_))
    return pa.table([pa.chunked_array(part, type_) for part, type_ in zip(parts, types, strict=True)], schema=schema).combine_chunks()


def _arrow(values: Sequence[Any], type_: pa.DataType) -> pa.Array:
    import pyarrow as pa

    # Read as numbers, times take half the time.
    return pa.array(values, pa.int64()).view(type_) if pa.types.is_timestamp(type_) else pa.array(values, type_)


@contextmanager
def no_collection() -> Iterator[None]:
    """Without Python's cycle collector: looking through a million short-lived rows costs it a third of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# ---- to pandas --------------------------------------------------------------------------------------------------


def frame_of_table(table: pa.Table, kind: type[Any], look: Look) -> pd.DataFrame:
    types = {column.name: kind_of(column) for column in columns(kind)}
    arrays = {name: _of_arrow(table.column(name), *types[name], look) for name in table.column_names}
    return _frame(arrays, table.num_rows)


def frame_of_rows(chunks: Iterable[Rows], kind: type[Any], names: Sequence[str], look: Look) -> pd.DataFrame:
    """Without pyarrow. Chunk by chunk, because all rows as Python objects would cost several times the memory."""
    import numpy as np

    types = {column.name: kind_of(column) for column in columns(kind)}
    parts: list[list[Any]] = [[] for _ in names]
    with no_collection():
        for rows in chunks:
            for name, part, values in zip(names, parts, zip(*rows, strict=True), strict=True):
                part.append(_numpy(values, types[name][0]))
    joined = [_joined(part, types[name][0], np) for name, part in zip(names, parts, strict=True)]
    arrays = {name: _of_numpy(*pair, *types[name], look) for name, pair in zip(names, joined, strict=True)}
    return _frame(arrays, len(joined[0][0]) if joined else 0)


def series(values: Sequence[Any], name: str, look: Look) -> Any:
    """Values of a type (`str` or `float`, None for missing) as an array of the dtype that a column of it has."""
    if have_pyarrow():
        import pyarrow as pa

        return _of_arrow(pa.chunked_array([pa.array(values, pa.large_string() if name == "str" else pa.float64())]), name, True, look)
    return _of_numpy(*_numpy(values, name), name, True, look)


def _frame(arrays: dict[str, Any], length: int) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(arrays, index=pd.RangeIndex(length), copy=False)


def _of_arrow(values: pa.ChunkedArray, name: str, may_be_none: bool, look: Look) -> Any:
    import numpy as np
    import pyarrow as pa

    pd = pandas()
    if look.dtype_backend == "pyarrow":
        return pd.arrays.ArrowExtensionArray(values.cast(pa.timestamp("us", tz=_for_arrow(look.tz))) if name == "datetime" else values)
    if name == "str":
        return pd.StringDtype(na_value=np.nan).__from_arrow__(values) if _has_str(pd) else values.to_numpy()
    if name == "datetime":
        return _times(np.array(values.cast(pa.timestamp("us")).to_numpy()), look)
    if name == "int" and may_be_none:
        return pd.Int64Dtype().__from_arrow__(values)
    return np.array(values.to_numpy())  # a copy: what Arrow holds cannot be written to


def _for_arrow(zone: str | tzinfo) -> str | tzinfo:
    """A zone without a name has only the offset of now."""
    if isinstance(zone, str | timezone):
        return zone
    return timezone(datetime.now(zone).utcoffset() or timedelta(0))


def _numpy(values: Sequence[Any], name: str) -> tuple[Any, Any]:
    """Values, and which are missing (for text and floats they say so themselves)."""
    import numpy as np

    if name == "str":
        return np.array([*values, None], object)[:-1], None
    if name == "float":
        return np.array(values, "float64"), None  # None becomes NaN
    try:
        return np.array(values, "int64"), np.zeros(len(values), bool)
    except TypeError:  # there is a None
        floats = np.array(values, "float64")
    missing = np.isnan(floats)
    if (np.abs(floats[~missing]) < _EXACT_IN_A_FLOAT).all():
        floats[missing] = 0
        return floats.astype("int64"), missing
    return np.array([0 if value is None else value for value in values], "int64"), missing


def _joined(parts: list[tuple[Any, Any]], name: str, np: Any) -> tuple[Any, Any]:
    parts = parts or [_numpy((), name)]
    masks = [mask for _, mask in parts if mask is not None]
    return np.concatenate([values for values, _ in parts]), np.concatenate(masks) if masks else None


def _of_numpy(values: Any, missing: Any, name: str, may_be_none: bool, look: Look) -> Any:
    import numpy as np

    pd = pandas()
    if name == "str":
        return pd.array(values, dtype="str") if _has_str(pd) else values
    if name == "datetime":
        times = values.view("datetime64[us]")
        times[missing] = np.datetime64("NaT")
        return _times(times, look)
    return pd.arrays.IntegerArray(values, missing) if name == "int" and may_be_none else values


def _times(utc: Any, look: Look) -> Any:
    return pandas().DatetimeIndex(utc).tz_localize("UTC").tz_convert(look.tz).array


def _has_str(pd: Any) -> bool:
    """Before version 3 pandas keeps texts as objects."""
    return int(pd.__version__.split(".")[0]) >= 3
