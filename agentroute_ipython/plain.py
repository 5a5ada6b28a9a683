"""A card as plain text, and the words and figures that its HTML form shares."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from agentroute.figures import cost_text, count_text, plural, seconds_text
from agentroute.records import ToolCallRecord, TurnRecord

from .card import Card
from .formats import call_text, cut, one_line, visible

__all__ = [
    "CUT_SHORT",
    "asked_line",
    "call_line",
    "call_word",
    "error_line",
    "error_name",
    "going_word",
    "json_value",
    "maybe_charged",
    "output_text",
    "to_text",
    "told_line",
    "usage_items",
    "usage_line",
]

TEXT = 4000
"""Characters of the answer in the plain form; the Result has all of them."""
WAITS = "waits for your approval"
CALLS = 20
"""Tool calls that are listed in the plain form."""
CUT_SHORT = {"length": "cut off at the token limit", "content_filter": "stopped by the content filter"}
"""Finish reasons after which an answer is not the whole one."""
_REFUSED = {f"ErrorModel{kind}" for kind in ("Connection", "Key", "Credit", "Request", "RateLimit", "Server")} | {"ErrorReplay"}


def to_text(card: Card) -> str:
    """Answer, one line for each tool call, error and usage line."""
    answer = card.answer if card.output is None else output_text(card.output)
    lines = [_shortened(answer).strip("\n"), ""] if answer.strip() else []
    calls = card.tool_calls
    lines += [call_line(card, call) for call in calls[:CALLS]]
    if len(calls) > CALLS:
        lines.append(f"({plural(len(calls) - CALLS, 'more tool call')})")
    if error := error_line(card):
        lines.append(error)
    return "\n".join([*lines, usage_line(card)])


def usage_line(card: Card) -> str:
    """`done, 2 model calls, 1 tool call, 512 tokens in / 84 out, $0.0040, 3.1 s, anthropic/claude-sonnet-4`"""
    return ", ".join(one_line(item, 120) for item in usage_items(card))


def usage_items(card: Card) -> list[str]:
    """Items of the usage line, not yet made visible; the first one is the state."""
    run, calls = card.run, list(card.calls.values())
    failed = sum(call.status == "error" for call in calls)
    items = [_state(card)]
    if n_turns := max(len(card.turns), run.n_turns if run else 0):
        items.append(plural(n_turns, "model call"))
    if calls:
        items.append(plural(len(calls), "tool call") + (f" ({failed} failed)" if failed else ""))
    if card.turns:
        items += [_tokens(card), _cost(card), _replayed(card)]
    items += [seconds_text(card.duration_s), card.model]
    return [item for item in items if item]


def _state(card: Card) -> str:
    """`done`, `done, cut off at the token limit`, `done, empty answer`, `failed`, …"""
    if card.waiting and not card.ended:
        return WAITS
    if card.state != "done":
        return card.state
    less = CUT_SHORT.get(card.turns[-1].finish_reason or "") if card.turns else None
    if less is None and card.output is None and not card.answer.strip():
        less = "empty answer"
    return f"done, {less}" if less else "done"


def call_line(card: Card, call: ToolCallRecord) -> str:
    """`order_status(order_id="4821") -> shipped, 0.2 s`"""
    return f"{asked_line(call)} {going_word(card, call) or told_line(call, timed=not card.replayed)}"


def going_word(card: Card, call: ToolCallRecord) -> str:
    """What a call that has not ended does; an empty string for one that has."""
    if not card.is_running(call):
        return ""
    return WAITS if card.is_waiting(call) else "running"


def asked_line(call: ToolCallRecord) -> str:
    """`order_status(order_id="4821")`"""
    return one_line(call_text(call.tool_name, call.arguments_text), 120)


def told_line(call: ToolCallRecord, *, timed: bool = True) -> str:
    """`-> shipped, 0.2 s`, or `-> TimeoutError: …, 5.0 s`; not `timed`, without the seconds."""
    told = one_line(call.result_text or "", 80)
    if call.status != "ok":
        word = call_word(call)
        told = f"{word}: {told}" if told else word
    cost = cost_text(call.cost_usd) if call.cost_usd is not None else ""
    seconds = seconds_text(call.duration_s) if timed else ""
    return ", ".join(part for part in (f"-> {told}", seconds, cost) if part)


def call_word(call: ToolCallRecord) -> str:
    """How a call went that did not go well: the class of its error, or `interrupted`."""
    return call.status if call.status == "interrupted" else one_line(call.error_type or call.status, 60)


def error_line(card: Card) -> str:
    """`ErrorBudget: spent …`, `Interrupted: …`; an empty string for a run without an error."""
    return ": ".join(one_line(part, 500) for part in (error_name(card), card.error_text) if part)


def error_name(card: Card) -> str:
    """The class of the error that ended the run, `Interrupted` where it was stopped; empty for a run without an error."""
    if not card.error_type and not card.error_text:
        return ""
    return "Interrupted" if card.state == "interrupted" else card.error_type or "Failed"


def maybe_charged(turn: TurnRecord) -> bool:
    """Whether the provider may have charged for this turn: a request that it refused or never got costs nothing."""
    return turn.error_type not in _REFUSED


def _tokens(card: Card) -> str:
    turns = [turn for turn in card.turns if maybe_charged(turn)]
    known = (card.run.input_tokens, card.run.output_tokens) if card.run else (None, None)
    if known == (None, None):
        return "tokens unknown" if turns else ""
    at_least = "at least " if any(turn.input_tokens is None or turn.output_tokens is None for turn in turns) else ""
    tokens_in, tokens_out = (count_text(count) or "unknown" for count in known)
    return f"{at_least}{tokens_in} tokens in / {tokens_out} out"


def _cost(card: Card) -> str:
    """What the run's own model calls and the runs inside its tools cost."""
    turns = [turn for turn in card.turns if maybe_charged(turn)]
    costs = [card.run.cost_usd if card.run else None, *(call.cost_usd for call in card.calls.values())]
    known = [cost for cost in costs if cost is not None]
    if card.replayed and not sum(known):
        return ""
    if not known:
        return "cost unknown" if turns else ""
    at_least = "at least " if any(turn.cost_usd is None for turn in turns) else ""
    return at_least + cost_text(sum(known))


