"""Tool calls for models that know no tools: asked for in words, answered in constrained JSON.

A model whose chat template has no place for tools never sees them. This layer tells it about them in the system message
and binds its answer to a JSON schema: `{"tool": NAME, "arguments": {…}}` or `{"answer": TEXT}`. The answer is translated
back, so that the loop sees ordinary tool calls. One call a turn: small models that may write a list do not end it.

Where the worked example stands was measured on SmolLM2-135M over five sets of tools. As text in the system message it
picks the right tool best; but once a tool has answered, the model then repeats the example instead of the result. As
turns of the conversation it is the other way round. So it is text before a tool result and turns after one.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

from ..message import LLMChunk, LLMRequest, LLMResponse, Message, ToolCall
from ..output import OUTPUT_TOOL
from .base import Model, ask
from .json_text import JSONString, first_object, sendable
from .prompted_schema import shape, turn_schema

__all__ = ["ModelPromptedTools"]

_TOOL_EXAMPLE = (
    ("user", "What is the weather in Paris?"),
    ("assistant", '{"tool": "weather", "arguments": {"city": "Paris"}}'),
    ("user", "Result of weather: 21 degrees, sunny"),
    ("assistant", '{"answer": "The weather in Paris is sunny, 21 degrees."}'),
)
_GREETING = (("user", "Hello!"), ("assistant", '{"answer": "Hello! How can I help you?"}'))
_THANKS = (("user", "Thanks!"), ("assistant", '{"answer": "You are welcome!"}'))


class ModelPromptedTools:
    """A model around one without tool calls of its own. Requests without tools go through as they are.

    Args:
        inner: the model; its endpoint must support `response_format` with a JSON schema, or the model obey it freely.
        native: asked once a request; when it says true, the model knows tools and everything goes through as it is.
        temperature: for requests with tools that name none; low, because a tool call is no place for variety.
        max_tokens: for requests with tools that name none.
        text_limit: most characters of any one text in the JSON; None is no limit. Keeps very small models from babbling.
        extra: further settings for requests with tools, where the request's own `extra` does not have them.
    """

    def __init__(
        self,
        inner: Model,
        *,
        native: Callable[[], Awaitable[bool]] | None = None,
        temperature: float = 0.0,
        max_tokens: int | None = None,
        text_limit: int | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.inner = inner
        self.native = native
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.text_limit = text_limit
        self.extra = dict(extra or {})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.inner!r})"

    is_layer = True

    @property
    def replay_identity(self) -> Any:
        inner = getattr(self.inner, "replay_identity", None)
        return inner and ["prompted", inner, self.temperature, self.max_tokens, self.text_limit, self.extra]

    @property
    def context_tokens(self) -> int | None:
        return getattr(self.inner, "context_tokens", None)

    async def complete(self, request: LLMRequest) -> LLMResponse:
        if self.native is not None and await self.native():
            return await self._asked(request)
        plan = _plan(request, self.text_limit)
        response = await self._asked(self._translated(request, plan))
        if not plan.offers:
            return response
        reader = _Reader(plan)
        reader.feed(response.content or "")
        return reader.finish(response)

    async def _asked(self, request: LLMRequest) -> LLMResponse:
        async with aclosing(ask(self.inner, request, stream=False)) as chunks:
            async for chunk in chunks:
                if chunk.response is not None:
                    return chunk.response
        raise AssertionError("an answer ends with a response or an error")

    async def complete_stream(self, request: LLMRequest) -> AsyncGenerator[LLMChunk, None]:
        native = self.native is not None and await self.native()
        plan = _Plan([]) if native else _plan(request, self.text_limit)
        asked = request if native else self._translated(request, plan)
        reader = _Reader(plan)
        shown = 0
        async with aclosing(ask(self.inner, asked, stream=True)) as chunks:
            async for chunk in chunks:
                if not plan.offers or chunk.reasoning_delta:
                    yield chunk
                elif chunk.response is None:
                    if delta := reader.feed(chunk.delta or ""):
                        shown += len(delta)
                        yield LLMChunk(delta=delta)
                else:
                    response = reader.finish(chunk.response)
                    if rest := (response.content or "")[shown:]:
                        yield LLMChunk(delta=rest)
                    yield LLMChunk(done=True, response=response)

    async def close(self) -> None:
        await self.inner.close()

    def _translated(self, request: LLMRequest, plan: _Plan) -> LLMRequest:
        if not plan.offers:
            if not any(message.role == "tool" or message.tool_calls for message in request.messages):
                return replace(request, tools=None, tool_choice=None)
            return replace(request, messages=_conversation(request.messages, plan), tools=None, tool_choice=None)
        extra = {**self.extra, **request.extra}
        return replace(
            request,
            messages=_messages(request.messages, plan),
            tools=None,
            tool_choice=None,
            response_format={"type": "json_schema", "json_schema": {"name": "reply", "schema": plan.schema}},
            temperature=self.temperature if request.temperature is None and "temperature" not in extra else request.temperature,
            max_tokens=self.max_tokens if request.max_tokens is None else request.max_tokens,
            extra=extra,
        )


# ---- request ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """How one request is asked: the tools offered (none: as it is), the schema of an answer (None: it must call), of all.

    `direct` names the one tool that must be called: then the JSON is its arguments and nothing around them.
    `answer_tool` names the tool through which the loop takes a typed answer: to the model, its call is the answer.
    """

    offers: list[Mapping[str, Any]]
    answer: Mapping[str, Any] | None = None
    direct: str | None = None
    answer_tool: str | None = None
    schema: Mapping[str, Any] | None = None
    next_id: str = ""


def _plan(request: LLMRequest, text_limit: int | None) -> _Plan:
    functions = [tool["function"] for tool in request.tools or [] if isinstance(tool.get("function"), Mapping)]
    if not functions or request.tool_choice == "none":
        return _Plan([])
    next_id = _new_id(request.messages)
    required = request.tool_choice == "required"
    if required and len(functions) == 1:
        schema = turn_schema(functions, None, direct=True, text_limit=text_limit)
        return _Plan(functions, None, functions[0]["name"], schema=schema, next_id=next_id)
    answer = None if required else _answer_schema(request.response_format)
    typed = next((function for function in functions if function["name"] == OUTPUT_TOOL), None)
    if typed is not None:
        functions = [function for function in functions if function is not typed]
        answer = typed.get("parameters") or {"type": "object"}
    tired = set() if answer is None else _repeated(request.messages)
    offers = [function for function in functions if function["name"] not in tired]
    schema = turn_schema(offers, answer, direct=False, text_limit=text_limit)
    return _Plan(functions, answer, None, OUTPUT_TOOL if typed is not None else None, schema, next_id)


def _answer_schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What stands at `answer`: a text, or what the request's own `response_format` asks for."""
    kind = (response_format or {}).get("type")
    if kind == "json_schema":
        asked = (response_format or {}).get("json_schema")
        schema = asked.get("schema") if isinstance(asked, Mapping) else None
        return schema if isinstance(schema, Mapping) else {"type": "object"}
    return {"type": "object"} if kind == "json_object" else {"type": "string"}


