"""Costs that were unknown when a run was recorded, filled in later from a price table or a price of the user's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from . import frames
from ._arrays import pandas
from .errors import ErrorConfig, ErrorMissingPackage
from .message import TurnUsage
from .prices import Price, TablePrice, cost_of, price_in_table
from .records import RunRecord, TurnRecord
from .selection import Moment, Selection, Tags, Texts, with_hints

if TYPE_CHECKING:
    import sqlite3

    import pandas as pd

    from .frames import StoreLike
    from .store import RunStore

__all__ = ["reprice"]

_TURN = (
    "run_id", "turn_index", "request_model", "response_model", "base_url", "cost_source", "cost_usd", "input_tokens", "output_tokens",
    "cached_input_tokens", "replayed_from", "cost_saved_usd",
)  # fmt: skip
STILL_ON = timedelta(days=1)
"""A run that began less than this ago and has not ended is left alone: it may be going on, and writes its own sums."""


@dataclass(frozen=True)
class _Filled:
    """A turn whose cost is known now."""

    run_id: str
    turn_index: int
    model: str
    cost: Decimal
    source: str
    saved: bool
    """It was replayed: the cost is what that has saved."""

    @property
    def column(self) -> str:
        return "cost_saved_usd" if self.saved else "cost_usd"


@with_hints
def reprice(
    store: StoreLike = None,
    *,
    price: Price | Mapping[str, Price] | None = None,
    dry_run: bool = False,
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
) -> pd.DataFrame:
    """Fills in the cost of turns of which it is unknown; one row a turn filled: run_id, turn_index, model, cost_usd.

    A cost that a provider reported or that came from a price before stays as it is, and so does one whose tokens nobody
    reported: such a call may have been lost on the way. The sums of the runs follow, and those of the tool calls that began
    them (where calls of several tools were going on at that moment, nobody can tell which, and theirs stay). Done twice, the
    second time fills nothing. Runs that may still be going on are left for later.

    Args:
        price: of all these turns, or by the model that answered or was asked for; others stay unknown then. None takes
            the table of today that `genai-prices` brings, by model and endpoint.
        dry_run: only says what would be filled in. What is filled in cannot be taken back, and is not filled in again.
        model: only turns that asked for it, or that it answered; in a run with a fallback not the others.
        since, until, agent, status, tag, notebook, run_id, text, limit: which runs, as for `agentroute.runs`.

    Raises:
        ErrorConfig: `price` or a filter is none.
        ErrorMissingPackage: neither a price is given nor is `genai-prices` installed; or pandas is not.
        ErrorStore: the file is not a run history, or cannot be written.
    """
    pandas()  # or an error that says what to install
    import pandas as pd

    prices = _Prices(price)
    where = Selection.of(since=since, until=until, agent=agent, model=model, status=status, tag=tag, notebook=notebook, run_id=run_id, text=text, limit=limit)
    with frames.reading(store) as opened:
        wanted = _to_fill(opened, where, prices)
        filled = _fill(opened, wanted) if wanted and not dry_run else wanted
    filled = [one for one in filled if not one.saved]
    return pd.DataFrame(
        {
            "run_id": pd.Series([one.run_id for one in filled], dtype="str"),
            "turn_index": pd.Series([one.turn_index for one in filled], dtype="int64"),
            "model": pd.Series([one.model for one in filled], dtype="str"),
            "cost_usd": pd.Series([float(one.cost) for one in filled], dtype="float64"),
        }
    )


class _Prices:
    """Looks a turn's price up; each model at each endpoint once."""

    def __init__(self, given: Any) -> None:
        several = dict(given) if isinstance(given, Mapping) else None
        wrong = [one for one in ([given] if several is None else several.values()) if not isinstance(one, Price)]
        if (given is not None and wrong) or (several is not None and not all(isinstance(name, str) for name in several)):
            raise ErrorConfig(
                "price must be an agentroute.Price, a dictionary of them by model, or None for the price table; "
                f"got {wrong[0] if several and wrong else given!r:.80}"
            )
        if given is None:
            try:
                import genai_prices  # noqa: F401
            except ImportError as error:
                raise ErrorMissingPackage("genai-prices", "prices", "repricing without a price of your own") from error
        self._given, self._several = given, several
        self._found: dict[tuple[str, str], TablePrice | None] = {}

    def of(self, request_model: str, response_model: str | None, base_url: str | None) -> Price | TablePrice | None:
        if self._several is not None:
            return self._several.get(response_model or "") or self._several.get(request_model)
        if self._given is not None:
            price: Price = self._given
            return price
        if base_url is None:
            return None
        return self._in_table(response_model or "", base_url) or self._in_table(request_model, base_url)

    def _in_table(self, model: str, base_url: str) -> TablePrice | None:
        key = model, base_url
        if key not in self._found:
            self._found[key] = price_in_table(model, base_url)
        return self._found[key]


