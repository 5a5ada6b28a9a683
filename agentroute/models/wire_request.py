"""Our values to the body of a chat-completions request, as the endpoint wants it (`quirks.py`). No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any, NamedTuple

from ..errors import ErrorConfig
from ..message import LLMRequest, Message, ToolCall, text_of
from .quirks import ECHO, KINDS, Quirks

__all__ = ["characters_of", "few_words", "request_body"]

NO_RESULT = "(no result: the call was interrupted)"
NO_OUTPUT = "(no output)"
NO_TEXT = "(no text)"
UNKNOWN = KINDS["unknown"]


def request_body(request: LLMRequest, quirks: Quirks = UNKNOWN, *, stream: bool) -> bytes:
    """The JSON body of a request. Empty lists and nulls are left out: several providers refuse them.

    What `extra` holds is sent as it is, whatever the quirks say.

    Raises:
        ErrorConfig: it cannot be written as JSON, or holds a picture in a form the endpoint does not take.
    """
    body: dict[str, Any] = {"model": request.model}
    if request.tools and not ("tools" in quirks.refused and request.tool_choice == "none"):
        body["tools"] = _tools(request.tools, quirks)
        if request.tool_choice:
            body["tool_choice"] = (quirks.required_choice or "auto") if request.tool_choice == "required" else request.tool_choice
    shape = _response_format(request.response_format, quirks)
    if shape:
        body["response_format"] = shape
    if request.temperature is not None:
        body["temperature"] = request.temperature
    if request.max_tokens is not None and not {"max_tokens", "max_completion_tokens"} & request.extra.keys():
        body[quirks.cap_field] = request.max_tokens
    if stream:
        body["stream"] = True
        if quirks.usage_option:
            body["stream_options"] = {"include_usage": True}
    for name in quirks.refused - {"tools"}:
        body.pop(name, None)
    body.update(request.extra)
    head = _encode(body)
    if "messages" in request.extra:
        return head
    messages = _sendable(_with_schema(request, quirks), quirks)
    return head[:-1] + b',"messages":[' + _encode_messages(messages, _form(quirks, request.model)) + b"]}"


def characters_of(request: LLMRequest) -> int:
    """The characters of text a request's messages hold."""
    calls = (ToolCall.from_wire(call) for message in request.messages for call in message.tool_calls or ())
    return sum(len(message.text) for message in request.messages) + sum(len(call.arguments_text) for call in calls)


_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode  # json.dumps would make one each time


def _encode(value: Any) -> bytes:
    # A lone surrogate (half of an emoji, say) cannot be sent as UTF-8; it goes out as a question mark.
    try:
        return _json(value).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        problem = str(error)
    raise ErrorConfig(f"the request cannot be written as JSON ({problem}); extra=, prompts and tools may hold only what JSON knows")


# ---- schemas ------------------------------------------------------------------------------------------------------

_FEW = {
    "type", "format", "description", "nullable", "enum", "properties", "required", "items", "anyOf",
    "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength", "pattern",
}  # fmt: skip
"""What Gemini's schemas may hold (its documentation, seen 2026-08)."""


def few_words(schema: Any, definitions: Mapping[str, Any] | None = None, inside: tuple[str, ...] = ()) -> Any:
    """A JSON Schema in few words: references written out, everything left out that not everybody understands.

    It may allow more than the original; answers are validated here in any case.
    """
    if not isinstance(schema, Mapping):
        return {}
    definitions = definitions or schema.get("$defs") or {}
    given = dict(schema)
    if isinstance(given.get("$ref"), str):
        name = given["$ref"].rpartition("/")[2]
        if name in inside or name not in definitions:
            return {"type": "object"}  # a type that holds itself has no end
        return few_words({**definitions[name], **{key: value for key, value in given.items() if key != "$ref"}}, definitions, (*inside, name))
    if isinstance(given.get("allOf"), list) and len(given["allOf"]) == 1 and isinstance(given["allOf"][0], Mapping):
        return few_words({**given.pop("allOf")[0], **given}, definitions, inside)
    if "oneOf" in given:
        given.setdefault("anyOf", given["oneOf"])
    if "const" in given:
        given.setdefault("enum", [given["const"]])
    few = {key: value for key, value in given.items() if key in _FEW}
    if isinstance(few.get("properties"), Mapping):
        few["properties"] = {name: few_words(item, definitions, inside) for name, item in few["properties"].items()}
    if "items" in few:
        few["items"] = few_words(few["items"], definitions, inside)
    if isinstance(few.get("anyOf"), list):
        few["anyOf"] = [few_words(item, definitions, inside) for item in few["anyOf"]]
    return few


def _tools(tools: list[dict[str, Any]], quirks: Quirks) -> list[dict[str, Any]]:
    if quirks.schema_words == "all":
        return tools
    simple = []
    for tool in tools:
        function = tool.get("function")
        if isinstance(function, Mapping) and "parameters" in function:
            kept = {key: value for key, value in function.items() if key != "strict"}
            tool = {**tool, "function": {**kept, "parameters": few_words(function["parameters"])}}
        simple.append(tool)
    return simple


