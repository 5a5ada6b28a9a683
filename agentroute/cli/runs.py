"""`agentroute runs`: what is done to recorded runs afterwards."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from ..errors import ErrorConfig
from ..figures import cost_text, plural
from .choosing import chosen, filters, named, store_option, the_store, wanted
from .terminal import argument_text

__all__ = ["runs"]

TABLES = ("runs", "turns", "tool_calls", "messages", "scores")
FORMATS = ("parquet", "csv", "jsonl", "db")
_yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_status = click.option(
    "--status", type=click.Choice(["ok", "error", "interrupted"]), help="Only runs that ended so; interrupted: also those that go on."
)


@click.group(short_help="Export, judge, delete and check the recorded runs.")
def runs() -> None:
    """Export, judge, delete and check the recorded runs; `agentroute logs` shows them.

    \b
    Examples:
      agentroute runs export history
      agentroute runs score 01KB8PDE33X helpful 1
      agentroute runs prune --older-than 90d
    """


# ---- export -----------------------------------------------------------------------------------------------------------


@runs.command("export", short_help="Write the runs to files that other programs read.")
@click.argument("destination", type=click.Path())
@click.option("--format", "kind", type=click.Choice(FORMATS), help="Guessed from DESTINATION unless told.")
@click.option("--table", type=click.Choice(TABLES), help="What a CSV or JSONL file holds; runs unless told.")
@filters
@_status
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the newest so many runs.")
@store_option
def export(destination: str, kind: str | None, table: str | None, path: str | None, limit: int | None, **given: Any) -> None:
    """Write the runs to DESTINATION: a directory gets Parquet files, NAME.csv or NAME.jsonl one table, NAME.db a copy of
    the whole history; `-` is stdout, in JSONL unless --format says CSV.

    Files that are there already are replaced, but for a copy of the history. They are readable by you only.

    \b
    Examples:
      agentroute runs export history --since 30d
      agentroute runs export week.csv --since 7d
      agentroute runs export - --table turns | jq .cost_usd
      agentroute runs export copy.db
    """
    destination = argument_text(destination)
    if not destination:
        raise click.UsageError("DESTINATION is empty; '.' is this directory")
    kind = kind or _format_of(destination)
    if table is not None and kind not in ("csv", "jsonl"):
        raise click.UsageError("--table is for CSV and JSONL; Parquet and copies hold all tables")
    where = chosen(given, limit=limit)
    if kind == "db" and not where.all:
        raise click.UsageError("a copy of the history holds all runs; export Parquet, CSV or JSONL to choose among them")
    if destination == "-" and kind not in ("csv", "jsonl"):
        raise click.UsageError("stdout takes csv or jsonl")
    with closing(the_store(path)) as store:
        if not store.path.exists():
            from .choosing import nothing

            raise click.ClickException(nothing(store))
        if kind in ("csv", "jsonl"):
            from .rows import write_rows

            write_rows(store, table or "runs", where, kind, destination)
            return
        from ..exports import snapshot, to_parquet

        if kind == "db":
            click.echo(f"The history is copied to {snapshot(destination, store)}.", err=True)
            return
        files = to_parquet(destination, store, **wanted(given, limit=limit))
    click.echo(f"{plural(len(files), 'Parquet file')} in {destination}: {', '.join(Path(file).name for file in files)}.", err=True)


def _format_of(destination: str) -> str:
    """The format that a name speaks of.

    Raises:
        click.UsageError: it speaks of none.
    """
    path = Path(destination)
    if destination == "-":
        return "jsonl"
    if path.is_dir() or destination.endswith(("/", "\\")):
        return "parquet"
    found = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".db": "db", ".sqlite": "db", "": "parquet"}.get(path.suffix.lower())
    if found is None:
        advice = "Parquet takes a directory, one file a table" if path.suffix.lower() in (".parquet", ".pq") else "write --format"
        raise click.UsageError(f"{path.name!r} does not say in which format to write ({', '.join(FORMATS)}); {advice}")
    return found


# ---- scores -----------------------------------------------------------------------------------------------------------


@runs.command("score", short_help="Say what a run was worth.", context_settings={"ignore_unknown_options": True})
@click.argument("run_id")
@click.argument("name")
@click.argument("value")
@click.option("--note", metavar="TEXT", help="Why.")
@click.option("--scorer", metavar="NAME", default="", help="Who judged, where several do.")
@store_option
def score(run_id: str, name: str, value: str, note: str | None, scorer: str, path: str | None) -> None:
    """Say of the run RUN_ID, or the beginning of one, what it was worth: NAME is VALUE, a number, true (1), false (0) or
    a word. Another score of the same run, name and scorer takes its place.

    \b
    Examples:
      agentroute runs score 01KB8PDE33X helpful 1 --note "found the order"
      agentroute runs score 01KB8PDE33X tone friendly
    """
    from .. import upkeep

    judged = _value(argument_text(value))
    with closing(the_store(path)) as store:
        found = named(store, run_id)
        text = None if note is None else argument_text(note)
        try:
            upkeep.score(found, argument_text(name), judged, note=text, scorer=argument_text(scorer), store=store)
        except ErrorConfig as error:
            raise click.UsageError(str(error)) from None
    click.echo(f"{found}: {argument_text(name)} is {argument_text(value)}.", err=True)


def _value(text: str) -> float | str:
    if text.lower() in ("true", "false"):
        return float(text.lower() == "true")
    try:
        number = float(text)
    except ValueError:
        return text
    if not math.isfinite(number):
        raise click.UsageError(f"VALUE is a finite number, true, false or a word; got {text}")
    return number


# ---- deleting ---------------------------------------------------------------------------------------------------------


@runs.command("forget", short_help="Delete runs for good.")
@click.argument("run_ids", metavar="RUN_ID...", nargs=-1, required=True)
@_yes
@store_option
def forget(run_ids: tuple[str, ...], yes: bool, path: str | None) -> None:
    """Delete the runs RUN_ID, or the beginnings of ids, and the runs nested in them for good: no byte of their text is
    left in the history, its caches and the backups of upgrades.

    What a conversation's memory holds, and files you have exported, stay.

    \b
    Examples:
      agentroute runs forget 01KB8PDE33X
      agentroute runs forget 01KB8PDE33X 01KB8PDE9QZ --yes
    """
    from .. import upkeep

    with closing(the_store(path)) as store:
        found = [named(store, start) for start in run_ids]
        count, cost = upkeep.deleted_by(forget=found, store=store)
        nested = count - len(set(found))
        _ask(f"Delete {_amount(count, cost)}{f', {nested:,} of them nested in others' if nested else ''}, for good?", yes)
        click.echo(f"{plural(upkeep.forget(found, store=store), 'run')} deleted.", err=True)


@runs.command("prune", short_help="Delete old runs for good.")
@click.option("--older-than", metavar="TIME", required=True, help="Runs begun longer ago: 90d (also s, m, h, w), 2026-11-01.")
@click.option("--dry-run", is_flag=True, help="Say how many runs these are, and delete none.")
@_yes
@store_option
def prune(older_than: str, dry_run: bool, yes: bool, path: str | None) -> None:
    """Delete the runs that began longer ago, for good; the file shrinks. A run goes together with the runs nested in it,
    when the newest of them is old enough.

    \b
    Examples:
      agentroute runs prune --older-than 90d --dry-run
      agentroute runs prune --older-than 90d --yes
    """
    from .. import upkeep

    before = argument_text(older_than)
    with closing(the_store(path)) as store:
        try:
            count, cost = upkeep.deleted_by(prune=before, store=store)
        except ErrorConfig as error:
            raise click.UsageError(f"--{str(error).replace('_', '-', 1)}") from None
        if not count:
            click.echo(f"No run is older in {store.path}.", err=True)
            return
        if dry_run:
            click.echo(f"{_amount(count, cost)} would be deleted.", err=True)
            return
        _ask(f"Delete {_amount(count, cost)}, for good?", yes)
        click.echo(f"{plural(upkeep.prune(before, store=store), 'run')} deleted.", err=True)


def _amount(count: int, cost_usd: float | None) -> str:
    return f"{plural(count, 'run')} ({cost_text(cost_usd)})"


def _ask(question: str, yes: bool) -> None:
    """Goes on only with a yes.

    Raises:
        click.UsageError: there is nobody to ask.
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError(f"{question} Nobody can be asked here: give --yes")
    if not click.confirm(question, err=True):
        click.echo("Nothing was deleted.", err=True)
        raise click.exceptions.Exit(1)


