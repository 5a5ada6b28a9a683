"""The values that travel between an agent and a model: messages, usage, requests, responses.

Plain data, no I/O. Shapes follow the chat-completions protocol, so a message list can be sent as it is.
(The module is `message`, not `messages`, because `agentroute.messages()` is the DataFrame of recorded messages.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any

from .displayed import Displayed
from .keys import keyless_repr

__all__ = [
    "Content",
    "LLMChunk",
    "LLMRequest",
    "LLMResponse",
    "Message",
    "ToolCall",
    "TurnUsage",
    "Usage",
    "text_of",
]

Content = str | list[dict[str, Any]]
"""Text, or content parts such as `{"type": "text", "text": …}` and `{"type": "image_url", …}`."""


def text_of(content: Any, *, describe: bool = False) -> str:
    """The text of a message's content; unknown shapes become JSON.

    Parts that are not text are left out, or with `describe` named: `[image]`.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        texts = []
        for part in content:
            if isinstance(part, str):
                texts.append(part)
            elif isinstance(part, Mapping) and isinstance(part.get("text"), str):
                texts.append(part["text"])
            elif describe and isinstance(part, Mapping) and isinstance(part.get("type"), str):
                texts.append(f"[{part['type'].removesuffix('_url').removeprefix('input_')}]")
        return (" " if describe else "").join(texts)
    return json.dumps(content, ensure_ascii=False, default=str)


@keyless_repr
@dataclass(frozen=True)
class ToolCall:
    """A model's request to run a tool. `arguments` is the JSON text as the model wrote it, or the value it stands for."""

    id: str
    name: str
    arguments: Any = field(default_factory=dict)

    @property
    def arguments_text(self) -> str:
        """The arguments as JSON text; what a model wrote as text is returned letter by letter."""
        if isinstance(self.arguments, str):
            return self.arguments
        return json.dumps(self.arguments, ensure_ascii=False, default=str)

    def to_wire(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments_text}}

    @classmethod
    def from_wire(cls, call: Any) -> ToolCall:
        """Reads `{id, function: {name, arguments}}`; what is missing or of another type becomes an empty string."""
        call = call if isinstance(call, Mapping) else {}
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        name, call_id, arguments = function.get("name"), call.get("id"), function.get("arguments")
        return cls(
            id=call_id if isinstance(call_id, str) else "",
            name=name if isinstance(name, str) else "",
            arguments="" if arguments is None else arguments,
        )


@keyless_repr
@dataclass
class Message:
    """One entry of a conversation.

    `role` is `system`, `user`, `assistant` or `tool`. `tool_calls` are wire dictionaries
    `{id, type, function: {name, arguments}}`; `tool_call_id` says which of them a tool message answers.
    `extra` holds what a provider wants echoed unchanged (reasoning, signatures); it goes on the wire beside the rest.
    """

    role: str
    content: Content | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return text_of(self.content)

    @property
    def described(self) -> str:
        """The text, with a word such as `[image]` where a part is none."""
        return text_of(self.content, describe=True)

    def to_dict(self) -> dict[str, Any]:
        """The wire form: empty fields are left out, because several providers refuse nulls and empty lists."""
        wire: dict[str, Any] = {"role": self.role}
        if self.content is not None:
            wire["content"] = self.content
        if self.tool_calls:
            wire["tool_calls"] = self.tool_calls
        if self.tool_call_id:
            wire["tool_call_id"] = self.tool_call_id
        if self.name:
            wire["name"] = self.name
        for key, value in self.extra.items():
            wire.setdefault(key, value)
        return wire

    @classmethod
    def from_dict(cls, wire: Mapping[str, Any]) -> Message:
        known = {"role", "content", "tool_calls", "tool_call_id", "name"}
        return cls(
            role=str(wire.get("role", "")),
            content=wire.get("content"),
            tool_calls=wire.get("tool_calls"),
            tool_call_id=wire.get("tool_call_id"),
            name=wire.get("name"),
            extra={key: value for key, value in wire.items() if key not in known},
        )


def _count(value: Any) -> int | None:
    """A token count as a provider wrote it, or None when it wrote nothing a count can be read from."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number) or number < 0 or number > 1e15:
        return None
    return int(number)


def _money(value: Any) -> Decimal | None:
    """An amount in USD, or None when it is not a finite number. A negative amount counts as zero: never a refund."""
    if value is None or isinstance(value, bool):
        return None
    try:
        amount = Decimal(str(value))
    except (InvalidOperation, ValueError):
        return None
    if not amount.is_finite() or amount > Decimal(10**9):
        return None
    return max(amount, Decimal(0))


@dataclass(frozen=True)
class TurnUsage:
    """What one model call used. None is unknown, which is not zero.

    `input_tokens` includes `cached_input_tokens` and `output_tokens` includes `reasoning_tokens`.
    `cost_usd` is what the provider says it charged. A replayed answer costs nothing, and has saved what it had cost.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_input_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost_usd: Decimal | None = None
    cost_saved_usd: Decimal | None = None
    replayed: bool = False

    @classmethod
    def from_wire(cls, usage: Any) -> TurnUsage:
        """Reads a chat-completions `usage` object; any nonsense in it reads as unknown, never as an error.

        Source of the cost: OpenRouter's `cost`, plus `cost_details.upstream_inference_cost` only where `is_byok`
        is true (the user's own key was charged beside OpenRouter's fee).
        """
        if not isinstance(usage, Mapping):
            return cls()
        prompt_details = usage.get("prompt_tokens_details")
        answer_details = usage.get("completion_tokens_details")
        cost_details = usage.get("cost_details")
        cost = _money(usage.get("cost"))
        if usage.get("is_byok") is True and isinstance(cost_details, Mapping):
            upstream = _money(cost_details.get("upstream_inference_cost"))
            cost = cost if upstream is None else (cost or Decimal(0)) + upstream
        return cls(
            input_tokens=_count(usage.get("prompt_tokens")),
            output_tokens=_count(usage.get("completion_tokens")),
            cached_input_tokens=_count(prompt_details.get("cached_tokens")) if isinstance(prompt_details, Mapping) else None,
            reasoning_tokens=_count(answer_details.get("reasoning_tokens")) if isinstance(answer_details, Mapping) else None,
            cost_usd=cost,
        )

    @classmethod
    def of(cls, response: LLMResponse) -> TurnUsage:
        """What an answer used, be it the model's or replay's."""
        used = cls.from_wire(response.usage)
        if response.replayed_from is None:
            return used
        return replace(used, cost_usd=Decimal(0), cost_saved_usd=used.cost_usd, replayed=True)


