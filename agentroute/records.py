"""What is kept of a run: one schema for `Result.record`, the run store, the DataFrames and the tables in the docs.

A run has turns (one model call each), tool calls and messages; afterwards it may get scores. Every column is declared
once, here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from datetime import datetime
from typing import Any

from .keys import keyless_repr
from .message import text_of

__all__ = ["MessageRecord", "Record", "RunRecord", "ScoreRecord", "ToolCallRecord", "TurnRecord", "columns", "kind_of"]


def column(about: str, *, group: str = "core", unit: str = "", key: bool = False, long: bool = False, word: bool = False, **options: Any) -> Any:
    """A dataclass field that is a column.

    Args:
        about: what it holds.
        group: the columns it is asked for with: core, usage, cost, timing, content, error or where.
        key: whether it is part of the key.
        long: what people, models and tools wrote. The run store keeps each such text once, and none where it keeps figures only.
        word: a name that a model or a provider has made up, which may be anything. Where texts are not kept whole, only so much
            of it is as looks like a name.
    """
    return field(metadata={"about": about, "group": group, "unit": unit, "key": key, "long": long, "word": word}, **options)


def columns(record: type[Any]) -> tuple[Field[Any], ...]:
    """The columns of a record class, in order. Annotations are strings such as `int | None`."""
    return fields(record)


def kind_of(column: Field[Any]) -> tuple[str, bool]:
    """A column's type (`str`, `int`, `float` or `datetime`) and whether it may be None."""
    name, _, rest = str(column.type).partition(" | ")
    return name, rest == "None"


@keyless_repr
@dataclass(kw_only=True)
class RunRecord:
    """One prompt to its final answer. Key: run_id."""

    run_id: str = column("Identifier; sorts by time.", key=True)
    started_at: datetime = column("Start, aware UTC.")
    duration_s: float | None = column("Start to end, monotonic clock; None while running or when killed.", group="timing", unit="s", default=None)
    status: str = column("ok, error or interrupted; interrupted until the run says otherwise.", default="interrupted")
    agent_name: str = column("Name of the agent.")
    request_model: str = column("The model asked for.")
    n_turns: int = column("Model calls made, or answered by replay.", default=0)
    n_tool_calls: int = column("Tool calls made.", default=0)
    n_replayed: int = column("Those of n_turns that replay answered.", group="cost", default=0)
    input_tokens: int | None = column("Sum over turns of what is known; None when no turn said.", group="usage", unit="tokens", default=None)
    output_tokens: int | None = column("Sum over turns of what is known; None when no turn said.", group="usage", unit="tokens", default=None)
    cached_input_tokens: int | None = column("Part of input_tokens read from the provider's cache.", group="usage", unit="tokens", default=None)
    reasoning_tokens: int | None = column("Part of output_tokens spent on reasoning.", group="usage", unit="tokens", default=None)
    cost_usd: float | None = column("What its model calls cost; None when none said. Runs started by tools have rows of their own.", group="cost", unit="USD", default=None)
    cost_source: str = column("As of its turns: provider, given, table or unknown; mixed where they differ.", group="cost", default="unknown")
    unknown_cost_calls: int = column("Model calls that may have been charged for and whose cost nobody reported; cost_usd leaves them out.", group="cost", default=0)
    cost_saved_usd: float | None = column("What the answers that were replayed had cost; None when none was.", group="cost", unit="USD", default=None)
    prompt_text: str = column("The prompt.", group="content", long=True, default="")
    output_text: str | None = column("The final answer as text; None when there was none.", group="content", long=True, default=None)
    tools_text: str | None = column("The definitions of the tools it was offered, as wire JSON; None when none was.", group="content", long=True, default=None)
    error_type: str | None = column("Class of the error that ended the run.", group="error", default=None)
    error_text: str | None = column("Its message.", group="error", long=True, default=None)
    session_id: str | None = column("Conversation the run belongs to.", group="where", default=None)
    parent_run_id: str | None = column("The run whose tool started this one.", group="where", default=None)
    parent_turn_index: int | None = column("The turn of that run which asked for the tool.", group="where", default=None)
    parent_call_index: int | None = column("The position of the call in that turn.", group="where", default=None)
    tags: str | None = column("Its tags, a JSON object of texts.", group="where", default=None)
    notebook: str | None = column("The notebook it was run in, where that is known.", group="where", default=None)
    cell_id: str | None = column("The notebook's id of the cell.", group="where", default=None)

    @property
    def going_on(self) -> bool:
        """Whether nobody has ended it yet. Of a run whose process was killed, its record can say nothing else."""
        return self.status == "interrupted" and self.duration_s is None


