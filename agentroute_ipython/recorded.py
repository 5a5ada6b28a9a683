"""What `%agent runs` and `%agent cost` show of the run history: a table in the card's style, and as plain text."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from agentroute.errors import ErrorConfig
from agentroute.figures import cost_text, count_text, plural
from agentroute.records import RunRecord, TurnRecord
from agentroute.selection import Selection

from .arguments import nearest, parse_filters
from .formats import one_line
from .style import SHEET_STYLE
from .tables import Table

if TYPE_CHECKING:
    from agentroute import RunStore

__all__ = ["RUNS", "Column", "Sheet", "cost_sheet", "no_runs", "run_cells", "runs_sheet", "saved_more", "sheet_of_runs", "stored_runs"]

RUNS = 20
"""Runs that are listed when no number is given."""
SINCE = "30d"
"""Since when costs are added up when nothing else is said."""
ROWS = 40
"""Rows of costs that are shown, the newest; the sums are of all."""
TIMES, THINGS = ("day", "week", "month"), ("model", "agent")
"""What costs are added up by; the first of each unless others are named."""
_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_LEFT = 'style="text-align:left"'


@dataclass(frozen=True)
class Column:
    """`wide` takes the room that is left, `left` holds words and no figures."""

    head: str
    left: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Sheet:
    """A table with a title, as text and as HTML. `rows`, `foot` and `above` are HTML, made of escaped text; `text` is all of it as text."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    text: Table
    foot: Sequence[str] = ()
    note: str = ""
    above: str = ""
    """What comes between the title and the table."""
    mark: str = ""
    """One more class, by which a script finds it."""

    def __repr__(self) -> str:
        return "\n".join(filter(None, (self.title, repr(self.text), self.note)))

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col"{_attributes(column)}>{column.head}</th>' for column in self.columns)
        body = "".join(self._row(row) for row in self.rows)
        foot = f"<tfoot>{self._row(self.foot)}</tfoot>" if self.foot else ""
        note = f"<p>{_text(self.note)}</p>" if self.note else ""
        return (
            f'<section class="{" ".join(filter(None, ("agr agr-sheet", self.mark)))} mathjax_ignore tex2jax_ignore"><style>{SHEET_STYLE}</style>\n'
            f'<div class="agr-run"><div>{_text(self.title)}</div>\n{self.above}<div class="agr-steps"><table>\n'
            f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{body}</tbody>{foot}</table></div>{note}</div>\n</section>"
        )

    def _row(self, cells: Sequence[str]) -> str:
        shown = (f"<td{_attributes(column)}>{cell}</td>" for column, cell in zip(self.columns, cells, strict=True))
        return f"<tr>{''.join(shown)}</tr>\n"


def _attributes(column: Column) -> str:
    wide = ' class="agr-wide"' if column.wide else ""
    return f"{wide} {_LEFT}" if column.left else wide


def _text(text: str) -> str:
    return html.escape(text, quote=False)


def _line(text: str, limit: int) -> str:
    return _text(one_line(text, limit))


def _below(text: str, more: str) -> str:
    """Two lines in one cell, the second one dim."""
    return f'{text}<div class="agr-dim">{more}</div>' if more else text


# ------------------------------------------------------------------------------------------------------------ the runs

_RUNS_USAGE = "a number of runs, a time such as 7d, and filters such as --agent support"
_RUNS_COLUMNS = (
    Column("Started", left=True), Column("Agent", left=True), Column("Prompt", left=True, wide=True), Column("Status", left=True),
    Column("Turns"), Column("Tokens"), Column("Cost"),
)  # fmt: skip


def runs_sheet(line: str, store: RunStore) -> Sheet | str:
    """The runs that the rest of an `%agent runs` line asks for, newest first; words where there are none.

    Raises:
        ErrorConfig: the line asks for nothing there could be.
    """
    words, filters = parse_filters(line)
    for word in words:
        number = word.isascii() and word.isdigit()
        name = "limit" if number else "since"
        if name in filters or (number and int(word) < 1):
            raise ErrorConfig(f"%agent runs takes {_RUNS_USAGE}; got {one_line(word, 40)!r}")
        filters[name] = int(word) if number else word
    filters.setdefault("limit", RUNS)
    where = _selection("%agent runs", _RUNS_USAGE, words, filters)
    runs = stored_runs(store, where)[::-1]
    if not runs:
        return no_runs(store, "%agent runs")
    more = " of them" if len(runs) == where.limit and filters.keys() - {"limit"} else ""
    title = f"The last {plural(len(runs), 'run')}{more}" if len(runs) == where.limit else plural(len(runs), "run")
    note = 'agentroute.runs() has all columns, agentroute.messages(run_id="…") what was said in one'
    return sheet_of_runs(runs, saved_more(store, where), title, note)