def _repeated(messages: Sequence[Message]) -> set[str]:
    """Tools the model is going round in circles with: called twice with the same arguments since the user last spoke."""
    seen: set[tuple[str, str]] = set()
    repeated: set[str] = set()
    for message in messages:
        if message.role == "user":
            seen, repeated = set(), set()
        for wire in message.tool_calls or []:
            call = ToolCall.from_wire(wire)
            key = call.name, call.arguments_text
            if key in seen:
                repeated.add(call.name)
            seen.add(key)
    return repeated


def _new_id(messages: Sequence[Message]) -> str:
    """Nine letters and digits, new to the conversation; the same request always gets the same one."""
    taken = {wire.get("id") for message in messages for wire in message.tool_calls or []}
    number = len(taken) + 1
    while (call_id := f"call{number:05d}") in taken:
        number += 1
    return call_id


def _messages(messages: Sequence[Message], plan: _Plan) -> list[Message]:
    """The conversation with what the model must know about its tools in the (first) system message."""
    system = [message for message in messages if message.role == "system"]
    rest = [message for message in messages if message.role != "system"]
    after_result = bool(rest) and rest[-1].role == "tool"
    parts = [message.text for message in system if message.text]
    turns: list[Message] = []
    if plan.direct is not None:
        parts.append(_ask_for_arguments(plan.offers[0]))
    else:
        example = _TOOL_EXAMPLE if plan.answer is not None else _TOOL_EXAMPLE[:2]
        parts += ["Tools:\n" + "\n".join(_line(function) for function in plan.offers), _how(plan.answer)]
        if after_result:
            turns = [Message(role, text) for role, text in (*_GREETING, *example)]
        else:
            parts.append("Example:\n" + "\n".join(f"{role}: {text}" for role, text in (*example, *_GREETING, *_THANKS)))
    return [Message("system", "\n\n".join(parts)), *turns, *_conversation(rest, plan)]


