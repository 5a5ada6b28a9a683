"""Structured output: asking a model for a type, reading its answer, and what to tell it when the answer does not fit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Literal, get_args

from .errors import ErrorConfig
from .message import LLMRequest, LLMResponse, ToolCall
from .schema import Invalid, TypeSchema

__all__ = ["OUTPUT_TOOL", "OutputMode", "OutputSpec", "check_mode"]

OutputMode = Literal["auto", "tool", "native", "prompted", "text"]

OUTPUT_TOOL = "final_answer"
"""Name of the tool through which a model hands in a structured answer in mode `tool`."""

def check_mode(mode: str) -> None:
    """Raises ErrorConfig when there is no such mode."""
    if mode not in get_args(OutputMode):
        raise ErrorConfig(f"output_mode must be one of {', '.join(get_args(OutputMode))}; got {mode!r}")


class OutputSpec:
    """How one type is asked for and read.

    Modes: `tool` (and `auto`): the answer is the call of an extra tool, other tools stay callable before it. `native`:
    the provider's `response_format` holds the schema. `prompted`: the instructions hold it. `text`: nothing is said to
    the model; its text is read as the type.
    """

    def __init__(self, kind: Any, mode: str = "auto") -> None:
        check_mode(mode)
        self.kind = kind
        self.mode = "tool" if mode == "auto" else mode
        self._schema = TypeSchema(kind)
        # Tool arguments and strict JSON modes must be objects; anything else goes into one under `value`.
        self._wrapped = self._schema.schema.get("type") != "object"
        self.schema = self._schema.schema
        if self._wrapped:
            inner = dict(self.schema)
            definitions = inner.pop("$defs", None)
            self.schema = {"type": "object", "properties": {"value": inner}, "required": ["value"]}
            if definitions:
                self.schema["$defs"] = definitions

    def extend(self, request: LLMRequest) -> None:
        """Adds to a request what asks for the type."""
        if self.mode == "tool":
            description = "Hand in the final answer. Call this once you know it; it ends the task."
            function = {"name": OUTPUT_TOOL, "description": description, "parameters": self.schema}
            request.tools = [*(request.tools or []), {"type": "function", "function": function}]
            # A forced call would keep the model from ever using its other tools.
            request.tool_choice = "required" if len(request.tools) == 1 else "auto"
        elif self.mode == "native":
            shape = {"name": OUTPUT_TOOL, "schema": self.schema}
            request.response_format = {"type": "json_schema", "json_schema": shape}

    def instructions(self) -> str:
        """What mode `prompted` adds to the instructions; empty in the others."""
        if self.mode != "prompted":
            return ""
        schema = json.dumps(self.schema, ensure_ascii=False)
        return f"Answer with one JSON object that fits this JSON Schema, and with nothing else:\n{schema}"

    def answer_in(self, response: LLMResponse, calls: Iterable[ToolCall]) -> str | None:
        """The JSON text of the answer, or None when the response is not the final one."""
        call = next((call for call in calls if call.name == OUTPUT_TOOL), None)
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
        problem: Invalid | None = None
        for candidate in _candidates(text):
            try:
                return self._parse_one(candidate)
            except Invalid as error:
                problem = problem or error
        raise problem or Invalid("the answer is empty")

    def _parse_one(self, text: str) -> Any:
        if self._wrapped:
            try:
                outer = json.loads(text)
            except (ValueError, RecursionError):
                outer = text if self.mode == "text" else None
            if isinstance(outer, dict) and outer.keys() == {"value"}:
                return self._schema.validate_json(json.dumps(outer["value"]))
            if self.mode == "text" and self.kind is not str:
                try:
                    return self._schema.validate_json(text)
                except Invalid:
                    return self._schema.validate(text.strip())
        return self._schema.validate_json(text)

    def check(self, value: Any) -> Any:
        """A validator's replacement value, validated again. Errors as `parse`."""
        return self._schema.validate(value)

    def correction(self, problem: str) -> str:
        """What the model is told when its answer does not fit."""
        how = f"Call {OUTPUT_TOOL} again with a corrected answer." if self.mode == "tool" else "Answer again, corrected."
        return f"The answer does not fit:\n{problem}\n{how}"


_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def _candidates(text: str) -> Iterable[str]:
    """The whole text, then what models wrap JSON in: a code fence, or prose around one object."""
    yield text
    if fenced := _FENCE.search(text):
        yield fenced.group(1)
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end and (start, end) != (0, len(text) - 1):
        yield text[start : end + 1]
