"""Chat-completions answers, whole or in pieces, to our values: pure conversions, no I/O. (Requests: `wire_request.py`.)

Providers differ from the protocol's letter in many ways; what is read here is read so that none of the known ways
loses an answer, invents one, or raises anything but an ErrorAgent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..errors import ErrorModelResponse, ErrorModelServer
from ..message import LLMChunk, LLMResponse, text_of
from .quirks import Quirks
from .wire_errors import error_of_payload, failed_calls

__all__ = ["StreamFold", "counted", "response_of", "usage_of"]

ECHOED = ("reasoning_details", "reasoning_content", "reasoning")
"""Fields of an assistant message that providers want back unchanged in tool loops."""


# ---- response -----------------------------------------------------------------------------------------------------


def response_of(payload: Any) -> LLMResponse:
    """The response in a completion object.

    Raises:
        ErrorModelResponse: it holds no answer.
        ErrorModel: it holds an error instead (some providers send those with status 200).
    """
    if not isinstance(payload, Mapping):
        raise ErrorModelResponse(f"the provider sent {_kind(payload)} where a completion object was expected")
    if payload.get("error"):
        if calls := failed_calls(payload):
            return LLMResponse(None, _tool_calls(calls), usage_of(payload), finish_reason="tool_calls")
        raise error_of_payload(payload)
    choices = payload.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, Mapping):
        if isinstance(inner := payload.get("provider"), Mapping) and inner.get("choices"):  # OpenRouter, now and then (2026)
            return response_of(inner)
        raise ErrorModelResponse("the provider sent no answer (no choices)", body=json.dumps(payload), reason="empty")
    if choice.get("error"):
        raise error_of_payload(choice)
    message = choice.get("message")
    if not isinstance(message, Mapping):
        raise ErrorModelResponse("the provider sent no answer (a choice without a message)", body=json.dumps(payload), reason="empty")
    finish = choice.get("finish_reason")
    response = LLMResponse(
        content=_text(message.get("content")),
        tool_calls=_tool_calls(message.get("tool_calls")),
        usage=usage_of(payload),
        model=_string(payload.get("model")),
        finish_reason=finish if isinstance(finish, str) and finish else None,
        reasoning=_string(message.get("reasoning")) or _string(message.get("reasoning_content")) or _thinking(message.get("content")),
        refusal=_string(message.get("refusal")),
        id=_string(payload.get("id")),
        extra={name: message[name] for name in ECHOED if message.get(name)},
    )
    return _finished(response)


def _finished(response: LLMResponse) -> LLMResponse:
    """The response with its finish reason made consistent; some say `stop` and call tools all the same."""
    if response.finish_reason == "error":
        raise ErrorModelServer("the provider broke off its answer (finish_reason 'error')")
    if response.finish_reason == "insufficient_system_resource":  # DeepSeek: a passing lack of room
        raise ErrorModelServer("the provider broke off its answer (finish_reason 'insufficient_system_resource')", status=503)
    if response.finish_reason == "model_length":  # Mistral
        response.finish_reason = "length"
    if response.tool_calls and response.finish_reason in (None, "stop", "function_call"):
        response.finish_reason = "tool_calls"
    elif response.finish_reason is None:
        response.finish_reason = "stop"
    if response.finish_reason in ("tool_calls", "function_call") and not (response.tool_calls or response.content or response.refusal):
        raise ErrorModelResponse("the provider announced a tool call and sent none that names a tool")
    return response


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _text(content: Any) -> str | None:
    return None if content is None or content == "" else text_of(content)


def _thinking(content: Any) -> str | None:
    """The reasoning that stands as parts of the content (Mistral)."""
    parts = content if isinstance(content, list) else []
    return "".join(text_of(part.get("thinking")) for part in parts if isinstance(part, Mapping) and part.get("type") == "thinking") or None


def usage_of(payload: Any) -> dict[str, Any]:
    """The usage object of a completion object or chunk; empty when there is none."""
    if not isinstance(payload, Mapping):
        return {}
    usage = payload.get("usage")
    if usage is None and isinstance(groq := payload.get("x_groq"), Mapping):
        usage = groq.get("usage")
    return dict(usage) if isinstance(usage, Mapping) else {}


def counted(usage: dict[str, Any], quirks: Quirks, headers: Mapping[str, str]) -> dict[str, Any]:
    """The usage with what the endpoint says of it in another place, or in another way.

    The cost may come as `cost_in_usd_ticks` (xAI, 10¹⁰ a dollar), or in LiteLLM's header, where an empty one and "None" say
    nothing. Where `completion_tokens` leaves out reasoning, it is what `total_tokens` has beside the prompt.
    """
    if usage.get("cost") is None:
        ticks, header = _amount(usage.get("cost_in_usd_ticks")), _amount(headers.get("x-litellm-response-cost"))
        if ticks is not None:
            usage["cost"] = float(Decimal(str(ticks)) / 10**10)
        elif header is not None:
            usage["cost"] = header
    if quirks.hidden_reasoning:
        prompt, answer, total = (_amount(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
        if prompt is not None and total is not None and total - prompt > (answer or 0):
            usage["completion_tokens"] = int(total - prompt)
    return usage


def _amount(value: Any) -> float | None:
    """A number from zero up to a quadrillion, also as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if 0 <= number < 1e18 else None