def _replayed(card: Card) -> str:
    """`replayed, saved $0.0123`, or `1 of 3 replayed, saved …`; empty where every answer was paid for."""
    turns = [turn for turn in card.turns if turn.replayed_from]
    inside = [call.cost_saved_usd for call in card.calls.values() if call.cost_saved_usd is not None]
    if not turns:
        return f"saved {cost_text(sum(inside))} inside tools" if sum(inside) else ""
    words = "replayed" if card.replayed else f"{len(turns)} of {len(card.turns)} replayed"
    saved = [turn.cost_saved_usd for turn in turns if turn.cost_saved_usd is not None]
    if not sum([*saved, *inside]):
        return words
    return f"{words}, saved {'at least ' if len(saved) < len(turns) else ''}{cost_text(sum([*saved, *inside]))}"


def _shortened(text: str) -> str:
    head, left_out, tail = cut(text, TEXT)
    return f"{visible(head)}\n… {left_out:,} characters left out …\n{visible(tail)}" if left_out else visible(text)


# ---------------------------------------------------------------------------------------------------- structured answers


def json_value(output: Any) -> Any:
    """A structured answer as what JSON can hold; as its text where it cannot be. Never raises."""
    try:
        if callable(dump := getattr(output, "model_dump", None)):
            output = dump(mode="json")
        elif dataclasses.is_dataclass(output) and not isinstance(output, type):
            output = dataclasses.asdict(output)
        return json.loads(json.dumps(output, default=str))
    except Exception:  # whatever a user's class does, the card is drawn
        return _str_of(output)


def output_text(output: Any) -> str:
    """A structured answer as text: indented JSON, or the text itself."""
    value = json_value(output)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)


def _str_of(output: Any) -> str:
    try:
        return str(output)
    except Exception:
        return f"<{type(output).__name__} without a text>"
