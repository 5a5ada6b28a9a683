"""Structured output: asking a model for a type, reading its answer, and what to tell it when the answer does not fit."""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from .annotations import known
from .errors import ErrorAgent, ErrorConfig, Retry
from .message import LLMRequest, LLMResponse, ToolCall
from .problems import UNKNOWN, told
from .schema import Invalid, TypeSchema

__all__ = ["OUTPUT_TOOL", "OutputMode", "OutputSpec", "check_mode", "check_type", "complaint", "output_spec", "strict_schema"]

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
    prose; of several values the last that fits is it. Nothing in a spec changes: it serves any number of runs at once.
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
        self._strict = strict_schema(self.schema) if self.mode == "native" else None

    def extend(self, request: LLMRequest) -> None:
        """Adds to a request what asks for the type."""
        if self.mode == "tool":
            description = "Hand in the final answer. Call this once you know it; it ends the task."
            function = {"name": OUTPUT_TOOL, "description": description, "parameters": self.schema}
            request.tools = [*(request.tools or []), {"type": "function", "function": function}]
            # A forced call would keep the model from ever using its other tools.
            request.tool_choice = "required" if len(request.tools) == 1 else "auto"
        elif self.mode == "native":
            strict = {} if self._strict is None else {"strict": True}
            shape = {"name": OUTPUT_TOOL, **strict, "schema": self._strict or self.schema}
            request.response_format = {"type": "json_schema", "json_schema": shape}

    def instructions(self) -> str:
        """What mode `prompted` adds to the instructions; empty in the others."""
        return f"Answer {self._in_words()}" if self.mode == "prompted" else ""

    def _in_words(self) -> str:
        """The type, where the model can know it from words only."""
        what, schema = ("JSON", self._schema.schema) if self.mode == "text" else ("one JSON object", self.schema)
        return f"with {what} that fits this JSON Schema, and with nothing else:\n{json.dumps(schema, ensure_ascii=False)}"

    def answers_in(self, response: LLMResponse, calls: Iterable[ToolCall]) -> list[str]:
        """The texts the answer may be: one for each call of the output tool, else the response's own.

        Empty when the response is not the final one.
        """
        if self.mode == "tool" and (answers := [call.arguments_text for call in calls if call.name == OUTPUT_TOOL]):
            return answers
        return [] if response.tool_calls else [response.content or ""]

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
            except Invalid as error:
                problem = problem or error
        raise problem or Invalid("expected JSON, and there is none in it")

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
        how = "Answer again, corrected."
        if self.mode == "tool":
            how = f"Call {OUTPUT_TOOL} with a corrected answer."
        elif self.mode in ("text", "prompted"):
            how = f"Answer again, {self._in_words()}"
        return f"The answer does not fit:\n{problem}\n{how}"


class _Same:
    """A type as a key: equal to itself only. `A | B == B | A`, though what fits both is read as the first; some types have no hash."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind

    def __hash__(self) -> int:
        return id(self.kind)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.kind is other.kind


@lru_cache(maxsize=64)
def _made(key: _Same, mode: str) -> OutputSpec:
    return OutputSpec(key.kind, mode)


def output_spec(kind: Any, mode: str = "auto") -> OutputSpec:
    """The OutputSpec of a type, kept for the next run: making one costs up to some milliseconds.

    Raises:
        ErrorConfig: no such mode, or no JSON Schema can be made for the type.
    """
    return _made(_Same(kind), mode)


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


# ---- JSON in prose ----------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"```[ \t]*\w*[ \t]*\r?\n(.*?)```", re.DOTALL)
_OPENING = re.compile(r'\{\s*["}]|\[\s*(?:["\[\]{]|-?\d|(?:true|false|null|NaN|-?Infinity)\b)')
"""Where a JSON object or array may begin. What prose has in brackets mostly does not match."""
_STEP = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|[][{}]', re.DOTALL)
_MOST_VALUES, _MOST_BROKEN = 100, 1000
"""Values that are tried, the last ones of the text, and broken ones after which nobody looks on: no answer has as many."""


def _candidates(text: str) -> list[str]:
    """The whole text; when that is no JSON, what stands in code fences and prose, the last first.

    What is broken is given only when nothing else is there, for its problem to be told. What stands inside of it is a
    part of an answer and must not be taken for one; nor must what stands before one that is never closed.
    """
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        pass
    else:
        return [text]
    decode = json.JSONDecoder().raw_decode
    found: deque[tuple[int, str]] = deque(maxlen=_MOST_VALUES)
    broken: list[str] = []
    position = 0
    while len(broken) < _MOST_BROKEN and (opening := _OPENING.search(text, position)):
        start = opening.start()
        try:
            position = decode(text, start)[1]
        except (ValueError, RecursionError):
            closed = _closing(text, start)
            position = closed or len(text)
            broken.append(text[start:position])
            if closed is None:
                found.clear()
        else:
            found.append((position, text[start:position]))
    fences = [(match.end(), match[1]) for match in _FENCE.finditer(text) if _is_scalar(match[1])]
    return [value for _, value in sorted([*found, *fences[-_MOST_VALUES:]], reverse=True)] or broken[-1:]


def _closing(text: str, start: int) -> int | None:
    """Where what a bracket opens has ended; None when it does not."""
    depth = 0
    for step in _STEP.finditer(text, start):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(step[0], 0)
        if depth == 0:
            return step.end()
    return None


def _is_scalar(text: str) -> bool:
    """Whether a text is JSON, but no object or array."""
    try:
        return not isinstance(json.loads(text), dict | list)
    except (ValueError, RecursionError):
        return False


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