@dataclass
class Usage(Displayed):
    """What a run used: sums of what providers reported.

    `total_cost_usd` is in USD. Calls whose cost or tokens nobody reported are counted in `unknown_cost_calls` and
    `unknown_token_calls`, so that a sum of 0 and an unknown amount are never confused. `replayed_calls` of the model calls
    were answered by replay: they cost nothing, and saved `cost_saved_usd`.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    total_cost_usd: float = 0.0
    model_calls: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    unknown_cost_calls: int = 0
    unknown_token_calls: int = 0
    replayed_calls: int = 0
    cost_saved_usd: float = 0.0
    _cost: Decimal | None = field(default=None, repr=False, compare=False)

    @property
    def cost_usd(self) -> float | None:
        """USD, or None when no call of the run reported a cost."""
        return None if self.model_calls and self.unknown_cost_calls == self.model_calls else self.total_cost_usd

    def __repr__(self) -> str:
        """The fields that are not 0, in one line."""
        known = [(f.name, getattr(self, f.name, 0)) for f in fields(self) if f.repr]
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in known if value)})"

    def add(self, other: Usage) -> None:
        """Adds another run's usage to this one, in place."""
        self._set_cost(self._exact_cost() + other._exact_cost())
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.model_calls += other.model_calls
        self.cached_input_tokens += other.cached_input_tokens
        self.reasoning_tokens += other.reasoning_tokens
        self.unknown_cost_calls += other.unknown_cost_calls
        self.unknown_token_calls += other.unknown_token_calls
        self.replayed_calls += other.replayed_calls
        self.cost_saved_usd += other.cost_saved_usd

    def add_turn(self, turn: TurnUsage) -> None:
        """Adds one model call, in place."""
        self.model_calls += 1
        self.input_tokens += turn.input_tokens or 0
        self.output_tokens += turn.output_tokens or 0
        self.cached_input_tokens += turn.cached_input_tokens or 0
        self.reasoning_tokens += turn.reasoning_tokens or 0
        self.replayed_calls += turn.replayed
        self.cost_saved_usd += float(turn.cost_saved_usd or 0)
        if turn.input_tokens is None and turn.output_tokens is None:
            self.unknown_token_calls += 1
        if turn.cost_usd is None:
            self.unknown_cost_calls += 1
        else:
            self._set_cost(self._exact_cost() + turn.cost_usd)

    def _exact_cost(self) -> Decimal:
        # `total_cost_usd` may have been set by hand; the exact sum counts only while it still agrees with it.
        if self._cost is not None and float(self._cost) == self.total_cost_usd:
            return self._cost
        return Decimal(str(self.total_cost_usd))

    def _set_cost(self, cost: Decimal) -> None:
        self._cost, self.total_cost_usd = cost, float(cost)


@keyless_repr
@dataclass
class LLMRequest:
    """One question to a model.

    `tools` are wire tool definitions `{type: "function", function: {name, description, parameters}}`.
    `tool_choice` is `auto`, `required` or `none`; None leaves it to the provider. `response_format` is the wire object
    that asks for JSON. `timeout` is seconds for one attempt in all. `extra` is merged over the body last. `failed_attempts` is written by layers that ask again (`ModelRetry`): the usage object of each attempt
    that failed before the last one and was, or may have been, charged for; `{}` when nobody said how much. `meter` is the
    run's own (see `metering.py`), and no model's business.
    """

    model: str
    messages: list[Message]
    tools: list[dict[str, Any]] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    tool_choice: str | None = None
    response_format: dict[str, Any] | None = None
    timeout: float | None = None
    failed_attempts: list[dict[str, Any]] = field(default_factory=list, repr=False, compare=False)
    meter: Any = field(default=None, repr=False, compare=False)


@keyless_repr
@dataclass
class LLMResponse:
    """One answer of a model.

    `usage` is the provider's usage object (`TurnUsage.from_wire` reads it). `model` is the model that really
    answered. `finish_reason` is `stop`, `tool_calls`, `length`, `content_filter`, or whatever else was said.
    `extra` is what must come back unchanged on the assistant message of the next request. `replayed_from` is the run that
    has paid for it, where replay serves it.
    """

    content: str | None
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    finish_reason: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    id: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    replayed_from: str | None = None

    def to_message(self) -> Message:
        return Message("assistant", self.content, tool_calls=list(self.tool_calls) or None, extra=dict(self.extra))


@keyless_repr
@dataclass
class LLMChunk:
    """A piece of a streamed answer. The last one has `done=True` and carries the whole `response`."""

    delta: str | None = None
    tool_call_delta: dict[str, Any] | None = None
    done: bool = False
    reasoning_delta: str | None = None
    response: LLMResponse | None = None
