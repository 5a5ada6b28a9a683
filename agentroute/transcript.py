"""What of a run goes into its conversation: the assistant's message as it is sent back, and what a memory keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .message import LLMResponse, Message, ToolCall
from .result_text import result_text

__all__ = ["answer_text", "echo", "memorable"]


def memorable(own: Sequence[Message], why: str) -> list[Message]:
    """What a memory keeps of a run's own messages: roles that take turns, every tool call answered.

    Where there is no answer, a note stands in the assistant's place; `why` says why there is none.
    """
    own = [message for message in own if message.role != "assistant" or message.tool_calls or message.text]
    answered = {message.tool_call_id for message in own if message.role == "tool"}
    kept: list[Message] = []
    for message in own:
        if not all(call.get("id") in answered for call in message.tool_calls or ()):
            break
        if message.role == "user" and kept and kept[-1].role == "user":
            continue  # a correction of an empty answer, which is not kept either
        kept.append(message)
    while len(kept) > 1 and kept[-1].role == "user":  # a correction that was never answered
        kept.pop()
    if kept and kept[-1].role != "assistant":
        kept.append(Message("assistant", f"(no answer: {why})" if why else "(no text)"))
    return kept


def answer_text(output: Any) -> str:
    """A final answer as text."""
    if isinstance(output, str):
        return output
    try:
        return result_text(output)
    except TypeError:  # a validator may return anything
        return f"({type(output).__name__})"


def echo(response: LLMResponse) -> Message:
    """The assistant message to send back: arguments that are no JSON object become `{}`, or servers refuse them."""
    message = response.to_message()
    if response.refusal and not message.content:
        message.content = response.refusal
    for position, wire in enumerate(message.tool_calls or []):
        call = ToolCall.from_wire(wire)
        try:
            usable = isinstance(json.loads(call.arguments_text), dict)
        except (ValueError, RecursionError):
            usable = False
        if not usable or not isinstance(wire.get("function", {}).get("arguments"), str):
            arguments = call.arguments_text if usable else "{}"
            message.tool_calls[position] = {**wire, "function": {"name": call.name, "arguments": arguments}}  # type: ignore[index]
    return message