def _to_fill(store: RunStore, where: Selection, prices: _Prices) -> list[_Filled]:
    """The turns that can be filled, with what they cost."""
    found = []
    for row in store.select(TurnRecord, where=where, columns=_TURN):
        turn = dict(zip(_TURN, row, strict=True))
        saved = turn["replayed_from"] is not None
        known = turn["cost_saved_usd" if saved else "cost_usd"] is not None
        if turn["cost_source"] != "unknown" or known or turn["input_tokens"] is None or turn["output_tokens"] is None or not _is_of(turn, where.model):
            continue
        price = prices.of(turn["request_model"], turn["response_model"], turn["base_url"])
        if price is None:
            continue
        used = TurnUsage(turn["input_tokens"], turn["output_tokens"], cached_input_tokens=turn["cached_input_tokens"])
        cost = None
        with suppress(LookupError, ValueError):  # of a table that has a price, but not for so many tokens
            cost = cost_of(price, used)
        if cost is not None:
            source = "given" if isinstance(price, Price) else "table"
            found.append(_Filled(turn["run_id"], turn["turn_index"], turn["response_model"] or turn["request_model"], cost, source, saved))
    running = _still_on(store, where) if found else set()
    return [one for one in found if one.run_id not in running]


def _is_of(turn: dict[str, Any], models: tuple[str, ...] | None) -> bool:
    """Whether a turn asked for one of these models, or was answered by one. A run is told `ollama/qwen3:4b`, its turns say `qwen3:4b`."""
    names = (turn["request_model"], turn["response_model"])
    return models is None or any(name and (model == name or model.endswith(f"/{name}")) for model in models for name in names)


def _still_on(store: RunStore, where: Selection) -> set[str]:
    recent = (datetime.now(UTC) - STILL_ON - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    rows = store.select(RunRecord, where=where, columns=["run_id", "started_at", "duration_s"])
    return {run_id for run_id, started_at, duration_s in rows if duration_s is None and started_at > recent}


def _fill(store: RunStore, wanted: list[_Filled]) -> list[_Filled]:
    """Writes all in one transaction; those that nobody else has filled meanwhile."""
    sql = "UPDATE turns SET {0} = ?, cost_source = ? WHERE run_id = ? AND turn_index = ? AND {0} IS NULL AND cost_source = 'unknown'"
    with store.transaction() as connection:
        filled = [
            one for one in wanted if connection.execute(sql.format(one.column), (float(one.cost), one.source, one.run_id, one.turn_index)).rowcount
        ]
        by_run: defaultdict[str, list[_Filled]] = defaultdict(list)
        for one in filled:
            by_run[one.run_id].append(one)
        touched = set(by_run)
        for run_id, own in by_run.items():
            _sum_up(connection, run_id, sum(not one.saved for one in own))
            for column in dict.fromkeys(one.column for one in own):
                touched.update(_add_above(connection, run_id, column, sum((one.cost for one in own if one.column == column), Decimal(0))))
        store.touch(connection, touched)
    return filled


def _sum_up(connection: sqlite3.Connection, run_id: str, filled: int) -> None:
    """The run's own cost, what it saved, calls of unknown cost and source, from its turns."""
    turns = connection.execute("SELECT cost_usd, cost_source FROM turns WHERE run_id = ? AND cost_usd IS NOT NULL", (run_id,)).fetchall()
    saved = connection.execute("SELECT cost_saved_usd FROM turns WHERE run_id = ? AND cost_saved_usd IS NOT NULL", (run_id,)).fetchall()
    (unknown,) = connection.execute("SELECT max(unknown_cost_calls - ?, 0) FROM runs WHERE run_id = ?", (filled, run_id)).fetchone()
    sources = {source for _, source in turns} | ({"unknown"} if unknown else set())
    sql = "UPDATE runs SET cost_usd = ?, cost_saved_usd = ?, unknown_cost_calls = ?, cost_source = ? WHERE run_id = ?"
    total, saved_usd = _total(cost for cost, _ in turns), _total(cost for (cost,) in saved) if saved else None
    connection.execute(sql, (total, saved_usd, unknown, sources.pop() if len(sources) == 1 else "mixed", run_id))


def _add_above(connection: sqlite3.Connection, run_id: str, column: str, cost: Decimal) -> Iterable[str]:
    """Adds to the tool call that the run was begun in, and to those around it; the runs whose calls these are."""
    seen = {run_id}
    above = "SELECT parent_run_id, parent_turn_index, parent_call_index FROM runs WHERE run_id = ?"
    while (parent := connection.execute(above, (run_id,)).fetchone()) is not None and parent[0] is not None and parent[0] not in seen:
        which = "WHERE run_id = ? AND turn_index = ? AND call_index = ?"
        call = connection.execute(f"SELECT {column} FROM tool_calls {which}", parent).fetchone()
        if call is not None:
            connection.execute(f"UPDATE tool_calls SET {column} = ? {which}", (float(Decimal(repr(call[0] or 0.0)) + cost), *parent))
        run_id = parent[0]
        seen.add(run_id)
    return seen


def _total(costs: Iterable[float]) -> float:
    return float(sum((Decimal(repr(cost)) for cost in costs), Decimal(0)))
