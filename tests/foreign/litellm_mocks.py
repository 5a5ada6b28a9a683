"""Runs inside the LiteLLM proxy: what its models answer where that depends on the request, by the name of the model."""

import json
import os
import sys
import threading
from typing import Any, NamedTuple

import litellm
from litellm.integrations.custom_logger import CustomLogger
from litellm.types.utils import Choices, Message, ModelResponse, Usage

ROOM = 4_000
"""Characters of conversation that the model `context` has room for."""


class Answer(NamedTuple):
    content: str | None
    finish_reason: str = "stop"
    tool_calls: list[dict[str, Any]] | None = None


def _calls(*calls):
    wires = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls, 1)
    ]
    return Answer(None, "tool_calls", wires)


def _results(data):
    return " ".join(message["content"] for message in data["messages"] if message["role"] == "tool")


def tools(data):
    return Answer(_results(data)) if _results(data) else _calls(("order_status", {"order_id": 4821}))


def two_tools(data):
    return Answer(_results(data)) if _results(data) else _calls(("order_status", {"order_id": 4821}), ("order_status", {"order_id": 17}))


def typed(data):
    """A typed answer where the request has asked for one in any way, and in that way."""
    answer = json.dumps({"city": "Paris"})
    if data.get("tools"):
        return _calls((data["tools"][0]["function"]["name"], {"city": "Paris"}))
    if data.get("response_format", {}).get("type") == "json_schema":
        return Answer(answer)
    asked = any("JSON Schema" in message["content"] for message in data["messages"])
    return Answer(f"Here it is:\n```json\n{answer}\n```" if asked else "Paris, I think.")


def cut(data):
    return Answer(" ".join(["word"] * data["max_tokens"]), "length")


def memory(data):
    return Answer(" | ".join(message["content"] for message in data["messages"] if message["role"] == "user"))


def context(data):
    length = sum(len(message["content"]) for message in data["messages"])
    return "litellm.ContextWindowExceededError" if length > ROOM else Answer("It fits.")


def endless(data):
    return "and so on, " * 1_000


ANSWERS = {function.__name__: function for function in (tools, two_tools, typed, cut, memory, context, endless)}


class Mocks(CustomLogger):
    async def async_pre_call_hook(self, user_api_key_dict, cache, data, call_type):
        if data["model"] in ANSWERS:
            answer = ANSWERS[data["model"]](data)
            # A text is an error's name, or is streamed in pieces, with made-up usage; a response comes in one piece.
            data["mock_response"] = answer if isinstance(answer, str) else _response(data, answer)
        return data


def _response(data, answer):
    message = Message(role="assistant", content=answer.content, tool_calls=answer.tool_calls)
    said = f"{answer.content or ''}{answer.tool_calls or ''}"
    counts = litellm.token_counter(model="mock", messages=data["messages"]), litellm.token_counter(model="mock", text=said)
    usage = Usage(prompt_tokens=counts[0], completion_tokens=counts[1], total_tokens=sum(counts))
    return ModelResponse(model=data["model"], choices=[Choices(index=0, message=message, finish_reason=answer.finish_reason)], usage=usage)


def _end_with_parent():
    """The proxy's standard input is a pipe of the test's; its end means that the test process is gone."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os._exit(0)


threading.Thread(target=_end_with_parent, daemon=True).start()
mocks = Mocks()