def _arguments(value: Any) -> str:
    if isinstance(value, str):
        return value if value.strip() not in ("", "null") else "{}"
    return "{}" if value is None else json.dumps(value, ensure_ascii=False)


def _new_id(index: int, taken: set[str]) -> str:
    """Nine letters and digits, a form every provider accepts; the same answer always gets the same one."""
    while (call_id := f"call{index:05d}") in taken:
        index += 1
    return call_id


def _tool_calls(calls: Any) -> list[dict[str, Any]]:
    """Wire tool calls with an id each, ids made unique; entries that name no function are left out."""
    result: list[dict[str, Any]] = []
    taken: set[str] = set()
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, Mapping) else None
        name = function.get("name") if isinstance(function, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(name, str) or not name:
            continue
        call_id = call.get("id")
        if not isinstance(call_id, str) or not call_id or call_id in taken:
            call_id = _new_id(index, taken)
        taken.add(call_id)
        clean = {
            "id": call_id,
            "type": "function",
            "function": {"name": name, "arguments": _arguments(function.get("arguments"))},
        }
        if call.get("extra_content"):  # carries a signature that must come back (Gemini)
            clean["extra_content"] = call["extra_content"]
        result.append(clean)
    return result


# ---- stream -------------------------------------------------------------------------------------------------------


@dataclass
class _Slot:
    """A tool call being received. Texts come in very many pieces, so all are joined once, at the end."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    extra_content: Any = None

    @property
    def complete(self) -> bool:
        """Whether the arguments so far are whole JSON. Nothing is read unless their end looks like one."""
        last = next((piece for piece in map(str.rstrip, reversed(self.arguments)) if piece), "")
        if not last.endswith(("}", "]", "null")):
            return False
        try:
            json.loads("".join(self.arguments))
        except (ValueError, RecursionError):
            return False
        return True


@dataclass
class StreamFold:
    """Collects completion chunks: `add` gives the chunk's deltas, `finish` the response they add up to."""

    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    done: bool = False
    """`[DONE]` has come."""
    ended: bool = False
    """The answer is over, it seems: a finish reason has come by itself, and nothing of an answer since."""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    model: str | None = None
    id: str | None = None
    _went_on: bool = False
    _choice: Any = None
    _slots: list[_Slot] = field(default_factory=list)
    _by_index: dict[int, _Slot] = field(default_factory=dict)
    _by_id: dict[str, _Slot] = field(default_factory=dict)
    _echo: dict[str, list[str]] = field(default_factory=dict)
    _details: list[Any] = field(default_factory=list)
    _detail_texts: list[dict[str, list[str]]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Nothing is missing, should no more come: a finish reason has come, and all calls have their arguments.

        Where an answer went on after one, finish reasons say nothing; then it must be `ended`.
        """
        finished = self.finish_reason is not None and not self._went_on and all(slot.complete for slot in self._slots)
        return self.done or self.ended or finished

    def add_data(self, data: str, event: str = "message") -> list[LLMChunk]:
        """The deltas of one event's data; `[DONE]` ends the answer.

        Raises:
            ErrorModel: the event carries an error, or nothing readable.
        """
        if self.done or event == "ping":
            return []  # nothing after [DONE] counts
        data = data.strip()
        if data == "[DONE]":
            self.done = True
            return []
        if not data:
            return []
        payloads = _payloads(data)
        if event == "error":
            said = payloads[0] if payloads else None
            raise error_of_payload(said if isinstance(said, Mapping) else {"message": data})
        return [chunk for payload in payloads for chunk in self.add(payload)]

    def add(self, payload: Any) -> list[LLMChunk]:
        if not isinstance(payload, Mapping):
            raise ErrorModelResponse(f"the provider streamed {_kind(payload)} where a chunk was expected", partial="".join(self.text))
        self.usage = usage_of(payload) or self.usage  # replaces: some send running totals on every chunk
        if payload.get("error"):
            if calls := failed_calls(payload):
                return self._add_delta({"tool_calls": [{**call, "id": f"failed{number:03d}"} for number, call in enumerate(calls)]}, "tool_calls")
            raise error_of_payload(payload)
        self.model = _string(payload.get("model")) or self.model
        self.id = _string(payload.get("id")) or self.id
        choices = payload.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return []
        if (index := choice.get("index")) is not None and index != self._choice:
            if self._choice is not None:
                return []  # of another of several answers (`n` in extra)
            self._choice = index
        self.usage = usage_of(choice) or self.usage
        if choice.get("error"):
            raise error_of_payload(choice)
        finish, finished = choice.get("finish_reason"), self.finish_reason is not None
        if isinstance(finish, str) and finish:
            self.finish_reason = finish
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            delta = choice.get("message")
        chunks = self._add_delta(delta) if isinstance(delta, Mapping) else []
        # Some give every chunk a finish reason: one that comes beside a part of the answer may not be the end.
        self.ended = not chunks and (self.ended or bool(finish))
        self._went_on = self._went_on or (finished and bool(chunks))
        return chunks

    def _add_delta(self, delta: Mapping[str, Any], finish: str | None = None) -> list[LLMChunk]:
        self.finish_reason = finish or self.finish_reason
        chunks: list[LLMChunk] = []
        reasoning = delta.get("reasoning") or delta.get("reasoning_content") or _thinking(delta.get("content"))
        if isinstance(reasoning, str) and reasoning:
            self.reasoning.append(reasoning)
            chunks.append(LLMChunk(reasoning_delta=reasoning))
        self._add_echo(delta)
        if (content := delta.get("content")) and (text := text_of(content)):
            self.text.append(text)
            chunks.append(LLMChunk(delta=text))
        if isinstance(delta.get("refusal"), str):
            self.refusal.append(delta["refusal"])
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else []:
            if isinstance(call, Mapping):
                self._add_call(call)
                chunks.append(LLMChunk(tool_call_delta=dict(call)))
        return chunks

    def _add_echo(self, delta: Mapping[str, Any]) -> None:
        for name in ("reasoning", "reasoning_content"):
            if isinstance(delta.get(name), str) and delta[name]:
                self._echo.setdefault(name, []).append(delta[name])
        details = delta.get("reasoning_details")
        for item in details if isinstance(details, list) else []:
            last = self._details[-1] if self._details else None
            if not (isinstance(item, Mapping) and isinstance(last, dict) and _same_detail(last, item)):
                last = dict(item) if isinstance(item, Mapping) else item
                self._details.append(last)
                self._detail_texts.append({})
            if isinstance(item, Mapping) and isinstance(last, dict):
                texts = self._detail_texts[-1]
                for key, value in item.items():
                    if key in ("text", "summary", "data") and isinstance(value, str):
                        texts.setdefault(key, []).append(value)
                    elif value is not None:
                        last[key] = value

    def _echoed(self) -> dict[str, Any]:
        """What came of the fields that go back unchanged."""
        echo: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._echo.items()}
        for detail, texts in zip(self._details, self._detail_texts, strict=True):
            if texts:
                detail.update({key: "".join(pieces) for key, pieces in texts.items()})
        return {**echo, "reasoning_details": self._details} if self._details else echo

    def _add_call(self, call: Mapping[str, Any]) -> None:
        function = call.get("function")
        function = function if isinstance(function, Mapping) else {}
        call_id, name, arguments = _string(call.get("id")) or "", _string(function.get("name")) or "", function.get("arguments")
        slot = self._slot(call.get("index"), call_id, name, blank=arguments is None or (isinstance(arguments, str) and not arguments.strip()))
        if call_id and not slot.id:
            slot.id = call_id
            self._by_id.setdefault(call_id, slot)
        slot.name = slot.name or name  # a repeated name is not appended
        slot.extra_content = call.get("extra_content") or slot.extra_content
        if isinstance(arguments, str):
            slot.arguments.append(arguments)
        elif arguments is not None:
            slot.arguments.append(json.dumps(arguments, ensure_ascii=False))

    def _slot(self, index: Any, call_id: str, name: str, *, blank: bool) -> _Slot:
        """The call a fragment belongs to: by index *and* id, because some servers give every call index 0.

        One that is `blank`, without arguments, and repeats the name only says it again.
        """
        if isinstance(index, int) and not isinstance(index, bool):
            slot = self._by_index.get(index)
            other_id = slot is not None and slot.id and call_id and slot.id != call_id
            new_call = slot is not None and not call_id and name and slot.name and slot.complete and not (blank and name == slot.name)
            if slot is None or other_id or new_call:
                slot = self._by_index[index] = self._new_slot()
            return slot
        if call_id in self._by_id:
            return self._by_id[call_id]
        last = self._slots[-1] if self._slots else None
        if last is not None and blank and not call_id and name == last.name:
            return last
        if last is None or ((name or call_id) and (last.name or last.id)):
            return self._new_slot()
        return last

    def _new_slot(self) -> _Slot:
        self._slots.append(_Slot())
        return self._slots[-1]

    def finish(self) -> LLMResponse:
        """The response, after the last byte.

        Raises:
            ErrorModelResponse: neither a finish reason nor `[DONE]` came, so the answer is cut off; or nothing came.
        """
        text = "".join(self.text)
        if not self.done and self.finish_reason is None:
            problem = "the model's answer was cut off: its stream ended without a finish reason"
            raise ErrorModelResponse(problem, partial=text, reason="cut_off")
        if self.finish_reason is None and not text and not self._slots and not self.reasoning:
            raise ErrorModelResponse("the provider sent an empty stream", reason="empty")
        wire = [
            {
                "id": slot.id,
                "function": {"name": slot.name, "arguments": "".join(slot.arguments)},
                "extra_content": slot.extra_content,
            }
            for slot in self._slots
        ]
        return _finished(
            LLMResponse(
                content=text or None,
                tool_calls=_tool_calls(wire),
                usage=self.usage,
                model=self.model,
                finish_reason=self.finish_reason,
                reasoning="".join(self.reasoning) or None,
                refusal="".join(self.refusal) or None,
                id=self.id,
                extra=self._echoed(),
            )
        )


def _payloads(data: str) -> list[Any]:
    """The JSON values of one event: one, or one a line where a proxy leaves out the blank lines."""
    try:
        return [json.loads(data)]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in data.split("\n") if line.strip() and line.strip() != "[DONE]"]
    except (ValueError, RecursionError):
        pass
    raise ErrorModelResponse("the provider streamed something that is not JSON", body=data)


def _same_detail(last: Mapping[str, Any], item: Mapping[str, Any]) -> bool:
    return item.get("index") is not None and (last.get("index"), last.get("type")) == (item.get("index"), item.get("type"))