def _response_format(shape: dict[str, Any] | None, quirks: Quirks) -> dict[str, Any] | None:
    if shape is None or (shape.get("type") != "json_schema" and quirks.schema_form != "words"):
        return shape
    if quirks.schema_form in ("object", "words"):
        return {"type": "json_object"} if quirks.schema_form == "object" else None
    inner = shape.get("json_schema")
    if not isinstance(inner, Mapping):
        return shape
    inner = dict(inner)
    if quirks.schema_form == "plain" or quirks.schema_words == "few":
        inner.pop("strict", None)
    if quirks.schema_words == "few":
        inner["schema"] = few_words(inner.get("schema"))
    return {**shape, "json_schema": inner}


def _with_schema(request: LLMRequest, quirks: Quirks) -> list[Message]:
    """The messages; with the schema of the answer in words where the endpoint takes none."""
    shape = request.response_format or {}
    inner = shape.get("json_schema")
    if quirks.schema_form not in ("object", "words") or not isinstance(inner, Mapping):
        return request.messages
    words = f"Answer with one JSON object that fits this JSON Schema, and with nothing else:\n{_json(inner.get('schema', {}))}"
    first, *rest = request.messages or [Message("system")]
    if first.role == "system":
        return [Message("system", "\n\n".join(filter(None, (first.text, words)))), *rest]
    return [Message("system", words), first, *rest]


# ---- which messages are sent --------------------------------------------------------------------------------------


def _sendable(messages: Sequence[Message], quirks: Quirks) -> list[Message]:
    """The conversation as every provider takes it: each tool call followed at once by its one result, no result without
    its call, no assistant message without a word."""
    sent: list[Message] = []
    position, count = 0, len(messages)
    while position < count:
        message = messages[position]
        position += 1
        if message.role == "tool":
            continue  # nobody asked for it
        if message.role != "assistant":
            sent.append(message)
        elif message.tool_calls:
            sent.append(message)
            end = position + len(message.tool_calls)
            if all(map(_is_answer, message.tool_calls, messages[position:end])) and end <= count:  # the usual case
                sent += messages[position:end]
                position = end
                continue
            end = next((later for later in range(position, count) if messages[later].role == "assistant"), count)
            sent.extend(_answers(message.tool_calls, messages[position:end], quirks))
            position = end
        elif _says_something(message):
            sent.append(message)
        elif sent and sent[-1].role == "user" and position < count and messages[position].role == "user":
            sent.append(Message("assistant", NO_TEXT))  # some templates insist on roles that take turns
    systems = [message for message in sent if message.role == "system"]
    if quirks.one_system and systems and (len(systems) > 1 or sent[0] is not systems[0]):
        one = Message("system", "\n\n".join(message.text for message in systems))
        return [one, *(message for message in sent if message.role != "system")]
    return sent


def _is_answer(call: Any, message: Message) -> bool:
    """Whether the message is a result of that call, in plain text."""
    return message.role == "tool" and type(message.content) is str and isinstance(call, dict) and call.get("id") == message.tool_call_id


def _says_something(message: Message) -> bool:
    content = message.content
    if isinstance(content, str):
        return bool(content) and not content.isspace()
    return content is not None and bool(message.described.strip())


def _answers(calls: Sequence[Any], later: Sequence[Message], quirks: Quirks) -> list[Message]:
    """What follows tool calls: one result for each, in their order, and then the rest of what stood there."""
    results: dict[str, list[Message]] = {}
    rest: list[Message] = []
    for message in later:
        if message.role == "tool":
            results.setdefault(message.tool_call_id or "", []).append(message)
        else:
            rest.append(message)
    answers: list[Message] = []
    pictures: list[dict[str, Any]] = []
    for call in map(ToolCall.from_wire, calls):
        found = results.get(call.id)
        answers.append(found.pop(0) if found else Message("tool", NO_RESULT, tool_call_id=call.id, name=call.name or None))
        if isinstance(answers[-1].content, list) and not quirks.tool_parts:
            pictures += [part for part in answers[-1].content if isinstance(part, Mapping) and part.get("type") != "text"]
    if pictures:
        answers.append(Message("user", [{"type": "text", "text": "What the tools returned besides text:"}, *pictures]))
    return answers + rest


# ---- one message --------------------------------------------------------------------------------------------------


class _Form(NamedTuple):
    """All that decides how a message is written, besides the message."""

    quirks: Quirks
    family: str
    """Whose reasoning the model understands; empty is unknown."""


_FAMILIES = {"anthropic": "anthropic", "openai": "openai", "google": "google", "x-ai": "xai", "meta-llama": "meta"}
"""Family of reasoning by vendor; formats are called after it: `anthropic-claude-v1`, `azure-openai-responses-v1`."""