def _line(function: Mapping[str, Any]) -> str:
    parameters = function.get("parameters") or {}
    about = " ".join(str(function.get("description") or "").split())
    line = {"tool": function["name"], "about": about, "arguments": shape(parameters)}
    return json.dumps(line if about else {key: line[key] for key in ("tool", "arguments")}, ensure_ascii=False)


def _how(answer: Mapping[str, Any] | None) -> str:
    words = 'Reply in JSON. To use a tool, write {"tool": "NAME", "arguments": {…}}.'
    if answer is None:
        return words
    if answer == {"type": "string"}:
        return words + ' To answer the user, write {"answer": "TEXT"}.'
    return words + f' To answer the user, write {{"answer": {{…}}}} with the keys {_keys(answer)}.'


def _ask_for_arguments(function: Mapping[str, Any]) -> str:
    return f"Reply in JSON with the keys {_keys(function.get('parameters') or {})}."


def _keys(schema: Mapping[str, Any]) -> str:
    # In prose, not as a JSON object: a small model copies the words of an object into its answer.
    parameters = shape(schema)
    if not isinstance(parameters, Mapping):
        return "that fit"
    return ", ".join(f"{name} ({what if isinstance(what, str) else json.dumps(what, ensure_ascii=False)})" for name, what in parameters.items())


def _conversation(messages: Sequence[Message], plan: _Plan) -> list[Message]:
    """Messages without tool calls and tool results: a call is what the model wrote, a result is told by the user.

    Where one message made several calls, each stands before its own result. Neighbours of one role become one message,
    because many templates insist that the roles take turns.
    """
    results = {message.tool_call_id: message for message in messages if message.role == "tool"}
    told: list[Message] = []
    answered: set[str | None] = set()
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id not in answered:  # its call was cut away by a history policy
                told.append(Message("user", _result_text(message.name or "the tool", message)))
        elif message.role == "assistant" and message.tool_calls:
            text, extra = message.text, message.extra
            for wire in message.tool_calls:
                call = ToolCall.from_wire(wire)
                told.append(Message("assistant", "\n".join(filter(None, (text, _call_text(call, plan)))), extra=extra))
                text, extra = "", {}
                if (result := results.get(call.id)) is not None:
                    answered.add(call.id)
                    told.append(Message("user", _result_text(call.name, result)))
        elif message.role == "assistant" and plan.offers and plan.direct is None:
            told.append(Message("assistant", json.dumps({"answer": message.text}, ensure_ascii=False), extra=message.extra))
        else:
            told.append(message)
    return _merged(told)