@keyless_repr
@dataclass(kw_only=True)
class TurnRecord:
    """One model call of a run. Key: (run_id, turn_index)."""

    run_id: str = column("Run this turn belongs to.", key=True)
    turn_index: int = column("Position in the run, from 1.", key=True)
    started_at: datetime = column("Request sent, aware UTC.")
    request_model: str = column("The model asked for.")
    response_model: str | None = column("The model that answered, as the provider named it.", word=True, default=None)
    base_url: str | None = column("The endpoint asked; None for a model without one.", group="where", default=None)
    finish_reason: str | None = column("stop, tool_calls, length, content_filter, or the provider's own word.", word=True, default=None)
    input_tokens: int | None = column("As the provider counted; None when it did not say.", group="usage", unit="tokens", default=None)
    output_tokens: int | None = column("As the provider counted; None when it did not say.", group="usage", unit="tokens", default=None)
    cached_input_tokens: int | None = column("Part of input_tokens read from the provider's cache.", group="usage", unit="tokens", default=None)
    reasoning_tokens: int | None = column("Part of output_tokens spent on reasoning.", group="usage", unit="tokens", default=None)
    cost_usd: float | None = column("What was paid; None when unknown, never 0; 0 for a replayed answer.", group="cost", unit="USD", default=None)
    cost_source: str = column("Who says what it cost: provider, given (Price), table; or unknown.", group="cost", default="unknown")
    cost_saved_usd: float | None = column("What a replayed answer had cost; None when it was not replayed, or its cost unknown.", group="cost", unit="USD", default=None)
    replayed_from: str | None = column("The run whose answer was replayed; None when the model was asked.", group="cost", default=None)
    duration_s: float | None = column("Request sent to last byte, monotonic clock.", group="timing", unit="s", default=None)
    time_to_first_chunk_s: float | None = column("Request sent to first text; None when not streamed.", group="timing", unit="s", default=None)
    response_id: str | None = column("The provider's id of the answer.", group="where", word=True, default=None)
    error_type: str | None = column("Class of the error, when the call failed.", group="error", default=None)


@keyless_repr
@dataclass(kw_only=True)
class ToolCallRecord:
    """One tool call. Key: (run_id, turn_index, call_index)."""

    run_id: str = column("Run this call belongs to.", key=True)
    turn_index: int = column("The turn that asked for it, from 1.", key=True)
    call_index: int = column("Position among the calls of its turn, from 1.", key=True)
    tool_call_id: str = column("The provider's id of the call.", group="where", default="")
    tool_name: str = column("Name of the tool, as the model wrote it.", word=True)
    arguments_text: str = column("Arguments as JSON text, as the model wrote them.", group="content", long=True, default="")
    result_text: str | None = column("What the model was told; None while it runs or when it was stopped.", group="content", long=True, default=None)
    status: str = column("ok, error or interrupted.", default="interrupted")
    error_type: str | None = column("Class of the error, when the call failed.", group="error", default=None)
    started_at: datetime = column("Start, aware UTC.")
    duration_s: float | None = column("Start to end, monotonic clock.", group="timing", unit="s", default=None)
    cost_usd: float | None = column("What runs inside the tool paid; None when it ran no agent.", group="cost", unit="USD", default=None)
    cost_saved_usd: float | None = column("What answers that were replayed inside the tool had cost; None when none was.", group="cost", unit="USD", default=None)


@keyless_repr
@dataclass(kw_only=True)
class MessageRecord:
    """One message of a run's conversation. Key: (run_id, message_index)."""

    run_id: str = column("Run this message belongs to.", key=True)
    message_index: int = column("Position in Result.messages, from 0.", key=True)
    role: str = column("system, user, assistant or tool.")
    content_text: str | None = column("Its text, `[image]` for a picture; None when it only asks for tools.", group="content", long=True, default=None)
    tool_name: str | None = column("The tool that answered, for role tool.", word=True, default=None)
    tool_call_id: str | None = column("The call it answers, for role tool.", group="where", default=None)
    tool_calls_text: str | None = column("The calls it asks for, as wire JSON, for role assistant.", group="content", long=True, default=None)

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


@dataclass(kw_only=True)
class ScoreRecord:
    """What somebody, or something, thought of a run. Key: (run_id, name, scorer)."""

    run_id: str = column("The run.", key=True)
    name: str = column("What was judged, such as helpful.", key=True)
    scorer: str = column("Who judged it; empty for nobody in particular.", key=True, default="")
    value: float | None = column("The score as a number.", default=None)
    label: str | None = column("The score as a word, where it is none.", group="content", long=True, default=None)
    note: str | None = column("Why.", group="content", long=True, default=None)
    scored_at: datetime = column("When, aware UTC.")


@dataclass
class Record:
    """All that is kept of one run. Lists are in order of time."""

    run: RunRecord
    turns: list[TurnRecord] = field(default_factory=list)
    tool_calls: list[ToolCallRecord] = field(default_factory=list)
    messages: list[MessageRecord] = field(default_factory=list)