# ---- the rest ---------------------------------------------------------------------------------------------------------


@runs.command("reprice", short_help="Price calls whose cost is unknown, from the price table of now.")
@filters
@_status
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Only the newest so many runs.")
@click.option("--dry-run", is_flag=True, help="Say what would be filled in, and leave everything as it is.")
@store_option
def reprice(path: str | None, limit: int | None, dry_run: bool, **given: Any) -> None:
    """Give model calls whose cost nobody reported the cost that the price table of now says. What a provider reported
    stays as it is.

    \b
    Example:
      agentroute runs reprice --since 30d
    """
    chosen(given, limit=limit)
    with closing(the_store(path)) as store:
        from ..repricing import reprice as price_again

        filled = price_again(store, dry_run=dry_run, **wanted(given, limit=limit))
    turns = plural(len(filled), "model call")
    click.echo(f"{turns} {'would be ' if dry_run else ''}priced, {cost_text(float(filled['cost_usd'].sum()))} in all." if len(filled) else "No cost was filled in.", err=True)


@runs.command("check", short_help="Look whether the history's file is sound.")
@store_option
def check(path: str | None) -> None:
    """Look whether the history's file is sound; exit code 1 where it is not.

    \b
    Example:
      agentroute runs check
    """
    with closing(the_store(path)) as store:
        problems: Iterable[str] = store.check()
        for problem in (found := list(problems)):
            click.echo(problem)
        if found:
            raise click.ClickException(f"{store.path} is damaged; move it away, or restore it from a backup")
        there = store.path.exists()
        click.echo(f"{store.path} is sound." if there else f"{store.path} does not exist yet.")
