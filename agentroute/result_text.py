"""What a model is told a tool returned: text as it is, everything else as JSON."""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any

from .result import Result

__all__ = ["MAX_RESULT", "result_text"]

MAX_RESULT = 100_000
"""Characters of a result that a model is shown; the rest is cut, and it is told so."""


def result_text(value: Any, limit: int = MAX_RESULT) -> str:
    """What a model is told a tool returned: text as it is, everything else as JSON, never a Python repr.

    Models, dataclasses, dates, enums, sets and generators become the JSON pydantic makes of them; DataFrames a list of
    rows; NaN and NaT null; bytes their text, or a note when they are none. The Result of another agent is its output: the
    rest is for people. Fields of dataclasses that begin with `_` are left out. Longer results are cut at `limit`
    characters, with a note.

    Raises:
        TypeError: there is no JSON for the value; the message names the type. Whatever a generator raises.
    """
    writer = _Writer(limit)
    text = writer.text(value)
    if len(text) <= limit:
        return text or "(no output)"
    return text[:limit] + f"\n[cut: {'more than ' if writer.dropped else ''}{len(text) - limit} more characters]"


class _Writer:
    """Writes one result. Containers are gone through first; pydantic then serialises what is in them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.dropped = False  # items that lie beyond the limit were not even read
        self.whole = True  # models are left to pydantic; when it fails, they are taken apart
        self.unknown = ""  # the type that has no JSON form
        self.above: list[int] = []

    def text(self, value: Any) -> str:
        if isinstance(value, Result):
            return self.text(value.output)
        if value is None:
            return ""
        if isinstance(value, str):
            return _characters(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return _bytes_text(value)
        import pydantic_core

        failures = (pydantic_core.PydanticSerializationError, ValueError, TypeError, UnicodeError)
        try:
            plain = self.plain(value)
            try:
                return self.json(plain)
            except failures:
                self.whole = False
            plain = self.plain(plain)
            try:
                return self.json(plain)
            except failures as error:
                problem = f" with a {self.unknown} in it" if self.unknown else " nested too deeply" if "depth" in str(error) else ""
        except RecursionError:
            problem = " nested too deeply"
        except _Circle:
            problem = " that contains itself"
        kind = type(value).__name__
        raise TypeError(f"the tool returned a {kind}{problem if self.unknown != kind else ''}, and there is no JSON form of that")

    def json(self, plain: Any) -> str:
        import pydantic_core

        encoded = pydantic_core.to_json(plain, fallback=self.other, bytes_mode="base64", inf_nan_mode="null")
        return encoded.decode()

    def plain(self, value: Any) -> Any:
        """The value with its containers as lists and dictionaries, and with null for every kind of missing number."""
        kind = type(value)
        if value is None or kind is int or kind is bool or (kind is str and value.isascii()):
            return value
        if isinstance(value, str):
            return _characters(value) if kind is str else value  # an Enum or the like is pydantic's to write
        if kind is float or isinstance(value, float):
            return value if math.isfinite(value) else None
        if isinstance(value, dict | Mapping):
            return self.inside(value, lambda: {_key(key): self.plain(item) for key, item in value.items()})
        if isinstance(value, list | tuple | set | frozenset):
            return self.inside(value, lambda: [self.plain(item) for item in self.first(iter(value))])
        if isinstance(value, Decimal):
            return value if value.is_finite() else None
        if isinstance(value, bytes | bytearray | memoryview):
            return _bytes_text(value)
        if kind.__name__ in ("NAType", "NaTType"):  # pandas' words for "missing"
            return None
        if isinstance(value, Iterator) and not isinstance(value, io.IOBase):
            return [self.plain(item) for item in self.first(value)]
        if isinstance(value, type):
            return value
        if isinstance(value, Result):
            return self.inside(value, lambda: self.plain(value.output))
        if not self.whole and callable(dump := getattr(value, "model_dump", None)):
            return self.inside(value, lambda: self.plain(dump()))
        if dataclasses.is_dataclass(value):
            fields = [field.name for field in dataclasses.fields(value)]
            shown = {name: getattr(value, name) for name in fields if not name.startswith("_") and hasattr(value, name)}
            if not self.whole or len(shown) < len(fields) or not hasattr(kind, "__pydantic_serializer__"):
                return self.inside(value, lambda: self.plain(shown))
        return value

    def inside(self, value: Any, make: Any) -> Any:
        if id(value) in self.above:
            raise _Circle
        self.above.append(id(value))
        try:
            return make()
        finally:
            self.above.pop()

    def first(self, items: Iterator[Any]) -> list[Any]:
        """Items of what may be long, or have no end: as many as the limit could hold, at two characters each."""
        kept = list(itertools.islice(items, self.limit // 2 + 1))
        self.dropped |= len(kept) > self.limit // 2
        return kept

    def other(self, value: Any) -> Any:
        """A stand-in for what pydantic does not know: objects of libraries we do not import."""
        if not isinstance(value, type):
            if hasattr(value, "reset_index") and hasattr(value, "to_json"):  # a DataFrame or Series
                return self.plain(self.rows(value))
            for method in ("to_dicts", "to_pylist", "tolist", "to_list", "to_dict", "isoformat"):  # tables, arrays, scalars
                if callable(function := getattr(value, method, None)):
                    return self.plain(function())
            if isinstance(value, Collection):
                return self.plain(list(value))
            if type(value).__name__ in ("Period", "Interval"):  # pandas' labels, whose text is made for people
                return str(value)
            if (fields := getattr(value, "__attrs_attrs__", None)) is not None:
                return self.plain({field.name: getattr(value, field.name) for field in fields})
        self.unknown = type(value).__name__
        raise TypeError(self.unknown)

    def rows(self, table: Any) -> list[Any]:
        """A pandas table as rows. Labels in its index are part of the data, but for the plain 0, 1, 2, …"""
        self.dropped |= len(table) > self.limit // 2 + 1
        table = table.head(self.limit // 2 + 1)
        index = table.index
        plain = type(index).__name__ == "RangeIndex" and index.name is None and index.start == 0
        is_series = not hasattr(table, "columns")
        if is_series and plain:
            return list(table)
        if is_series:
            table = table.to_frame("value" if table.name is None else table.name)
        names = [_label(column) for column in table.columns]
        if not plain:
            levels = [("index" if index.nlevels == 1 else f"level_{n}") if name is None else _label(name) for n, name in enumerate(index.names)]
            labels = [label if index.nlevels > 1 else (label,) for label in index.tolist()]
            names = levels + names
        else:
            labels = [()] * len(table)
        names = _distinct(names)
        return [dict(zip(names, (*label, *row), strict=True)) for label, row in zip(labels, table.itertuples(index=False, name=None), strict=True)]


class _Circle(Exception):
    """A value that contains itself."""


def _label(name: Any) -> str:
    """A column's name; those of several levels are joined."""
    return ".".join(str(part) for part in name if part != "") if isinstance(name, tuple) else str(name)


def _distinct(names: list[str]) -> list[str]:
    """`a`, `a` becomes `a`, `a_2`: a row of JSON holds a name once."""
    seen: dict[str, int] = {}
    for position, name in enumerate(names):
        seen[name] = seen.get(name, 0) + 1
        names[position] = name if seen[name] == 1 else f"{name}_{seen[name]}"
    return names


def _key(key: Any) -> Any:
    """A dictionary's key as pydantic can write it, where its own way would be a Python repr."""
    if key is None:
        return "null"
    if isinstance(key, float) and not math.isfinite(key):
        return "null"
    if isinstance(key, bytes):
        return _bytes_text(key)
    return _characters(key) if type(key) is str else key


def _characters(text: str) -> str:
    """The text with two halves of a character made one, and a half alone replaced; JSON as UTF-8 can hold no halves."""
    text = str.__str__(text)  # of a class of its own, as an Enum's
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _bytes_text(value: bytes | bytearray | memoryview) -> str:
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        return f"[{len(bytes(value))} bytes of binary data]"
