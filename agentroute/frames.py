"""Recorded runs as pandas DataFrames. Columns and dtypes are read from `records.py`; pandas is imported when asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, tzinfo
from difflib import get_close_matches
from itertools import islice
from typing import TYPE_CHECKING, Any

from ._arrays import Look, frame_of_rows, frame_of_table, have_pyarrow, pandas, schema_of, series, table_of
from .errors import ErrorConfig, ErrorMissingPackage
from .ledger import zone_of
from .records import MessageRecord, RunRecord, ScoreRecord, ToolCallRecord, TurnRecord, columns
from .selection import Moment, Selection, Tags, Texts, with_hints
from .store import CHUNK, RunStore, default_store
from .tables import TABLES, encoded

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["frame", "messages", "reading", "runs", "scores", "tool_calls", "turns"]

StoreLike = RunStore | str | os.PathLike[str] | None
"""A store, its file, or None: the store set for this process, else the default file."""

Names = str | Iterable[str] | None
CACHED = (RunRecord, TurnRecord, ToolCallRecord, MessageRecord)


@with_hints
def runs(
    store: StoreLike = None,
    *,
    since: Moment = None,
    until: Moment = None,
    agent: Texts = None,
    model: Texts = None,
    status: Texts = None,
    tag: Tags = None,
    notebook: Texts = None,
    run_id: Texts = None,
    text: str | None = None,
    limit: int | None = None,
    columns: Names = None,
    tz: str | tzinfo | None = "UTC",
    dtype_backend: str | None = None,
) -> pd.DataFrame:
    """One row a run, oldest first; columns as in `RunRecord`, then `tag_…` and `score_…` for the tags and scores there are.

    All five frames join by `run_id`, take the same arguments, have no row limit of their own, and keep their columns and
    dtypes when there are no rows, also when the file does not exist (it is not made). Times are `datetime64[us, UTC]`,
    counts that may be unknown `Int64`, costs and seconds `float64` with NaN for unknown, texts `str` (pandas 2: `object`).

    A tag is text. A score is the newest of its name: its value, or its label where no score of that name has a value.

    Args:
        store: a RunStore or the path of its file; None is the store set for this process, else the default file.
        since: runs begun from then on: "7d" (ago; also s, m, h, w), "2026-11-01", a date, a datetime. Without a time zone: local.
        until: runs begun before then.
        agent: name of the agent, or several.
        model: the model asked for or one that answered, or several.
        status: ok, error or interrupted, or several.
        tag: "tenant=a", "tenant" (has it), several, or {"tenant": "a"}: all must hold.
        notebook: the notebook it was run in, or several.
        run_id: one run's id, or several.
        text: what the prompt or the answer holds, as it is typed, in capitals or not.
        limit: only the newest so many runs.
        columns: names of columns, or of groups of them: core, usage, cost, timing, content, where, error; for runs also
            `tag_*` and `score_*`. Key columns always come first, then the others in the order asked.
        tz: time zone that times are shown in, such as "Europe/Zurich"; "local" is this machine's. None is UTC.
        dtype_backend: "pyarrow" for Arrow's dtypes in place of pandas' own.

    Raises:
        ErrorMissingPackage: pandas is not installed, or pyarrow for `dtype_backend="pyarrow"`.
        ErrorConfig: an argument is wrong.
        ErrorStore: the file is not a run history, or cannot be read.
    """
    where = Selection.of(since=since, until=until, agent=agent, model=model, status=status, tag=tag, notebook=notebook, run_id=run_id, text=text, limit=limit)
    wanted, look = _Wanted.of(RunRecord, columns), _look(tz, dtype_backend)
    with reading(store) as opened:
        table = _stored(opened, RunRecord, where, wanted.read, look)
        return wanted.with_extras(table, opened, where, look)


@with_hints
def turns(
    store: StoreLike = None,
    *,
    since: Moment = None,
    until: Moment = None,
    agent: Texts = None,
    model: Texts = None,
    status: Texts = None,
    tag: Tags = None,
    notebook: Texts = None,
    run_id: Texts = None,
    text: str | None = None,
    limit: int | None = None,
    columns: Names = None,
    tz: str | tzinfo | None = "UTC",
    dtype_backend: str | None = None,
) -> pd.DataFrame:
    """One row a model call, by start of the run, then `turn_index`; columns as in `TurnRecord`. The filters choose runs. See `runs`."""
    where = Selection.of(since=since, until=until, agent=agent, model=model, status=status, tag=tag, notebook=notebook, run_id=run_id, text=text, limit=limit)
    return _read(TurnRecord, store, where, columns, tz, dtype_backend)


@with_hints
def tool_calls(
    store: StoreLike = None,
    *,
    since: Moment = None,
    until: Moment = None,
    agent: Texts = None,
    model: Texts = None,
    status: Texts = None,
    tag: Tags = None,
    notebook: Texts = None,
    run_id: Texts = None,
    text: str | None = None,
    limit: int | None = None,
    columns: Names = None,
    tz: str | tzinfo | None = "UTC",
    dtype_backend: str | None = None,
) -> pd.DataFrame:
    """One row a tool call, by start of the run, then `turn_index`, `call_index`; columns as in `ToolCallRecord`.

    The filters choose runs (`status` is the run's). See `runs`.
    """
    where = Selection.of(since=since, until=until, agent=agent, model=model, status=status, tag=tag, notebook=notebook, run_id=run_id, text=text, limit=limit)
    return _read(ToolCallRecord, store, where, columns, tz, dtype_backend)


@with_hints
def messages(
    store: StoreLike = None,
    *,
    since: Moment = None,
    until: Moment = None,
    agent: Texts = None,
    model: Texts = None,
    status: Texts = None,
    tag: Tags = None,
    notebook: Texts = None,
    run_id: Texts = None,
    text: str | None = None,
    limit: int | None = None,
    columns: Names = None,
    tz: str | tzinfo | None = "UTC",
    dtype_backend: str | None = None,
) -> pd.DataFrame:
    """One row a message, by start of the run, then `message_index`; columns as in `MessageRecord`. The filters choose runs. See `runs`."""
    where = Selection.of(since=since, until=until, agent=agent, model=model, status=status, tag=tag, notebook=notebook, run_id=run_id, text=text, limit=limit)
    return _read(MessageRecord, store, where, columns, tz, dtype_backend)


@with_hints
def scores(
    store: StoreLike = None,
    *,
    since: Moment = None,
    until: Moment = None,
    agent: Texts = None,
    model: Texts = None,
    status: Texts = None,
    tag: Tags = None,
    notebook: Texts = None,
    run_id: Texts = None,
    text: str | None = None,
    limit: int | None = None,
    columns: Names = None,
    tz: str | tzinfo | None = "UTC",
    dtype_backend: str | None = None,
) -> pd.DataFrame:
    """One row a score, by start of the run, then `name`, `scorer`; columns as in `ScoreRecord`. The filters choose runs. See `runs`."""
    where = Selection.of(since=since, until=until, agent=agent, model=model, status=status, tag=tag, notebook=notebook, run_id=run_id, text=text, limit=limit)
    return _read(ScoreRecord, store, where, columns, tz, dtype_backend)


def frame(kind: type[Any], records: Iterable[Any]) -> pd.DataFrame:
    """Records of one class as a frame, in the order given: `frame(TurnRecord, result.record.turns)`. Dtypes as in `runs`."""
    return _assembled(kind, _chunked(encoded(record) for record in records), TABLES[kind].names, Look())


@contextmanager
def reading(store: StoreLike) -> Iterator[RunStore]:
    """The store that is meant; one opened for the occasion is closed again."""
    if store is None:
        store = default_store()
    if isinstance(store, RunStore):
        yield store
        return
    with closing(RunStore(store)) as opened:
        yield opened


# ---- rows -------------------------------------------------------------------------------------------------------


def _read(kind: type[Any], store: StoreLike, where: Selection, names: Names, tz: str | tzinfo | None, dtype_backend: str | None) -> pd.DataFrame:
    wanted, look = _Wanted.of(kind, names), _look(tz, dtype_backend)
    with reading(store) as opened:
        return _stored(opened, kind, where, wanted.read, look)


def _stored(store: RunStore, kind: type[Any], where: Selection, names: list[str], look: Look) -> pd.DataFrame:
    pandas()
    if kind in CACHED and have_pyarrow():
        from .column_cache import arrow_table

        return frame_of_table(arrow_table(store, kind, names, where), kind, look)
    return _assembled(kind, store.chunks(kind, where=where, columns=names), names, look)


def _assembled(kind: type[Any], chunks: Iterable[list[tuple[Any, ...]]], names: list[str], look: Look) -> pd.DataFrame:
    pandas()
    if have_pyarrow():
        return frame_of_table(table_of(chunks, schema_of(kind, names)), kind, look)
    return frame_of_rows(chunks, kind, names, look)


def _chunked(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, CHUNK)):
        yield chunk


def _look(tz: str | tzinfo | None, dtype_backend: str | None) -> Look:
    if dtype_backend not in (None, "pyarrow"):
        raise ErrorConfig(f"dtype_backend must be None (pandas' own dtypes) or 'pyarrow', got {dtype_backend!r:.80}")
    if dtype_backend == "pyarrow" and not have_pyarrow():
        raise ErrorMissingPackage("pyarrow", "data", 'dtype_backend="pyarrow"')
    zone = zone_of(tz) or _local_zone()
    return Look(getattr(zone, "key", None) or ("UTC" if zone is UTC else zone), dtype_backend)


def _local_zone() -> tzinfo:
    """This machine's zone: by its name where that can be found, because Arrow wants one."""
    from zoneinfo import ZoneInfo

    name = os.environ.get("TZ", "").lstrip(":") or os.path.realpath("/etc/localtime").rpartition("/zoneinfo/")[2]
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        from dateutil.tz import tzlocal  # type: ignore[import-untyped]

        unnamed: tzinfo = tzlocal()
        return unnamed


# ---- columns ----------------------------------------------------------------------------------------------------

_TAG, _SCORE = "tag_", "score_"


@dataclass(frozen=True)
class _Wanted:
    """Which columns are asked for. `shown` is in order, and may hold `tag_*`, `tag_<name>` and the same for scores."""

    kind: type[Any]
    shown: list[str]

    @classmethod
    def of(cls, kind: type[Any], asked: Names) -> _Wanted:
        groups: dict[str, list[str]] = {}
        for column in columns(kind):
            groups.setdefault(column.metadata["group"], []).append(column.name)
        names, patterns = TABLES[kind].names, [f"{_TAG}*", f"{_SCORE}*"] if kind is RunRecord else []
        if asked is None:
            return cls(kind, [*names, *patterns])
        shown = dict.fromkeys(TABLES[kind].keys)
        for one in [asked] if isinstance(asked, str) else _iterated(asked):
            if not isinstance(one, str):
                raise ErrorConfig(f"columns must be names of columns or groups, got {type(one).__name__}: {one!r:.80}")
            found = groups.get(one) or ([one] if one in names or (patterns and one.startswith((_TAG, _SCORE))) else None)
            if found is None:
                raise _unknown(one, kind, [*groups, *patterns], names)
            shown.update(dict.fromkeys(found))
        return cls(kind, list(shown))

    @property
    def read(self) -> list[str]:
        """The columns of the record that are read for it."""
        own = [name for name in self.shown if name in TABLES[self.kind].names]
        return [*own, "tags"] if self._extras(_TAG) and "tags" not in own else own

    def _extras(self, prefix: str) -> list[str]:
        """The names asked for of one kind, `*` among them for all there are."""
        return [name.removeprefix(prefix) for name in self.shown if name.startswith(prefix)]

    def with_extras(self, table: pd.DataFrame, store: RunStore, where: Selection, look: Look) -> pd.DataFrame:
        """A frame of runs with their tags and scores."""
        extra: dict[str, dict[str, Any]] = {}
        if self._extras(_TAG):
            extra[_TAG] = _tags(table["tags"], look, self._extras(_TAG))
        if self._extras(_SCORE):
            extra[_SCORE] = _scores(store, where, table["run_id"], look, self._extras(_SCORE))
        if not extra:
            return table
        parts: dict[str, Any] = {}
        for name in self.shown:
            prefix = next((prefix for prefix in extra if name.startswith(prefix)), None)
            if prefix is None:
                parts[name] = table[name].array
            elif name == f"{prefix}*":
                parts |= {f"{prefix}{one}": values for one, values in extra[prefix].items() if f"{prefix}{one}" not in parts}
            else:
                parts[name] = extra[prefix][name.removeprefix(prefix)]
        whole: pd.DataFrame = pandas().DataFrame(parts, index=table.index, copy=False)
        return whole


def _iterated(asked: Iterable[Any]) -> list[Any]:
    if not isinstance(asked, Iterable):
        raise ErrorConfig(f"columns must be names of columns or groups, got {type(asked).__name__}: {asked!r:.80}")
    return list(asked)


def _unknown(one: str, kind: type[Any], groups: list[str], names: list[str]) -> ErrorConfig:
    near = get_close_matches(one, [*groups, *names], 1)
    known = f"did you mean {near[0]!r}?" if near else f"columns: {', '.join(names)}"
    return ErrorConfig(f"{TABLES[kind].name} has no column or group of columns {one!r:.80}; {known}; groups: {', '.join(groups)}")


# ---- tags and scores of runs --------------------------------------------------------------------------------------


def _tags(texts: Any, look: Look, asked: list[str]) -> dict[str, Any]:
    """An array for each tag that occurs, by name, and for each that is asked for."""
    codes, distinct = pandas().factorize(texts)  # runs share few sets of tags; -1 is none
    sets = [json.loads(text) for text in distinct]
    names = dict.fromkeys([name for name in asked if name != "*"] + sorted({name for tags in sets for name in tags}))
    arrays = {}
    for name in names:
        values = [*(tags.get(name) for tags in sets), None]
        arrays[name] = series([values[code] for code in codes], "str", look)
    return arrays


def _scores(store: RunStore, where: Selection, run_ids: Any, look: Look, asked: list[str]) -> dict[str, Any]:
    """An array for each score that occurs, by name, and for each that is asked for: the newest of a run."""
    newest: dict[str, dict[str, tuple[int, float | None, str | None]]] = {name: {} for name in asked if name != "*"}
    found: dict[str, dict[str, tuple[int, float | None, str | None]]] = {}
    for rows in store.chunks(ScoreRecord, where=where, columns=["run_id", "name", "scored_at", "value", "label"]):
        for run_id, name, *score in rows:
            of_name = found.setdefault(name, {})
            of_name[run_id] = max(of_name.get(run_id, (score[0], *score[1:])), (score[0], *score[1:]), key=lambda one: one[0])
    newest |= dict(sorted(found.items()))
    arrays = {}
    for name, by_run in newest.items():
        labels = by_run and all(value is None for _, value, _ in by_run.values())
        picked = [by_run.get(run_id) for run_id in run_ids]
        values = [one and (one[2] if labels else one[1]) for one in picked]
        arrays[name] = series(values, "str" if labels else "float", look)
    return arrays