def _call_text(call: ToolCall, plan: _Plan) -> str:
    """A call as the model wrote it."""
    try:
        arguments = json.loads(call.arguments_text)
    except (ValueError, RecursionError):
        arguments = {}
    written = {"tool": call.name, "arguments": arguments}
    if call.name == plan.direct:
        written = arguments
    elif call.name == plan.answer_tool:
        written = {"answer": arguments}
    return json.dumps(written, ensure_ascii=False)


def _result_text(name: str, message: Message) -> str:
    text = message.text or "(no output)"
    return text if name == OUTPUT_TOOL else f"Result of {name}: {text}"


def _merged(messages: Sequence[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        last = merged[-1] if merged else None
        if last is not None and last.role == message.role and isinstance(last.content, str) and isinstance(message.content, str):
            merged[-1] = Message(last.role, f"{last.content}\n\n{message.content}", extra={**last.extra, **message.extra})
        else:
            merged.append(message)
    return merged


# ---- response -----------------------------------------------------------------------------------------------------

_ANSWER_HEAD = re.compile(r'\s*\{\s*"answer"\s*:\s*"')
_CUT_CALL = re.compile(r'\s*\{\s*"tool"\s*:\s*"([^"\\]*)(?:"\s*,\s*"arguments"\s*:\s*(.*))?', re.DOTALL)


class _Reader:
    """Reads the model's JSON as it comes: `feed` gives the part of the answer that became readable, `finish` the response."""

    def __init__(self, plan: _Plan) -> None:
        self.plan = plan
        self._raw = ""
        self._answer: list[str] = []
        self._string: JSONString | None = None
        self._plain = False

    def feed(self, text: str) -> str:
        self._raw += text
        if self.plan.direct is not None:
            return ""
        if self._plain:
            return text
        if self._string is None:
            start = self._raw.lstrip()
            if start and start[0] not in "{`":  # no JSON at all: the model answers in prose
                self._plain = True
                return self._raw
            head = _ANSWER_HEAD.match(self._raw)
            if head is None:
                return ""
            self._string = JSONString()
            text = self._raw[head.end() :]
        decoded = self._string.feed(text)
        self._answer.append(decoded)
        return decoded

    def finish(self, response: LLMResponse) -> LLMResponse:
        """The inner response in the loop's terms. Cut-off calls keep the finish reason `length`, which says not to run them."""
        cut = response.finish_reason == "length"
        if self.plan.direct is not None:
            return self._called(response, self.plan.direct, first_object(self._raw)[0] or self._raw)
        if self._plain or self._string is not None:
            text = self._raw if self._string is None else "".join(self._answer)
            whole = self._string is not None and self._string.closed
            return replace(response, content=text or None, finish_reason="stop" if cut and whole else response.finish_reason)
        _, value = first_object(self._raw)
        if isinstance(value, Mapping) and isinstance(value.get("tool"), str):
            return self._called(response, value["tool"], _arguments_text(value.get("arguments")))
        if isinstance(value, Mapping) and "answer" in value:
            answer = value["answer"]
            if self.plan.answer_tool is not None:
                return self._called(response, self.plan.answer_tool, _arguments_text(answer))
            text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            return replace(response, content=sendable(text) or None)
        if cut and (call := _CUT_CALL.match(self._raw)):
            return self._called(response, call[1], call[2] or "")
        return replace(response, content=self._raw or None)

    def _called(self, response: LLMResponse, name: str, arguments: str) -> LLMResponse:
        whole = first_object(self._raw)[0] is not None
        reason = "tool_calls" if response.finish_reason in ("stop", None) or whole else response.finish_reason
        call = ToolCall(self.plan.next_id, name, sendable(arguments))
        return replace(response, content=None, tool_calls=[call.to_wire()], finish_reason=reason)


def _arguments_text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return json.dumps({} if arguments is None else arguments, ensure_ascii=False)
