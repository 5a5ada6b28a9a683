"""The rows that costs are reckoned from: their columns, each turn with its run, a run with the runs inside it, and days.

**Unknown** is what a turn cost that may have been charged for and whose cost nobody has told. A request that was refused, or
was never sent, has no cost and no unknown one either: it cost nothing.

**A run**, where it is said what one costs or how long one takes, is one that asked the model at least once; a run that was
wholly replayed, or asked nothing, would make the others look cheaper and faster than they are.

Everything here takes frames and reads nothing; pandas and numpy are imported when asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from .errors import ErrorConfig
from .records import RunRecord, ToolCallRecord, TurnRecord, columns, kind_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

__all__ = [
    "MONEY", "RUN_COLUMNS", "TOKENS", "TURN_COLUMNS", "asked", "checked", "periods", "rows_of", "unknown_of", "whole_run_costs", "zone_of",
]  # fmt: skip

TOKENS = ("input_tokens", "output_tokens", "cached_input_tokens", "reasoning_tokens")
MONEY = ("cost_usd", "cost_saved_usd")
RUN_COLUMNS = (
    "run_id", "started_at", "duration_s", "status", "agent_name", "request_model", "n_turns", "n_replayed", *TOKENS, *MONEY, "cost_source", "unknown_cost_calls",
    "error_type", "session_id", "parent_run_id", "tags", "notebook",
)  # fmt: skip
TURN_COLUMNS = ("run_id", "turn_index", "started_at", "request_model", "response_model", *TOKENS, *MONEY, "cost_source", "error_type")

_UNITS = {"hour": "h", "day": "D", "month": "M"}
_QUARTER = 900_000_000
"""Microseconds: clocks of all zones have always been put forward and back at a full quarter of an hour since 1972."""
_KINDS = {column.name: kind_of(column) for kind in (ToolCallRecord, TurnRecord, RunRecord) for column in columns(kind)}


def checked(df: Any, names: Sequence[str], taker: str, source: str, *, welcome: Sequence[str] = ()) -> pd.DataFrame:
    """These columns of a frame of the user's, in the dtypes of `agentroute.runs` and its siblings; those that are `welcome` where
    it has them. Where runs are asked for by `run_id`, each is there once.

    Raises:
        ErrorConfig: it is no frame, has not these columns, or they hold something else.
    """
    import pandas as pd

    if not isinstance(df, pd.DataFrame):
        hint = f"; a history is given as store={df!r:.80}" if isinstance(df, str | os.PathLike) or hasattr(df, "chunks") else ""
        raise ErrorConfig(f"{taker} takes a frame of {source}, got {type(df).__name__}{hint}")
    if missing := [name for name in names if name not in df.columns]:
        raise ErrorConfig(f"{taker} takes a frame of {source}; the one given has no column {', '.join(missing)}")
    try:
        found = pd.DataFrame({name: _as_recorded(df[name]) for name in [*names, *(name for name in welcome if name in df.columns)]})
    except (TypeError, ValueError) as error:
        raise ErrorConfig(f"{taker} takes a frame of {source}; in the one given a column holds something else: {error}") from error
    # A run is there twice in frames put together, and when one was merged with scores.
    once: pd.DataFrame = found.drop_duplicates("run_id") if "run_id" in names else found
    return once.reset_index(drop=True)


def _as_recorded(series: pd.Series[Any]) -> pd.Series[Any]:
    name, may_be_none = _KINDS[str(series.name)]
    if name == "datetime":
        return series.astype("datetime64[us, UTC]")
    if name == "float":
        return series.astype("Float64").astype("float64") if str(series.dtype) != "float64" else series
    return series.astype("str" if name == "str" else "Int64" if may_be_none else "int64")


def rows_of(runs: pd.DataFrame, turns: pd.DataFrame) -> tuple[pd.DataFrame, NDArray[np.int64]]:
    """The turns, and for each run that has none a row of its own figures; and the position of each row's run.

    What belongs to a run (itself, its error, its seconds) stands in the row of its first turn only.
    """
    import numpy as np
    import pandas as pd

    at = pd.Index(runs["run_id"]).get_indexer(pd.Index(turns["run_id"]))
    turns, at = turns[at >= 0], at[at >= 0]
    bare = np.setdiff1d(np.arange(len(runs)), at)
    of_run = np.concatenate([at, bare]).astype("int64")
    columns = [name for name in ("started_at", "request_model", "response_model", "cost_source", *TOKENS, *MONEY) if name in turns]
    alone = runs.iloc[bare].reindex(columns=columns).assign(request_model=_sent_as(runs, turns, at, bare))[columns]
    table = turns[columns].reset_index(drop=True)
    if len(bare):
        alone = alone.astype({name: dtype for name, dtype in table.dtypes.items() if name in alone and alone[name].isna().all()})
        table = pd.concat([table, alone], ignore_index=True) if len(table) else alone.reset_index(drop=True)
    table["turns"] = np.concatenate([np.ones(len(at), "int64"), runs["n_turns"].to_numpy("int64")[bare]])
    first = np.zeros(len(of_run), bool)
    first[np.unique(of_run, return_index=True)[1]] = True
    table["runs"] = first.astype("int64")
    table["errors"] = (first & (runs["status"] == "error").to_numpy(bool)[of_run]).astype("int64")
    did_ask = first & asked(runs)[of_run]
    known = (runs["cost_usd"].notna() | (runs["unknown_cost_calls"] == 0)).to_numpy(bool)
    table["known_runs"] = (did_ask & known[of_run]).astype("int64")
    table["seconds"] = np.where(did_ask, runs["duration_s"].to_numpy("float64")[of_run], np.nan)
    calls = runs["unknown_cost_calls"].to_numpy("int64")
    table["unknown"] = np.concatenate([_unknown(turns, at, calls), calls[bare]])
    return table, of_run


def asked(runs: pd.DataFrame) -> NDArray[np.bool_]:
    """Which runs asked the model at least once; takes `n_turns` and `n_replayed`."""
    did: NDArray[np.bool_] = (runs["n_turns"] > runs["n_replayed"]).to_numpy(bool)
    return did


def _sent_as(runs: pd.DataFrame, turns: pd.DataFrame, at: NDArray[np.int64], bare: NDArray[np.int64]) -> pd.Series[Any]:
    """The model of the runs without turns, under the name that turns of other runs of it have: a run is told `ollama/qwen3:4b`,
    and sends `qwen3:4b`."""
    import pandas as pd

    told = runs["request_model"]
    pairs = pd.DataFrame({"told": told.to_numpy(object)[at], "sent": turns["request_model"].to_numpy(object)}).drop_duplicates("told")
    sent = dict(zip(pairs["told"], pairs["sent"], strict=True))
    return pd.Series([sent.get(name, name) for name in told.iloc[bare]], told.index[bare], dtype=told.dtype)


def unknown_of(runs: pd.DataFrame, turns: pd.DataFrame) -> pd.DataFrame:
    """The turns of these runs, with a column `unknown`: 1 where the cost is."""
    import pandas as pd

    at = pd.Index(runs["run_id"]).get_indexer(pd.Index(turns["run_id"]))
    found = turns[at >= 0]
    told: pd.DataFrame = found.assign(unknown=_unknown(found, at[at >= 0], runs["unknown_cost_calls"].to_numpy("int64")))
    return told


def _unknown(turns: pd.DataFrame, at: NDArray[np.int64], calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """1 for each turn of unknown cost. One that the provider refused has no cost either, but it is no unknown one: the
    run's own count tells."""
    import numpy as np

    missing = turns["cost_usd"].isna().to_numpy(bool)
    of_its_run = np.bincount(at[missing], minlength=len(calls))[at]
    result: NDArray[np.int64] = (missing & (turns["error_type"].isna().to_numpy(bool) | (calls[at] >= of_its_run))).astype("int64")
    return result


