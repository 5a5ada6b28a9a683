"""What is done to recorded runs afterwards: `score` judges one, `forget` and `prune` delete."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .errors import ErrorConfig, ErrorStore, tell
from .figures import plural
from .frames import StoreLike, reading
from .records import Record, ScoreRecord
from .result import Result
from .selection import moment
from .store import RunStore

if TYPE_CHECKING:
    import sqlite3

__all__ = ["deleted_by", "forget", "prune", "score"]

RunLike = str | Result[Any] | Record
Age = str | timedelta | date | datetime
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def score(
    run_id: RunLike, name: str, value: float | str, *, note: str | None = None, scorer: str = "", store: StoreLike = None
) -> None:
    """Says what a run was worth: a row of `agentroute.scores()` and a column `score_<name>` of `agentroute.runs()`.

    Another score of the same run, name and scorer takes its place.

    Args:
        run_id: a run's id, or its Result.
        value: a number, True (1) or False (0), or a word such as "good", which is kept as the score's label.
        note: why.
        scorer: who judged, where several do.
        store: where the run is recorded; None is the store set for this process, else the default file.

    Raises:
        ErrorConfig: an argument is something else; NaN and infinity are no scores.
        ErrorStore: there is no such run.
    """
    for what, text in {"name": name, "scorer": scorer, "note": "" if note is None else note}.items():
        if not isinstance(text, str) or (what == "name" and not text.strip()):
            raise ErrorConfig(f"the {what} of a score must be a text, such as {'helpful' if what == 'name' else 'Zoe'!r}; got {text!r:.80}")
    number, label = _judged(value)
    run = _id_of(run_id)
    made = ScoreRecord(run_id=run, name=name.strip(), scorer=scorer, value=number, label=label, note=note, scored_at=datetime.now(UTC))
    with reading(store) as history:
        history.save_score(made)


def _judged(value: Any) -> tuple[float | None, str | None]:
    """A score as a number, or as a label."""
    if isinstance(value, str) and value.strip():
        return None, value.strip()
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)  # numpy's numbers too
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ErrorConfig(f"a score is a finite number, True, False or a word; got {value!r:.80}")
    return number, None


def forget(run_id: RunLike | Iterable[RunLike], *, store: StoreLike = None) -> int:
    """Deletes runs and the runs nested in them for good; returns how many that were.

    With a run go its turns, tool calls, messages, scores, and what replay would serve of it. No byte of its text is left
    in the file, its log, the column cache or a backup that an upgrade made. What others hold is theirs: a conversation's
    memory, runs that replayed its answers, the run whose tool started it, your own exports and copies.

    A run that is still going on writes itself anew: stop it first.

    Raises:
        ErrorConfig: no run is named.
        ErrorStore: one of the runs is not there, and then none is deleted; or the file cannot be used.
    """
    wanted = _ids(run_id)
    with reading(store) as history:
        if not _is_there(history):
            raise _missing(wanted, history)
        with history.transaction(erase=True) as connection:
            gone = _nested(connection, wanted, history)
            _delete(connection, gone)
        _clean(history, len(gone))
    return len(gone)


def prune(older_than: Age, *, store: StoreLike = None) -> int:
    """Deletes the runs that began longer ago, for good, as `forget` does; returns how many those were. The file shrinks.

    A run and the runs nested in it go together, when the newest of them is old enough.

    Args:
        older_than: "90d" (also s, m, h, w), a timedelta, a date or a datetime.

    Raises:
        ErrorConfig: `older_than` is none of these.
        ErrorStore: the file cannot be used.
    """
    before = _moment(older_than)
    with reading(store) as history:
        if not _is_there(history):
            return 0
        with history.transaction(erase=True) as connection:
            gone = _older(connection, before)
            _delete(connection, gone)
        _clean(history, len(gone))
    return len(gone)


def deleted_by(
    *, forget: RunLike | Iterable[RunLike] | None = None, prune: Age | None = None, store: StoreLike = None
) -> tuple[int, float | None]:
    """How many runs `forget(…)` or `prune(…)` would delete, and what they cost in USD, as far as that is known; None: of no one.

    Raises:
        ErrorConfig, ErrorStore: as these two do.
    """
    wanted = None if forget is None else _ids(forget)
    before = _moment(prune) if wanted is None else _EPOCH
    with reading(store) as history:
        if not _is_there(history):
            if wanted is not None:
                raise _missing(wanted, history)
            return 0, None
        with history.transaction() as connection:
            gone = _nested(connection, wanted, history) if wanted is not None else _older(connection, before)
            sql = f"SELECT sum(cost_usd) FROM runs WHERE run_id IN {_GIVEN}"
            return len(gone), connection.execute(sql, (json.dumps(gone),)).fetchone()[0]


# ---- arguments --------------------------------------------------------------------------------------------------------


def _id_of(run: Any) -> str:
    if isinstance(run, Result):
        if run.record is None:
            raise ErrorConfig("this Result has no record, so it names no run; give the run's id")
        return run.record.run.run_id
    if isinstance(run, Record):
        return run.run.run_id
    if not isinstance(run, str) or not run:
        raise ErrorConfig(f"a run is named by its id or its Result, got {type(run).__name__}: {run!r:.80}")
    return run


def _ids(runs: Any) -> list[str]:
    several = not isinstance(runs, str | Result | Record) and isinstance(runs, Iterable)
    ids = [_id_of(run) for run in (runs if several else [runs])]
    if not ids:
        raise ErrorConfig("no run is named; give a run's id, or several")
    return list(dict.fromkeys(ids))


def _moment(older_than: Any) -> datetime:
    if (before := moment("older_than", older_than, datetime.now(UTC))) is None:
        raise ErrorConfig("older_than must be a time such as '90d', a date or a datetime; got None")
    return before


def _missing(run_ids: list[str], history: RunStore) -> ErrorStore:
    names = ", ".join(map(repr, run_ids[:3])) + (f" and {len(run_ids) - 3} more" if len(run_ids) > 3 else "")
    return ErrorStore(f"there is no run {names} in {history.path}; nothing was deleted. agentroute.runs() lists those there are")


def _is_there(history: RunStore) -> bool:
    return history.watermark() != (0, 0)


# ---- which runs -------------------------------------------------------------------------------------------------------

_GIVEN = "(SELECT value FROM json_each(?))"


def _nested(connection: sqlite3.Connection, run_ids: list[str], history: RunStore) -> list[str]:
    """These runs and those nested in them, however deep. Of a run that was not recorded there may be answers for replay."""
    sql = (
        f"WITH RECURSIVE family(run_id) AS (SELECT run_id FROM runs WHERE run_id IN {_GIVEN} "
        "UNION SELECT runs.run_id FROM family JOIN runs ON runs.parent_run_id = family.run_id) "
        f"SELECT run_id FROM family UNION SELECT run_id FROM places WHERE run_id IN {_GIVEN}"
    )
    found = [run_id for (run_id,) in connection.execute(sql, (json.dumps(run_ids),) * 2)]
    if missing := sorted(set(run_ids) - set(found)):
        raise _missing(missing, history)
    return found


def _older(connection: sqlite3.Connection, before: datetime) -> list[str]:
    """The runs of families whose newest run began before then. A run whose outer run is not there heads a family."""
    cutoff = (before - _EPOCH) // timedelta(microseconds=1)
    sql = (
        "WITH RECURSIVE family(head, run_id, started_at) AS ("
        "SELECT run_id, run_id, started_at FROM runs AS head WHERE started_at < ?1 AND "
        "NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = head.parent_run_id) "
        "UNION SELECT head, runs.run_id, runs.started_at FROM family JOIN runs ON runs.parent_run_id = family.run_id) "
        "SELECT run_id FROM family WHERE head NOT IN (SELECT head FROM family WHERE started_at >= ?1) "
        "UNION SELECT run_id FROM places WHERE NOT EXISTS (SELECT 1 FROM runs WHERE runs.run_id = places.run_id) "
        "GROUP BY run_id HAVING max(created_at) < ?1"
    )
    return [run_id for (run_id,) in connection.execute(sql, (cutoff,))]


# ---- deleting ---------------------------------------------------------------------------------------------------------


def _delete(connection: sqlite3.Connection, run_ids: list[str]) -> None:
    """All rows of these runs, and the texts nobody refers to any more."""
    from .tables import TABLES

    given = (json.dumps(run_ids),)
    connection.execute(f"DELETE FROM answers WHERE place_id IN (SELECT place_id FROM places WHERE run_id IN {_GIVEN})", given)
    for name in [*(table.name for table in TABLES.values()), "places"]:
        connection.execute(f"DELETE FROM {name} WHERE run_id IN {_GIVEN}", given)
    bodies = [(table.name, f"{table.names[index]}_body") for table in TABLES.values() for index in table.longs]
    bodies += [("answers", "content_body"), ("answers", "tool_calls_body")]
    held = " UNION ALL ".join(f"SELECT {column} FROM {name} WHERE {column} IS NOT NULL" for name, column in bodies)
    connection.execute(f"DELETE FROM bodies WHERE hash NOT IN ({held})")
    connection.execute("UPDATE state SET value = value + 1 WHERE name = 'epoch'")


def _clean(history: RunStore, count: int) -> None:
    """Takes what is left of deleted runs out of the file, and out of copies of it that were made beside it."""
    if not count:
        return
    from .column_cache import drop_cache
    from .tables import forget_bodies

    drop_cache(history.path)
    forget_bodies()
    for backup in history.backups():
        backup.unlink(missing_ok=True)
        tell(f"{backup}, kept before an upgrade, is deleted too, because the runs that were to go may be in it")
    try:
        done = history.compact()
    except ErrorStore as error:
        tell(f"{plural(count, 'run')} deleted, but the file keeps its size, and may hold traces of them; its store's compact() tries again: {error}")
        return
    if not done:
        tell(f"{plural(count, 'run')} deleted, but {history.path}-wal may hold traces of them until nobody reads the file any more")