def sheet_of_runs(runs: Sequence[RunRecord], uncertain: set[str], title: str, note: str, mark: str = "") -> Sheet:
    """These runs in their order; `uncertain` as of `saved_more`."""
    heads = ("started", "agent", "model", "prompt", "status", "turns", "tokens", "cost", "run_id")
    return Sheet(
        title,
        _RUNS_COLUMNS,
        [_run_html(run, run.run_id in uncertain) for run in runs],
        Table([_run_text(run, run.run_id in uncertain) for run in runs], heads, (5, 6, 7)),
        note=note,
        mark=mark,
    )


def run_cells(run: RunRecord, uncertain: bool) -> dict[str, str]:
    """What is shown of a run, as words in one line each."""
    return {
        "started": _started(run),
        "agent": one_line(run.agent_name, 40),
        "model": one_line(run.request_model, 40),
        "prompt": one_line(run.prompt_text, 90),
        "answer": one_line(run.output_text or "", 90),
        "status": one_line(_status(run), 60),
        "turns": count_text(run.n_turns),
        "tokens": _tokens(run),
        "cost": _cost(run),
        "replayed": _replayed(run, uncertain),
    }


def stored_runs(store: RunStore, where: Selection) -> list[RunRecord]:
    names = list(RunRecord.__dataclass_fields__)
    rows = [dict(zip(names, row, strict=True)) for row in store.select(RunRecord, where=where)]
    return [RunRecord(**{**row, "started_at": _EPOCH + timedelta(microseconds=row["started_at"])}) for row in rows]


def _run_html(run: RunRecord, saved_more: bool) -> list[str]:
    status = _line(_status(run), 60)
    bad = "agr-bad" if run.status == "error" else "agr-dim"
    return [
        _started(run),
        _below(_line(run.agent_name, 40), _line(run.request_model, 40)),
        _below(_line(run.prompt_text, 60), f'<code class="agr-id">{_line(run.run_id, 60)}</code>'),
        status if run.status == "ok" else f'<span class="{bad}">{status}</span>',
        count_text(run.n_turns),
        _tokens(run),
        _below(_cost(run), _replayed(run, saved_more)),
    ]


def _run_text(run: RunRecord, saved_more: bool) -> list[str]:
    words = [run.agent_name, run.request_model, run.prompt_text]
    figures = [count_text(run.n_turns), _tokens(run), ", ".join(filter(None, (_cost(run), _replayed(run, saved_more))))]
    return [_started(run), *(one_line(word, 32) for word in words), _status(run), *figures, one_line(run.run_id, 60)]


def _started(run: RunRecord) -> str:
    return f"{run.started_at.astimezone():%Y-%m-%d %H:%M}"


def _status(run: RunRecord) -> str:
    if run.going_on:
        return "running"
    return one_line(run.error_type, 60) if run.status == "error" and run.error_type else run.status


def _tokens(run: RunRecord) -> str:
    """In and out."""
    return f"{count_text(run.input_tokens) or '?'} / {count_text(run.output_tokens) or '?'}" if run.n_turns else ""


def _cost(run: RunRecord) -> str:
    """What is known of it; `at least` where some call is not."""
    if run.cost_usd is None:
        return "unknown" if run.unknown_cost_calls else ""
    return f"{_at_least(bool(run.unknown_cost_calls))}{cost_text(run.cost_usd)}"


def _replayed(run: RunRecord, saved_more: bool) -> str:
    if not run.n_replayed:
        return ""
    return f"saved {_at_least(saved_more)}{cost_text(run.cost_saved_usd)}" if run.cost_saved_usd else "replayed"


def _at_least(more: bool) -> str:
    return "at least " if more else ""


def saved_more(store: RunStore, where: Selection) -> set[str]:
    """The runs that were spared more than their `cost_saved_usd` says: nobody knows what some answer they replayed had cost."""
    replayed = [run_id for run_id, number in store.select(RunRecord, where=where, columns=["run_id", "n_replayed"]) if number]
    if not replayed:
        return set()
    turns = store.select(TurnRecord, where=Selection.of(run_id=replayed), columns=["run_id", "replayed_from", "cost_saved_usd"])
    return {run_id for run_id, source, saved in turns if source is not None and saved is None}


# ----------------------------------------------------------------------------------------------------------- the costs

_COST_USAGE = "a time such as 7d, or all; day, week or month; model or agent; and filters such as --agent support"