def whole_run_costs(runs: pd.DataFrame) -> pd.Series[float]:
    """USD of each run with the runs begun inside it; NaN where some is unknown.

    Takes `run_id`, `parent_run_id`, `cost_usd` and `unknown_cost_calls`; the index is that of `runs`.
    """
    import numpy as np
    import pandas as pd

    own = np.nan_to_num(runs["cost_usd"].to_numpy("float64"))
    own[runs["unknown_cost_calls"].to_numpy("int64") > 0] = np.nan
    total = own.copy()
    parent = pd.Index(runs["run_id"]).get_indexer(pd.Index(runs["parent_run_id"]))
    above = parent.copy()
    for _ in range(100):  # levels; the loop allows 20, and rows that say they are inside each other must end, too
        inside = above >= 0
        if not inside.any():
            break
        np.add.at(total, above[inside], own[inside])
        above = np.where(inside, parent[above], -1)
    return pd.Series(total, index=runs.index)


# ---- times --------------------------------------------------------------------------------------------------------


def zone_of(tz: str | tzinfo | None) -> tzinfo | None:
    """The zone meant; None is this machine's.

    Raises:
        ErrorConfig: there is no such zone.
    """
    if tz is None or isinstance(tz, tzinfo):
        return UTC if tz is None else tz
    if tz == "local":
        return None
    try:
        return UTC if tz == "UTC" else ZoneInfo(tz)
    except (LookupError, ValueError, TypeError, OSError):
        near = get_close_matches(tz, available_timezones(), 1) if isinstance(tz, str) else []
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ErrorConfig(f"tz must be the name of a time zone such as 'Europe/Berlin', 'local', or None for UTC; got {tz!r:.80}{hint}") from None


def periods(times: pd.Series[Any], unit: str, zone: tzinfo | None) -> NDArray[np.datetime64]:
    """When the hour, day, week or month of each time (aware UTC) began, or the time itself (`time`), as clocks of the zone show it."""
    utc = times.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy("datetime64[us]")
    local: NDArray[np.datetime64] = utc + _offsets(utc, zone) if zone is not UTC else utc
    if unit == "week":
        days = local.astype("datetime64[D]").astype("int64")
        local = (days - (days + 3) % 7).astype("datetime64[D]")  # 1970 began on a Thursday
    elif unit != "time":
        local = local.astype(f"datetime64[{_UNITS[unit]}]")
    begun: NDArray[np.datetime64] = local.astype("datetime64[us]")
    return begun


def _offsets(utc: NDArray[np.datetime64], zone: tzinfo | None) -> NDArray[np.timedelta64]:
    """What the zone's clocks are ahead of UTC. Asked once a quarter of an hour, as it takes a microsecond."""
    import numpy as np

    quarters, back = np.unique(utc.view("int64") // _QUARTER, return_inverse=True)
    start = datetime(1970, 1, 1, tzinfo=UTC)
    moments = [start + timedelta(microseconds=int(quarter) * _QUARTER) for quarter in quarters]
    offsets = [moment.astimezone(zone).utcoffset() or timedelta(0) for moment in moments]
    return np.array(offsets, "timedelta64[us]")[back]
