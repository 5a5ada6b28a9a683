"""`agentroute logs`: the recorded runs, and one of them in full."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from ..figures import cost_text, plural, seconds_text
from .terminal import date_words, json_text, one_line, width

if TYPE_CHECKING:
    from ..records import RunRecord
    from ..store import RunStore

__all__ = ["logs"]

POLL_S = 0.5
ID_SHOWN = 13
"""Characters of a run id in the list: ten are the millisecond, so these tell apart runs that began in the same one."""
STATUSES = ("ok", "error", "interrupted", "running")


@click.command(short_help="Show the recorded runs, or one of them in full.")
@click.argument("run_id", required=False)
@click.option(
    "-n",
    "--last",
    "count",
    metavar="N",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="How many runs, the newest.",
)
@click.option(
    "-f", "--follow", is_flag=True, help="Go on showing runs as they begin, proceed and end, in any process, until Ctrl-C."
)
@click.option("--agent", metavar="NAME", help="Only runs of the agent of this name.")
@click.option("--status", type=click.Choice(STATUSES), help="Only runs that ended so; running: not ended, or killed.")
@click.option(
    "--store",
    "path",
    metavar="PATH",
    type=click.Path(),
    help="The history's file; else $AGENTROUTE_RUNS, else ~/.agentroute/runs.db.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="One JSON object a line; with RUN_ID one object with turns, tool calls and messages."
)
def logs(
    run_id: str | None, count: int, follow: bool, agent: str | None, status: str | None, path: str | None, as_json: bool
) -> None:
    """Show the recorded runs, newest last; with RUN_ID, or the beginning of one, that run in full.

    Runs get into the history from notebooks, from agents with store=RunStore(), and from `agentroute run`. A run that
    goes on, or was killed, has the status running.

    \b
    Examples:
      agentroute logs
      agentroute logs -n 100 --status error
      agentroute logs --follow
      agentroute logs 01KB8PDE33X
      agentroute logs --json | jq -s 'map(.cost_usd) | add'
    """
    from ..store import RunStore

    if run_id is not None and (follow or agent or status):
        raise click.UsageError("RUN_ID shows one run; --follow, --agent and --status choose among many")
    store = RunStore(path)
    with closing(store):
        if path is not None and not store.path.exists() and not follow:
            raise click.ClickException(f"there is no file {store.path}")
        if run_id is not None:
            _show_one(store, run_id, as_json=as_json)
            return

        def read() -> list[RunRecord]:
            return list(deque((run for run in _runs(store) if _matches(run, agent, status)), maxlen=count))

        table = _Table()
        shown = read()
        for run in shown:
            click.echo(json_text(asdict(run)) if as_json else table.line(run, shown))
        if not shown and not follow:
            click.echo(_nothing(store), err=True)
        if follow:
            for run in changes(shown, _when_changed(store, read)):
                click.echo(json_text(asdict(run)) if as_json else table.line(run, [*shown, run]))


def _runs(store: RunStore) -> Iterator[RunRecord]:
    from ..records import RunRecord
    from ..store import TABLES

    return map(TABLES[RunRecord].decode, store.select(RunRecord))


def _state(run: RunRecord) -> str:
    """The record's status; `running` for a run that nobody has ended."""
    return "running" if run.status == "interrupted" and run.duration_s is None else run.status


def _matches(run: RunRecord, agent: str | None, status: str | None) -> bool:
    return (agent is None or run.agent_name == agent) and (status is None or _state(run) == status)


def _nothing(store: RunStore) -> str:
    if not store.path.exists():
        return f"No run is recorded yet: {store.path} does not exist. `agentroute run` and notebooks record theirs; an Agent does with store=RunStore()."
    return f"No such run in {store.path}."


# ---- following --------------------------------------------------------------------------------------------------------


def changes(shown: Iterable[RunRecord], readings: Iterable[list[RunRecord]]) -> Iterator[RunRecord]:
    """Runs that are new in a reading, or have got on since they were last seen, in the order of the reading."""

    def state(run: RunRecord) -> tuple[object, ...]:
        return run.status, run.duration_s, run.n_turns, run.n_tool_calls, run.input_tokens, run.output_tokens

    seen = {run.run_id: state(run) for run in shown}
    for reading in readings:
        for run in reading:
            if seen.get(run.run_id) != state(run):
                seen[run.run_id] = state(run)
                yield run


def _when_changed(store: RunStore, read: Callable[[], list[RunRecord]]) -> Iterator[list[RunRecord]]:
    """A reading each time the file or its log has changed; looks twice a second."""
    before: object = None
    while True:
        now = [_stamp(f"{store.path}{ending}") for ending in ("", "-wal")]
        if now != before:
            before = now
            yield read()
        time.sleep(POLL_S)


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
        wide = self._columns >= 110
        return (
            date_words(run.started_at),
            run.run_id[:ID_SHOWN],
            _state(run),
            one_line(run.agent_name, 16),
            one_line(run.request_model, 30) if wide else "",
            plural(run.n_turns, "turn") if wide else "",
            cost_text(run.cost_usd) if run.n_turns else "",
            seconds_text(run.duration_s),
        )


def _show_one(store: RunStore, start: str, *, as_json: bool) -> None:
    """The run whose id begins so.

    Raises:
        click.ClickException: there is none, or several.
    """
    from .run_view import shown

    known = {run.run_id: run for run in _runs(store)}
    found = [start] if start in known else [run_id for run_id in known if run_id.startswith(start.upper())]
    if not found:
        raise click.ClickException(
            _nothing(store)
            if not known
            else f"no run in {store.path} has an id that begins with {start}; `agentroute logs` lists them"
        )
    if len(found) > 1:
        some = "\n".join(f"  {run_id}  {date_words(known[run_id].started_at)}" for run_id in found[-10:])
        raise click.ClickException(f"{len(found)} runs have an id that begins with {start}; give more of it. The newest:\n{some}")
    record = store.record(found[0])
    click.echo(json_text(asdict(record)) if as_json else shown(record))
