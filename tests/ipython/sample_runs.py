"""Runs for tests of what is shown: real ones of a scripted model, and records made by hand for what that cannot do."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

from agentroute import Agent, LLMResponse, ToolCall
from agentroute.events import AgentEnd, AgentStart, Event
from agentroute.records import Record, RunRecord, ToolCallRecord, TurnRecord
from agentroute.result import Result
from agentroute.testing import ModelScripted
from agentroute_ipython.card import Card

MODEL = "anthropic/claude-sonnet-4"
ANSWER = "Order 4821 is on its way with DHL.\n\nI have refunded the $4.90 shipping fee."
START = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def order_status(order_id: str) -> dict[str, Any]:
    """Where an order is."""
    return {"status": "shipped", "carrier": "DHL", "days_late": 2}


def refund(order_id: str, amount: float) -> str:
    """Pays money back."""
    return f"refunded {amount:.2f} USD"


def usage(tokens_in: int, tokens_out: int, cost: float | None) -> dict[str, Any]:
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "cost": cost}


def asks(*calls: ToolCall, cost: float | None = 0.002, text: str | None = None) -> LLMResponse:
    return LLMResponse(text, [call.to_wire() for call in calls], usage(400, 50, cost), MODEL, "tool_calls")


def says(text: str, cost: float | None = 0.003) -> LLMResponse:
    return LLMResponse(text, [], usage(600, 80, cost), MODEL, "stop")


LOOK = asks(ToolCall("1", "order_status", {"order_id": "4821"}), text="Let me look.")
PAY = asks(ToolCall("2", "refund", {"order_id": "4821", "amount": 4.9}))
STORY = (LOOK, PAY, says(ANSWER))
"""Two tool calls in two turns, then the answer."""


def agent(answers: Sequence[Any], tools: Sequence[Any] = (order_status, refund), **options: Any) -> Agent[Any]:
    model = options.pop("model", None) or ModelScripted(answers, model_id=MODEL)
    return Agent("support", model=model, tools=list(tools), **options)


def events(answers: Sequence[Any], **options: Any) -> list[Event]:
    """The events of a run. Their records are the same objects throughout, and are those of the end."""

    async def collect() -> list[Event]:
        async with aclosing(agent(answers, **options).events("Where is order 4821?")) as stream:
            return [event async for event in stream]

    return asyncio.run(collect())


def card(answers: Sequence[Any] = STORY, **options: Any) -> Card:
    """The card of a run; with `until=`, as it is at that event."""

    until = options.pop("until", lambda event: False)

    async def follow() -> Card:
        shown = Card()
        async with aclosing(agent(answers, **options).events("Where is order 4821?")) as stream:
            async for event in stream:
                shown.apply(event)
                if until(event):
                    break
            return deepcopy(shown)  # the run, when it is left, still writes into its records

    return asyncio.run(follow())


def turn(index: int, **fields: Any) -> TurnRecord:
    return TurnRecord(**{"run_id": "r", "turn_index": index, "started_at": START, "request_model": MODEL, **fields})


def call(turn_index: int, call_index: int, **fields: Any) -> ToolCallRecord:
    known = {"tool_name": "search", "arguments_text": "{}", "result_text": "found", "status": "ok", "duration_s": 0.2}
    return ToolCallRecord(
        **{"run_id": "r", "turn_index": turn_index, "call_index": call_index, "started_at": START, **known, **fields}
    )


def ended(
    turns: Sequence[TurnRecord], calls: Sequence[ToolCallRecord] = (), *, output: Any = "Done.", error: Any = None, **fields: Any
) -> Card:
    """The card of a run that is over, from records made by hand; `fields` are those of the run."""
    known = {"run_id": "r", "started_at": START, "agent_name": "support", "request_model": MODEL, "duration_s": 3.1}
    text = output if isinstance(output, str) else None
    run = RunRecord(**{**known, "n_turns": len(turns), "status": "ok", "output_text": text, **fields})
    record = Record(run, list(turns), list(calls))
    return Card().apply(AgentStart(run, [], record)).apply(AgentEnd(Result(output, record=record), error))