@lru_cache(maxsize=256)
def _form(quirks: Quirks, model: str) -> _Form:
    vendor, slash, _ = model.removeprefix("~").partition("/")
    if quirks.kind != "openrouter" or not slash or vendor == "openrouter":
        return _Form(quirks, "")
    return _Form(quirks, _FAMILIES.get(vendor, vendor))


_state = attrgetter("role", "content", "tool_calls", "tool_call_id", "name", "extra")


def _encode_messages(messages: Sequence[Message], form: _Form) -> bytes:
    """The messages' JSON, each remembered with its message: a run of n turns sends its first message n times.

    What is remembered holds only while the message is what it was then; the texts in it are mostly the very same
    objects, so comparing costs next to nothing.
    """
    encoded: list[bytes] = []
    for message in messages:
        fields = message.__dict__
        known = fields.get("_encoded")
        if known is None or known[2] is not form or known[0] != _state(message):  # forms are cached: equal ones are the same
            known = fields["_encoded"] = (_as_it_is(message), _encode_message(message, form), form)
        encoded.append(known[1])
    return b",".join(encoded)


def _as_it_is(message: Message) -> Any:
    """What a later state of the message is compared with: a copy that shares only the texts. None is equal to no state.

    There is a copy only of what is made of texts alone: 1, 1.0 and True are equal, but not the same in JSON.
    """
    try:
        return tuple(map(_copied, _state(message)))
    except TypeError:
        return None


def _copied(value: Any) -> Any:
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is list:
        return [_copied(item) for item in value]
    if kind is dict:
        return {_copied(key): _copied(item) for key, item in value.items()}
    raise TypeError


def _encode_message(message: Message, form: _Form) -> bytes:
    quirks = form.quirks
    wire = message.to_dict()
    for name in ECHO:
        if name in wire and (name not in quirks.echo or (name == "reasoning_details" and _is_foreign(wire[name], form.family))):
            del wire[name]
    if message.role == "assistant":
        if not _says_something(message):
            wire["content"] = None
        if message.tool_calls:
            wire["tool_calls"] = [_call(call, position, quirks) for position, call in enumerate(message.tool_calls)]
            if quirks.blank_reasoning:
                wire.setdefault("reasoning_content", "")
    elif message.role == "tool":
        if not (quirks.tool_parts and isinstance(message.content, list) and message.content):
            text = text_of(message.content)
            wire["content"] = text if text and not text.isspace() else NO_OUTPUT
        if message.tool_call_id:
            wire["tool_call_id"] = _call_id(message.tool_call_id, quirks)
    if isinstance(wire.get("content"), list):
        wire["content"] = _parts(wire["content"], quirks)
    return _encode(wire)


def _is_foreign(details: Any, family: str) -> bool:
    """Whether reasoning is signed for another family of models, which alone can read it."""
    formats = {str(item.get("format")) for item in details if isinstance(item, Mapping)} if isinstance(details, list) else set()
    families = {known for known in _FAMILIES.values() for name in formats if re.search(rf"\b{known}\b", name)}
    return bool(family) and bool(families - {family})


def _call(call: Any, position: int, quirks: Quirks) -> dict[str, Any]:
    """A tool call as it goes back. Arguments that are no JSON object become `{}`, or servers refuse the whole request."""
    read = ToolCall.from_wire(call)
    try:
        usable = isinstance(json.loads(read.arguments_text), dict)
    except (ValueError, RecursionError):
        usable = False
    wire = {key: value for key, value in call.items() if key != "index"} if isinstance(call, Mapping) else {}
    wire["id"] = _call_id(read.id, quirks)
    wire["type"] = "function"
    wire["function"] = {"name": read.name, "arguments": read.arguments_text if usable else "{}"}
    if "extra_content" not in quirks.echo:
        wire.pop("extra_content", None)
    elif quirks.blank_signature and position == 0 and not wire.get("extra_content"):
        wire["extra_content"] = {"google": {"thought_signature": "skip_thought_signature_validator"}}
    return wire


@lru_cache(maxsize=4096)
def _digest(text: str, length: int) -> str:
    import hashlib

    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:length]


def _call_id(call_id: str, quirks: Quirks) -> str:
    """The id as the endpoint wants it; the same one always becomes the same, on the call and on its result."""
    length = quirks.call_id_length
    if length is None or re.fullmatch(rf"[a-zA-Z0-9]{{{length}}}", call_id):
        return call_id
    return _digest(call_id, length)


def _parts(parts: list[Any], quirks: Quirks) -> Any:
    if not quirks.text_parts and all(isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") == "text") for part in parts):
        return text_of(parts)
    if quirks.data_images:
        for part in parts:
            picture = part.get("image_url") if isinstance(part, Mapping) else None
            url = picture.get("url") if isinstance(picture, Mapping) else picture
            if isinstance(url, str) and url.lower().startswith(("http://", "https://")):
                raise ErrorConfig(f"{quirks.kind} takes pictures as data, not as addresses: give image() a file or its bytes instead of a URL")
    return parts
