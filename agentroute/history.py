"""History policies: which messages of a conversation are sent to the model. (HistorySummarize: `summarize.py`.)

A policy maps messages to messages before each model call; what it leaves out stays in the conversation. The policies
here never part a tool call from its results, and always keep the leading system messages, the last user message and
the newest exchange. What is sent begins, after the leading system messages, with a user message wherever the
conversation has one outside a tool exchange: many providers and chat templates refuse anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from .errors import ErrorConfig
from .message import Message, ToolCall, text_of

__all__ = ["History", "HistorySlidingWindow", "HistoryTruncate", "exchanges_of", "newest_that_fit", "split_head", "tokens_of", "turns_of"]

CHARACTERS_A_TOKEN = 4
TOKENS_A_PART = 1_000
"""A guess for an image or another part that is not text; providers charge from about 100 to 1,600 for one image."""


@runtime_checkable
class History(Protocol):
    """Chooses what is sent. `compact` must not change the messages it is given.

    `token_budget` is the room the model has for them, where that is known. A policy may have one more attribute,
    `newest: int`: how many of the newest messages it can need at most, so that a run reads no more from the memory.
    """

    async def compact(self, messages: list[Message], token_budget: int | None = None) -> list[Message]: ...


class HistorySlidingWindow:
    """Keeps the last `window_size` messages; leading system messages are kept and not counted.

    Fewer are kept where a tool call and its results do not fit together, or where the first would not be a user
    message; more only where what must stay is larger. `token_budget` is not looked at.

    Raises:
        ErrorConfig: `window_size` is not a positive int.
    """

    def __init__(self, window_size: int = 20) -> None:
        self.window_size = _positive("window_size", window_size)

    @property
    def newest(self) -> int:
        return self.window_size

    def __repr__(self) -> str:
        return f"HistorySlidingWindow(window_size={self.window_size})"

    async def compact(self, messages: list[Message], token_budget: int | None = None) -> list[Message]:
        head, body = split_head(messages)
        return head + newest_that_fit(body, self.window_size, lambda message: 1)


class HistoryTruncate:
    """Drops the oldest messages until about `max_tokens` are left, at four characters a token.

    The first that is kept is a user message. Where the model's context is known to be smaller (`token_budget`), that
    counts instead. More is kept only where what must stay is larger.

    Raises:
        ErrorConfig: a limit is not a positive int.
    """

    def __init__(self, max_tokens: int = 100_000) -> None:
        self.max_tokens = _positive("max_tokens", max_tokens)

    @property
    def newest(self) -> int:
        return self.max_tokens  # no message is less than a token

    def __repr__(self) -> str:
        return f"HistoryTruncate(max_tokens={self.max_tokens})"

    async def compact(self, messages: list[Message], token_budget: int | None = None) -> list[Message]:
        budget = self.max_tokens if token_budget is None else min(self.max_tokens, _positive("token_budget", token_budget))
        head, body = split_head(messages)
        return head + newest_that_fit(body, budget - sum(map(tokens_of, head)), tokens_of)


def _positive(name: str, value: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ErrorConfig(f"{name} must be a positive int, not {value!r}")
    return value


def split_head(messages: Sequence[Message]) -> tuple[list[Message], list[Message]]:
    """The leading system messages, and the rest."""
    start = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    return list(messages[:start]), list(messages[start:])


def newest_that_fit(messages: Sequence[Message], budget: int, cost: Callable[[Message], int]) -> list[Message]:
    """The newest exchanges that fit, from a user message on; in any case the last user message and the newest exchange."""
    exchanges = exchanges_of(messages)
    if not exchanges:
        return []
    costs = [sum(map(cost, exchange)) for exchange in exchanges]
    asked = [index for index, exchange in enumerate(exchanges) if any(message.role == "user" for message in exchange)]
    openings = [index for index in asked if exchanges[index][0].role == "user"]
    kept = {len(exchanges) - 1, *asked[-1:], *openings[-1:]}
    left = budget - sum(costs[index] for index in kept)
    for index in reversed(range(len(exchanges))):
        if index not in kept:
            left -= costs[index]
            if left < 0:
                break
            kept.add(index)
    first = min(kept.intersection(openings), default=0)
    return [message for index in sorted(kept) if index >= first for message in exchanges[index]]


def exchanges_of(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages in groups that must not be parted: a tool call with its results, else one message."""
    groups: list[list[Message]] = []
    asked_in: dict[str, int] = {}  # the group in which a tool call was last asked for
    for message in messages:
        if message.role == "tool" and groups:
            group = asked_in.get(message.tool_call_id or "", len(groups) - 1 if groups[-1][0].tool_calls else len(groups))
            if group < len(groups):
                if later := groups[group + 1 :]:  # something stands between a call and its result
                    groups[group:] = [[one for part in [groups[group], *later] for one in part]]
                    asked_in = {call: min(index, group) for call, index in asked_in.items()}
                groups[-1].append(message)
                continue
        groups.append([message])
        asked_in |= {ToolCall.from_wire(call).id: len(groups) - 1 for call in message.tool_calls or []}
    return groups


def turns_of(messages: Sequence[Message]) -> tuple[list[list[Message]], list[Message]]:
    """The answered turns, each an answer of the model with what led to it; and what has come since the last answer."""
    turns: list[list[Message]] = []
    open_turn: list[Message] = []
    for exchange in exchanges_of(messages):
        open_turn += exchange
        if exchange[0].role == "assistant":
            turns.append(open_turn)
            open_turn = []
    return turns, open_turn


def tokens_of(message: Message) -> int:
    """About how many tokens a message takes; never less than one."""
    parts = message.content if isinstance(message.content, list) else []
    others = sum(1 for part in parts if not text_of([part]))
    calls = [ToolCall.from_wire(call) for call in message.tool_calls or []]
    characters = len(message.text) + sum(len(call.name) + len(call.arguments_text) for call in calls)
    return max(1, characters // CHARACTERS_A_TOKEN) + others * TOKENS_A_PART
