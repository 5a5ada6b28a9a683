"""What is kept of a run: one schema for `Result.record`, the run store, the DataFrames and the tables in the docs.

A run has turns (one model call each), tool calls and messages. Every column is declared once, here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import datetime
from typing import Any

from .message import text_of

__all__ = ["MessageRecord", "Record", "RunRecord", "ToolCallRecord", "TurnRecord", "columns", "kind_of"]


def column(about: str, *, unit: str = "", key: bool = False, **options: Any) -> Any:
    """A dataclass field that is a column: what it holds, its unit, whether it is part of the key."""
    return field(metadata={"about": about, "unit": unit, "key": key}, **options)


def columns(record: type[Any]) -> tuple[Field[Any], ...]:
    """The columns of a record class, in order. Annotations are strings such as `int | None`."""
    return fields(record)


def kind_of(column: Field[Any]) -> tuple[str, bool]:
    """A column's type (`str`, `int`, `float` or `datetime`) and whether it may be None."""
    name, _, rest = str(column.type).partition(" | ")
    return name, rest == "None"


@dataclass(kw_only=True)
class RunRecord:
    """One prompt to its final answer. Key: run_id."""

    run_id: str = column("Identifier; sorts by time.", key=True)
    started_at: datetime = column("Start, aware UTC.")
    duration_s: float | None = column("Start to end, monotonic clock; None while running or when killed.", unit="s", default=None)
    status: str = column("ok, error or interrupted; interrupted until the run says otherwise.", default="interrupted")
    agent_name: str = column("Name of the agent.")
    request_model: str = column("The model asked for.")
    n_turns: int = column("Model calls made.", default=0)
    n_tool_calls: int = column("Tool calls made.", default=0)
    input_tokens: int | None = column("Sum over turns of what is known; None when no turn said.", unit="tokens", default=None)
    output_tokens: int | None = column("Sum over turns of what is known; None when no turn said.", unit="tokens", default=None)
    cached_input_tokens: int | None = column("Part of input_tokens read from the provider's cache.", unit="tokens", default=None)
    reasoning_tokens: int | None = column("Part of output_tokens spent on reasoning.", unit="tokens", default=None)
    cost_usd: float | None = column("What its model calls cost; None when none said. Runs started by tools have rows of their own.", unit="USD", default=None)
    unknown_cost_calls: int = column("Model calls that may have been charged for and whose cost nobody reported; cost_usd leaves them out.", default=0)
    cost_saved_usd: float | None = column("What replayed answers would have cost; always empty until there is replay.", unit="USD", default=None)
    prompt_text: str = column("The prompt.", default="")
    output_text: str | None = column("The final answer as text; None when there was none.", default=None)
    error_type: str | None = column("Class of the error that ended the run.", default=None)
    error_text: str | None = column("Its message.", default=None)
    session_id: str | None = column("Conversation the run belongs to.", default=None)
    parent_run_id: str | None = column("The run whose tool started this one.", default=None)


@dataclass(kw_only=True)
class TurnRecord:
    """One model call of a run. Key: (run_id, turn_index)."""

    run_id: str = column("Run this turn belongs to.", key=True)
    turn_index: int = column("Position in the run, from 1.", key=True)
    started_at: datetime = column("Request sent, aware UTC.")
    request_model: str = column("The model asked for.")
    response_model: str | None = column("The model that answered, as the provider named it.", default=None)
    finish_reason: str | None = column("stop, tool_calls, length, content_filter, or the provider's own word.", default=None)
    input_tokens: int | None = column("As the provider counted; None when it did not say.", unit="tokens", default=None)
    output_tokens: int | None = column("As the provider counted; None when it did not say.", unit="tokens", default=None)
    cached_input_tokens: int | None = column("Part of input_tokens read from the provider's cache.", unit="tokens", default=None)
    reasoning_tokens: int | None = column("Part of output_tokens spent on reasoning.", unit="tokens", default=None)
    cost_usd: float | None = column("What was paid; None when unknown, never 0.", unit="USD", default=None)
    cost_source: str | None = column("Who says so: provider, given (Price), or table; None when unknown.", default=None)
    cost_saved_usd: float | None = column("What a replayed answer would have cost; always empty until there is replay.", unit="USD", default=None)
    duration_s: float | None = column("Request sent to last byte, monotonic clock.", unit="s", default=None)
    time_to_first_chunk_s: float | None = column("Request sent to first text; None when not streamed.", unit="s", default=None)
    response_id: str | None = column("The provider's id of the answer.", default=None)
    error_type: str | None = column("Class of the error, when the call failed.", default=None)


@dataclass(kw_only=True)
class ToolCallRecord:
    """One tool call. Key: (run_id, turn_index, call_index)."""

    run_id: str = column("Run this call belongs to.", key=True)
    turn_index: int = column("The turn that asked for it, from 1.", key=True)
    call_index: int = column("Position among the calls of its turn, from 1.", key=True)
    tool_call_id: str = column("The provider's id of the call.", default="")
    tool_name: str = column("Name of the tool, as the model wrote it.")
    arguments_text: str = column("Arguments as JSON text, as the model wrote them.", default="")
    result_text: str | None = column("What the model was told; None while it runs or when it was stopped.", default=None)
    status: str = column("ok, error or interrupted.", default="interrupted")
    error_type: str | None = column("Class of the error, when the call failed.", default=None)
    started_at: datetime = column("Start, aware UTC.")
    duration_s: float | None = column("Start to end, monotonic clock.", unit="s", default=None)
    cost_usd: float | None = column("What runs inside the tool paid; None when it ran no agent.", unit="USD", default=None)


@dataclass(kw_only=True)
class MessageRecord:
    """One message of a run's conversation. Key: (run_id, message_index)."""

    run_id: str = column("Run this message belongs to.", key=True)
    message_index: int = column("Position in Result.messages, from 0.", key=True)
    role: str = column("system, user, assistant or tool.")
    content_text: str | None = column("Its text, `[image]` for a picture; None when it only asks for tools.", default=None)
    tool_name: str | None = column("The tool that answered, for role tool.", default=None)
    tool_call_id: str | None = column("The call it answers, for role tool.", default=None)
    tool_calls_text: str | None = column("The calls it asks for, as wire JSON, for role assistant.", default=None)

    @classmethod
    def of(cls, run_id: str, index: int, wire: Mapping[str, Any]) -> MessageRecord:
        """The record of a message in its wire form."""
        role, content, calls = str(wire.get("role", "")), wire.get("content"), wire.get("tool_calls")
        return cls(
            run_id=run_id,
            message_index=index,
            role=role,
            content_text=None if content is None else text_of(content, describe=True),
            tool_name=wire.get("name") if role == "tool" else None,
            tool_call_id=wire.get("tool_call_id"),
            tool_calls_text=json.dumps(calls, ensure_ascii=False) if calls else None,
        )


@dataclass
class Record:
    """All that is kept of one run. Lists are in order of time."""

    run: RunRecord
    turns: list[TurnRecord] = field(default_factory=list)
    tool_calls: list[ToolCallRecord] = field(default_factory=list)
    messages: list[MessageRecord] = field(default_factory=list)
