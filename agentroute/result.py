"""What a run returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from .displayed import Displayed
from .message import Usage
from .records import Record
from .visible import short_repr

__all__ = ["EventKind", "Result", "ResultDeploy"]

OutputT = TypeVar("OutputT")

EventKind = Literal[
    "agent_start", "turn_start", "text_delta", "reasoning_delta", "turn_end", "tool_call_start", "tool_call_end", "agent_end"
]


@dataclass
class Result(Displayed, Generic[OutputT]):
    """The outcome of one run.

    `output` is a str, or a value of the type the agent's `output=` names; None when the run ended without an answer
    (the partial Result on an error). `messages` is the conversation as wire dictionaries: system, earlier messages from
    memory, then this run's. `interrupted` says that the run was stopped, or ended by a denied tool call (`Deny(interrupt=True)`).
    `record` holds the figures: `record.run`, `record.turns`, `record.tool_calls`, `record.messages`.
    """

    output: OutputT
    usage: Usage = field(default_factory=Usage)
    messages: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    record: Record | None = field(default=None, repr=False, compare=False)

    @property
    def run_id(self) -> str | None:
        """Identifier of the run in the run history."""
        return self.record.run.run_id if self.record else None

    def __repr__(self) -> str:
        """One line; of the messages only how many there are."""
        parts = [f"output={short_repr(self.output, 120)}", f"usage={self.usage!r}", f"messages={len(self.messages)}"]
        return f"{type(self).__name__}({', '.join(parts)}{', interrupted=True' if self.interrupted else ''})"

    def __str__(self) -> str:
        return "" if self.output is None else str(self.output)


@dataclass
class ResultDeploy:
    """Where a deployed agent can be reached. Hosting does not exist yet; nothing returns this so far."""

    url: str
    status: str = "pending"
    agent_card_url: str | None = None
