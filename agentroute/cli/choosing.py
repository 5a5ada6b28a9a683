"""Which recorded runs a command means: the options that choose among them, and ids by their beginning."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ErrorConfig
from .terminal import argument_text, date_words

if TYPE_CHECKING:
    from ..records import RunRecord
    from ..selection import Selection
    from ..store import RunStore

__all__ = ["chosen", "filters", "named", "nothing", "state", "store_option", "the_store", "wanted"]

SHORTEST = 4
"""Characters of an id: with a variable that is empty, a run would be named that nobody meant."""
_FILTERS = ("since", "until", "agent", "model", "status", "tag", "notebook", "text")

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

store_option: Callable[[CommandT], CommandT] = click.option(
    "--store",
    "path",
    metavar="PATH",
    type=click.Path(),
    help="The history's file; else $AGENTROUTE_RUNS, else ~/.agentroute/runs.db.",
)

_OPTIONS = (
    click.option("--since", metavar="TIME", help="Only runs begun since then: 7d (ago; also s, m, h, w), 2026-11-01, 2026-11-01T09:30."),
    click.option("--until", metavar="TIME", help="Only runs begun before then."),
    click.option("--agent", metavar="NAME", multiple=True, help="Only runs of the agent of this name. May be given again."),
    click.option("--model", metavar="MODEL", multiple=True, help="Only runs that asked for this model, or were answered by it. May be given again."),
    click.option("--tag", metavar="NAME[=VALUE]", multiple=True, help="Only runs with this tag. May be given again: all must hold."),
    click.option("--notebook", metavar="NAME", multiple=True, help="Only runs of this notebook. May be given again."),
    click.option("--text", metavar="TEXT", help="Only runs whose prompt or answer holds this, in capitals or not."),
)


def filters(command: CommandT) -> CommandT:
    """Adds the options that choose among runs, but for `--status`; `chosen` and `wanted` take their values."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def chosen(given: dict[str, Any], *, limit: int | None = None) -> Selection:
    """The runs that these options mean.

    Raises:
        click.UsageError: an option is wrong.
    """
    from ..selection import Selection

    try:
        return Selection.of(**wanted(given, limit=limit))
    except ErrorConfig as error:
        raise click.UsageError(str(error)) from None


def wanted(given: dict[str, Any], *, limit: int | None = None) -> dict[str, Any]:
    """The options that were given, as the functions of the library take them."""
    found: dict[str, Any] = {} if limit is None else {"limit": limit}
    for name in _FILTERS:
        value = given.get(name)
        if value is not None and value != ():
            found[name] = tuple(map(argument_text, value)) if isinstance(value, tuple) else argument_text(value)
    return found


def the_store(path: str | None, *, must_exist: bool = True) -> RunStore:
    """The history that is meant; not opened yet.

    Raises:
        click.ClickException: a file was named that is not there.
    """
    from ..store import RunStore

    store = RunStore(path)
    if path is not None and must_exist and not store.path.exists():
        raise click.ClickException(f"there is no file {store.path}")
    return store


def state(run: RunRecord) -> str:
    """The record's status; `running` for a run that nobody has ended."""
    return "running" if run.going_on else run.status


def named(store: RunStore, start: str) -> str:
    """The id of the run whose id begins so.

    Raises:
        click.ClickException: there is none, or several.
    """
    from ..records import RunRecord
    from ..selection import Selection

    if len(start) < SHORTEST:
        raise click.UsageError(f"a run is named by its id, or the first {SHORTEST} characters of it or more; got {start!r}")
    if any(store.select(RunRecord, where=Selection(run_id=(start,)), columns=["run_id"])):
        return start
    known: list[str] = [run_id for (run_id,) in store.select(RunRecord, columns=["run_id"])]
    found = [run_id for run_id in known if run_id.startswith(start.upper())]
    if not known:
        raise click.ClickException(nothing(store))
    if not found:
        raise click.ClickException(f"no run in {store.path} has an id that begins with {start}; `agentroute logs` lists them")
    if len(found) > 1:
        from ..tables import TABLES

        newest = map(TABLES[RunRecord].decode, store.select(RunRecord, where=Selection(run_id=tuple(found[-10:]))))
        some = "\n".join(f"  {run.run_id}  {date_words(run.started_at)}" for run in newest)
        raise click.ClickException(f"{len(found)} runs have an id that begins with {start}; give more of it. The newest:\n{some}")
    return found[0]


def nothing(store: RunStore) -> str:
    """That there is no run, in words."""
    if not store.path.exists():
        return f"No run is recorded yet: {store.path} does not exist. `agentroute run` and notebooks record theirs; an Agent does with store=RunStore()."
    return f"No such run in {store.path}."