def cost_sheet(line: str, store: RunStore) -> Sheet | str:
    """What the runs cost that the rest of an `%agent cost` line asks for, added up; words where there are none.

    Raises:
        ErrorConfig: the line asks for nothing there could be.
        ErrorMissingPackage: pandas is not installed.
    """
    words, filters = parse_filters(line)
    by, times = [word for word in words if word in TIMES + THINGS], [word for word in words if word not in TIMES + THINGS]
    if len(times) > 1 or (times and "since" in filters):
        hint = nearest(times[-1], TIMES + THINGS)
        raise ErrorConfig(f"%agent cost takes {_COST_USAGE}; got {one_line(times[-1], 40)!r}{hint}")
    since = filters.get("since", times[0] if times else SINCE)
    filters["since"] = None if since == "all" else since
    where = _selection("%agent cost", _COST_USAGE, times, filters)
    by = by or [TIMES[0], THINGS[0]]
    from agentroute.costs import cost

    frame = cost(by, store=store, tz="local", **filters)
    if not len(frame):
        return no_runs(store, "%agent cost")
    frame["saved_more"] = False
    if runs := sorted(saved_more(store, where)):
        theirs = cost(by, store=store, tz="local", run_id=runs)[by].itertuples(index=False, name=None)
        more = {tuple(map(_key, group)) for group in theirs}
        frame["saved_more"] = [tuple(map(_key, group)) in more for group in frame[by].itertuples(index=False, name=None)]
    return _costs(frame, by, f"Cost by {' and '.join(by)}{'' if since == 'all' else _since(since)}")


def _since(since: str) -> str:
    ago = re.fullmatch(r"(\d+)([smhdw])", since)
    return f", the last {plural(int(ago[1]), _UNITS[ago[2]])}" if ago else f", since {since}"


def _costs(frame: Any, by: Sequence[str], title: str) -> Sheet:
    counts = ("runs", "turns", "input_tokens", "output_tokens")
    rows = frame.to_dict("records")
    sums = frame[[*counts, "cost_usd", "cost_saved_usd", "unknown_cost_share", "saved_more"]].sum(min_count=1).to_dict()
    lines = [[*(one_line(_key(row[name]), 60) for name in by), *_figures(row, counts)] for row in rows[-ROWS:]]
    total = ["all", *[""] * (len(by) - 1), *_figures(sums, counts)]
    heads = (*by, "runs", "turns", "tokens in", "tokens out", "cost", "saved")
    columns = [Column(head.capitalize(), left=place < len(by), wide=place == len(by) - 1) for place, head in enumerate(heads)]
    shown = [[*(_line(cell, 60) for cell in line)] for line in [*lines, total]]
    left_out = f"{plural(len(rows) - ROWS, 'earlier row')} left out here, counted in the sums; " if len(rows) > ROWS else ""
    note = f"{left_out}agentroute.cost(tz='local') is a DataFrame of this, agentroute.report(tz='local') draws it"
    return Sheet(
        title,
        columns,
        shown[:-1],
        Table([*lines, total], heads, range(len(by), len(heads))),
        [f"<b>{cell}</b>" for cell in shown[-1]],
        note,
    )


def _key(value: Any) -> str:
    """A day as `2026-11-22`, everything else as it is called."""
    return "" if _missing(value) else f"{value:%Y-%m-%d}" if hasattr(value, "strftime") else str(value)


def _figures(row: dict[str, Any], counts: Sequence[str]) -> list[str]:
    cost, saved, unknown = row["cost_usd"], row["cost_saved_usd"], row["unknown_cost_share"]
    at_least = _at_least(not _missing(unknown) and bool(unknown))
    return [
        *("" if _missing(row[name]) else count_text(int(row[name])) for name in counts),
        "unknown" if _missing(cost) else f"{at_least}{cost_text(float(cost))}",
        "" if _missing(saved) or not saved else f"{_at_least(bool(row['saved_more']))}{cost_text(float(saved))}",
    ]


def _missing(value: Any) -> bool:
    """Whether it is pandas' NA, NaN, NaT or None."""
    import pandas as pd

    return bool(pd.isna(value))


# --------------------------------------------------------------------------------------------------------------- both


def _selection(magic: str, usage: str, words: Sequence[str], filters: dict[str, Any]) -> Selection:
    """The filters, checked; a bare word that is no time is named with all that may stand there."""
    try:
        return Selection.of(**filters)
    except ErrorConfig as error:
        wrong = [word for word in words if filters.get("since") == word]
        if wrong:
            raise ErrorConfig(f"{magic} takes {usage}; got {one_line(wrong[0], 40)!r}{nearest(wrong[0], TIMES + THINGS)}") from None
        raise error


def no_runs(store: RunStore, magic: str) -> str:
    """Why there is no row."""
    if not any(store.select(RunRecord, where=Selection(limit=1), columns=["run_id"])):
        return f"no run is recorded in {store.path} yet; %%agent NAME records one, and so does agent.run(…) in a cell"
    return f"no such run in {store.path}; {magic} without filters shows what there is"
