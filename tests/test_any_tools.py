"""Tools with endpoints that take none: asked for in words, once found out."""

import json
from typing import Any

import pytest

from agentroute import Agent, ErrorModelRequest, Price, tool
from agentroute.models import any_tools
from tests.server import ModelServer, Raw

REFUSALS = {
    "ollama": (400, "registry.ollama.ai/library/gemma:2b does not support tools"),
    "openrouter": (404, "No endpoints found that support tool use."),
    "vllm": (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
}


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(any_tools, "asked_in_words", {})
    monkeypatch.setattr("agentroute.models.retry.BASE_S", 0.0)


def toolless(status: int, words: str) -> Any:
    """An endpoint that refuses tools, and answers in words as it is told to."""

    def answer(body: dict[str, Any]) -> Any:
        if "tools" in body:
            return Raw(status, [json.dumps({"error": {"message": words}}).encode()])
        told = str(body["messages"][-1]["content"])
        return '{"answer": "It is 3."}' if "Result of add: 3" in told else '{"tool": "add", "arguments": {"a": 1, "b": 2}}'

    return answer


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("refusal", REFUSALS)
def test_tools_work_where_the_endpoint_takes_none(refusal, stream):
    with ModelServer([toolless(*REFUSALS[refusal])], repeat=True) as server:
        agent = Agent("a", model=server.model, tools=[add])
        with pytest.warns(RuntimeWarning, match="test-model takes no tools there: it is asked for tool calls in words"):
            result = _run(agent, stream)
        assert (result.output, result.record.tool_calls[0].result_text) == ("It is 3.", "3")
        assert ["tools" in body for body in server.requests] == [True, False, False]
        _run(agent, stream)  # found out once, and told once
        assert ["tools" in body for body in server.requests][3:] == [False, False]


def _run(agent: Agent, stream: bool) -> Any:
    if not stream:
        return agent.run("What is 1 + 2?")
    events = agent.stream("What is 1 + 2?")
    assert [event.kind for event in events][-1] == "agent_end"
    return events.result


@pytest.mark.filterwarnings("ignore:test-model takes no tools:RuntimeWarning")
def test_every_call_is_counted_once_and_under_the_limit():
    with ModelServer([toolless(*REFUSALS["ollama"])], repeat=True, usage={"prompt_tokens": 100, "completion_tokens": 10}) as server:
        result = Agent("a", model=server.model, tools=[add], price=Price(1, 10), max_cost=0.5).run("What is 1 + 2?")
    assert (result.usage.model_calls, result.usage.total_cost_usd) == (2, pytest.approx(0.0004))


def test_other_refusals_are_errors_as_before():
    with ModelServer([Raw(400, [b'{"error":{"message":"the tool named add is not a good idea"}}'])], repeat=True) as server:
        with pytest.raises(ErrorModelRequest, match="not a good idea"):
            Agent("a", model=server.model, tools=[add]).run("go")
        assert len(server.requests) == 1
