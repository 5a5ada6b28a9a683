"""Facts offered to the model: Agent(memory_tools=True)."""

import asyncio
import json

import pytest

from agentroute import Agent, ErrorConfig, Memory, MemorySQLite, ToolCall
from agentroute.testing import ModelScripted

SCRIPT = [
    ToolCall("1", "remember", {"key": "colour", "value": "The user's favourite colour is green."}),
    ToolCall("2", "recall", {"query": "what is my favourite colour?"}),
    "It is green.",
]


def memories(tmp_path):
    return {"ram": Memory(), "file": MemorySQLite(tmp_path / "agent.db")}


@pytest.mark.parametrize("kind", ["ram", "file"])
def test_the_model_keeps_and_finds_facts(tmp_path, kind):
    memory = memories(tmp_path)[kind]
    result = Agent("a", model=ModelScripted(SCRIPT), memory=memory, memory_tools=True).run("Remember that I like green.")
    told = [message["content"] for message in result.messages if message["role"] == "tool"]
    assert told == ["Kept.", '["The user\'s favourite colour is green."]']
    assert asyncio.run(memory.recall("colour")) == ["The user's favourite colour is green."]


def test_the_model_can_forget():
    memory = Memory()
    asyncio.run(memory.remember("colour", "green"))
    Agent("a", model=ModelScripted([ToolCall("1", "forget", {"key": "colour"}), "ok"]), memory=memory, memory_tools=True).run("Forget it.")
    assert asyncio.run(memory.recall("")) == []


def test_the_tools_are_offered_beside_the_agents_own():
    def add(a: int, b: int) -> int:
        return a + b

    model = ModelScripted(["hi"])
    agent = Agent("a", model=model, memory=Memory(), memory_tools=True, tools=[add])
    agent.run("hi")
    assert [tool["function"]["name"] for tool in model.requests[0].tools] == ["remember", "recall", "forget", "add"]
    parameters = model.requests[0].tools[0]["function"]["parameters"]
    assert parameters["required"] == ["key", "value"]


def test_a_copy_has_them_once_or_no_longer():
    agent = Agent("a", memory=Memory(), memory_tools=True)
    assert list(agent.replace(name="b").tools_map) == ["remember", "recall", "forget"]
    assert agent.replace(memory_tools=False).tools == []


def test_facts_are_shared_by_conversations_and_messages_are_not():
    memory = Memory()
    agent = Agent("a", model=ModelScripted([SCRIPT[0], "ok", SCRIPT[1], "green"]), memory=memory, memory_tools=True)
    agent.run("I like green.", session_id="monday")
    result = agent.run("What do I like?", session_id="tuesday")
    assert [message["role"] for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.messages[2]["content"] == '["The user\'s favourite colour is green."]'


def test_a_tool_of_the_same_name_is_refused():
    def remember(key: str) -> str:
        return key

    with pytest.raises(ErrorConfig, match="another tool named 'remember'"):
        Agent("a", memory=Memory(), memory_tools=True, tools=[remember])


def test_they_need_a_memory():
    with pytest.raises(ErrorConfig, match="memory_tools=True needs a memory"):
        Agent("a", memory_tools=True)


@pytest.mark.parametrize("kind", ["ram", "file"])
@pytest.mark.parametrize(
    ("arguments", "count", "note"),
    [
        ({"query": ""}, 10, ["(only the first 10; there are more: ask with other words, or with a larger limit)"]),
        ({"query": "fact", "limit": 14}, 14, ["(only the first 14; there are more: ask with other words, or with a larger limit)"]),
        ({"query": "", "limit": 15}, 15, []),
        ({"query": "", "limit": 10**20}, 15, []),
        ({"query": "", "limit": 0}, 1, ["(only the first 1; there are more: ask with other words, or with a larger limit)"]),
    ],
)
def test_the_model_is_told_when_there_are_more_facts_than_it_was_given(tmp_path, kind, arguments, count, note):
    memory = memories(tmp_path)[kind]
    for number in range(15):
        asyncio.run(memory.remember(f"k{number}", f"fact {number}"))
    model = ModelScripted([ToolCall("1", "recall", arguments), "ok"])
    result = Agent("a", model=model, memory=memory, memory_tools=True).run("What do you know?")
    assert json.loads(result.messages[-2]["content"]) == [*(f"fact {number}" for number in range(count)), *note]


def test_they_need_a_memory_that_keeps_facts():
    class Messages:
        async def get_messages(self, limit=None):
            return []

        async def add_messages(self, messages):
            return None

        async def remember(self, key, value):
            return None

    with pytest.raises(ErrorConfig, match="memory_tools=True needs a memory with the methods remember, recall, forget; Messages lacks recall, forget"):
        Agent("a", memory=Messages(), memory_tools=True)
    assert Agent("a", memory=Messages()).tools == []
