"""Which runs are meant: the filters that the DataFrames, the cost functions and the command line share."""

from __future__ import annotations

import json
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, ParamSpec, SupportsIndex, TypedDict, TypeVar

from .errors import ErrorConfig

if TYPE_CHECKING:
    import sqlite3

__all__ = ["Filters", "Moment", "Selection", "Tags", "Texts", "moment", "with_hints"]

P = ParamSpec("P")
R = TypeVar("R")

_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
STATUSES = ("ok", "error", "interrupted")

Texts = str | Iterable[str] | None
Moment = str | date | datetime | timedelta | None
Tags = str | Iterable[str] | Mapping[str, str] | None


class Filters(TypedDict, total=False):
    """The filters of `Selection.of` as keyword arguments."""

    since: Moment
    until: Moment
    agent: Texts
    model: Texts
    status: Texts
    tag: Tags
    notebook: Texts
    run_id: Texts
    text: str | None
    limit: int | None


def with_hints(function: Callable[P, R]) -> Callable[P, R]:
    """The function; an argument that it has not is an `ErrorConfig` with the nearest one it has. `**filters` are `Filters`."""
    parameters = signature(function).parameters.values()
    names = [each.name for each in parameters if each.kind is not Parameter.VAR_KEYWORD]
    if len(names) < len(parameters):
        names += [name for name in Filters.__annotations__ if name not in names]

    @wraps(function)
    def hinting(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in names:
                near = get_close_matches(name, names, 1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {', '.join(names)}"
                raise ErrorConfig(f"{function.__name__} takes no {name!r:.80}; {hint}")
        return function(*args, **kwargs)

    return hinting


@dataclass(frozen=True)
class Selection:
    """Filters on runs; what is None does not filter. Made by `of`, which checks and parses."""

    since: datetime | None = None
    until: datetime | None = None
    agent: tuple[str, ...] | None = None
    model: tuple[str, ...] | None = None
    status: tuple[str, ...] | None = None
    tag: tuple[tuple[str, str | None], ...] = ()
    notebook: tuple[str, ...] | None = None
    run_id: tuple[str, ...] | None = None
    text: str | None = None
    limit: int | None = None

    @classmethod
    def of(
        cls,
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
        now: datetime | None = None,
    ) -> Selection:
        """The filters as people write them.

        Args:
            since, until: runs begun from then on, and before then: "7d" (ago; also s, m, h, w), a date, a datetime, ISO text.
                What names no time zone is of this machine's.
            agent, model, status, notebook, run_id: a text, or several of which one must be equal. A run is of the model it was
                told, of those its turns asked for (`qwen3:4b` of `ollama/qwen3:4b`), and of those that answered.
            tag: "tenant=a", "tenant" (has it), several, or {"tenant": "a"}: all must hold.
            text: what the prompt or the answer holds, as it is typed (`%` and `_` are letters), in capitals or not.
            limit: only the newest so many runs.

        Raises:
            ErrorConfig: a filter that is none.
        """
        if isinstance(limit, SupportsIndex) and not isinstance(limit, bool):
            limit = min(operator.index(limit), 2**63 - 1)  # numpy's as well, and not more than SQLite takes
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
            raise ErrorConfig(f"limit must be a number of runs, such as 100, or None for all; got {limit!r:.80}")
        now = now or datetime.now(UTC)
        begin, end = moment("since", since, now), moment("until", until, now)
        if begin is not None and end is not None and begin > end:
            raise ErrorConfig(f"since must come before until; got since={since!r:.80}, until={until!r:.80}")
        return cls(
            since=begin,
            until=end,
            agent=_texts("agent", agent),
            model=_texts("model", model),
            status=_statuses(status),
            tag=_tags(tag),
            notebook=_texts("notebook", notebook),
            run_id=_texts("run_id", run_id),
            text=_words(text),
            limit=limit,
        )

    @property
    def all(self) -> bool:
        """Whether every run is meant."""
        return self == Selection()

    def prepare(self, connection: sqlite3.Connection) -> None:
        """Gives a connection what `sql` calls there; for this selection only."""
        if self.text is not None:
            connection.create_function("holds_text", 1, _holder(self.text.casefold()), deterministic=True)

    def sql(self) -> tuple[str, list[Any]]:
        """The condition on a row `run` of the table runs, and its parameters; for connections that `prepare` has seen."""
        parts: list[str] = []
        given: list[Any] = []
        for sign, when in ((">=", self.since), ("<", self.until)):
            if when is not None:
                parts.append(f"run.started_at {sign} ?")
                given.append((when - _EPOCH) // timedelta(microseconds=1))
        for column, texts in {"agent_name": self.agent, "status": self.status, "notebook": self.notebook, "run_id": self.run_id}.items():
            if texts is not None:
                parts.append(f"run.{column} IN (SELECT value FROM json_each(?))")
                given.append(json.dumps(texts))
        if self.model is not None:
            of_turn = " OR ".join(f"turns.{column} IN (SELECT value FROM json_each(?))" for column in ("request_model", "response_model"))
            in_turns = f"EXISTS (SELECT 1 FROM turns WHERE turns.run_id = run.run_id AND ({of_turn}))"
            parts.append(f"(run.request_model IN (SELECT value FROM json_each(?)) OR {in_turns})")
            given += [json.dumps(self.model)] * 3
        for name, value in self.tag:
            found = "SELECT 1 FROM json_each(iif(json_valid(run.tags), run.tags, NULL)) AS tag WHERE tag.key = ?"
            parts.append(f"EXISTS ({found}{'' if value is None else ' AND tag.value = ?'})")
            given += [name] if value is None else [name, value]
        if self.text is not None:  # last: packed texts have to be unpacked for it
            bodies = (f"coalesce(run.{name}, (SELECT data FROM bodies WHERE hash = run.{name}_body))" for name in ("prompt_text", "output_text"))
            parts.append(f"({' OR '.join(f'holds_text({body})' for body in bodies)})")
        condition = " AND ".join(parts) or "1"
        if self.limit is not None:
            newest = f"SELECT run.run_id FROM runs AS run WHERE {condition} ORDER BY run.started_at DESC, run.run_id DESC LIMIT ?"
            return f"run.run_id IN ({newest})", [*given, self.limit]
        return condition, given


def moment(name: str, value: Moment, now: datetime) -> datetime | None:
    """A point in time as people write it, aware UTC.

    Raises:
        ErrorConfig: it is none.
    """
    if isinstance(value, str):
        text = value.strip()
        if ago := _AGO.fullmatch(text):
            value = timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        else:
            try:
                value = datetime.fromisoformat(text)
            except ValueError:
                raise _no_moment(name, value) from None
    value = _plain(value)
    try:
        if isinstance(value, timedelta):
            return now - value
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if value is None:
            return None
        if isinstance(value, datetime) and value == value:  # pandas' NaT is a datetime and equals nothing
            return value.astimezone(UTC)
    except (OverflowError, OSError, ValueError):
        pass
    raise _no_moment(name, value)


def _plain(value: Any) -> Any:
    """A time of pandas or numpy as Python's; anything else as it is."""
    if value != value:  # NaT
        return value
    if isinstance(value, datetime | timedelta):
        for convert in ("to_pydatetime", "to_pytimedelta"):
            if hasattr(value, convert):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)  # of nanoseconds that are lost
                    return getattr(value, convert)()
    elif type(value).__module__ == "numpy" and type(value).__name__ in ("datetime64", "timedelta64"):
        return value.astype(f"{type(value).__name__}[us]").item()
    return value


def _no_moment(name: str, value: object) -> ErrorConfig:
    return ErrorConfig(f"{name} must be a time such as '7d' (seven days ago; s, m, h, d, w), '2026-11-01', a date or a datetime; got {value!r:.80}")


_ONE = {"agent": "an agent's name", "model": "a model's name", "status": "a status", "notebook": "a notebook's name", "run_id": "a run's id", "tag": "a tag"}


def _texts(name: str, value: Texts) -> tuple[str, ...] | None:
    if value is None:
        return None
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    for text in texts:
        if not isinstance(text, str):
            raise ErrorConfig(f"{name} must be {_ONE[name]} or several of them, got {type(text).__name__}: {text!r:.80}")
    return texts


def _words(text: str | None) -> str | None:
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise ErrorConfig(f"text must be what a prompt or an answer holds, such as 'refund'; got {text!r:.80}")
    return text


def _holder(folded: str) -> Callable[[str | bytes | None], bool]:
    """Whether a text, or the packed body of one, holds this. A body that is damaged holds nothing."""
    from .tables import unpacked

    def holds(text: str | bytes | None) -> bool:
        whole = unpacked(text) if isinstance(text, bytes) else text
        return whole is not None and folded in whole.casefold()

    return holds


def _statuses(status: Texts) -> tuple[str, ...] | None:
    statuses = _texts("status", status)
    for one in statuses or ():
        if one not in STATUSES:
            raise ErrorConfig(f"status must be one of {', '.join(STATUSES)}, or several of them; got {one!r:.80}")
    return statuses


def _tags(tag: Tags) -> tuple[tuple[str, str | None], ...]:
    if tag is None:
        return ()
    if isinstance(tag, Mapping):
        pairs: list[Any] = list(tag.items())
    else:
        pairs = []
        for text in _texts("tag", tag) or ():
            name, equals, value = text.partition("=")
            pairs.append((name.strip(), value.strip() if equals else None))
    for name, value in pairs:
        if not isinstance(name, str) or not name or not isinstance(value, str | None):
            raise ErrorConfig(f"tag must be 'tenant=a', 'tenant', several of them, or {{'tenant': 'a'}}; got {tag!r:.80}")
    return tuple(pairs)
