"""`agentroute logs`: the recorded runs, one of them in full, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..figures import plural, seconds_text
from .choosing import chosen, filters, named, nothing, state, store_option, the_store, wanted
from .terminal import date_words, json_text, one_line, width

if TYPE_CHECKING:
    from ..records import RunRecord
    from ..selection import Selection
    from ..store import RunStore

__all__ = ["logs"]

POLL_S = 0.5
ID_SHOWN = 13
"""Characters of a run id in the list: ten are the millisecond, so these tell apart runs that began in the same one."""
STATUSES = ("ok", "error", "interrupted", "running")


@click.command(short_help="Show the recorded runs, one of them in full, or what they cost.")
@click.argument("run_id", required=False)
@click.option(
    "-n",
    "--last",
    "count",
    metavar="N",
    type=click.IntRange(min=1),
    help="How many runs, the newest; 20 unless told, with --cost all.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on showing runs as they begin, proceed and end, in any process, until Ctrl-C."
)
@filters
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that ended so; running: not ended, or killed.")
@click.option("--cost", is_flag=True, help="What the runs cost, a line for each group (see --by), and in all.")
@click.option("--by", metavar="WHAT,…", help="With --cost: the groups, such as day, model, agent, hour, notebook, tag:NAME; day,model unless told.")
@store_option
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line; with RUN_ID one object with turns, tool calls and messages."
)
def logs(
    run_id: str | None,
    count: int | None,
    follow: bool,
    cost: bool,
    by: str | None,
    path: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Show the recorded runs, newest last; with RUN_ID, or the beginning of one, that run in full.

    Runs get into the history from notebooks, from agents with store=RunStore(), and from `agentroute run`. A run that
    goes on, or was killed, has the status running.

    \b
    Examples:
      agentroute logs
      agentroute logs -n 100 --status error --since 24h
      agentroute logs --tag tenant=a
      agentroute logs --follow
      agentroute logs 01KB8PDE33X
      agentroute logs --cost --since 30d --by model
      agentroute logs --json | jq -s 'map(.cost_usd) | add'
    """
    if run_id is not None and (follow or cost or wanted(given)):
        raise click.UsageError("RUN_ID shows one run; --follow, --cost and what chooses among runs are for many")
    if cost and (follow or given["status"] == "running"):
        raise click.UsageError("--cost sums up runs that have ended; it goes with neither --follow nor --status running")
    if by is not None and not cost:
        raise click.UsageError("--by says how --cost sums up; give both")
    _meant(given)  # wrong usage is told before the file is looked at
    with closing(the_store(path, must_exist=not follow)) as store:
        if run_id is not None:
            _show_one(store, run_id, as_json=as_json)
        elif cost:
            from .cost_view import show_cost

            show_cost(store, by, chosen_runs=wanted(given, limit=count), as_json=as_json)
        else:
            _show_many(store, given, count or 20, follow=follow, as_json=as_json)


def _show_many(store: RunStore, given: dict[str, Any], count: int, *, follow: bool, as_json: bool) -> None:
    table = _Table()
    at = store.watermark()
    shown = _newest(store, given, count)
    for run in shown:
        click.echo(json_text(asdict(run)) if as_json else table.line(run, shown))
    if not shown and not follow:
        click.echo(nothing(store), err=True)
    if follow:
        for run in changes(shown, _when_changed(store, given, at)):
            click.echo(json_text(asdict(run)) if as_json else table.line(run, [*shown, run]))


def _newest(store: RunStore, given: dict[str, Any], count: int) -> list[RunRecord]:
    """The newest runs that are meant, oldest first."""
    where, matches = _meant(given, count)
    return [run for run in _runs(store, where) if matches(run)][-count:]


