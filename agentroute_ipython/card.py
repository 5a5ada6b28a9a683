"""What a run looks like right now: the fold of its events, or of its record, that `display` draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentroute.errors import ErrorInterrupted, ErrorReplay
from agentroute.events import (
    AgentEnd,
    AgentStart,
    Event,
    ReasoningDelta,
    TextDelta,
    ToolCallEnd,
    ToolCallStart,
    TurnEnd,
    TurnStart,
)
from agentroute.records import Record, RunRecord, ToolCallRecord, TurnRecord
from agentroute.result import Result

from .formats import KeylessText

__all__ = ["Card", "CallKey"]

NOTHING_SENT = "nothing was sent; why is told below"
CallKey = tuple[int, int]
"""Turn and position of a tool call, both from 1."""

_STATE = {"ok": "done", "error": "failed", "interrupted": "interrupted"}


@dataclass
class Card:
    """One run as it is shown. Figures are the records themselves, so there is nothing to keep equal.

    `state` is `running`, `done`, `failed` or `interrupted`. `output` is the value of a structured answer, None where the
    answer is text. `elapsed_s` is the time since the start as the viewer measured it, used while no duration is known.
    """

    run: RunRecord | None = None
    turns: list[TurnRecord] = field(default_factory=list)
    calls: dict[CallKey, ToolCallRecord] = field(default_factory=dict)
    running: set[CallKey] = field(default_factory=set)
    """The tool calls that have begun and not ended."""
    waiting: list[tuple[str | None, int, str, str]] = field(default_factory=list)
    """Calls that somebody is asked to approve of now, also those of runs inside tools: run, turn, the provider's id, tool name."""
    state: str = "running"
    error_type: str | None = None
    error_text: str | None = None
    output: Any = None
    elapsed_s: float | None = None
    turn: int = 0
    """The turn being answered, from 1; 0 before the first."""
    drawn: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """What `display` keeps of a running card from one redraw to the next."""
    _texts: dict[int, KeylessText] = field(default_factory=dict)
    _reasoning: dict[int, KeylessText] = field(default_factory=dict)
    _struck: tuple[str, str] = ("", "")
    """The whole answer, and what is shown of it."""

    # ------------------------------------------------------------------------------------------------ reading

    @property
    def agent_name(self) -> str:
        return self.run.agent_name if self.run else ""

    @property
    def model(self) -> str:
        return self.run.request_model if self.run else ""

    @property
    def ended(self) -> bool:
        return self.state != "running"

    @property
    def asking(self) -> bool:
        """Whether the model is at work now, and not a tool."""
        return not self.ended and self.turn > max((turn.turn_index for turn in self.turns), default=0)

    @property
    def replayed(self) -> bool:
        """Whether every answer so far was replayed, or replay had none and refused to ask. Such a card shows no seconds, so that it
        is saved the same each time."""
        return (bool(self.turns) or self.error_type == ErrorReplay.__name__) and all(turn.replayed_from for turn in self.turns)

    @property
    def duration_s(self) -> float | None:
        """Seconds the run took, or has taken so far; None for one that was replayed."""
        if self.ended and self.replayed:
            return None
        known = self.run.duration_s if self.run else None
        return self.elapsed_s if known is None else known

    @property
    def answer_turn(self) -> int:
        """The turn whose text is the answer so far: the last one that said anything; 0 when none did."""
        return max((turn for turn, text in self._texts.items() if text), default=0)

    @property
    def answer(self) -> str:
        """The answer's text so far; the whole of it once the run is done."""
        if self.state == "done" and self.run is not None and self.run.output_text is not None:
            if self._struck[0] is not self.run.output_text:
                self._struck = self.run.output_text, KeylessText(self.run.output_text, whole=True).read()
            return self._struck[1]
        return self.text(self.answer_turn)

    @property
    def reasoning(self) -> str:
        """All reasoning shown by the provider, turn after turn."""
        return "\n\n".join(self.reasoning_of(turn) for turn in sorted(self._reasoning))

    def text(self, turn: int) -> str:
        """What the model said in a turn."""
        return self._read(self._texts, turn)

    def reasoning_of(self, turn: int) -> str:
        return self._read(self._reasoning, turn)

    def _read(self, texts: dict[int, KeylessText], turn: int) -> str:
        if (text := texts.get(turn)) is None:
            return ""
        text.whole = text.whole or self.ended or any(ended.turn_index == turn for ended in self.turns)
        return text.read()

    @property
    def tool_calls(self) -> list[ToolCallRecord]:
        """In the order the model asked for them, turn after turn."""
        return [self.calls[key] for key in sorted(self.calls)]

    def is_running(self, call: ToolCallRecord) -> bool:
        return _key(call) in self.running

    def is_waiting(self, call: ToolCallRecord) -> bool:
        """Whether somebody is asked to approve of it now."""
        return (call.run_id, call.turn_index, call.tool_call_id, call.tool_name) in self.waiting

    # ------------------------------------------------------------------------------------------------ folding

    def apply(self, event: Event) -> Card:
        """Takes one event in, in place, and returns the card. Costs the same however long the answer is."""
        match event:
            case TextDelta():
                self._texts.setdefault(event.turn, KeylessText()).add(event.delta)
            case ReasoningDelta():
                self._reasoning.setdefault(event.turn, KeylessText()).add(event.delta)
            case TurnStart():
                self.turn = event.turn
            case AgentStart():
                self.run = event.run
            case TurnEnd():
                self._turn_ended(event)
            case ToolCallStart():
                self.calls[_key(event.record)] = event.record
                self.running.add(_key(event.record))
            case ToolCallEnd():
                self.calls[_key(event.record)] = event.record
                self.running.discard(_key(event.record))
            case AgentEnd():
                self._ended(event)
        return self

    def abandon(self, why: str) -> None:
        """Marks a run that nobody follows any longer as interrupted; a run that has ended stays as it is."""
        if self.ended:
            return
        self.state, self.error_text = "interrupted", why
        self.running.clear()

    @classmethod
    def from_result(cls, source: Result[Any] | Record) -> Card:
        """The card of a run from its Result, whole or partial, or from a record of the run history, perhaps of one that goes on."""
        card = cls()
        record = source if isinstance(source, Record) else source.record
        if record is not None:
            card._load(record)
        if isinstance(source, Result):
            card._take(source)
        elif source.run.going_on:
            card.state = "running"
            card.running = {_key(call) for call in source.tool_calls if call.status == "interrupted" and call.duration_s is None}
        return card

    def _turn_ended(self, event: TurnEnd) -> None:
        turn = event.record.turn_index
        self.run, self.turn = event.run, turn
        self.turns.append(event.record)
        if event.text or event.record.error_type is None:  # a turn that broke off keeps what had come
            self._texts[turn] = KeylessText(event.text, whole=True)

    def _ended(self, event: AgentEnd) -> None:
        self.running.clear()
        if event.result.record is not None:
            self._load(event.result.record)
        self._take(event.result)
        if event.error is not None:
            self.state = "interrupted" if isinstance(event.error, ErrorInterrupted) else "failed"
            self.error_type, self.error_text = type(event.error).__name__, str(event.error)
            if isinstance(event.error, ErrorReplay):  # what to do about it is told once, by the cell
                self.error_text = NOTHING_SENT
        elif self.state == "running":
            self.state = "done"

    def _take(self, result: Result[Any]) -> None:
        if self.run is None:
            self._texts[self.answer_turn or 1] = KeylessText(result.output if isinstance(result.output, str) else "", whole=True)
            self.state = "done"
        if result.interrupted:
            self.state = "interrupted"
        if result.output is not None and not isinstance(result.output, str):
            self.output = result.output

    def _load(self, record: Record) -> None:
        self.run, self.turns = record.run, record.turns
        self.calls = {_key(call): call for call in record.tool_calls}
        self.turn = max((turn.turn_index for turn in record.turns), default=self.turn)
        self.state = _STATE.get(record.run.status, "interrupted")
        self.error_type, self.error_text = record.run.error_type, record.run.error_text
        for turn, text in _spoken(record).items():
            self._texts.setdefault(turn, KeylessText(text, whole=True))


def _key(call: ToolCallRecord) -> CallKey:
    return call.turn_index, call.call_index


def _spoken(record: Record) -> dict[int, str]:
    """What the model said, by turn.

    The run's own messages begin with its prompt. Each turn added one assistant message, in order; the last turn, where it
    failed, perhaps none.
    """
    prompts = [m.message_index for m in record.messages if m.role == "user" and (m.content_text or "") == record.run.prompt_text]
    said = [m for m in record.messages if m.role == "assistant" and prompts and m.message_index > prompts[-1]]
    return {turn.turn_index: message.content_text or "" for turn, message in zip(record.turns, said, strict=False)}
