"""One contract, every model and every layer (see `agentroute.models.base`)."""

import asyncio

import pytest

from agentroute import LLMRequest, Message, ModelCloud, ModelFallback, ToolCall
from agentroute.errors import ErrorModelServer
from agentroute.models.prompted_tools import ModelPromptedTools
from agentroute.testing import ModelScripted, check_model
from tests.server import ModelServer

TOOL = {"type": "function", "function": {"name": "f", "description": "F.", "parameters": {"type": "object", "properties": {}}}}
ANSWERS = {
    "text": "A short answer, \u2028 with “all” sorts of 🦊 characters.",
    "one call": ToolCall("a", "f", {"x": 1}),
    "two calls": [ToolCall("a", "f", {"x": "é"}), ToolCall("b", "g", {})],
}


@pytest.fixture(params=list(ANSWERS))
def answer(request):
    return ANSWERS[request.param]


def request(**options) -> LLMRequest:
    return LLMRequest("m", [Message("user", "go")], **options)


def test_model_cloud(answer):
    with ModelServer([answer], repeat=True) as server:
        asyncio.run(check_model(lambda: ModelCloud(model_id="m", base_url=server.base_url), request(tools=[TOOL])))


def test_model_scripted(answer):
    asyncio.run(check_model(lambda: ModelScripted([answer] * 6), request()))


def test_model_fallback(answer):
    broken = ErrorModelServer("down", status=503)
    asyncio.run(check_model(lambda: ModelFallback([ModelScripted([broken] * 6), ModelScripted([answer] * 6)]), request()))


@pytest.mark.parametrize("text", ['{"answer": "It is “done” \\ud83e\\udd8a"}', '{"tool": "f", "arguments": {}}'])
def test_model_prompted_tools(text):
    asyncio.run(check_model(lambda: ModelPromptedTools(ModelScripted([text] * 6)), request(tools=[TOOL])))


@pytest.mark.slow
def test_model_local(smollm2):
    from agentroute import resolve_model

    question = LLMRequest("m", [Message("user", "Say hello.")], max_tokens=16, temperature=0.0, extra={"seed": 1})
    asyncio.run(check_model(lambda: resolve_model(f"local/{smollm2}"), question, exact=False))