def _meant(given: dict[str, Any], limit: int | None = None) -> tuple[Selection, Callable[[RunRecord], bool]]:
    """What SQL can say of the runs that are meant, and the rest."""
    status = given["status"]
    if status not in ("interrupted", "running"):
        return chosen(given, limit=limit), lambda run: True
    # Both are `interrupted` in the file, of which there are few.
    return chosen({**given, "status": "interrupted"}), lambda run: state(run) == status


def _runs(store: RunStore, where: Selection, *, after: int | None = None) -> Iterator[RunRecord]:
    from ..records import RunRecord
    from ..tables import TABLES

    with closing(store.chunks(RunRecord, where=where, after=after)) as chunks:
        for rows in chunks:
            yield from map(TABLES[RunRecord].decode, rows)


# ---- following --------------------------------------------------------------------------------------------------------


def changes(shown: Iterable[RunRecord], readings: Iterable[list[RunRecord]]) -> Iterator[RunRecord]:
    """Runs that are new in a reading, or have got on since they were last seen, in the order of the reading."""

    def seen_as(run: RunRecord) -> tuple[object, ...]:
        return run.status, run.duration_s, run.n_turns, run.n_tool_calls, run.input_tokens, run.output_tokens

    seen = {run.run_id: seen_as(run) for run in shown}
    for reading in readings:
        for run in reading:
            if seen.get(run.run_id) != seen_as(run):
                seen[run.run_id] = seen_as(run)
                yield run


def _when_changed(store: RunStore, given: dict[str, Any], at: tuple[int, int]) -> Iterator[list[RunRecord]]:
    """The runs written since, each time the file or its log has changed; looks twice a second."""
    where, matches = _meant(given)
    begun = datetime.now(UTC)
    before: object = None
    while True:
        now = [_stamp(f"{store.path}{ending}") for ending in ("", "-wal")]
        if now != before:
            before, last = now, at
            at = store.watermark()
            after = last[1] if at[1] >= last[1] else 0  # another file has taken its place
            written = _runs(store, where, after=after)
            # One that had ended before is scored now, or given another price.
            yield [run for run in written if matches(run) and not _ended_before(run, begun)]
        time.sleep(POLL_S)


def _ended_before(run: RunRecord, moment: datetime) -> bool:
    return run.duration_s is not None and run.started_at + timedelta(seconds=run.duration_s) < moment


def _stamp(path: str) -> tuple[int, int] | None:
    import os

    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


# ---- lines ------------------------------------------------------------------------------------------------------------


class _Table:
    """Runs as lines. The columns are as wide as the first lines need, so that lines which come later stand below them."""

    def __init__(self) -> None:
        self._widths: list[int] = []
        self._columns = width()

    def line(self, run: RunRecord, runs: list[RunRecord]) -> str:
        if not self._widths:
            self._widths = [max(map(len, column)) for column in zip(*map(self._cells, runs), strict=True)]
        cells = zip(
            self._cells(run),
            self._widths,
            (str.ljust, str.ljust, str.ljust, str.ljust, str.ljust, str.rjust, str.rjust, str.rjust),
            strict=True,
        )
        start = "  ".join(place(cell, size) for cell, size, place in cells if size)
        words = run.error_text if run.status == "error" and run.error_text else run.prompt_text
        return f"{start}  {one_line(words, max(20, self._columns - len(start) - 3))}".rstrip()

    def _cells(self, run: RunRecord) -> tuple[str, ...]:
        from .run_view import run_cost

        wide = self._columns >= 110
        return (
            date_words(run.started_at),
            run.run_id[:ID_SHOWN],
            state(run),
            one_line(run.agent_name, 16),
            one_line(run.request_model, 30) if wide else "",
            plural(run.n_turns, "turn") if wide else "",
            run_cost(run) if run.n_turns else "",
            seconds_text(run.duration_s),
        )


def _show_one(store: RunStore, start: str, *, as_json: bool) -> None:
    from .run_view import shown

    record = store.record(named(store, start))
    click.echo(json_text(asdict(record)) if as_json else shown(record))
