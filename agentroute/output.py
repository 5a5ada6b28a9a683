"""Structured output: asking a model for a type, reading its answer, and what to tell it when the answer does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args, get_origin

from .annotations import known
from .errors import ErrorAgent, ErrorConfig, Retry
from .message import LLMRequest, LLMResponse, ToolCall
from .problems import UNKNOWN, told
from .schema import Invalid, TypeSchema

__all__ = ["OUTPUT_TOOL", "OutputMode", "OutputSpec", "check_mode", "check_type", "complaint", "strict_schema"]

OutputMode = Literal["auto", "tool", "native", "prompted", "text"]

OUTPUT_TOOL = "final_answer"
"""Name of the tool through which a model hands in a structured answer in mode `tool`."""

def check_mode(mode: str) -> None:
    """Raises ErrorConfig when there is no such mode."""
    if mode not in get_args(OutputMode):
        raise ErrorConfig(f"output_mode must be one of {', '.join(get_args(OutputMode))}; got {mode!r}")


def check_type(kind: Any) -> None:
    """Raises ErrorConfig for what is written in a type's place by mistake: its name, an object of it, a schema."""
    special = type(kind).__module__ in ("typing", "typing_extensions", "types")  # Any, NewType, X | Y, …
    if kind is None or isinstance(kind, type) or special or get_origin(kind) is not None:
        return
    if isinstance(kind, str):
        raise ErrorConfig(f"output must be a type, got the text {kind!r:.80}; give the class itself, without quotes")
    if isinstance(kind, list):
        inner = kind[0].__name__ if len(kind) == 1 and isinstance(kind[0], type) else "…"
        raise ErrorConfig(f"output must be a type, got a list; for several values write output=list[{inner}]")
    name = type(kind).__name__
    if isinstance(kind, dict | tuple | set | int | float) or callable(kind):
        raise ErrorConfig(f"output must be a type, got {name}; give a class, such as a pydantic BaseModel, a dataclass or int")
    raise ErrorConfig(f"output must be a type, got an object of {name}; give the class: output={name}")


class OutputSpec:
    """How one type is asked for and read.

    Modes: `tool` (and `auto`): the answer is the call of an extra tool, other tools stay callable before it. `native`:
    the provider's `response_format` holds the schema, with `strict: true` where strict mode can say what the type says:
    every property required, no free-form dictionaries, no keywords it refuses (else the schema as it is, without
    `strict`). `prompted`: the instructions hold it. `text`: nothing is said to the model; its text is read as the type.

    In every mode the answer is validated here, and an answer that comes as text may stand alone, in a code fence or in
    prose.
    """

    def __init__(self, kind: Any, mode: str = "auto") -> None:
        check_mode(mode)
        self.kind = kind
        self.mode = "tool" if mode == "auto" else mode
        self._schema = TypeSchema(kind)
        self.schema = _rooted(self._schema.schema)
        # Tool arguments and strict JSON modes must be objects; anything else goes into one under `value`.
        self._wrapper: TypeSchema | None = None
        if self.schema.get("type") != "object":
            import pydantic

            self._wrapper = TypeSchema(pydantic.create_model(OUTPUT_TOOL, value=(known(kind), ...)))
            self.schema = self._wrapper.schema
        if "properties" not in self.schema:  # a dictionary; OpenAI refuses "object schema missing properties"
            self.schema = {"additionalProperties": True, **self.schema, "properties": {}}

    def extend(self, request: LLMRequest) -> None:
        """Adds to a request what asks for the type."""
        if self.mode == "tool":
            description = "Hand in the final answer. Call this once you know it; it ends the task."
            function = {"name": OUTPUT_TOOL, "description": description, "parameters": self.schema}
            request.tools = [*(request.tools or []), {"type": "function", "function": function}]
            # A forced call would keep the model from ever using its other tools.
            request.tool_choice = "required" if len(request.tools) == 1 else "auto"
        elif self.mode == "native":
            strict = strict_schema(self.schema)
            shape = {"name": OUTPUT_TOOL, "schema": self.schema} if strict is None else {"name": OUTPUT_TOOL, "strict": True, "schema": strict}
            request.response_format = {"type": "json_schema", "json_schema": shape}

    def instructions(self) -> str:
        """What mode `prompted` adds to the instructions; empty in the others."""
        if self.mode != "prompted":
            return ""
        schema = json.dumps(self.schema, ensure_ascii=False)
        return f"Answer with one JSON object that fits this JSON Schema, and with nothing else:\n{schema}"

    def answer_in(self, response: LLMResponse, calls: Iterable[ToolCall]) -> str | None:
        """The JSON text of the answer, or None when the response is not the final one."""
        call = next((call for call in calls if call.name == OUTPUT_TOOL), None) if self.mode == "tool" else None
        if call is not None:
            return call.arguments_text
        if response.tool_calls:
            return None
        return response.content or ""

    def parse(self, text: str) -> Any:
        """The value of an answer.

        Raises:
            Invalid: the text holds no JSON of the type; the message tells the model what to correct.
        """
        if not text.strip():
            raise Invalid("the answer is empty")
        problem: Invalid | None = None
        for candidate in _candidates(text):
            try:
                return self._parse_one(candidate)
            except Invalid as error:
                problem = problem or error
        if self.mode == "text":
            try:  # a word, a date: what a string of JSON would hold
                return self._schema.validate_json(json.dumps(text.strip()))
            except Invalid:
                pass
        assert problem is not None
        raise problem

    def _parse_one(self, text: str) -> Any:
        if self._wrapper is None:
            return self._schema.validate_json(text)
        try:
            return self._wrapper.validate_json(text).value
        except Invalid as error:
            problem = error
        try:
            return self._schema.validate_json(text)  # the bare value
        except Invalid as error:
            raise problem if _is_object_with_value(text) else error from None

    def check(self, value: Any) -> Any:
        """A validator's replacement value, validated again. Errors as `parse`."""
        return self._schema.validate(value)

    def correction(self, problem: str) -> str:
        """What the model is told when its answer does not fit."""
        how = f"Call {OUTPUT_TOOL} with a corrected answer." if self.mode == "tool" else "Answer again, corrected."
        return f"The answer does not fit:\n{problem}\n{how}"


