"""What happens during a run, as it happens: one typed event at a time.

Order: agent_start, then for each turn turn_start, text_delta*, turn_end, tool_call_start*, tool_call_end*,
and agent_end last, also when the run failed. `event.kind` names it, its attributes are live objects, and `event.data`
is a dictionary of plain JSON values, to be sent or stored:

| kind | data |
|---|---|
| `agent_start` | `run`, `messages` |
| `turn_start` | `turn` |
| `text_delta`, `reasoning_delta` | `delta`, `turn` |
| `turn_end` | `record`, `text`, `messages`, `run` |
| `tool_call_start` | `record` |
| `tool_call_end` | `record`, `message` |
| `agent_end` | `result`, `error` |

`run` and `record` are rows as in `records.py`, with times in ISO 8601; messages are wire dictionaries. `result` has the
fields of Result: `output` (as JSON where it is no text), `usage` (with `cost_usd`), `messages`, `interrupted`, `record`
(`run`, `turns`, `tool_calls`, `messages`: rows). `error` is None, or its `type` and `message`. Data is made when it is asked
for, and rows are then as far as the run is, which may be ahead of a plain `for` over its events.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from .keys import keyless_repr, without_credentials
from .message import Usage
from .records import MessageRecord, Record, RunRecord, ToolCallRecord, TurnRecord
from .result import Result
from .result_text import result_text

if TYPE_CHECKING:
    from .errors import ErrorAgent

__all__ = [
    "AgentEnd",
    "AgentStart",
    "Event",
    "ReasoningDelta",
    "TextDelta",
    "ToolCallEnd",
    "ToolCallStart",
    "TurnEnd",
    "TurnStart",
]


class Event:
    """Something that happened in a run.

    `kind` is `agent_start`, `turn_start`, `text_delta`, `reasoning_delta`, `turn_end`, `tool_call_start`,
    `tool_call_end` or `agent_end`. The loop emits the typed subclasses below; `Event(kind, data)` makes a bare one.
    """

    __slots__ = ("_data", "_kind")

    def __init__(self, kind: str, data: dict[str, Any] | None = None) -> None:
        self._kind, self._data = kind, dict(data or {})

    @property
    def kind(self) -> str:
        return self._kind

    @property
    def data(self) -> dict[str, Any]:
        return self._data

    def __repr__(self) -> str:
        return without_credentials(f"Event(kind={self.kind!r}, data={self.data!r})")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and (self.kind, self.data) == (other.kind, other.data)

    __hash__ = None  # type: ignore[assignment]  # data is a dictionary


class _Typed(Event):
    """An event whose data are its dataclass fields as plain values, made anew each time it is asked for."""

    __slots__ = ()
    _KIND: ClassVar[str]
    _LIVE: ClassVar[tuple[str, ...]] = ()
    """Fields that are of use only inside this process, and no part of the data."""

    @property
    def kind(self) -> str:
        return self._KIND

    @property
    def data(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in self._LIVE}  # type: ignore[arg-type]


_OURS = (Result, Usage, Record, RunRecord, TurnRecord, ToolCallRecord, MessageRecord)


def _plain(value: Any) -> Any:
    """A field of an event as JSON values."""
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, _OURS):
        plain = {f.name: _plain(getattr(value, f.name)) for f in fields(value) if not f.name.startswith("_")}
        return {**plain, "cost_usd": value.cost_usd} if isinstance(value, Usage) else plain
    if isinstance(value, list) and value and isinstance(value[0], _OURS):
        return [_plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, BaseException):
        return {"type": type(value).__name__, "message": str(value)}
    try:
        text = result_text(value, sys.maxsize)
    except TypeError:  # an output validator may return anything
        return f"({type(value).__name__})"
    return text if isinstance(value, str | bytes | bytearray | memoryview) else json.loads(text)


@dataclass(slots=True, eq=False)
class AgentStart(_Typed):
    """The run begins; nothing was sent yet."""

    _KIND: ClassVar[str] = "agent_start"
    _LIVE: ClassVar[tuple[str, ...]] = ("record", "partial")
    run: RunRecord
    messages: list[dict[str, Any]]
    record: Record = field(repr=False)
    """The run's record, which grows as the run goes on: `record.turns`, `record.tool_calls`, `record.messages`."""
    partial: Callable[[], Result[Any]] | None = field(default=None, repr=False)
    """Gives the Result as it is so far."""


@dataclass(slots=True, eq=False)
class TurnStart(_Typed):
    """A model is about to be asked. `turn` counts from 1."""

    _KIND: ClassVar[str] = "turn_start"
    turn: int


@keyless_repr
@dataclass(slots=True, eq=False)
class TextDelta(_Typed):
    """A piece of the answer's text."""

    _KIND: ClassVar[str] = "text_delta"
    delta: str
    turn: int = 1


@keyless_repr
@dataclass(slots=True, eq=False)
class ReasoningDelta(_Typed):
    """A piece of the model's reasoning, where the provider shows it."""

    _KIND: ClassVar[str] = "reasoning_delta"
    delta: str
    turn: int = 1


@keyless_repr
@dataclass(slots=True, eq=False)
class TurnEnd(_Typed):
    """The model has answered (or failed: `record.error_type`). `text` is the whole text of its answer."""

    _KIND: ClassVar[str] = "turn_end"
    record: TurnRecord
    text: str
    messages: list[dict[str, Any]]
    """The messages this turn added, as wire dictionaries; empty when it failed."""
    run: RunRecord
    """The run so far, its sums up to date."""


@dataclass(slots=True, eq=False)
class ToolCallStart(_Typed):
    """A tool is about to run. `record.status` is `interrupted` until it ends."""

    _KIND: ClassVar[str] = "tool_call_start"
    record: ToolCallRecord


@dataclass(slots=True, eq=False)
class ToolCallEnd(_Typed):
    """A tool has ended; events come as tools end, `record.call_index` says which call it was."""

    _KIND: ClassVar[str] = "tool_call_end"
    record: ToolCallRecord
    message: dict[str, Any]
    """What the model is told, as a wire dictionary."""


@dataclass(slots=True, eq=False)
class AgentEnd(_Typed):
    """The run is over. `error` is None when it succeeded; `result` is complete or partial."""

    _KIND: ClassVar[str] = "agent_end"
    result: Result[Any]
    error: ErrorAgent | None = None
