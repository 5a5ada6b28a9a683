"""What happens during a run, as it happens: one typed event at a time.

Order: agent_start, then for each turn turn_start, text_delta*, turn_end, tool_call_start*, tool_call_end*,
and agent_end last, also when the run failed. `event.kind` names it; `event.data` is its fields as a dictionary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from .errors import ErrorAgent
    from .records import Record, RunRecord, ToolCallRecord, TurnRecord
    from .result import Result

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
        return f"Event(kind={self.kind!r}, data={self.data!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Event) and (self.kind, self.data) == (other.kind, other.data)

    __hash__ = None  # type: ignore[assignment]  # data is a dictionary


class _Typed(Event):
    """An event whose data are its dataclass fields."""

    __slots__ = ()
    _KIND: ClassVar[str]

    @property
    def kind(self) -> str:
        return self._KIND

    @property
    def data(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]


@dataclass(slots=True, eq=False)
class AgentStart(_Typed):
    """The run begins; nothing was sent yet."""

    _KIND: ClassVar[str] = "agent_start"
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


@dataclass(slots=True, eq=False)
class TextDelta(_Typed):
    """A piece of the answer's text."""

    _KIND: ClassVar[str] = "text_delta"
    delta: str
    turn: int = 1


@dataclass(slots=True, eq=False)
class ReasoningDelta(_Typed):
    """A piece of the model's reasoning, where the provider shows it."""

    _KIND: ClassVar[str] = "reasoning_delta"
    delta: str
    turn: int = 1


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