def complaint(error: Exception) -> str | None:
    """What the model is told when a validator raises: the words of `Retry`, of a value that does not fit, and of
    ValueError and AssertionError, as in pydantic's own validators. None for errors that are not about the answer."""
    if isinstance(error, Retry | Invalid):
        return str(error)
    if isinstance(error, ErrorAgent) or not isinstance(error, ValueError | AssertionError):
        return None
    if callable(errors := getattr(error, "errors", None)) and type(error).__name__ == "ValidationError":
        return told(errors(include_url=False), UNKNOWN)
    return str(error) or "a check of the answer failed"


def _is_object_with_value(text: str) -> bool:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and "value" in value


def _rooted(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that says at its root what it is: that of a type which contains itself is a reference at first."""
    target = schema.get("$ref")
    if target is None:
        return schema
    root: dict[str, Any] = schema["$defs"][target.rpartition("/")[2]]
    return root | {key: value for key, value in schema.items() if key != "$ref"}


_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\r?\n(.*?)```", re.DOTALL)


def _candidates(text: str) -> Iterable[str]:
    """The whole text; when that is no JSON, what models wrap JSON in: a code fence, or prose around one value."""
    yield text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return
    yield from _FENCE.findall(text)
    for opening, closing in ("{}", "[]"):
        start, end = text.find(opening), text.rfind(closing)
        if 0 <= start < end:
            yield text[start : end + 1]


# ---- strict mode ----------------------------------------------------------------------------------------------------

# What strict mode takes (OpenAI's list, seen 2026-08); `title`, `default` and the like are refused or say nothing.
_STRICT_KEYWORDS = {
    "type", "properties", "required", "additionalProperties", "items", "anyOf", "enum", "const", "$ref", "$defs", "description",
    "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minItems", "maxItems",
}  # fmt: skip
_STRICT_FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}
_MEANINGS = {"type", "anyOf", "enum", "const", "$ref"}


class _NotStrict(Exception):
    """The schema says something that strict mode cannot say."""


def strict_schema(schema: dict[str, Any]) -> dict[str, Any] | None:
    """The schema as strict mode wants it, or None when it cannot be said there without changing its meaning."""
    try:
        return _strict(schema, schema.get("$defs", {}))
    except _NotStrict:
        return None


def _strict(given: Any, definitions: dict[str, Any], written_out: tuple[str, ...] = ()) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _NotStrict
    schema: dict[str, Any] = dict(given)
    if "discriminator" in schema and "oneOf" in schema:  # of such parts at most one can fit, so any of them is one of them
        del schema["discriminator"]
        schema["anyOf"] = schema.pop("oneOf")
    if len(schema.get("allOf", ())) == 1:
        schema |= schema.pop("allOf")[0]
    if "$ref" in schema and schema.keys() - {"$ref", "$defs"}:  # a reference must stand alone
        name = schema.pop("$ref").rpartition("/")[2]
        if name in written_out:  # a type that holds itself under a description: writing it out has no end
            raise _NotStrict
        written_out = (*written_out, name)
        schema = definitions[name] | schema
    if not schema.keys() <= _STRICT_KEYWORDS or not schema.keys() & _MEANINGS:
        raise _NotStrict
    if schema.get("format", "date") not in _STRICT_FORMATS:
        raise _NotStrict
    if schema.get("type") == "object":
        properties = schema.get("properties")
        if properties is None or schema.get("additionalProperties", False) is not False or set(schema.get("required", ())) != properties.keys():
            raise _NotStrict
        schema |= {"properties": {name: _strict(item, definitions, written_out) for name, item in properties.items()}}
        schema |= {"required": list(properties), "additionalProperties": False}
    if schema.get("type") == "array":
        schema["items"] = _strict(schema.get("items"), definitions, written_out)
    if "anyOf" in schema:
        schema["anyOf"] = [_strict(item, definitions, written_out) for item in schema["anyOf"]]
    if "$defs" in schema:
        schema["$defs"] = {name: _strict(item, definitions, written_out) for name, item in schema["$defs"].items()}
    return schema
