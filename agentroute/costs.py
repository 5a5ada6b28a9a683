"""What runs have cost: sums of the run history by day, model, agent or tag, and a `max_cost` that fits what was recorded."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from . import frames
from .errors import ErrorConfig
from .figures import cost_text, plural
from .ledger import MONEY, RUN_COLUMNS, TOKENS, TURN_COLUMNS, periods, rows_of, whole_run_costs, zone_of
from .selection import Moment, Tags, Texts, moment, with_hints

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from .frames import StoreLike

__all__ = ["SuggestedCost", "cost", "cost_of_rows", "suggest_max_cost"]

_PERIODS = ("hour", "day", "week", "month")
_OF_TURN = {"model": "request_model", "response_model": "response_model", "cost_source": "cost_source"}
_OF_RUN = {"agent": "agent_name", "status": "status", "notebook": "notebook", "session": "session_id", "error_type": "error_type"}


@with_hints
def cost(
    by: str | Iterable[str] = ("day", "model"),
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
    tz: str | tzinfo | None = None,
    store: StoreLike = None,
) -> pd.DataFrame:
    """One row a group, sorted by the group; `[]` gives one row for all.

    The sums are those of the turns, so they equal the ledger: a run that a tool began has turns of its own, and what it
    cost is in its own row only. A run is counted once, in the group of its first turn, so `runs` adds up, too.

    Columns after those of the group: `runs`, `turns`; `input_tokens`, `output_tokens`, `cached_input_tokens` (part of the
    input), `reasoning_tokens` (part of the output); `cost_usd` (paid), `cost_saved_usd` (what replayed answers had cost);
    `cost_per_run_usd` (what was paid, over the runs that asked the model at least once and whose cost is known at least in part);
    `p50_s` and `p95_s` (seconds of a run that asked: median, and what 95 % stay below); `errors` (runs that ended in one);
    `unknown_cost_share` (of the turns: those that may have been charged for and whose cost nobody has told). What is unknown is
    missing, never 0; a sum is over what is known. A request that was refused cost nothing.

    Args:
        by: one or several of hour, day, week (its Monday), month (its first day): times without a zone, as clocks in `tz` show
            them; model (the id that was asked for: a provider's dated names of one model stay together), response_model
            (the one that answered), agent, status, notebook, session, cost_source, error_type (of the run), and tag:NAME,
            whose column is `tag_NAME`.
        tz: the zone whose days are meant, such as "Europe/Berlin"; "local" is this machine's. None is UTC.
        since, until, agent, model, status, tag, notebook, run_id, text, limit: which runs, as for `agentroute.runs`.

    Raises:
        ErrorConfig: `by`, `tz` or a filter is none.
        ErrorMissingPackage: pandas is not installed.
        ErrorStore: the file is not a run history, or cannot be read.
    """
    keys, zone = _keys(by), zone_of(tz)
    filters: dict[str, Any] = {
        "since": since, "until": until, "agent": agent, "model": model, "status": status, "tag": tag, "notebook": notebook, "run_id": run_id,
        "text": text, "limit": limit,
    }  # fmt: skip
    runs = frames.runs(store, columns=_needed(RUN_COLUMNS, keys, _OF_RUN), **filters)
    turns = frames.turns(store, columns=_needed(TURN_COLUMNS, keys, _OF_TURN), **filters)
    return cost_of_rows(runs, turns, keys, zone)


def cost_of_rows(runs: pd.DataFrame, turns: pd.DataFrame, by: str | Iterable[str], zone: tzinfo | None = UTC) -> pd.DataFrame:
    """As `cost`, of frames with `RUN_COLUMNS` and `TURN_COLUMNS`.

    A run without turns counts by its own row; turns whose run is not there do not count.
    """
    import pandas as pd

    keys = _keys(by)
    table, of_run = rows_of(runs, turns)
    labels = {_label(key): _labels(key, table, runs, of_run, zone) for key in keys}
    grouping: list[Any] = list(labels.values()) or [pd.Series(0, index=table.index)]
    grouped = table.groupby(grouping, sort=True, dropna=False)
    sums = grouped[["runs", "turns", "errors", "known_runs", "unknown", *TOKENS, *MONEY]].sum(min_count=1)
    for column, share in {"p50_s": 0.5, "p95_s": 0.95}.items():
        sums[column] = grouped["seconds"].quantile(share).to_numpy()  # by position: a label may be missing, and then nothing matches it
    if not labels and sums.empty:
        sums = sums.reindex([0])
    counts = sums[["runs", "turns", "errors"]].fillna(0).astype("int64")
    sums["cost_usd"] = sums["cost_usd"].mask(sums["cost_usd"].isna() & (sums["unknown"].fillna(0) == 0) & (counts["runs"] + counts["turns"] > 0), 0.0)
    result = pd.concat([counts[["runs", "turns"]], sums[list(TOKENS)].astype("Int64"), sums[list(MONEY)].astype("float64")], axis=1)
    result["cost_per_run_usd"] = _share(result["cost_usd"], sums["known_runs"])
    result[["p50_s", "p95_s"]] = sums[["p50_s", "p95_s"]].astype("float64")
    result["errors"] = counts["errors"]
    result["unknown_cost_share"] = _share(sums["unknown"], sums["turns"])
    if not labels:
        return result.reset_index(drop=True)
    result.index = result.index.set_names(list(labels))
    return result.reset_index()


def _share(part: pd.Series[Any], whole: pd.Series[Any]) -> pd.Series[float]:
    return (part / whole.where(whole > 0)).astype("float64")


# ---- groups -------------------------------------------------------------------------------------------------------


def _keys(by: str | Iterable[str]) -> list[str]:
    keys = [by] if isinstance(by, str) else list(by) if isinstance(by, Iterable) else [by]
    known = [*_PERIODS, *_OF_TURN, *_OF_RUN]
    for key in keys:
        if not isinstance(key, str) or not (key in known or (key.startswith("tag:") and key != "tag:")):
            near = get_close_matches(key, known, 1) if isinstance(key, str) else []
            hint = f"; did you mean {near[0]!r}?" if near else "; a history is given as store=" if os.sep in str(key) or str(key).endswith(".db") else ""
            raise ErrorConfig(f"by must be one or several of {', '.join(known)}, tag:NAME; got {key!r:.80}{hint}")
    if len(set(keys)) < len(keys):
        raise ErrorConfig(f"by names a group twice: {', '.join(keys)}")
    return keys


def _needed(columns: Iterable[str], keys: list[str], of: dict[str, str]) -> list[str]:
    """The columns without those that only other groups need: each takes time to read."""
    spare = {column for key, column in of.items() if key not in keys} - {"status", "request_model"}
    spare |= {"parent_run_id"} | (set() if any(key.startswith("tag:") for key in keys) else {"tags"})
    return [column for column in columns if column not in spare]


def _label(key: str) -> str:
    return key.replace("tag:", "tag_", 1) if key.startswith("tag:") else key


def _labels(key: str, table: pd.DataFrame, runs: pd.DataFrame, of_run: NDArray[np.int64], zone: tzinfo | None) -> pd.Series[Any]:
    """The group each row is in."""
    import pandas as pd

    if key in _PERIODS:
        return pd.Series(periods(table["started_at"], key, zone), index=table.index)
    if key in _OF_TURN:
        return table[_OF_TURN[key]]
    column = _tag(runs, key[len("tag:") :]) if key.startswith("tag:") else runs[_OF_RUN[key]]
    return column.take(of_run).set_axis(table.index)


def _tag(runs: pd.DataFrame, name: str) -> pd.Series[Any]:
    """A tag's value in each run; missing where a run does not have it. Each text of tags is read once."""
    import json

    import pandas as pd

    codes, texts = pd.factorize(runs["tags"])
    values = pd.Series([json.loads(text).get(name) for text in texts] + [None], dtype="str")  # the last is for code -1
    return values.take(codes).set_axis(runs.index)


# ---- a budget that fits -------------------------------------------------------------------------------------------

FEW = 20
"""Runs below which a suggestion says that it rests on too few."""


class SuggestedCost(float):
    """A `max_cost` in USD: a number like any other, which shows in a cell why it is what it is.

    NaN, which no `max_cost` can be, when no run of known cost is recorded, or none cost anything. Attributes: `n_runs`, `n_unknown` (runs left
    out, because not all of their cost is known), `p50`, `p95`, `p99`, `max` (USD a run), `share_stopped` (of those runs).
    """

    n_runs: int = 0
    n_unknown: int = 0
    p50: float = float("nan")
    p95: float = float("nan")
    p99: float = float("nan")
    max: float = float("nan")
    share_stopped: float = float("nan")
    about: str = ""

    def __repr__(self) -> str:
        return self.why

    def __str__(self) -> str:
        return float.__repr__(self)  # Decimal and others read a number from it

    @property
    def why(self) -> str:
        """The suggestion and what it rests on, in words."""
        left_out = f" {plural(self.n_unknown, 'run')} left out: not all of their cost is known (see agentroute.reprice)." if self.n_unknown else ""
        if not self.n_runs:
            return f"No max_cost to suggest: no run {self.about} has a known cost.{left_out}"
        if not self.max:
            return f"No max_cost is needed, and this is none: {_runs(self.n_runs)} {self.about} cost nothing.{left_out}"
        few = f" Too few runs to tell (fewer than {FEW}); look again when there are more." if self.n_runs < FEW else ""
        basis = "three times what 95 % of the runs cost at most" if self.p95 and not few else "three times the dearest run"
        rare = " 95 % of the runs cost nothing." if not self.p95 and not few else ""
        return (
            f"max_cost={float(self):g} (USD): {basis}.{few}{rare}\n"
            f"{_runs(self.n_runs)} {self.about}: p50 {cost_text(self.p50)}, p95 {cost_text(self.p95)}, p99 {cost_text(self.p99)}, "
            f"max {cost_text(self.max)}. It would have stopped {self.share_stopped:.1%} of them.{left_out}"
        )


@with_hints
def suggest_max_cost(agent: str, *, since: Any = "30d", store: StoreLike = None) -> SuggestedCost:
    """A `max_cost` for an agent: a few multiples above its normal run, so that it stops loops and nothing else.

    It is three times what 95 % of its recorded runs cost at most (of fewer than 20 runs, or where those cost nothing: three times
    the dearest), rounded up to two digits. A run counts with the runs its tools began, as in `max_cost`, and with what replayed
    answers had cost. Runs whose cost is not wholly known are left out, and said.

    Raises:
        ErrorConfig: `agent` is no text, or `since` no time.
    """
    if not isinstance(agent, str):
        raise ErrorConfig(f"suggest_max_cost takes the name of an agent, got {type(agent).__name__}: {agent!r:.80}")
    start = moment("since", since, datetime.now(UTC))
    needed = ["agent_name", "status", "cost_usd", "cost_saved_usd", "unknown_cost_calls", "parent_run_id"]
    runs = frames.runs(store, columns=needed, since=start)
    replayed = frames.turns(store, columns=["replayed_from", "cost_saved_usd"], since=start)
    nobody_knows = replayed.loc[replayed["replayed_from"].notna() & replayed["cost_saved_usd"].isna(), "run_id"]
    costs = whole_run_costs(
        runs.assign(
            cost_usd=runs["cost_usd"].fillna(0.0) + runs["cost_saved_usd"].fillna(0.0),
            unknown_cost_calls=runs["unknown_cost_calls"] + runs["run_id"].isin(nobody_knows).astype("int64"),
        )
    )
    meant = (runs["agent_name"] == agent) & ((runs["status"] == "ok") | (costs != 0))  # what failed before it cost anything is no run to go by
    costs = costs[meant.to_numpy(bool)]
    return _suggestion(costs, f"of {agent!r}{f' since {start:%Y-%m-%d}' if start else ''}")


def _suggestion(costs: pd.Series[float], about: str) -> SuggestedCost:
    known = costs.dropna()
    figures: dict[str, Any] = {"n_runs": len(known), "n_unknown": len(costs) - len(known), "about": about}
    value = float("nan")
    if len(known):
        p50, p95, p99 = (float(known.quantile(share)) for share in (0.5, 0.95, 0.99))
        dearest = float(known.max())
        value = _rounded_up(p95 if p95 and len(known) >= FEW else dearest)
        figures |= {"p50": p50, "p95": p95, "p99": p99, "max": dearest, "share_stopped": float((known > value).mean())}
    suggested = SuggestedCost(value)
    suggested.__dict__.update(figures)
    return suggested


def _rounded_up(amount: float) -> float:
    """Three times of it, to two digits: 0.0104 becomes 0.032. NaN of nothing."""
    from decimal import ROUND_CEILING, Decimal

    exact = 3 * Decimal(repr(amount))
    return float(exact.quantize(Decimal(1).scaleb(exact.adjusted() - 1), ROUND_CEILING)) if exact else float("nan")


def _runs(number: int) -> str:
    return plural(number, "run")
